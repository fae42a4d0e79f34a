"""Schedules of the learning rate: they are torch's, refuse bad input, are drawn, and survive an interruption."""

import math
from functools import partial

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from course_lib.learner import Callback, Checkpoint, Learner, resume_training
from course_lib.schedules import (
    SCHEDULES,
    OneCycle,
    Schedule,
    as_callbacks,
    make_schedule,
    plot_lrs,
    plot_schedule,
    schedule_lrs,
)

matplotlib.use("Agg")


def batches(count: int = 4) -> list:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(8, 5, generator=generator), torch.randint(3, (8,), generator=generator))
            for _ in range(count)]


def small_learner(epochs: int, callbacks=(), lr: float = 0.1, make_optimizer=torch.optim.SGD) -> Learner:
    torch.manual_seed(0)
    learner = Learner(nn.Linear(5, 3), batches(), batches(2), lr=lr, progress=False, make_optimizer=make_optimizer)
    if epochs:
        learner.fit(epochs, callbacks=callbacks)
    return learner


# ---- every schedule

@pytest.mark.parametrize("name", [n for n in SCHEDULES if n != "plateau"])
def test_the_rates_of_a_fit_are_those_of_the_schedule(name, recwarn):
    learner = small_learner(5, [Schedule(name)])
    assert [rate for rate, in learner.recorder.lrs] == pytest.approx(schedule_lrs(name, 20, 0.1))
    assert not [w for w in recwarn if "lr_scheduler" in str(w.message)]


def test_plateau_listens():
    class Losses(Schedule):
        order = 39

        def __init__(self):
            self.values = iter([1.0, 0.9, 0.95, 0.8, 0.85, 0.86])

        def before_fit(self, learner): ...
        def after_batch(self, learner): ...
        def after_epoch(self, learner):
            learner.results["valid_loss"] = next(self.values)
        def state(self):
            return {}
    learner = small_learner(6, [Losses(), Schedule("plateau", gamma=0.5)])
    assert [rate for rate, in learner.recorder.lrs[::4]] == [0.1, 0.1, 0.1, 0.05, 0.05, 0.025]
    with pytest.raises(ValueError, match="validation loader"):
        Learner(nn.Linear(5, 3), batches(), progress=False).fit(1, callbacks=[Schedule("plateau")])


@pytest.mark.parametrize("name, options", [
    ("exponential", {"every": 0}), ("exponential", {"every": -3}), ("exponential", {"every": 2.5}),
    ("cyclical", {"cycles": 0}), ("step", {"gamma": -1}), ("step", {"gamma": True}), ("plateau", {"patience": -1}),
    ("warm-up", {"pct_start": 2}), ("one-cycle", {"pct_start": 0})])
def test_options_of_schedules_make_sense(name, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} = .* must .* of the schedule '{name}'"):
        Schedule(name, **options)


def test_schedules_in_closed_form():
    steps = 60
    stairs = schedule_lrs("exponential", steps, every=30, gamma=0.92)
    assert stairs[:30] == [1.0] * 30 and stairs[30:] == pytest.approx([0.92] * 30)
    assert schedule_lrs("step", steps) == pytest.approx([1.0] * 20 + [0.1] * 20 + [0.01] * 20)
    wave = [(1 + math.cos(math.pi * i / steps)) / 2 for i in range(steps)]
    assert schedule_lrs("cosine", steps) == pytest.approx(wave)
    cyclical = schedule_lrs("cyclical", steps)
    assert min(cyclical) == pytest.approx(0.1) and max(cyclical) == pytest.approx(1.0)
    assert [i for i in range(1, 59) if cyclical[i - 1] < cyclical[i] > cyclical[i + 1]] == [10, 30, 50]
    warm = schedule_lrs("warm-up", steps)
    assert warm[0] == pytest.approx(0.01) and warm.index(max(warm)) == 6 and warm[-1] == pytest.approx(1 / 54)
    for steps in range(1, 13):
        assert all(len(schedule_lrs(name, steps)) == steps for name in SCHEDULES if name != "plateau")


@pytest.mark.parametrize("action, words", [
    (lambda: Schedule("cosin"), "Did you mean 'cosine'"), (lambda: Schedule("step", every=3), "no option 'every'"),
    (lambda: schedule_lrs("plateau", 5), "depend on the validation losses"),
    (lambda: make_schedule("cosine", None, 0), "at least 1"),
    (lambda: Learner(nn.Linear(5, 3), (b for b in batches()), progress=False).fit(1, callbacks=[Schedule("cosine")]),
     "has no length")])
def test_schedules_refuse(action, words):
    with pytest.raises(ValueError, match=words):
        action()


@pytest.mark.parametrize("name", SCHEDULES)
def test_an_interrupted_fit_goes_on_along_its_schedule(name, tmp_path):
    class Stop(Schedule):
        order = 99

        def __init__(self): ...
        def before_fit(self, learner): ...
        def after_batch(self, learner): ...
        def after_epoch(self, learner):
            if learner.epoch == 2:
                raise KeyboardInterrupt
        def state(self):
            return {}

    def learner(*more):
        torch.manual_seed(0)
        return Learner(nn.Linear(5, 3), batches(), batches(2), lr=0.1, progress=False, make_optimizer=torch.optim.SGD,
                       callbacks=[Schedule(name), Checkpoint(tmp_path / "c"), *more])
    straight = learner()
    straight.fit(5)
    stopped = learner(Stop())
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(5)
    going_on = learner()
    resume_training(tmp_path / "c" / "last.safetensors", going_on)
    going_on.fit(5)
    assert going_on.recorder.lrs == straight.recorder.lrs
    torch.testing.assert_close(going_on.model.weight, straight.model.weight, rtol=0, atol=0)


