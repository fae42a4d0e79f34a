"""Answers to the exam of lesson 3."""

import copy

import numpy as np
import torch
import torch.nn.functional as F

from . import right, wrong


def _train(model, optimizer, train, valid, epochs, measure=None, keep=copy.deepcopy, zero=True, mode=True):
    """A training as most write it; the weights after each epoch, and its validation losses."""
    losses, kept = [], []
    for _ in range(epochs):
        if mode:
            model.train()
        for x, y in train:
            if zero:
                optimizer.zero_grad()
            F.mse_loss(model(x), y).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            losses.append(measure(model, valid) if measure else
                          sum(((model(x) - y) ** 2).sum().item() for x, y in valid) / sum(len(y) for _, y in valid))
        kept.append(keep(model.state_dict()))
    return losses, kept


def _batch_means(model, valid):
    return sum(F.mse_loss(model(x), y).item() for x, y in valid) / len(valid)


@right("exam03.keep_best")
def keeps_all_epochs(model, optimizer, train, valid, epochs):
    losses, kept = _train(model, optimizer, train, valid, epochs)
    best = int(np.argmin(losses))
    model.load_state_dict(kept[best])
    return best + 1, np.array(losses)


@right("exam03.keep_best")
def clones_the_best(model, optimizer, train, valid, epochs):
    lowest, best, losses = float("inf"), 0, []
    for epoch in range(1, epochs + 1):
        model.train(True)
        for x, y in train:
            loss = F.mse_loss(model(x), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        model.train(False)
        with torch.inference_mode():
            outputs = torch.cat([model(x) for x, _ in valid])
            loss = F.mse_loss(outputs, torch.cat([y for _, y in valid])).item()
        losses.append(loss)
        if loss < lowest:
            lowest, best, state = loss, epoch, {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    return best, losses


@right("exam03.keep_best")
def copies_into_place(model, optimizer, train, valid, epochs):
    losses, kept = _train(model, optimizer, train, valid, epochs)
    best = losses.index(min(losses))
    with torch.no_grad():
        for name, value in model.state_dict().items():
            value.copy_(kept[best][name])
    return [best + 1, losses]


@wrong("exam03.keep_best", 0, 1, 2)
def no_copy(model, optimizer, train, valid, epochs):
    losses, kept = _train(model, optimizer, train, valid, epochs, keep=lambda state: state)
    best = losses.index(min(losses))
    model.load_state_dict(kept[best])
    return best + 1, losses


@wrong("exam03.keep_best", 0, 1, 2)
def without_buffers(model, optimizer, train, valid, epochs):
    losses, kept = _train(model, optimizer, train, valid, epochs)
    best = losses.index(min(losses))
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(kept[best][name])
    return best + 1, losses


@wrong("exam03.keep_best", 0, 3)
def mean_of_the_batches(model, optimizer, train, valid, epochs):
    losses, kept = _train(model, optimizer, train, valid, epochs, _batch_means)
    best = losses.index(min(losses))
    model.load_state_dict(kept[best])
    return best + 1, losses


@wrong("exam03.keep_best", 0, 1, 3)
def the_last_of_equals(model, optimizer, train, valid, epochs):
    losses, kept = _train(model, optimizer, train, valid, epochs)
    best = max(k for k, loss in enumerate(losses) if loss == min(losses))
    model.load_state_dict(kept[best])
    return best + 1, losses


@wrong("exam03.keep_best")
def counted_from_zero(model, optimizer, train, valid, epochs):
    best, losses = keeps_all_epochs(model, optimizer, train, valid, epochs)
    return best - 1, losses


@wrong("exam03.keep_best")
def stays_in_evaluation_mode(model, optimizer, train, valid, epochs):
    losses, kept = _train(model.train(), optimizer, train, valid, epochs, mode=False)
    best = losses.index(min(losses))
    model.load_state_dict(kept[best])
    return best + 1, losses


@wrong("exam03.keep_best")
def gradients_add_up(model, optimizer, train, valid, epochs):
    losses, kept = _train(model, optimizer, train, valid, epochs, zero=False)
    best = losses.index(min(losses))
    model.load_state_dict(kept[best])
    return best + 1, losses


@wrong("exam03.keep_best")
def measures_in_training_mode(model, optimizer, train, valid, epochs):
    measure = lambda model, valid: (model.train(), _batch_means(model, valid))[1]
    losses, kept = _train(model, optimizer, train, valid, epochs, measure)
    best = losses.index(min(losses))
    model.load_state_dict(kept[best])
    return best + 1, losses


@wrong("exam03.keep_best")
def keeps_the_worst(model, optimizer, train, valid, epochs):
    losses, kept = _train(model, optimizer, train, valid, epochs)
    best = losses.index(max(losses))
    model.load_state_dict(kept[best])
    return best + 1, losses


@right("exam03.momentum_step")
def as_tuples(parameters, gradients, velocities, lr, momentum, decay):
    def one(p, g, v):
        if g is None:
            return p, v
        v = g if v is None else v * momentum + g
        return p - lr * decay * p - lr * v, v
    new = [one(*each) for each in zip(parameters, gradients, velocities, strict=True)]
    return tuple(p for p, _ in new), tuple(v for _, v in new)


@right("exam03.momentum_step")
def zero_at_first(parameters, gradients, velocities, lr, momentum, decay):
    new_parameters, new_velocities = list(parameters), list(velocities)
    for k, gradient in enumerate(gradients):
        if gradient is None:
            continue
        before = torch.zeros_like(gradient) if velocities[k] is None else velocities[k]
        new_velocities[k] = momentum * before + gradient
        new_parameters[k] = (1 - lr * decay) * parameters[k] - lr * new_velocities[k]
    return new_parameters, new_velocities


@right("exam03.momentum_step")
def on_clones(parameters, gradients, velocities, lr, momentum, decay):
    p = [one.clone() for one in parameters]
    v = [None if one is None else one.clone() for one in velocities]
    for k in range(len(p)):
        if gradients[k] is not None:
            v[k] = gradients[k].clone() if v[k] is None else v[k].mul_(momentum).add_(gradients[k])
            p[k].mul_(1 - lr * decay).sub_(v[k], alpha=lr)
    return [p, v]


@wrong("exam03.momentum_step")
def decay_in_the_gradient(parameters, gradients, velocities, lr, momentum, decay):
    gradients = [None if g is None else g + decay * p for p, g in zip(parameters, gradients, strict=True)]
    return as_tuples(parameters, gradients, velocities, lr, momentum, 0.0)


@wrong("exam03.momentum_step")
def rate_in_the_velocity(parameters, gradients, velocities, lr, momentum, decay):
    new = [momentum * (0 if v is None else v) + lr * g for g, v in zip(gradients, velocities, strict=True)]
    return [p * (1 - lr * decay) - v for p, v in zip(parameters, new, strict=True)], new


@wrong("exam03.momentum_step")
def old_velocity(parameters, gradients, velocities, lr, momentum, decay):
    _, new = as_tuples(parameters, gradients, velocities, lr, momentum, decay)
    return [p * (1 - lr * decay) - lr * v for p, v in zip(parameters, velocities, strict=True)], new


@wrong("exam03.momentum_step")
def a_running_mean(parameters, gradients, velocities, lr, momentum, decay):
    gradients = [None if g is None else (1 - momentum) * g for g in gradients]
    return as_tuples(parameters, gradients, velocities, lr, momentum, decay)


@wrong("exam03.momentum_step", 0, 1, 3)
def frozen_ones_decay(parameters, gradients, velocities, lr, momentum, decay):
    new, kept = as_tuples(parameters, gradients, velocities, lr, momentum, decay)
    return [one if g is not None else one * (1 - lr * decay) for one, g in zip(new, gradients, strict=True)], kept


@wrong("exam03.momentum_step", 0, 1, 3)
def frozen_ones_coast(parameters, gradients, velocities, lr, momentum, decay):
    gradients = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
    return as_tuples(parameters, gradients, velocities, lr, momentum, decay)


@wrong("exam03.momentum_step", 0, 2, 3)
def velocity_expected(parameters, gradients, velocities, lr, momentum, decay):
    new, kept = [], []
    for p, g, v in zip(parameters, gradients, velocities, strict=True):
        kept.append(v if g is None else momentum * v + g)
        new.append(p if g is None else p * (1 - lr * decay) - lr * kept[-1])
    return new, kept


@wrong("exam03.momentum_step", 0, 1, 2)
def in_place(parameters, gradients, velocities, lr, momentum, decay):
    for k, g in enumerate(gradients):
        if g is not None:
            velocities[k] = g if velocities[k] is None else momentum * velocities[k] + g
            parameters[k].mul_(1 - lr * decay).sub_(lr * velocities[k])
    return parameters, velocities


@wrong("exam03.momentum_step")
def parameters_alone(parameters, gradients, velocities, lr, momentum, decay):
    return as_tuples(parameters, gradients, velocities, lr, momentum, decay)[0]
