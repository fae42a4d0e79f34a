"""Students' answers to the exercises of lesson 9."""

import random

import numpy as np
import torch
import torch.nn.functional as F

from . import right, wrong


@right("09.pool_products")
def batched_product(x):
    n, c, h, w = x.shape
    places = x.reshape(n, c, h * w)
    return torch.bmm(places, places.transpose(1, 2)).div(h * w).reshape(n, -1)


@right("09.pool_products")
def outer_then_mean(x):
    return (x[:, :, None] * x[:, None]).mean(dim=(-2, -1)).flatten(start_dim=1).numpy()


@wrong("09.pool_products", "the shape is (2, 2, 2) and should be (2, 4)")
def not_flattened(x):
    return (x[:, :, None] * x[:, None]).mean((-2, -1))


@wrong("09.pool_products", "the shape is (2, 3) and should be (2, 4)")
def upper_half(x):
    table = not_flattened(x)
    i, j = torch.triu_indices(x.shape[1], x.shape[1])
    return table[:, i, j]


@wrong("09.pool_products", "the shape is (2, 2) and should be (2, 4)")
def squares_only(x):
    return x.square().mean((2, 3))


@wrong("09.pool_products", "8 of 8 numbers differ, the first at [0, 0]: 0.25 in place")
def means_removed(x):
    x = x - x.mean((2, 3), keepdim=True)
    return batched_product(x)


@right("09.normalise")
def by_hand(x, eps):
    root = torch.where(x < 0, -1.0, 1.0) * x.abs() / torch.sqrt(x.abs() + eps)
    length = (root * root).sum(dim=1, keepdim=True).clamp(min=1e-24).sqrt()
    return root / length


@wrong("09.normalise", "at 'values': 2 of 3 numbers differ, the first at [0, 0]:")
def root_only(x, eps):
    return x / (x.abs() + eps).sqrt()


@wrong("09.normalise", "at 'values': 2 of 3 numbers differ, the first at [0, 0]:")
def length_only(x, eps):
    return F.normalize(x, dim=1)


@wrong("09.normalise", "at 'all slopes are finite': False in place of True")
def eps_outside(x, eps):
    return F.normalize(x / (x.abs().sqrt() + eps), dim=1)


@wrong("09.normalise", "at 'values': 3 of 3 numbers differ, the first at [0, 0]:")
def square_root_of_negative(x, eps):
    return F.normalize((x + eps).sqrt(), dim=1)


@wrong("09.normalise", "It runs, but what `normalise` gives back or leaves behind")
def no_way_back(x, eps):
    return by_hand(x.detach(), eps)


@right("09.count_sketch")
def as_a_matrix(x, buckets, signs, dim):
    return x @ (F.one_hot(buckets, dim) * signs[:, None])


@right("09.count_sketch")
def numpy_add_at(x, buckets, signs, dim):
    sketch = np.zeros((dim, len(x)))
    np.add.at(sketch, buckets.numpy(), (x * signs).T.numpy())
    return torch.from_numpy(sketch.T)


@right("09.count_sketch")
def scattered(x, buckets, signs, dim):
    return torch.zeros(x.shape[0], dim).scatter_add_(1, buckets.expand_as(x), signs * x)


@wrong("09.count_sketch", "changes one of its arguments")
def signs_in_place(x, buckets, signs, dim):
    x *= signs
    return torch.zeros(len(x), dim).index_add_(1, buckets, x)


@wrong("09.count_sketch", "Where several entries meet, only one of them is left")
def scatter(x, buckets, signs, dim):
    return torch.zeros(x.shape[0], dim).scatter(1, buckets.expand_as(x), signs * x)


@wrong("09.count_sketch", "the shape is (4, 1) and should be (1, 4)")
def transposed_sketch(x, buckets, signs, dim):
    return as_a_matrix(x, buckets, signs, dim).T


@wrong("09.count_sketch", "2 of 6 numbers differ, the first at [0, 1]: -11 in place")
def all_rows_together(x, buckets, signs, dim):
    return as_a_matrix(x, buckets, signs, dim).sum(0, keepdim=True).expand(len(x), -1)


@right("09.tensor_sketch")
def double_loop(first, second):
    d = first.shape[-1]
    sketch = torch.zeros(*first.shape)
    for i in range(d):
        for j in range(d):
            sketch[..., (i + j) % d] += first[..., i] * second[..., j]
    return sketch.mean(dim=1)


@right("09.tensor_sketch")
def full_transform(first, second):
    a, b = np.fft.fft(first.numpy()), np.fft.fft(second.numpy())
    return np.fft.ifft(a * b).real.mean(1)


@wrong("09.tensor_sketch", "'complex' in place of 'real'")
def complex_result(first, second):
    return torch.fft.ifft(torch.fft.fft(first) * torch.fft.fft(second)).mean(1)


