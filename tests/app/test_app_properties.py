"""Recipes, trainings, benches, saved classifiers of any arguments: what was asked, or an error that names the fault."""

import functools
import json
import math
import operator
import os
from collections import Counter
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from course_lib.app.bench import bench_training
from course_lib.app.predict import TrainedClassifier, latest_model, load_classifier, predict_images
from course_lib.app.resume import changed_images
from course_lib.app.train import recipe_for, train_classifier
from course_lib.data import BatchTransform
from course_lib.learner import save_weights
from course_lib.models import create_classifier
from course_lib.recipes import RECIPES, Recipe
from course_lib.settings import CourseSettings
from course_lib.tricks import parse_trick_names

some = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
few = settings(some, max_examples=30)
ODD = st.one_of(st.none(), st.integers(-3, 300), st.floats(), st.floats(0, 1), st.booleans(), st.text(max_size=4),
                st.just(10**400), st.lists(st.text(max_size=2), max_size=2), st.lists(st.text(max_size=2)).map(tuple),
                st.sampled_from([np.int64(64), np.float32(0.5), np.str_("pad"), torch.tensor(4), "mixup,ema", ["tta"],
                                 ("cutmix",), "mirror", "bf16", "crop", b"x", {"a": 1}, object(), len, "a\0b", "a/b"]))
TEST = CourseSettings(profile_name="test", device="cpu", data_dir=Path("never-made"))
COUNTS = {"epochs": 1, "batch_size": 1, "presize": 1, "seeds": 1, "views": 1, "few_views": 1, "few_per_class": 0,
          "few_of_one": 0, "min_steps": 0, "image_size": 32, "max_images": 1}
NUMBERS = {"max_lr": (1e-320, 1e308), "weight_decay": (0, 1e308), "dropout": (0, 1 - 1e-12), "label_smoothing": (0, 1),
           "trained_fraction": (0, 1)}
WORDS = {"augmentation": ("usual", "mirror"), "resize_mode": ("crop", "squash", "pad"), "mirror": (True, False),
         "official_split": (True, False),
         "mixed_precision": ("no", "bf16", "fp16"), "balance": ("auto", "yes", "no"),
         "speed": ("auto", "plain")}


def told(names, call):
    """What `call` gives, or None where it refuses by a ValueError or TypeError that names one of the arguments."""
    try:
        return call()
    except (ValueError, TypeError) as error:
        assert any(name in str(error) for name in names.split()), f"{type(error).__name__} names none: {error}"
        return None


def expected_of(name, value):
    """What a recipe keeps of `value`, or `ValueError` where it must refuse it."""
    if name in COUNTS and name == "max_images" and value is None:
        return None
    try:
        if name in COUNTS and not isinstance(value, bool) and COUNTS[name] <= operator.index(value) < 2**63:
            return operator.index(value)
        least, most = NUMBERS.get(name, (1, 0))
        number = isinstance(value, (int, float, np.number, torch.Tensor)) and not isinstance(value, bool)
        if number and least <= float(value) <= most:
            return float(value)
    except (TypeError, OverflowError):
        return ValueError
    if name in WORDS and type(value) in (bool, str, np.str_) and value in WORDS[name]:
        return value
    if name == "tricks" and isinstance(value, (tuple, list)):
        return tuple(value)
    return value if name in ("name", "backbone") and isinstance(value, str) else ValueError


@some
@given(st.sampled_from([field.name for field in fields(Recipe)]), ODD)
def test_a_recipe_keeps_what_it_is_told_or_refuses_it(name, value):
    made = told(name, lambda: Recipe(**{"name": "own", "epochs": 1} | {name: value}))
    expected = expected_of(name, value)
    assert (made is None) == (expected is ValueError)
    if made is not None:
        assert getattr(made, name) == expected and json.loads(json.dumps(asdict(made)))["epochs"] == made.epochs


@some
@given(st.sampled_from([*(field.name for field in fields(Recipe)), "epoch", "settings"]), ODD)
def test_the_recipe_of_a_training_is_the_profiles_with_the_changes(name, value):
    if name == "settings":
        assert told("settings", lambda: recipe_for(value)) is None
        return
    made = told(f"{name} trick", lambda: recipe_for(TEST, **{name: value}))
    if value is None:
        assert made == RECIPES["test"]
    elif name == "tricks":
        names = told("trick", lambda: parse_trick_names(value))
        assert (made is None) == (names is None) and (made is None or made.tricks == names)
        assert made is None or made.mirror == ("tta" in names)
    elif name == "presize":
        expected = expected_of(name, value)
        assert (made is None) == (expected is ValueError) and (made is None or made.presize == max(expected, 64))
    else:
        expected = expected_of(name, value)
        assert (made is None) == (expected is ValueError) and (made is None or getattr(made, name) == expected)


@few
@given(st.sampled_from(["settings", "output", "runs", "resume", "overwrite", *COUNTS, *NUMBERS, *WORDS]), ODD)
def test_a_training_refuses_what_it_cannot_mean_before_it_begins(tmp_path, name, value):
    if name in ("settings", "output", "runs", "resume", "overwrite"):
        value = 3.5 if value is None or isinstance(value, (bool, str)) else value
        value = "no" if name in ("resume", "overwrite") and value == 3.5 else value
    elif value is None or expected_of(name, value) is not ValueError:
        value = "!"
    given_ = {"runs": tmp_path, "echo": pytest.fail} | {name: value}
    assert told(name, lambda: train_classifier(given_.pop("settings", TEST), **given_)) is None
    assert not list(tmp_path.iterdir()) and not Path("never-made").exists()


