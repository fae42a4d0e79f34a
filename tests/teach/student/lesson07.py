"""Students' answers to the exercises of lesson 7."""

import math
import statistics
from collections import defaultdict

import numpy as np
import torch

from . import right, wrong


@right("07.mean_and_std")
def by_numpy(errors):
    return [np.mean(errors), np.std(errors, ddof=1) if len(errors) > 1 else 0]


@right("07.mean_and_std")
def by_torch(errors):
    values = torch.tensor(errors)
    return values.mean(), values.std() if values.numel() > 1 else torch.tensor(0.0)


@wrong("07.mean_and_std", "You divide by n: that is the spread of a whole")
def numpy_as_it_is(errors):
    return np.mean(errors), np.std(errors)


@wrong("07.mean_and_std", "at [1]: nan in place of 0")
def not_a_number_for_one(errors):
    return float(np.mean(errors)), statistics.stdev(errors) if len(errors) > 1 else math.nan


@wrong("07.mean_and_std", "at [0]: 0.147066 in place of 0.147105")
def median(errors):
    return statistics.median(errors), statistics.stdev(errors) if len(errors) > 1 else 0.0


@wrong("07.mean_and_std", "at [0]: 0.0141421 in place of 0.15")
def spread_first(errors):
    return by_numpy(errors)[::-1]


@wrong("07.mean_and_std", "prints, but gives nothing back")
def prints_both(errors):
    print(*by_numpy(errors))


@right("07.root_rates")
def two_pieces(steps, warm_up, highest):
    step = np.arange(1, steps + 1)
    return np.where(step <= warm_up, highest * step / warm_up, highest * np.sqrt(warm_up / step)).tolist()


@wrong("07.root_rates", ".tolist()")
def array(steps, warm_up, highest):
    return np.array(two_pieces(steps, warm_up, highest))


@wrong("07.root_rates", "at [0]: 0.25 in place of 0.5")
def logarithmic_warm_up(steps, warm_up, highest):
    return [highest * min((n / warm_up) ** 2, (warm_up / n) ** 0.5) for n in range(1, steps + 1)]


@wrong("07.root_rates", "7 elements in place of 8")
def one_step_short(steps, warm_up, highest):
    return two_pieces(steps, warm_up, highest)[:steps - 1]


@wrong("07.root_rates", "at [0]: 0.666667 in place of 0.5")
def warm_up_ends_early(steps, warm_up, highest):
    return [highest * min((n + 1) / (warm_up + 1), (warm_up / n) ** 0.5) for n in range(1, steps + 1)]


@right("07.final_figure")
def with_numpy(trials):
    groups = defaultdict(list)
    for t in trials:
        groups[t["config"]].append((t["valid"], t["test"]))
    means = {name: np.mean(rows, axis=0) for name, rows in groups.items()}
    best = sorted(means, key=lambda name: means[name][0])[0]
    return [best, means[best][1]]


@wrong("07.final_figure", "You compare *sums* over the trials, so a configuration")
def divided_by_all_seeds(trials):
    sums = defaultdict(float)
    for t in trials:
        sums[t["config"]] += t["valid"]
    best = min(sums, key=sums.get)
    return best, statistics.fmean(t["test"] for t in trials if t["config"] == best)


@wrong("07.final_figure", "at [0]: 'small' in place of 'large'")
def both_errors_together(trials):
    found = defaultdict(list)
    for t in trials:
        found[t["config"]].append((t["valid"] + t["test"]) / 2)
    best = min(found, key=lambda name: statistics.fmean(found[name]))
    return best, statistics.fmean(found[best])


@wrong("07.final_figure", "only what belongs at [0] comes back; 2 things are wanted")
def name_alone(trials):
    return with_numpy(trials)[0]


@wrong("07.final_figure", "at [1]: 0.17 in place of 0.165")
def test_of_the_best_seed(trials):
    best = with_numpy(trials)[0]
    return best, min((t for t in trials if t["config"] == best), key=lambda t: t["valid"])["test"]


@right("07.paired_interval")
def related_t_test(first, second):
    from scipy.stats import ttest_rel

    seeds = sorted(first.keys() & second.keys())
    return ttest_rel([second[s] for s in seeds], [first[s] for s in seeds]).confidence_interval(0.95)


