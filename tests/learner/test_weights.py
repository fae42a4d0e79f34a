"""Weights and images that become nothing else: averages, frozen parts, teachers, training loaders that are measured."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from course_lib.data import Augmentation, BatchTransform, ImageLoader
from course_lib.learner import Learner
from course_lib.learner.features import cached_features, train_last
from course_lib.models import Classifier, create_classifier
from course_lib.pooling import CompactBilinearPool
from course_lib.tricks import Distillation, FlipTTA, WeightAverage


def batches(shape, count=6, size=8, classes=3):
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(size, *shape, generator=generator), torch.arange(size) % classes) for _ in range(count)]


# Averages

@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.95, 0.99])
def test_buffers_that_are_no_measures_are_the_models_own(decay):
    """pytorch/ignite#2590"""
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool, self.norm, self.linear = CompactBilinearPool(6, 30), nn.BatchNorm1d(30), nn.Linear(30, 3)
            self.register_buffer("steps", torch.tensor(1000))
            self.register_buffer("mask", torch.tensor([True, False, True]))
            self.register_buffer("causal", torch.tensor([0.0, -torch.inf, torch.nan]))

        def forward(self, x):
            self.steps += self.training
            return self.linear(self.norm(self.pool(x)))

    model = Odd()
    before = {name: tensor.clone() for name, tensor in model.named_buffers()}
    Learner(model, batches((6, 2, 2)), progress=False, callbacks=[WeightAverage(decay)]).fit(2)
    for name in ("pool.first.buckets", "pool.second.buckets", "pool.first.signs", "mask", "causal"):
        torch.testing.assert_close(model.get_buffer(name), before[name], rtol=0, atol=0, equal_nan=True)
    assert int(model.steps) == 1012 and int(model.norm.num_batches_tracked) == 12  # of the last step
    assert not torch.equal(model.norm.running_mean, before["norm.running_mean"])


@pytest.mark.parametrize("kind", ["plain", "tied", "parametrised"])
def test_the_average_is_the_formula(kind):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    if kind == "tied":
        model[1].weight = model[0].weight
    if kind == "parametrised":
        parametrizations.weight_norm(model[0])
    seen = []

    class Average(WeightAverage):
        def after_step(self, learner):
            super().after_step(learner)
            seen.append([parameter.detach().clone() for parameter in learner.model.parameters()])
    Learner(model, batches((4,), classes=4), progress=False, callbacks=[Average(0.8)]).fit(2, 0.1)
    expected = seen[0]
    for own in seen[1:]:
        expected = [0.8 * mean + 0.2 * value for mean, value in zip(expected, own, strict=True)]
    torch.testing.assert_close(list(model.parameters()), expected)
    assert kind != "tied" or model[1].weight is model[0].weight


def test_an_average_that_rounding_would_stop_is_warned_of():
    half = [(x.bfloat16(), y) for x, y in batches((4,))]
    with pytest.warns(UserWarning, match="rounded away"):
        Learner(nn.Linear(4, 3).bfloat16(), half, progress=False, callbacks=[WeightAverage(0.99)]).fit(1)


# What is frozen

FAMILIES = ["vit_tiny_patch16_224", "timm/swin_tiny_patch4_window7_224", "timm/mixer_s32_224",
            "timm/beit_base_patch16_224", "timm/cait_xxs24_224", "timm/convnext_atto", "timm/pvt_v2_b0", "vit_b_16",
            "swin_t", "resnet18", "efficientnet_lite0"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_nothing_of_a_frozen_body_learns(name):
    """open-mmlab/mmpretrain#1692, huggingface/pytorch-image-models#876"""
    model = create_classifier(name, 2, pretrained=False)
    blocks = train_last(model, 0)
    assert blocks > 0 and [n for n, p in model.named_parameters() if p.requires_grad] == [
        n for n, _ in model.named_parameters() if n.startswith("head.")]
    train_last(model, 1)
    assert all(p.requires_grad for p in model.parameters())
    assert 0 < train_last(model, 0.5) < blocks
    learning = {n for n, p in model.body.named_parameters() if p.requires_grad}
    tokens = ("cls_token", "class_token", "pos_embed")
    assert learning and not [n for n in learning if blocks > 2 and any(word in n for word in tokens)]


class Tokens(nn.Module):
    """A small transformer-like body: a class token that belongs to no block."""

    def __init__(self):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 8))
        self.first, self.second = nn.Linear(3, 8), nn.Linear(8, 8)

    def forward(self, x):
        return self.second(torch.relu(self.first(x.mean((2, 3))) + self.cls_token))


def test_a_class_token_stays_bit_for_bit_and_one_that_learns_is_not_cached():
    model = Classifier(Tokens(), nn.Linear(8, 3))
    train_last(model, 0)
    before = [p.clone() for p in model.body.parameters()]
    Learner(model, batches((3, 4, 4)), progress=False).fit(2, 0.1)
    assert all(torch.equal(a, b) for a, b in zip(before, model.body.parameters(), strict=True))
    pictures = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    loader = ImageLoader(pictures, np.arange(12) % 3, np.arange(12), BatchTransform(8, (0.5,) * 3, (0.5,) * 3), 4,
                         prefetch=0)
    learner = Learner(model, loader, progress=False)
    with cached_features(learner) as cached:
        assert cached
    model.body.cls_token.requires_grad_(True)
    with cached_features(learner) as cached:
        assert not cached
        learner.fit(1, 0.1)
    assert not torch.equal(before[0], model.body.cls_token)


