"""Answers to the exam of lesson 6."""

import numpy as np

from . import right, wrong


def _figures(probabilities, defective, threshold):
    called, found = probabilities >= threshold, (probabilities >= threshold) & defective
    return int(found.sum()), int(called.sum()), int(defective.sum())


@right("exam06.precision_recall")
def by_loops(probabilities, defective, threshold):
    hits = called = wanted = 0
    for p, d in zip(probabilities, defective, strict=True):
        called += bool(p >= threshold)
        wanted += bool(d)
        hits += bool(p >= threshold and d)
    return {"recall": hits / wanted if wanted else None, "precision": hits / called if called else None}


@right("exam06.precision_recall")
def in_numpy(probabilities, defective, threshold):
    said, truth = probabilities.numpy() >= threshold, defective.numpy()
    precision = None if not said.any() else np.mean(truth[said])
    recall = None if not truth.any() else np.mean(said[truth])
    return dict(precision=precision, recall=recall)


@right("exam06.precision_recall")
def as_tensors(probabilities, defective, threshold):
    called = ~(probabilities < threshold)
    return {"precision": defective[called].double().mean() if called.sum() else None,
            "recall": called[defective].double().mean() if defective.sum() else None}


@wrong("exam06.precision_recall", 0, 2, 3)
def above_the_threshold(probabilities, defective, threshold):
    return by_loops(probabilities, defective, threshold * (1 + 1e-6))


@wrong("exam06.precision_recall", 0, 1, 3)
def zero_where_nobody_can_say(probabilities, defective, threshold):
    return {name: 0.0 if value is None else value
            for name, value in by_loops(probabilities, defective, threshold).items()}


@wrong("exam06.precision_recall", 0, 1, 3)
def divides_by_zero(probabilities, defective, threshold):
    hits, called, wanted = _figures(probabilities, defective, threshold)
    return {"precision": hits / called, "recall": hits / wanted}


@wrong("exam06.precision_recall", 0, 1, 3)
def not_a_number(probabilities, defective, threshold):
    called = probabilities >= threshold
    return {"precision": defective[called].double().mean(), "recall": called[defective].double().mean()}


@wrong("exam06.precision_recall")
def the_two_exchanged(probabilities, defective, threshold):
    found = by_loops(probabilities, defective, threshold)
    return {"precision": found["recall"], "recall": found["precision"]}


@wrong("exam06.precision_recall")
def accuracy_for_precision(probabilities, defective, threshold):
    called = probabilities >= threshold
    return {**by_loops(probabilities, defective, threshold), "precision": (called == defective).double().mean()}


@wrong("exam06.precision_recall")
def of_the_functional(probabilities, defective, threshold):
    return by_loops(1 - probabilities, ~defective, 1 - threshold)


@wrong("exam06.precision_recall")
def in_percent(probabilities, defective, threshold):
    return {name: None if value is None else 100 * value
            for name, value in by_loops(probabilities, defective, threshold).items()}


@wrong("exam06.precision_recall", 0, 1, 2)
def cleans_up(probabilities, defective, threshold):
    found = by_loops(probabilities, defective, threshold)
    probabilities[probabilities < threshold] = 0
    return found


@wrong("exam06.precision_recall")
def two_numbers(probabilities, defective, threshold):
    return tuple(by_loops(probabilities, defective, threshold).values())


def _decide(probabilities, costs, order):
    return [min(order, key=lambda name, p=p: costs(p)[name]) for p in probabilities]


def _costs(false_alarm, miss, person):
    return lambda p: {"ask": person, "defective": (1 - p) * false_alarm, "functional": p * miss}


ORDER = ("ask", "defective", "functional")


@right("exam06.cheapest_decision")
def by_ifs(probabilities, false_alarm, miss, person):
    said = []
    for p in probabilities:
        throw, sell = (1 - p) * false_alarm, p * miss
        if person <= throw and person <= sell:
            said.append("ask")
        elif throw <= sell:
            said.append("defective")
        else:
            said.append("functional")
    return said


@right("exam06.cheapest_decision")
def in_numpy_columns(probabilities, false_alarm, miss, person):
    p = np.array(probabilities, dtype=float)
    costs = np.stack([np.full(len(p), person), (1 - p) * false_alarm, p * miss])
    return np.array(ORDER)[costs.argmin(axis=0)].tolist()


@right("exam06.cheapest_decision")
def sorted_pairs(probabilities, false_alarm, miss, person):
    return tuple(min((person, 0, "ask"), ((1 - p) * false_alarm, 1, "defective"), (p * miss, 2, "functional"))[2]
                 for p in probabilities)


@wrong("exam06.cheapest_decision", 0, 3)
def never_asks(probabilities, false_alarm, miss, person):
    return _decide(probabilities, _costs(false_alarm, miss, person), ORDER[1:])


@wrong("exam06.cheapest_decision")
def costs_exchanged(probabilities, false_alarm, miss, person):
    return by_ifs(probabilities, miss, false_alarm, person)


@wrong("exam06.cheapest_decision")
def always_half(probabilities, false_alarm, miss, person):
    return ["defective" if p >= 0.5 else "functional" for p in probabilities]


@wrong("exam06.cheapest_decision", 0, 1, 3)
def asks_last(probabilities, false_alarm, miss, person):
    return _decide(probabilities, _costs(false_alarm, miss, person), ORDER[::-1])


@wrong("exam06.cheapest_decision", 0, 1, 3)
def functional_before_defective(probabilities, false_alarm, miss, person):
    return _decide(probabilities, _costs(false_alarm, miss, person), ("ask", "functional", "defective"))


@wrong("exam06.cheapest_decision", 0, 3)
def asks_around_the_middle(probabilities, false_alarm, miss, person):
    said = _decide(probabilities, _costs(false_alarm, miss, person), ORDER[1:])
    return ["ask" if abs(p - 0.5) < 0.05 and person < 50 else one for p, one in zip(probabilities, said, strict=True)]


@wrong("exam06.cheapest_decision")
def probabilities_exchanged(probabilities, false_alarm, miss, person):
    return by_ifs([1 - p for p in probabilities], false_alarm, miss, person)


@wrong("exam06.cheapest_decision")
def the_dearest(probabilities, false_alarm, miss, person):
    costs = _costs(false_alarm, miss, person)
    return [max(ORDER[1:], key=lambda name, p=p: costs(p)[name]) for p in probabilities]


@wrong("exam06.cheapest_decision")
def numbers_for_words(probabilities, false_alarm, miss, person):
    return [ORDER.index(one) for one in by_ifs(probabilities, false_alarm, miss, person)]


@wrong("exam06.cheapest_decision", 0, 1, 2)
def empties_the_list(probabilities, false_alarm, miss, person):
    return [by_ifs([probabilities.pop(0)], false_alarm, miss, person)[0] for _ in range(len(probabilities))]
