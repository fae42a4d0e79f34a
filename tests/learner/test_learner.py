"""The training loop: equal to a plain one, callbacks in order, and checkpoints from which a training goes on."""

import ast
import inspect
import io
import json
import math
import os
import pickle
import platform
import random
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from course_lib.core.files import StorageError
from course_lib.core.modes import evaluation_mode
from course_lib.core.random import random_state, set_random_state
from course_lib.learner import (
    Averages,
    Callback,
    CancelFit,
    Checkpoint,
    CheckpointError,
    Learner,
    NonFiniteLossError,
    ProgressBar,
    Recorder,
    StopOnNonFiniteLoss,
    accuracy,
    checkpoint,
    error_rate,
    load_checkpoint,
    load_weights,
    loop,
    make_adamw,
    plot_losses,
    preserved,
    resume_training,
    save_checkpoint,
    save_weights,
    smooth,
)
from course_lib.learner.strategy import Strategy

ROOT = Path(__file__).resolve().parents[2]
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
make_sgd = partial(torch.optim.SGD, momentum=0.9)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """These networks are so small that threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class ShuffledLoader:
    """As the course's image loader promises: the order depends on `epoch` alone, and each round moves it on by one."""

    def __init__(self, x, y, batch_size=16, shuffle=True, classes=("ant", "bee", "cat")):
        self.x, self.y, self.batch_size, self.shuffle, self.classes, self.epoch = x, y, batch_size, shuffle, classes, 0

    def __len__(self):
        return math.ceil(len(self.x) / self.batch_size)

    def __iter__(self):
        epoch, self.epoch = self.epoch, self.epoch + 1
        generator = torch.Generator().manual_seed(epoch)
        order = torch.randperm(len(self.x), generator=generator) if self.shuffle else torch.arange(len(self.x))
        return ((self.x[rows], self.y[rows]) for rows in order.split(self.batch_size))


def make_data(count=70, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, 8, 8, generator=generator).contiguous(memory_format=torch.channels_last)
    return x, (x.mean((1, 2, 3)) * 20).round().long().remainder(3)


