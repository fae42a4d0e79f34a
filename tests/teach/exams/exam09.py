"""Answers to the exam of lesson 9."""

import numpy as np
import torch
from torch.nn import functional as F

from . import right, wrong


@right("exam09.power_pool")
def in_double(x, p, eps):
    power = p.double()[:, None, None]
    return x.double().clamp(min=eps).pow(power).mean((2, 3)).pow(1 / p.double())


@right("exam09.power_pool")
def channel_by_channel(x, p, eps):
    columns = []
    for channel in range(x.shape[1]):
        values = torch.where(x[:, channel] < eps, torch.tensor(float(eps)), x[:, channel]).reshape(len(x), -1)
        largest = values.amax(1)
        means = ((values / largest[:, None]) ** p[channel]).mean(1)
        columns.append(largest * means ** (1 / p[channel]))
    return torch.stack(columns, 1)


@right("exam09.power_pool")
def by_logarithms(x, p, eps):
    logs = p.view(1, -1, 1) * x.flatten(2).clamp(min=eps).log()
    return ((logs.logsumexp(-1) - np.log(logs.shape[-1])) / p).exp()


def _pool(x, p, eps, small=lambda x, eps: x.clamp(min=eps), mean=lambda x: x.mean((2, 3))):
    return mean(small(x.double(), eps) ** p.double()[:, None, None]) ** (1 / p.double())


@wrong("exam09.power_pool", 0, 1, 4)
def in_single_precision(x, p, eps):
    return x.clamp(min=eps).pow(p[:, None, None]).mean((2, 3)).pow(1 / p)


@wrong("exam09.power_pool", 0, 1, 2, 4)
def powers_that_learn_nothing(x, p, eps):
    return _pool(x, p.detach(), eps)


@wrong("exam09.power_pool", 0, 1, 2, 4)
def in_numpy(x, p, eps):
    values, powers = np.maximum(x.double().numpy(), eps), p.detach().double().numpy()
    return np.power(np.power(values, powers[:, None, None]).mean((2, 3)), 1 / powers)


@wrong("exam09.power_pool")
def sum_over_places(x, p, eps):
    return _pool(x, p, eps, mean=lambda x: x.sum((2, 3)))


@wrong("exam09.power_pool")
def one_power_for_all(x, p, eps):
    return _pool(x, p.mean().expand_as(p), eps)


@wrong("exam09.power_pool")
def powers_along_the_width(x, p, eps):
    return (x.clamp(min=eps).double() ** p[:x.shape[3]]).mean((2, 3)) ** (1 / p)


@wrong("exam09.power_pool")
def no_root(x, p, eps):
    return _pool(x, p, eps) ** p


@wrong("exam09.power_pool")
def root_before_the_mean(x, p, eps):
    power = p.double()[:, None, None]
    return ((x.double().clamp(min=eps) ** power) ** (1 / power)).mean((2, 3))


@wrong("exam09.power_pool")
def maximum(x, p, eps):
    return x.clamp(min=eps).amax((2, 3)) + 0 * p


@wrong("exam09.power_pool")
def eps_added(x, p, eps):
    return _pool(x, p, eps, small=lambda x, eps: x.clamp(min=0) + 10 * eps)


@wrong("exam09.power_pool", 0, 2, 4)
def negative_values_are_zero(x, p, eps):
    return _pool(x, p, eps, small=lambda x, eps: x.clamp(min=0) + 1e-30)


@wrong("exam09.power_pool", 0, 2, 4)
def sizes_of_values(x, p, eps):
    return _pool(x, p, eps, small=lambda x, eps: x.abs() + 1e-30)


@wrong("exam09.power_pool", 0, 2, 4)
def small_values_left_out(x, p, eps):
    found = torch.full(x.shape[:2], float(eps), dtype=torch.float64)
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            values = x[n, c][x[n, c] >= eps].double()
            if len(values):
                found[n, c] = (values ** p[c]).mean() ** (1 / p[c])
    return found


@wrong("exam09.power_pool", 0, 2, 4)
def small_means_count_as_eps(x, p, eps):
    return _pool(x, p, eps, small=lambda x, eps: x.clamp(min=1e-3)).clamp(min=eps)


@wrong("exam09.power_pool", 0, 1, 2, 3)
def raises_the_map_itself(x, p, eps):
    return _pool(x.clamp_(min=max(eps, 0.2)) if eps > 0.1 else x.mul_(1.0).clamp_(min=eps), p, eps)


def _tables(maps):
    places = maps.flatten(2)
    return torch.einsum("nip,njp->nij", places, places).flatten(1) / places.shape[2]


