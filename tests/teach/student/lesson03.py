"""Students' answers to the exercises of lesson 3."""

import copy
import io

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from course_lib.learner import Callback

from . import right, wrong


@right("03.train_epoch")
def criterion(model, optimizer, batches):
    loss_fn, losses, sizes = nn.CrossEntropyLoss(), [], []
    model.train()
    for inputs, labels in batches:
        optimizer.zero_grad(set_to_none=False)
        loss = loss_fn(model(inputs), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        sizes.append(len(inputs))
    return np.average(losses, weights=sizes)


@wrong("03.train_epoch", "still holds all that it was computed from")
def sums(model, optimizer, batches):
    """A tensor is given back that still knows its graph."""
    model.train()
    total = torch.zeros(())
    for x, y in batches:
        model.zero_grad()
        losses = -F.log_softmax(model(x), dim=-1)[range(len(y)), y]
        losses.mean().backward()
        optimizer.step()
        total = total + losses.sum()
    return total / sum(y.numel() for _, y in batches)


@wrong("03.train_epoch", "at 'given back': 1.24483 in place of 1.21722")
def last_loss(model, optimizer, batches):
    model.train()
    for x, y in batches:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


@wrong("03.train_epoch", "at 'given back': 1.02435 in place of 1.37224")
def loss_after_the_step(model, optimizer, batches):
    model.train()
    total = 0
    for x, y in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        total += F.cross_entropy(model(x), y).item() * len(y)
    return total / sum(len(y) for _, y in batches)


@wrong("03.train_epoch", "at 'given back': 1.21913 in place of 1.21722")
def one_step_at_the_end(model, optimizer, batches):
    model.train()
    optimizer.zero_grad()
    total = 0
    for x, y in batches:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        total += loss.item() * len(y)
    optimizer.step()
    return total / sum(len(y) for _, y in batches)


@wrong("03.train_epoch", "Nothing is learned")
def no_backward(model, optimizer, batches):
    model.train()
    total = 0
    for x, y in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        optimizer.step()
        total += loss.item() * len(y)
    return total / sum(len(y) for _, y in batches)


@wrong("03.train_epoch", "at 'given back': [1.37224] in place of 1.37224, of type")
def list_of_losses(model, optimizer, batches):
    model.train()
    losses = []
    for x, y in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@wrong("03.train_epoch", "at 'given back': 5.48898 in place of 1.37224")
def divided_by_len_of_batches(model, optimizer, batches):
    model.train()
    total = 0
    for x, y in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(y)
    return total / len(batches)


@wrong("03.train_epoch", "at 'given back': 1.18961 in place of 1.21722")
def returns_inside_the_loop(model, optimizer, batches):
    model.train()
    total, count = 0, 0
    for x, y in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(y)
        count += len(y)
        return total / count


@wrong("03.train_epoch", "`train_epoch` prints, but gives nothing back")
def prints_the_loss(model, optimizer, batches):
    model.train()
    total = 0
    for x, y in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(y)
    print(total / sum(len(y) for _, y in batches))


@right("03.measure_model")
@torch.no_grad()
def decorated(model, batches):
    modes = {name: module.training for name, module in model.named_modules()}
    model.eval()
    logits, y = torch.cat([model(x) for x, _ in batches]), torch.cat([y for _, y in batches])
    for name, module in model.named_modules():
        module.training = modes[name]
    return {"accuracy": (logits.argmax(-1) == y).float().mean(), "loss": F.cross_entropy(logits, y)}


@right("03.measure_model")
def in_inference_mode(model, batches):
    trained = [module for module in model.modules() if module.training]
    total = right = count = 0
    with torch.inference_mode():
        model.train(False)
        for x, y in batches:
            scores = model(x)
            total += F.cross_entropy(scores, y, reduction="sum").item()
            right += int((scores.max(1).indices == y).sum())
            count += y.shape[0]
    for module in trained:
        module.training = True
    return dict(loss=total / count, accuracy=right / count)


@right("03.measure_model")
def measured_copy(model, batches):
    return decorated(copy.deepcopy(model), batches)


@wrong("03.measure_model", "You call `model.train()` at the end, which puts *every*")
def flag_of_the_whole(model, batches):
    mode = model.training
    figures = measured_copy(model, batches)
    model.eval()
    model.train(mode)
    return figures


@wrong("03.measure_model", "at 'figures': at 'accuracy': 66.6667 in place of 0.666667")
def percent(model, batches):
    figures = decorated(model, batches)
    return {**figures, "accuracy": 100 * figures["accuracy"]}


@wrong("03.measure_model", "'loss' is missing")
def other_keys(model, batches):
    figures = decorated(model, batches)
    return {"valid_loss": figures["loss"], "accuracy": figures["accuracy"]}


@wrong("03.measure_model", "`measure_model` gives back a tuple of 2. Wanted: a")
def as_a_pair(model, batches):
    figures = decorated(model, batches)
    return figures["loss"], figures["accuracy"]


@wrong("03.measure_model", "at 'figures': at 'accuracy': 0.333333 in place of 0.666667")
def over_the_wrong_dimension(model, batches):
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    loss, right, count = 0.0, 0, 0
    with torch.no_grad():
        for x, y in batches:
            logits = model(x)
            loss += F.cross_entropy(logits, y).item() * len(y)
            right += (logits.argmax(0)[:1] == y).sum().item()
            count += len(y)
    for module, mode in modes:
        module.training = mode
    return {"loss": loss / count, "accuracy": right / count}


@wrong("03.measure_model", "at 'figures': at 'accuracy': 0.333333 in place of 0.666667")
def error_for_accuracy(model, batches):
    figures = decorated(model, batches)
    return {**figures, "accuracy": 1 - figures["accuracy"]}


@wrong("03.measure_model", "You measure in training mode")
def nothing_at_all(model, batches):
    """Neither eval nor no_grad."""
    logits, y = torch.cat([model(x) for x, _ in batches]), torch.cat([y for _, y in batches])
    return {"accuracy": (logits.argmax(-1) == y).float().mean().item(), "loss": F.cross_entropy(logits, y).item()}


@right("03.step_in_parts")
def sums_of_losses(model, optimizer, parts):
    n = sum(x.shape[0] for x, _ in parts)
    mean = 0
    for x, y in parts:
        loss = F.cross_entropy(model(x), y, reduction="sum") / n
        loss.backward()
        mean += loss.detach()
    optimizer.step()
    return mean


@right("03.step_in_parts")
def divided_afterwards(model, optimizer, parts):
    total, n = 0.0, 0
    for x, y in parts:
        loss = nn.CrossEntropyLoss(reduction="sum")(model(x), y)
        loss.backward()
        total, n = total + loss.item(), n + len(y)
    for p in model.parameters():
        p.grad /= n
    optimizer.step()
    optimizer.zero_grad()
    return np.float64(total / n)


@wrong("03.step_in_parts", "The step is right, but all parts are in memory at once,")
def put_together(model, optimizer, parts):
    loss = F.cross_entropy(model(torch.cat([x for x, _ in parts])), torch.cat([y for _, y in parts]))
    loss.backward()
    optimizer.step()
    return loss.item()


@wrong("03.step_in_parts", "The step is right, but all parts are in memory at once,")
def one_backward_for_all(model, optimizer, parts):
    n = sum(len(y) for _, y in parts)
    loss = sum(F.cross_entropy(model(x), y) * len(y) / n for x, y in parts)
    loss.backward()
    optimizer.step()
    return loss.item()


@wrong("03.step_in_parts", "at 'given back': 1.11831 in place of 1.1028")
def mean_of_means_back(model, optimizer, parts):
    n, losses = sum(len(y) for _, y in parts), []
    for x, y in parts:
        loss = F.cross_entropy(model(x), y)
        (loss * len(y) / n).backward()
        losses.append(loss.item())
    optimizer.step()
    return sum(losses) / len(losses)


@wrong("03.step_in_parts", "The weights do not move")
def step_forgotten(model, optimizer, parts):
    n, total = sum(len(y) for _, y in parts), 0.0
    for x, y in parts:
        loss = F.cross_entropy(model(x), y) * len(y) / n
        loss.backward()
        total += loss.item()
    return total


@wrong("03.step_in_parts", "The weights do not move")
def cleared_before_the_step(model, optimizer, parts):
    n, total = sum(len(y) for _, y in parts), 0.0
    for x, y in parts:
        loss = F.cross_entropy(model(x), y) * len(y) / n
        loss.backward()
        total += loss.item()
    optimizer.zero_grad()
    optimizer.step()
    return total


@wrong("03.step_in_parts", "at 'given back': 5.48898 in place of 1.37224")
def sum_given_back(model, optimizer, parts):
    return sums_of_losses(model, optimizer, parts) * sum(len(y) for _, y in parts)


@right("03.clip_gradients")
def by_hand(limit):
    class Clip(Callback):
        def after_backward(self, learner):
            gradients = [p.grad for p in learner.model.parameters() if p.grad is not None]
            length = sum((g**2).sum() for g in gradients) ** 0.5
            if length > limit:
                for g in gradients:
                    g.mul_(limit / length)

    return Clip()


@right("03.clip_gradients")
def with_a_list(limit):
    class Clip(Callback):
        def after_backward(self, learner):
            torch.nn.utils.clip_grad_norm_(list(learner.model.parameters()), max_norm=limit, norm_type=2)

    return Clip()


@wrong("03.clip_gradients", "at 'weights': at [0]: 24 of 24 numbers differ, the first")
def largest_number(limit):
    class Clip(Callback):
        def after_backward(self, learner):
            nn.utils.clip_grad_norm_(learner.model.parameters(), limit, norm_type=float("inf"))

    return Clip()


@wrong("03.clip_gradients", "at 'it does': 'nothing' in place of 'something'")
def misspelt(limit):
    class Clip(Callback):
        def after_backwards(self, learner):
            nn.utils.clip_grad_norm_(learner.model.parameters(), limit)

    return Clip()


@wrong("03.clip_gradients", "It runs, but what `clip_gradients` gives back or leaves")
def self_forgotten(limit):
    class Clip(Callback):
        def after_backward(learner):
            nn.utils.clip_grad_norm_(learner.model.parameters(), limit)

    return Clip()


@wrong("03.clip_gradients", "`clip_gradients` gives back the class `Clip` itself.")
def the_class_itself(limit):
    class Clip(Callback):
        def after_backward(self, learner):
            nn.utils.clip_grad_norm_(learner.model.parameters(), limit)

    return Clip


@wrong("03.clip_gradients", "The square root is missing")
def square_root_forgotten(limit):
    class Clip(Callback):
        def after_backward(self, learner):
            gradients = [p.grad for p in learner.model.parameters()]
            length = sum((g**2).sum() for g in gradients)
            if length > limit:
                for g in gradients:
                    g *= limit / length

    return Clip()


@wrong("03.clip_gradients", "at 'it does': 'nothing' in place of 'something'")
def out_of_place(limit):
    class Clip(Callback):
        def after_backward(self, learner):
            gradients = [p.grad.clone() for p in learner.model.parameters()]
            nn.utils.clip_grad_norm_(gradients, limit)

    return Clip()


@wrong("03.clip_gradients", "at 'weights': at [0]: 24 of 24 numbers differ, the first")
def weights_clipped(limit):
    class Clip(Callback):
        def after_backward(self, learner):
            with torch.no_grad():
                for p in learner.model.parameters():
                    p.clamp_(-limit, limit)

    return Clip()


@right("03.take_checkpoint")
def through_a_file(model, optimizer):
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    return {**torch.load(file), "random": torch.random.get_rng_state()}


@right("03.take_checkpoint")
def copy_of_all(model, optimizer):
    both = copy.deepcopy((model, optimizer.state_dict()))
    return {"model": both[0].state_dict(), "optimizer": both[1], "random": torch.get_rng_state().clone(), "epoch": 3}


@wrong("03.take_checkpoint", "Your checkpoint goes on learning")
def shallow(model, optimizer):
    return {"model": model.state_dict().copy(), "optimizer": dict(optimizer.state_dict()),
            "random": torch.get_rng_state()}


@wrong("03.take_checkpoint", "What `take_checkpoint` gives back has at ['random'] a")
def a_seed(model, optimizer):
    return {"model": copy.deepcopy(model.state_dict()), "optimizer": copy.deepcopy(optimizer.state_dict()),
            "random": torch.initial_seed()}


@wrong("03.take_checkpoint", "`take_checkpoint` gives back a dictionary with 'weights',")
def other_names(model, optimizer):
    return {"weights": copy.deepcopy(model.state_dict()), "optimizer": copy.deepcopy(optimizer.state_dict()),
            "random": torch.get_rng_state()}


@wrong("03.take_checkpoint", "What `take_checkpoint` gives back has at ['model'] one of")
def the_objects(model, optimizer):
    return {"model": copy.deepcopy(model), "optimizer": copy.deepcopy(optimizer), "random": torch.get_rng_state()}


@wrong("03.take_checkpoint", "To take a checkpoint must not change the training")
def seeded_anew(model, optimizer):
    torch.manual_seed(0)
    return {"model": copy.deepcopy(model.state_dict()), "optimizer": copy.deepcopy(optimizer.state_dict()),
            "random": torch.Generator().manual_seed(0).get_state()}


@wrong("03.take_checkpoint", "What `take_checkpoint` gives back has at ['random'] a")
def numpy_state(model, optimizer):
    return {"model": copy.deepcopy(model.state_dict()), "optimizer": copy.deepcopy(optimizer.state_dict()),
            "random": np.random.get_state()}


@wrong("03.train_step", "still holds all that it was computed from")
def log_softmax(model, optimizer, x, y):
    model.zero_grad()
    loss = F.nll_loss(F.log_softmax(model(x), 1), y)
    loss.backward()
    optimizer.step()
    return loss


@right("03.train_step")
def logarithms_twice(model, optimizer, x, y):
    loss = nn.CrossEntropyLoss()(model(x).softmax(dim=1).log(), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


@wrong("03.train_step", "It raised NotImplementedError in the line `loss =")
def labels_first(model, optimizer, x, y):
    loss = F.cross_entropy(y, model(x))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@wrong("03.train_step", "at 'losses of three steps': at [0]: 0.308921 in place of")
def squares(model, optimizer, x, y):
    loss = F.mse_loss(model(x).softmax(1), F.one_hot(y, 3).float())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@wrong("03.train_step", "at 'losses of three steps': at [0]: 0.825018 in place of")
def after_the_step(model, optimizer, x, y):
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return F.cross_entropy(model(x), y).item()


@wrong("03.train_step", "at 'losses of three steps': at [0]: 0.76978 in place of")
def loss_divided(model, optimizer, x, y):
    loss = F.cross_entropy(model(x), y) / len(y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@wrong("03.train_step", "at 'losses of three steps': at [0]: 1.19498 in place of")
def sigmoid_for_softmax(model, optimizer, x, y):
    loss = F.cross_entropy(model(x).sigmoid(), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@right("03.train_epoch")
def sums_as_a_number(model, optimizer, batches):
    model.train()
    total = 0.0
    for x, y in batches:
        optimizer.zero_grad(set_to_none=True)
        losses = F.cross_entropy(model(x), y, reduction="none")
        losses.mean().backward()
        optimizer.step()
        total += float(losses.detach().sum())
    return total / sum(y.numel() for _, y in batches)


@right("03.train_epoch")
def detached_tensor(model, optimizer, batches):
    model.train()
    seen, total = 0, torch.tensor(0.0)
    for x, y in batches:
        loss = nn.functional.cross_entropy(model(x), y)
        for p in model.parameters():
            p.grad = None
        loss.backward()
        optimizer.step()
        seen += x.shape[0]
        total += loss.detach() * x.shape[0]
    return total / seen


@right("03.step_in_parts")
def parts_weighed_in_numpy(model, optimizer, parts):
    sizes = np.array([len(y) for _, y in parts])
    losses = []
    for (x, y), share in zip(parts, sizes / sizes.sum(), strict=False):
        loss = F.cross_entropy(model(x), y)
        loss.mul(float(share)).backward()
        losses.append(loss.item())
    optimizer.step()
    model.zero_grad()
    return np.average(losses, weights=sizes)


@right("03.clip_gradients")
def factor_at_most_one(limit):
    class Clip(Callback):
        def after_backward(self, learner):
            grads = [p.grad for p in learner.model.parameters()]
            length = torch.cat([g.flatten() for g in grads]).norm()
            for g in grads:
                g.mul_(min(1.0, limit / float(length)))

    return Clip()


@right("03.take_checkpoint")
def cloned_one_by_one(model, optimizer):
    state = optimizer.state_dict()
    memory = {k: {n: v.clone() if torch.is_tensor(v) else v for n, v in s.items()} for k, s in state["state"].items()}
    return {"model": {n: v.clone() for n, v in model.state_dict().items()},
            "optimizer": {"state": memory, "param_groups": copy.deepcopy(state["param_groups"])},
            "random": torch.get_rng_state()}


@wrong("03.take_checkpoint", "You keep the parameters alone. Batch normalisation also")
def parameters_only(model, optimizer):
    return {"model": {n: p.clone().detach() for n, p in model.named_parameters()},
            "optimizer": copy.deepcopy(optimizer.state_dict()), "random": torch.get_rng_state()}


@right("03.train_step")
def one_line_loss(model, optimizer, x, y):
    model.train()
    optimizer.zero_grad()
    loss = nn.CrossEntropyLoss()(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.detach().numpy()


@wrong("03.train_step", "The loss is right, and nothing is learned: no step is")
def zero_grad_after_backward(model, optimizer, x, y):
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()
    return loss.item()


@wrong("03.measure_model", "The parameters of the model ask for no gradients any more,")
def frozen_to_save_memory(model, batches):
    modes = [m.training for m in model.modules()]
    model.eval()
    model.requires_grad_(False)
    with torch.no_grad():
        logits, y = torch.cat([model(x) for x, _ in batches]), torch.cat([y for _, y in batches])
    for m, mode in zip(model.modules(), modes, strict=False):
        m.training = mode
    return {"loss": F.cross_entropy(logits, y).item(), "accuracy": (logits.argmax(1) == y).double().mean().item()}


@right("03.train_step")
def negative_log_likelihood(model, optimizer, x, y):
    loss = -model(x).log_softmax(dim=-1).gather(1, y[:, None]).mean()
    for p in model.parameters():
        p.grad = None
    loss.backward()
    optimizer.step()
    return float(loss.detach())
