"""Answers to the exam of lesson 11."""

from collections import Counter

import numpy as np
import torch

from . import right, wrong


def _groups(count, pairs):
    """The smallest number of each photograph's group."""
    root = list(range(count))
    changed = True
    while changed:
        changed = False
        for a, b in pairs:
            least = min(root[a], root[b])
            changed |= root[a] != least or root[b] != least
            root[a] = root[b] = least
    return root


def _dealt(root, folds, key=lambda size, one: (-size, one), choose=lambda sizes: sizes.index(min(sizes)), weigh=None):
    counts, sizes, part = Counter(root), [0] * folds, {}
    for one in sorted(counts, key=lambda one: key(counts[one], one)):
        part[one] = choose(sizes)
        sizes[part[one]] += 1 if weigh else counts[one]
    return [part[one] for one in root]


@right("exam11.deal_groups")
def until_nothing_changes(count, pairs, folds):
    return _dealt(_groups(count, pairs), folds)


@right("exam11.deal_groups")
def by_searching(count, pairs, folds):
    near = {n: set() for n in range(count)}
    for a, b in pairs:
        near[a].add(b)
        near[b].add(a)
    groups, seen = [], set()
    for n in range(count):
        if n not in seen:
            group, todo = {n}, [n]
            while todo:
                for other in near[todo.pop()] - group:
                    group.add(other)
                    todo.append(other)
            seen |= group
            groups.append(sorted(group))
    parts = [[] for _ in range(folds)]
    for group in sorted(groups, key=len, reverse=True):
        min(parts, key=len).extend(group)
    return [next(k for k, part in enumerate(parts) if n in part) for n in range(count)]


@right("exam11.deal_groups")
def by_a_matrix(count, pairs, folds):
    joined = np.eye(count, dtype=bool)
    for a, b in pairs:
        joined[a, b] = joined[b, a] = True
    for _ in range(count):
        joined = (joined.astype(int) @ joined.astype(int)) > 0
    root = joined.argmax(1) if count else np.zeros(0, int)
    sizes, answer = np.zeros(folds, int), np.zeros(count, int)
    for one in sorted(set(root.tolist()), key=lambda one: (-(root == one).sum(), one)):
        answer[root == one] = sizes.argmin()
        sizes[sizes.argmin()] += (root == one).sum()
    return answer


@wrong("exam11.deal_groups", 0, 4)
def copies_are_not_joined(count, pairs, folds):
    return _dealt(list(range(count)), folds)


@wrong("exam11.deal_groups", 0, 4)
def joined_to_the_last_partner(count, pairs, folds):
    root = list(range(count))
    for a, b in pairs:
        root[max(a, b)] = min(a, b)
    return _dealt(root, folds)


@wrong("exam11.deal_groups", 0, 4)
def smallest_groups_first(count, pairs, folds):
    return _dealt(_groups(count, pairs), folds, key=lambda size, one: (size, one))


@wrong("exam11.deal_groups", 0, 4)
def in_the_order_of_the_folder(count, pairs, folds):
    return _dealt(_groups(count, pairs), folds, key=lambda size, one: one)


@wrong("exam11.deal_groups", 0, 4)
def as_many_groups_in_each_part(count, pairs, folds):
    return _dealt(_groups(count, pairs), folds, weigh=True)


@wrong("exam11.deal_groups")
def last_of_equal_parts(count, pairs, folds):
    return _dealt(_groups(count, pairs), folds, choose=lambda sizes: max(range(folds), key=lambda k: (-sizes[k], k)))


@wrong("exam11.deal_groups")
def last_of_equal_groups(count, pairs, folds):
    return _dealt(_groups(count, pairs), folds, key=lambda size, one: (-size, -one))


@wrong("exam11.deal_groups", 0, 1, 3, 4)
def most_pairs_first(count, pairs, folds):
    root = _groups(count, pairs)
    links = Counter(root[a] for a, _ in {tuple(sorted(pair)) for pair in pairs})
    return _dealt(root, folds, key=lambda size, one: (-links[one], one))


@wrong("exam11.deal_groups", 0, 4)
def of_equal_groups_the_smaller_last_photograph(count, pairs, folds):
    root = _groups(count, pairs)
    last = {one: n for n, one in enumerate(root)}
    return _dealt(root, folds, key=lambda size, one: (-size, last[one]))


@wrong("exam11.deal_groups")
def the_groups_in_place_of_the_parts(count, pairs, folds):
    return _groups(count, pairs)


@wrong("exam11.deal_groups")
def counted_from_one(count, pairs, folds):
    return [part + 1 for part in _dealt(_groups(count, pairs), folds)] or [1]