def make_model(num_classes=3, width=8):
    """Small, with what makes resuming hard: BatchNorm, dropout, and `channels_last` weights."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.3),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(width, num_classes)).to(memory_format=torch.channels_last)


def make_learner(*, loader=ShuffledLoader, model=None, **options):
    train, valid = make_data(), make_data(37, seed=1)
    options = {"progress": False, "metrics": [accuracy]} | options
    return Learner(model or make_model(), loader(*train), ShuffledLoader(*valid, shuffle=False), **options)


def data_loader(x, y):
    return DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True)


def own_generator(x, y):
    return DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True, generator=torch.Generator().manual_seed(5))


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def same_numbers(first, second):
    return {name: value.numpy().tobytes() for name, value in first.items()} == {
        name: value.numpy().tobytes() for name, value in second.items()}


def without_seconds(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


class Log(Callback):
    """Writes down every hook that is called."""

    def __init__(self, log, name="", order=50):
        self.log, self.name, self.order = log, name, order

    def __getattribute__(self, name):
        if name.startswith(("before_", "after_", "on_")):
            return lambda *arguments: self.log.append(self.name + name)
        return super().__getattribute__(name)


class At(Callback):
    """Runs `action(learner)` in one hook, at one epoch and batch (or at every one)."""

    def __init__(self, hook, action, epoch=None, batch=None, order=50):
        self.order = order

        def run(learner, *_):
            if epoch in (None, learner.epoch) and batch in (None, learner.batch_index):
                action(learner)
        setattr(self, hook, run)


def throw(error):
    def action(learner):
        raise error
    return action


# The loop itself

@pytest.mark.parametrize("make_optimizer", [make_adamw, make_sgd], ids=["adamw", "sgd"])
def test_fit_equals_a_plain_loop_bit_for_bit(make_optimizer):
    learner = make_learner(make_optimizer=make_optimizer)
    torch.manual_seed(9)
    learner.fit(2, lr=0.01)

    model, loader = make_model(), ShuffledLoader(*make_data())
    optimizer = make_optimizer([{"params": list(model.parameters()), "lr": 0.01}])
    torch.manual_seed(9)
    for _ in range(2):
        model.train()
        losses, counts = [], []
        for x, y in loader:
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            counts.append(len(y))
    assert counts[-1] < counts[0], "the case with a short last batch is the one that counts"
    assert same(weights(learner.model), weights(model))
    assert learner.recorder.losses[-len(losses):] == losses
    assert learner.recorder.rows[-1]["train_loss"] == pytest.approx(np.average(losses, weights=counts), abs=1e-9)
    assert learner.recorder.rows[-1]["train_loss"] != pytest.approx(np.mean(losses), abs=1e-6)


@QUICK
@given(count=st.integers(1, 60), batch_size=st.integers(1, 20), classes=st.integers(2, 5), seed=st.integers(0, 9999))
def test_metrics_equal_scikit_learn_also_with_a_short_last_batch(count, batch_size, classes, seed):
    from sklearn.metrics import accuracy_score, log_loss, zero_one_loss

    generator = torch.Generator().manual_seed(seed)
    logits, y = torch.randn(count, classes, generator=generator), torch.randint(classes, (count,), generator=generator)
    batches = list(zip(logits.split(batch_size), y.split(batch_size), strict=True))
    values = Learner(nn.Identity(), batches, batches, metrics=[accuracy, error_rate], progress=False).evaluate()
    assert values["accuracy"] == pytest.approx(accuracy_score(y, logits.argmax(1)), abs=1e-12)
    assert values["error_rate"] == pytest.approx(zero_one_loss(y, logits.argmax(1)), abs=1e-12)
    expected = log_loss(y, logits.double().softmax(1), labels=range(classes))
    assert values["valid_loss"] == pytest.approx(expected, abs=1e-5)


def test_metrics_by_name_and_one_value_a_sample():
    hits = lambda logits, y: (logits.argmax(1) == y).float()  # one number a sample
    learner = make_learner(metrics={"hits": hits, "mean": accuracy})
    values = learner.evaluate()
    assert values["hits"] == pytest.approx(values["mean"], abs=1e-7) and set(values) == {"valid_loss", "hits", "mean"}


def test_the_results_of_an_epoch():
    learner = make_learner()
    learner.fit(2)
    names = ["train_loss", "train_accuracy", "valid_loss", "accuracy", "seconds"]
    assert list(learner.results) == names and list(learner.recorder.rows[0]) == ["epoch", "step", *names]
    assert [row["epoch"] for row in learner.recorder.rows] == [1, 2]
    assert [row["step"] for row in learner.recorder.rows] == [5, 10] and len(learner.recorder.losses) == 10
    assert learner.evaluate()["valid_loss"] == learner.results["valid_loss"]
    assert (learner.epoch, learner.step) == (2, 10)


def test_without_validation_data_there_are_training_figures_alone():
    learner = Learner(make_model(), ShuffledLoader(*make_data()), progress=False)
    learner.fit(1)
    assert set(learner.results) == {"train_loss", "seconds"}


def test_a_generator_without_length_and_one_that_is_used_up(capsys):
    class Stream:
        def __iter__(self):
            return iter(ShuffledLoader(*make_data()))

    learner = Learner(make_model(), Stream())  # the progress bar has no total
    learner.fit(2)
    assert learner.num_batches is None and len(learner.recorder.losses) == 10
    with pytest.raises(ValueError, match="read only once"):
        Learner(make_model(), iter(ShuffledLoader(*make_data())), progress=False).fit(2)


def test_only_parameters_that_may_learn_are_optimised_each_group_at_its_rate():
    class Groups(nn.Sequential):
        def parameter_groups(self):
            return [list(self[0].parameters()), list(self[1].parameters()), list(self[6].parameters())]

    model = Groups(*make_model())
    model[0].requires_grad_(False)
    before = weights(model)
    learner = make_learner(model=model, make_optimizer=torch.optim.SGD)
    learner.fit(1, lr=[1e-3, 1e-30, 0.1])
    assert [len(group["params"]) for group in learner.optimizer.param_groups] == [0, 2, 2]
    assert learner.recorder.lrs == [[1e-3, 1e-30, 0.1]] * 5
    after = weights(model)
    assert torch.equal(before["0.weight"], after["0.weight"])  # frozen
    assert torch.equal(before["1.weight"], after["1.weight"])  # too slow to see
    assert not torch.equal(before["6.weight"], after["6.weight"])


def test_a_frozen_body_with_batch_norm_stays_as_it_is():
    from course_lib.models import Classifier

    parts = list(make_model())
    model = Classifier(nn.Sequential(*parts[:3]), nn.Sequential(*parts[3:]))
    model.body.requires_grad_(False)
    before = weights(model)
    learner = make_learner(model=model)
    learner.fit(2, lr=0.1)
    after = weights(model)
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("body"))
    assert not torch.equal(before["head.3.weight"], after["head.3.weight"])


def test_the_learner_is_small_and_stands_alone():
    """One class, one cell, no bases; it knows the ground floor and its own package, neither data nor models."""
    assert Learner.__mro__ == (Learner, object) and len(inspect.getsourcelines(Learner)[0]) < 200
    tree = ast.parse(Path(loop.__file__).read_text(encoding="utf-8"))
    modules = {(node.module or "").removeprefix("course_lib.learner.") for node in ast.walk(tree)
               if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("course_lib"))}
    assert modules == {"core.device", "core.modes", "callbacks", "checks", "figures", "strategy"}
    lesson = json.loads((ROOT / "nbs" / "03_training_loop.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in lesson["cells"] if cell["cell_type"] == "code"]
    assert [cell.startswith("#| export") for cell in cells if "\nclass Learner" in cell] == [True]


# Callbacks

def test_hooks_are_called_in_this_order():
    log = []
    batches = ShuffledLoader(*make_data(20))
    Learner(make_model(), batches, batches, callbacks=[Log(log)], progress=False).fit(1)
    batch = ["before_batch", "after_backward", "after_step", "after_batch"]
    assert log == ["before_fit", "before_epoch", *batch, *batch, "before_evaluate", "after_evaluate_batch",
                   "after_evaluate_batch", "after_evaluate", "after_epoch", "after_fit"]


@QUICK
@given(orders=st.lists(st.integers(-5, 100), max_size=12))
def test_callbacks_go_by_order_and_ties_by_insertion(orders):
    log = []
    learner = Learner(make_model(), ShuffledLoader(*make_data(4)), progress=False,
                      callbacks=[Log(log, f"{number}:", order) for number, order in enumerate(orders[:6])])
    for number, order in enumerate(orders[6:], start=6):
        learner.add_callback(Log(log, f"{number}:", order))
    learner.fit(1)
    expected = sorted(range(len(orders)), key=lambda number: (orders[number], number))
    assert [int(entry.split(":")[0]) for entry in log if entry.endswith("before_epoch")] == expected


def test_the_documented_order_of_the_callbacks():
    kinds = (checkpoint._Resume, Recorder, StopOnNonFiniteLoss, Callback, ProgressBar, Checkpoint)
    assert [kind.order for kind in kinds] == [0, 10, 20, 50, 80, 90]
    lesson = (ROOT / "nbs" / "03_training_loop.ipynb").read_text(encoding="utf-8")
    rows = [f"| {kind.order} | `{kind.__name__}` |" for kind in kinds if kind not in (Callback, kinds[0])]
    assert all(row in lesson for row in rows) and "| 50 | yours" in lesson and "| 0 | the one that resumes" in lesson


def test_one_of_your_own_replaces_the_usual_one():
    recorder = Recorder()
    learner = make_learner(callbacks=[recorder, StopOnNonFiniteLoss(every=3)], progress=True)
    assert learner.recorder is recorder
    assert [type(c) for c in learner.callbacks] == [Recorder, StopOnNonFiniteLoss, ProgressBar]


def test_callbacks_of_one_fit_are_gone_afterwards_also_after_an_error():
    learner, log = make_learner(), []
    learner.fit(1, callbacks=[Log(log)])
    assert log
    with pytest.raises(ZeroDivisionError):
        learner.fit(1, callbacks=[Log(log), At("after_step", throw(ZeroDivisionError()))])
    log.clear()
    learner.fit(1)
    assert log == []


def test_a_callback_may_change_inputs_and_targets_while_metrics_see_the_hard_label():
    seen = []

    def soften(learner):
        learner.x = learner.x * 0.5
        learner.target = F.one_hot(learner.y, 3).float() * 0.9 + 0.1 / 3

    def look(learner):
        seen.append((learner.y.dtype, learner.target.dtype))
    soft = make_learner(callbacks=[At("before_batch", soften), At("after_batch", look)])
    torch.manual_seed(0)
    soft.fit(1, lr=0.01)

    plain = make_learner(loss_fn=partial(F.cross_entropy, label_smoothing=0.1))
    plain.train_loader.x = plain.train_loader.x * 0.5
    torch.manual_seed(0)
    plain.fit(1, lr=0.01)
    torch.testing.assert_close(soft.recorder.losses, plain.recorder.losses, rtol=1e-5, atol=1e-6)
    assert soft.results["train_accuracy"] == plain.results["train_accuracy"]
    assert set(seen) == {(torch.int64, torch.float32)}
    hard = make_learner(model=soft.model)
    assert soft.evaluate() == hard.evaluate()  # evaluation never mixes


def test_a_schedule_sets_the_rate_of_each_step():
    def schedule(learner):
        for group in learner.optimizer.param_groups:
            group["lr"] = 0.1 / (learner.step + 1)
    learner = make_learner(make_optimizer=torch.optim.SGD)
    learner.fit(2, callbacks=[At("before_batch", schedule)])
    assert learner.recorder.lrs == [[0.1 / step] for step in range(1, 11)]

    plain = make_model()
    optimizer = torch.optim.SGD(plain.parameters(), lr=1.0)
    loader, step = ShuffledLoader(*make_data()), 0
    learner = make_learner(make_optimizer=torch.optim.SGD, callbacks=[At("before_batch", schedule)])
    torch.manual_seed(1)
    learner.fit(1)
    torch.manual_seed(1)
    for x, y in loader:
        step += 1
        optimizer.param_groups[0]["lr"] = 0.1 / step
        optimizer.zero_grad()
        F.cross_entropy(plain(x), y).backward()
        optimizer.step()
    assert same(weights(plain), weights(learner.model))


@pytest.mark.parametrize("make_scheduler", [
    lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10),
    lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9),
], ids=["one-cycle", "exponential"])
def test_torch_schedulers_step_after_the_step_and_the_recorder_keeps_what_was_used(make_scheduler):
    class Scheduled(Callback):
        def before_fit(self, learner):
            self.scheduler = make_scheduler(learner.optimizer)

        def after_step(self, learner):
            self.scheduler.step()
    learner = make_learner(make_optimizer=make_sgd)
    learner.fit(2, 0.1, callbacks=[Scheduled()])

    optimizer = make_sgd([nn.Parameter(torch.ones(1))], lr=0.1)
    scheduler, rates, momenta = make_scheduler(optimizer), [], []
    for _ in range(10):
        rates.append([optimizer.param_groups[0]["lr"]])
        momenta.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        scheduler.step()
    assert learner.recorder.lrs == rates and learner.recorder.momenta == momenta


def test_stop_training_finishes_the_epoch_and_cancel_fit_does_not():
    log = []
    learner = make_learner(callbacks=[Log(log)])
    learner.fit(5, callbacks=[At("after_batch", lambda learner: setattr(learner, "stop_training", True), epoch=1)])
    assert learner.epoch == 2 and len(learner.recorder.rows) == 2 and log[-2:] == ["after_epoch", "after_fit"]
    log.clear()
    learner.fit(5, callbacks=[At("after_backward", throw(CancelFit()), epoch=1, batch=2)])
    assert learner.step == 7 and learner.epoch == 1 and log[-2:] == ["after_backward", "after_fit"]
    assert len(learner.recorder.losses) == 10 + 7 and "on_error" not in log


@pytest.mark.parametrize("error", [RuntimeError("planted"), KeyboardInterrupt()], ids=["exception", "ctrl-c"])
@pytest.mark.parametrize("hook", ["before_fit", "before_batch", "after_step", "before_evaluate", "after_evaluate_batch",
                                  "after_epoch", "after_fit"])
def test_after_an_error_the_learner_is_usable(error, hook):
    log = []
    learner = make_learner(progress=True)
    start, numbers = weights(learner.model), random_state()
    with pytest.raises(type(error)):
        learner.fit(2, callbacks=[Log(log), At(hook, throw(error))])
    assert log.count("on_error") == 1 and log[-1] == "on_error"
    assert hook == "after_fit" or "after_fit" not in log
    assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()
    assert not next(c for c in learner.callbacks if isinstance(c, ProgressBar)).bars

    # Trained anew from the same start it does what a new learner does: nothing of the broken fit is left.
    learner.model.load_state_dict(start)
    learner.train_loader.epoch = 0
    set_random_state(numbers)
    learner.fit(1)
    fresh = make_learner()
    set_random_state(numbers)
    fresh.fit(1)
    assert same(weights(learner.model), weights(fresh.model))


def test_a_callback_that_fails_while_cleaning_up_neither_hides_the_error_nor_stops_the_others():
    log = []
    learner = make_learner(callbacks=[At("on_error", throw(OSError("second")), order=1), Log(log)])
    with pytest.warns(UserWarning, match="second"), pytest.raises(ZeroDivisionError):
        learner.fit(1, callbacks=[At("before_epoch", throw(ZeroDivisionError()))])
    assert log[-1] == "on_error"


def test_steps_can_be_replaced():
    """What wrapping in Accelerate or half precision needs."""
    calls = []

    class Half(Strategy):
        def forward(self, model, x):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return super().forward(model, x)

        def backward(self, loss, count, optimizer):
            calls.append(("backward", count))
            return super().backward(loss, count, optimizer)

        def step(self, optimizer):
            calls.append("step")
            super().step(optimizer)
    learner = Learner(make_model(), ShuffledLoader(*make_data(20)), progress=False, strategy=Half())
    sizes = [len(y) for _, y in learner.train_loader]
    learner.fit(1)
    assert calls == [call for size in sizes for call in (("backward", size), "step")]
    assert learner.prediction.dtype == torch.bfloat16


def test_the_means_and_the_rows_of_everybody_are_the_strategys():
    """What several processes need: the training loss and everybody's rows come from there."""
    class Twice(Strategy):
        def mean(self, averages):
            return {name: 2 * value for name, value in super().mean(averages).items()}

        def gather(self, *rows, loader=None):
            loaders.append(loader)
            return [torch.cat([part, part]) for part in rows], slice(0, len(rows[0]))
    loaders, batches = [], ShuffledLoader(*make_data(20))
    usual, twice = (Learner(make_model(), batches, batches, progress=False, strategy=one) for one in (None, Twice()))
    twice.model.load_state_dict(usual.model.state_dict())
    for learner in (usual, twice):
        learner.metrics["samples"] = lambda logits, y: len(y)
    assert twice.evaluate()["samples"] == 2 * usual.evaluate()["samples"] == 40 and loaders == [batches]
    assert len(twice.predict().logits) == 2 * len(usual.predict().targets) and loaders == [batches] * 2
    for learner in (usual, twice):
        torch.manual_seed(0)
        batches.epoch = 0
        learner.fit(1, 1e-6)
    assert twice.results["train_loss"] == pytest.approx(2 * usual.results["train_loss"])
    assert twice.results["train_samples"] == 2 * usual.results["train_samples"] == 40 and loaders[2] is None


