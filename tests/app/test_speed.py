"""How a training computes is measured once on a computer, said, kept, and taken up again."""

import copy
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import photograph

import course_lib.app.speed as speed
import course_lib.app.train as training
from course_lib.app.speed import Speed
from course_lib.data import BatchTransform, ImageLoader
from course_lib.learner import CheckpointError, Learner, load_checkpoint
from course_lib.learner.features import cached_features, train_last
from course_lib.learner.memory import activation_bytes
from course_lib.learner.strategy import Strategy
from course_lib.models import create_classifier
from course_lib.recipes import Recipe
from course_lib.settings import CourseSettings

MEASURED = speed._is_faster_at_products
RECIPE = Recipe("x", 5, image_size=64, batch_size=8, trained_fraction=1.0)


@pytest.fixture
def learner() -> Learner:
    """A tiny network and 24 images, of which the recipe's five epochs see 80."""
    torch.manual_seed(0)
    model = create_classifier("timm/test_efficientnet", 3, pretrained=False)
    images = np.stack([photograph(i, 80, 80) for i in range(24)])
    train, valid = (ImageLoader(images, np.arange(24) % 3, rows, BatchTransform(64, (0.5,) * 3, (0.5,) * 3), 8,
                                shuffle=rows.start == 0, classes="abc") for rows in (range(16), range(16, 24)))
    return Learner(model, train, valid, progress=False)


@pytest.fixture(autouse=True)
def short_is_long_enough(monkeypatch):
    monkeypatch.setattr(speed, "LEAST_IMAGES", 50)
    monkeypatch.setattr(speed, "_is_faster_at_products", lambda device: True)


def measuring(monkeypatch, *found: Speed) -> list[Speed]:
    """`measure_speed` gives these, one after the other; what is left of them."""
    left = list(found)
    monkeypatch.setattr(speed, "measure_speed", lambda *_: left.pop(0))
    return left


@pytest.mark.parametrize("plain, half, chosen", [
    ((1.0, 0.9), (0.5, 0.91), Speed("bf16", 2.0)),
    ((1.0, 0.9), (0.95, 0.9), Speed("no", 1 / 0.95)),  # not worth it
    ((1.0, 0.9), (3.0, 0.9), Speed("no", 1 / 3)),
    ((1.0, 0.9), (0.5, 1.2), Speed("no", 2.0)),  # quicker, and learns worse
    ((1.0, 0.9), (0.5, float("nan")), Speed("no", 2.0))])
def test_bf16_is_taken_where_it_is_faster_and_learns_the_same(plain, half, chosen, learner, monkeypatch):
    monkeypatch.setattr(speed, "_try", lambda learner, recipe, kind: {"no": plain, "bf16": half}[kind])
    found = speed.measure_speed(learner, RECIPE)
    assert (found.mixed_precision, found.gain) == (chosen.mixed_precision, pytest.approx(chosen.gain))


def test_no_step_is_tried_where_bf16_is_slow_or_not_to_be_had(learner, monkeypatch):
    def no_step(*_):
        raise AssertionError("a step was tried")

    monkeypatch.setattr(speed, "_try", no_step)
    monkeypatch.setattr(speed, "_is_faster_at_products", lambda device: False)
    assert speed.measure_speed(learner, RECIPE) == Speed("no")
    monkeypatch.setattr(speed, "_is_faster_at_products", no_step)
    learner.device = torch.device("mps")
    assert speed.measure_speed(learner, RECIPE) == Speed("no")


def test_a_network_that_cannot_be_computed_in_bf16_learns_in_float32(learner, monkeypatch):
    def only_in_float32(learner, recipe, kind):
        if kind == "bf16":
            raise error
        return 1.0, 0.9

    monkeypatch.setattr(speed, "_try", only_in_float32)
    error: Exception = RuntimeError('"some_layer" not implemented for \'BFloat16\'')
    assert speed.measure_speed(learner, RECIPE) == Speed("no")
    error = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(torch.OutOfMemoryError):  # becomes advice on the batch size
        speed.measure_speed(learner, RECIPE)


@pytest.mark.parametrize("slow", [torch.float32, torch.bfloat16])
def test_products_are_faster_in_bf16_where_they_take_less_time(slow, monkeypatch):
    product = torch.nn.functional.linear

    def late(a, b):
        time.sleep(0.05 * (a.dtype == slow))
        return product(a, b)

    monkeypatch.setattr(torch.nn.functional, "linear", late)
    assert MEASURED(torch.device("cpu")) == (slow == torch.float32)


def test_measuring_leaves_everything_as_it_was(learner):
    before = {name: tensor.clone() for name, tensor in learner.model.state_dict().items()}
    chance, epochs = torch.get_rng_state(), (learner.train_loader.epoch, learner.valid_loader.epoch)
    found = speed.measure_speed(learner, RECIPE)
    assert found.mixed_precision in ("no", "bf16") and found.gain > 0
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.model.state_dict().items())
    assert torch.equal(chance, torch.get_rng_state()) and not learner.recorder.losses
    assert epochs == (learner.train_loader.epoch, learner.valid_loader.epoch)
    assert all(parameter.grad is None for parameter in learner.model.parameters())
    seconds, loss = speed._try(learner, RECIPE, "no")
    assert seconds > 0 and 0 < loss < 10


