"""Students' answers to the exercises of lesson 5."""

import copy
from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from . import right, wrong


@right("05.layer_rates")
def powers(highest, count, factor=2.6):
    return tuple(highest * float(factor) ** np.arange(1 - count, 1))


@right("05.layer_rates")
def turned_round(highest, count, factor=2.6):
    return list(accumulate([highest] * count, lambda rate, _: rate / factor))[::-1]


@wrong("05.layer_rates", "at [0]: 0.00147929 in place of 0.0001")
def always_2_6(highest, count, factor=2.6):
    return [highest / 2.6 ** (count - 1 - k) for k in range(count)]


@wrong("05.layer_rates", "at [0]: 0.0005 in place of 0.0001")
def factor_times_the_distance(highest, count, factor=2.6):
    return [highest / max(factor * (count - 1 - k), 1) for k in range(count)]


@wrong("05.layer_rates", "at [0]: 1 in place of 0.0001")
def larger_and_larger(highest, count, factor=2.6):
    return [highest * factor ** (count - 1 - k) for k in range(count)]


@right("05.stopped_after")
def by_the_best_epoch(losses, patience):
    for n in range(1, len(losses) + 1):
        if n - (1 + int(np.argmin(losses[:n]))) >= patience:
            return np.int64(n)
    return len(losses)


@right("05.stopped_after")
def while_loop(losses, patience):
    epoch, best = 0, 0
    while epoch < len(losses) and epoch - 1 - best < patience:
        if losses[epoch] < losses[best]:
            best = epoch
        epoch += 1
    return float(epoch)


@wrong("05.stopped_after", "3 in place of 4")
def counted_from_zero(losses, patience):
    best, waited = float("inf"), 0
    for epoch, loss in enumerate(losses):
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        if waited == patience:
            return epoch
    return len(losses)


@wrong("05.stopped_after", "None in place of 3")
def none_if_never(losses, patience):
    best, waited = float("inf"), 0
    for epoch, loss in enumerate(losses, 1):
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        if waited == patience:
            return epoch


@wrong("05.stopped_after", "`stopped_after` prints, but gives nothing back")
def prints_where(losses, patience):
    print(by_the_best_epoch(losses, patience))


@wrong("05.stopped_after", "2 in place of 4")
def before_the_waiting(losses, patience):
    return by_the_best_epoch(losses, patience) - patience


@right("05.cycle_rates")
def from_the_schedule(epochs, num_batches, highest, pct_start, div, div_final):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=highest, epochs=epochs,
                                                   steps_per_epoch=num_batches, pct_start=pct_start, div_factor=div,
                                                   final_div_factor=div_final / div, cycle_momentum=False)
    rates = schedule.get_last_lr()
    while len(rates) < epochs * num_batches:
        optimizer.step()
        schedule.step()
        rates = rates + schedule.get_last_lr()
    return rates


@wrong("05.cycle_rates", "at [3]: 0.858571 in place of 0.95098")
def in_straight_lines(epochs, num_batches, highest, pct_start, div, div_final):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, highest, total_steps=epochs * num_batches,
                                                   pct_start=pct_start, anneal_strategy="linear",
                                                   div_factor=div, final_div_factor=div_final / div)
    rates = []
    for _ in range(epochs * num_batches):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@wrong("05.cycle_rates", "It raised ValueError in the line `schedule.step()`: Tried")
def one_step_too_many(epochs, num_batches, highest, pct_start, div, div_final):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, highest, total_steps=epochs * num_batches)
    for _ in range(epochs * num_batches + 1):
        optimizer.step()
        schedule.step()


@wrong("05.cycle_rates", "1 element in place of 10")
def a_list_for_each_epoch(epochs, num_batches, highest, pct_start, div, div_final):
    rates = from_the_schedule(epochs, num_batches, highest, pct_start, div, div_final)
    return [rates[k * num_batches:(k + 1) * num_batches] for k in range(epochs)]


@right("05.features_once")
def of_a_copy(body, batches):
    body = copy.deepcopy(body).train(False).requires_grad_(False)
    xs, ys = zip(*batches, strict=True)
    return [body(torch.vstack(xs)), torch.hstack(ys)]


@right("05.features_once")
@torch.inference_mode()
def mode_put_back(body, batches):
    mode = body.training
    body.eval()
    found = torch.cat([body(x) for x, _ in batches]).clone(), torch.cat([y for _, y in batches])
    body.train(mode)
    return found


@wrong("05.features_once", "What `features_once` gives back has at [0] a list of 1.")
def lists_of_batches(body, batches):
    body.eval()
    with torch.no_grad():
        return [body(x) for x, _ in batches], [y for _, y in batches]


@wrong("05.features_once", "at 'features': the shape is (6,) and should be (2, 6)")
def features_only(body, batches):
    return mode_put_back(body, batches)[0]


@wrong("05.features_once", "at 'features': the shape is (2,) and should be (2, 6)")
def targets_first(body, batches):
    return mode_put_back(body, batches)[::-1]


