"""Freezing, rates, one cycle, fine-tuning: against PyTorch's own scheduler, the recipe's own numbers, and bad input."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torchvision.models import ResNet18_Weights, resnet18

from course_lib.data import Augmentation, BatchTransform, ImageLoader
from course_lib.learner import Callback, Checkpoint, Learner, load_weights, resume_training
from course_lib.models import Classifier, create_classifier, create_head
from course_lib.transfer import (
    EarlyStopping,
    fine_tune,
    fit_one_cycle,
    freeze,
    freeze_to,
    lrs_for,
    plot_schedule,
    scale_head_lr,
    spread_lrs,
    unfreeze,
)

PICTURES = np.random.default_rng(0).integers(0, 256, (26, 40, 40, 3), dtype=np.uint8)


class Body(nn.Sequential):
    """Small, with batch normalisation and dropout in every block: what should stand still would be seen to move."""

    def __init__(self):
        block = lambda a, b: nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU(), nn.Dropout(0.2))
        super().__init__(block(3, 8), block(8, 8), block(8, 16), block(16, 16))


def make_loader(**options) -> ImageLoader:
    transform = BatchTransform(32, (0.5,) * 3, (0.5,) * 3, Augmentation())
    options = {"shuffle": True, "prefetch": 0} | options
    return ImageLoader(PICTURES, np.arange(26) % 3, np.arange(20), transform, 4, **options)


def make_learner(seed: int = 0, dropout: float = 0.0, **options) -> Learner:
    torch.manual_seed(seed)
    classifier = Classifier(Body(), create_head(16, 3, dropout=dropout))
    valid = replace(make_loader(shuffle=False), indices=np.arange(20, 26))
    valid.transform = replace(valid.transform, augmentation=None)
    return Learner(classifier, make_loader(), valid, **{"progress": False} | options)


def weights(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in learner.model.state_dict().items()}


def changed(before: dict, after: dict) -> set[str]:
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


HEAD, LATE, ALL = [False, False, True], [False, True, True], [True, True, True]


@pytest.mark.parametrize("first, learning", [(-1, HEAD), (2, HEAD), (1, LATE), (-2, LATE), (0, ALL), (-3, ALL)])
def test_freeze_to_freezes_the_groups_before(first, learning):
    learner = make_learner()
    freeze_to(learner, first)
    for group, learns in zip(learner.model.parameter_groups(), learning, strict=True):
        assert group and all(p.requires_grad == learns for p in group)
    unfreeze(learner.model)  # a model is as good as its learner
    assert all(p.requires_grad for p in learner.model.parameters())
    freeze(learner.model)
    assert [p.requires_grad for p in learner.model.head.parameters()] == [True, True]
    assert not any(p.requires_grad for p in learner.model.body.parameters())


@pytest.mark.parametrize("first", [3, -4, 1.0, None, True, "head"])
def test_freeze_to_refuses_what_names_no_group(first):
    learner = make_learner()
    with pytest.raises(ValueError, match="3 parameter groups"):
        freeze_to(learner, first)
    assert all(p.requires_grad for p in learner.model.parameters())


@pytest.mark.parametrize("act", [freeze, unfreeze, lambda x: fine_tune(x, 1)])
def test_what_has_no_body_cannot_be_unfrozen(act):
    loader = [(torch.randn(4, 2), torch.tensor([0, 1, 0, 1]))]
    with pytest.raises(ValueError, match="create_classifier"):
        act(Learner(nn.Linear(2, 2), loader, progress=False))


def test_freezing_something_else_is_a_type_error():
    with pytest.raises(TypeError, match="Learner or a model, not a str"):
        freeze("resnet34")


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("first", [-1, -2])
def test_what_is_frozen_stays_bit_identical(first, keep):
    learner = make_learner()
    freeze_to(learner, first)
    before = weights(learner)
    fit_one_cycle(learner, 2, 1e-2, keep_features=keep)
    moved = changed(before, weights(learner))
    late = ("head",) if first == -1 else ("head", "body.2", "body.3")
    assert moved and all(name.startswith(late) for name in moved)
    assert any("running" in name for name in moved) == (first == -2)


@given(st.floats(1e-8, 1), st.floats(1, 1e5), st.integers(1, 12))
def test_spread_rates_are_geometric(lowest, factor, groups):
    rates = spread_lrs(lowest, lowest * factor, groups)
    assert len(rates) == groups and rates[-1] == lowest * factor
    if groups > 1:
        assert math.isclose(rates[0], lowest)
        steps = [b / a for a, b in zip(rates, rates[1:], strict=False)]
        assert all(math.isclose(step, steps[0], rel_tol=1e-6) for step in steps)


def test_rates_in_every_form():
    assert lrs_for(1e-3, 3) == [1e-3] * 3
    assert np.allclose(lrs_for((1e-6, 1e-4), 3), [1e-6, 1e-5, 1e-4])
    assert lrs_for(slice(1e-6, 1e-4), 3) == lrs_for((1e-6, 1e-4), 3)
    assert np.allclose(lrs_for(slice(1e-3), 3), [1e-4, 1e-4, 1e-3])
    assert lrs_for([1e-5, 1e-4, 1e-2], 3) == [1e-5, 1e-4, 1e-2]
    assert lrs_for((1e-5, 1e-3), 2) == [1e-5, 1e-3]
    assert np.allclose(scale_head_lr(0.01, 10, 3), [0.01, 0.01, 0.1])


@pytest.mark.parametrize("lr", [0, -1e-3, math.nan, math.inf, (0, 1e-3), slice(-1.0), [1e-3] * 4, (1e-3, 1e-5),
                                slice(1e-5, 1e-3, 2), slice(None), slice(1e-3, 1e-5), [1e-3, math.nan, 1e-3]])
def test_rates_that_make_no_sense_change_nothing(lr):
    learner = make_learner()
    before = weights(learner)
    with pytest.raises(ValueError):
        fit_one_cycle(learner, 1, lr)
    assert not changed(before, weights(learner)) and not learner.recorder.losses


def test_more_rates_than_groups_says_how_many_there_are():
    with pytest.raises(ValueError, match="4 learning rates, but the model has 3"):
        lrs_for([1e-3] * 4, 3)


def torch_schedule(total: int, pct_start: float, div: float, div_final: float, momenta: tuple, rates: list) -> list:
    optimizer = torch.optim.AdamW([{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates])
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rates, total_steps=total, pct_start=pct_start, div_factor=div, final_div_factor=div_final / div,
        max_momentum=momenta[0], base_momentum=momenta[1])
    rows = []
    for step in range(total):
        rows.append(([group["lr"] for group in optimizer.param_groups], optimizer.param_groups[-1]["betas"][0]))
        optimizer.step()
        if step < total - 1:
            scheduler.step()
    return rows


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.floats(0.05, 0.95), st.floats(1, 100), st.floats(100, 1e6))
def test_the_schedule_is_torchs_step_for_step(epochs, batches, pct_start, div, div_final):
    total, momenta = epochs * batches, (0.9, 0.8)
    if total < 2 or abs(pct_start * total - 1) < 1e-6:
        return
    model = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    model.parameter_groups = lambda: [list(layer.parameters()) for layer in model]
    learner = Learner(model, [(torch.randn(4, 2), torch.tensor([0, 1, 0, 1]))] * batches, progress=False)
    fit_one_cycle(learner, epochs, (1e-5, 1e-3), pct_start=pct_start, div=div, div_final=div_final, momenta=momenta)
    expected = torch_schedule(total, pct_start, div, div_final, momenta, spread_lrs(1e-5, 1e-3, 3))
    assert [rates for rates, _ in expected] == learner.recorder.lrs
    assert [momentum for _, momentum in expected] == learner.recorder.momenta


@pytest.mark.parametrize("numbers", [{"pct_start": 0}, {"pct_start": 1}, {"pct_start": math.nan}, {"div": 0.5},
                                     {"div_final": 0}, {"momenta": (1.0, 0.5)}, {"momenta": (0.9, -0.1)}])
def test_numbers_that_are_no_cycle_are_named(numbers):
    with pytest.raises(ValueError, match=next(iter(numbers))):
        fit_one_cycle(make_learner(), 1, 1e-3, **numbers)


@pytest.mark.parametrize("keep", [True, False])
def test_fine_tune_is_its_five_calls(keep):
    by_hand, tuned = make_learner(dropout=0.1), make_learner(dropout=0.1)
    torch.manual_seed(1)
    freeze(by_hand)
    fit_one_cycle(by_hand, 2, slice(4e-3), pct_start=0.99, keep_features=keep)
    unfreeze(by_hand)
    fit_one_cycle(by_hand, 3, slice(2e-3 / 50, 2e-3), pct_start=0.3, div=5.0)
    torch.manual_seed(1)
    fine_tune(tuned, 3, 4e-3, freeze_epochs=2, lr_mult=50, keep_features=keep)
    assert not changed(weights(by_hand), weights(tuned))
    assert by_hand.recorder.lrs == tuned.recorder.lrs and len(tuned.recorder.rows) == 5
    assert all(p.requires_grad for p in tuned.model.parameters())


def test_fine_tune_defaults_are_the_sources():
    learner = make_learner()
    fine_tune(learner, 2)
    first, second = learner.recorder.lrs[:5], learner.recorder.lrs[5:]
    cycle = torch_schedule(5, 0.99, 25, 1e5, (0.95, 0.85), scale_head_lr(2e-4, 10))
    assert len(second) == 10 and np.allclose(first, [rates for rates, _ in cycle])
    assert math.isclose(max(r[-1] for r in second), 1e-3) and math.isclose(max(r[0] for r in second), 1e-5)
    assert math.isclose(second[0][-1], 1e-3 / 5)  # div = 5


def test_fine_tune_without_a_frozen_stage():
    learner = make_learner()
    fine_tune(learner, 2, freeze_epochs=0)
    assert len(learner.recorder.rows) == 2


@pytest.mark.parametrize("arguments", [(0,), (-1,), (1, 0.0), (1, math.nan), (1, 1e-3, -1), (1, 1e-3, 1, 0)])
def test_fine_tune_checks_before_it_freezes(arguments):
    learner = make_learner()
    with pytest.raises(ValueError):
        fine_tune(learner, *arguments)
    assert all(p.requires_grad for p in learner.model.parameters()) and not learner.recorder.losses


def test_features_are_used_said_and_switched_off(capsys):
    def seen_shapes(**options) -> tuple[set, str]:
        shapes = set()

        class Look(Callback):
            def after_batch(self, learner):
                shapes.add(tuple(learner.x.shape[1:]))

        learner = make_learner(progress=True)
        freeze(learner)
        fit_one_cycle(learner, 1, 1e-3, callbacks=[Look()], **options)
        return shapes, capsys.readouterr().out

    shapes, said = seen_shapes()
    assert shapes == {(16,)} and said.count("features of 26 images") == 1
    shapes, said = seen_shapes(keep_features=False)
    assert shapes == {(3, 32, 32)} and "features" not in said
    with pytest.raises(ValueError, match="views"):
        seen_shapes(views=0)


def test_early_stopping_waits_and_begins_anew():
    learner = make_learner()
    stopping = EarlyStopping(patience=2, by=10.0)
    for _ in range(2):
        learner.fit(9, 1e-6, callbacks=[stopping])
        assert learner.epoch == 3  # one to compare with, two without an improvement
    learner.fit(4, 1e-6, callbacks=[EarlyStopping(patience=2, monitor="train_loss", mode="max", by=-100.0)])
    assert learner.epoch == 4  # everything counts as better: it never stops


@pytest.mark.parametrize("patience", [0, -1, 1.5, True, None])
def test_early_stopping_refuses_an_odd_patience(patience):
    with pytest.raises(ValueError, match="patience"):
        EarlyStopping(patience)


def test_a_checkpoint_of_a_frozen_stage_is_the_whole_model(tmp_path):
    learner = make_learner()
    freeze(learner)
    fit_one_cycle(learner, 2, 1e-2, callbacks=[Checkpoint(tmp_path)])
    other = make_learner(seed=5)
    load_weights(tmp_path / "last.safetensors", other.model)
    assert not changed(weights(learner), weights(other))


def test_a_frozen_stage_resumes_bit_for_bit(tmp_path):
    class Stop(Callback):
        def before_epoch(self, learner):
            if learner.epoch == 2:
                raise KeyboardInterrupt

    undisturbed = make_learner(dropout=0.3)
    freeze(undisturbed)
    torch.manual_seed(3)
    fit_one_cycle(undisturbed, 4, 1e-2)
    interrupted = make_learner(dropout=0.3)
    freeze(interrupted)
    torch.manual_seed(3)
    with pytest.raises(KeyboardInterrupt):
        fit_one_cycle(interrupted, 4, 1e-2, callbacks=[Checkpoint(tmp_path), Stop()])
    assert isinstance(interrupted.model, Classifier)  # its own model again, also after Ctrl-C
    resumed = make_learner(seed=9, dropout=0.3)
    freeze(resumed)
    resume_training(tmp_path / "last.safetensors", resumed)
    fit_one_cycle(resumed, 4, 1e-2)
    assert not changed(weights(undisturbed), weights(resumed))
    assert undisturbed.recorder.lrs == resumed.recorder.lrs


def test_a_real_backbone_is_fine_tuned():
    torch.manual_seed(0)
    learner = make_learner()
    learner.model = create_classifier("efficientnet_lite0", 3)
    fine_tune(learner, 1)
    assert len(learner.recorder.rows) == 2 and all(math.isfinite(loss) for loss in learner.recorder.losses)


class CountSteps(Callback):
    def __init__(self):
        self.steps = 0

    def after_step(self, learner):
        self.steps += 1


@pytest.mark.parametrize("options, words", [
    ({"lr_mult": 0.5}, "above the last"), ({"pct_start": 2}, "pct_start"), ({"div": 0}, "1 or more"),
    ({"div": "x"}, "1 or more"), ({"div": math.inf}, "1 or more"), ({"views": 0}, "views"),
    ({"callbacks": EarlyStopping()}, ""), ({"callbacks": [EarlyStopping]}, "is no Callback"),
    ({"epochs": 0}, "at least 1")])
def test_fine_tune_refuses_before_anything_is_changed(options, words):
    learner = make_learner()
    before = weights(learner)
    if words:
        with pytest.raises((ValueError, TypeError), match=words):
            fine_tune(learner, **{"epochs": 1} | options)
        assert not changed(before, weights(learner)) and all(p.requires_grad for p in learner.model.parameters())
    else:
        fine_tune(learner, 1, **options)  # one callback is as good as a list of one


def test_callbacks_from_a_generator_take_part_in_both_stages():
    counter, learner = CountSteps(), make_learner()
    fine_tune(learner, 1, callbacks=(one for one in [counter]))
    assert counter.steps == len(learner.recorder.losses) == 10


def test_a_model_is_no_learner_and_true_is_no_rate():
    with pytest.raises(TypeError, match="takes a Learner"):
        fine_tune(make_learner().model, 1)
    with pytest.raises(TypeError, match="must be a number"):
        lrs_for(True, 3)
    with pytest.raises(TypeError, match="must be a number"):
        lrs_for(slice("a"), 3)
    with pytest.raises(ValueError, match="give a number"):
        EarlyStopping(by="x")
    learner = make_learner()
    fit_one_cycle(learner, 1)
    assert len(plot_schedule(learner)) == 2  # a learner is as good as its recorder


def test_the_same_without_this_course_runs(tmp_path, monkeypatch, capsys):
    """The block of plain PyTorch in the lesson, on a handful of photographs; in place of a download, random weights."""
    lesson = Path(__file__).resolve().parents[2] / "nbs" / "05_transfer_learning.ipynb"
    cells = json.loads(lesson.read_text(encoding="utf-8"))["cells"]
    prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    [block] = re.findall(r"^```python\n(.*?)^```$", prose, re.DOTALL | re.MULTILINE)
    assert "course_lib" not in block
    for number, picture in enumerate(PICTURES[:12]):
        folder = tmp_path / "photographs" / ("train", "valid")[number % 3 == 2] / ("cracked", "whole")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", lambda self, *a, **k: resnet18().state_dict())
    found: dict = {}
    exec(compile(block, "lesson 5", "exec"), found)
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [f"epoch {i}" for i in range(1, 6)]
    model = found["model"]
    assert model.fc.out_features == 2
    learned = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learned and all(name.startswith(("layer4", "fc")) for name in learned)
    assert int(model.bn1.num_batches_tracked) == 0 < int(model.layer4[0].bn1.num_batches_tracked)
