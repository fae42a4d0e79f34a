"""Answers to the exam of lesson 2."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from . import right, wrong


def _count(layers, frozen, bias=True, norm=2, linear=True, square=2):
    counts = []
    for number, layer in enumerate(layers):
        if layer[0] == "conv":
            followed = layers[number + 1][0] == "norm" if number + 1 < len(layers) else False
            biases = layer[2] if bias == "always" or bias and not followed else 0
            counts.append(layer[1] * layer[2] * layer[3]**square + biases)
        elif layer[0] == "norm":
            counts.append(norm * layer[1])
        elif layer[0] == "linear":
            counts.append(layer[1] * layer[2] + linear * layer[2])
        else:
            counts.append(0)
    return counts


@right("exam02.count_learned")
def by_building(layers, frozen):
    built = []
    for layer, after in zip(layers, [*layers[1:], ("end",)], strict=False):
        kind, *sizes = layer
        built.append(nn.Conv2d(*sizes, bias=after[0] != "norm") if kind == "conv" else nn.BatchNorm2d(*sizes)
                     if kind == "norm" else nn.Linear(*sizes) if kind == "linear" else nn.ReLU())
    counts = [sum(p.numel() for p in one.parameters()) for one in built]
    return sum(counts[frozen:]), sum(counts)


@right("exam02.count_learned")
def adds_while_it_goes(layers, frozen):
    learned = everything = 0
    for place, layer in enumerate(layers):
        match layer:
            case ("conv", a, b, k):
                has_bias = layers[place + 1:place + 2] == [] or layers[place + 1][0] != "norm"
                here = a * b * k * k + b * has_bias
            case ("norm", c):
                here = c + c
            case ("linear", a, b):
                here = a * b + b
            case _:
                here = 0
        everything += here
        if place >= frozen:
            learned += here
    return [learned, everything]


@right("exam02.count_learned")
def from_the_end(layers, frozen):
    after, counts = "", []
    for kind, *sizes in reversed(layers):
        count = {"conv": lambda a=0, b=0, k=0, after=after: b * (a * k * k + (after != "norm")),
                 "norm": lambda c=0: 2 * c, "linear": lambda a=0, b=0: b * (a + 1)}.get(kind, lambda: 0)
        counts.insert(0, count(*sizes))
        after = kind
    return np.array([sum(counts[frozen:]), sum(counts)], dtype=np.int64)


@wrong("exam02.count_learned", 0, 3, 4)
def bias_before_a_norm_too(layers, frozen):
    counts = _count(layers, frozen, bias="always")
    return sum(counts[frozen:]), sum(counts)


@wrong("exam02.count_learned", 0, 3, 4)
def running_statistics_too(layers, frozen):
    counts = _count(layers, frozen, norm=4)
    return sum(counts[frozen:]), sum(counts)


@wrong("exam02.count_learned", 0, 1, 3, 4)
def nothing_is_frozen(layers, frozen):
    counts = _count(layers, frozen)
    return sum(counts), sum(counts)


@wrong("exam02.count_learned", 0, 1, 3, 4)
def exchanged(layers, frozen):
    counts = _count(layers, frozen)
    return sum(counts), sum(counts[frozen:])


@wrong("exam02.count_learned", 0, 1, 3, 4)
def the_last_are_frozen(layers, frozen):
    counts = _count(layers, frozen)
    return sum(counts[:max(0, len(counts) - frozen)]), sum(counts)


@wrong("exam02.count_learned")
def no_biases(layers, frozen):
    counts = _count(layers, frozen, bias=False, linear=False)
    return sum(counts[frozen:]), sum(counts)


@wrong("exam02.count_learned")
def kernels_not_squared(layers, frozen):
    counts = _count(layers, frozen, square=1)
    return sum(counts[frozen:]), sum(counts)


@wrong("exam02.count_learned", 0, 3, 4)
def norms_have_none(layers, frozen):
    counts = _count(layers, frozen, norm=0)
    return sum(counts[frozen:]), sum(counts)


@wrong("exam02.count_learned", 0, 1, 2, 4)
def asks_the_first_layer(layers, frozen):
    layers[0]
    counts = _count(layers, frozen)
    return sum(counts[frozen:]), sum(counts)


@right("exam02.one_score_loss")
def of_pytorch(scores, labels):
    return F.binary_cross_entropy_with_logits(torch.tensor(scores).double(), torch.tensor(labels).double()).item()


@right("exam02.one_score_loss")
def with_logaddexp(scores, labels):
    s, y = np.array(scores), np.array(labels)
    return np.mean(y * np.logaddexp(0, -s) + (1 - y) * np.logaddexp(0, s))


@right("exam02.one_score_loss")
def two_cases(scores, labels):
    total = 0.0
    for s, y in zip(scores, labels, strict=True):
        if s >= 0:
            total += s * (1 - y) + math.log(1 + math.exp(-s))
        else:
            total += math.log(1 + math.exp(s)) - s * y
    return total / len(scores)


@wrong("exam02.one_score_loss", 0, 1, 3)
def overflows(scores, labels):
    losses = []
    for s, y in zip(scores, labels, strict=True):
        p = 1 / (1 + math.exp(-s))
        losses.append(-(y * math.log(p) + (1 - y) * math.log(1 - p)))
    return sum(losses) / len(losses)


@wrong("exam02.one_score_loss", 0, 1, 3)
def held_off_zero(scores, labels):
    p = torch.tensor(scores).double().sigmoid().clamp(1e-12, 1 - 1e-12)
    return F.binary_cross_entropy(p, torch.tensor(labels).double()).item()


@wrong("exam02.one_score_loss", 0, 3)
def labels_rounded(scores, labels):
    return with_logaddexp(scores, [int(y > 0.5) for y in labels])


@wrong("exam02.one_score_loss")
def summed(scores, labels):
    return with_logaddexp(scores, labels) * len(scores)


@wrong("exam02.one_score_loss")
def the_other_class(scores, labels):
    return with_logaddexp([-s for s in scores], labels)


@wrong("exam02.one_score_loss")
def only_the_defective(scores, labels):
    s, y = np.array(scores), np.array(labels)
    return np.mean(y * np.logaddexp(0, -s))


@wrong("exam02.one_score_loss")
def in_bits(scores, labels):
    return with_logaddexp(scores, labels) / math.log(2)


@wrong("exam02.one_score_loss")
def score_as_probability(scores, labels):
    return float(np.mean((np.array(scores) - np.array(labels)) ** 2))


@wrong("exam02.one_score_loss")
def softmax_over_photographs(scores, labels):
    p = torch.tensor(scores).double().softmax(0)
    return F.binary_cross_entropy(p, torch.tensor(labels).double()).item()


@wrong("exam02.one_score_loss", 0, 1, 2)
def clears_the_labels(scores, labels):
    found = with_logaddexp(scores, labels)
    labels.clear()
    return found
