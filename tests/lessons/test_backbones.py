"""Deeper backbones: a VGG that equals torchvision's, costs that agree with what was published, networks made light."""

import json
import math
import re
from pathlib import Path

import matplotlib
import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import course_lib.backbones
from course_lib.backbones import (
    VGG16_LAYERS,
    count_multiply_adds,
    create_vgg,
    data_parallel_seconds,
    feature_maps,
    measure_latency,
    pareto_front,
    plot_architecture,
    plot_pareto,
    profile_model,
    prune_width,
    quantize_int8,
)
from course_lib.backbones.design import ResidualBlock, SelfAttention, SmallViT, attention, create_resnet
from course_lib.backbones.lighter import int8_bytes
from course_lib.backbones.plots import stages
from course_lib.backbones.profile import peak_bytes
from course_lib.learner import Learner
from course_lib.learner.memory import activation_bytes
from course_lib.models import (
    Backbone,
    Classifier,
    count_parameters,
    create_backbone,
    create_classifier,
    create_head,
    load_in_order,
)

matplotlib.use("agg")
SMALL = (8, 8, "pool", 12, "pool")


def images(count: int = 4, size: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def on_meta(name: str, num_classes: int = 1000) -> nn.Module:
    with torch.device("meta"):
        return create_vgg(num_classes) if name == "vgg16" else create_classifier(name, num_classes, pretrained=False)


# ---------------------------------------------------------------- VGG


def test_vgg16_has_the_parameters_that_the_source_reports():
    assert count_parameters(on_meta("vgg16", 4)) == 134_276_932
    assert count_parameters(on_meta("vgg16", 1000)) == 138_357_544  # as torchvision's weights say of themselves


def test_vgg16_is_torchvisions():
    from torchvision.models import vgg16

    theirs = vgg16(num_classes=4, init_weights=False)
    with torch.device("meta"):
        ours = create_vgg(4)
    ours.to_empty(device="cpu")
    load_in_order(ours, theirs.state_dict())
    x = images(2, 64)
    with torch.no_grad():
        for mode in (False, True):
            torch.manual_seed(0)
            expected = theirs.train(mode)(x)
            torch.manual_seed(0)  # dropout stands in the same places
            torch.testing.assert_close(ours.train(mode)(x), expected)
        ours.body.network[0].weight += 0.1  # the comparison would notice
        assert not torch.allclose(ours.eval()(x), theirs.eval()(x))


def test_vgg_learns():
    torch.manual_seed(0)
    x, y = images(16, 8), torch.arange(16) % 2
    for options in ({"head": "pooled"}, {"head": "pooled", "batch_norm": True, "separable": True}):
        network = create_vgg(2, (16, "pool", 16), dropout=0.0, **options)
        learner = Learner(network, [(x, y)], progress=False)
        learner.fit(40, 1e-2)
        assert learner.recorder.losses[-1] < 0.3 < learner.recorder.losses[0]


@pytest.mark.parametrize("options, said", [
    ({"layers": (8, "pol")}, "'pol' is no layer"), ({"layers": (8, 0)}, "0 is no layer"),
    ({"layers": (True,)}, "True is no layer"), ({"layers": ("pool",)}, "at least one convolution"),
    ({"width": 0}, "width = 0"), ({"width": math.nan}, "width = nan"),
    ({"head": "flat"}, "head = 'flat' is not known. Allowed: dense, pooled"),
    ({"num_classes": 1}, "two or more"), ({"dropout": 1.0, "head": "pooled"}, "dropout = 1.0")])
def test_a_vgg_that_makes_no_sense_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        create_vgg(**{"num_classes": 4, "layers": SMALL, **options})


def test_images_that_are_too_small_are_told():
    network = create_vgg(4, SMALL, head="pooled", image_size=32)
    assert network(images(1, 4)).shape == (1, 4)
    for call in (lambda: network(images(1, 3)), lambda: feature_maps(network, 3), lambda: profile_model(network, 3),
                 lambda: count_multiply_adds(network, 3), lambda: activation_bytes(network, 3)):
        with pytest.raises(ValueError, match="3 x 3 pixels are too small for vgg.*meant for 32"):
            call()


# ---------------------------------------------------------------- depth and attention


@pytest.mark.parametrize("depth", [8, 20, 50])
def test_a_small_resnet_has_as_many_layers_as_said(depth):
    for skip in (False, True):
        network = create_resnet(depth, 5, skip=skip)
        kernels = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
        assert len(kernels) + 1 == depth  # and the linear layer
        assert network(images(2, 32)).shape == (2, 5)
        assert sum(m.kernel_size == (1, 1) for m in network.modules() if isinstance(m, nn.Conv2d)) == 2 * skip


@pytest.mark.parametrize("depth", [2, 7, 9, 21, 20.0, True])
def test_depths_that_make_no_blocks_are_refused(depth):
    with pytest.raises(ValueError, match="depth = "):
        create_resnet(depth, 4)


def test_a_residual_block_that_adds_nothing_passes_its_input_on():
    x = images(2, 8).abs()
    for skip, expected in ((True, x), (False, torch.zeros_like(x))):
        block = ResidualBlock(3, 3, skip=skip).eval()
        nn.init.zeros_(block.layers[-1].weight)
        torch.testing.assert_close(block(x), expected)
    assert ResidualBlock(3, 7, stride=2)(x).shape == (2, 7, 4, 4)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 4), st.integers(0, 99))
