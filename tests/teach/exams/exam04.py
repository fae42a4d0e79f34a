"""Answers to the exam of lesson 4."""

import math
import statistics

import numpy as np
import torch

from . import right, wrong


@right("exam04.losses_kept")
def by_slices(losses, factor):
    for k in range(len(losses)):
        before = losses[:k]
        if math.isnan(losses[k]) or math.isinf(losses[k]) or before and losses[k] > factor * min(before):
            return k
    return len(losses)


@right("exam04.losses_kept")
def with_numpy(losses, factor):
    values = np.array(losses, dtype=float)
    before = np.concatenate([[np.inf], np.fmin.accumulate(values)[:-1]]) if len(values) else values
    bad = ~np.isfinite(values) | (values > factor * before)
    return int(bad.argmax()) if bad.any() else len(values)


@right("exam04.losses_kept")
def by_counting(losses, factor):
    kept = []
    for loss in losses:
        if not abs(loss) < math.inf or (kept and not loss <= factor * min(kept)):
            break
        kept.append(loss)
    return torch.tensor(len(kept))


@wrong("exam04.losses_kept")
def counts_the_one_that_is_too_large(losses, factor):
    return by_slices(losses, factor) + (by_slices(losses, factor) < len(losses))


@wrong("exam04.losses_kept", 0, 2, 3)
def at_least_factor_times(losses, factor):
    return by_slices(losses, factor * (1 - 1e-9))


@wrong("exam04.losses_kept")
def against_the_first_loss(losses, factor):
    too_large = lambda loss: not math.isfinite(loss) or loss > factor * losses[0]
    return next((k for k, loss in enumerate(losses) if too_large(loss)), len(losses))


@wrong("exam04.losses_kept")
def against_the_loss_before(losses, factor):
    return next((k for k in range(1, len(losses)) if losses[k] > factor * losses[k - 1]), len(losses))


@wrong("exam04.losses_kept", 0, 1, 3)
def nan_is_not_larger(losses, factor):
    lowest = math.inf
    for k, loss in enumerate(losses):
        if loss > factor * lowest:
            return k
        lowest = min(lowest, loss)
    return len(losses)


@wrong("exam04.losses_kept", 0, 2, 3)
def none_where_it_does_not_diverge(losses, factor):
    found = by_slices(losses, factor)
    return found if found < len(losses) else None


@wrong("exam04.losses_kept")
def against_the_lowest_of_all(losses, factor):
    lowest = min(losses, default=0)
    return next((k for k, loss in enumerate(losses) if loss > factor * lowest or not math.isfinite(loss)), len(losses))


@wrong("exam04.losses_kept")
def the_losses_themselves(losses, factor):
    return losses[:by_slices(losses, factor)]


@wrong("exam04.losses_kept", 0, 2, 3)
def begins_with_the_first(losses, factor):
    lowest = losses[0]
    for k, loss in enumerate(losses):
        if not np.isfinite(loss) or loss > factor * lowest:
            return k
        lowest = min(lowest, loss)
    return len(losses)


@right("exam04.rate_of_sweeps")
def geometric_mean(sweeps):
    rates = []
    for tried, losses in sweeps:
        finite = [k for k in range(len(losses)) if math.isfinite(losses[k])]
        rates.append(tried[min(finite, key=lambda k: losses[k])] / 10)
    return statistics.geometric_mean(rates)


@right("exam04.rate_of_sweeps")
def in_powers_of_ten(sweeps):
    exponents = []
    for rates, losses in sweeps:
        values = np.array(losses)
        values[~np.isfinite(values)] = np.inf
        exponents.append(np.log10(rates[int(values.argmin())]) - 1)
    return 10 ** np.mean(exponents)


@right("exam04.rate_of_sweeps")
def root_of_the_product(sweeps):
    product = 1.0
    for rates, losses in sweeps:
        best = None
        for rate, loss in zip(rates, losses, strict=True):
            if loss == loss and abs(loss) != math.inf and (best is None or loss < best[0]):
                best = loss, rate
        product *= best[1] / 10
    return torch.tensor(product, dtype=torch.float64) ** (1 / len(sweeps))


@wrong("exam04.rate_of_sweeps", 0, 3, 4)
def arithmetic_mean(sweeps):
    return statistics.mean(geometric_mean([sweep]) for sweep in sweeps)


@wrong("exam04.rate_of_sweeps", 0, 3, 4)
def median_of_the_sweeps(sweeps):
    return statistics.median(geometric_mean([sweep]) for sweep in sweeps)


@wrong("exam04.rate_of_sweeps", 0, 1, 3, 4)
def takes_what_is_no_number(sweeps):
    return math.exp(statistics.mean(math.log(rates[losses.index(min(losses))] / 10) for rates, losses in sweeps))


@wrong("exam04.rate_of_sweeps", 0, 1, 2, 4)
def largest_of_equals(sweeps):
    turned = [(rates[::-1], losses[::-1]) for rates, losses in sweeps]
    return geometric_mean(turned)


@wrong("exam04.rate_of_sweeps")
def not_a_tenth(sweeps):
    return 10 * geometric_mean(sweeps)


@wrong("exam04.rate_of_sweeps")
def the_lowest_loss(sweeps):
    return statistics.mean(min(losses) for _, losses in sweeps)


@wrong("exam04.rate_of_sweeps")
def mean_of_logarithms(sweeps):
    return math.log(geometric_mean(sweeps))


@wrong("exam04.rate_of_sweeps")
def a_rate_for_each(sweeps):
    return [geometric_mean([sweep]) for sweep in sweeps]


@wrong("exam04.rate_of_sweeps", 0, 3, 4)
def the_first_sweep_alone(sweeps):
    return geometric_mean(sweeps[:1])


@wrong("exam04.rate_of_sweeps", 0, 1, 2, 3)
def sorts_the_losses(sweeps):
    found = geometric_mean(sweeps)
    for _, losses in sweeps:
        losses.sort()
    return found