@wrong("09.tensor_sketch", "4 of 4 numbers differ, the first at [0, 0]: 0 in place of")
def over_the_places(first, second):
    return torch.fft.ifft(torch.fft.fft(first, dim=1) * torch.fft.fft(second, dim=1), dim=1).real.mean(1)


@wrong("09.tensor_sketch", "the shape is (1, 1, 4) and should be (1, 4)")
def places_kept(first, second):
    return torch.fft.irfft(torch.fft.rfft(first) * torch.fft.rfft(second), n=first.shape[-1])


@wrong("09.tensor_sketch", "3 of 4 numbers differ, the first at [0, 0]: 1 in place of")
def transforms_added(first, second):
    return torch.fft.irfft((torch.fft.rfft(first) + torch.fft.rfft(second)).mean(1), n=first.shape[-1])


@right("09.shortest_sketch")
def with_numpy(x, y, tables, lengths, goal):
    spreads = []
    for length in lengths:
        found = []
        for buckets, signs in tables:
            place = (buckets % length).numpy()
            a, b = (np.bincount(place, (v * signs).numpy(), length) for v in (x, y))
            found.append(a @ b)
        spreads.append(np.std(found, ddof=1))
    good = [length for length, spread in zip(lengths, spreads, strict=True) if spread <= goal]
    return tuple(spreads), min(good) if good else None


@wrong("09.shortest_sketch", "The spreads are right, but you give the first length of")
def first_in_the_list(x, y, tables, lengths, goal):
    spreads, _ = with_numpy(x, y, tables, lengths, goal)
    return spreads, next((n for n, s in zip(lengths, spreads, strict=True) if s <= goal), lengths[-1])


@wrong("09.shortest_sketch", "at [0]: at [0]: 7 in place of 9.8995")
def population(x, y, tables, lengths, goal):
    spreads, best = with_numpy(x, y, tables, lengths, goal)
    return [s * ((len(tables) - 1) / len(tables)) ** 0.5 for s in spreads], best


