"""Students' answers to the exercises of lesson 8."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from . import right, wrong


@right("08.conv_cost")
def by_building(inputs, outputs, kernel, height, width, separable):
    if separable:
        layers = [nn.Conv2d(inputs, inputs, kernel, groups=inputs, bias=False), nn.Conv2d(inputs, outputs, 1)]
    else:
        layers = [nn.Conv2d(inputs, outputs, kernel)]
    weights = sum(layer.weight.numel() for layer in layers)
    return [weights + outputs, float(weights) * height * width]


@wrong("08.conv_cost", "at [0]: 62 in place of 59")
def bias_in_both_steps(inputs, outputs, kernel, height, width, separable):
    parameters, work = by_building(inputs, outputs, kernel, height, width, separable)
    return parameters + inputs * separable, work


@wrong("08.conv_cost", "at [1]: 470400 in place of 604800")
def height_twice(inputs, outputs, kernel, height, width, separable):
    parameters, _ = by_building(inputs, outputs, kernel, height, width, separable)
    return parameters, (parameters - outputs) * height**2


@wrong("08.conv_cost", "at [1]: 13824 in place of 21600")
def no_padding(inputs, outputs, kernel, height, width, separable):
    parameters, _ = by_building(inputs, outputs, kernel, height, width, separable)
    return parameters, (parameters - outputs) * (height - kernel + 1) * (width - kernel + 1)


@wrong("08.conv_cost", "at [1]: 8 in place of 4")
def additions_too(inputs, outputs, kernel, height, width, separable):
    parameters, work = by_building(inputs, outputs, kernel, height, width, separable)
    return parameters, 2 * work


@right("08.to_int8")
def half_up(values, calibration):
    scale = max(abs(v) for v in calibration.tolist()) / 127
    whole = [min(max(int(np.floor(v / scale + 0.5)), -128), 127) for v in values.tolist()]
    return torch.tensor(whole, dtype=torch.int8), scale


@wrong("08.to_int8", "at 'type': 'torch.float32' in place of 'torch.int8'")
def as_floats(values, calibration):
    scale = calibration.abs().max() / 127
    return (values / scale).round().clamp(-128, 127), scale


@wrong("08.to_int8", "at 'type': 'torch.int64' in place of 'torch.int8'")
def as_int64(values, calibration):
    whole, scale = half_up(values, calibration)
    return whole.long(), scale


@wrong("08.to_int8", "at 'scale': 127 in place of 0.00787402")
def inverse_scale(values, calibration):
    whole, scale = half_up(values, calibration)
    return whole, 1 / scale


@wrong("08.to_int8", "at 'whole numbers': at [1]: -127 in place of -128")
def clamped_to_127(values, calibration):
    whole, scale = half_up(values, calibration)
    return whole.clamp(min=-127), scale


@wrong("08.to_int8", "at 'whole numbers': at [1]: -25 in place of -66")
def values_clipped_first(values, calibration):
    return half_up(values.clamp(calibration.min(), calibration.max()), calibration)


@right("08.unbeaten")
def one_sweep(costs, errors):
    front, best = [], {}
    for name in sorted(costs, key=lambda name: (costs[name], errors[name])):
        if all(error > errors[name] for error in best) or (costs[name], errors[name]) in best.values():
            front.append(name)
            best[errors[name]] = costs[name], errors[name]
    return tuple(front)


@wrong("08.unbeaten", "1 element in place of 2")
def running_minimum(costs, errors):
    front, best = [], float("inf")
    for name in sorted(costs, key=costs.get):
        if errors[name] < best:
            front.append(name)
            best = errors[name]
    return front


@wrong("08.unbeaten", "of type set in place of list")
def a_set(costs, errors):
    return set(one_sweep(costs, errors))


@wrong("08.unbeaten", "1 element in place of 2")
def only_the_best(costs, errors):
    return [min(costs, key=lambda name: costs[name] * errors[name])] if costs else []


@wrong("08.unbeaten", "at [0]: 'a' in place of 'b'")
def sorted_by_error(costs, errors):
    return sorted(one_sweep(costs, errors), key=errors.get)


@right("08.add_up_gradients")
def sums_then_divided(model, parts):
    for p in model.parameters():
        p.grad = None
    for x, y in parts:
        F.cross_entropy(model(x), y, reduction="sum").backward()
    n = sum(y.numel() for _, y in parts)
    for p in model.parameters():
        p.grad = p.grad / n


@wrong("08.add_up_gradients", "all parts are in memory at once")
def whole_batch(model, parts):
    model.zero_grad()
    F.cross_entropy(model(torch.cat([x for x, _ in parts])), torch.cat([y for _, y in parts])).backward()


@wrong("08.add_up_gradients", "all parts are in memory at once")
def losses_added_up(model, parts):
    model.zero_grad()
    n = sum(len(y) for _, y in parts)
    sum(F.cross_entropy(model(x), y, reduction="sum") / n for x, y in parts).backward()


@wrong("08.add_up_gradients", "You take a step, so the weights move. Only the gradients")
def with_a_step(model, parts):
    sums_then_divided(model, parts)
    torch.optim.SGD(model.parameters(), lr=0.1).step()


@wrong("08.add_up_gradients", "at 'weight': 12 of 12 numbers differ, the first at [0,")
def size_of_the_first(model, parts):
    model.zero_grad()
    n = len(parts) * len(parts[0][1])
    for x, y in parts:
        (F.cross_entropy(model(x), y) * len(y) / n).backward()


@right("08.parallel_steps")
def numpy_steps(step_seconds, parameters, gigabits, delay, at_most):
    n = np.arange(1, at_most + 1)
    seconds = step_seconds / n + 2 * (n - 1) * (delay + 32 * parameters / n / (gigabits * 1e9))
    return list(seconds), int(seconds.argmin()) + 1


@wrong("08.parallel_steps", "at [0]: at [0]: 1.066 in place of 1")
def two_n_rounds(step_seconds, parameters, gigabits, delay, at_most):
    seconds = [step_seconds / n + 2 * n * (delay + 32 * parameters / n / (gigabits * 1e9))
               for n in range(1, at_most + 1)]
    return seconds, seconds.index(min(seconds)) + 1


@wrong("08.parallel_steps", "at [0]: 2 elements in place of 3")
def range_one_short(step_seconds, parameters, gigabits, delay, at_most):
    seconds, best = numpy_steps(step_seconds, parameters, gigabits, delay, max(at_most - 1, 1))
    return seconds, best


@wrong("08.parallel_steps", "at [0]: at [1]: 0.531802 in place of 0.534")
def binary_gigabits(step_seconds, parameters, gigabits, delay, at_most):
    return numpy_steps(step_seconds, parameters, gigabits * 2**30 / 1e9, delay, at_most)


@wrong("08.parallel_steps", "at [1]: 0.38 in place of 3")
def seconds_of_the_best(step_seconds, parameters, gigabits, delay, at_most):
    seconds, _ = numpy_steps(step_seconds, parameters, gigabits, delay, at_most)
    return seconds, min(seconds)


def steps_of(optimizer, scores_of, clear=True, before_step=lambda: None):
    """Steps that differ in how the scores are computed, and in little else."""
    def step(x, y):
        loss = F.cross_entropy(scores_of(x).float(), y)
        if clear:
            optimizer.zero_grad()
        loss.backward()
        before_step()
        optimizer.step()
        return loss.item()

    return step


def in_autocast(model, optimizer, **options):
    """Steps with the layers in fp16."""
    def scores_of(x):
        with torch.autocast("cpu", torch.float16):
            return model(x)

    return steps_of(optimizer, scores_of, **options)


@right("08.half_trainer")
def with_a_scaler(model, lr):
    optimizer, scaler = torch.optim.AdamW(model.parameters(), lr), torch.amp.GradScaler("cpu", init_scale=128.0)

    def step(x, y):
        optimizer.zero_grad()
        with torch.amp.autocast("cpu", torch.float16):
            loss = F.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return float(loss.detach())

    return step


@right("08.half_trainer")
def layers_by_hand(model, lr):
    model.float()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)

    def scores_of(x):
        halves = {name: p.half() for name, p in model.named_parameters()}
        return torch.func.functional_call(model, halves, x.half())

    return steps_of(optimizer, scores_of)


@wrong("08.half_trainer", "The layers compute in bf16: that is what autocast takes")
def bfloat16_layers(model, lr):
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)

    def scores_of(x):
        with torch.autocast("cpu"):
            return model(x)

    return steps_of(optimizer, scores_of)


@wrong("08.half_trainer", "`half_trainer` gives back a number. Wanted: a function.")
def one_step_at_once(model, lr):
    return float(lr)


@wrong("08.half_trainer", "Now everything computes in 32 bits")
def input_in_halves_only(model, lr):
    return steps_of(torch.optim.AdamW(model.parameters(), lr=lr), lambda x: model(x.half().float()))


@wrong("08.half_trainer", "at 'weights that are numbers': 0 in place of 1")
def clipped(model, lr):
    model.half()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, foreach=False)
    return steps_of(optimizer, lambda x: model(x.half()),
                    before_step=lambda: nn.utils.clip_grad_norm_(model.parameters(), 1.0))



@wrong("08.half_trainer", "at 'the weights move as with AdamW in 32 bits': False in place of True")
def sgd_for_adamw(model, lr):
    return in_autocast(model, torch.optim.SGD(model.parameters(), lr=10 * lr))


@wrong("08.half_trainer", "at 'the weights move as with AdamW in 32 bits': False in place of True")
def a_large_eps_all_the_same(model, lr):
    return in_autocast(model, torch.optim.AdamW(model.parameters(), lr=lr, eps=1e-2))


@wrong("08.half_trainer", "at 'the weights move as with AdamW in 32 bits': False in place of True")
def a_rate_of_its_own(model, lr):
    return in_autocast(model, torch.optim.AdamW(model.parameters()))


@wrong("08.half_trainer", "at 'the layers compute in'")
def the_last_layer_alone(model, lr):
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)

    def scores_of(x):
        inside = model[:-1](x)
        with torch.autocast("cpu", torch.float16):
            return model[-1](inside)

    return steps_of(optimizer, scores_of)


@wrong("08.half_trainer", "at 'the weights move as with AdamW in 32 bits': False in place of True")
def gradients_pile_up(model, lr):
    return in_autocast(model, torch.optim.AdamW(model.parameters(), lr=lr), clear=False)


@wrong("08.unbeaten", "at [0]: 'a' in place of 'twin'")
def ties_by_name(costs, errors):
    front = [n for n in costs if not any(costs[o] <= costs[n] and errors[o] <= errors[n]
                                         and (costs[o], errors[o]) != (costs[n], errors[n]) for o in costs)]
    return sorted(front, key=lambda name: (costs[name], name))


@right("08.conv_cost")
def counted_in_words(inputs, outputs, kernel, height, width, separable):
    depthwise = kernel * kernel * inputs if separable else 0
    rest = inputs * outputs * (1 if separable else kernel * kernel)
    return np.array([depthwise + rest + outputs, (depthwise + rest) * height * width])


@right("08.conv_cost")
def with_ifs(inputs, outputs, kernel, height, width, separable):
    if separable:
        per_place = inputs * kernel**2 + inputs * outputs
    else:
        per_place = inputs * outputs * kernel**2
    return (outputs + per_place, per_place * (height * width))


@wrong("08.conv_cost", "The biases are missing among your parameters: one for each")
def without_biases(inputs, outputs, kernel, height, width, separable):
    w = inputs * kernel**2 + inputs * outputs if separable else inputs * outputs * kernel**2
    return w, w * height * width


@wrong("08.conv_cost", "You count multiply-adds for the biases. A bias is only")
def biases_multiplied(inputs, outputs, kernel, height, width, separable):
    w = inputs * kernel**2 + inputs * outputs if separable else inputs * outputs * kernel**2
    return w + outputs, (w + outputs) * height * width


@right("08.to_int8")
def with_clip(values, calibration):
    scale = torch.max(calibration.abs()).item() / 127
    q = torch.clip(torch.round(values / scale), min=-128, max=127)
    return q.to(dtype=torch.int8), torch.tensor(scale)


@right("08.to_int8")
def through_numpy(values, calibration):
    scale = float(np.abs(calibration.numpy()).max()) / 127
    q = np.rint(values.numpy() / scale).clip(-128, 127).astype(np.int8)
    return torch.from_numpy(q), scale


@wrong("08.to_int8", "Your scale comes from the largest value, but the largest")
def signed_maximum(values, calibration):
    scale = calibration.max() / 127
    return (values / scale).round().clamp(-128, 127).to(torch.int8), scale


@right("08.unbeaten")
def two_loops(costs, errors):
    kept = []
    for n in costs:
        beaten = False
        for o in costs:
            at_most = costs[o] <= costs[n] and errors[o] <= errors[n]
            better = costs[o] < costs[n] or errors[o] < errors[n]
            beaten = beaten or (at_most and better)
        if not beaten:
            kept.append(n)
    return sorted(kept, key=costs.get)


@right("08.unbeaten")
def numpy_names(costs, errors):
    names = np.array(list(costs))
    c, e = np.array([costs[n] for n in costs]), np.array([errors[n] for n in costs])
    if not len(names):
        return []
    less = (c[:, None] <= c) & (e[:, None] <= e) & ((c[:, None] < c) | (e[:, None] < e))
    front = ~less.any(0)
    return list(names[front][np.argsort(c[front], kind="stable")])


@wrong("08.unbeaten", "You let a network be beaten only by one that is better in")
def strictly_better_in_both(costs, errors):
    kept = [n for n in costs if not any(costs[o] < costs[n] and errors[o] < errors[n] for o in costs)]
    return sorted(kept, key=lambda n: costs[n])


@right("08.add_up_gradients")
def shares_of_the_loss(model, parts):
    model.zero_grad(set_to_none=True)
    total = sum(x.shape[0] for x, _ in parts)
    for x, y in parts:
        nn.CrossEntropyLoss()(model(x), y).mul(len(x) / total).backward()


@right("08.add_up_gradients")
def gradients_collected(model, parts):
    weights, n = list(model.parameters()), sum(len(y) for _, y in parts)
    sums = [torch.zeros_like(p) for p in weights]
    for x, y in parts:
        loss = F.cross_entropy(model(x), y, reduction="sum")
        for s, g in zip(sums, torch.autograd.grad(loss, weights), strict=True):
            s += g
    for p, s in zip(weights, sums, strict=False):
        p.grad = s / n


@wrong("08.add_up_gradients", "You divide by the number of parts. That is right where all")
def mean_of_the_means(model, parts):
    model.zero_grad()
    for x, y in parts:
        (F.cross_entropy(model(x), y) / len(parts)).backward()


@wrong("08.add_up_gradients", "The gradients of the step before are still in the sum.")
def old_gradients_stay(model, parts):
    n = sum(len(y) for _, y in parts)
    for x, y in parts:
        (F.cross_entropy(model(x), y, reduction="sum") / n).backward()


@right("08.parallel_steps")
def written_out(step_seconds, parameters, gigabits, delay, at_most):
    bytes_per_second = gigabits * 1_000_000_000 / 8
    seconds = []
    for n in range(1, at_most + 1):
        rounds = 2 * (n - 1)
        piece = 4 * parameters / n
        seconds.append(step_seconds / n + rounds * (piece / bytes_per_second + delay))
    return seconds, min(range(at_most), key=seconds.__getitem__) + 1


@right("08.parallel_steps")
def torch_steps(step_seconds, parameters, gigabits, delay, at_most):
    n = torch.arange(1, at_most + 1, dtype=torch.float64)
    t = step_seconds / n + 2 * (n - 1) * (delay + 32 * parameters / (n * gigabits * 1e9))
    return t, t.argmin() + 1


@wrong("08.parallel_steps", "You take bits for bytes. Cables are sold in bits: divide")
def bits_for_bytes(step_seconds, parameters, gigabits, delay, at_most):
    each = range(1, at_most + 1)
    s = [step_seconds / n + 2 * (n - 1) * (delay + 4 * parameters / n / (gigabits * 1e9)) for n in each]
    return s, s.index(min(s)) + 1


@wrong("08.parallel_steps", "The seconds are right, but the best number is one too")
def index_of_the_best(step_seconds, parameters, gigabits, delay, at_most):
    s = written_out(step_seconds, parameters, gigabits, delay, at_most)[0]
    return s, s.index(min(s))


@right("08.half_trainer")
def master_copies(model, lr):
    """Micikevicius et al. (2018): the network in halves, 32-bit masters with the optimiser."""
    masters = [p.detach().float().clone().requires_grad_() for p in model.parameters()]
    model.half()
    optimizer = torch.optim.AdamW(masters, lr=lr)

    def step(x, y):
        loss = F.cross_entropy(model(x.half()).float(), y)
        model.zero_grad()
        (128 * loss).backward()
        for master, p in zip(masters, model.parameters(), strict=False):
            master.grad = p.grad.float() / 128
        optimizer.step()
        with torch.no_grad():
            for master, p in zip(masters, model.parameters(), strict=False):
                p.copy_(master)
        return loss.item()

    return step
