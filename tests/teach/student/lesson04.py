"""Students' answers to the exercises of lesson 4."""

import copy
from collections import defaultdict
from itertools import cycle

import numpy as np
import torch
import torch.nn.functional as F

from . import right, wrong


@right("04.lr_sweep")
def numpy_list(start, stop, count):
    return list(np.geomspace(start, stop, count))


@right("04.lr_sweep")
def in_logarithms(start, stop, count):
    return tuple((torch.linspace(0, 1, count) * (torch.tensor(stop) / start).log()).exp().mul(start).tolist())


@right("04.lr_sweep")
def an_array(start, stop, count):
    return np.geomspace(start, stop, count)


@wrong("04.lr_sweep", "8 elements in place of 9")
def one_rate_short(start, stop, count):
    factor = (stop / start) ** (1 / (count - 1))
    return [start * factor**k for k in range(count - (count > 5))]


@wrong("04.lr_sweep", "0.01 in place of 0.001")
def starts_with_the_second(start, stop, count):
    factor = (stop / start) ** (1 / (count - 1))
    return [start * factor ** (k + 1) for k in range(count)]


@wrong("04.lr_sweep", "prints, but gives nothing back")
def printed_rates(start, stop, count):
    for k in range(count):
        print(start * (stop / start) ** (k / (count - 1)))


@wrong("04.lr_sweep", "1e-06 in place of 1e-07")
def powers_of_ten(start, stop, count):
    return [10.0 ** -k for k in range(3, -1, -1)] if count == 4 else [10.0**k for k in range(-6, 3)]


@right("04.running_mean")
def weights_by_numpy(losses, beta):
    return [np.average(losses[:n], weights=beta ** np.arange(n)[::-1]) for n in range(1, len(losses) + 1)]


@right("04.running_mean")
def summed_up(losses, beta):
    means, mean, weight = [], 0.0, 0.0
    for loss in torch.tensor(losses):
        mean, weight = beta * mean + (1 - beta) * loss, beta * weight + 1 - beta
        means.append(mean / weight)
    return means


@wrong("04.running_mean", "at [1]: ")
def divided_by_the_same(losses, beta):
    means, mean = [], 0.0
    for loss in losses:
        mean = beta * mean + (1 - beta) * loss
        means.append(mean / (1 - beta))
    return means


@wrong("04.running_mean", "in place of")
def starts_with_the_first_loss(losses, beta):
    means = []
    for loss in losses:
        means.append(loss if not means else beta * means[-1] + (1 - beta) * loss)
    return means


@wrong("04.running_mean", "4 in place of [4], of type float64 in place of list")
def only_the_last(losses, beta):
    return weights_by_numpy(losses, beta)[-1] if losses else []


