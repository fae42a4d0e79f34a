"""Tricks against libraries, formulas and limits; batches of every shape; and that a training with them can go on."""

import copy
import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_optimizer import AdaBound as TheirAdaBound
from scipy.stats import beta as beta_distribution
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from course_lib.data import Augmentation, BatchTransform, ImageLoader
from course_lib.learner import Callback, Checkpoint, Learner, error_rate, load_checkpoint, resume_training
from course_lib.learner.features import cached_features, train_last
from course_lib.models import create_classifier
from course_lib.tricks import (
    BATCH_TRICKS,
    AdaBound,
    AugmentPolicy,
    BatchTricks,
    CutMix,
    Cutout,
    Distillation,
    FlipTTA,
    LabelSmoothing,
    Mixup,
    OneOf,
    ProgressiveResizing,
    Ricap,
    WeightAverage,
    create_trick,
    distillation_loss,
    explore_tricks,
    parse_trick_names,
    plot_tricks,
    rate_bounds,
    soft_targets,
)
from course_lib.tricks.playground import _draw_trick, _make_playground, _target_text

MIXING = {"mixup": Mixup, "cutmix": CutMix, "ricap": Ricap}


def batch(count=6, height=20, width=32, classes=4, seed=0):
    """Noise from -1 to 1, and a class for each image."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 3, height, width, generator=generator) * 2 - 1
    return x, soft_targets(torch.randint(classes, (count,), generator=generator), classes)


def numbered(count, height, width):
    """Image i has the value i everywhere, and a class of its own: what shows which image, its target must say."""
    x = torch.arange(float(count)).view(-1, 1, 1, 1).expand(count, 3, height, width).clone()
    return x, soft_targets(torch.arange(count), count)


def shares_shown(x):
    """(N, N): which part of the pixels of each image has the value of each image."""
    return torch.stack([(x[:, 0] == value).double().mean((1, 2)) for value in range(len(x))], 1).float()


# ---------------------------------------------------------------------------------------------- soft targets

@settings(max_examples=40, deadline=None)
@given(st.integers(1, 7), st.integers(2, 9), st.floats(0.001, 1.0), st.integers(0, 99))
def test_label_smoothing_is_torchs(count, classes, amount, seed):
    generator = torch.Generator().manual_seed(seed)
    logits, y = torch.randn(count, classes, generator=generator), torch.randint(classes, (count,), generator=generator)
    soft = torch.randn(count, classes, generator=generator).softmax(1)
    theirs = nn.CrossEntropyLoss(label_smoothing=amount)
    for target in (y, soft):
        smoothed = LabelSmoothing(amount)(torch.zeros(count, 1), soft_targets(target, classes))[1]
        torch.testing.assert_close(F.cross_entropy(logits, smoothed), theirs(logits, target))
        torch.testing.assert_close(smoothed.sum(1), torch.ones(count))


def test_the_sources_smoothing_shares_among_the_others():
    e, classes = 0.1, 5
    target = LabelSmoothing(e * classes / (classes - 1))(torch.zeros(1, 1), soft_targets(torch.tensor([2]), classes))[1]
    torch.testing.assert_close(target, torch.tensor([[e / 4, e / 4, 1 - e, e / 4, e / 4]]))


def test_smoothing_and_mixing_commute():
    x, y = batch()
    for trick in (Mixup(1.0), CutMix(1.0), Ricap()):
        torch.manual_seed(3)
        first = trick(*LabelSmoothing(0.2)(x, y))
        torch.manual_seed(3)
        second = LabelSmoothing(0.2)(*trick(x, y))
        torch.testing.assert_close(first, second)


@pytest.mark.parametrize("y, words", [
    (torch.tensor([0, 4]), "reach from 0 to 4"), (torch.tensor([-1, 0]), "reach from -1"),
    (torch.tensor([0.0, 1.0]), "torch.float32"), (torch.tensor([[0, 1]]), "whole, or soft"),
    (torch.tensor([[0.5, 0.5]]), "for 2 classes, not for 4"), (torch.tensor([[2.0, -1.0, 0.0, 0.0]]), "probabilities"),
    (torch.tensor([[0.5, 0.1, 0.1, 0.1]]), "adding up to 1"), (torch.randn(2, 4), "y.softmax"),
    (torch.tensor([1 + 2j, 0j]), "complex")])
def test_what_is_no_target_is_refused(y, words):
    with pytest.raises(ValueError, match=words):
        soft_targets(y, 4)


def test_probabilities_in_any_precision_and_no_nan():
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        for seed in range(50):
            y = torch.randn(8, 10, generator=torch.Generator().manual_seed(seed)).softmax(1).to(dtype)
            assert soft_targets(y, 10) is y
    with pytest.raises(ValueError, match="must be probabilities"):
        soft_targets(torch.tensor([[math.nan, 0.0, 1.0]]), 3)
    with pytest.raises(ValueError, match="must be probabilities"):
        soft_targets(torch.tensor([[0.5, 0.0, 0.6]], dtype=torch.bfloat16), 3)


@pytest.mark.parametrize("number", [0, -1, 2.0, True])
def test_classes_are_counted(number):
    with pytest.raises(ValueError, match="whole number of at least 1"):
        soft_targets(torch.tensor([0]), number)


# ---------------------------------------------------------------------------------------------- every batch trick

@pytest.mark.parametrize("name", BATCH_TRICKS)
@pytest.mark.parametrize("count, height, width", [(1, 17, 17), (5, 16, 40), (4, 33, 18)])
def test_every_trick_takes_every_batch(name, count, height, width):
    images, y = batch(count, height, width)
    for x in (images, images.contiguous(memory_format=torch.channels_last)):
        before = x.clone(), y.clone()
        torch.manual_seed(1)
        after_x, after_y = create_trick(name)(x, y)
        assert torch.equal(x, before[0]) and torch.equal(y, before[1])  # not in place
        assert after_x.shape == x.shape and after_x.dtype == x.dtype and after_x.isfinite().all()
        if x is not images:
            assert after_x.is_contiguous(memory_format=torch.channels_last)  # the order that convolutions want
        assert after_y.shape == y.shape and (after_y >= 0).all()
        torch.testing.assert_close(after_y.sum(1), torch.ones(count))
        torch.manual_seed(1)
        again_x, again_y = create_trick(name)(x, y)
        assert torch.equal(after_x, again_x) and torch.equal(after_y, again_y)


@pytest.mark.parametrize("name", BATCH_TRICKS)
def test_every_trick_does_something(name):
    x, y = batch(8)
    changed = [create_trick(name)(x, y) for _ in range(6)]
    assert any(not torch.equal(a, x) or not torch.equal(b, y) for a, b in changed)


@pytest.mark.parametrize("name", [name for name in BATCH_TRICKS if name != "label_smoothing"])
@pytest.mark.parametrize("x, y, words", [
    (torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]), "takes soft targets"),
    (torch.zeros(2, 3, 8, 8), [[1.0], [1.0]], "given list"),
    (torch.zeros(2, 3, 8, 8), torch.ones(3, 1), "2 images and 3 targets"),
    (torch.zeros(0, 3, 8, 8), torch.ones(0, 1), "and some"),
    (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.ones(2, 1), "torch.uint8"),
    (torch.zeros(2, 1280), torch.ones(2, 1), "batch of float images")])
def test_what_is_no_batch_is_refused(name, x, y, words):
    with pytest.raises(ValueError, match=words):
        create_trick(name)(x, y)


@pytest.mark.parametrize("alpha", [0, -1.0, 0.009, 1e-8, math.nan, math.inf, "1", True, None])
@pytest.mark.parametrize("kind", MIXING.values())
def test_alpha_is_above_zero(kind, alpha):
    with pytest.raises(ValueError, match="alpha = .* must be above 0"):
        kind(alpha)


def test_the_smallest_alpha_is_the_smallest_that_pytorch_draws_rightly():
    """Beta(a, a) has little but its ends for a small a; below 0.01 float32 has other ideas."""
    for alpha in (0.01, 0.05):
        shares = torch.distributions.Beta(torch.tensor([alpha]), torch.tensor([alpha])).sample((40_000,))
        middle = float(((shares > 0.01) & (shares < 0.99)).float().mean())
        assert middle == pytest.approx(float(beta_distribution.cdf(0.99, alpha, alpha)
                                               - beta_distribution.cdf(0.01, alpha, alpha)), abs=0.005)


@pytest.mark.parametrize("kind", MIXING.values())
def test_alpha_may_be_a_whole_number(kind):
    x, y = batch()
    for alpha in (1, 2):
        torch.manual_seed(0)
        expected = kind(float(alpha))(x, y)
        torch.manual_seed(0)
        torch.testing.assert_close(kind(alpha)(x, y), expected, rtol=0, atol=0)


@pytest.mark.parametrize("make, words", [
    (lambda: LabelSmoothing(0), "amount = 0"), (lambda: LabelSmoothing(1.01), "at most 1"),
    (lambda: Cutout(0), "length = 0"), (lambda: Cutout(-3), "length"), (lambda: Cutout(16.0), "length = 16.0"),
    (lambda: Cutout("8"), "length"), (lambda: Cutout(8, holes=0), "holes = 0"), (lambda: Cutout(8, holes=1.5), "holes"),
    (lambda: AugmentPolicy("rand", 31), "magnitude = 31"), (lambda: AugmentPolicy("random"), "auto, rand, trivial"),
    (lambda: OneOf(), "no trick"), (lambda: create_trick("ema"), "does nothing to a batch"),
    (lambda: create_trick("cutout", 16), "part of the shorter side.* of cutout must be from 0.05 to 1.0, but is 16"),
    (lambda: create_trick("mixup", 0.0), "alpha of mixup"), (lambda: create_trick("auto_augment", 5), "no strength"),
    (lambda: rate_bounds(0), "step = 0 .*counted from 1"), (lambda: rate_bounds(-5), "step = -5"),
    (lambda: AdaBound([{"params": [nn.Parameter(torch.zeros(1))], "lr": -1.0}]), "lr = -1.0 .*every group")])
def test_strengths_that_make_no_sense(make, words):
    with pytest.raises(ValueError, match=words):
        make()


# ---------------------------------------------------------------------------------------------- mixing

@pytest.mark.parametrize("ours, theirs", [(Mixup, v2.MixUp), (CutMix, v2.CutMix)])
@pytest.mark.parametrize("alpha", [0.1, 1.0, 8.0])
def test_mixup_and_cutmix_are_torchvisions(ours, theirs, alpha):
    x, y = batch()
    torch.manual_seed(5)
    expected = theirs(alpha=alpha, num_classes=4)(x, y.argmax(1))
    torch.manual_seed(5)
    torch.testing.assert_close(ours(alpha)(x, y), expected, rtol=0, atol=0)


@pytest.mark.parametrize("alpha", [0.01, 0.3, 1.0, 1000.0])  # from nearly always an end of [0, 1] to the middle
@pytest.mark.parametrize("kind", [CutMix, Ricap])
def test_targets_are_the_areas_that_show(kind, alpha):
    torch.manual_seed(0)
    for height, width in ((16, 16), (7, 23), (30, 5)) * 8:
        x, y = kind(alpha)(*numbered(5, height, width))
        torch.testing.assert_close(shares_shown(x), y, atol=1e-6, rtol=0)
        torch.testing.assert_close(y.sum(1), torch.ones(5))


@pytest.mark.parametrize("draw", [0.0, 1.0, 1e-9, 1 - 1e-9, 0.5])
@pytest.mark.parametrize("kind", [CutMix, Mixup])
def test_mixing_at_the_ends_of_beta(kind, draw, monkeypatch):
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda self, shape=(): torch.tensor([draw]))
    torch.manual_seed(0)
    for _ in range(8):
        x, y = kind()(*numbered(5, 8, 12))
        torch.testing.assert_close(y.sum(1), torch.ones(5))
        if kind is CutMix:
            torch.testing.assert_close(shares_shown(x), y, atol=1e-6, rtol=0)
        else:
            torch.testing.assert_close(x[:, 0, 0, 0], (y * torch.arange(5.0)).sum(1))


@pytest.mark.parametrize("draw", [0.0, 1.0, 1e-9, 0.5])
def test_ricap_at_the_ends_of_beta(draw, monkeypatch):
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda self: torch.tensor(draw))
    x, y = Ricap()(*numbered(5, 8, 12))
    torch.testing.assert_close(shares_shown(x), y)
    if draw != 0.5:
        assert y.max(1).values.tolist() == [1.0] * 5  # one image fills it


def test_mixups_targets_are_what_the_pixels_say():
    torch.manual_seed(0)
    for _ in range(10):
        x, y = Mixup(0.5)(*numbered(6, 2, 2))
        torch.testing.assert_close(x[:, 0, 0, 0], (y * torch.arange(6.0)).sum(1))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(2, 5), st.integers(0, 999), st.floats(0.01, 5))
def test_one_loss_is_the_weighted_sum_of_four(count, classes, seed, alpha):
    """RICAP as its paper writes it: four labels, four losses, weighted by area."""
    torch.manual_seed(seed)
    x, y, logits = torch.rand(count, 3, 9, 14), torch.randint(classes, (count,)), torch.randn(count, classes)
    torch.manual_seed(seed)
    patched, soft = Ricap(alpha)(x, soft_targets(y, classes))
    torch.manual_seed(seed)
    beta = torch.distributions.Beta(alpha, alpha)
    right, down = round(14 * float(beta.sample())), round(9 * float(beta.sample()))
    loss = torch.zeros(())
    for h in (down, 9 - down):
        for w in (right, 14 - right):
            order = torch.randperm(count)
            top, left = int(torch.randint(9 - h + 1, ())), int(torch.randint(14 - w + 1, ()))
            corner = patched[:, :, (0 if h == down else down):, (0 if w == right else right):][:, :, :h, :w]
            if down != 9 - down and right != 14 - right:
                assert torch.equal(corner, x[order][:, :, top:top + h, left:left + w])
            loss = loss + h * w / (9 * 14) * F.cross_entropy(logits, y[order])
    torch.testing.assert_close(F.cross_entropy(logits, soft), loss)


def test_one_of_several_is_one_of_them():
    x, y = batch()
    trick, found = OneOf(LabelSmoothing(0.1), LabelSmoothing(0.5)), set()
    for seed in range(20):
        torch.manual_seed(seed)
        found.add(round(float(trick(x, y)[1].max()), 4))
    assert found == {0.925, 0.625}


# ---------------------------------------------------------------------------------------------- Cutout

def lengths_left(side, length):
    """How much of a hole is left along one side, for each place of its centre."""
    start = np.arange(side) - length // 2
    return np.minimum(start + length, side) - np.maximum(start, 0)


@pytest.mark.parametrize("height, width, length", [(20, 20, 10), (12, 30, 7), (9, 9, 9), (16, 24, 1)])
def test_the_area_of_a_hole_is_distributed_as_it_must_be(height, width, length):
    torch.manual_seed(0)
    count = 4000
    holes = Cutout(length)(torch.ones(count, 1, height, width), torch.ones(count, 1))[0][:, 0] == 0
    found = holes.sum((1, 2)).numpy()
    possible = np.outer(lengths_left(height, length), lengths_left(width, length)).ravel()  # all equally likely
    areas, chances = np.unique(possible, return_counts=True)
    chances = chances / len(possible)
    counts = np.array([(found == area).sum() for area in areas])
    assert counts.sum() == count  # no other area comes up
    std = np.sqrt(count * chances * (1 - chances))
    assert (np.abs(counts - count * chances) <= 5 * std + 1e-9).all()
    assert abs(found.mean() - possible.mean()) <= 5 * possible.std() / math.sqrt(count) + 1e-9
    assert found.max() == length**2 and found.min() >= ((length + 1) // 2 if length > 1 else 1) * (length // 2 or 1)


def test_holes_are_squares_and_each_image_has_its_own():
    torch.manual_seed(2)
    x = Cutout(0.5, holes=1, value=7.0)(torch.zeros(40, 3, 20, 20), torch.ones(40, 1))[0]
    assert (x[:, 0] == x[:, 2]).all() and len({tuple(image[0].flatten().tolist()) for image in x}) > 30
    for image in x[:, 0] == 7:
        rows, columns = image.any(1), image.any(0)
        assert torch.equal(image, rows[:, None] & columns) and rows.sum() <= 10
    many = Cutout(6, holes=5)(torch.ones(40, 1, 20, 20), torch.ones(40, 1))[0] == 0
    assert many.float().mean() > 2 * (Cutout(6)(torch.ones(40, 1, 20, 20), torch.ones(40, 1))[0] == 0).float().mean()


@pytest.mark.parametrize("length", [21, 10**6])
def test_a_hole_larger_than_the_image_is_refused(length):
    x, y = batch(2, 20, 32)
    with pytest.raises(ValueError, match=f"A hole of {length} pixels is larger than the image of 20 x 32.*at most 20"):
        Cutout(length)(x, y)
    assert Cutout(20)(x, y)[0].shape == x.shape and Cutout(1.0).pixels(20, 32) == 20


# ---------------------------------------------------------------------------------------------- policies

@pytest.mark.parametrize("policy, theirs", [("auto", v2.AutoAugment), ("rand", v2.RandAugment),
                                            ("trivial", v2.TrivialAugmentWide)])
def test_a_policy_is_torchvisions_image_by_image(policy, theirs):
    pixels = torch.randint(0, 256, (5, 3, 24, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    normalise = lambda p: (p.float() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.manual_seed(3)
    expected = torch.stack([TF.pil_to_tensor(theirs()(TF.to_pil_image(image))) for image in pixels])
    torch.manual_seed(3)
    found = AugmentPolicy(policy, mean=mean, std=std)(normalise(pixels), torch.ones(5, 1))[0]
    torch.testing.assert_close(found, normalise(expected), atol=1e-5, rtol=0)
    assert not torch.equal(expected, pixels)


# ---------------------------------------------------------------------------------------------- in the loop

class Look(Callback):
    """What came to the loss and to the metrics, batch by batch."""
    order = 99

    def before_fit(self, learner):
        self.seen = []

    def before_batch(self, learner):
        self.seen.append((learner.x.clone(), learner.target.clone(), learner.y.clone()))


def make_learner(*callbacks, dropout=0.0, epochs=0, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(3 * 36, 8), nn.BatchNorm1d(8), nn.ReLU(),
                          nn.Linear(8, 3))
    batches = [(x, y.argmax(1)) for x, y in (batch(5, 6, 6, 3, seed) for seed in range(4))]
    learner = Learner(model, batches, batches[:2], metrics=[error_rate], callbacks=callbacks, progress=False, **options)
    if epochs:
        torch.manual_seed(1)
        learner.fit(epochs, lr=0.05)
    return learner


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_the_loss_sees_soft_targets_and_metrics_the_classes():
    look, plain = Look(), Look()
    learner = make_learner(BatchTricks(Mixup(1.0), num_classes=3), look, epochs=2)
    make_learner(plain, epochs=2)
    for (x, target, y), (x_plain, _, y_plain) in zip(look.seen, plain.seen, strict=True):
        assert torch.equal(y, y_plain) and not torch.equal(x, x_plain) and target.shape == (5, 3)
    last_x, last_target, last_y = look.seen[-1]
    assert set(learner.results) >= {"train_error_rate", "error_rate"} and last_y.dtype == torch.int64
    with torch.no_grad():
        hard = [F.cross_entropy(learner.model.eval()(x), y) for x, y in learner.valid_loader]
    assert learner.results["valid_loss"] == pytest.approx(float(sum(hard)) / 2, rel=1e-6)  # validation is untouched


@pytest.mark.slow
@pytest.mark.parametrize("name", BATCH_TRICKS)
def test_draws_depend_on_seed_and_batch_alone(name):
    looks = [Look() for _ in range(4)]
    for look, seed, dropout in zip(looks, (7, 7, 8, 7), (0.0, 0.0, 0.0, 0.9), strict=True):
        make_learner(BatchTricks(create_trick(name), num_classes=3, seed=seed), look, dropout=dropout, epochs=2)
    for number, other in ((1, True), (3, True), (2, name == "label_smoothing")):
        equal = all(torch.equal(a, b) for one, two in zip(looks[0].seen, looks[number].seen, strict=True)
                    for a, b in zip(one, two, strict=True))
        assert equal == other, number
    first, fifth = looks[0].seen[0], looks[0].seen[4]  # the same images an epoch later
    if name in MIXING or name == "cutout":
        assert not torch.equal(first[0], fifth[0])


def test_the_generator_of_everybody_else_is_left_alone():
    look = Look()
    learner = make_learner(BatchTricks(Ricap(), Cutout(0.5), num_classes=3), look)
    torch.manual_seed(4)
    before = torch.get_rng_state()
    learner.fit(1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("make, error, words", [
    (lambda: BatchTricks(), ValueError, "at least one"), (lambda: BatchTricks(Mixup), TypeError, "no batch trick"),
    (lambda: make_learner(BatchTricks(Mixup()), epochs=1), ValueError, "how many classes"),
    (lambda: make_learner(BatchTricks(Mixup(), num_classes=2), epochs=1), ValueError, "There are 2 classes")])
def test_mistakes_with_the_callback_are_named(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_a_loader_of_soft_targets_is_refused():
    learner = make_learner(BatchTricks(Mixup(), num_classes=3))
    learner.train_loader = [(x, soft_targets(y, 3)) for x, y in learner.train_loader]
    with pytest.raises(ValueError, match="metrics need class numbers"):
        learner.fit(1)


class PowerCut(Callback):
    """The electricity fails after the second epoch, once it is saved."""
    order = 99

    def after_epoch(self, learner):
        if learner.epoch == 2:
            raise KeyboardInterrupt


def trained(tmp_path, name, *callbacks, cut=False, resume=False, **options):
    learner = make_learner(*callbacks, Checkpoint(tmp_path / name), *([PowerCut()] if cut else []), **options)
    if resume:
        resume_training(tmp_path / name / "last.safetensors", learner)
    torch.manual_seed(1)
    learner.fit(4, lr=0.05)
    return learner


@pytest.mark.slow
@pytest.mark.parametrize("make", [
    lambda: [BatchTricks(Ricap(), LabelSmoothing(0.1), num_classes=3)], lambda: [WeightAverage(0.9)],
    lambda: [BatchTricks(Mixup(1.0), num_classes=3), WeightAverage(0.8)]])
@pytest.mark.parametrize("optimizer", [None, lambda groups: AdaBound(groups, final_lr=0.2, gamma=0.05, amsbound=True)])
def test_taken_up_again_it_ends_with_the_same_model(make, optimizer, tmp_path):
    options = {"dropout": 0.3, "make_optimizer": optimizer}
    whole = trained(tmp_path, "whole", *make(), **options)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, "cut", *make(), cut=True, **options)
    resumed = trained(tmp_path, "cut", *make(), resume=True, **options)
    assert same(weights(whole.model), weights(resumed.model))
    assert [row["valid_loss"] for row in whole.recorder.rows] == [row["valid_loss"] for row in resumed.recorder.rows]


# ---------------------------------------------------------------------------------------------- distillation

@settings(max_examples=30, deadline=None)
@given(st.floats(0.2, 50), st.floats(0, 1), st.integers(2, 6), st.integers(0, 99))
def test_the_gradient_of_distillation_is_the_formulas(temperature, weight, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    z, v = torch.randn(2, 5, classes, generator=generator, dtype=torch.double)
    y = torch.randint(classes, (5,), generator=generator)
    z.requires_grad_()
    (found,) = torch.autograd.grad(distillation_loss(z, v, y, temperature, weight), z)
    soft = temperature * ((z / temperature).softmax(1) - (v / temperature).softmax(1))
    hard = z.softmax(1) - F.one_hot(y, classes)
    torch.testing.assert_close(found, ((1 - weight) * hard + weight * soft) / 5)


def test_the_limits_of_distillation():
    z, v = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    y = torch.arange(7) % 4
    gradient = lambda loss, at: torch.autograd.grad(loss(at), at)[0]
    z.requires_grad_()
    # no weight for the teacher: cross-entropy, whatever the temperature
    for temperature in (0.5, 1, 20):
        torch.testing.assert_close(distillation_loss(z, v, y, temperature, 0), F.cross_entropy(z, y))
    near = distillation_loss(z, v, y, 4.0, 1e-9)
    torch.testing.assert_close(near, F.cross_entropy(z, y), atol=1e-7, rtol=0)
    # T = 1: a soft target, up to the teacher's own entropy
    soft = 0.3 * F.one_hot(y, 4) + 0.7 * v.softmax(1)
    torch.testing.assert_close(gradient(lambda z: distillation_loss(z, v, y, 1.0, 0.7), z),
                               gradient(lambda z: F.cross_entropy(z, soft), z))
    close = gradient(lambda z: distillation_loss(z, v, y, 1 + 1e-7, 0.7), z)
    torch.testing.assert_close(close, gradient(lambda z: F.cross_entropy(z, soft), z), atol=1e-6, rtol=0)
    # T without bound: the teacher's logits, and only because of T squared does anything stay
    matching = ((z - z.mean(1, keepdim=True)) - (v - v.mean(1, keepdim=True))) / 4 / 7
    torch.testing.assert_close(gradient(lambda z: distillation_loss(z, v, y, 1e4, 1.0), z), matching, atol=1e-4, rtol=0)
    # the teacher's own answers cannot be improved
    assert gradient(lambda z: distillation_loss(z, z.detach(), y, 5.0, 1.0), z).abs().max() < 1e-12


def test_the_teacher_gets_no_gradient_and_half_precision_is_enough():
    z, v = torch.randn(2, 3, 4, requires_grad=True).unbind(0)
    (unused,) = torch.autograd.grad(distillation_loss(z.detach().requires_grad_(), v, torch.zeros(3, dtype=torch.long)),
                                    v, allow_unused=True)
    assert unused is None
    low = distillation_loss(z.bfloat16(), v.bfloat16(), torch.tensor([0, 1, 2]))
    assert low.dtype == torch.float32 and low.isfinite()


@pytest.mark.parametrize("options, words", [
    ({"temperature": 0}, "temperature = 0"), ({"temperature": -1.0}, "temperature"), ({"temperature": math.inf}, "inf"),
    ({"temperature": math.nan}, "nan"), ({"temperature": 1e8}, "at most 1000"), ({"weight": -0.1}, "weight = -0.1"),
    ({"weight": 1.1}, "weight"), ({"weight": "1"}, "weight")])
def test_temperatures_and_weights_that_make_no_sense(options, words):
    z = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=words):
        distillation_loss(z, z, torch.tensor([0, 1]), **options)
    with pytest.raises(ValueError, match=words):
        Distillation(nn.Linear(1, 1), **options)


def test_what_is_no_teacher_and_a_batch_without_images():
    with pytest.raises(TypeError, match="an nn.Module, not a Learner; give the .model"):
        Distillation(make_learner())
    with pytest.raises(ValueError, match="no images"):
        distillation_loss(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))


def test_teacher_and_student_know_the_same_classes():
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(3 * 36, 5))
    learner = make_learner(Distillation(teacher))
    usual = learner.loss_fn
    with pytest.raises(ValueError, match=r"student gives \(5, 3\), the teacher \(5, 5\)"):
        learner.fit(1)
    assert learner.loss_fn is usual and teacher.training  # as it was, after an error too


def test_the_teacher_sees_the_students_images_and_stays_as_it_is():
    class Asked(nn.Sequential):
        def forward(self, x):
            seen.append((x, self.training, torch.is_grad_enabled()))
            return super().forward(x)

    seen, look = [], Look()
    teacher = Asked(nn.Flatten(), nn.BatchNorm1d(3 * 36), nn.Linear(3 * 36, 3))
    before = weights(teacher)
    learner = make_learner(BatchTricks(CutMix(), num_classes=3), Distillation(teacher, 2.0, 0.7), look, epochs=2)
    assert same(before, weights(teacher)) and teacher.training and len(seen) == len(look.seen) == 8
    for (x, training, grad), (mixed, target, _) in zip(seen, look.seen, strict=True):
        assert torch.equal(x, mixed) and not training and not grad and target.shape == (5, 3)
    with torch.no_grad():
        hard = sum(float(F.cross_entropy(learner.model.eval()(x), y)) for x, y in learner.valid_loader) / 2
    assert learner.results["valid_loss"] == pytest.approx(hard, rel=1e-6)


def test_a_teacher_elsewhere_is_refused():
    with pytest.raises(ValueError, match="The teacher is on meta"):
        make_learner(Distillation(nn.Linear(2, 3, device="meta")), epochs=1)


# ---------------------------------------------------------------------------------------------- AdaBound

SHAPES = ((7, 3), (5,), (), (2, 3, 3, 3))


def parameters(dtype=torch.double):
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in SHAPES]


def walk(optimizers, sets, steps, after=lambda step: None, scale=1.0):
    """The same gradients for each set of parameters."""
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        for one, *others in zip(*sets, strict=True):
            one.grad = scale * torch.randn(one.shape, generator=generator, dtype=one.dtype)
            for other in others:
                other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
        after(step)


@pytest.mark.slow
@pytest.mark.parametrize("amsbound", [False, True])
@pytest.mark.parametrize("weight_decay, decoupled", [(0.0, True), (0.1, True), (0.1, False)])
@pytest.mark.parametrize("gamma", [1e-3, 0.3])
def test_adabound_step_for_step_is_the_references(amsbound, weight_decay, decoupled, gamma):
    ours, theirs = parameters(), parameters()
    shared = {"lr": 3e-3, "betas": (0.8, 0.99), "final_lr": 0.05, "gamma": gamma, "weight_decay": weight_decay}
    pair = [AdaBound(ours, **shared, amsbound=amsbound, decoupled=decoupled),
            TheirAdaBound(theirs, **shared, ams_bound=amsbound, weight_decouple=decoupled)]

    def compare(step):
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
        for optimizer in pair:  # a schedule
            for group in optimizer.param_groups:
                group["lr"] = 3e-3 * (1 + math.cos(step / 7)) / 2 + 1e-5

    walk(pair, (ours, theirs), 60, compare)
    assert (ours[0] - parameters()[0]).abs().max() > 1e-2


@pytest.mark.parametrize("amsbound", [False, True])
def test_with_open_bounds_it_is_adam(amsbound):
    ours, theirs = parameters(), parameters()
    walk([AdaBound(ours, 1e-2, gamma=1e-13, weight_decay=0.1, amsbound=amsbound),
          torch.optim.AdamW(theirs, 1e-2, weight_decay=0.1, amsgrad=amsbound)], (ours, theirs), 30)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)  # eps stands at another place


def test_with_closed_bounds_it_is_sgd():
    """The running mean starts at 0, torch's momentum at the first gradient: so start it there."""
    ours, theirs = parameters(), parameters()
    bound = AdaBound(ours, 1e-3, final_lr=0.05, gamma=1e13)
    sgd = torch.optim.SGD(theirs, 0.05, momentum=0.9, dampening=0.9)
    for p in theirs:
        sgd.state[p]["momentum_buffer"] = torch.zeros_like(p)
    walk([bound, sgd], (ours, theirs), 30)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_it_goes_from_one_to_the_other():
    """How far its steps are from Adam's and from SGD's, early and late."""
    def distances(skip):
        p, adam = nn.Parameter(torch.zeros(2000)), nn.Parameter(torch.zeros(2000))
        optimizers = [AdaBound([p], 1e-3, final_lr=0.1, gamma=1e-2), torch.optim.Adam([adam], 1e-3)]
        walk(optimizers, ([p], [adam]), 5, scale=0.01)
        for optimizer, q in zip(optimizers, (p, adam), strict=True):
            optimizer.state[q]["step"] += skip
        before = p.detach().clone(), adam.detach().clone()
        walk(optimizers, ([p], [adam]), 1, scale=0.01)
        step = before[0] - p.detach()
        mean = optimizers[0].state[p]["mean"]
        return float((step - (before[1] - adam.detach())).norm() / step.norm()), float((step / mean - 0.1).abs().max())

    early, late = distances(0), distances(10**8)
    assert early[0] < 1e-3 < early[1] and late[1] < 1e-4 < late[0]


