"""Answers to the exam of lesson 10."""

import numpy as np
import torch

from . import right, wrong


def _last_of(number, count, rate):
    return rate if count == 1 else rate * number / (count - 1)


def _network(x, branches, draws, rate, training, chance=_last_of, kept=lambda draws, p: draws >= p,
             scale=lambda p: 1 - p, evaluated=lambda added, p: added):
    for number, branch in enumerate(branches):
        p, added = chance(number, len(branches), rate), branch(x)
        if not training:
            added = evaluated(added, p)
        elif p < 1:
            mask = kept(draws[number], p).to(x.dtype).reshape(-1, *(1,) * (x.dim() - 1))
            added = mask * added / scale(p)
        else:
            added = 0 * added
        x = x + added
    return x


@right("exam10.leave_out")
def with_masks(x, branches, draws, rate, training):
    return _network(x, branches, draws, rate, training)


@right("exam10.leave_out")
def image_by_image(x, branches, draws, rate, training):
    probabilities = np.linspace(0, rate, len(branches)) if len(branches) > 1 else [rate]
    images = []
    for n in range(len(x)):
        image = x[n:n + 1]
        for branch, draw, p in zip(branches, draws[:, n].tolist() if len(draws) else [], probabilities, strict=False):
            if not training:
                image = image + branch(image)
            elif draw >= p:
                image = image + branch(image) / (1 - p)
        images.append(image)
    return torch.cat(images)


@right("exam10.leave_out")
def only_those_that_are_kept(x, branches, draws, rate, training):
    found, steps = x.detach().clone(), max(len(branches) - 1, 1)
    for b, branch in enumerate(branches):
        p = rate * (b / steps if len(branches) > 1 else 1)
        kept = torch.nonzero(draws[b] >= p)[:, 0] if training else torch.arange(len(x))
        with torch.no_grad():
            if len(kept):
                found[kept] += branch(found[kept]) / (1 - p if training else 1)
    return found.numpy()


@wrong("exam10.leave_out", 0, 2, 3, 4)
def scaled_in_evaluation_too(x, branches, draws, rate, training):
    return _network(x, branches, draws, rate, training, evaluated=lambda added, p: added * (1 - p))


@wrong("exam10.leave_out")
def not_divided(x, branches, draws, rate, training):
    return _network(x, branches, draws, rate, training, scale=lambda p: 1)


@wrong("exam10.leave_out", 0, 2, 3, 4)
def leaves_out_in_evaluation(x, branches, draws, rate, training):
    return _network(x, branches, draws, rate, True)


@wrong("exam10.leave_out")
def divided_by_the_probability(x, branches, draws, rate, training):
    return _network(x, branches, draws, rate, training, scale=lambda p: p or 1)


@wrong("exam10.leave_out")
def keeps_what_should_be_left_out(x, branches, draws, rate, training):
    return _network(x, branches, draws, rate, training, kept=lambda draws, p: draws < p)


@wrong("exam10.leave_out", 0, 1, 4)
def left_out_at_the_probability(x, branches, draws, rate, training):
    return _network(x, branches, draws, rate, training, kept=lambda draws, p: draws > p)


@wrong("exam10.leave_out")
def one_rate_for_all(x, branches, draws, rate, training):
    return _network(x, branches, draws, rate, training, chance=lambda number, count, rate: rate)


@wrong("exam10.leave_out")
def counted_from_one(x, branches, draws, rate, training):
    return _network(x, branches, draws, rate, training, chance=lambda number, count, rate: rate * (number + 1) / count)


@wrong("exam10.leave_out")
def never_quite_the_rate(x, branches, draws, rate, training):
    return _network(x, branches, draws, rate, training, chance=lambda number, count, rate: rate * number / count)


@wrong("exam10.leave_out")
def first_branches_most(x, branches, draws, rate, training):
    return _network(x, branches, draws, rate, training,
                    chance=lambda number, count, rate: _last_of(count - 1 - number, count, rate))


@wrong("exam10.leave_out")
def one_draw_for_the_batch(x, branches, draws, rate, training):
    return _network(x, branches, draws, rate, training, kept=lambda draws, p: (draws[:1] >= p).expand(len(x)))


@wrong("exam10.leave_out", 0, 1, 2, 4)
def one_branch_never_left_out(x, branches, draws, rate, training):
    return _network(x, branches, draws, rate, training,
                    chance=lambda number, count, rate: rate * number / max(count - 1, 1))


@wrong("exam10.leave_out", 0, 1, 2, 4)
def zero_divided_by_zero(x, branches, draws, rate, training):
    for number, branch in enumerate(branches):
        p = _last_of(number, len(branches), rate) if training else 0
        kept = (draws[number] >= p) | (not training)
        x = x + branch(x) * kept.view(-1, *[1] * (x.ndim - 1)) / torch.tensor(1.0 - p)
    return x


@wrong("exam10.leave_out")
def side_by_side(x, branches, draws, rate, training):
    return x + sum(_network(x, [branch], draws[k:k + 1], _last_of(k, len(branches), rate), training) - x
                   for k, branch in enumerate(branches))


@wrong("exam10.leave_out")
def the_input_left_out_too(x, branches, draws, rate, training):
    for number, branch in enumerate(branches):
        p, whole = _last_of(number, len(branches), rate), x + branch(x)
        kept = (draws[number] >= p).view(-1, *[1] * (x.ndim - 1))
        x = whole if not training else whole * kept / (1 - p) if p < 1 else 0 * whole
    return x