@right("07.paired_interval")
def interval_of_t(first, second):
    from scipy.stats import sem, t

    d = np.array([second[s] - first[s] for s in second if s in first])
    return np.array(t.interval(0.95, len(d) - 1, loc=d.mean(), scale=sem(d))).tolist()


@wrong("07.paired_interval", "at [0]: -0.0128374 in place of -0.0134841")
def degrees_of_freedom(first, second):
    from scipy.stats import t

    d = [second[s] - first[s] for s in first if s in second]
    reach = t.ppf(0.975, len(d)) * statistics.stdev(d) / math.sqrt(len(d))
    return statistics.fmean(d) - reach, statistics.fmean(d) + reach


@wrong("07.paired_interval", "at [0]: -0.711059 in place of -0.0320177")
def missing_counts_as_zero(first, second):
    seeds = first.keys() | second.keys()
    return interval_of_t({s: first.get(s, 0.0) for s in seeds}, {s: second.get(s, 0.0) for s in seeds})


@wrong("07.paired_interval", "It raised KeyError in the line `return")
def key_error(first, second):
    return interval_of_t(first, {s: second[s] for s in first})


@wrong("07.paired_interval", "at [0]: -0.011 in place of -0.0134841")
def mean_and_reach(first, second):
    low, high = interval_of_t(first, second)
    return (low + high) / 2, (high - low) / 2


@wrong("07.paired_interval", "at [0]: -0.0674207 in place of -0.0134841")
def ratio(first, second):
    low, high = interval_of_t(first, second)
    return low / statistics.fmean(first.values()), high / statistics.fmean(first.values())


@right("07.winners_luck")
def with_a_generator(count, spread, repeats):
    return float((0 - np.random.default_rng(1).normal(0, spread, (repeats, count)).min(axis=1)).mean())


@right("07.winners_luck")
def search_by_search(count, spread, repeats):
    total = 0.0
    for _ in range(repeats):
        total -= min(np.random.normal(scale=spread, size=count))
    return total / repeats


@wrong("07.winners_luck", "-0.334491 in place of 0.577251")
def uniform(count, spread, repeats):
    return -(spread * torch.rand(repeats, count)).amin(1).mean().item()


@wrong("07.winners_luck", "-0.406571 in place of 0.577251")
def one_search(count, spread, repeats):
    return -(spread * torch.randn(count)).min().item() - 0.7


@wrong("07.winners_luck", "1.16263 in place of 0.581314")
def spread_forgotten(count, spread, repeats):
    return -torch.randn(repeats, count).amin(1).mean().item()


@wrong("07.winners_luck", "0.822102 in place of 0.581314")
def variance_for_spread(count, spread, repeats):
    return -(spread**0.5 * torch.randn(repeats, count)).amin(1).mean().item()


@wrong("07.winners_luck", "0.0652491 in place of 1.87564")
def median_of_the_search(count, spread, repeats):
    return -(spread * torch.randn(repeats, count)).median(1).values.mean().item()


@right("07.make_training")
def with_a_lambda(parameters, lr, every, gamma):
    optimizer = torch.optim.SGD([{"params": parameters}], lr=lr, momentum=0.9)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: gamma ** (step // every))


@right("07.make_training")
def milestones(parameters, lr, every, gamma):
    optimizer = torch.optim.SGD(parameters, lr, 0.9)
    return optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, range(every, 1000, every), gamma)


@wrong("07.make_training", "at 'rates that the optimiser used': at [4]: 0.05 in place")
def one_milestone(parameters, lr, every, gamma):
    optimizer = torch.optim.SGD(parameters, lr, 0.9)
    return optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, [every], gamma)


@wrong("07.make_training", "It runs, but what it gives back or leaves behind does not")
def exchanged(parameters, lr, every, gamma):
    return milestones(parameters, lr, every, gamma)[::-1]


@wrong("07.make_training", "It runs, but what it gives back or leaves behind does not")
def the_plan_given_back(parameters, lr, every, gamma):
    optimizer, schedule = milestones(parameters, lr, every, gamma)
    return schedule


@wrong("07.make_training", "at 'rates that the optimiser used': at [1]: 0.0707107 in")
def evenly(parameters, lr, every, gamma):
    optimizer = torch.optim.SGD(parameters, lr, 0.9)
    return optimizer, torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma ** (1 / every))
