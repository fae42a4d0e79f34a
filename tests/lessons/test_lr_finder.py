"""The learning-rate finder: leaves no trace, stops in time, refuses nonsense, and suggests what fastai would."""

import copy
import inspect
import io
import math
import os
import random
import warnings
from functools import partial

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from course_lib.core.plots import is_interactive
from course_lib.core.random import random_state
from course_lib.data import Augmentation, BatchTransform, ImageLoader
from course_lib.learner import (
    Callback,
    Checkpoint,
    Learner,
    NonFiniteLossError,
    SkipStep,
    accuracy,
    save_checkpoint,
    smooth,
)
from course_lib.learner.checkpoint import loader_state
from course_lib.learner.features import train_last
from course_lib.lr_finder import (
    LRSweep,
    explore_lrs,
    lr_find,
    plot_lr_sweep,
    suggest_lrs,
    suggest_minimum,
    suggest_slide,
    suggest_steep,
    suggest_valley,
    try_lrs,
)
from course_lib.lr_finder.explorer import LRRun, _make_explorer, _nearest_run, plot_lr_run
from course_lib.lr_finder.finder import CUT_END, MIN_ITERATIONS, has_diverged, longest_fall, slide_window, sweep_lrs
from course_lib.lr_finder.trial import group_ratios, step_callbacks
from course_lib.models import create_classifier

matplotlib.use("Agg")
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """These networks are so small that threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# ---------------------------------------------------------------------------------------------- a small learner

OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
    "adam": torch.optim.Adam,
    "adamw": None,  # the learner's own, fused
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
}


class Grouped(nn.Sequential):
    """A network with batch normalisation, dropout, and a parameter group for each half."""

    def __init__(self):
        super().__init__(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 3))

    def parameter_groups(self):
        return [[*self[0].parameters(), *self[1].parameters()], list(self[4].parameters())]


class EpochLoader:
    """As the course's loaders: the order depends on `epoch` alone, and each round moves it on by one."""

    def __init__(self, x, y):
        self.x, self.y, self.epoch = x, y, 3

    def __iter__(self):
        epoch, self.epoch = self.epoch, self.epoch + 1
        order = torch.randperm(len(self.x), generator=torch.Generator().manual_seed(epoch))
        return ((self.x[rows], self.y[rows]) for rows in order.split(16))


def make_data(count=64):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 6, generator=generator)
    return x, (x @ torch.randn(6, 3, generator=generator)).argmax(1)


def make_loader(kind):
    x, y = make_data()
    if kind == "epoch":
        return EpochLoader(x, y)
    if kind == "list":
        return list(zip(x.split(16), y.split(16), strict=True))
    own = torch.Generator().manual_seed(9) if kind == "own generator" else None
    return DataLoader(TensorDataset(x, y), 16, shuffle=True, generator=own)


def make_learner(optimizer="adamw", loader="list", **options):
    torch.manual_seed(0)
    return Learner(Grouped(), make_loader(loader), make_loader("list"), make_optimizer=OPTIMIZERS[optimizer],
                   metrics=[accuracy], progress=False, **options)


class Bump(Callback):
    """Shapes a step, counts, and has random numbers of its own."""

    def __init__(self):
        self.count, self.seen, self.generator = 0, [], torch.Generator().manual_seed(4)

    def after_backward(self, learner):
        self.count += 1
        self.seen.append(float(torch.rand(1, generator=self.generator)))


class FailAt(Callback):
    """Raises `error` at a certain batch, in a certain hook."""

    def __init__(self, hook, step, error):
        self.step, self.error, self.count = step, error, 0
        setattr(self, hook, self._tick)

    def before_batch(self, learner): ...
    def after_step(self, learner): ...

    def _tick(self, learner):
        self.count += 1
        if self.count > self.step:
            raise self.error


def snapshot(learner):
    """Everything a learner is, to compare with."""
    model, optimizer = learner.model, learner.optimizer
    return copy.deepcopy({
        "tensors": [(t.detach(), t.requires_grad, t.grad) for t in (*model.parameters(), *model.buffers())],
        "modes": [module.training for module in model.modules()],
        "optimizer": None if optimizer is None else optimizer.state_dict(),
        "random": random_state(),
        "loader": loader_state(learner.train_loader),
        "recorder": learner.recorder.state(),
        "callbacks": [(id(c), {k: v for k, v in vars(c).items() if k not in ("generator", "error", "_waiting", "_step")
                               and not callable(v)}) for c in learner.callbacks],
        "draws": [c.generator.get_state() for c in learner.callbacks if isinstance(c, Bump)],
        "objects": {k: id(v) for k, v in vars(learner).items()},
    })


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