@wrong("exam11.deal_groups")
def lists_of_photographs(count, pairs, folds):
    parts = _dealt(_groups(count, pairs), folds)
    return [[n for n in range(count) if parts[n] == k] for k in range(folds)]


def _decide(probabilities, costs, ask, *, asks=lambda ask, best: ask < best, expected=None, paid=None):
    said, total = [], 0.0
    for row in np.asarray(probabilities):
        prices = row @ np.asarray(costs) if expected is None else expected(row, np.asarray(costs))
        best = int(np.argmin(prices))
        asked = asks(ask, prices[best])
        said.append(-1 if asked else best)
        total += ask if asked else prices[best]
    return said, total / len(said) if said else 0.0


@right("exam11.answer_or_ask")
def one_by_one(probabilities, costs, ask):
    return _decide(probabilities, costs, ask)


@right("exam11.answer_or_ask")
def in_tensors(probabilities, costs, ask):
    expected = torch.einsum("ni,ij->nj", torch.tensor(probabilities), torch.tensor(costs))
    best, said = expected.min(1)
    said = (expected == best[:, None]).int().argmax(1)
    said[best > ask] = -1
    return said, best.clamp(max=ask).mean() if len(best) else torch.tensor(0.0)


@right("exam11.answer_or_ask")
def asking_as_one_more_answer(probabilities, costs, ask):
    table = np.column_stack([probabilities @ costs, np.full(len(probabilities), ask)])
    said = table.argmin(axis=1)
    mean = float(np.take_along_axis(table, said[:, None], 1).mean()) if len(said) else 0.0
    return [-1 if one == costs.shape[0] else int(one) for one in said], mean


@wrong("exam11.answer_or_ask")
def the_likeliest_class(probabilities, costs, ask):
    expected, said, total = probabilities @ costs, [], 0.0
    for row, prices in zip(probabilities, expected, strict=True):
        best = int(row.argmax())
        said.append(-1 if ask < prices[best] else best)
        total += min(ask, prices[best])
    return said, total / len(said) if said else 0.0


@wrong("exam11.answer_or_ask")
def rows_and_columns_exchanged(probabilities, costs, ask):
    return _decide(probabilities, np.asarray(costs).T, ask)


@wrong("exam11.answer_or_ask", 0, 1, 3, 4)
def asks_among_equals(probabilities, costs, ask):
    return _decide(probabilities, costs, ask, asks=lambda ask, best: ask <= best)


@wrong("exam11.answer_or_ask", 0, 4)
def never_asks(probabilities, costs, ask):
    return _decide(probabilities, costs, ask, asks=lambda ask, best: False)


@wrong("exam11.answer_or_ask", 0, 1, 4)
def being_right_is_free(probabilities, costs, ask):
    return _decide(probabilities, np.asarray(costs) * (1 - np.eye(len(costs))), ask)


@wrong("exam11.answer_or_ask", 0, 1, 2, 4)
def fails_on_none(probabilities, costs, ask):
    said, _ = _decide(probabilities, costs, ask)
    paid = np.minimum((probabilities @ costs).min(axis=1), ask)
    return said, sum(paid) / len(paid)


@wrong("exam11.answer_or_ask")
def the_sum_in_place_of_the_mean(probabilities, costs, ask):
    said, mean = _decide(probabilities, costs, ask)
    return said, mean * len(said) if said else 1.0


@wrong("exam11.answer_or_ask", 0, 2, 4)
def pays_for_answers_alone(probabilities, costs, ask):
    said, _ = _decide(probabilities, costs, ask)
    paid = [(row @ costs)[one] for row, one in zip(probabilities, said, strict=True) if one >= 0]
    return said, float(np.mean(paid)) if paid else 0.0


@wrong("exam11.answer_or_ask", 0, 1, 3, 4)
def larger_class_of_equals(probabilities, costs, ask):
    said, mean = _decide(probabilities, costs, ask)
    prices = (probabilities @ costs)[:, ::-1]
    last = costs.shape[0] - 1
    return [one if one < 0 else last - int(row.argmin()) for one, row in zip(said, prices, strict=True)], mean


@wrong("exam11.answer_or_ask", 0, 1, 3, 4)
def likelier_class_of_equals(probabilities, costs, ask):
    said, mean = _decide(probabilities, costs, ask)
    prices = probabilities @ costs
    return [one if one < 0 else max(np.flatnonzero(row == row.min()), key=lambda k, p=p: p[k])
            for one, row, p in zip(said, prices, probabilities, strict=True)], mean


@wrong("exam11.answer_or_ask")
def the_worst_that_may_happen(probabilities, costs, ask):
    return _decide(probabilities, costs, ask, expected=lambda row, costs: costs.max(axis=0))