# Mistakes, told in plain words

@pytest.mark.parametrize(("arguments", "kind", "words"), [
    ((0,), ValueError, "epochs = 0 must be a whole number of at least 1"),
    ((-3,), ValueError, "at least 1"),
    ((1.5,), TypeError, "whole number"),
    ((True,), TypeError, "whole number"),
    ((1, 0), ValueError, "above zero"),
    ((1, -0.1), ValueError, "above zero"),
    ((1, math.nan), ValueError, "above zero"),
    ((1, math.inf), ValueError, "finite"),
    ((1, "fast"), TypeError, "'fast'"),
    ((1, [1e-3, 1e-4]), ValueError, "2 learning rates, but the model has 1 parameter group"),
    ((1, []), ValueError, "0 learning rates"),
    ((1, [1e-3, None]), TypeError, "number"),
])
def test_fit_refuses_what_it_cannot_do(arguments, kind, words):
    learner = make_learner()
    before = weights(learner.model)
    with pytest.raises(kind, match=words):
        learner.fit(*arguments)
    assert same(before, weights(learner.model))


@pytest.mark.parametrize("lr", [1e-2, np.float32(1e-2), torch.tensor(1e-2), [1e-2], np.array([1e-2])], ids=repr)
def test_rates_of_every_number_type(lr):
    make_learner().fit(1, lr)