def test_bounds_close_in_on_the_final_rate():
    before = (0.0, math.inf)
    for step in (1, 10, 1000, 10**6, 10**9):
        low, high = rate_bounds(step, 0.2, 1e-3)
        assert before[0] < low < 0.2 < high < before[1]
        before = low, high
    assert high - low < 1e-6


def test_the_final_rate_follows_the_schedule_and_the_base_is_saved():
    p = nn.Parameter(torch.zeros(3))
    optimizer = AdaBound([{"params": [p], "lr": 0.01}], final_lr=0.1, gamma=1e13)
    optimizer.param_groups[0]["lr"] = 0.001
    again = AdaBound([{"params": [nn.Parameter(torch.zeros(3))], "lr": 0.001}], final_lr=0.1, gamma=1e13)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert again.param_groups[0]["base_lr"] == 0.01
    p.grad = torch.ones(3)
    optimizer.step()
    torch.testing.assert_close(p.detach(), torch.full((3,), -0.01 * 0.1))  # a tenth of the rate, and of the final one


def test_weights_that_learn_now_and_then_and_a_rate_of_zero():
    one, two = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    optimizer = AdaBound([one, two], 0.1)
    one.grad = torch.ones(2)
    optimizer.step()
    two.grad = torch.ones(2)
    optimizer.step()
    assert (optimizer.state[one]["step"], optimizer.state[two]["step"]) == (2, 1)
    torch.testing.assert_close(two.detach(), torch.full((2,), -0.1) + 0 * two.detach(), atol=1e-3, rtol=0)
    before = one.detach().clone()
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    assert torch.equal(one, before) and optimizer.state[one]["step"] == 3
    assert float(optimizer.step(lambda: torch.tensor(5.0))) == 5.0


