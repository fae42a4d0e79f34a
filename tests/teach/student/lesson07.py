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


@right("07.root_rates")
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


@wrong("07.make_training", "What `make_training` gives back has at [0] one of class")
def exchanged(parameters, lr, every, gamma):
    return milestones(parameters, lr, every, gamma)[::-1]


@wrong("07.make_training", "`make_training` gives back one of class `MultiStepLR`.")
def the_plan_given_back(parameters, lr, every, gamma):
    optimizer, schedule = milestones(parameters, lr, every, gamma)
    return schedule


@wrong("07.make_training", "at 'rates that the optimiser used': at [1]: 0.0707107 in")
def evenly(parameters, lr, every, gamma):
    optimizer = torch.optim.SGD(parameters, lr, 0.9)
    return optimizer, torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma ** (1 / every))


@right("07.mean_and_std")
def by_hand(errors):
    n = len(errors)
    mean = sum(errors) / n
    if n == 1:
        return mean, 0
    return mean, (sum((e - mean) ** 2 for e in errors) / (n - 1)) ** 0.5


@wrong("07.mean_and_std", "You give the variance, in squared points. Take its root.")
def variance_of_the_sample(errors):
    return np.mean(errors), np.var(errors, ddof=1) if len(errors) > 1 else 0.0


@right("07.root_rates")
def loop_with_if(steps, warm_up, highest):
    rates = []
    for step in range(1, steps + 1):
        if step < warm_up:
            rates.append(step / warm_up * highest)
        else:
            rates.append(highest * math.sqrt(warm_up) / math.sqrt(step))
    return rates


@wrong("07.root_rates", "You count the steps from 0. Then the rate of the first")
def steps_from_zero(steps, warm_up, highest):
    return [highest * (s / warm_up if s < warm_up else (warm_up / s) ** 0.5) for s in range(steps)]


@wrong("07.root_rates", "Your rate falls as 1 / step: after four times the warm-up")
def one_over_step(steps, warm_up, highest):
    return [highest * s / warm_up if s <= warm_up else highest * warm_up / s for s in range(1, steps + 1)]


@wrong("07.root_rates", "The two parts do not meet: after the warm-up the rate")
def falls_without_meeting(steps, warm_up, highest):
    return [highest * s / warm_up if s <= warm_up else highest / s**0.5 for s in range(1, steps + 1)]


@right("07.final_figure")
def sorted_by_mean(trials):
    configs = np.array([t["config"] for t in trials])
    valid, test = (np.array([t[key] for t in trials]) for key in ("valid", "test"))
    best = min(np.unique(configs), key=lambda c: valid[configs == c].mean())
    return best, test[configs == best].mean()


@right("07.final_figure")
def running_sums(trials):
    totals = {}
    for t in trials:
        n, v, s = totals.get(t["config"], (0, 0.0, 0.0))
        totals[t["config"]] = n + 1, v + t["valid"], s + t["test"]
    name, (n, _, s) = min(totals.items(), key=lambda item: item[1][1] / item[1][0])
    return name, s / n


@wrong("07.final_figure", "You choose by the *test* error. Then the test images have")
def best_on_test(trials):
    groups = defaultdict(list)
    for t in trials:
        groups[t["config"]].append(t["test"])
    best = min(groups, key=lambda c: np.mean(groups[c]))
    return best, np.mean(groups[best])


@wrong("07.final_figure", "The choice is right, but you report the error by which it")
def valid_reported(trials):
    groups = defaultdict(list)
    for t in trials:
        groups[t["config"]].append(t["valid"])
    best = min(groups, key=lambda c: np.mean(groups[c]))
    return best, np.mean(groups[best])


@right("07.paired_interval")
def bounds_as_array(first, second):
    from scipy import stats

    d = np.array([second[s] - first[s] for s in set(first) & set(second)])
    return d.mean() + np.array([-1, 1]) * stats.t.ppf(0.975, d.size - 1) * d.std(ddof=1) / np.sqrt(d.size)


@wrong("07.paired_interval", "You use 1.96, which is for many differences. With three of")
def quantile_of_the_normal(first, second):
    from scipy.stats import norm

    d = np.array([second[s] - first[s] for s in first if s in second])
    half = norm.ppf(0.975) * d.std(ddof=1) / len(d) ** 0.5
    return d.mean() - half, d.mean() + half


@wrong("07.paired_interval", "You compare two means with two spreads, as if the runs had")
def two_samples(first, second):
    from scipy.stats import t

    seeds = [s for s in first if s in second]
    a, b = np.array([first[s] for s in seeds]), np.array([second[s] for s in seeds])
    se = np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
    half = t.ppf(0.975, len(a) + len(b) - 2) * se
    return b.mean() - a.mean() - half, b.mean() - a.mean() + half


@right("07.winners_luck")
def normal_order_statistic(count, spread, repeats):
    """The expected minimum by numbers, without chance."""
    from scipy.stats import norm

    x = np.linspace(-9, 9, 20001)
    density = count * norm.pdf(x) * norm.sf(x) ** (count - 1)
    return -spread * float((x * density).sum() * (x[1] - x[0]))


@wrong("07.winners_luck", "Your sign is wrong: 'by how much below' is a positive")
def negative(count, spread, repeats):
    return np.random.default_rng(0).normal(0, spread, (repeats, count)).min(1).mean()


@right("07.make_training")
def step_written_out(parameters, lr, every, gamma):
    opt = torch.optim.SGD(parameters, lr=lr, momentum=0.9)
    return [opt, torch.optim.lr_scheduler.StepLR(opt, step_size=every, gamma=gamma)]


@wrong("07.make_training", "This still does what the one you were given does. Which")
def two_optimisers(parameters, lr, every, gamma):
    a, b = (torch.optim.SGD(parameters, lr=lr, momentum=0.9) for _ in range(2))
    return a, torch.optim.lr_scheduler.StepLR(b, every, gamma)


@wrong("07.make_training", "What `make_training` gives back has at [0] one of class")
def adam_for_sgd(parameters, lr, every, gamma):
    opt = torch.optim.Adam(parameters, lr=lr)
    return opt, torch.optim.lr_scheduler.StepLR(opt, every, gamma)
