"""Answers to the exam of lesson 7."""

import math
import statistics

import numpy as np
import torch

from . import right, wrong


def _interval(differences, t, ratio, std=statistics.stdev, factor=lambda n, ratio: math.sqrt(1 / n + ratio)):
    mean, half = statistics.fmean(differences), t * std(differences) * factor(len(differences), ratio)
    return mean - half, mean + half


def _word(low, high, margin):
    if low > -margin and high < margin:
        return "same"
    return "unknown" if low <= 0 <= high else "better" if high < 0 else "worse"


def _words(reference, others, t, ratio, margin, word=_word, interval=_interval, equal="unknown"):
    found = {}
    for name, errors in others.items():
        differences = [a - b for a, b in zip(errors, reference, strict=True)]
        same = equal and len(set(differences)) == 1
        found[name] = equal if same else word(*interval(differences, t, ratio), margin)
    return found


@right("exam07.verdicts")
def one_after_the_other(reference, others, t, ratio, margin):
    return _words(reference, others, t, ratio, margin)


@right("exam07.verdicts")
def in_numpy(reference, others, t, ratio, margin):
    found = {}
    for name in others:
        d = np.array(others[name]) - np.array(reference)
        half = t * d.std(ddof=1) * np.sqrt(1 / d.size + ratio)
        if half < 1e-12:
            found[name] = "unknown"
        elif abs(d.mean()) + half < margin:
            found[name] = "same"
        elif abs(d.mean()) > half:
            found[name] = np.array(["better", "worse"])[int(d.mean() > 0)]
        else:
            found[name] = "unknown"
    return found


@right("exam07.verdicts")
def in_one_tensor(reference, others, t, ratio, margin):
    if not others:
        return {}
    d = torch.tensor(list(others.values()), dtype=torch.float64) - torch.tensor(reference, dtype=torch.float64)
    mean, n = d.mean(1), d.shape[1]
    half = t * ((d - mean[:, None]).square().sum(1) / (n - 1)).sqrt() * (1 / n + ratio) ** 0.5
    number = torch.where(mean + half < 0, 1, torch.where(mean - half > 0, 2, 0))
    number[(mean - half > -margin) & (mean + half < margin)] = 3
    number[d.max(1).values == d.min(1).values] = 0
    return dict(zip(others, (("unknown", "better", "worse", "same")[k] for k in number), strict=True))


@wrong("exam07.verdicts", 0, 1, 3)
def equal_differences_prove_much(reference, others, t, ratio, margin):
    return _words(reference, others, t, ratio, margin, equal=None)


@wrong("exam07.verdicts")
def plain_interval(reference, others, t, ratio, margin):
    return _words(reference, others, t, 0.0, margin)


@wrong("exam07.verdicts")
def ratio_outside_of_the_root(reference, others, t, ratio, margin):
    interval = lambda d, t, ratio: _interval(d, t, ratio, factor=lambda n, ratio: math.sqrt(1 / n) + ratio)
    return _words(reference, others, t, ratio, margin, interval=interval)


@wrong("exam07.verdicts")
def std_of_a_population(reference, others, t, ratio, margin):
    return _words(reference, others, t, ratio, margin,
                  interval=lambda d, t, ratio: _interval(d, t, ratio, std=statistics.pstdev))


@wrong("exam07.verdicts")
def not_in_pairs(reference, others, t, ratio, margin):
    found = {}
    for name, errors in others.items():
        mean = statistics.fmean(errors) - statistics.fmean(reference)
        std = math.sqrt(statistics.variance(errors) + statistics.variance(reference))
        half = t * std * math.sqrt(1 / len(errors) + ratio)
        found[name] = _word(mean - half, mean + half, margin)
    return found


@wrong("exam07.verdicts")
def reference_minus_other(reference, others, t, ratio, margin):
    turned = {"better": "worse", "worse": "better"}
    found = one_after_the_other(reference, others, t, ratio, margin)
    return {name: turned.get(word, word) for name, word in found.items()}


@wrong("exam07.verdicts", 0, 2, 3)
def clear_before_same(reference, others, t, ratio, margin):
    return _words(reference, others, t, ratio, margin,
                  word=lambda low, high, margin: _word(low, high, margin if low <= 0 <= high else 0))


@wrong("exam07.verdicts")
def same_by_the_mean(reference, others, t, ratio, margin):
    def word(low, high, margin):
        return "same" if abs(low + high) / 2 < margin else _word(low, high, 0)
    return _words(reference, others, t, ratio, margin, word=word)


@wrong("exam07.verdicts")
def no_zero_is_no_difference(reference, others, t, ratio, margin):
    return _words(reference, others, t, ratio, margin,
                  word=lambda low, high, margin: "same" if low <= 0 <= high else _word(low, high, 0))


@wrong("exam07.verdicts", 0, 2, 3)
def never_the_same(reference, others, t, ratio, margin):
    return _words(reference, others, t, ratio, 0.0)


@wrong("exam07.verdicts")
def rounded_quantile(reference, others, t, ratio, margin):
    return _words(reference, others, 1.96, ratio, margin)


@wrong("exam07.verdicts", 0, 1, 3)
def one_array_of_all(reference, others, t, ratio, margin):
    d = np.array([others[name] for name in others]) - reference
    half = t * d.std(1, ddof=1) * (1 / d.shape[1] + ratio) ** 0.5
    rows = zip(others, d.mean(1), half, np.ptp(d, 1) == 0, strict=True)
    return {name: "unknown" if same else _word(m - h, m + h, margin) for name, m, h, same in rows}


@wrong("exam07.verdicts", 0, 1, 2)
def subtracts_where_it_stands(reference, others, t, ratio, margin):
    for errors in others.values():
        errors[:] = [a - b for a, b in zip(errors, reference, strict=True)]
    return _words([0.0] * len(reference), others, t, ratio, margin)