@few
@given(st.sampled_from(["settings", "seconds", "repeats", *COUNTS, *NUMBERS]), ODD)
def test_a_bench_refuses_what_it_cannot_mean_before_it_begins(name, value):
    if name == "seconds" and not isinstance(value, (bool, str)) and value is not None:
        value = -1.5
    elif name == "repeats":
        value = 2.5
    elif name != "settings" and (value is None or expected_of(name, value) is not ValueError):
        value = "!"
    given_ = {name: value}
    assert told(name, lambda: bench_training(given_.pop("settings", TEST), progress=False, **given_)) is None


@few
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy")), max_size=6), st.data())
def test_changed_images_are_counted(rows, data):
    saved = {"training": rows[:4], "validation": rows[4:]}
    assert changed_images(saved, saved) == ""
    new = data.draw(st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from("xy")), max_size=6))
    counts = Counter(digest for digest, _ in rows), Counter(digest for digest, _ in new)
    said = changed_images({"training": rows}, {"training": new})
    words = {part.split(" ", 1)[1]: int(part.split(" ", 1)[0]) for part in said.split(", ") if part}
    assert words.get("new", 0) == sum((counts[1] - counts[0]).values())  # by digest: another class is no new image
    assert words.get("missing", 0) == sum((counts[0] - counts[1]).values())


# ---- Saved classifiers

class Means(nn.Module):
    """The mean red, green and blue as logits; it has no parameters."""

    def forward(self, x):
        return x.mean((2, 3))


RED = np.zeros((8, 8, 3), np.uint8)
RED[..., 0] = 255
TRANSFORM = BatchTransform(32, (0.5,) * 3, (0.5,) * 3)


@few
@given(st.sampled_from(["model", "classes", "presize", "transform", "metadata"]), ODD)
def test_a_classifier_is_whole_or_refused(name, value):
    given_ = {"model": Means(), "classes": ("r", "g", "b"), "presize": 32, "transform": TRANSFORM, "metadata": {}}
    if isinstance(value, int) and value > 300:
        value = -1
    made = told(name, lambda: TrainedClassifier(**given_ | {name: value}))
    if made is not None and (name != "classes" or len(made.classes) == 3):
        (found,) = predict_images(made, RED)
        likely = 1 / (1 + 2 * math.exp(-2))  # red is 1, the others are -1
        assert found.label == made.classes[0] and found.probability == pytest.approx(likely, abs=1e-3)
        assert made.presize == (value if name == "presize" else 32)


def test_the_newest_model_is_the_latest(tmp_path):
    with pytest.raises(FileNotFoundError, match="no trained model"):
        latest_model(tmp_path)
    for number, name in enumerate(("b", "c", "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").touch()
        os.utime(tmp_path / name / "model.safetensors", (number, number))
    assert latest_model(tmp_path) == latest_model(str(tmp_path)) == tmp_path / "a" / "model.safetensors"


@few
@given(ODD)
def test_what_is_no_path_of_a_model_is_named(tmp_path, value):
    for name, call in (("runs", latest_model), ("path", load_classifier)):
        if name == "path" and value is None:
            continue  # the latest under runs
        try:
            assert told(f"{name} {value}" if isinstance(value, str) else name, lambda c=call: c(value)) is None
        except FileNotFoundError as error:
            assert isinstance(value, str) and ("no trained model" in str(error) or str(Path(value)) in str(error))


USUAL = {"backbone": "shufflenet_v2_x0_5", "classes": ["z", "a"], "presize": 40, "image_size": 32, "mean": [0.5] * 3,
         "std": [0.5] * 3, "dropout": 0.2}


@functools.cache
def tiny():
    torch.manual_seed(0)
    return create_classifier("shufflenet_v2_x0_5", 2, pretrained=False).eval()


JSON = st.none() | st.integers(-3, 400) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.text(
    max_size=4) | st.lists(st.floats(0.1, 1) | st.text(max_size=2), max_size=3)


@pytest.mark.slow
@settings(some, max_examples=15)
@given(st.sampled_from([*USUAL, "mirror_axes", "resize_mode", "device"]), JSON)
def test_a_file_that_says_odd_things_of_itself_is_refused_by_them(tmp_path, name, value):
    path = tmp_path / "model.safetensors"
    save_weights(path, tiny(), USUAL if name == "device" else USUAL | {name: value})
    device = value if name == "device" else "cpu"
    found = told(f"{name} {path}", lambda: load_classifier(path, device))
    if found is not None:
        assert found.classes == tuple(USUAL["classes"] if name != "classes" else value)
        said = told(f"{name} model", lambda: predict_images(found, RED))
        with torch.no_grad():
            x = found.transform(torch.from_numpy(np.stack([np.tile(RED, (8, 8, 1))[:found.presize, :found.presize]])))
        if name not in ("mirror_axes", "presize", "resize_mode"):
            expected = tiny()(x).softmax(1).max(1)
            assert said[0].label == found.classes[expected.indices] and not found.model.training
            assert said[0].probability == pytest.approx(expected.values.item(), abs=1e-3)