@pytest.mark.parametrize("options", [{"lr": 0}, {"lr": -1.0}, {"final_lr": 0}, {"final_lr": math.nan}, {"gamma": 0},
                                     {"betas": (1.0, 0.9)}, {"betas": (0.9,)}, {"eps": 0}, {"weight_decay": -1}])
def test_an_optimiser_refuses_numbers_that_make_no_sense(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        AdaBound([nn.Parameter(torch.zeros(1))], **options)


def test_sparse_gradients_are_refused():
    table = nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match="sparse"):
        AdaBound(table.parameters()).step()


# ---------------------------------------------------------------------------------------------- average of the weights

class Diary(Callback):
    """The weights after each step."""
    order = 99

    def before_fit(self, learner):
        self.pages = []

    def after_step(self, learner):
        self.pages.append(weights(learner.model))


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_the_average_is_the_closed_form_and_torchs(decay):
    diary, shadow = Diary(), AveragedModel(make_learner().model, avg_fn=get_ema_avg_fn(decay), use_buffers=True)

    class Beside(Callback):
        def after_step(self, learner):
            shadow.update_parameters(learner.model)

    learner = make_learner(WeightAverage(decay), diary, Beside(), epochs=3)
    factors = [decay ** (len(diary.pages) - 1)]
    factors += [(1 - decay) * decay ** (len(diary.pages) - n) for n in range(2, len(diary.pages) + 1)]
    assert sum(factors) == pytest.approx(1)
    theirs = dict(shadow.module.named_parameters()) | dict(shadow.module.named_buffers())
    for name, found in weights(learner.model).items():
        if found.is_floating_point():
            expected = sum(factor * page[name].double() for factor, page in zip(factors, diary.pages, strict=True))
            torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(found, theirs[name].detach(), rtol=1e-5, atol=1e-6)