def test_loaders_and_models_that_cannot_work():
    with pytest.raises(ValueError, match="training loader is empty"):
        Learner(make_model(), [], progress=False).fit(1)
    with pytest.raises(TypeError, match="cannot be iterated over"):
        Learner(make_model(), 5, progress=False).fit(1)
    with pytest.raises(ValueError, match="validation loader is empty"):
        Learner(make_model(), ShuffledLoader(*make_data()), [], progress=False).fit(1)
    with pytest.raises(TypeError, match="is no Callback"):
        make_learner().fit(1, callbacks=[At("before_fit", lambda _: None), "print"])
    with pytest.raises(TypeError, match="validation loader is a NoneType"):
        Learner(make_model(), [], progress=False).evaluate()
    with pytest.raises(ValueError, match="everything is frozen"):
        make_learner(model=make_model().requires_grad_(False)).fit(1)
    with pytest.raises(ValueError, match=r"model is on meta .*model\.to\('cpu'\)"):
        make_learner(model=make_model().to("meta")).fit(1)
    with pytest.raises(ValueError, match="model is on meta"):
        make_learner(model=make_model().to("meta")).predict()
    with pytest.raises(TypeError, match="is no Callback"):
        make_learner(callbacks=[Recorder])
    with pytest.raises(ValueError, match="device = 'gpu' is not known"):
        make_learner(device="gpu")


X, Y = make_data(4)


@pytest.mark.parametrize(("batch", "kind", "words"), [
    (X, TypeError, "gave a Tensor"),
    ((X,), TypeError, "gave 1 things"),
    ((X, Y, Y), TypeError, "gave 3 things"),
    ({"x": X, "y": Y}, TypeError, "gave a dict"),
    ((X, Y.tolist()), TypeError, "y is a list"),
    ((X.numpy(), Y), TypeError, "x is a ndarray"),
    ((X, Y[:2]), ValueError, "same number of samples"),
    ((X[:0], Y[:0]), ValueError, "at least one"),
    ((X, Y[0]), ValueError, "shapes"),
])
def test_a_batch_that_is_no_pair(batch, kind, words):
    with pytest.raises(kind, match=words):
        Learner(make_model(), [batch], progress=False).fit(1)


def test_a_loss_that_is_not_one_number():
    for loss_fn in (nn.CrossEntropyLoss(reduction="none"), lambda logits, y: 0.5):
        with pytest.raises(ValueError, match="must give one number"):
            make_learner(loss_fn=loss_fn).fit(1)


# Evaluation and prediction

def test_evaluation_gives_every_module_its_mode_back():
    model = make_model()
    model.train()
    model[1].eval()
    modes = [module.training for module in model.modules()]
    learner = make_learner(model=model)
    learner.evaluate()
    learner.predict()
    assert [module.training for module in model.modules()] == modes
    with pytest.raises(ZeroDivisionError), evaluation_mode(model):
        assert not any(module.training for module in model.modules()) and torch.is_inference_mode_enabled()
        raise ZeroDivisionError
    assert [module.training for module in model.modules()] == modes and not torch.is_inference_mode_enabled()


@QUICK
@given(count=st.integers(1, 40), batch_size=st.integers(1, 17), with_targets=st.booleans(), tuples=st.booleans())
def test_predict_keeps_the_order(count, batch_size, with_targets, tuples):
    x, y = make_data(count)
    model = make_model()
    pairs = zip(x.split(batch_size), y.split(batch_size), strict=True)
    batches = list(pairs) if with_targets else [(b,) if tuples else b for b in x.split(batch_size)]
    logits, targets = Learner(model, [], progress=False).predict(batches)
    with torch.no_grad():
        model.eval()
        torch.testing.assert_close(logits, model(x), rtol=1e-4, atol=1e-5)
    assert targets is None if not with_targets else torch.equal(targets, y)


def test_predictions_are_ordinary_tensors():
    learner = make_learner()
    logits, targets = learner.predict()
    assert not logits.is_inference() and not logits.requires_grad and torch.equal(targets, learner.valid_loader.y)
    head = nn.Linear(3, 3)
    F.cross_entropy(head(logits), targets).backward()  # predictions may be trained on
    torch.testing.assert_close(learner.predict(learner.valid_loader.x).logits, logits)  # a tensor is one batch
    assert accuracy(logits, targets).item() == pytest.approx(learner.evaluate()["accuracy"])


def test_predict_refuses_nothing_and_a_mixture():
    learner = make_learner()
    for nothing in ([], iter([])):
        with pytest.raises(ValueError, match="loader to predict on"):
            learner.predict(nothing)
    with pytest.raises(ValueError, match="1 of 2 batches held x alone"):
        learner.predict([X, (X, Y)])


def test_evaluate_inside_an_epoch_does_not_disturb_it(capsys):
    """A callback may look at the validation data whenever it likes."""
    plain, looking = make_learner(progress=True), make_learner(progress=True)
    torch.manual_seed(2)
    plain.fit(2)
    torch.manual_seed(2)
    looking.fit(2, callbacks=[At("after_batch", lambda learner: learner.evaluate(), batch=1)])
    assert same(weights(plain.model), weights(looking.model))
    assert without_seconds(plain.recorder.rows) == without_seconds(looking.recorder.rows)


def test_averages_read_the_device_once():
    averages = Averages()
    for _ in range(1000):
        averages.add("loss", torch.tensor(0.1), 3)
    assert averages.read()["loss"] == pytest.approx(torch.tensor(0.1).item(), rel=1e-12)  # a float32 sum would drift


# A loss that is no number

def blow_up(step, value=math.nan):
    """A loss that is `value` from step number `step` on."""
    calls = []

    def loss_fn(logits, y):
        calls.append(1)
        return F.cross_entropy(logits, y) * (value if len(calls) > step else 1.0)
    return loss_fn


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_fit_stops_before_the_bad_step(value, tmp_path):
    learner = Learner(make_model(), ShuffledLoader(*make_data()), loss_fn=blow_up(13, value),
                      callbacks=[Checkpoint(tmp_path)], progress=False)
    kept = []
    copy_weights = lambda: {name: p.detach().clone() for name, p in learner.model.named_parameters()}
    learner.add_callback(At("after_step", lambda learner: kept.append(copy_weights())))
    with pytest.raises(NonFiniteLossError, match=r"in epoch 3 of 5, batch 4 \(step 14 of this fit\), at learning rate "
                                                 r"0\.002.*not take this step.*tenth"):
        learner.fit(5, lr=0.002)
    assert len(kept) == 13 and same(kept[-1], copy_weights())
    assert load_checkpoint(tmp_path / "last.safetensors")[1]["epoch"] == 2
    assert all(parameter.isfinite().all() for parameter in learner.model.parameters())


