"""What is handed to the learner's helpers, the finder, schedules, transfer and tricks: right, or the error names it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from odd import drawn, few, numbers, odd, told, words
from torch import nn

from course_lib.learner import (
    Checkpoint,
    Learner,
    Recorder,
    load_checkpoint,
    load_weights,
    plot_losses,
    preserved,
    resume_training,
    save_checkpoint,
    save_weights,
    smooth,
)
from course_lib.learner.features import FeatureLoader, cached_features
from course_lib.learner.memory import find_batch_size
from course_lib.learner.strategy import make_adamw
from course_lib.lr_finder import (
    LRSweep,
    explore_lrs,
    plot_lr_sweep,
    suggest_lrs,
    suggest_minimum,
    suggest_slide,
    suggest_steep,
    suggest_valley,
)
from course_lib.lr_finder.explorer import LRRun
from course_lib.schedules import plot_lrs, plot_schedule
from course_lib.transfer import fine_tune, fit_one_cycle, freeze, unfreeze
from course_lib.tricks import FlipTTA

IMAGES, CLASSES = torch.randn(6, 3, 4, 4), torch.arange(6) % 3


class Net(nn.Sequential):
    def parameter_groups(self):
        return [list(self[0].parameters()), list(self[4].parameters())]


def net():
    torch.manual_seed(0)
    return Net(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def make(**options):
    return Learner(net(), [(IMAGES, CLASSES)], [(IMAGES, CLASSES)], progress=False, **options)


@pytest.fixture(scope="module")
def trained():
    learner = make()
    learner.fit(3, [1e-3, 1e-2])
    return learner


def not_a(*kinds):
    return odd.filter(lambda value: not isinstance(value, kinds))


@pytest.mark.slow
@few
@given(value=odd)
def test_plots_of_a_training_show_what_was_recorded(value, trained):
    assert told(lambda: plot_losses(value), "recorder") is None
    assert told(lambda: plot_schedule(value), "recorder") is None
    ax = told(lambda: plot_losses(trained.recorder, beta=value), "beta")
    if ax is not None:
        assert ax.lines[0].get_ydata().tolist() == trained.recorder.losses
        assert ax.lines[1].get_ydata().tolist() == smooth(trained.recorder.losses, float(value))
    left, right = plot_schedule(trained)
    assert [line.get_ydata().tolist() for line in left.lines] == [[1e-3] * 3, [1e-2] * 3]
    assert right.lines[0].get_ydata().tolist() == trained.recorder.momenta


@few
@given(name=st.sampled_from(["rows", "losses", "lrs", "momenta"]), value=odd)
def test_a_recorder_takes_back_what_it_gave(name, value, trained):
    recorder, state = Recorder(), trained.recorder.state()
    recorder.load_state(state)
    assert recorder.state() == state
    told(lambda: recorder.load_state(value), "state")
    told(lambda: recorder.load_state({**state, name: value}), f"state['{name}']")
    if not isinstance(value, (list, tuple)):
        assert recorder.state() == state  # refused whole


json_values = st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()),
                           lambda part: st.one_of(st.lists(part, max_size=2),
                                                  st.dictionaries(st.text(), part, max_size=2)), max_leaves=4)


@pytest.mark.slow
@few
@given(metadata=st.dictionaries(st.text(), json_values, max_size=3), value=odd)
def test_a_file_gives_back_weights_and_metadata(metadata, value, tmp_path_factory):
    path, model = tmp_path_factory.mktemp("w") / "w.safetensors", net()
    save_weights(path, model, metadata)
    tensors, found = load_checkpoint(path)
    assert found == metadata and all(torch.equal(tensors[name], t) for name, t in model.state_dict().items())
    assert told(lambda: save_weights(path, value), "model") is None
    assert told(lambda: load_weights(path, value), "model") is None
    told(lambda: load_weights(path, net(), classes=value), "classes")
    told(lambda: save_weights(path, model, value), "metadata")
    if isinstance(value, dict) and not any(isinstance(v, float) and math.isnan(v) for v in value.values()):
        plain = all(isinstance(k, str) for k in value) and not any(isinstance(v, (np.generic, torch.Tensor)) for v in
                                                                   value.values())
        assert load_checkpoint(path)[1] == (value if plain else metadata)


@pytest.mark.slow
@few
@given(value=odd)
def test_paths_and_learners_of_checkpoints(value, trained, tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("c")
    monkeypatch.chdir(folder)
    for call in (lambda: save_weights(value, net()), lambda: save_checkpoint(value, trained),
                 lambda: load_checkpoint(value)):
        try:
            told(call, "path")
        except OSError as error:  # there is no such file, or none can have that name
            assert "There is no checkpoint" in str(error) or "could not be written" in str(error)
    save_checkpoint(folder / "it", trained)
    for call in (lambda: save_checkpoint("it", value), lambda: resume_training("it", value)):
        assert told(call, "learner") is None
    told(lambda: save_checkpoint(folder / "it2", trained, value), "metadata")
    told(lambda: Checkpoint(value), "folder")
    told(lambda: Checkpoint(folder, value), "metadata")
    kept = load_checkpoint("it")[0]
    assert all(torch.equal(kept[name], t) for name, t in trained.model.state_dict().items())


def within(manager):
    with manager as found:
        return found


@few
@given(value=odd)
def test_trying_leaves_a_learner_as_it_was(value, trained):
    assert told(lambda: within(preserved(value)), "learner") is None
    assert told(lambda: within(cached_features(value)), "learner") is None
    for name in ("views", "memory_limit"):
        found = told(lambda name=name: within(cached_features(trained, **{name: value})), name)
        assert found in (None, False)
    before = {name: t.clone() for name, t in trained.model.state_dict().items()}
    with preserved(trained):
        trained.fit(1, 0.5)
    assert all(torch.equal(before[name], t) for name, t in trained.model.state_dict().items())


@pytest.mark.slow
@few
@given(value=odd)
def test_a_batch_size_is_one_of_the_halves(value, trained):
    assert told(lambda: find_batch_size(value), "learner") is None
    largest = told(lambda: find_batch_size(trained, 8 if isinstance(value, int) and value > 99 else value), "largest")
    assert largest is None or largest == (8 if value > 99 else int(value))
    try:
        assert told(lambda: find_batch_size(trained, 4, memory=value), "memory") in (None, 1, 2, 4)
    except RuntimeError as error:
        assert "Not even one image" in str(error) and float(value) < 1e4


@pytest.mark.slow
@few
@given(value=odd, decay=odd)
def test_the_default_optimiser_is_adamw(value, decay):
    assert told(lambda: make_adamw(value), "groups") is None
    assert told(lambda: make_adamw([{"params": value}]), "groups") is None or len(value) == 0
    ours, theirs = net(), net()
    for model in (ours, theirs):
        model(IMAGES).square().sum().backward()
    made = told(lambda: make_adamw([{"params": ours.parameters(), "lr": 0.1}], decay), "weight_decay")
    if made is not None and float(decay) < 1e30:
        made.step()
        torch.optim.AdamW(theirs.parameters(), 0.1, weight_decay=float(decay)).step()
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.allclose(one, other, atol=1e-6, equal_nan=True)


@few
@given(name=st.sampled_from(["features", "targets", "batch_size", "seed", "epoch", "device"]), value=odd,
       shuffle=st.booleans())
def test_a_feature_loader_gives_every_row_with_its_target(name, value, shuffle):
    rows = torch.arange(12.0).view(2, 6, 1)
    given_ = {"features": rows, "targets": CLASSES, "batch_size": 4, "shuffle": shuffle, "drop_last": False,
              name: value}
    loader = told(lambda: FeatureLoader(**given_), name)
    if loader is not None:
        x, y = (torch.cat(parts) for parts in zip(*loader, strict=True))
        assert sorted(x.flatten().long().remainder(6).tolist()) == list(range(6))
        assert torch.equal(y, CLASSES[x.flatten().long() % 6])


# ---- The finder of learning rates

losses = st.one_of(st.floats(0.01, 10), st.just(math.inf))


@few
@given(values=st.lists(losses, min_size=8, max_size=30), value=odd)
def test_suggestions_are_on_the_curve(values, value):
    lrs = tuple(1e-5 * 1.5**i for i in range(len(values)))
    sweep = LRSweep(lrs, tuple(values), tuple(values), len(values))
    curve = np.array(values[len(values) // 10:-5])
    found = told(lambda: suggest_lrs(sweep), "too few") if np.isfinite(curve).all() else None
    if found:
        assert found["tenth"] == lrs[len(values) // 10 + int(curve.argmin())] / 10
        assert all(found[name] in lrs for name in ("steep", "valley", "slide"))
        divided = told(lambda: suggest_minimum(sweep, value), "divide")
        assert divided is None or divided == pytest.approx(found["tenth"] * 10 / float(value))
    for call in (suggest_lrs, suggest_minimum, suggest_steep, suggest_valley, suggest_slide, plot_lr_sweep):
        assert told(lambda call=call: call(value), "sweep") is None
    for name in ("lrs", "losses", "smoothed", "iterations"):
        given_ = {"lrs": lrs, "losses": tuple(values), "smoothed": tuple(values), "iterations": 9, name: value}
        made = told(lambda given_=given_: LRSweep(**given_), name, "lrs has")
        assert made is None or name == "iterations" and made.iterations == value


@pytest.mark.slow
@few
@given(value=odd)
def test_the_explorer_shows_the_nearest_run(value, monkeypatch):
    shown = []
    monkeypatch.setattr("course_lib.lr_finder.explorer.show_png", shown.append)
    lrs = tuple(1e-5 * 2.0**i for i in range(20))
    sweep = LRSweep(lrs, tuple(range(40, 20, -1)), tuple(range(40, 20, -1)), 20)
    runs = [LRRun(lr, (1.0, 0.5), {"valid_loss": 0.5}) for lr in (1e-4, 1e-2)]
    assert told(lambda: explore_lrs(value, runs), "sweep") is None
    told(lambda: explore_lrs(sweep, value), "runs", "no run to show")
    assert not shown
    told(lambda: explore_lrs(sweep, runs, value), "lr")
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool) or torch.is_tensor(
        value) and value.ndim == 0 and value.dtype != torch.bool
    works = value is None or number and abs(value) < 10**300 and 0 < float(value) < math.inf
    assert len(shown) == works and (not shown or shown[0].startswith(b"\x89PNG"))


@pytest.mark.slow
@few
@given(lrs=st.dictionaries(words, st.lists(st.floats(0, 1), min_size=1, max_size=4), min_size=1, max_size=3), value=odd)
@pytest.mark.filterwarnings("ignore:Glyph")
def test_schedules_are_drawn_as_they_are(lrs, value):
    axes = told(lambda: drawn(plot_lrs(lrs, 2)), "lrs")
    for ax, (name, rates) in zip(axes.flat, lrs.items(), strict=False):
        assert ax.lines[0].get_ydata().tolist() == rates and ax.get_title().replace("\\$", "$").lstrip("\u200b") == name
    told(lambda: plot_lrs(value), "lrs")
    columns = told(lambda: plot_lrs(lrs, value), "columns")
    assert columns is None or columns.shape[1] == value


# ---- Transfer and tricks

@few
@given(value=odd)
def test_freezing_takes_what_has_groups(value):
    for call in (freeze, unfreeze, lambda v: fine_tune(v, 1), lambda v: fit_one_cycle(v, 1)):
        assert told(lambda call=call: call(value), "earner") is None
    model = net()
    freeze(model)
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True]
    unfreeze(model)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.slow
@few
@given(name=st.sampled_from(["epochs", "base_lr", "freeze_epochs", "lr_mult", "pct_start", "div", "views",
                              "callbacks"]), value=odd)
def test_fine_tuning_trains_so_many_epochs_at_such_rates(name, value):
    learner, before = make(), net().state_dict()
    if name in ("epochs", "freeze_epochs") and isinstance(value, int) and value > 9:
        value = 2
    asked = {"epochs": 1, "base_lr": 1e-3, "freeze_epochs": 1, "lr_mult": 100, name: value}
    try:
        told(lambda: fine_tune(learner, **asked), name, "allback", "learning rate")
    except ArithmeticError as error:  # a rate that is too high
        assert name in ("base_lr", "lr_mult") and "became" in str(error)
        return
    if learner.recorder.rows:
        assert len(learner.recorder.rows) == asked["epochs"] + asked["freeze_epochs"]
        assert max(lrs[-1] for lrs in learner.recorder.lrs) <= float(asked["base_lr"]) * (1 + 1e-6)
    else:
        assert all(torch.equal(before[key], t) for key, t in learner.model.state_dict().items())


@few
@given(axes=st.lists(st.lists(st.integers(2, 3), min_size=1, max_size=2, unique=True), max_size=3), value=odd,
       number=numbers)
def test_flip_tta_is_the_mean_of_the_probabilities(axes, value, number):
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    views = [IMAGES, *(IMAGES.flip(some) for some in axes)]
    mean = torch.stack([model(view).softmax(1) for view in views]).mean(0)
    assert torch.allclose(FlipTTA(model, axes)(IMAGES).exp(), mean, atol=1e-6)
    assert told(lambda: FlipTTA(value, [[3]]), "model") is None
    made = told(lambda: FlipTTA(model, value), "axes")
    assert made is None or len(value) == 0
    made = told(lambda: FlipTTA(model, [[number]]), "axes")
    assert made is None or made.axes in ([[2]], [[3]])