def assert_same(before, after):
    for name in before:
        assert same(before[name], after[name]), name


# ---------------------------------------------------------------------------------------------- leaves no trace

@QUICK
@given(optimizer=st.sampled_from(sorted(OPTIMIZERS)),
       loader=st.sampled_from(["list", "epoch", "torch", "own generator"]),
       fitted=st.booleans(), frozen=st.booleans(), gradients=st.booleans(),
       hook=st.sampled_from(["before_batch", "after_step"]), step=st.integers(0, 30),
       error=st.sampled_from([KeyboardInterrupt, RuntimeError, None]))
def test_a_sweep_leaves_no_trace_also_after_an_error(optimizer, loader, fitted, frozen, gradients, hook, step, error):
    random.seed(step)
    np.random.seed(step)
    learner = make_learner(optimizer, loader, callbacks=[Bump()])
    if fitted:
        learner.fit(1, 1e-3)
    if frozen:
        learner.model[0].requires_grad_(False)
        learner.model[1].eval()
    if gradients:
        next(p for p in learner.model.parameters() if p.requires_grad).grad = None
        learner.model[4].weight.grad = torch.ones_like(learner.model[4].weight)
    if error:
        learner.add_callback(FailAt(hook, step, error("now")))
    before = snapshot(learner)
    if error:
        with pytest.raises(error):
            lr_find(learner, iterations=40, stop=1.0)
    else:
        lr_find(learner, iterations=40, stop=1.0)
    assert_same(before, snapshot(learner))


@pytest.mark.parametrize("place", ["model", "loss", "loader", "backward"])
def test_an_error_anywhere_leaves_no_trace(place):
    learner, calls = make_learner("momentum", "epoch"), iter(range(100))

    def fail(*_):
        if next(calls) == 5:
            raise RuntimeError("now")

    learner.fit(1)
    if place == "model":
        learner.model[2].register_forward_hook(lambda *a: fail())
    elif place == "loss":
        learner.loss_fn = lambda p, y: (fail(), F.cross_entropy(p, y))[1]
    elif place == "backward":
        learner.model[2].register_full_backward_hook(lambda *a: fail())
    else:
        rows = learner.train_loader.x
        learner.train_loader.x = type("Rows", (), {"__len__": lambda self: len(rows),
                                                   "__getitem__": lambda self, chosen: (fail(), rows[chosen])[1]})()
    before = snapshot(learner)
    with pytest.raises(RuntimeError, match="now"):
        lr_find(learner)
    assert_same(before, snapshot(learner))


@pytest.mark.slow
@pytest.mark.parametrize("loader", ["list", "epoch", "torch", "own generator"])
@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_training_after_a_sweep_is_the_training_without_it(optimizer, loader):
    losses = []
    for sweeping in (False, True):
        learner = make_learner(optimizer, loader)
        torch.manual_seed(7)
        if sweeping:
            lr_find(learner)
            try_lrs(learner, [1e-3, 1.0], epochs=2)
        learner.fit(2, 1e-2)
        losses.append(learner.recorder.losses)
    assert losses[0] == losses[1]


def test_nothing_is_printed_written_or_recorded(tmp_path, capfd):
    seen = []

    class Log(Callback):
        def before_fit(self, learner): seen.append("fit")
        def before_epoch(self, learner): seen.append("epoch")
        def after_batch(self, learner): seen.append("batch")
        def after_epoch(self, learner): print("epoch!")
        def on_error(self, learner, error): print("error!")

    x, y = make_data()
    learner = Learner(Grouped(), DataLoader(TensorDataset(x, y), 16), make_loader("list"),
                      callbacks=[Log(), Checkpoint(tmp_path / "checkpoints")])  # with a progress bar
    lr_find(learner)
    lr_find(learner, stop=1e-5)
    out, err = capfd.readouterr()
    assert out == "" and seen == [] and not (tmp_path / "checkpoints").exists()
    assert "epoch" not in err and learner.recorder.losses == [] and learner.recorder.rows == []