@pytest.mark.parametrize(("every", "looks"), [(4, 8), (100, 10)])
def test_seldom_looks_find_the_first_bad_step_and_never_save_it(every, looks, tmp_path):
    """As on a GPU: looked at after `every` batches, and at the end of the epoch's training (the 6th call evaluates)."""
    log = []
    learner = Learner(make_model(), ShuffledLoader(*make_data()), ShuffledLoader(*make_data(8)), progress=False,
                      loss_fn=blow_up(7), callbacks=[StopOnNonFiniteLoss(every), Log(log), Checkpoint(tmp_path)])
    with pytest.raises(NonFiniteLossError, match=r"batch 2 \(step 7 of this fit\).*build the model again"):
        learner.fit(5)
    assert log.count("after_backward") == looks
    assert load_checkpoint(tmp_path / "last.safetensors")[1]["epoch"] == 1


def test_a_batch_with_no_numbers_in_it_is_named_as_the_cause():
    x, y = make_data(32)
    x[20, 0, 0, 0] = math.nan
    learner = Learner(make_model(), ShuffledLoader(x, y, shuffle=False), progress=False)
    with pytest.raises(NonFiniteLossError, match="batch 2 .*The batch itself holds values that are no numbers"):
        learner.fit(1)


def test_broken_weights_are_named_as_the_cause():
    model = make_model()
    with torch.no_grad():
        model[6].weight[0, 0] = math.inf
    with pytest.raises(NonFiniteLossError, match="weights are broken too"):
        make_learner(model=model).fit(1)


# The record, the plot, the bar

def test_records_go_on_over_fits_and_can_be_cleared():
    learner = make_learner()
    learner.fit(1)
    learner.fit(2)
    assert [row["epoch"] for row in learner.recorder.rows] == [1, 1, 2] and len(learner.recorder.losses) == 15
    assert learner.recorder.momenta == [0.9] * 15
    learner.recorder.clear()
    assert learner.recorder.rows == learner.recorder.losses == learner.recorder.lrs == []


@given(st.lists(st.floats(-1e6, 1e6), max_size=50), st.floats(0, 0.999))
def test_smoothing_stays_between_the_extremes(values, beta):
    smoothed = smooth(values, beta)
    assert len(smoothed) == len(values)
    if values:
        slack = 1e-6 * max(map(abs, values)) + 1e-9
        assert smoothed[0] == pytest.approx(values[0], rel=1e-6, abs=1e-9)
        assert min(values) - slack <= min(smoothed) and max(smoothed) <= max(values) + slack


def test_plot_losses_draws_on_the_axes_it_is_given(monkeypatch):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    monkeypatch.setattr(plt, "show", lambda *_, **__: pytest.fail("a plot function must not show"))
    with pytest.raises(ValueError, match="no losses to draw"):
        plot_losses(Recorder())
    learner = make_learner()
    learner.fit(3)
    figure, ax = plt.subplots()
    assert plot_losses(learner.recorder, ax) is ax
    assert [line.get_label() for line in ax.get_lines()][1:] == ["training (smoothed)", "validation"]
    assert list(ax.get_lines()[2].get_xdata()) == [5, 10, 15] and ax.get_xlabel() and ax.get_ylabel()
    assert list(ax.get_lines()[0].get_ydata()) == learner.recorder.losses
    assert plot_losses(learner.recorder).figure is not figure
    plt.close("all")


def test_one_aligned_row_an_epoch_and_the_header_once_a_fit(capsys):
    learner = make_learner(progress=True, metrics=[accuracy, error_rate])
    learner.fit(3)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ") and "epoch" in lines[0] and len(lines) == 4 and len({len(line) for line in lines}) == 1
    assert [word for word in ("epoch", "train loss", "valid loss", "accuracy", "error rate", "seconds")
            if word not in lines[0]] == [] and "train accuracy" not in lines[0]
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3"]
    assert float(lines[3].split()[2]) == pytest.approx(learner.results["valid_loss"], abs=1e-4)
    learner.fit(1)
    assert capsys.readouterr().out.splitlines()[0] == lines[0]


def test_a_slow_epoch_shows_a_bar_in_a_terminal_and_takes_it_away(monkeypatch):
    import tqdm.auto
    import tqdm.std
    screen = io.StringIO()
    screen.isatty = lambda: True  # elsewhere there is no bar
    monkeypatch.setattr(tqdm.auto, "tqdm", partial(tqdm.std.tqdm, file=screen, mininterval=0, ascii=True))
    monkeypatch.setattr(ProgressBar, "refresh_seconds", 0.01)
    pause = lambda learner: time.sleep(0.02)
    learner = make_learner(progress=True, callbacks=[At("before_batch", pause), At("after_evaluate_batch", pause)])
    learner.fit(1)
    shown = screen.getvalue()
    assert "epoch 1/1" in shown and "loss " in shown and "5/5" in shown and "evaluating" in shown
    assert shown.rstrip(" ").endswith("\r")


@pytest.mark.parametrize(("epochs", "rows"), [(24, 24), (50, 25), (240, 25)])
def test_many_short_epochs_print_few_rows_and_long_ones_all(capsys, monkeypatch, epochs, rows):
    learner = make_learner(progress=True)
    learner.fit(epochs)
    shown = [int(line.split()[0]) for line in capsys.readouterr().out.splitlines()[1:]]
    assert (len(shown), shown[0], shown[-1]) == (rows, 1, epochs) and shown == sorted(set(shown))
    assert [row["epoch"] for row in learner.recorder.rows] == list(range(1, epochs + 1))
    monkeypatch.setattr(ProgressBar, "short", 0.0)  # now all of them are long
    learner.fit(30)
    assert len(capsys.readouterr().out.splitlines()) == 1 + 30


# Leaving no trace

