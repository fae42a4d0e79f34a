"""Answers to the exam of lesson 8."""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from . import right, wrong


def _price(inputs, inner, outputs, side, kernel, stride, groups, *, shortcut=lambda i, o, s: i != o or s != 1,
           new=lambda side, stride: math.ceil(side / stride), first_strided=False, norm=2, bias=0, last_norm=True,
           weights=lambda inner, groups, kernel: inner * inner // groups * kernel * kernel, area=lambda n: n * n):
    after = new(side, stride)
    convolutions = [(inputs * inner, inner, after if first_strided else side),
                    (weights(inner, groups, kernel), inner, after), (inner * outputs, outputs, after)]
    learned = sum(count + (norm + bias) * channels for count, channels, _ in convolutions)
    adds = sum(count * area(width) for count, _, width in convolutions)
    if shortcut(inputs, outputs, stride):
        learned += inputs * outputs + (norm + bias) * outputs * last_norm
        adds += inputs * outputs * area(after)
    return learned, adds, after


@right("exam08.block_price")
def added_up(*given):
    return _price(*given)


@right("exam08.block_price")
def of_real_layers(inputs, inner, outputs, side, kernel, stride, groups):
    conv = lambda *sizes, **options: nn.Conv2d(*sizes, bias=False, device="meta", **options)
    norm = lambda channels: nn.BatchNorm2d(channels, device="meta").eval()
    row = nn.Sequential(conv(inputs, inner, 1), norm(inner),
                        conv(inner, inner, kernel, stride=stride, padding=kernel // 2, groups=groups), norm(inner),
                        conv(inner, outputs, 1), norm(outputs))
    beside = nn.Sequential(conv(inputs, outputs, 1, stride=stride), norm(outputs))
    adds, x = [], torch.empty(1, inputs, side, side, device="meta")
    network = nn.ModuleList([row] if inputs == outputs and stride == 1 else [row, beside])
    for layer in network.modules():
        layer.register_forward_hook(lambda layer, given, y: adds.append(
            layer.weight.numel() * y[0, 0].numel() if isinstance(layer, nn.Conv2d) else 0))
    maps = [path(x) for path in network]
    return torch.tensor([sum(p.numel() for p in network.parameters()), sum(adds), maps[-1].shape[2]])


@right("exam08.block_price")
def with_numpy(inputs, inner, outputs, side, kernel, stride, groups):
    new = (side + stride - 1) // stride
    ins, outs = np.array([inputs, inner // groups, inner, inputs]), np.array([inner, inner, outputs, outputs])
    kernels, sides = np.array([1, kernel, 1, 1]), np.array([side, new, new, new])
    last = 4 if stride > 1 or inputs != outputs else 3
    weights = ins * outs * kernels**2
    return (weights + 2 * outs)[:last].sum(), (weights * sides**2)[:last].sum(), new


@wrong("exam08.block_price", 0, 1)
def never_a_shortcut(*given):
    return _price(*given, shortcut=lambda *given: False)


@wrong("exam08.block_price")
def always_a_shortcut(*given):
    return _price(*given, shortcut=lambda *given: True)


@wrong("exam08.block_price", 0, 1)
def shortcut_for_channels_alone(*given):
    return _price(*given, shortcut=lambda i, o, s: i != o)


@wrong("exam08.block_price", 0, 1, 3)
def shortcut_for_a_stride_alone(*given):
    return _price(*given, shortcut=lambda i, o, s: s != 1)


@wrong("exam08.block_price", 0, 1)
def shortcut_without_its_norm(*given):
    return _price(*given, last_norm=False)


@wrong("exam08.block_price", 0, 1, 2)
def rounds_down(*given):
    return _price(*given, new=lambda side, stride: side // stride)


@wrong("exam08.block_price")
def padded_by_one(inputs, inner, outputs, side, kernel, stride, groups):
    return _price(inputs, inner, outputs, side, kernel, stride, groups,
                  new=lambda side, stride: (side + 2 - kernel) // stride + 1)


@wrong("exam08.block_price", 0, 1)
def first_one_strided(*given):
    return _price(*given, first_strided=True)


@wrong("exam08.block_price", 0, 2)
def groups_forgotten(*given):
    return _price(*given, weights=lambda inner, groups, kernel: inner**2 * kernel**2)


@wrong("exam08.block_price", 0, 2)
def groups_on_both_sides(*given):
    return _price(*given, weights=lambda inner, groups, kernel: (inner // groups) ** 2 * kernel**2)


@wrong("exam08.block_price")
def each_channel_for_itself(*given):
    return _price(*given, weights=lambda inner, groups, kernel: inner * kernel**2)


@wrong("exam08.block_price")
def no_norms(*given):
    return _price(*given, norm=0)


@wrong("exam08.block_price")
def running_statistics_too(*given):
    return _price(*given, norm=4)


@wrong("exam08.block_price")
def with_biases(*given):
    return _price(*given, bias=1)


@wrong("exam08.block_price")
def two_operations_each(*given):
    learned, adds, side = _price(*given)
    return learned, 2 * adds, side


@wrong("exam08.block_price")
def kernel_without_its_square(*given):
    return _price(*given, weights=lambda inner, groups, kernel: inner * inner // groups * kernel)


@wrong("exam08.block_price")
def the_side_forgotten(*given):
    return _price(*given)[:2]


def _attend(q, k, v, seen, scale=None, hide=lambda s, seen: s.masked_fill(~seen, -math.inf), dim=2,
            after=lambda w, seen: w.masked_fill(~seen, 0)):
    scores = torch.einsum("nqd,nkd->nqk", q, k) / (scale or math.sqrt(q.shape[-1]))
    weights = after(hide(scores, seen).softmax(dim), seen)
    return weights @ v, weights


@right("exam08.attend")
def one_query_at_a_time(q, k, v, seen):
    answers, weights = torch.zeros(len(q), q.shape[1], v.shape[2]), torch.zeros(len(q), q.shape[1], k.shape[1])
    for n in range(len(q)):
        for i in range(q.shape[1]):
            places = [j for j in range(k.shape[1]) if seen[i, j]]
            if places:
                scores = [float(q[n, i] @ k[n, j]) / q.shape[2]**0.5 for j in places]
                parts = [math.exp(score - max(scores)) for score in scores]
                for j, part in zip(places, parts, strict=True):
                    weights[n, i, j] = part / sum(parts)
                    answers[n, i] += weights[n, i, j] * v[n, j]
    return answers, weights


@right("exam08.attend")
def numpy_without_loops(q, k, v, seen):
    q, k, v, seen = (one.numpy() for one in (q.double(), k.double(), v.double(), seen))
    scores = np.where(seen, q @ k.swapaxes(1, 2) / np.sqrt(q.shape[2]), -np.inf)
    highest = scores.max(2, keepdims=True)
    parts = np.exp(scores - np.where(np.isfinite(highest), highest, 0))
    weights = parts / np.maximum(parts.sum(2, keepdims=True), 1e-300)
    return weights @ v, weights


@right("exam08.attend")
def very_small_scores(q, k, v, seen):
    scores = (q / q.shape[-1]**0.5) @ k.mT
    weights = F.softmax(torch.where(seen, scores, torch.full_like(scores, -1e9)), -1) * seen
    return [weights.bmm(v), weights]


@right("exam08.attend")
def from_torch(q, k, v, seen):
    some = seen.any(1, keepdim=True)
    ask = lambda values: F.scaled_dot_product_attention(q, k, values, attn_mask=seen | ~some) * some
    return ask(v), ask(torch.eye(k.shape[1]).expand(len(k), -1, -1))


@wrong("exam08.attend", 0, 1, 3, 4)
def uniform_where_nothing_is_seen(q, k, v, seen):
    return _attend(q, k, v, seen, hide=lambda s, seen: s.masked_fill(~seen, -1e9), after=lambda w, seen: w)


@wrong("exam08.attend", 0, 1, 3, 4)
def no_numbers_where_nothing_is_seen(q, k, v, seen):
    return _attend(q, k, v, seen, after=lambda w, seen: w)


@wrong("exam08.attend", 0, 4)
def nothing_is_hidden(q, k, v, seen):
    return _attend(q, k, v, torch.ones_like(seen))


@wrong("exam08.attend", 0, 4)
def hidden_scores_are_zero(q, k, v, seen):
    return _attend(q, k, v, seen, hide=lambda s, seen: s * seen, after=lambda w, seen: w)


@wrong("exam08.attend", 0, 4)
def weights_cut_off_afterwards(q, k, v, seen):
    return _attend(q, k, v, seen, hide=lambda s, seen: s)


@wrong("exam08.attend")
def seen_the_wrong_way_round(q, k, v, seen):
    return _attend(q, k, v, ~seen)


@wrong("exam08.attend")
def without_the_root(q, k, v, seen):
    return _attend(q, k, v, seen, scale=q.shape[-1])


@wrong("exam08.attend")
def not_divided(q, k, v, seen):
    return _attend(q, k, v, seen, scale=1.0)


@wrong("exam08.attend")
def root_of_the_length_of_values(q, k, v, seen):
    return _attend(q, k, v, seen, scale=v.shape[-1]**0.5)


@wrong("exam08.attend")
def softmax_over_the_queries(q, k, v, seen):
    return _attend(q, k, v, seen, dim=1)


@wrong("exam08.attend", 0, 1, 2, 4)
def overflows(q, k, v, seen):
    parts = torch.exp(q @ k.transpose(1, 2) / q.shape[2]**0.5) * seen
    weights = parts / parts.sum(2, keepdim=True).clamp(min=1e-30)
    return weights @ v, weights


@wrong("exam08.attend", 0, 1, 2, 4)
def hidden_scores_are_not_small_enough(q, k, v, seen):
    return _attend(q, k, v, seen, hide=lambda s, seen: s.masked_fill(~seen, -1e4))


@wrong("exam08.attend")
def answers_alone(q, k, v, seen):
    return _attend(q, k, v, seen)[0]


@wrong("exam08.attend", 0, 1, 2, 3)
def divides_the_queries_where_they_stand(q, k, v, seen):
    return _attend(q.div_(q.shape[2]**0.5), k, v, seen, scale=1.0)