@settings(deadline=None)
def test_attention_is_pytorchs(queries, keys, width, seed):
    make = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(2, 3, n, width, generator=make) for n in (queries, keys, keys))
    torch.testing.assert_close(attention(q, k, v), nn.functional.scaled_dot_product_attention(q, k, v))


def test_self_attention_is_pytorchs_with_the_same_weights():
    ours, theirs = SelfAttention(12, 3), nn.MultiheadAttention(12, 3, batch_first=True)
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = ours.qkv.weight.data, ours.qkv.bias.data
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    x = torch.randn(2, 5, 12)
    torch.testing.assert_close(ours(x), theirs(x, x, x)[0])


def test_a_small_transformer_knows_places_and_learns():
    torch.manual_seed(0)
    network, x = SmallViT(2, 16, patch=4, width=16, depth=2, heads=2), images(16)
    moved = x.roll(4, dims=-1)  # the same patches at other places
    with torch.no_grad():
        assert not torch.allclose(network(x), network(moved), atol=1e-5)
        network.places.zero_()
        torch.testing.assert_close(network(x), network(moved))
    learner = Learner(network, [(x, torch.arange(16) % 2)], progress=False)
    learner.fit(40, 3e-3)
    assert learner.recorder.losses[-1] < 0.1 < learner.recorder.losses[0]


# ---------------------------------------------------------------- feature maps and their picture


@pytest.mark.parametrize("name", ["vgg16", "efficientnet_lite1", "resnet18", "densenet121", "vit_b_32",
                                  "timm/convnext_atto"])
def test_feature_maps_of_any_backbone(name):
    network = on_meta(name, 5)
    maps = feature_maps(network)
    assert maps[-1].shape == (5,)
    assert sum(item.parameters for item in maps) <= count_parameters(network)
    found = stages(maps)
    assert sum(stage.parameters for stage in found) == sum(item.parameters for item in maps)
    heights = [stage.shape[1] for stage in found if len(stage.shape) == 3]
    assert heights == sorted(heights, reverse=True)