@pytest.mark.parametrize("end", [None, ZeroDivisionError(), KeyboardInterrupt()], ids=["well", "error", "ctrl-c"])
@pytest.mark.parametrize("loader", [ShuffledLoader, data_loader, own_generator])
def test_preserved_gives_everything_back(end, loader):
    def hunt(learner):
        """What a learning-rate finder does."""
        for group in learner.optimizer.param_groups:
            group["lr"] = 10.0 ** (learner.step - 3)
        random.random(), np.random.rand()
        if learner.step == 7:
            raise end or CancelFit
    tried, plain = make_learner(loader=loader), make_learner(loader=loader)
    for learner in (tried, plain):
        torch.manual_seed(4)
        random.seed(4)
        np.random.seed(4)
        learner.fit(1, lr=0.01)
    tried.model[1].eval()
    tried.model[0].requires_grad_(False)
    tried.model[6].weight.grad = torch.ones_like(tried.model[6].weight)
    attributes, state, numbers = dict(vars(tried)), tried.recorder.state(), random_state()
    optimizer = tried.optimizer.state_dict()
    before = weights(tried.model)
    try:
        with preserved(tried):
            tried.model.requires_grad_(True)
            tried.fit(2, lr=1.0, callbacks=[At("before_batch", hunt)])
            assert not same(before, weights(tried.model))
    except BaseException as error:
        assert error is end
    assert same(before, weights(tried.model)) and dict(vars(tried)) == attributes
    assert tried.recorder.state() == state and same_numbers(random_state(), numbers)
    assert not tried.model[1].training and tried.model[2].training and not tried.model[0].weight.requires_grad
    assert tried.model[6].weight.grad.eq(1).all() and tried.model[0].weight.grad is None
    after = tried.optimizer.state_dict()
    assert after["param_groups"] == optimizer["param_groups"]
    assert all(torch.equal(after["state"][i][k], v) for i, s in optimizer["state"].items() for k, v in s.items())
    tried.model.requires_grad_(True)
    tried.fit(1, lr=0.01)  # and the next training is the one that it would have been
    set_random_state(numbers)
    plain.fit(1, lr=0.01)
    assert same(weights(tried.model), weights(plain.model))


# Checkpoints

@pytest.mark.slow
@pytest.mark.parametrize("make_optimizer", [make_adamw, make_sgd, torch.optim.Adagrad, torch.optim.SGD],
                         ids=["adamw", "momentum", "adagrad", "sgd"])
@pytest.mark.parametrize("loader", [ShuffledLoader, data_loader, own_generator])
def test_a_resumed_training_is_the_undisturbed_one_bit_for_bit(make_optimizer, loader, tmp_path):
    class Noise(Callback):
        """Uses Python's and NumPy's random numbers, and has a state of its own."""
        total = 0.0

        def before_batch(self, learner):
            self.total += random.random() + np.random.normal() + random.gauss(0, 1)
            learner.x = learner.x + self.total / 100

        def state(self):
            return {"total": self.total}

        def load_state(self, state):
            self.total = state["total"]

    def seeded(seed):
        random.seed(seed)
        np.random.seed(seed)
        made = make_learner(loader=loader, make_optimizer=make_optimizer,
                            callbacks=[Noise(), Checkpoint(tmp_path / str(seed))])
        torch.manual_seed(seed)
        return made
    whole = seeded(1)
    whole.fit(5, lr=0.01)

    first = seeded(1)
    with pytest.raises(KeyboardInterrupt):
        first.fit(5, lr=0.01, callbacks=[At("after_step", throw(KeyboardInterrupt()), epoch=3, batch=2)])
    second = seeded(2)
    torch.rand(100)  # another history of random numbers
    assert resume_training(tmp_path / "1" / "last.safetensors", second)["epoch"] == 3
    second.fit(5, lr=0.01)
    assert same(weights(whole.model), weights(second.model))
    assert whole.recorder.losses == second.recorder.losses and whole.recorder.lrs == second.recorder.lrs
    assert without_seconds(whole.recorder.rows) == without_seconds(second.recorder.rows)
    assert whole.step == second.step == 25


@pytest.mark.slow
@QUICK
@given(stop_epoch=st.integers(1, 3), stop_batch=st.integers(0, 4))
def test_wherever_it_is_interrupted(stop_epoch, stop_batch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("interrupted")
    results = []
    for stop in (None, throw(KeyboardInterrupt())):
        learner = make_learner(callbacks=[Checkpoint(folder)])
        torch.manual_seed(0)
        if stop:
            with pytest.raises(KeyboardInterrupt):
                learner.fit(4, callbacks=[At("before_batch", stop, stop_epoch, stop_batch)])
            learner = make_learner(callbacks=[Checkpoint(folder)])
            resume_training(folder / "last.safetensors", learner)
            learner.fit(4)
        else:
            learner.fit(4)
        results.append(weights(learner.model))
    assert same(*results)


def test_resuming_a_finished_training_trains_nothing_and_more_epochs_go_on(tmp_path):
    learner = make_learner(callbacks=[Checkpoint(tmp_path)])
    learner.fit(2)
    before = weights(learner.model)
    again = make_learner()
    resume_training(tmp_path / "last.safetensors", again)
    again.fit(2)
    assert same(before, weights(again.model)) and len(again.recorder.rows) == 2 and again.results == learner.results
    resume_training(tmp_path / "last.safetensors", again)
    again.fit(3)
    assert again.epoch == 3 and [row["epoch"] for row in again.recorder.rows] == [1, 2, 3]
    again.fit(1)  # a resume counts once
    assert again.epoch == 1


@pytest.mark.slow
def test_ctrl_c_and_the_same_command_again(tmp_path):
    """A real SIGINT to a real process, twice the same command, the same weights as without the interruption."""
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent("""
        import sys, time
        from pathlib import Path
        import torch
        from torch import nn
        from course_lib.learner import Callback, Checkpoint, Learner, resume_training

        class Slow(Callback):
            def after_batch(self, learner):
                time.sleep(float(sys.argv[2]))

        torch.manual_seed(0)
        x, y = torch.randn(60, 12), torch.randint(3, (60,))
        model = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 10, shuffle=True)
        checkpoint = Checkpoint(Path(sys.argv[1]))
        learner = Learner(model, loader, callbacks=[checkpoint, Slow()])
        if checkpoint.last_path.exists():
            print("going on after epoch", resume_training(checkpoint.last_path, learner)["epoch"])
        learner.fit(6, lr=0.01)
    """), encoding="utf-8")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = lambda folder, pause: [sys.executable, str(script), str(tmp_path / folder), pause]
    started = dict(env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    flags = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if os.name == "nt" else {}
    undisturbed = subprocess.Popen(command("whole", "0"), **started)
    process = subprocess.Popen(command("stopped", "0.1"), **started, **flags)
    last = tmp_path / "stopped" / "last.safetensors"
    deadline = time.monotonic() + 120
    while not last.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.CTRL_BREAK_EVENT if os.name == "nt" else signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0 and (os.name == "nt" or "KeyboardInterrupt" in errors)
    assert 1 <= load_checkpoint(last)[1]["epoch"] < 6

    again = subprocess.run(command("stopped", "0"), **started, timeout=120)
    assert again.returncode == 0 and "going on after epoch" in again.stdout, again.stderr
    _, errors = undisturbed.communicate(timeout=120)
    assert undisturbed.returncode == 0, errors
    whole, stopped = (load_checkpoint(tmp_path / name / "last.safetensors")[0] for name in ("whole", "stopped"))
    assert same(whole, stopped)
    assert not list((tmp_path / "stopped").glob("*.part"))


def test_metadata_travels_and_what_is_known_is_added(tmp_path):
    learner = make_learner()
    learner.fit(1)
    mean = (0.5, 0.25, 0.125)
    save_checkpoint(tmp_path / "new" / "m.safetensors", learner, {"backbone": "tiny", "mean": mean, "image_size": 8})
    tensors, metadata = load_checkpoint(tmp_path / "new" / "m.safetensors")
    assert same(tensors, weights(learner.model))
    assert metadata["classes"] == ["ant", "bee", "cat"] and metadata["epoch"] == 1 and metadata["mean"] == list(mean)
    assert metadata["results"] == learner.results
    other = make_model()
    assert load_weights(tmp_path / "new" / "m.safetensors", other, classes=["ant", "bee", "cat"]) == metadata
    assert torch.equal(learner.predict().logits, make_learner(model=other).predict().logits)
    assert other[0].weight.is_contiguous(memory_format=torch.channels_last)
    with pytest.raises(TypeError, match="metadata must be text"):
        save_checkpoint(tmp_path / "x.safetensors", learner, {"folder": tmp_path})
    assert not (tmp_path / "x.safetensors").exists()


def test_tied_and_compiled_weights(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x))
    batches = [(torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1]))]
    learner = Learner(Tied(), batches, callbacks=[Checkpoint(tmp_path)], progress=False)
    learner.fit(2)
    compiled = torch.compile(Tied(), backend="eager")
    load_weights(tmp_path / "last.safetensors", compiled)
    assert same(weights(learner.model), weights(compiled._orig_mod))