def test_what_was_chosen_is_said_and_kept(learner, monkeypatch, tmp_path):
    place, said = tmp_path / "cache" / "speed.json", []
    left = measuring(monkeypatch, Speed("bf16", 1.44), Speed("no", 0.9), Speed("bf16", 2.0))
    assert speed.choose_speed(learner, RECIPE, place, said.append) == Speed("bf16", 1.44)
    assert "bf16, in which a step is 1.4 times as fast as in float32 (measured)" in said[-1]
    assert "--speed plain" in said[-1]
    assert speed.choose_speed(learner, RECIPE, place, said.append) == Speed("bf16", 1.44) and len(left) == 2
    assert "measured here before" in said[-1]
    other = replace(RECIPE, image_size=96)
    assert speed.choose_speed(learner, other, place, said.append) == Speed("no", 0.9)
    assert said[-1] == "Speed: float32, as bf16 does not pay on this computer (measured)."
    assert len(json.loads(place.read_text())) == 2
    for damaged in ("{", "[]", '{"x": 1}', place.read_text().replace("bf16", "fp8")):
        place.write_text(damaged)
        left[:] = [Speed("bf16", 2.0)]
        assert speed.choose_speed(learner, RECIPE, place, said.append) == Speed("bf16", 2.0) and not left
    left[:] = [Speed("no")]  # the cache came along to a computer where bf16 is slow
    monkeypatch.setattr(speed, "_is_faster_at_products", lambda device: False)
    assert speed.choose_speed(learner, RECIPE, place, said.append) == Speed("no") and not left