def test_the_training_itself_is_the_same():
    with_average, without = Diary(), Diary()
    one, two = make_learner(WeightAverage(0.9), with_average, epochs=3), make_learner(without, epochs=3)
    assert all(same(a, b) for a, b in zip(with_average.pages, without.pages, strict=True))
    assert not same(weights(one.model), weights(two.model))


@pytest.mark.parametrize("validated", [True, False])
def test_what_is_validated_is_what_is_saved_and_left(validated, tmp_path):
    average = WeightAverage(0.8)
    learner = make_learner(average, Checkpoint(tmp_path, monitor=None if validated else "train_loss"))
    if not validated:
        learner.valid_loader = None
    learner.fit(3, lr=0.05)
    saved = load_checkpoint(tmp_path / "last.safetensors")[0]
    assert same(saved, weights(learner.model)) and average.average is None
    if validated:
        assert learner.evaluate()["valid_loss"] == pytest.approx(learner.results["valid_loss"], rel=1e-6)
        other = make_learner()
        other.model.load_state_dict(load_checkpoint(tmp_path / "best.safetensors")[0])
        assert other.evaluate()["valid_loss"] == pytest.approx(min(row["valid_loss"] for row in learner.recorder.rows))


def test_an_evaluation_between_batches_does_no_harm():
    class Nosy(Callback):
        def after_batch(self, learner):
            learner.evaluate()

    plain, nosy = Diary(), Diary()
    one = make_learner(WeightAverage(0.9), plain, epochs=2)
    two = make_learner(WeightAverage(0.9), nosy, Nosy(), epochs=2)
    assert all(same(a, b) for a, b in zip(plain.pages, nosy.pages, strict=True))
    assert same(weights(one.model), weights(two.model))