@pytest.mark.parametrize("monitor, mode, values, best", [
    (None, None, [3.0, 1.0, 2.0], 2),
    ("accuracy", None, [0.1, 0.9, 0.8], 2),
    ("error_rate", None, [0.5, 0.2, 0.2], 2),
    ("accuracy", "min", [0.3, 0.2, 0.1], 3),
    ("valid_loss", None, [math.nan, 2.0, math.nan], 2),
])
def test_the_best_epoch_is_kept_apart(monitor, mode, values, best, tmp_path):
    left = iter(values)
    fake = At("after_epoch", lambda learner: learner.results.update({monitor or "valid_loss": next(left)}), order=15)
    make_learner(metrics=[accuracy, error_rate],
                 callbacks=[fake, Checkpoint(tmp_path, monitor=monitor, mode=mode)]).fit(3)
    assert load_checkpoint(tmp_path / "best.safetensors")[1]["epoch"] == best
    assert load_checkpoint(tmp_path / "last.safetensors")[1]["epoch"] == 3


@pytest.mark.parametrize("before, best", [([1.0, 2.0], 1), ([2.0, 1.0], 2)])  # also right after the best epoch
def test_the_best_value_survives_an_interruption(before, best, tmp_path):
    def checkpointed(values):
        left = iter(values)
        fake = At("after_epoch", lambda learner: learner.results.update(valid_loss=next(left)), order=15)
        return make_learner(callbacks=[fake, Checkpoint(tmp_path)])
    checkpointed(before).fit(2)
    second = checkpointed([1.5, 1.2])
    resume_training(tmp_path / "last.safetensors", second)
    second.fit(4)
    assert load_checkpoint(tmp_path / "best.safetensors")[1]["epoch"] == best


def test_a_disk_that_is_full_when_the_best_is_kept_loses_neither_the_last_nor_the_best_before(tmp_path, monkeypatch):
    values = iter([2.0, 1.0])
    fake = At("after_epoch", lambda learner: learner.results.update(valid_loss=next(values)), order=15)

    def full(source, partial):
        Path(partial).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    fills = At("before_epoch", lambda learner: learner.epoch and monkeypatch.setattr("shutil.copyfile", full))
    with pytest.raises(StorageError, match="Keeping the best checkpoint failed.*What was finished before is kept"):
        make_learner(callbacks=[fake, fills, Checkpoint(tmp_path)]).fit(2)
    assert load_checkpoint(tmp_path / "best.safetensors")[1]["epoch"] == 1
    assert load_checkpoint(tmp_path / "last.safetensors")[1]["epoch"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.safetensors", "last.safetensors"]


def test_checkpoint_settings_that_make_no_sense(tmp_path):
    with pytest.raises(ValueError, match="cannot watch 'f1'. There is: train_loss"):
        make_learner(callbacks=[Checkpoint(tmp_path, monitor="f1")]).fit(1)
    with pytest.raises(ValueError, match="Allowed: None, min, max"):
        Checkpoint(tmp_path, mode="up")


@pytest.mark.parametrize("failing", ["os.replace", "safetensors.torch.save_file", "os.fsync"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "ctrl-c"])
def test_a_write_that_fails_leaves_the_old_checkpoint(failing, error, tmp_path, monkeypatch):
    learner, path = make_learner(), tmp_path / "m.safetensors"
    save_checkpoint(path, learner)
    old = path.read_bytes()

    def fail(*arguments, **options):
        if "save_file" in failing:
            Path(arguments[1]).write_bytes(b"half")
        raise error
    learner.fit(1)
    monkeypatch.setattr(failing, fail)
    with pytest.raises(type(error), match="m.safetensors could not be written.*No space" if error.args else None):
        save_checkpoint(path, learner)
    monkeypatch.undo()
    assert path.read_bytes() == old and [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_checkpoint_may_be_read_by_whoever_may_read_other_files(tmp_path):
    path, plain = tmp_path / "m.safetensors", tmp_path / "plain"
    plain.write_text("", encoding="utf-8")
    save_checkpoint(path, make_learner())
    assert path.stat().st_mode == plain.stat().st_mode


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OSError, match="file"):
        save_checkpoint(tmp_path / "file" / "m.safetensors", make_learner())


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("write", [
    lambda value, path: torch.save(value, path),
    lambda value, path: torch.save(value, path, _use_new_zipfile_serialization=False),
    lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2)),
    lambda value, path: path.write_bytes(pickle.dumps(value)),
    lambda value, path: path.write_bytes(pickle.dumps(value, protocol=0)),
], ids=["zip", "legacy", "protocol 2", "newest protocol", "protocol 0"])
@pytest.mark.parametrize("name", ["model.pt", "last.safetensors"])
def test_a_pickle_is_refused_and_its_code_does_not_run(write, name, tmp_path):
    target, path = tmp_path / "bomb went off", tmp_path / name
    write(Bomb(target), path)
    learner = make_learner()
    before = weights(learner.model)
    for action in (lambda: load_checkpoint(path), lambda: load_weights(path, learner.model),
                   lambda: resume_training(path, learner)):
        with pytest.raises(CheckpointError, match="pickle.*not opened|does not begin like a safetensors"):
            action()
    assert not target.exists() and same(before, weights(learner.model))


def test_the_planted_pickle_really_has_code_in_it(tmp_path):
    target = tmp_path / "bomb went off"
    pickle.loads(pickle.dumps(Bomb(target)))
    assert target.exists()


