"""Backbones, heads, classifiers: any grid, freezing, groups, refusals."""
from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course_lib.core.protocols import FixedLayer, HasParameterGroups
from course_lib.models import (
    LITE_SIZES,
    Backbone,
    Classifier,
    GlobalPool,
    body_blocks,
    count_parameters,
    create_backbone,
    create_classifier,
    create_head,
    output_shape,
    split_body,
    summarize,
)


@pytest.fixture(scope="module")
def lite0() -> Backbone:
    return create_backbone("efficientnet_lite0")


# ---------------------------------------------------------------- bodies

@pytest.mark.parametrize("x", [
    torch.zeros(1, 64, 64, 3), torch.zeros(3, 64, 64), torch.zeros(1, 1, 64, 64),
    torch.zeros(1, 3, 64, 64, dtype=torch.uint8)])
def test_images_in_another_form_are_refused(x, lite0):
    with pytest.raises(ValueError, match=r"efficientnet_lite0 takes normalised float images of shape \(N, 3"):
        lite0(x)


# ---------------------------------------------------------------- heads

@settings(max_examples=40, deadline=None)
@given(features=st.integers(1, 40), classes=st.integers(2, 12), batch=st.integers(1, 4), height=st.integers(1, 9),
       width=st.integers(1, 9), pool=st.sampled_from(["avg", "max", "avgmax"]), hidden=st.none() | st.integers(1, 20))
def test_head_takes_any_grid(features, classes, batch, height, width, pool, hidden):
    head = create_head(features, classes, pool=pool, hidden=hidden).eval()
    x = torch.rand(batch, features, height, width)
    assert head(x).shape == (batch, classes)
    pooled = {"avg": F.adaptive_avg_pool2d(x, 1), "max": F.adaptive_max_pool2d(x, 1)}
    wanted = torch.cat([pooled[kind].flatten(1) for kind in ("avg", "max") if kind in pool], 1)
    torch.testing.assert_close(GlobalPool(pool)(x), wanted)
    torch.testing.assert_close(head(x.to(memory_format=torch.channels_last)), head(x))


@pytest.mark.parametrize("pool", ["avg", "avgmax"])
@pytest.mark.parametrize("hidden", [None, 64])
def test_a_new_head_starts_undecided(lite0, pool, hidden):
    torch.manual_seed(0)
    model = create_classifier(lite0, 7, pool=pool, hidden=hidden).eval()
    with torch.no_grad():
        loss = F.cross_entropy(model(torch.rand(8, 3, 96, 96) * 2 - 1), torch.arange(8) % 7)
    assert abs(loss - math.log(7)) < 0.1


@pytest.mark.parametrize("num_classes", [1, 0, -3, 2.0, True, None, "4"])
def test_class_counts_that_make_no_sense(num_classes, lite0):
    for make in (lambda: create_head(8, num_classes), lambda: create_classifier(lite0, num_classes)):
        with pytest.raises(ValueError, match="num_classes = .*two or more"):
            make()


def test_class_count_is_checked_before_the_backbone_is_made():
    with pytest.raises(ValueError, match="num_classes = 1"):
        create_classifier("no such network", 1)


@pytest.mark.parametrize("options, message", [
    ({"pool": "mean"}, "pool = 'mean' is not known"), ({"hidden": 0}, "hidden = 0"), ({"hidden": 2.5}, "hidden = 2.5"),
    ({"dropout": 1.0}, "dropout = 1.0"), ({"dropout": -0.1}, "dropout = -0.1")])
def test_head_options_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        create_head(8, 3, **options)


def test_pooling_a_vector_is_refused():
    with pytest.raises(ValueError, match=r"pool=None"):
        create_head(8, 3)(torch.zeros(2, 8))
    assert create_head(8, 3, pool=None)(torch.zeros(2, 8)).shape == (2, 3)


# ---------------------------------------------------------------- classifiers