@pytest.mark.parametrize("decay", [1.0, -0.1, "0.9", True, math.nan])
def test_a_decay_that_makes_no_sense(decay):
    with pytest.raises(ValueError, match="decay = "):
        WeightAverage(decay)


# ---------------------------------------------------------------------------------------------- several views

def test_the_answer_is_the_mean_over_the_views():
    x = batch(4, 6, 6)[0]
    model = make_learner().model.eval()
    for axes in ([], [[3]], [[3], [2], [2, 3]]):
        each = [model(x.flip(some)).softmax(1) for some in ([], *axes)]
        torch.testing.assert_close(FlipTTA(model, axes)(x).softmax(1), sum(each) / len(each))
        torch.testing.assert_close(FlipTTA(model, axes)(x).exp().sum(1), torch.ones(4))


# ---------------------------------------------------------------------------------------------- cached features

@pytest.fixture
def image_learner():
    def make(*callbacks):
        pictures = np.random.default_rng(0).integers(0, 256, (40, 40, 40, 3), dtype=np.uint8)
        torch.manual_seed(0)
        classifier = create_classifier("efficientnet_lite0", 3, pretrained=False, dropout=0.0)
        train_last(classifier, 0)
        loaders = [ImageLoader(pictures, np.arange(40) % 3, rows, BatchTransform(32, (0.5,) * 3, (0.5,) * 3, changes),
                               8, shuffle=changes is not None, prefetch=0, classes=("a", "b", "c"))
                   for rows, changes in ((np.arange(32), Augmentation()), (np.arange(32, 40), None))]
        return Learner(classifier, *loaders, metrics=[error_rate], callbacks=callbacks, progress=False)
    return make


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The teacher does not say how its images")
@pytest.mark.parametrize("tricks, cached", [
    ([BatchTricks(LabelSmoothing(0.1))], True), ([WeightAverage(0.9)], True), ([BatchTricks(Mixup())], False),
    ([BatchTricks(LabelSmoothing(0.1), Cutout(0.5))], False),
    ([Distillation(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3)))], False)])