@pytest.fixture(scope="module")
def checkpoint_bytes(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "m.safetensors"
    learner = make_learner()
    learner.fit(1)
    save_checkpoint(path, learner, {"backbone": "tiny"})
    return path.read_bytes()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_cut_off_file_is_named_as_such(data, checkpoint_bytes, tmp_path):
    length = data.draw(st.one_of(st.integers(0, 40), st.integers(0, len(checkpoint_bytes) - 1)))
    path = tmp_path / "cut.safetensors"
    path.write_bytes(checkpoint_bytes[:length])
    learner = make_learner()
    before = weights(learner.model)
    for action in (lambda: load_weights(path, learner.model), lambda: resume_training(path, learner)):
        with pytest.raises(CheckpointError, match="cut off|is empty|does not begin like|pickle"):
            action()
    assert same(before, weights(learner.model))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_headers_never_end_in_another_error(data, checkpoint_bytes, tmp_path):
    header = 8 + int.from_bytes(checkpoint_bytes[:8], "little")
    damaged = bytearray(checkpoint_bytes)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.one_of(st.integers(0, 300), st.integers(0, header - 1)))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(damaged)
    try:
        load_weights(path, make_model())
    except CheckpointError:
        pass


def test_what_was_loaded_does_not_hang_on_the_file(checkpoint_bytes, tmp_path):
    """Or a checkpoint could not be replaced on Windows, and what was loaded would change with the file elsewhere."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(checkpoint_bytes)
    tensors, _ = load_checkpoint(path)
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    with open(path, "rb+") as file:
        file.write(bytes(len(checkpoint_bytes)))
    assert same(before, tensors)


def test_files_that_are_no_checkpoints(tmp_path):
    from safetensors.torch import save_file
    with pytest.raises(FileNotFoundError, match="There is no checkpoint"):
        load_checkpoint(tmp_path / "none.safetensors")
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path)
    text = tmp_path / "text.safetensors"
    text.write_text("This is a poem about weights.", encoding="utf-8")
    with pytest.raises(CheckpointError, match="does not begin like"):
        load_checkpoint(text)
    save_file({"a": torch.ones(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="not written by save_checkpoint"):
        load_checkpoint(tmp_path / "foreign.safetensors")
    document = json.dumps({"version": 99, "metadata": {}, "training": None})
    save_file({"a": torch.ones(2)}, tmp_path / "future.safetensors", metadata={"course_lib": document})
    with pytest.raises(CheckpointError, match="format version 99"):
        load_checkpoint(tmp_path / "future.safetensors")


def test_another_architecture_or_class_list_says_what_differs(tmp_path):
    path = tmp_path / "m.safetensors"
    learner = make_learner()
    learner.fit(1)
    save_checkpoint(path, learner, {"backbone": "tiny"})
    for model, words in (
        (make_model(num_classes=5), r"saved from tiny.*6\.bias is \(3,\) in the checkpoint and \(5,\) here"),
        (make_model()[:-1], r"Only in the checkpoint: 6\.bias, 6\.weight"),
        (nn.Sequential(*make_model(), nn.Linear(3, 3)), r"Only here: 7\.weight, 7\.bias"),
        (make_model(width=4), "tensors have other shapes.*and [0-9]+ more"),
    ):
        before = weights(model)
        with pytest.raises(CheckpointError, match=words):
            load_weights(path, model)
        with pytest.raises(CheckpointError, match=words):
            resume_training(path, make_learner(model=model))
        assert same(before, weights(model))
    for classes, words in ((("ant", "bee", "dog"), "Only in the checkpoint: cat. Only here: dog"),
                           (("bee", "ant", "cat"), "another order: number 0 is ant in the checkpoint and bee here"),
                           (("ant", "bee"), "Only in the checkpoint: cat")):
        with pytest.raises(CheckpointError, match=words):
            load_weights(path, make_model(), classes=classes)
        with pytest.raises(CheckpointError, match=words):
            resume_training(path, make_learner(loader=partial(ShuffledLoader, classes=classes)))


def test_resuming_needs_the_same_training(tmp_path):
    path = tmp_path / "m.safetensors"
    learner = make_learner()
    learner.fit(1, lr=0.01)
    save_checkpoint(path, learner)
    half_frozen = make_learner()
    half_frozen.model[0].requires_grad_(False)
    for other, lr, words in (
        (make_learner(), 0.02, r"learning rates \[0\.01\], this fit asks for \[0\.02\]"),
        (make_learner(make_optimizer=make_sgd), 0.01, "trained with AdamW, not with SGD"),
        (half_frozen, 0.01, r"Only in the checkpoint: 0\.weight, 0\.bias"),
    ):
        resume_training(path, other)
        with pytest.raises(CheckpointError, match=words):
            other.fit(3, lr=lr)
        other.fit(1, lr=lr)  # and the learner is usable, from the checkpoint's weights
    save_weights(path, learner.model, {"epoch": learner.epoch})
    with pytest.raises(CheckpointError, match="weights alone"):
        resume_training(path, make_learner())
    assert load_weights(path, make_model())["epoch"] == 1
    never_fitted = make_learner()
    save_checkpoint(path, never_fitted)
    assert same(load_checkpoint(path)[0], weights(never_fitted.model))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(tmp_path):
    model = make_model().cuda()
    learner = make_learner(model=model, device="cuda", callbacks=[Checkpoint(tmp_path)])
    learner.fit(2)
    assert learner.predict().logits.device.type == "cpu" and learner.optimizer.param_groups[0]["fused"]
    again = make_learner(model=make_model().cuda(), device="cuda")
    resume_training(tmp_path / "last.safetensors", again)
    again.fit(3)
    with pytest.raises(ValueError, match="model is on cpu"):
        make_learner(device="cuda").fit(1)
    broken = make_learner(model=make_model().cuda(), device="cuda", loss_fn=blow_up(6))
    with pytest.raises(NonFiniteLossError, match="step 7 of this fit"):
        broken.fit(5)


def test_no_warning_in_an_ordinary_fit(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_learner(callbacks=[Checkpoint(tmp_path)], progress=True).fit(2)


KEPT = """
import resource, sys, torch
from course_lib.learner import Learner

def faults():
    for _ in range(8):  # small things in between may take a piece of what was freed; that ends after some rounds
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(60_000_000, dtype=torch.uint8).add_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
learner = Learner(torch.nn.Linear(2, 2), [(torch.zeros(2, 2), torch.tensor([0, 1]))], progress=False)
made = faults()
learner.fit(1)
print(before, made, faults())
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc", reason="of glibc alone")
def test_a_training_on_a_cpu_keeps_the_memory_that_it_frees_and_making_a_learner_changes_nothing():
    ran = subprocess.run([sys.executable, "-c", KEPT], capture_output=True, text=True, timeout=120)
    before, made, after = map(int, ran.stdout.split())
    assert before > 10_000 and made > 10_000 and after < 100, ran.stderr  # pages of 4 KB: 60 MB are 14,648