def test_a_resume_that_waits_is_not_used_up(tmp_path):
    from course_lib.learner import resume_training

    learner = make_learner("momentum", "epoch")
    learner.fit(1, 1e-2)
    save_checkpoint(tmp_path / "a.safetensors", learner)
    resumed = make_learner("momentum", "epoch")
    resume_training(tmp_path / "a.safetensors", resumed)
    waiting = len(resumed.callbacks)
    lr_find(resumed)
    assert len(resumed.callbacks) == waiting
    resumed.fit(2, 1e-2)
    assert resumed.epoch == 2 and len(resumed.recorder.losses) == 2 * len(make_loader("list"))


def test_step_callbacks_take_part_as_copies_that_share_the_model():
    class Clip(Callback):
        def __init__(self, model):
            self.model, self.clipped = model, 0

        def after_backward(self, learner):
            assert learner.model is self.model
            self.clipped += 1
            nn.utils.clip_grad_norm_(self.model.parameters(), 1e-9)

    learner = make_learner("sgd")
    free = lr_find(learner, stop=10.0)
    clip = learner.add_callback(Clip(learner.model))
    clipped = lr_find(learner, stop=10.0)
    assert clip.clipped == 0 and step_callbacks(learner)[0].model is learner.model
    assert clipped.diverged_at is None and max(clipped.losses) < 3  # steps of no length move nothing
    assert free.losses != clipped.losses


def test_a_callback_that_cannot_be_copied_takes_part_all_the_same():
    class Holder(Bump):
        def __init__(self):
            super().__init__()
            self.file = io.TextIOWrapper(io.BytesIO())

    learner = make_learner(callbacks=[Holder()])
    assert len(lr_find(learner, stop=1e-3).lrs) == 100
    assert learner.callbacks[-1].count == 0


def test_a_skipped_step_counts_as_a_batch():
    class Gather(Callback):
        count = 0

        def after_backward(self, learner):
            self.count += 1
            if self.count % 4:
                raise SkipStep

    learner, batches = make_learner(callbacks=[Gather()]), []
    learner.model.register_forward_hook(lambda *a: batches.append(1))
    assert len(lr_find(learner, stop=1e-3).lrs) == len(batches) == 100


def test_what_every_learner_has_only_watches():
    assert step_callbacks(Learner(Grouped(), make_loader("list"), callbacks=[Checkpoint("nowhere")])) == []


def test_a_schedule_on_the_learner_does_not_change_the_sweep():
    class Constant(Callback):
        def before_batch(self, learner):
            for group in learner.optimizer.param_groups:
                group["lr"] = 1e9

    assert lr_find(make_learner(callbacks=[Constant()])).losses == lr_find(make_learner()).losses


# ---------------------------------------------------------------------------------------------- the sweep itself

@QUICK
@given(st.floats(1e-10, 1), st.floats(1.001, 1e10), st.integers(MIN_ITERATIONS, 300))
def test_rates_grow_by_one_factor_from_start_to_stop(start, factor, iterations):
    rates = sweep_lrs(start, start * factor, iterations)
    assert len(rates) == iterations and rates[0] == start and rates[-1] == start * factor
    steps = np.diff(np.log(rates))
    assert np.allclose(steps, math.log(factor) / (iterations - 1), rtol=1e-6, atol=1e-9)


def test_the_sweep_is_the_naive_one():
    """The same losses as a loop written by hand, with the rate of each step in its place."""
    learner = make_learner("momentum", "epoch")
    state, numbers = copy.deepcopy(learner.model.state_dict()), torch.get_rng_state()
    sweep = lr_find(learner, start=1e-4, stop=1.0, iterations=30)

    net, loader = Grouped(), make_loader("epoch")
    net.load_state_dict(state)
    torch.set_rng_state(numbers)
    optimizer = OPTIMIZERS["momentum"](net.parameters(), lr=1)
    losses, batches = [], iter(loader)
    for rate in sweep_lrs(1e-4, 1.0, 30):
        batch = next(batches, None)
        if batch is None:
            batches = iter(loader)
            batch = next(batches)
        loss = F.cross_entropy(net(batch[0]), batch[1])
        losses.append(loss.item())
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert sweep.losses == tuple(losses) and sweep.smoothed == tuple(smooth(losses, 0.98))
    assert sweep.lrs == tuple(sweep_lrs(1e-4, 1.0, 30)) and sweep.diverged_at is None


@pytest.mark.parametrize("rates, expected", [(None, [1, 1]), (0.3, [1, 1]), ([1e-5, 1e-3], [0.01, 1]),
                                             ([2, 1], [2, 1])])