# ---- one cycle

@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_a_cycle_of_few_steps_reaches_no_division_by_zero(steps):
    learner = Learner(nn.Linear(2, 2), [(torch.randn(4, 2), torch.tensor([0, 1, 0, 1]))] * steps, progress=False)
    learner.fit(1, 1e-2, callbacks=[OneCycle()])  # pct_start = 0.25: with 4 steps the rise has no step of its own
    assert len(learner.recorder.lrs) == steps and all(0 < rate[0] <= 1e-2 for rate in learner.recorder.lrs)


def test_an_optimiser_without_momentum_keeps_none():
    sgd = lambda momentum: lambda groups: torch.optim.SGD(groups, momentum=momentum)
    for momentum, expected in ((0, {0.0}), (0.9, None)):
        learner = small_learner(1, [OneCycle()], 1e-3, make_optimizer=sgd(momentum))
        seen = set(learner.recorder.momenta)
        assert seen == expected if expected else len(seen) > 2 and max(seen) <= 0.95 and min(seen) >= 0.85


def test_gathered_gradients_do_not_stretch_the_cycle():
    from course_lib.learner import SkipStep

    class EverySecond(Callback):
        def after_backward(self, learner):
            if learner.batch_index % 2 == 0:
                raise SkipStep

    plain, gathered = small_learner(2, [OneCycle()]), small_learner(0)
    with pytest.warns(UserWarning, match="lr_scheduler.step"):  # torch's own, about the first step
        gathered.fit(2, callbacks=[OneCycle(), EverySecond()])
    assert plain.recorder.lrs[-1] == [group["lr"] for group in gathered.optimizer.param_groups]


def test_one_cycle_must_know_how_long_it_is():
    def stream():
        yield torch.randn(4, 2), torch.tensor([0, 1, 0, 1])

    class Stream:
        def __iter__(self):
            return stream()

    with pytest.raises(ValueError, match="has no length"):
        Learner(nn.Linear(2, 2), Stream(), progress=False).fit(1, 1e-3, callbacks=[OneCycle()])


def test_the_schedule_is_drawn_for_every_group():
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 3))
    model.parameter_groups = lambda: [list(layer.parameters()) for layer in model]
    learner = Learner(model, batches(), progress=False)
    with pytest.raises(ValueError, match="Train first"):
        plot_schedule(learner.recorder)
    learner.fit(1, [1e-5, 1e-4, 1e-3], callbacks=[OneCycle()])
    rate_axes, momentum_axes = plot_schedule(learner.recorder)
    curves = [list(lrs) for lrs in zip(*learner.recorder.lrs, strict=True)]
    assert [list(line.get_ydata()) for line in rate_axes.lines] == curves
    assert list(momentum_axes.lines[0].get_ydata()) == learner.recorder.momenta


def test_one_cycle_as_a_callback_of_a_plain_fit():
    learner = small_learner(0)
    learner.add_callback(OneCycle(div=2))
    learner.fit(1, 1e-2)
    assert math.isclose(learner.recorder.lrs[0][0], 5e-3)


@pytest.mark.parametrize("momenta", [0.9, (0.9,), (0.9, "x"), (0.9, math.nan), (0.9, 1.0)])
def test_momenta_must_be_two_numbers(momenta):
    with pytest.raises(ValueError, match="momenta"):
        OneCycle(momenta=momenta)


def test_both_one_cycles_share_their_shape_but_not_their_end():
    cycle = small_learner(5, [OneCycle()]).recorder.lrs
    plain = [[lr] for lr in schedule_lrs("one-cycle", 20, 0.1)]
    assert cycle[:5] == plain[:5] and cycle[-1][0] == pytest.approx(1e-6) and plain[-1][0] == pytest.approx(4e-7)
    same = schedule_lrs("one-cycle", 20, 0.1, div_final=1e5, momenta=(0.95, 0.85))  # SGD alone has no momentum to move
    assert [[lr] for lr in same] == cycle


@pytest.mark.parametrize("make", [OneCycle, partial(Schedule, "one-cycle")])
def test_a_cycle_resumes_bit_for_bit_with_its_momentum(make, tmp_path):
    class Stop(Callback):
        def before_epoch(self, learner):
            if learner.epoch == 2:
                raise KeyboardInterrupt

    straight = small_learner(4, [make()], make_optimizer=None)
    with pytest.raises(KeyboardInterrupt):
        small_learner(4, [make(), Checkpoint(tmp_path), Stop()], make_optimizer=None)
    resumed = small_learner(0, make_optimizer=None)
    resume_training(tmp_path / "last.safetensors", resumed)
    resumed.fit(4, callbacks=[make()])
    assert resumed.recorder.lrs == straight.recorder.lrs and resumed.recorder.momenta == straight.recorder.momenta
    assert torch.equal(resumed.model.weight, straight.model.weight)


def test_small_plots_by_name():
    assert plot_lrs({"a": [1, 2], "b": [2, 1]}).shape == (1, 4)
    plt.close("all")


def test_callbacks_are_listed_or_refused():
    cycle = OneCycle()
    assert as_callbacks(cycle) == as_callbacks(one for one in [cycle]) == [cycle]
    with pytest.raises(TypeError, match="is no Callback"):
        as_callbacks([OneCycle])