def _halve(curves, first, keep=lambda n: math.ceil(n / 2), loss=lambda curve, epochs: curve[epochs - 1],
           rank=lambda loss: (math.isnan(loss), loss), prefer=1, longer=lambda epochs: 2 * epochs):
    left, epochs, trained = list(curves), first, dict.fromkeys(curves, 0)
    length = len(next(iter(curves.values())))
    while True:
        for name in left:
            trained[name] = epochs
        by_loss = sorted(left[::prefer], key=lambda name: rank(loss(curves[name], epochs)))
        kept = by_loss[:1 if epochs >= length else keep(len(left))]
        left = [name for name in left if name in kept]
        if len(left) == 1:
            return left[0], trained
        epochs = min(longer(epochs), length)


@right("exam07.give_up_half")
def by_steps(curves, first):
    return _halve(curves, first)


@right("exam07.give_up_half")
def in_numpy_rows(curves, first):
    table, names = np.array(list(curves.values())), np.array(list(curves))
    alive, epochs = np.arange(len(names)), np.zeros(len(names), dtype=int)
    reached = first
    while len(alive) > 1:
        epochs[alive] = reached
        losses = np.nan_to_num(table[alive, reached - 1], nan=np.inf)
        wanted = (len(alive) + 1) // 2 if reached < table.shape[1] else 1
        alive = np.sort(alive[np.argsort(losses, kind="stable")[:wanted]])
        reached = min(2 * reached, table.shape[1])
    return str(names[alive[0]]), dict(zip(names.tolist(), epochs.tolist(), strict=True))


@right("exam07.give_up_half")
def calls_itself(curves, first):
    length = len(list(curves.values())[0])

    def better(one, other):
        a, b = curves[one][first - 1], curves[other][first - 1]
        if a == b or a != a and b != b:
            return list(curves).index(one) < list(curves).index(other)
        return b != b or a < b

    beaten = {name: sum(better(other, name) for other in curves if other != name) for name in curves}
    left = {name: curve for name, curve in curves.items() if beaten[name] < (len(curves) + 1) // 2}
    if first == length or len(left) == 1:
        return min(beaten, key=beaten.get), dict.fromkeys(curves, first)
    winner, trained = calls_itself(left, min(2 * first, length))
    return [winner, {name: trained.get(name, first) for name in curves}]


@wrong("exam07.give_up_half")
def half_rounded_down(curves, first):
    return _halve(curves, first, keep=lambda n: n // 2)


@wrong("exam07.give_up_half")
def lowest_loss_so_far(curves, first):
    return _halve(curves, first, loss=lambda curve, epochs: min(curve[:epochs]))


@wrong("exam07.give_up_half")
def looks_at_the_end(curves, first):
    return _halve(curves, first, loss=lambda curve, epochs: curve[-1])


@wrong("exam07.give_up_half")
def one_epoch_too_late(curves, first):
    return _halve(curves, first, loss=lambda curve, epochs: curve[min(epochs, len(curve) - 1)])


@wrong("exam07.give_up_half", 0, 1, 4)
def later_of_equals(curves, first):
    return _halve(curves, first, prefer=-1)


@wrong("exam07.give_up_half", 0, 1, 4)
def in_the_order_of_the_last_look(curves, first):
    left, epochs, trained, length = list(curves), first, {}, len(next(iter(curves.values())))
    while True:
        trained |= dict.fromkeys(left, epochs)
        left.sort(key=lambda name: (math.isnan(curves[name][epochs - 1]), curves[name][epochs - 1]))
        left = left[:1 if epochs == length else math.ceil(len(left) / 2)]
        if len(left) == 1:
            return left[0], trained
        epochs = min(2 * epochs, length)


@wrong("exam07.give_up_half", 0, 1, 2, 4)
def compares_what_is_no_number(curves, first):
    return _halve(curves, first, rank=lambda loss: loss)


@wrong("exam07.give_up_half", 0, 1, 2, 4)
def no_number_is_best(curves, first):
    return _halve(curves, first, rank=lambda loss: (not math.isnan(loss), loss))


@wrong("exam07.give_up_half")
def as_many_epochs_again_each_time(curves, first):
    return _halve(curves, first, longer=lambda epochs: epochs + first)


@wrong("exam07.give_up_half")
def counts_what_is_trained_twice(curves, first):
    winner, trained = _halve(curves, first)
    total = {}
    for name, epochs in trained.items():
        steps, reached = 0, first
        while reached < epochs:
            steps, reached = steps + reached, 2 * reached
        total[name] = steps + epochs
    return winner, total


@wrong("exam07.give_up_half")
def the_winner_trains_to_the_end(curves, first):
    winner, trained = _halve(curves, first)
    return winner, trained | {winner: len(curves[winner])}


@wrong("exam07.give_up_half", 0, 2, 3, 4)
def beyond_the_end(curves, first):
    left, epochs, trained = list(curves), first, {}
    while len(left) > 1:
        trained |= dict.fromkeys(left, epochs)
        losses = {name: curves[name][min(epochs, len(curves[name])) - 1] for name in left}
        best = sorted(left, key=lambda name, losses=losses: (math.isnan(losses[name]), losses[name]))
        left = [name for name in left if name in best[:math.ceil(len(left) / 2)]]
        epochs *= 2
    return left[0], trained


@wrong("exam07.give_up_half", 0, 1, 2, 3)
def drops_from_the_curves(curves, first):
    found = _halve(curves, first)
    for name in [name for name in curves if name != found[0]]:
        del curves[name]
    return found


@wrong("exam07.give_up_half")
def the_name_alone(curves, first):
    return _halve(curves, first)[0]