def test_only_what_leaves_images_alone_runs_on_cached_features(tricks, cached, image_learner):
    learner, said = image_learner(*tricks), []
    with cached_features(learner, echo=said.append) as found:
        assert found is cached
        learner.fit(1)
    assert cached or f"{type(tricks[0]).__name__} wants to see the images" in said[0]


def test_an_average_over_cached_features_reaches_the_whole_model(image_learner):
    learner = image_learner(WeightAverage(0.9))
    with cached_features(learner):
        learner.fit(2, lr=0.01)
        inside = learner.evaluate()["valid_loss"]
    assert learner.evaluate()["valid_loss"] == pytest.approx(inside, rel=1e-3)


# ---------------------------------------------------------------------------------------------- names, pictures

@pytest.mark.parametrize("name, said", [("mixupp", "'mixup'"), ("labelsmoothing", "'label_smoothing'"),
                                        ("randaugment", "'rand_augment'"), ("zzz", "There are: label_smoothing")])
def test_an_unknown_name_is_answered_with_the_nearest(name, said):
    with pytest.raises(ValueError, match=f"no trick '{name}'.*{said}"):
        parse_trick_names(["ema", name])
    assert parse_trick_names(" Mixup,,ema ,mixup") == ("mixup", "ema") and parse_trick_names(()) == ()