@right("04.clean_sweep")
def sweep_of_a_copy(model, batches, rates):
    trial, losses = copy.deepcopy(model), []
    for (x, y), rate in zip(cycle(batches), rates, strict=False):
        optimizer = torch.optim.SGD(trial.parameters(), lr=rate)
        loss = F.cross_entropy(trial(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


@wrong("04.clean_sweep", "The parameters are back, the buffers are not")
def parameters_put_back(model, batches, rates):
    before, losses = [p.detach().clone() for p in model.parameters()], []
    for k in range(len(rates)):
        x, y = batches[k % 3]
        loss = F.cross_entropy(model(x), y)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        for p, g in zip(model.parameters(), gradients, strict=True):
            p.data -= rates[k] * g
        losses.append(float(loss.detach()))
    for p, old in zip(model.parameters(), before, strict=True):
        p.data = old
    return losses


@wrong("04.clean_sweep", "The weights stay where the last rate left them")
def shallow_state(model, batches, rates):
    kept = model.state_dict()
    losses = []
    for k, rate in enumerate(rates):
        x, y = batches[k % len(batches)]
        model.zero_grad()
        loss = F.cross_entropy(model(x), y)
        losses.append(loss.item())
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= rate * p.grad
    model.load_state_dict(kept)
    return losses


@wrong("04.clean_sweep", "2 elements in place of 5")
def ends_with_the_batches(model, batches, rates):
    return sweep_of_a_copy(model, batches, rates[:2])


@wrong("04.clean_sweep", "at 'losses': at [1]")
def step_the_wrong_way(model, batches, rates):
    return sweep_of_a_copy(model, batches, rates[:1]) + sweep_of_a_copy(model, batches[1:], rates[1:])


@wrong("04.clean_sweep", "RuntimeError")
def without_no_grad(model, batches, rates):
    losses = []
    for k, rate in enumerate(rates):
        x, y = batches[k % len(batches)]
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        for p in model.parameters():
            p -= rate * p.grad
        losses.append(loss.item())
    return losses


@right("04.suggest_if_it_falls")
def with_diff(rates, losses, at_least):
    rates, losses = np.array(rates), np.array(losses)
    if losses.min() > losses[0] * (1 - at_least):
        return None
    return rates[np.argmin(np.diff(losses))]


@right("04.suggest_if_it_falls")
def loop_over_pairs(rates, losses, at_least):
    if not (losses[0] - min(losses)) / losses[0] >= at_least:
        return
    best = 0
    for k in range(1, len(rates) - 1):
        if losses[k] - losses[k + 1] > losses[best] - losses[best + 1]:
            best = k
    return torch.tensor(rates[best])


@wrong("04.suggest_if_it_falls", "1 in place of 0.2")
def the_index(rates, losses, at_least):
    rate = with_diff(rates, losses, at_least)
    return None if rate is None else rates.index(rate)


@wrong("04.suggest_if_it_falls", "*right* one of the pair")
def right_of_the_pair(rates, losses, at_least):
    if 1 - min(losses) / losses[0] < at_least:
        return None
    return rates[1 + int(np.argmin(np.diff(losses)))]


@wrong("04.suggest_if_it_falls", "*is* at least a quarter")
def less_or_equal(rates, losses, at_least):
    return None if (losses[0] - min(losses)) / losses[0] <= at_least else with_diff(rates, losses, at_least)


@wrong("04.suggest_if_it_falls", "compare the *last* loss")
def fall_to_the_last(rates, losses, at_least):
    return None if 1 - losses[-1] / losses[0] < at_least else with_diff(rates, losses, -9)


@wrong("04.suggest_if_it_falls", "a *fraction* of the first loss")
def amount_for_fraction(rates, losses, at_least):
    return None if losses[0] - min(losses) < at_least else with_diff(rates, losses, -9)


@right("04.tidy_sweep")
def both_copied(model, optimizer, x, y, rates=(1e-4, 10.0)):
    trial, its_optimizer = copy.deepcopy((model, optimizer))
    losses = []
    for rate in rates:
        for group in its_optimizer.param_groups:
            group["lr"] = rate
        its_optimizer.zero_grad()
        loss = F.cross_entropy(trial(x), y)
        losses.append(loss.item())
        loss.backward()
        its_optimizer.step()
    return losses


@wrong("04.tidy_sweep", "forgotten all that it knew *before*")
def state_emptied(model, optimizer, x, y, rates=(1e-4, 10.0)):
    weights, rate = copy.deepcopy(model.state_dict()), optimizer.param_groups[0]["lr"]
    losses = _sweep(model, optimizer, x, y, rates)
    model.load_state_dict(weights)
    optimizer.param_groups[0]["lr"] = rate
    optimizer.state = defaultdict(dict)
    return losses


def _sweep(model, optimizer, x, y, rates):
    losses = []
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    return losses


@wrong("04.tidy_sweep", "What you load is no copy")
def states_not_copied(model, optimizer, x, y, rates=(1e-4, 10.0)):
    kept = model.state_dict(), optimizer.state_dict()
    losses = _sweep(model, optimizer, x, y, rates)
    model.load_state_dict(kept[0])
    optimizer.load_state_dict(kept[1])
    return losses


@wrong("04.tidy_sweep", "the optimiser still has the last rate")
def new_optimizer_inside(model, optimizer, x, y, rates=(1e-4, 10.0)):
    weights = copy.deepcopy(model.state_dict())
    losses = _sweep(model, optimizer, x, y, rates)
    model.load_state_dict(weights)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    return losses


@wrong("04.lr_sweep", "Your rates grow by equal *amounts*. Then nearly all of")
def equal_steps(start, stop, count):
    return np.linspace(start, stop, count).tolist()


@right("04.running_mean")
def recursion_on_the_sum(losses, beta):
    out, sums, weights = [], 0.0, 0.0
    for x in losses:
        sums = beta * sums + x
        weights = beta * weights + 1
        out.append(sums / weights)
    return np.array(out)


@wrong("04.running_mean", "You go on with the *divided* mean, so the correction is")
def correction_inside(losses, beta):
    out, m = [], 0.0
    for i, x in enumerate(losses):
        m = (beta * m + (1 - beta) * x) / (1 - beta ** (i + 1))
        out.append(m)
    return out


@wrong("04.running_mean", "That is the plain mean of all losses so far. The running")
def average_so_far(losses, beta):
    return list(np.cumsum(losses) / np.arange(1, len(losses) + 1))


@wrong("04.running_mean", "`beta` and `1 - beta` are exchanged: with beta = 0.9 the")
def beta_for_the_new_one(losses, beta):
    out, m = [], 0.0
    for n, x in enumerate(losses, 1):
        m = (1 - beta) * m + beta * x
        out.append(m / (1 - (1 - beta) ** n))
    return out


@right("04.clean_sweep")
def state_loaded_again(model, batches, rates):
    saved = {k: v.detach().clone() for k, v in model.state_dict().items()}
    losses = []
    for i, rate in enumerate(rates):
        x, y = batches[i % len(batches)]
        for p in model.parameters():
            p.grad = None
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        losses.append(loss.item())
        for p in model.parameters():
            p.data.sub_(p.grad, alpha=rate)
    model.load_state_dict(saved)
    return losses


@right("04.clean_sweep")
def with_optimiser_and_groups(model, batches, rates):
    saved = copy.deepcopy(model.state_dict())
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=1.0), []
    for rate, (x, y) in zip(rates, cycle(batches)):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses += [float(loss.detach())]
    model.load_state_dict(saved)
    return torch.tensor(losses)


@wrong("04.clean_sweep", "You leave the model in another mode, or with parameters")
def evaluated_first(model, batches, rates):
    losses = state_loaded_again(model, batches, rates)
    model.eval()
    return losses


@wrong("04.clean_sweep", "The gradients are never cleared, so each step follows the")
def adds_gradients_up(model, batches, rates):
    saved, losses = copy.deepcopy(model.state_dict()), []
    model.zero_grad()
    for i, rate in enumerate(rates):
        x, y = batches[i % len(batches)]
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        losses.append(loss.item())
        with torch.no_grad():
            for p in model.parameters():
                p.sub_(rate * p.grad)
    model.load_state_dict(saved)
    return losses


@right("04.suggest_if_it_falls")
def in_torch(rates, losses, at_least):
    values = torch.tensor(losses, dtype=torch.float64)
    if float((values[0] - values.min()) / values[0]) < at_least:
        return None
    return rates[int((values[1:] - values[:-1]).argmin())]


@wrong("04.suggest_if_it_falls", "You divide the fall by the step of the *rate*, so the")
def divided_by_the_rates(rates, losses, at_least):
    if 1 - min(losses) / losses[0] < at_least:
        return None
    return rates[int(np.argmin(np.diff(losses) / np.diff(rates)))]


@right("04.tidy_sweep")
def states_put_back(model, optimizer, x, y, rates=(1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)):
    weights, memory = [copy.deepcopy(thing.state_dict()) for thing in (model, optimizer)]
    losses = _sweep(model, optimizer, x, y, rates)
    model.load_state_dict(weights)
    optimizer.load_state_dict(memory)
    return losses


@right("04.tidy_sweep")
def by_hand_and_deep(model, optimizer, x, y, rates=(1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)):
    before = copy.deepcopy((list(model.parameters()), optimizer.state_dict()))
    losses = _sweep(model, optimizer, x, y, rates)
    with torch.no_grad():
        for p, old in zip(model.parameters(), before[0], strict=False):
            p.copy_(old)
    optimizer.load_state_dict(before[1])
    return np.array(losses)


@wrong("04.tidy_sweep", "Weights and rate are back, but not what the optimiser")
def weights_and_rate(model, optimizer, x, y, rates=(1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)):
    kept, lr = {k: v.clone() for k, v in model.state_dict().items()}, optimizer.param_groups[0]["lr"]
    losses = _sweep(model, optimizer, x, y, rates)
    model.load_state_dict(kept)
    for group in optimizer.param_groups:
        group["lr"] = lr
    return losses


@wrong("04.tidy_sweep", "This still does what the one you were given does. Which")
def copied_after_the_loop(model, optimizer, x, y, rates=(1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)):
    losses = _sweep(model, optimizer, x, y, rates)
    model.load_state_dict(copy.deepcopy(model.state_dict()))
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    return losses


@wrong("04.tidy_sweep", "The rate is put back, but the weights stay where the last")
def optimizer_only(model, optimizer, x, y, rates=(1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)):
    memory = copy.deepcopy(optimizer.state_dict())
    losses = _sweep(model, optimizer, x, y, rates)
    optimizer.load_state_dict(memory)
    return losses


@wrong("04.lr_sweep", "count - 1")
def root_of_the_count(start, stop, count):
    factor = (stop / start) ** (1 / count)
    return [start * factor**k for k in range(count)]
