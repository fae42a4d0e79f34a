"""A rare class: the loss that lets it count the same, and a training that finds it."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import course_lib.app.train as training
from course_lib.app.balance import AdjustedLoss, make_loss
from course_lib.app.card import model_card
from course_lib.recipes import RECIPES
from course_lib.settings import CourseSettings


def test_the_adjusted_loss_is_cross_entropy_of_scores_with_the_logarithms_of_the_shares():
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(7, 3, generator=generator), torch.randint(0, 3, (7,), generator=generator)
    shares = torch.tensor([0.5, 0.3, 0.2])
    soft = torch.rand(7, 3, generator=generator).softmax(1)
    for wanted in (targets, soft):
        expected = F.cross_entropy(logits + shares.log(), wanted, label_smoothing=0.1)
        torch.testing.assert_close(AdjustedLoss(np.array([50, 30, 20]), 0.1)(logits, wanted), expected)
    even = AdjustedLoss(np.array([9, 9, 9]))(logits, targets)
    torch.testing.assert_close(even, F.cross_entropy(logits, targets))
    assert AdjustedLoss(np.array([9, 0, 3]))(logits, targets).isfinite()  # a class without any image


@pytest.mark.parametrize(("balance", "kind"), [("yes", AdjustedLoss), ("no", torch.nn.CrossEntropyLoss)])
def test_the_recipe_says_which_loss(balance, kind):
    recipe = dataclasses.replace(RECIPES["laptop"], balance=balance, label_smoothing=0.25)
    train = SimpleNamespace(targets=np.array([0, 1, 1, 1, 0]), indices=np.array([0, 1, 2, 3]))
    loss = make_loss(recipe, SimpleNamespace(train=train, classes=("ant", "bee")))
    assert type(loss) is kind and loss.label_smoothing == 0.25
    if balance == "yes":
        torch.testing.assert_close(loss.log_shares.exp(), torch.tensor([0.25, 0.75]))


@pytest.mark.slow
def test_a_rare_class_is_found_where_classes_count_the_same(tmp_path):
    """Dark and bright squares that overlap: 60 and 4 to learn from, and then as many of both."""
    rng = np.random.default_rng(0)
    for part, name, count in (("train", "dark", 60), ("train", "bright", 4), ("valid", "dark", 40),
                              ("valid", "bright", 40)):
        (tmp_path / "photos" / part / name).mkdir(parents=True)
        for number in range(count):
            grey = (100 if name == "dark" else 140) + 25 * rng.standard_normal()
            pixels = (grey + 12 * rng.standard_normal((80, 80, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / part / name / f"{number}.png")
    settings = CourseSettings(dataset=str(tmp_path / "photos"), data_dir=tmp_path / "data", profile_name="test",
                              device="cpu")
    found = {}
    for balance in ("auto", "no"):
        said: list[str] = []
        result = training.train_classifier(settings, output=tmp_path / balance, epochs=12, echo=said.append,
                                           balance=balance)
        found[balance] = result.metrics["error_per_class"]["bright"]
        assert any("because bright is rare" in line for line in said) == (balance == "auto")
        saved = training.load_checkpoint(tmp_path / balance / "model.safetensors")[1]
        assert saved["balance"] == {"auto": "yes", "no": "no"}[balance]
        assert ("All classes counted the same" in model_card(saved)) == (balance == "auto")
    assert found["auto"] + 0.1 < found["no"], found