@wrong("05.features_once", "at 'features': the shape is (12,) and should be (2, 6)")
def flattened(body, batches):
    features, targets = mode_put_back(body, batches)
    return features.flatten(), targets


@right("05.train_head")
def body_without_gradients(model, batches, lr, weight_decay):
    model.head.train()
    model.body.eval()
    optimizer, losses = torch.optim.SGD(model.head.parameters(), lr, weight_decay=weight_decay), []
    for x, y in batches:
        with torch.no_grad():
            features = model.body(x)
        loss = nn.CrossEntropyLoss()(model.head(features), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses += [loss.detach()]
    return losses


@wrong("05.train_head", "`train_head` gives back a number. Wanted: a list of 1.")
def loss_tensors_summed(model, batches, lr, weight_decay):
    losses = body_without_gradients(model, batches, lr, weight_decay)
    return sum(losses) / len(losses)


@wrong("05.train_head", "at 'head': at 'head.1.weight': 10 of 12 numbers differ,")
def with_adam(model, batches, lr, weight_decay):
    model.train()
    model.body.eval()
    optimizer, losses = torch.optim.AdamW(model.head.parameters(), lr, weight_decay=weight_decay), []
    for x, y in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@wrong("05.train_head", "The body's weights did not change, but its averages did")
def body_eval_before_train(model, batches, lr, weight_decay):
    model.body.eval()
    model.body.requires_grad_(False)
    model.train()
    optimizer, losses = torch.optim.SGD(model.head.parameters(), lr, weight_decay=weight_decay), []
    for x, y in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@wrong("05.train_head", "`train_head` gives nothing back")
def nothing_back(model, batches, lr, weight_decay):
    body_without_gradients(model, batches, lr, weight_decay)


@wrong("05.head_step", "still holds all that it was computed from")
def no_gradients_asked_for(model, optimizer, x, y):
    model.zero_grad(set_to_none=True)
    loss = F.cross_entropy(model.head(model.body(x).detach()), y)
    loss.backward()
    optimizer.step()
    return loss


@right("05.head_step")
def body_put_back(model, optimizer, x, y):
    kept = [p.detach().clone() for p in model.body.parameters()]
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    for p, old in zip(model.body.parameters(), kept, strict=True):
        p.data.copy_(old)
    return loss.item()


@wrong("05.head_step", "at 'body kept': False in place of True")
def frozen_too_late(model, optimizer, x, y):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    model.body.requires_grad_(False)
    for p in model.body.parameters():
        p.grad.zero_()
    optimizer.step()
    return loss.item()


@wrong("05.head_step", "This still does what the one you were given does")
def body_in_evaluation_mode(model, optimizer, x, y):
    model.body.eval()
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    for p in model.body.parameters():
        p.grad.zero_()
    optimizer.step()
    return loss.item()


@wrong("05.head_step", "The head does not learn any more")
def step_left_out(model, optimizer, x, y):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    return loss.item()


@right("05.layer_rates")
def from_the_last_one(highest, count, factor=2.6):
    rates = [highest]
    while len(rates) < count:
        rates.insert(0, rates[0] / factor)
    return torch.tensor(rates)


@wrong("05.layer_rates", "Your rates are in the wrong order: the *first* layer is")
def first_is_highest(highest, count, factor=2.6):
    return [highest * factor ** -k for k in range(count)]


@wrong("05.layer_rates", " in place of ")
def lowest_is_highest_over_factor(highest, count, factor=2.6):
    return np.geomspace(highest / factor, highest, count).tolist()


@wrong("05.layer_rates", "Your last layer is slower than `highest`: you divide once")
def last_one_too_slow(highest, count, factor=2.6):
    return [highest / factor ** (count - k) for k in range(count)]


@right("05.stopped_after")
def with_running_minimum(losses, patience):
    best = np.minimum.accumulate(losses)
    waited = 0
    for i in range(len(losses)):
        waited = 0 if i == 0 or losses[i] < best[i - 1] else waited + 1
        if waited >= patience:
            return i + 1
    return len(losses)


@wrong("05.stopped_after", "You compare each loss with the one *before* it. After a")
def compares_neighbours(losses, patience):
    bad = 0
    for i in range(1, len(losses)):
        bad = bad + 1 if losses[i] >= losses[i - 1] else 0
        if bad == patience:
            return i + 1
    return len(losses)


@wrong("05.stopped_after", "You give the epoch of the lowest loss. But who stops early")
def best_epoch(losses, patience):
    return int(np.argmin(losses)) + 1


@right("05.cycle_rates")
def with_adam_and_a_loop(epochs, num_batches, highest, pct_start, div, div_final):
    p = torch.zeros(1, requires_grad=True)
    opt = torch.optim.Adam([p], lr=highest)
    sched = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=highest, total_steps=epochs * num_batches,
                                                pct_start=pct_start, div_factor=div, final_div_factor=div_final / div)
    out = []
    for _ in range(epochs):
        for _ in range(num_batches):
            out.append(sched.get_last_lr()[0])
            opt.step()
            sched.step()
    return np.array(out)