@wrong("09.shortest_sketch", "at [0]: at [2]: 4.94975 in place of 0")
def divided_not_modulo(x, y, tables, lengths, goal):
    return with_numpy(x, y, [(b // 2, s) for b, s in tables], lengths, goal)


@wrong("09.shortest_sketch", "only what belongs at [1] comes back; 2 things are wanted")
def length_alone(x, y, tables, lengths, goal):
    return with_numpy(x, y, tables, lengths, goal)[1]


@wrong("09.shortest_sketch", "at [1]: 0 in place of 4")
def spread_in_place_of_length(x, y, tables, lengths, goal):
    spreads, best = with_numpy(x, y, tables, lengths, goal)
    return spreads, None if best is None else min(spreads)


@right("09.make_tables")
def numpy_generator(channels, dim, seed):
    rng = np.random.default_rng(seed)
    return [(torch.from_numpy(rng.integers(0, dim, channels)), torch.from_numpy(rng.choice([-1.0, 1.0], channels)))
            for _ in range(2)]


@right("09.make_tables")
def forked(channels, dim, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return tuple([torch.randint(0, dim, [channels]), 1 - 2 * torch.randint(0, 2, [channels])] for _ in range(2))


@right("09.make_tables")
def two_generators(channels, dim, seed):
    chances = random.Random(seed), random.Random(f"second {seed}")
    return [(torch.tensor([c.randrange(dim) for _ in range(channels)]),
             torch.tensor([c.choice([-1.0, 1.0]) for _ in range(channels)])) for c in chances]


@wrong("09.make_tables", "The tables are right, but you set the random numbers of")
def numpy_seeded(channels, dim, seed):
    np.random.seed(seed)
    return [(torch.from_numpy(np.random.randint(0, dim, channels)),
             torch.from_numpy(np.random.choice([-1.0, 1.0], channels))) for _ in range(2)]


@wrong("09.make_tables", "Both tables are the same")
def generator_in_the_loop(channels, dim, seed):
    tables = []
    for _ in range(2):
        chance = torch.Generator().manual_seed(seed)
        tables.append((torch.randint(dim, (channels,), generator=chance),
                       torch.randint(2, (channels,), generator=chance) * 2 - 1))
    return tables


@wrong("09.make_tables", "at 'signs': at [0]: 0 in place of -1")
def signs_zero_and_one(channels, dim, seed):
    chance = torch.Generator().manual_seed(seed)
    return [(torch.randint(dim, (channels,), generator=chance), torch.randint(2, (channels,), generator=chance))
            for _ in range(2)]


@wrong("09.make_tables", "Both tables are the same")
def neighbouring_seeds(channels, dim, seed):
    """The second table of a seed is the first of the next: two pairs of tables share one."""
    one = lambda s: forked(channels, dim, s)[0]
    return [one(seed), one(seed)]


@wrong("09.make_tables", "at 'buckets are in range': False in place of True")
def buckets_from_one(channels, dim, seed):
    return [(buckets + 1, signs) for buckets, signs in forked(channels, dim, seed)]


@right("09.pool_products")
def matrix_product(x):
    flat = x.flatten(2)
    return (flat @ flat.mT / flat.shape[-1]).reshape(len(x), -1)


@wrong("09.pool_products", "You add up over the places and do not divide: twice as")
def not_divided(x):
    places = x.flatten(2)
    return torch.einsum("nip,njp->nij", places, places).flatten(1)


@wrong("09.pool_products", "You average first and multiply the averages. Then together")
def means_first(x):
    m = x.mean(dim=(2, 3))
    return (m[:, :, None] * m[:, None, :]).reshape(len(x), -1)


@right("09.normalise")
def with_where(x, eps):
    root = x / torch.sqrt(torch.abs(x) + eps)
    return root / torch.linalg.norm(root + 0, dim=1, keepdim=True).clamp_min(1e-12)


@right("09.normalise")
def row_by_row(x, eps):
    rows = []
    for row in x:
        r = row / (row.abs() + eps) ** 0.5
        rows.append(r / (r.pow(2).sum() + 1e-20).sqrt())
    return torch.stack(rows)


@wrong("09.normalise", "You divide by the length over the *batch*: each column has")
def along_the_batch(x, eps):
    return F.normalize(x / (x.abs() + eps).sqrt(), dim=0)


@wrong("09.count_sketch", "Where several entries meet, only one of them is left: `+=`")
def index_put_without_adding(x, buckets, signs, dim):
    out = torch.zeros(len(x), dim)
    out[:, buckets] = x * signs
    return out


@wrong("09.count_sketch", "The signs are missing. Without them, entries that meet by")
def signs_forgotten(x, buckets, signs, dim):
    return torch.zeros(len(x), dim).index_add(1, buckets, x)


@right("09.tensor_sketch")
def via_outer_products(first, second):
    n, places, d = first.shape
    outer = torch.einsum("npi,npj->nij", first, second) / places
    out = torch.zeros(n, d)
    for k in range(d):
        out[:, k] = sum(outer[:, i, (k - i) % d] for i in range(d))
    return out


@wrong("09.tensor_sketch", "Right where `d` is even, but one number short where it is")
def length_left_out(first, second):
    return torch.fft.irfft(torch.fft.rfft(first) * torch.fft.rfft(second)).mean(1)


@wrong("09.tensor_sketch", "You average over the places before the product. A product")
def mean_before_the_product(first, second):
    return torch.fft.irfft(torch.fft.rfft(first.mean(1)) * torch.fft.rfft(second.mean(1)), n=first.shape[-1])


@right("09.shortest_sketch")
def one_table_of_estimates(x, y, tables, lengths, goal):
    def estimate(buckets, signs, length):
        sketch = lambda v: torch.zeros(length).scatter_add(0, buckets % length, v * signs)
        return float((sketch(x) * sketch(y)).sum())

    spreads = [np.std([estimate(*table, n) for table in tables], ddof=1) for n in lengths]
    return np.array(spreads), min([n for n, s in zip(lengths, spreads, strict=False) if s <= goal], default=None)


@right("09.shortest_sketch")
def with_one_hot(x, y, tables, lengths, goal):
    spreads, best = [], None
    for n in lengths:
        found = []
        for b, s in tables:
            m = F.one_hot(b % n, n).float() * s[:, None]
            found.append((x @ m) @ (y @ m))
        spreads.append(torch.tensor(found).std())
        if spreads[-1] <= goal and (best is None or n < best):
            best = n
    return spreads, best


@wrong("09.shortest_sketch", "A spread that is exactly the goal is good enough: 'at")
def below_the_goal(x, y, tables, lengths, goal):
    spreads, _ = one_table_of_estimates(x, y, tables, lengths, goal)
    return spreads, min([n for n, s in zip(lengths, spreads, strict=False) if s < goal], default=None)


@wrong("09.make_tables", "The two tables have the same buckets, and only their signs")
def buckets_shared(channels, dim, seed):
    g = torch.Generator().manual_seed(seed)
    buckets = torch.randint(dim, (channels,), generator=g)
    return [(buckets, torch.randint(2, (channels,), generator=g).float() * 2 - 1) for _ in range(2)]


@wrong("09.make_tables", "The tables do not depend on `seed`: every seed gives the")
def seed_ignored(channels, dim, seed):
    g = torch.Generator().manual_seed(0)
    return [(torch.randint(dim, (channels,), generator=g), torch.randint(2, (channels,), generator=g) * 2 - 1)
            for _ in range(2)]