def test_groups_are_swept_together_in_their_ratio(rates, expected):
    used = []

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            used.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    learner = make_learner()
    learner.make_optimizer = Spy
    sweep = lr_find(learner, lrs=rates, stop=1e-2, iterations=20)
    assert np.allclose(sweep.ratios, expected)
    assert np.allclose(used, np.outer(sweep.lrs[:-1], expected), rtol=1e-12)  # the last loss needs no step after it


def test_an_optimiser_with_groups_of_its_own_keeps_their_ratio():
    used = []

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            used.append([group["lr"] for group in self.param_groups])

    def make(groups):
        split = [{"params": [p], "lr": g["lr"] * (2 if p.ndim == 1 else 1)} for g in groups for p in g["params"]]
        return Spy(split)

    learner = make_learner()
    learner.make_optimizer = make
    sweep = lr_find(learner, lrs=[0.1, 1.0], iterations=12, stop=1e-3)
    assert np.allclose(used[3], np.array([0.1, 0.2, 0.2, 0.2, 1, 2]) * sweep.lrs[3])


def test_it_stops_where_the_loss_diverges():
    sweep = lr_find(make_learner("sgd"), stop=1e6)
    assert sweep.diverged_at == sweep.lrs[-1] < 1e6 and len(sweep.lrs) == len(sweep.losses) == len(sweep.smoothed)
    assert has_diverged(sweep.smoothed)
    assert not any(has_diverged(sweep.smoothed[:n]) for n in range(1, len(sweep.lrs)))


@QUICK
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=30))
def test_divergence_of_positive_losses_is_four_times_the_lowest(losses):
    assume(abs(losses[-1] - 4 * min(losses)) > 1e-9 * losses[-1])
    assert has_diverged(losses) == (losses[-1] > 4 * min(losses))


@pytest.mark.parametrize("make", [
    lambda batches: batches[:1],  # one batch
    lambda batches: batches[:2],
    lambda batches: type("Stream", (), {"__iter__": lambda self: iter(batches)})(),  # no length
    lambda batches: type("Endless", (), {"__iter__": lambda self: (batches[i % 4] for i in iter(int, 1))})(),
    lambda batches: type("Old", (), {"__getitem__": lambda self, i: batches[i]})(),
], ids=["one batch", "two batches", "no length", "endless", "getitem alone"])
def test_any_loader_that_can_be_read_again_will_do(make):
    learner = make_learner()
    learner.train_loader = make(make_loader("list"))
    assert len(lr_find(learner, stop=1e-3).lrs) == 100


def test_without_a_validation_loader_and_metrics():
    x, y = make_data()
    assert len(lr_find(Learner(Grouped(), [(x, y)], progress=False), stop=1e-3).lrs) == 100


# ---------------------------------------------------------------------------------------------- refusals

@pytest.mark.parametrize("options, error, words", [
    ({"start": 0}, ValueError, "start = 0"),
    ({"start": -1e-3}, ValueError, "start = -0.001"),
    ({"start": math.nan}, ValueError, "start = nan"),
    ({"start": "1e-7"}, TypeError, "start = '1e-7'"),
    ({"start": True}, TypeError, "start = True"),
    ({"stop": math.inf}, ValueError, "stop = inf"),
    ({"stop": math.nan}, ValueError, "stop = nan"),
    ({"start": 1.0, "stop": 1.0}, ValueError, "smaller than stop"),
    ({"start": 2.0, "stop": 1.0}, ValueError, "smaller than stop"),
    ({"iterations": MIN_ITERATIONS - 1}, ValueError, "too few"),
    ({"iterations": 20.5}, TypeError, "whole number"),
    ({"iterations": True}, TypeError, "whole number"),
    ({"lrs": [1.0, 1.0, 1.0]}, ValueError, "3 learning rates"),
    ({"lrs": [0.0, 1.0]}, ValueError, "above zero"),
    ({"lrs": [math.nan, 1.0]}, ValueError, "above zero"),
    ({"lrs": ["a", "b"]}, TypeError, "number"),
    ({"beta": 1.0}, ValueError, "beta"),
    ({"views": 0}, ValueError, "views"),
])
def test_what_cannot_be_swept_is_refused_before_any_work(options, error, words):
    learner = make_learner(loader="epoch")
    before = snapshot(learner)
    with pytest.raises(error, match=words):
        lr_find(learner, **options)
    assert_same(before, snapshot(learner))