def test_targets_in_words():
    assert _target_text(torch.tensor([0.001, 0.999])) == "1 100%"
    assert _target_text(torch.tensor([0.4, 0.4, 0.2]), "abc") == "a 40%\nb 40% …"


def picture_options():
    x, y = batch(7, 16, 24, 3)
    return (x, y, ("a", "b", "c")), {"mean": (0.5,) * 3, "std": (0.5,) * 3}


def test_the_rows_show_batches_before_and_after():
    import matplotlib.pyplot as plt

    (x, y, classes), options = picture_options()
    axes = plot_tricks({"before": (x, y), "after": Mixup(1.0)(x, y)}, classes, columns=4, **options)
    assert axes.shape == (2, 4) and axes[0][0].get_ylabel() == "before" and "100%" in axes[0][0].get_xlabel()
    np.testing.assert_allclose(axes[0][2].images[0].get_array(), (x[2] / 2 + 0.5).permute(1, 2, 0), atol=1e-6)
    plt.close("all")


@pytest.mark.slow
def test_the_sliders_change_the_picture():
    pytest.importorskip("ipywidgets")
    arguments, options = picture_options()
    playground = _make_playground(*arguments, **options)
    choice, strength, seed, picture = playground.children
    pictures = [bytes(picture.value)]
    for name in BATCH_TRICKS:
        choice.value = name
        kind = BATCH_TRICKS[name]
        assert (strength.min, strength.max, strength.value) == (kind.lowest, kind.highest, kind.usual)
        assert strength.disabled == (not kind.strength)
    choice.value = "cutout"
    for slider, value in ((strength, 0.2), (seed, 5)):
        pictures.append(bytes(picture.value))
        slider.value = value
    pictures.append(bytes(picture.value))
    assert len(set(pictures)) == 4 and all(one.startswith(b"\x89PNG") and len(one) < 100_000 for one in pictures)
    (x, y, classes), before = arguments, torch.get_rng_state()
    assert _draw_trick("cutout", 0.2, 5, x, y, classes, **options) == pictures[-1]
    assert torch.equal(torch.get_rng_state(), before)
    playground.close()