# Teachers

def seen_by(teacher, student, x, wrap=lambda model: model, loader=None):
    """What the teacher's body is shown for x."""
    shown = []
    hook = teacher.body.register_forward_pre_hook(lambda module, inputs: shown.append(inputs[0].clone()))
    Learner(student, loader or [(x, torch.tensor([0, 1]))], progress=False,
            callbacks=[Distillation(wrap(teacher))]).fit(1)
    hook.remove()
    return shown[0]


@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: FlipTTA(model, [[3]])], ids=["plain", "flips"])
def test_the_teacher_sees_the_colours_that_the_student_sees(wrap):
    """lightly-ai/lightly-train#901, Deci-AI/super-gradients#183"""
    teacher = create_classifier("efficientnet_lite0", 2, pretrained=False)
    student = create_classifier("resnet18", 2, pretrained=False)
    pixels = torch.rand(2, 3, 32, 32)
    per_channel = lambda values: torch.tensor(values).view(3, 1, 1)
    normalised = lambda body: (pixels - per_channel(body.mean)) / per_channel(body.std)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown = seen_by(teacher, student, normalised(student.body), wrap)
        torch.testing.assert_close(shown, normalised(teacher.body), rtol=1e-4, atol=1e-5)
        twin = create_classifier("efficientnet_lite0", 2, pretrained=False)
        assert torch.equal(seen_by(teacher, twin, normalised(teacher.body)), normalised(teacher.body))


def test_the_loader_knows_best_how_its_images_are_normalised():
    teacher = create_classifier("efficientnet_lite0", 2, pretrained=False)
    student = Classifier(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(4, 2))
    white = np.full((2, 32, 32, 3), 255, dtype=np.uint8)
    loader = ImageLoader(white, np.arange(2), np.arange(2), BatchTransform(32, (0.1, 0.2, 0.3), (0.2, 0.4, 0.6)), 2,
                         prefetch=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown = seen_by(teacher, student, None, loader=loader)
    torch.testing.assert_close(shown, torch.ones(2, 3, 32, 32), rtol=1e-4, atol=1e-4)


def test_a_normalisation_that_nobody_says_is_warned_of_where_one_does():
    teacher = create_classifier("efficientnet_lite0", 2, pretrained=False)
    plain = Classifier(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(4, 2))
    with pytest.warns(UserWarning, match="student does not say how its images are normalised"):
        seen_by(teacher, plain, torch.rand(2, 3, 32, 32))


def test_images_and_classes_that_a_teacher_cannot_take():
    student = create_classifier("efficientnet_lite0", 2, pretrained=False)
    data = [(torch.rand(2, 3, 32, 32), torch.tensor([0, 1]))]

    class Wide(nn.Module):
        def forward(self, x):
            assert x.shape[-1] == 224, "Input height (32) doesn't match model (224)."
            return x.mean((2, 3))[:, :2]
    with pytest.warns(UserWarning, match="teacher does not say"), pytest.raises(
            ValueError, match=r"teacher cannot take the student's images \(2, 3, 32, 32\).*224"):
        Learner(student, data, progress=False, callbacks=[Distillation(Wide())]).fit(1)
    teacher = create_classifier("efficientnet_lite0", 2, pretrained=False)
    teacher.classes = ("dog", "cat")
    pictures = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    loader = ImageLoader(pictures, np.arange(2), np.arange(2), BatchTransform(32, (0.5,) * 3, (0.5,) * 3), 2,
                         classes=("cat", "dog"), prefetch=0)
    with pytest.raises(ValueError, match="the same classes in one order"):
        Learner(student, loader, progress=False, callbacks=[Distillation(teacher)]).fit(1)


# The training images, measured

def test_the_training_images_are_predicted_plain_whole_and_in_order():
    """fastai/fastai#1914, #3051"""
    pictures = np.random.default_rng(0).integers(0, 256, (11, 16, 16, 3), dtype=np.uint8)
    targets, indices = np.arange(11) % 3, np.array([9, 2, 5, 0, 7, 1, 10])
    transform = BatchTransform(12, (0.5,) * 3, (0.5,) * 3, Augmentation())
    loader = ImageLoader(pictures, targets, indices, transform, 3, shuffle=True, prefetch=0, epoch=4)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    learner = Learner(model, loader, progress=False)
    got = learner.predict(loader)
    assert got.targets.tolist() == targets[indices].tolist() and loader.epoch == 4 and loader.shuffle
    plain = BatchTransform(12, (0.5,) * 3, (0.5,) * 3)(torch.from_numpy(pictures[indices]))
    torch.testing.assert_close(got.logits, model(plain).detach())
    assert learner.evaluate(loader)["valid_loss"] == pytest.approx(
        nn.functional.cross_entropy(model(plain), got.targets).item())