def test_a_generator_is_refused_and_not_read():
    batches = iter(make_loader("list"))
    learner = make_learner()
    for learner.train_loader in (batches, (b for b in make_loader("list"))):
        with pytest.raises(ValueError, match="read only once"):
            lr_find(learner)
        with pytest.raises(ValueError, match="read only once"):
            try_lrs(learner, [1e-3])
    assert len(list(batches)) == 4


def test_an_iterable_that_runs_dry_says_so():
    supply = iter(make_loader("list"))
    learner = make_learner()
    learner.train_loader = type("Once", (), {"__iter__": lambda self: supply})()
    before = snapshot(learner)
    with pytest.raises(ValueError, match="gave no batch"):
        lr_find(learner)
    assert_same(before, snapshot(learner))


@pytest.mark.parametrize("wrong, error", [([], ValueError), (None, TypeError)])
def test_no_training_loader(wrong, error):
    learner = make_learner()
    learner.train_loader = wrong
    with pytest.raises(error):
        lr_find(learner)


def test_a_model_instead_of_a_learner():
    with pytest.raises(TypeError, match="Learner"):
        lr_find(Grouped())


def test_everything_frozen():
    learner = make_learner()
    learner.model.requires_grad_(False)
    with pytest.raises(ValueError, match="frozen"):
        lr_find(learner)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("place, words", [("batch", "the batch holds"), ("weights", "weights that are no"),
                                          ("loss", "loss function")])
def test_a_loss_that_is_no_number_at_once_is_not_blamed_on_the_rate(place, words, value):
    learner = make_learner()
    if place == "batch":
        x, y = make_data()
        learner.train_loader = [(x * value, y)]
    elif place == "weights":
        with torch.no_grad():
            learner.model[4].bias[0] = math.nan
    else:
        learner.loss_fn = lambda p, y: F.cross_entropy(p, y) + value
    before = snapshot(learner)
    with pytest.raises(NonFiniteLossError, match=words):
        lr_find(learner)
    assert_same(before, snapshot(learner))


def test_a_broken_batch_in_the_middle_is_named():
    x, y = make_data()
    learner = make_learner()
    learner.train_loader = [(x, y)] * 5 + [(x * math.nan, y)]
    with pytest.raises(NonFiniteLossError, match="batch 6 of the sweep"):
        lr_find(learner)


def test_a_loss_that_becomes_no_number_later_ends_the_sweep():
    learner, calls = make_learner(), iter(range(200))
    learner.loss_fn = lambda p, y: F.cross_entropy(p, y) * (math.nan if next(calls) == 60 else 1)
    sweep = lr_find(learner)
    assert len(sweep.lrs) == 61 and sweep.diverged_at == sweep.lrs[-1] and math.isnan(sweep.losses[-1])
    rates, losses = sweep.curve()
    assert rates.tolist() == list(sweep.lrs[10:-CUT_END]) and np.isfinite(losses).all()
    assert all(math.isfinite(rate) for rate in suggest_lrs(sweep).values())


def test_a_sweep_that_ends_at_once_has_no_suggestion():
    sweep = lr_find(make_learner("sgd"), start=1e5, stop=1e9)
    for suggest in (suggest_minimum, suggest_steep, suggest_valley, suggest_slide, suggest_lrs):
        with pytest.raises(ValueError, match="Start lower"):
            suggest(sweep)


# ---------------------------------------------------------------------------------------------- suggestions