@pytest.mark.parametrize("live", [False, True])
def test_without_a_kernel_the_playground_is_a_picture(live, monkeypatch):
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda *things, **options: shown.extend(things))
    arguments, options = picture_options()
    explore_tricks(*arguments, **options, live=live)
    if live:
        assert "application/vnd.jupyter.widget-view+json" in shown[0] and shown[0]["image/png"].startswith("iVBOR")
    else:
        assert type(shown[0]).__name__ == "Image" and shown[0].data.startswith(b"\x89PNG")


# ---------------------------------------------------------------------------------------------- the script

@pytest.fixture(scope="module")
def script():
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "tricks.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_tricks", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("question, runs", [("scratch", "TRIALS, seeds="), ("labels", "PUPILS, seeds=")])
def test_the_script_finds_the_lessons_cells(script, question, runs):
    found = script.cells(question)
    assert len(set(found)) == len(found) == 1 + len(script.MARKS[question]) and any(runs in source for source in found)
    for source in found:
        compile(source, "cell", "exec")


def test_the_script_says_what_a_trick_costs(script):
    found = script.cost(size=32, batch_size=2, rounds=1)
    assert found["share_of_a_step"].keys() == found["trick_seconds"].keys() == BATCH_TRICKS.keys()
    assert found["step_seconds"] > 0 and found["adabound_over_adamw"] > 0


@given(st.integers(1, 30), st.integers(32, 600), st.floats(0.05, 1), st.floats(0, 1))
def test_images_grow_to_the_whole(epochs, side, start, share):
    trick = ProgressiveResizing(start, share)
    sides = [trick.side(side, epoch, epochs) for epoch in range(epochs)]
    assert sides == sorted(sides) and all(32 <= one <= side for one in sides)
    assert all(one == side for one in sides[int(share * epochs):])
    assert all(one == side or one % 16 == 0 for one in sides)
    if int(share * epochs):
        assert abs(sides[0] - min(side, max(32, start * side))) <= 8


def test_the_network_learns_from_small_images_and_is_validated_on_whole_ones():
    class Watch(nn.Module):
        def forward(self, x):
            seen.append((self.training, x.shape[-1]))
            return x

    seen, x = [], torch.randn(8, 3, 96, 96).contiguous(memory_format=torch.channels_last)
    batches = [(x, torch.arange(8) % 3)]
    model = nn.Sequential(Watch(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    learner = Learner(model, batches, batches, callbacks=[ProgressiveResizing()], progress=False)
    learner.fit(4)
    assert seen == [(True, 48), (False, 96), (True, 64), (False, 96), (True, 80), (False, 96), (True, 96), (False, 96)]
    learner.fit(1)
    assert seen[-2:] == [(True, 96), (False, 96)]


@pytest.mark.slow
def test_small_images_need_images(image_learner):
    learner, said = image_learner(ProgressiveResizing()), []
    with cached_features(learner, echo=said.append) as found:
        assert not found and "ProgressiveResizing wants to see the images" in said[0]


@pytest.mark.parametrize("options", [{"start": 0}, {"start": 1.5}, {"share": -1}, {"share": 2}, {"start": "half"}])
def test_parts_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ProgressiveResizing(**options)