@pytest.mark.slow
@pytest.mark.parametrize("name, hidden", [
    ("efficientnet_lite0", None), ("efficientnet_lite2", 32), ("resnet18", None), ("densenet121", None),
    ("mobilenet_v3_small", 16), ("vit_b_32", None), ("swin_t", None), ("test_vit", None), ("test_mambaout", None),
    ("convnext_atto", None), ("vgg11", None)])
def test_parameter_groups_are_a_partition(name, hidden):
    with torch.device("meta" if name in ("vit_b_32", "swin_t", "vgg11") else "cpu"):
        model = create_classifier(name, 5, pretrained=False, hidden=hidden)
    groups = model.parameter_groups()
    assert len(groups) == 3 and all(groups)
    ids = [id(p) for group in groups for p in group]
    assert len(ids) == len(set(ids)) and set(ids) == {id(p) for p in model.parameters()}
    assert {id(p) for p in groups[2]} == {id(p) for p in model.head.parameters()}
    blocks = [block for half in split_body(model.body) for block in half]
    inside = [id(m) for block in blocks for m in block.modules()]
    assert len(inside) == len(set(inside)), "a block is listed twice"


def test_early_comes_before_late(lite0):
    """No block of the late half has run when the last of the early half runs."""
    order, model = [], create_classifier(lite0, 2).eval()
    halves = split_body(model.body)
    for half, blocks in enumerate(halves):
        for block in blocks:
            block.register_forward_hook(lambda *_, half=half: order.append(half))
    with torch.no_grad():
        model(torch.zeros(1, 3, 64, 64))
    assert order == sorted(order) and set(order) == {0, 1}
    early, late = halves
    assert early[0] is lite0.network.conv_stem and late[-1] is not early[-1]


def test_blocks_are_whole_blocks(lite0):
    """A stage that holds one block only is that block, not the layers inside it; EfficientNet-Lite0 has 16 of them."""
    kinds = [type(block).__name__ for block in body_blocks(lite0)]
    assert kinds.count("InvertedResidual") + kinds.count("DepthwiseSeparableConv") == 16
    with torch.device("meta"):
        kinds = [type(block).__name__ for block in body_blocks(create_backbone("resnet18", pretrained=False))]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d", *["BasicBlock"] * 8]
    assert body_blocks(nn.Sequential(nn.Sequential(nn.ReLU()), nn.Tanh()))[0].__class__ is nn.ReLU


def test_one_frozen_block_holds_still_among_trained_ones():
    torch.manual_seed(0)
    model = create_classifier("resnet18", 3, pretrained=False)
    blocks = body_blocks(model.body)
    for p in blocks[6].parameters():
        p.requires_grad_(False)
    before = [copy_of(block.state_dict()) for block in blocks]
    train_steps(model, 2)
    moved = [any(not torch.equal(v, old[k]) for k, v in block.state_dict().items())
             for block, old in zip(blocks, before, strict=True) if old]
    assert moved == [True] * 4 + [False] + [True] * 5


@pytest.mark.parametrize("shared", [False, True])
def test_groups_of_an_odd_body(shared):
    """Parameters that belong to no block, and blocks that share theirs, are still listed once."""
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.zeros(3))
            self.a, self.b, self.c = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.ReLU()
            if shared:
                self.b.weight = self.a.weight

        def forward(self, x):
            return self.c(self.b(self.a(x + self.token.view(1, 3, 1, 1))))

    model = Classifier(Odd(), create_head(3, 2))
    ids = [id(p) for group in model.parameter_groups() for p in group]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())
    assert Classifier(nn.Conv2d(3, 4, 1), create_head(4, 2)).parameter_groups()[0] == []  # one block: nothing is early