def as_sweep(losses, start=1e-7, stop=10.0, iterations=None):
    """A recorded curve of which `curve()` is the whole of `losses`: the cut ends are added."""
    count = len(losses)
    if iterations is None:
        iterations = next(n for n in range(MIN_ITERATIONS, 3 * count + 20) if n - n // 10 - CUT_END == count)
    rates = sweep_lrs(start, stop, iterations)
    full = [float(losses[0])] * (iterations // 10) + [float(loss) for loss in losses] + [float(losses[-1])] * CUT_END
    return LRSweep(tuple(rates), tuple(full), tuple(full), iterations)


def fastai_suggestions(sweep):
    """What fastai's `lr_find` would compute from the same record, with its own cuts and its own functions."""
    schedule = pytest.importorskip("fastai.callback.schedule")
    kept = slice(sweep.iterations // 10, -5)
    rates = torch.tensor(sweep.lrs[kept], dtype=torch.float64)
    losses = torch.tensor(sweep.smoothed[kept], dtype=torch.float64)
    if len(bad := torch.nonzero(torch.isnan(losses))):
        rates, losses = rates[:min(bad)], losses[:min(bad)]
    suggest = {"tenth": schedule.minimum, "steep": schedule.steep, "valley": schedule.valley, "slide": schedule.slide}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array_wrap__")  # of NumPy 2, within fastai
        return {name: function(rates, losses, sweep.iterations)[0] for name, function in suggest.items()}


def assert_agrees(sweep):
    ours, theirs = suggest_lrs(sweep), fastai_suggestions(sweep)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert math.isclose(ours[name], theirs[name], rel_tol=1e-12), name


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(arrays(np.float64, st.integers(16, 120), elements=st.floats(0, 10, width=32)))
def test_suggestions_agree_with_fastai_on_any_curve(losses):
    assume(longest_fall(losses.tolist()) != (1, 2))  # see the next test but one
    assert_agrees(as_sweep(losses))


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**6), st.floats(0.0, 0.3), st.floats(-4, 0), st.integers(40, 200))
def test_suggestions_agree_with_fastai_on_curves_as_they_are(seed, noise, wall, iterations):
    """A plain, a slope, a wall, with noise, smoothed."""
    rates = np.array(sweep_lrs(iterations=iterations))
    place = np.log10(rates)
    raw = 1.4 - 0.8 / (1 + np.exp(-2 * (place - wall + 2))) + np.exp(3 * (place - wall))
    raw = np.clip(raw + noise * np.random.default_rng(seed).standard_normal(iterations), 0.01, 50)
    smoothed = smooth(raw.tolist(), 0.98)
    count = next((n for n in range(1, iterations) if has_diverged(smoothed[:n])), iterations)
    assume(count - iterations // 10 - CUT_END >= 16)
    assert_agrees(LRSweep(tuple(rates[:count]), tuple(raw[:count]), tuple(smoothed[:count]), iterations))


def test_suggestions_agree_with_fastai_on_real_sweeps():
    for optimizer in sorted(OPTIMIZERS):
        assert_agrees(lr_find(make_learner(optimizer)))
    learner, calls = make_learner(), iter(range(200))
    learner.loss_fn = lambda p, y: F.cross_entropy(p, y) * (math.nan if next(calls) == 60 else 1)
    assert_agrees(lr_find(learner))


def test_a_curve_that_only_rises_after_its_first_step_gives_its_start():
    """fastai counts back to index -1 there, which Python takes for the end of the curve: the highest rate of all."""
    sweep = as_sweep([2.0, 1.0, *np.linspace(3, 9, 40)])
    assert longest_fall(sweep.curve()[1].tolist()) == (1, 2)
    assert suggest_valley(sweep) == sweep.curve()[0][0]
    assert fastai_suggestions(sweep)["valley"] == sweep.curve()[0][-1]


@QUICK
@given(st.lists(st.integers(0, 12), min_size=1, max_size=10))
def test_the_longest_fall_is_the_longest_of_all_chains(losses):
    chains = [[i for i in range(len(losses)) if number >> i & 1] for number in range(1, 2 ** len(losses))]
    falls = [c for c in chains if all(losses[a] > losses[b] for a, b in zip(c, c[1:], strict=False))]
    longest = max(map(len, falls))
    assert longest_fall(losses) == (min(c[-1] for c in falls if len(c) == longest), longest)


@QUICK
@given(arrays(np.float64, st.integers(4, 60), elements=st.floats(0, 5)))
def test_every_suggestion_is_a_rate_of_the_curve(losses):
    sweep = as_sweep(losses)
    rates = set(sweep.curve()[0].tolist())
    assert {suggest_steep(sweep), suggest_valley(sweep), suggest_slide(sweep), suggest_minimum(sweep, 1)} <= rates
    left, right = slide_window(losses)
    assert 0 <= left < right < len(losses)


def test_what_is_cut_off():
    sweep = LRSweep(tuple(sweep_lrs()), tuple(range(1, 101)), tuple(range(1, 101)), 100)
    assert sweep.curve()[1].tolist() == list(range(11, 96))  # ten of a hundred asked for, and five at the end
    stopped = LRSweep(sweep.lrs[:50], sweep.losses[:50], sweep.smoothed[:50], 100, diverged_at=sweep.lrs[49])
    assert stopped.curve()[1].tolist() == list(range(11, 46))
    assert repr(stopped) == f"LRSweep(50 of 100 rates from 1.0e-07, the loss diverged at {sweep.lrs[49]:.1e})"


def test_fastai_is_no_dependency():
    from course_lib.lr_finder import explorer, finder, trial

    for module in (finder, trial, explorer):
        assert "import fastai" not in inspect.getsource(module) and "from fastai" not in inspect.getsource(module)


# --------------------------------------------------------------------------------- real runs, plots, explorer

@pytest.fixture(scope="module")
def sweep_and_runs():
    learner = make_learner()
    return lr_find(learner), try_lrs(learner, [1e-4, 1e-2, 1.0], epochs=3)


def test_runs_differ_in_their_rate_alone():
    learner = make_learner("momentum", "epoch")
    before = snapshot(learner)
    runs = try_lrs(learner, [1e-3, 1e-1, 1e-3], epochs=2)
    assert_same(before, snapshot(learner))
    assert runs[0].losses == runs[2].losses and runs[0].losses[0] == runs[1].losses[0]
    learner.fit(2, 1e-3)
    assert tuple(learner.recorder.losses) == runs[0].losses
    assert learner.results["valid_loss"] == runs[0].results["valid_loss"] and "accuracy" in runs[0].results


def test_a_run_that_becomes_no_number_is_an_answer_too():
    learner = make_learner("sgd")
    learner.loss_fn, learner.metrics = nn.MSELoss(), {}
    learner.train_loader = learner.valid_loader = [(x, F.one_hot(y, 3).float()) for x, y in make_loader("list")]
    good, bad = try_lrs(learner, [1e-3, 1e30], epochs=4)
    assert good.results and not bad.results and bad.losses


@pytest.mark.parametrize("wrong", [0, -1.0, math.nan])
def test_a_run_at_no_rate_is_refused(wrong):
    with pytest.raises(ValueError, match="above zero"):
        try_lrs(make_learner(), [1e-3, wrong])
    with pytest.raises(ValueError, match="at least 1"):
        try_lrs(make_learner(), [1e-3], epochs=0)


def test_plots_draw_and_give_axes(sweep_and_runs):
    import matplotlib.pyplot as plt

    sweep, runs = sweep_and_runs
    ax = plt.subplots()[1]
    assert plot_lr_sweep(sweep, ax) is ax and ax.get_xscale() == "log" and ax.get_xlabel() == "learning rate"
    shown = [text.get_text().split()[0] for text in ax.get_legend().get_texts()]
    assert shown == ["smoothed", "minimum", "tenth", "steep", "valley", "slide"]
    low, high = ax.get_ylim()
    assert low < min(sweep.curve()[1]) and high < 20  # the wall does not flatten the rest
    axes = plot_lr_run(sweep, runs, 5e-3)
    assert "1.0e-02" in axes[1].get_title() and "5.0e-03" in axes[0].get_title()
    plt.close("all")


def test_a_sweep_too_short_for_a_suggestion_can_be_drawn():
    import matplotlib.pyplot as plt

    sweep = lr_find(make_learner("sgd"), start=1e5, stop=1e9)
    ax = plot_lr_sweep(sweep)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["smoothed loss"]
    plt.close("all")


def test_the_nearest_run_is_nearest_by_factor():
    runs = [LRRun(rate, (1.0,), {}) for rate in (1e-3, 1e-2, 1e-1)]
    assert _nearest_run(runs, 4e-2).lr == 1e-1 and _nearest_run(runs, 2.9e-2).lr == 1e-2


def test_the_slider_changes_the_picture(sweep_and_runs):
    pytest.importorskip("ipywidgets")
    explorer = _make_explorer(*sweep_and_runs, lr=1e-2)
    slider, picture = explorer.children
    first = bytes(picture.value)
    slider.value = 1e-4
    second = bytes(picture.value)
    slider.value = 1e-2
    assert first.startswith(b"\x89PNG") and second != first and len(first) < 100_000
    assert abs(slider.min + 7) < 1e-9 and slider.value == pytest.approx(1e-2)
    explorer.close()


@pytest.fixture
def displayed(monkeypatch):
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda *things, **options: shown.extend(things))
    return shown


def test_without_a_kernel_the_explorer_is_a_picture(sweep_and_runs, displayed):
    assert not is_interactive()
    explore_lrs(*sweep_and_runs)
    assert type(displayed[0]).__name__ == "Image" and displayed[0].data.startswith(b"\x89PNG")


def test_a_live_explorer_carries_its_picture(sweep_and_runs, displayed):
    explore_lrs(*sweep_and_runs, live=True)
    data = displayed[0]
    assert "application/vnd.jupyter.widget-view+json" in data and data["image/png"].startswith("iVBOR")


@pytest.mark.parametrize("kept, expected", [(False, True), (True, False)])
def test_a_run_whose_outputs_are_kept_has_nobody_who_looks(monkeypatch, kept, expected):
    IPython = pytest.importorskip("IPython")
    monkeypatch.setattr(IPython, "get_ipython", lambda: type("Shell", (), {"kernel": object()})())
    monkeypatch.delenv("COURSELIB_RESULTS", raising=False)
    if kept:
        monkeypatch.setenv("COURSELIB_RESULTS", os.devnull)
    assert is_interactive() is expected


# ---------------------------------------------------------------------------------------------- on kept features

@pytest.fixture
def image_learner():
    pictures = np.random.default_rng(0).integers(0, 256, (40, 40, 40, 3), dtype=np.uint8)
    torch.manual_seed(0)
    classifier = create_classifier("efficientnet_lite0", 3, pretrained=False)
    train_last(classifier, 0)
    transform = BatchTransform(32, (0.5,) * 3, (0.5,) * 3, Augmentation())
    loaders = [ImageLoader(pictures, np.arange(40) % 3, rows, transform, 8, shuffle=rows[0] == 0, prefetch=0, epoch=2)
               for rows in (np.arange(32), np.arange(32, 40))]
    return Learner(classifier, *loaders, metrics=[accuracy], progress=False)


def test_a_frozen_body_is_swept_on_kept_features(image_learner):
    said, calls = [], []
    image_learner.model.body.register_forward_hook(lambda *a: calls.append(1))
    before = snapshot(image_learner)
    sweep = lr_find(image_learner, echo=said.append)
    assert_same(before, snapshot(image_learner))
    assert len(said) == 1 and "features" in said[0] and len(calls) < 20 < len(sweep.lrs)
    assert isinstance(image_learner.train_loader, ImageLoader)


def test_kept_features_can_be_switched_off(image_learner):
    said, calls = [], []
    image_learner.model.body.register_forward_hook(lambda *a: calls.append(1))
    sweep = lr_find(image_learner, keep_features=False, iterations=12, stop=1e-5, echo=said.append)
    assert said == [] and len(calls) == len(sweep.lrs)


def test_on_plain_images_kept_features_change_nothing_but_the_time(image_learner):
    from dataclasses import replace

    plain = replace(image_learner.train_loader.transform, augmentation=None)
    image_learner.train_loader = replace(image_learner.train_loader, transform=plain)
    image_learner.model.head[-2].p = 0.0  # dropout: it would draw other numbers
    live = lr_find(image_learner, keep_features=False, iterations=20, stop=1e-2)
    kept = lr_find(image_learner, iterations=20, stop=1e-2, echo=lambda text: None)
    assert np.allclose(live.losses, kept.losses, rtol=1e-3) and live.lrs == kept.lrs


def test_an_error_on_kept_features_leaves_no_trace(image_learner):
    image_learner.fit(1)
    image_learner.add_callback(FailAt("after_step", 7, KeyboardInterrupt()))
    FailAt.takes_features = True
    try:
        before = snapshot(image_learner)
        with pytest.raises(KeyboardInterrupt):
            lr_find(image_learner, echo=lambda text: None)
        assert_same(before, snapshot(image_learner))
    finally:
        del FailAt.takes_features


def test_ratios_need_the_groups_of_the_whole_classifier(image_learner):
    assert group_ratios(image_learner, [1e-6, 1e-5, 1e-4])[0] == pytest.approx(0.01)
    sweep = lr_find(image_learner, lrs=[0.01, 0.1, 1], echo=lambda text: None)
    assert sweep.ratios == (0.01, 0.1, 1.0)
    with pytest.raises(ValueError, match="2 learning rates"):
        lr_find(image_learner, lrs=[0.1, 1])


class WarmUp(Callback):
    """Skips the first three steps, by a count of its own."""

    def __init__(self):
        self.count = 0

    def after_backward(self, learner):
        self.count += 1
        if self.count <= 3:
            raise SkipStep


def test_every_rate_starts_with_the_callbacks_as_they_were():
    warm = WarmUp()
    learner = make_learner(callbacks=[warm])
    once = try_lrs(learner, [1e-2])[0]
    twice = try_lrs(learner, [1e-2, 1e-2])
    assert once.losses == twice[0].losses == twice[1].losses and warm.count == 0


@pytest.mark.parametrize("rates", [1e-3, []])
def test_rates_to_try_are_a_list(rates):
    with pytest.raises(ValueError, match="list of learning rates"):
        try_lrs(make_learner(), rates)