def test_feature_maps_are_what_really_comes_out():
    network = create_classifier("resnet18", 3, pretrained=False).eval()
    seen = []
    for block in network.body.network.layer3:
        block.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape[1:])))
    with torch.no_grad():
        network(images(1, 96))
    before = [tensor.clone() for tensor in network.state_dict().values()]
    shapes = [item.shape for item in feature_maps(network, 96)]
    assert seen[0] in shapes and not network.training
    assert all(torch.equal(a, b) for a, b in zip(before, network.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", ["vgg16", "resnet50", "efficientnet_lite0", "vit_b_16"])
def test_the_picture_has_a_slab_a_stage_and_no_text_over_text(name):
    network = on_meta(name, 4)
    ax = plot_architecture(network)
    figure = ax.figure
    figure.canvas.draw()
    drawn = stages(feature_maps(network))
    assert len(ax.texts) == len(drawn) + 1
    boxes = [text.get_window_extent() for text in ax.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    window = figure.get_window_extent()
    assert all(window.x0 <= box.x0 and box.x1 <= window.x1 and window.y0 <= box.y0 for box in boxes)
    slabs = [patch.get_window_extent() for patch in ax.patches]
    assert not any(box.overlaps(slab) for box in boxes for slab in slabs)
    matplotlib.pyplot.close(figure)


# ---------------------------------------------------------------- what a network costs

LITE = {"efficientnet_lite0": (4.7e6, 407e6), "efficientnet_lite1": (5.4e6, 631e6),
        "efficientnet_lite2": (6.1e6, 899e6)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet152", "vgg16", *LITE])
def test_costs_agree_with_what_was_published(name):
    from torchvision.models import get_model_weights

    found = profile_model(on_meta(name))
    if name in LITE:  # their authors round, and count normalisation and activations
        parameters, multiply_adds = LITE[name]
        assert found.parameters == pytest.approx(parameters, rel=0.02)
        assert 0.93 * multiply_adds < found.multiply_adds < multiply_adds
    else:
        facts = get_model_weights(name).DEFAULT.meta
        assert found.parameters == facts["num_params"]
        assert found.multiply_adds == pytest.approx(facts["_ops"] * 1e9, rel=1e-3)
    assert math.isnan(found.latency) and found.weight_bytes >= 4 * found.parameters


def test_a_profile_leaves_the_model_as_it_was():
    network = create_vgg(3, SMALL, batch_norm=True, head="pooled").train()
    network.body.network[1].eval()
    modes = [module.training for module in network.modules()]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = profile_model(network, 16, 2, repeats=2)
    assert found.latency > 0 and found.device == "cpu" and "ms" in str(found)
    assert modes == [module.training for module in network.modules()]
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(tensor.grad is None for tensor in network.parameters())


def test_memory_grows_with_the_batch_and_the_image():
    network = create_vgg(3, SMALL, head="pooled")
    for count in (activation_bytes, peak_bytes):
        one = count(network, 16, 1)
        assert count(network, 16, 5) == 5 * one
        assert 3.8 * one < count(network, 32, 1) <= 4 * one


@pytest.mark.parametrize("bad", [0, -1, 1.5, True])
def test_a_profile_refuses_sizes_that_are_none(bad):
    network = create_vgg(3, SMALL, head="pooled")
    with pytest.raises(ValueError, match="batch_size"):
        profile_model(network, 16, bad)
    if bad != 0:  # 0 stands for the model's own size, as None does
        with pytest.raises(ValueError, match="image_size"):
            profile_model(network, bad)


class TooMuch(nn.Module):
    """Runs out of memory above a batch size, as a CPU says it."""

    def __init__(self, limit: int):
        super().__init__()
        self.limit, self.layer = limit, nn.Linear(3, 2)

    def forward(self, x):
        if len(x) > self.limit and x.device.type != "meta":
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 b")
        return self.layer(x.mean((2, 3)))


def test_a_profile_for_which_memory_runs_out_says_so():
    with pytest.raises(RuntimeError, match="A batch of 8 does not fit into memory. Try 4"):
        profile_model(TooMuch(7), 8, 8)


# ---------------------------------------------------------------- made light


@pytest.mark.parametrize("options", [{}, {"head": "pooled"}, {"head": "pooled", "batch_norm": True},
                                     {"head": "pooled", "batch_norm": True, "separable": True}])
def test_pruning_cuts_what_is_silent_without_a_trace(options):
    torch.manual_seed(1)
    network = create_vgg(3, (6, 8, "pool", 10), **options)
    if options.get("batch_norm"):
        network.train()(images(16))
    network.eval()
    with torch.no_grad():
        for layer in network.body.network:
            if isinstance(layer, nn.Conv2d) and layer.groups == 1:
                layer.weight[::2] = 0
                if layer.bias is not None:
                    layer.bias.fill_(0.1)
                    layer.bias[::2] = 0
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean[::2] = 0
                layer.bias[1::2] = 0.1
        expected = network(images())
        assert expected.std() > 0
        before = [tensor.clone() for tensor in network.state_dict().values()]
        pruned = prune_width(network, 0.5)
        torch.testing.assert_close(pruned(images()), expected)
        torch.testing.assert_close(prune_width(network, 1.0)(images()), expected)
        assert not torch.allclose(prune_width(network, 0.2)(images()), expected)
    assert all(torch.equal(a, b) for a, b in zip(before, network.state_dict().values(), strict=True))
    assert [m.out_channels for m in pruned.body.network if isinstance(m, nn.Conv2d) and m.groups == 1] == [3, 4, 5]
    pruned.train()(images()).sum().backward()  # it can be trained on
    assert network.body.network[0].weight.grad is None


@pytest.mark.parametrize("keep", [0, 1.1, -1, "half", None])
def test_pruning_refuses_parts_that_are_none(keep):
    with pytest.raises(ValueError, match="keep = "):
        prune_width(create_vgg(3, SMALL, head="pooled"), keep)


def test_pruning_says_what_it_cannot_cut():
    with pytest.raises(ValueError, match="this has a BasicBlock"):
        prune_width(create_classifier("resnet18", 3, pretrained=False))


@pytest.mark.parametrize("separable", [False, True])
def test_int8_gives_nearly_the_same_answers(separable):
    torch.manual_seed(0)
    network = create_vgg(3, (32, 32, "pool", 64), batch_norm=True, head="pooled", separable=separable)
    for seed in range(20):
        network.train()(images(32, seed=seed))
    network.eval()
    in_int8 = quantize_int8(network, [images(32, seed=99)])
    with torch.no_grad():
        expected, found = network(images(32)), in_int8(images(32))
    assert 0 < (found - expected).abs().max() < 0.1 * expected.abs().max()
    assert int8_bytes(in_int8) < 0.4 * sum(tensor.nbytes for tensor in network.parameters())
    assert not network.training and network.body.network[0].weight.dtype == torch.float32
    assert measure_latency(in_int8, images(), 2) > 0
    with pytest.raises(ValueError, match="at least one batch"):
        quantize_int8(network, [])


COSTS = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.tuples(st.integers(1, 5), st.integers(0, 5)),
                        min_size=1)


@given(COSTS)
@settings(deadline=None)
def test_the_front_holds_what_nothing_beats(points):
    costs, errors = ({name: pair[i] for name, pair in points.items()} for i in (0, 1))
    front = pareto_front(costs, errors)

    def beats(a, b):
        return points[a] != points[b] and points[a][0] <= points[b][0] and points[a][1] <= points[b][1]

    for name in points:
        assert (name in front) == (not any(beats(other, name) for other in points))
    assert [costs[name] for name in front] == sorted(costs[name] for name in front)


def test_the_plot_of_the_front_names_every_point():
    ax = plot_pareto({"a": 1.0, "b": 2.0, "c": 3.0}, {"a": 0.3, "b": 0.1, "c": 0.2}, {"a": 0.01}, xlabel="ms")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b", "c"]
    assert ax.lines[0].get_xdata().tolist() == [1.0, 2.0] and ax.get_xscale() == "log"
    with pytest.raises(ValueError, match="only one of them has c"):
        pareto_front({"a": 1}, {"a": 1, "c": 1})
    matplotlib.pyplot.close(ax.figure)


# ---------------------------------------------------------------- past one machine


def test_more_processes_pay_while_gradients_travel_fast():
    assert data_parallel_seconds(2.0, 1e6, 1, 1.0) == 2.0
    assert data_parallel_seconds(2.0, 1e9, 2, 1e9) == 2.0  # a second of work saved, a second on the way
    assert data_parallel_seconds(2.0, 1e9, 4, 1e12) == pytest.approx(0.5015)
    for name in ("step_seconds", "gradient_bytes", "processes", "bytes_per_second"):
        with pytest.raises(ValueError, match=f"{name} = 0"):
            data_parallel_seconds(**{"step_seconds": 1.0, "gradient_bytes": 1.0, "processes": 2,
                                     "bytes_per_second": 1.0, name: 0})


def test_the_table_of_layers_is_vgg16():
    assert sum(layer != "pool" for layer in VGG16_LAYERS) == 13 and VGG16_LAYERS.count("pool") == 5


def test_pruning_keeps_strides_and_refuses_heads_it_does_not_know():
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(3, stride=2), nn.Conv2d(8, 8, 3))
    made = lambda **head: Classifier(Backbone("row", body, num_features=8, input_size=32, mean=(0.5,) * 3,
                                              std=(0.5,) * 3), create_head(8, 4, **head), 4)
    x = torch.randn(2, 3, 32, 32)
    whole = made().eval()
    torch.testing.assert_close(prune_width(whole, 1)(x), whole(x))
    hidden = made(hidden=16).eval()  # its first linear layer has no bias
    torch.testing.assert_close(prune_width(hidden, 1)(x), hidden(x))
    with pytest.raises(ValueError, match="this is another"):
        prune_width(made(pool="avgmax"))


@pytest.mark.parametrize("options, words", [({"image_size": 0}, "image_size = 0"), ({"repeats": -1}, "repeats = -1"),
                                            ({"image_size": False}, "image_size = False")])
def test_a_profile_refuses_numbers_that_make_no_sense(options, words):
    with pytest.raises(ValueError, match=words):
        profile_model(create_vgg(3, (8,), head="pooled"), **options)


def test_lite1_is_deeper_and_lite2_wider():
    """As the lesson says before it compares them."""
    with torch.device("meta"):
        bodies = [create_classifier(f"efficientnet_lite{k}", 2, pretrained=False).body for k in range(3)]
    layers = [[m.out_channels for m in body.modules() if isinstance(m, nn.Conv2d)] for body in bodies]
    assert [len(one) for one in layers] == [49, 64, 64]
    assert layers[1] != layers[2] and all(a <= b for a, b in zip(layers[1], layers[2], strict=True))


def test_the_package_offers_what_the_one_module_offered():
    """Also what is for training within memory, and what only tests and other modules ask for."""
    names = ("FeatureMap", "Stage", "ModelProfile", "stages", "activation_bytes", "largest_block_bytes", "peak_bytes",
             "int8_bytes", "largest_batch_size", *course_lib.backbones.__all__)
    assert all(hasattr(course_lib.backbones, name) for name in names) and len(course_lib.backbones.__all__) == 15


def test_every_name_stands_in_the_legend_as_it_is():  # rueckstiess/mtools#639
    import io
    import warnings

    from course_lib.backbones import plot_pareto

    names = ["$a_$", "_hidden", "same" * 30, "<b>", ""]
    ax = plot_pareto({name: i + 1 for i, name in enumerate(names)}, {name: 0.1 for name in names})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ax.figure.savefig(io.BytesIO())
    texts = [text.get_text().replace(r"\$", "$").strip("\u200b") for text in ax.get_legend().get_texts()]
    assert texts[:2] == ["$a_$", "_hidden"] and texts[3:] == ["<b>", "(no name)"] and len(texts[2]) <= 41


@pytest.mark.parametrize("frozen", [False, True])
def test_a_transformer_that_pools_with_a_token_of_its_own_has_a_price(frozen):
    """SigLIP's pooling token is a parameter that is expanded; counted without gradients it failed."""
    with torch.device("meta"):
        body = create_backbone("vit_base_patch16_siglip_224.v2_webli", pretrained=False).requires_grad_(not frozen)
    assert count_multiply_adds(body, 224) == pytest.approx(17.7e9, rel=0.01)


# ---------------------------------------------------------------- zero-shot


def test_the_block_that_classifies_without_training_images(monkeypatch):
    """The lesson's own lines, with random weights in place of a download, and then with vectors that are known."""
    lesson = Path(__file__).resolve().parents[2] / "nbs" / "08_deeper_backbones.ipynb"
    cells = json.loads(lesson.read_text(encoding="utf-8"))["cells"]
    prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    [block] = [one for one in re.findall(r"^```python\n(.*?)^```$", prose, re.DOTALL | re.MULTILINE)
               if "open_clip" in one]
    create, names = open_clip.create_model_and_transforms, []
    monkeypatch.setattr(open_clip, "create_model_and_transforms",
                        lambda name, pretrained: names.append((name, pretrained)) or create(name, pretrained=None))
    random = np.random.default_rng(0)
    pictures = [Image.fromarray(random.integers(0, 256, (40, 60, *end), dtype=np.uint8)) for end in ((3,), (), (3,))]
    found = {"pictures": pictures}
    exec(compile(block, "lesson 8", "exec"), found)
    assert all(one in open_clip.list_pretrained() for one in names) and len(names) == 1
    assert found["answers"].shape == (3, 2)
    torch.testing.assert_close(found["answers"].sum(1), torch.ones(3))

    axes = torch.eye(3)
    model = found["model"]
    monkeypatch.setattr(model, "encode_text", lambda tokens, normalize: axes[: len(tokens)])
    monkeypatch.setattr(model, "encode_image", lambda x, normalize: axes[: len(x)])
    answers = found["zero_shot"](pictures, {"first": ["a"], "first two": ["a", "b"]})
    scale = model.logit_scale.exp().item()
    half = 2 ** -0.5  # the mean of two axes, made as long as the others
    expected = torch.tensor([[1, half], [0, half], [0, 0.0]]).mul(scale).softmax(1)
    torch.testing.assert_close(answers, expected)