def train_steps(model: Classifier, steps: int = 3) -> None:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.5)
    for _ in range(steps):
        model.train()
        x = torch.randn(4, 3, 64, 64).to(memory_format=torch.channels_last)
        loss = F.cross_entropy(model(x), torch.randint(0, model.num_classes, (4,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def copy_of(state) -> dict[str, torch.Tensor]:
    return {k: v.detach().clone() for k, v in state.items()}


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "mobilenet_v3_small", "test_vit"])
def test_a_frozen_body_is_bit_identical_after_training(name):
    torch.manual_seed(0)
    model = create_classifier(name, 3, pretrained=name in LITE_SIZES, hidden=8)
    if name == "test_vit":
        model.body.forward = lambda x: model.body.network(F.interpolate(x, 160))
    for p in model.body.parameters():
        p.requires_grad_(False)
    body, head = copy_of(model.body.state_dict()), copy_of(model.head.state_dict())
    train_steps(model)
    assert all(torch.equal(value, body[k]) for k, value in model.body.state_dict().items())
    assert any(k.endswith("running_mean") for k in body) or name == "test_vit"
    assert all(not torch.equal(value, head[k]) for k, value in model.head.state_dict().items()), "the head must learn"
    assert not any(part.training for part in model.body.modules()) and model.head.training


def test_plain_train_would_move_the_statistics(lite0):
    """The planted bug of the lesson is a real one: with nn.Module.train the same steps change the body."""
    class Plain(Classifier):
        train = nn.Module.train

    model = Plain(create_backbone(lite0.name), create_head(1280, 3))
    for p in model.body.parameters():
        p.requires_grad_(False)
    before = copy_of(model.body.state_dict())
    train_steps(model, 1)
    moved = {k.rpartition(".")[2] for k, v in model.body.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {"running_mean", "running_var", "num_batches_tracked"}


def test_freezing_one_half_holds_that_half_only():
    torch.manual_seed(0)
    model = create_classifier("efficientnet_lite0", 3, pretrained=False)
    for p in model.parameter_groups()[0]:
        p.requires_grad_(False)
    early, late = split_body(model.body)
    states = [[copy_of(block.state_dict()) for block in half] for half in (early, late)]
    train_steps(model, 2)
    same = [[all(torch.equal(v, old[k]) for k, v in block.state_dict().items())
             for block, old in zip(half, olds, strict=True) if old]
            for half, olds in zip((early, late), states, strict=True)]
    assert all(same[0]) and not any(same[1])


def test_a_block_without_parameters_goes_with_the_one_before_it():
    body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout(), nn.Conv2d(4, 4, 1), nn.Dropout())
    model = Classifier(body, create_head(4, 2))
    for p in body[0].parameters():
        p.requires_grad_(False)
    model.train()
    assert [part.training for part in body] == [False, False, True, True]


def test_modes_follow_what_is_trained():
    model = create_classifier("efficientnet_lite0", 3, pretrained=False)
    assert model.train() is model and all(part.training for part in model.modules())
    for p in model.head.parameters():
        p.requires_grad_(False)
    model.train()
    assert not any(part.training for part in model.head.modules()) and model.body.training
    for p in model.parameters():
        p.requires_grad_(True)
    model.train()
    assert all(part.training for part in model.modules())  # unfrozen again: back in training mode
    assert not any(part.training for part in model.eval().modules())


def test_channels_last_from_weights_to_feature_map(lite0):
    model = create_classifier("efficientnet_lite0", 3)
    kernels = [p for p in model.parameters() if p.ndim == 4]
    assert kernels and all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)
    x = torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last)
    model.eval()
    with torch.no_grad():
        features = model.body(x)
        assert features.is_contiguous(memory_format=torch.channels_last) and not features.is_contiguous()
        torch.testing.assert_close(model.body(x.contiguous()), features, rtol=1e-3, atol=1e-3)


def test_classifier_from_parts(lite0):
    model = create_classifier(lite0, 5)
    assert model.body is lite0 and model.num_classes == 5
    assert Classifier(lite0, nn.Sequential(GlobalPool(), nn.Linear(1280, 9))).num_classes == 9
    assert Classifier(lite0, GlobalPool(), num_classes=1280).num_classes == 1280
    with pytest.raises(ValueError, match="give num_classes"):
        Classifier(lite0, GlobalPool())