@wrong("exam10.leave_out", 0, 1, 2, 3)
def adds_where_it_stands(x, branches, draws, rate, training):
    with torch.no_grad():
        return x.copy_(_network(x, branches, draws, rate, training))


def _chosen(probabilities, threshold, most, *, sure=lambda p, threshold: p >= threshold, per_class=True, surest=True,
            turned=False, ordered=True):
    largest = probabilities.max(1).values if len(probabilities) else torch.zeros(0)
    labels = [int((row == row.max()).nonzero()[-1 if turned else 0]) for row in probabilities]
    numbers = [n for n in range(len(labels)) if sure(float(largest[n]), threshold)]
    if surest:
        numbers.sort(key=lambda n: (-float(largest[n]), n))
    kept, counts = [], {}
    for n in numbers:
        label = labels[n] if per_class else None
        counts[label] = counts.get(label, 0) + 1
        if counts[label] <= most:
            kept.append(n)
    kept = sorted(kept) if ordered else kept
    return kept, [labels[n] for n in kept]


@right("exam10.pseudo_labels")
def by_counting(probabilities, threshold, most):
    return _chosen(probabilities, threshold, most)


@right("exam10.pseudo_labels")
def in_tensors(probabilities, threshold, most):
    confidence, labels = probabilities.max(1)
    labels = (probabilities == confidence[:, None]).int().argmax(1)
    order = confidence.argsort(descending=True, stable=True)
    place = torch.nn.functional.one_hot(labels[order], probabilities.shape[1]).cumsum(0)
    place = place.gather(1, labels[order, None])[:, 0]
    kept = order[(place <= most) & (confidence[order] >= threshold)].sort().values
    return kept, labels[kept]


@right("exam10.pseudo_labels")
def class_by_class(probabilities, threshold, most):
    table, found = probabilities.numpy(), []
    labels = table.argmax(axis=1)
    for label in range(table.shape[1]):
        numbers = np.flatnonzero((labels == label) & (table[:, label] >= threshold))
        best = numbers[np.argsort(-table[numbers, label], kind="stable")][:most]
        found += [(int(number), label) for number in best]
    found.sort()
    return [number for number, _ in found], [label for _, label in found]


@wrong("exam10.pseudo_labels", 0, 1, 3, 4)
def more_than_the_threshold(probabilities, threshold, most):
    return _chosen(probabilities, threshold, most, sure=lambda p, threshold: p > threshold)


@wrong("exam10.pseudo_labels", 0, 3, 4)
def as_many_in_all(probabilities, threshold, most):
    return _chosen(probabilities, threshold, most, per_class=False)


@wrong("exam10.pseudo_labels", 0, 3, 4)
def as_many_for_each_class_in_all(probabilities, threshold, most):
    return _chosen(probabilities, threshold, most * probabilities.shape[1], per_class=False)


@wrong("exam10.pseudo_labels", 0, 2, 3, 4)
def the_first_of_each_class(probabilities, threshold, most):
    return _chosen(probabilities, threshold, most, surest=False)


@wrong("exam10.pseudo_labels", 0, 3, 4)
def no_limit(probabilities, threshold, most):
    return _chosen(probabilities, threshold, len(probabilities) if most else 0)


@wrong("exam10.pseudo_labels")
def in_the_order_of_confidence(probabilities, threshold, most):
    return _chosen(probabilities, threshold, most, ordered=False)


@wrong("exam10.pseudo_labels", 0, 1, 3, 4)
def larger_class_of_equals(probabilities, threshold, most):
    return _chosen(probabilities, threshold, most, turned=True)


@wrong("exam10.pseudo_labels", 0, 1, 3, 4)
def later_photograph_of_equals(probabilities, threshold, most):
    numbers, labels = _chosen(probabilities.flip(0), threshold, most)
    return [len(probabilities) - 1 - n for n in numbers[::-1]], labels[::-1]


@wrong("exam10.pseudo_labels")
def every_class_that_is_likely_enough(probabilities, threshold, most):
    numbers, labels = torch.nonzero(probabilities >= threshold, as_tuple=True)
    return numbers.tolist(), labels.tolist()


@wrong("exam10.pseudo_labels")
def no_threshold(probabilities, threshold, most):
    return _chosen(probabilities, 0.0, most)


@wrong("exam10.pseudo_labels")
def as_many_as_the_rarest_class(probabilities, threshold, most):
    labels = _chosen(probabilities, threshold, len(probabilities))[1]
    rarest = min((labels.count(label) for label in range(probabilities.shape[1])), default=0)
    return _chosen(probabilities, threshold, min(most, rarest))


@wrong("exam10.pseudo_labels")
def a_label_for_each(probabilities, threshold, most):
    numbers, labels = _chosen(probabilities, threshold, most)
    known = dict(zip(numbers, labels, strict=True))
    return [known.get(n, -1) for n in range(len(probabilities))]


@wrong("exam10.pseudo_labels", 0, 1, 2, 4)
def fails_on_none(probabilities, threshold, most):
    numbers, labels = zip(*zip(*_chosen(probabilities, threshold, most), strict=True), strict=True)
    return numbers, labels


@wrong("exam10.pseudo_labels", 0, 1, 2, 3)
def cleans_up(probabilities, threshold, most):
    found = _chosen(probabilities, threshold, most)
    probabilities[probabilities < threshold] = 0
    return found