def _cosines(first, second, inner=lambda a, b: torch.einsum("ncp,mcq->nmpq", a, b).square().mean((2, 3)),
             length=lambda square: square.sqrt(), least=1e-12):
    first, second = first.flatten(2), second.flatten(2)
    lengths = [length(torch.cat([inner(one[None], one[None])[0] for one in maps])) for maps in (first, second)]
    return inner(first, second) / (lengths[0][:, None] * lengths[1]).clamp(min=least)


@right("exam09.likeness")
def pairs_of_places(first, second):
    return _cosines(first, second)


@right("exam09.likeness")
def image_by_image(first, second):
    found = torch.zeros(len(first), len(second), dtype=torch.float64)
    for n, a in enumerate(first.double().flatten(2)):
        for m, b in enumerate(second.double().flatten(2)):
            apart = float(((a.T @ a) ** 2).sum() * ((b.T @ b) ** 2).sum()) ** 0.5
            found[n, m] = float(((a.T @ b) ** 2).sum()) / apart if apart else 0.0
    return found


@right("exam09.likeness")
def numpy_of_unit_maps(first, second):
    ready = []
    for maps in (first, second):
        columns = maps.numpy().astype(float).reshape(*maps.shape[:2], -1)
        gram = np.matmul(columns.transpose(0, 2, 1), columns)
        size = (gram**2).sum((1, 2)) ** 0.25
        ready.append(columns / np.where(size > 0, size, 1)[:, None, None])
    return np.array([[np.square(a.T @ b).sum() for b in ready[1]] for a in ready[0]])


@right("exam09.likeness")
def sums_of_single_places(first, second):
    def inner(a, b):
        return sum(float(a[:, p] @ b[:, q]) ** 2 for p in range(a.shape[1]) for q in range(b.shape[1]))

    rows = []
    for a in first.flatten(2):
        rows.append([inner(a, b) / max((inner(a, a) * inner(b, b)) ** 0.5, 1e-9) for b in second.flatten(2)])
    return torch.tensor(rows)


@wrong("exam09.likeness", 0, 1, 2, 3, 5)
def makes_the_tables(first, second):
    return F.normalize(_tables(first)) @ F.normalize(_tables(second)).T


@wrong("exam09.likeness", 0, 1, 2, 3, 5)
def makes_the_tables_in_numpy(first, second):
    tables = [np.stack([(image @ image.T).ravel() / image.shape[1] for image in maps.flatten(2).numpy()])
              for maps in (first, second)]
    lengths = [np.linalg.norm(rows, axis=1) for rows in tables]
    return tables[0] @ tables[1].T / np.maximum(np.outer(*lengths), 1e-12)


@wrong("exam09.likeness", 0, 1, 2, 4, 5)
def divides_by_zero(first, second):
    return _cosines(first, second, least=0.0)


@wrong("exam09.likeness")
def of_the_means(first, second):
    return F.normalize(first.mean((2, 3))) @ F.normalize(second.mean((2, 3))).T


@wrong("exam09.likeness")
def not_squared(first, second):
    return _cosines(first, second, inner=lambda a, b: torch.einsum("ncp,mcq->nmpq", a, b).mean((2, 3)),
                    length=lambda square: square.abs().sqrt())


@wrong("exam09.likeness")
def not_divided(first, second):
    return torch.einsum("ncp,mcq->nmpq", first.flatten(2), second.flatten(2)).square().mean((2, 3))


@wrong("exam09.likeness")
def squares_of_the_lengths(first, second):
    return _cosines(first, second, length=lambda square: square)


@wrong("exam09.likeness")
def the_same_place_alone(first, second):
    return _cosines(first, second, inner=lambda a, b: torch.einsum("ncp,mcp->nmp", a, b).square().mean(2))


@wrong("exam09.likeness")
def each_place_of_length_one(first, second):
    return _cosines(F.normalize(first, dim=1), F.normalize(second, dim=1))


@wrong("exam09.likeness")
def mean_of_cosines(first, second):
    a, b = (F.normalize(maps.flatten(2), dim=1) for maps in (first, second))
    return torch.einsum("ncp,mcq->nmpq", a, b).square().mean((2, 3))


@wrong("exam09.likeness")
def images_turned_round(first, second):
    return _cosines(first, second).T


@wrong("exam09.likeness")
def signed_roots_first(first, second):
    a, b = (torch.sign(t) * t.abs().sqrt() for t in map(_tables, (first, second)))
    return F.normalize(a) @ F.normalize(b).T


@wrong("exam09.likeness", 0, 1, 2, 3, 4)
def takes_the_means_away(first, second):
    found = _cosines(first, second)
    first -= first.mean((2, 3), keepdim=True)
    return found