def test_a_body_first_and_the_classes_later():
    """Where the classes are not known yet the body alone will do; what comes of it is what a name gives at once."""
    body = create_backbone("efficientnet_lite0")
    assert body.input_size == 224 and body.mean == body.std == (0.5, 0.5, 0.5)
    torch.manual_seed(0)
    late = create_classifier(body, 5)
    assert late.body is body and late.num_classes == 5
    whole = create_backbone("efficientnet_lite0")
    torch.manual_seed(0)
    other = create_classifier(whole, 5)
    assert str(late) == str(create_classifier("efficientnet_lite0", 5)) == str(other)
    for mine, theirs in zip(late.state_dict().items(), other.state_dict().items(), strict=True):
        assert mine[0] == theirs[0] and torch.equal(mine[1], theirs[1]) and mine[1].stride() == theirs[1].stride()


def test_a_classifier_and_its_pooling_promise_what_other_rooms_ask_for():
    model = Classifier(nn.Conv2d(3, 4, 1), create_head(4, 2, hidden=3))
    assert isinstance(model, HasParameterGroups)
    fixed = [name for name, layer in model.head.named_children() if isinstance(layer, FixedLayer)]
    assert fixed == ["pool"] and model.head.pool.learns_nothing


def test_a_vector_body_needs_no_pooling():
    with torch.device("meta"):
        model = create_classifier("vit_b_32", 4, pretrained=False, pool="avgmax")
    assert "pool" not in dict(model.head.named_children()) and output_shape(model, 224) == (1, 4)


# ---------------------------------------------------------------- looking at a model

def test_output_shape_leaves_the_module_as_it_was(lite0):
    model = create_classifier("efficientnet_lite0", 3, pretrained=False).train()
    model.head.eval()
    modes, state = [part.training for part in model.modules()], copy_of(model.state_dict())
    assert output_shape(model, 64, batch_size=3) == (3, 3)
    assert modes == [part.training for part in model.modules()]
    assert all(torch.equal(v, state[k]) and v.device.type == "cpu" for k, v in model.state_dict().items())


def test_output_shape_restores_modes_when_the_forward_fails(lite0):
    lite0.train()
    with pytest.raises(RuntimeError):
        output_shape(Classifier(lite0, nn.Linear(3, 2)), 64)
    assert all(part.training for part in lite0.modules())


def test_summary_counts(lite0):
    model = create_classifier(lite0, 4)
    for p in model.body.parameters():
        p.requires_grad_(False)
    try:
        text = summarize(model, 128)
        assert "efficientnet_lite0, images of 128 px, 4 classes" in text
        assert "(N, 1280, 4, 4)" in text and "(N, 4)" in text
        assert text.splitlines()[-1].split() == ["together", f"{count_parameters(model):,}", "5,124"]
        early, late = (sum(p.numel() for p in group) for group in model.parameter_groups()[:2])
        assert text.splitlines()[2].split()[2:4] == [f"{early:,}", "0"] and f"{late:,}" in text.splitlines()[3]
        assert count_parameters(model, trainable_only=True) == 1280 * 4 + 4
    finally:
        for p in lite0.parameters():
            p.requires_grad_(True)


def test_counts_agree_with_the_published_ones():
    for name, published in (("efficientnet_lite0", "4.7"), ("efficientnet_lite1", "5.4"), ("efficientnet_lite2", "6.1"),
                            ("resnet18", "11.7")):
        body = create_backbone(name, pretrained=False)
        assert f"{(count_parameters(body) + body.num_features * 1000 + 1000) / 1e6:.1f}" == published
    assert count_parameters(create_head(1280, 4, hidden=256)) == 329_220  # exercise 3 of the lesson
    assert count_parameters(nn.Conv2d(32, 64, 3, bias=False)) == 18_432  # exercise 1
    assert count_parameters(nn.Conv2d(32, 32, 3, groups=32, bias=False)) + 32 * 64 == 2_336