@right("05.cycle_rates")
def by_formula(epochs, num_batches, highest, pct_start, div, div_final):
    steps = epochs * num_batches
    top = float(pct_start * steps) - 1
    cosine = lambda a, b, share: b + (a - b) / 2 * (1 + np.cos(np.pi * share))
    return [float(cosine(highest / div, highest, k / top) if k <= top else
                  cosine(highest, highest / div_final, (k - top) / (steps - 1 - top))) for k in range(steps)]


@wrong("05.cycle_rates", "Your last rate is `div` times too small. PyTorch's")
def final_div_as_given(epochs, num_batches, highest, pct_start, div, div_final):
    opt = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=highest, momentum=0.9)
    sched = torch.optim.lr_scheduler.OneCycleLR(opt, highest, epochs=epochs, steps_per_epoch=num_batches,
                                                pct_start=pct_start, div_factor=div, final_div_factor=div_final)
    out = []
    for _ in range(epochs * num_batches):
        out.append(opt.param_groups[0]["lr"])
        opt.step()
        sched.step()
    return out


@wrong("05.cycle_rates", "You note the rate *after* the schedule has moved it, so")
def after_the_step(epochs, num_batches, highest, pct_start, div, div_final):
    opt = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=highest, momentum=0.9)
    sched = torch.optim.lr_scheduler.OneCycleLR(opt, highest, total_steps=epochs * num_batches,
                                                pct_start=pct_start, div_factor=div, final_div_factor=div_final / div)
    out = []
    for _ in range(epochs * num_batches):
        opt.step()
        sched.step()
        out.append(opt.param_groups[0]["lr"])
    return out


@wrong("05.cycle_rates", "All of it is the same number")
def constant_rate(epochs, num_batches, highest, pct_start, div, div_final):
    return [highest] * (epochs * num_batches)


@right("05.features_once")
def row_by_row(body, batches):
    body.eval()
    features, targets = [], []
    for x, y in batches:
        for one, label in zip(x, y, strict=False):
            with torch.no_grad():
                features.append(body(one[None])[0])
            targets.append(label)
    return torch.stack(features), torch.stack(targets)


@wrong("05.features_once", "The body is still in training mode. Then batch")
def mode_forgotten(body, batches):
    with torch.no_grad():
        return torch.cat([body(x) for x, y in batches]), torch.cat([y for x, y in batches])


@wrong("05.features_once", "The body's parameters ask for no gradients any more:")
def freezes_the_body(body, batches):
    body.eval()
    for p in body.parameters():
        p.requires_grad = False
    return torch.cat([body(x) for x, y in batches]), torch.cat([y for x, y in batches])


@right("05.train_head")
def body_set_apart(model, batches, lr, weight_decay):
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    model.train()
    model.body.train(False)
    opt = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr, weight_decay=weight_decay)
    losses = []
    for x, y in batches:
        loss = F.cross_entropy(model(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    return np.array(losses)


@right("05.train_head")
def steps_by_hand(model, batches, lr, weight_decay):
    model.head.train()
    model.body.eval()
    losses = []
    for x, y in batches:
        loss = F.cross_entropy(model(x), y)
        weights = list(model.head.parameters())
        grads = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for p, g in zip(weights, grads, strict=False):
                p -= lr * (g + weight_decay * p)
        losses.append(float(loss.detach()))
    return losses


@wrong("05.train_head", "You put the *whole* model into evaluation mode. The body")
def whole_model_in_eval(model, batches, lr, weight_decay):
    model.eval()
    opt, losses = torch.optim.SGD(model.head.parameters(), lr=lr, weight_decay=weight_decay), []
    for x, y in batches:
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        losses.append(loss.item())
    return losses


@wrong("05.train_head", "Nothing decays: `weight_decay` never reaches the")
def decay_forgotten(model, batches, lr, weight_decay):
    return body_set_apart(model, batches, lr, 0.0)


@right("05.head_step")
def without_graph(model, optimizer, x, y):
    optimizer.zero_grad()
    with torch.no_grad():
        features = model.body(x)
    loss = F.cross_entropy(model.head(features), y)
    loss.backward()
    optimizer.step()
    return float(loss.detach())


@right("05.head_step")
def grads_set_to_none(model, optimizer, x, y):
    loss = nn.CrossEntropyLoss()(model(x), y)
    model.zero_grad()
    loss.backward()
    model.body.zero_grad(set_to_none=True)
    optimizer.step()
    return loss.item()


@wrong("05.head_step", "You take parameters away from the optimiser, or change its")
def body_thrown_out(model, optimizer, x, y):
    optimizer.param_groups[0]["params"] = list(model.head.parameters())
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.item()


@wrong("05.head_step", "Now nothing decays, the head neither: you switched weight")
def decay_switched_off(model, optimizer, x, y):
    for group in optimizer.param_groups:
        group["weight_decay"] = 0
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    for p in model.body.parameters():
        p.grad.zero_()
    optimizer.step()
    return loss.item()
