"""Answers to the exam of lesson 5."""

import torch
from torch import nn

from . import right, wrong


@right("exam05.learn_from_end")
def freeze_all_first(model, count):
    model.requires_grad_(False)
    model.eval()
    learned = list(model)[-count:] if count else []
    for part in learned:
        part.train()
        for parameter in part.parameters():
            parameter.requires_grad = True
    return sum(p.numel() for part in learned for p in part.parameters())


@right("exam05.learn_from_end")
def one_loop(model, count):
    total, parts = 0, list(model.children())
    for place, part in enumerate(parts):
        learns = place >= len(parts) - count
        part.train(learns)
        for p in part.parameters():
            p.requires_grad_(learns)
            total += p.numel() * learns
    return float(total)


@right("exam05.learn_from_end")
def every_module(model, count):
    ends = set(list(range(len(model)))[::-1][:count])
    for name, module in model.named_modules():
        if name:
            module.training = int(name.split(".")[0]) in ends
    for name, parameter in model.named_parameters():
        parameter.requires_grad = int(name.split(".")[0]) in ends
    return torch.tensor(sum(p.numel() for p in model.parameters() if p.requires_grad))


@wrong("exam05.learn_from_end", 0, 3)
def all_for_none(model, count):
    model.requires_grad_(False)
    model.eval()
    for part in list(model)[-count:]:  # [-0:] is everything
        part.requires_grad_(True).train()
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@wrong("exam05.learn_from_end", 0, 1, 3)
def modes_forgotten(model, count):
    for number, part in enumerate(model):
        part.requires_grad_(number >= len(model) - count)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@wrong("exam05.learn_from_end", 0, 1, 3)
def everything_trains(model, count):
    found = freeze_all_first(model, count)
    model.train()
    return found


@wrong("exam05.learn_from_end")
def freezes_and_never_thaws(model, count):
    for number, part in enumerate(model):
        if number < len(model) - count:
            part.requires_grad_(False).eval()
        else:
            part.train()
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@wrong("exam05.learn_from_end")
def counts_tensors(model, count):
    freeze_all_first(model, count)
    return sum(1 for p in model.parameters() if p.requires_grad)


@wrong("exam05.learn_from_end")
def counts_all(model, count):
    freeze_all_first(model, count)
    return sum(p.numel() for p in model.parameters())


@wrong("exam05.learn_from_end")
def the_first_learn(model, count):
    for number, part in enumerate(model):
        part.requires_grad_(number < count).train(number < count)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@wrong("exam05.learn_from_end", 0, 1, 2)
def makes_a_new_head(model, count):
    with torch.no_grad():
        model[-1].weight.zero_()
    return freeze_all_first(model, count)


@wrong("exam05.learn_from_end")
def nothing_said(model, count):
    freeze_all_first(model, count)


def _groups(layers, lr, factor, decay, learned=lambda p: p.requires_grad, weight=lambda p: p.ndim > 1, skip=()):
    found, layers = [], [layer for layer in layers if not (skip and not list(layer.parameters()))]
    for number, layer in enumerate(layers):
        for p in layer.parameters():
            if learned(p):
                found.append({"params": [p], "lr": lr * factor ** (number - len(layers) + 1),
                              "weight_decay": decay if weight(p) else 0})
    return found


@right("exam05.group_parameters")
def a_group_for_each(layers, lr, factor, decay):
    return _groups(layers, lr, factor, decay)


@right("exam05.group_parameters")
def by_rate_and_decay(layers, lr, factor, decay):
    groups = {}
    for number, layer in enumerate(layers):
        for p in filter(lambda p: p.requires_grad, layer.parameters()):
            key = lr / factor ** (len(layers) - 1 - number), decay * (p.dim() >= 2)
            groups.setdefault(key, []).append(p)
    return [{"params": params, "lr": rate, "weight_decay": wd} for (rate, wd), params in groups.items()]


@right("exam05.group_parameters")
def backwards(layers, lr, factor, decay):
    groups, rate = [], lr
    for layer in layers[::-1]:
        weights = [p for p in layer.parameters() if p.requires_grad and len(p.shape) >= 2]
        others = [p for p in layer.parameters() if p.requires_grad and len(p.shape) < 2]
        groups += [dict(params=weights, lr=rate, weight_decay=decay)] * bool(weights)
        groups += [dict(params=iter(others), lr=rate, weight_decay=0.0)] * bool(others)
        rate /= factor
    return tuple(groups)


@wrong("exam05.group_parameters", 0, 2, 3)
def frozen_ones_too(layers, lr, factor, decay):
    return _groups(layers, lr, factor, decay, learned=lambda p: True)


@wrong("exam05.group_parameters", 0, 1, 3)
def empty_layers_do_not_count(layers, lr, factor, decay):
    return _groups(layers, lr, factor, decay, skip=("empty",))


@wrong("exam05.group_parameters")
def biases_decay(layers, lr, factor, decay):
    return _groups(layers, lr, factor, decay, weight=lambda p: True)


@wrong("exam05.group_parameters")
def norms_decay(layers, lr, factor, decay):
    norms = {id(p) for layer in layers for part in layer.modules() if isinstance(part, nn.BatchNorm1d)
             for p in (part.weight,)}
    return _groups(layers, lr, factor, decay, weight=lambda p: p.ndim > 1 or id(p) in norms)


@wrong("exam05.group_parameters")
def the_first_layer_is_fastest(layers, lr, factor, decay):
    return _groups(layers[::-1], lr, factor, decay)


@wrong("exam05.group_parameters")
def decay_divided_too(layers, lr, factor, decay):
    return [{**group, "weight_decay": group["weight_decay"] * group["lr"] / lr}
            for group in _groups(layers, lr, factor, decay)]


@wrong("exam05.group_parameters")
def one_rate_for_all(layers, lr, factor, decay):
    return _groups(layers, lr, 1.0, decay)


@wrong("exam05.group_parameters")
def wrong_key(layers, lr, factor, decay):
    return [{"params": group["params"], "lr": group["lr"], "decay": group["weight_decay"]}
            for group in _groups(layers, lr, factor, decay)]


@wrong("exam05.group_parameters", 0, 1, 2)
def thaws_afterwards(layers, lr, factor, decay):
    found = _groups(layers, lr, factor, decay)
    with torch.no_grad():
        for group in found:
            group["params"][0].mul_(1 - decay)
    return found


@wrong("exam05.group_parameters", 0, 2, 3)
def frozen_by_their_layer(layers, lr, factor, decay):
    frozen = {id(p) for layer in layers for p in layer.parameters()
              if not any(other.requires_grad for other in layer.parameters())}
    return _groups(layers, lr, factor, decay, learned=lambda p: id(p) not in frozen)