def test_a_place_that_cannot_be_written_is_no_reason_to_stop(learner, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    measuring(monkeypatch, Speed("no", 1.0))
    assert speed.choose_speed(learner, RECIPE, tmp_path / "file" / "speed.json", print) == Speed("no", 1.0)


@pytest.mark.parametrize("change, precision", [
    ({"speed": "plain"}, "no"), ({"trained_fraction": 0.0}, "no"), ({"epochs": 2}, "no"),
    ({"mixed_precision": "bf16"}, "bf16")])
def test_nothing_is_measured_where_there_is_nothing_to_gain_or_it_was_said(change, precision, learner, monkeypatch,
                                                                           tmp_path):
    measuring(monkeypatch)
    said: list[str] = []
    found = speed.choose_speed(learner, replace(RECIPE, **change), tmp_path / "speed.json", said.append)
    assert found.mixed_precision == precision and not said and not (tmp_path / "speed.json").exists()


def test_a_precision_given_by_hand_is_not_measured():
    settings = CourseSettings()
    assert training.recipe_for(settings).speed == "auto"
    for word in ("no", "bf16"):
        recipe = training.recipe_for(settings, mixed_precision=word)
        assert (recipe.speed, recipe.mixed_precision) == ("plain", word)
    with pytest.raises(ValueError, match="speed = 'fast' is not known. .*Allowed: auto, plain"):
        training.recipe_for(settings, speed="fast")


def test_a_training_keeps_its_choice_and_goes_on_with_it(monkeypatch, tmp_path):
    from PIL import Image

    photos = tmp_path / "photos"
    for number, name in enumerate(("bright", "dark")):
        (photos / name).mkdir(parents=True)
        for i in range(24):
            Image.fromarray(photograph(2 * i + number)).save(photos / name / f"{i}.png")
    settings = CourseSettings(dataset=str(photos), data_dir=tmp_path / "data", profile_name="test", device="cpu")

    class PowerCut(training.Checkpoint):
        def after_epoch(self, learner):
            super().after_epoch(learner)
            if learner.epoch == 2:
                raise KeyboardInterrupt

    def train(name: str, **options) -> tuple[dict, list[str]]:
        said: list[str] = []
        training.train_classifier(settings, output=tmp_path / name, epochs=3, batch_size=6, echo=said.append, **options)
        return saved(name), said

    def saved(name: str) -> dict:
        return load_checkpoint(tmp_path / name / "model.safetensors")[1]

    left, asked, answers = measuring(monkeypatch, *[Speed("bf16", 2.0)] * 2), [], training.answers_of
    monkeypatch.setattr(training, "answers_of",
                        lambda learner: asked.append(type(learner.strategy)) or answers(learner))
    whole, said = train("whole")
    assert (whole["speed"], whole["mixed_precision"]) == ("auto", "bf16") and sum("Speed: bf16" in s for s in said) == 1
    assert set(asked) == {Strategy}  # what is reported is measured in float32, as the model is used
    measured = json.loads((tmp_path / "data" / "cache" / "speed.json").read_text())
    assert list(measured.values()) == [{"mixed_precision": "bf16", "gain": 2.0}]
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(training, "Checkpoint", PowerCut)
        train("cut")
    (tmp_path / "data" / "cache" / "speed.json").unlink()  # or on another computer
    left.clear()
    with pytest.raises(CheckpointError, match="mixed_precision was 'bf16', is now 'no'; speed was 'auto', is now 'pl"):
        train("cut", resume=True, mixed_precision="no")
    train("cut", resume=True)
    first, second = (load_checkpoint(tmp_path / name / "model.safetensors")[0] for name in ("whole", "cut"))
    assert saved("cut")["mixed_precision"] == "bf16" and all(torch.equal(first[name], second[name]) for name in first)
    plain, said = train("plain", speed="plain")
    assert (plain["speed"], plain["mixed_precision"]) == ("plain", "no") and not any("Speed" in line for line in said)
    by_hand, _ = train("by hand", mixed_precision="bf16")
    assert (by_hand["speed"], by_hand["mixed_precision"]) == ("plain", "bf16")
    assert Path(tmp_path / "by hand" / "metrics.json").is_file()
    assert whole["computed_twice"] is False
    deep = {"trained_fraction": 1.0, "few_per_class": 1, "few_of_one": 1}
    left[:] = [Speed("no")]
    assert not any("Memory" in line for line in train("deep", **deep)[1])
    monkeypatch.setattr(speed, "available_memory", lambda device: 0)
    short, said = train("short of memory", **deep)
    assert short["computed_twice"] is True and sum("computed twice" in line for line in said) == 1
    first, second = (load_checkpoint(tmp_path / name / "model.safetensors")[0] for name in ("deep", "short of memory"))
    assert all(torch.equal(first[name], second[name]) for name in first)


# ---- What fits

@pytest.mark.parametrize("part, twice, advice", [
    (2.0, False, ""), (0.98, True, ""), (0.4, True, "begin it anew with --batch-size 2."),
    (0.0, True, "begin it anew with smaller images or a lighter network.")])
def test_where_a_step_does_not_fit_blocks_are_computed_twice_and_the_model_is_the_same(
        part, twice, advice, learner, monkeypatch):
    """`part`: of what a step takes, what is free."""
    usual = Learner(copy.deepcopy(learner.model), copy.deepcopy(learner.train_loader), progress=False)
    torch.manual_seed(1)
    usual.fit(1)
    said: list[str] = []
    needed = speed._step_bytes(learner, (8, 3, 64, 64))
    monkeypatch.setattr(speed, "available_memory", lambda device: part * needed)
    kept = activation_bytes(learner.model, 64, 8)
    with speed.within_memory(learner, RECIPE, said.append) as answer:
        assert (answer, bool(said)) == (twice, twice)
        assert (activation_bytes(learner.model, 64, 8) < kept) == twice
        torch.manual_seed(1)
        learner.fit(1)
    same = usual.model.state_dict()
    assert all(torch.equal(tensor, same[name]) for name, tensor in learner.model.state_dict().items())
    assert activation_bytes(learner.model, 64, 8) == kept  # afterwards as before
    if twice:
        assert "gives the same model" in said[0] and advice in said[0] and ("anew" in said[0]) == bool(advice)


def test_a_batch_that_fits_is_named_where_blocks_have_nothing_within(learner, monkeypatch):
    learner.model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
                                        torch.nn.Flatten(), torch.nn.Linear(8, 3))
    monkeypatch.setattr(speed, "available_memory", lambda device: speed._step_bytes(learner, (3, 3, 64, 64)))
    said: list[str] = []
    with speed.within_memory(learner, RECIPE, said.append) as twice:
        assert not twice
    assert "computed twice" not in said[0] and said[0].endswith("begin it anew with --batch-size 2.")
    with speed.within_memory(learner, replace(RECIPE, speed="plain"), said.append):
        assert len(said) == 1


class Uncountable(torch.nn.Module):
    """What it computes depends on the values."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 3)

    def forward(self, x):
        means = x.mean((2, 3))
        return self.layer(means) if means.sum().item() < 1e9 else means


def test_a_network_that_cannot_be_counted_is_trained_as_it_is(learner, monkeypatch):
    learner.model = Uncountable()
    monkeypatch.setattr(speed, "available_memory", lambda device: 0)
    with speed.within_memory(learner, RECIPE, pytest.fail) as twice:
        assert not twice


def test_what_learns_behind_cached_features_is_computed_twice_too(learner, monkeypatch):
    """The network is cut in two then; afterwards it is whole and as it was."""
    trained = []
    for part in (2.0, 0.0):
        torch.manual_seed(0)
        model = create_classifier("timm/test_efficientnet", 3, pretrained=False)
        train_last(model, 2 / 3)
        loaders = (copy.deepcopy(learner.train_loader), copy.deepcopy(learner.valid_loader))
        one, said = Learner(model, *loaders, progress=False), []
        with cached_features(one) as cached:
            monkeypatch.setattr(speed, "available_memory", lambda device, part=part: part * 1e9)
            with speed.within_memory(one, RECIPE, said.append) as twice:
                assert cached and twice == (part == 0.0) == bool(said)
                torch.manual_seed(1)
                one.fit(1)
        assert not any("forward" in block.__dict__ for block in model.modules())
        trained.append(model.state_dict())
    assert all(torch.equal(tensor, trained[1][name]) for name, tensor in trained[0].items())
