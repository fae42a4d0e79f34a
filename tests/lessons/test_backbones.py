"""Deeper backbones: a VGG that equals torchvision's, costs that agree with what was published, networks made light."""

import copy
import math

import matplotlib
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from course_lib.backbones import (
    VGG16_LAYERS,
    GradientAccumulation,
    activation_bytes,
    checkpoint_blocks,
    count_multiply_adds,
    create_vgg,
    data_parallel_seconds,
    feature_maps,
    find_batch_size,
    int8_bytes,
    largest_batch_size,
    largest_block_bytes,
    measure_latency,
    pareto_front,
    peak_bytes,
    plot_architecture,
    plot_pareto,
    profile_model,
    prune_width,
    quantize_int8,
    stages,
)
from course_lib.learner import Callback, Learner
from course_lib.models import Backbone, Classifier, count_parameters, create_classifier, create_head, load_in_order
from course_lib.transfer import freeze

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
    ({"width": 0}, "width = 0"), ({"width": math.nan}, "width = nan"), ({"head": "flat"}, "'dense', 'pooled'"),
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


def kept_for_real(network: nn.Module, x: torch.Tensor) -> int:
    """What a step keeps, asked of tensors with values."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = network.train()(x)
    own = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers())}
    total = sum(storage.nbytes() for place, storage in kept.items() if place not in own)
    assert output.requires_grad
    return total


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
def test_activation_memory_is_what_a_real_step_keeps(name):
    network = create_classifier(name, 3, pretrained=False, dropout=0.5)
    assert activation_bytes(network, 64, 3) == kept_for_real(network, images(3, 64))
    whole = activation_bytes(network, 64, 3)
    freeze(network)
    assert activation_bytes(network, 64, 3) < 0.01 * whole == 0.01 * activation_bytes(
        create_classifier(name, 3, pretrained=False, dropout=0.5), 64, 3)


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


# ---------------------------------------------------------------- when it does not fit


@given(limit=st.integers(1, 300), largest=st.integers(1, 300))
@settings(deadline=None, max_examples=20)  # each failed step collects garbage, which takes a while
def test_the_largest_batch_that_fits_is_found(limit, largest):
    tried = []

    def step(batch_size):
        tried.append(batch_size)
        if batch_size > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")

    found = largest_batch_size(step, largest)
    assert found == tried[-1] <= limit and tried[0] == largest
    assert all(size > limit for size in tried[:-1]) and all(a // 2 == b for a, b in zip(tried, tried[1:], strict=False))


def test_other_errors_come_through_and_one_image_too_many_is_told():
    def broken(batch_size):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        largest_batch_size(broken)
    with pytest.raises(RuntimeError, match="Not even one image"):
        largest_batch_size(lambda size: exec("raise MemoryError"))
    with pytest.raises(ValueError, match="largest = 0"):
        largest_batch_size(broken, 0)


@pytest.mark.parametrize("limit", [1, 5, 64])
def test_a_learner_that_ran_out_of_memory_is_as_before(limit):
    learner = Learner(TooMuch(limit), [(images(3), torch.tensor([0, 1, 0]))], progress=False)
    before = copy.deepcopy(learner.model.state_dict())
    loader, callbacks = learner.train_loader, list(learner.callbacks)
    assert find_batch_size(learner, 32) == min(32, 1 << (limit.bit_length() - 1))
    assert all(torch.equal(value, before[name]) for name, value in learner.model.state_dict().items())
    assert learner.train_loader is loader and learner.callbacks == callbacks and learner.step == 0
    if limit >= 3:
        learner.fit(1)  # and it can train
    assert find_batch_size(learner, 2, memory=1e12) in (1, 2)


def test_on_a_cpu_memory_is_counted_before_it_is_used():
    network = create_vgg(3, SMALL, head="pooled")
    learner = Learner(network, [(images(2), torch.tensor([0, 1]))], progress=False)
    weights = 3 * sum(parameter.nbytes for parameter in network.parameters())
    assert find_batch_size(learner, 64, memory=weights + activation_bytes(network, 16, 16)) == 16
    with pytest.raises(RuntimeError, match="Not even one image"):
        find_batch_size(learner, 64, memory=1000)


class Clip(Callback):
    """Notes the length of the gradient that a step would use, and shortens it."""

    def __init__(self):
        self.lengths = []

    def after_backward(self, learner):
        self.lengths.append(float(nn.utils.clip_grad_norm_(learner.model.parameters(), 0.05)))


def trained(batches, callbacks=(), epochs=2):
    torch.manual_seed(0)
    network = create_vgg(3, (8, "pool", 8), head="pooled", dropout=0.0)
    learner = Learner(network, batches, progress=False, callbacks=callbacks)
    learner.fit(epochs, 1e-2)
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_accumulated_steps_are_the_steps_of_the_whole_batch():
    x, y = images(24), torch.arange(24) % 3
    whole = [(x[:12], y[:12]), (x[12:], y[12:])]
    parts = list(zip(x.split(4), y.split(4), strict=True))
    clips = Clip(), Clip()
    expected = trained(whole, [clips[0]])
    torch.testing.assert_close(trained(parts, [GradientAccumulation(3), clips[1]]), expected, rtol=1e-3, atol=1e-5)
    assert len(clips[0].lengths) == len(clips[1].lengths) == 4  # clipped once a step, on the mean
    torch.testing.assert_close(clips[0].lengths, clips[1].lengths, rtol=1e-3, atol=1e-6)
    assert not torch.allclose(trained(parts, [Clip()]), expected, rtol=1e-3, atol=1e-4)
    once = trained([(x, y)], epochs=1)
    torch.testing.assert_close(trained(parts, [GradientAccumulation(6)], epochs=1), once, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(trained(parts, [GradientAccumulation(100)], epochs=1), once, rtol=1e-3, atol=1e-5)
    with pytest.raises(ValueError, match="batches = 0"):
        GradientAccumulation(0)


def test_accumulation_of_a_stream_counts_on_over_its_end():
    class Stream:
        def __iter__(self):
            return iter([(images(4, seed=i), torch.tensor([0, 1, 2, 0])) for i in range(3)])

    accumulation = GradientAccumulation(2)
    steps = []
    learner = Learner(create_vgg(3, SMALL, head="pooled"), Stream(), progress=False, callbacks=[accumulation])
    original = learner.optimizer_step
    learner.optimizer_step = lambda: (steps.append(learner.step), original())
    learner.fit(2, 1e-3)
    assert steps == [1, 3, 5]


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18"])
def test_computing_twice_changes_nothing_but_memory(name):
    torch.manual_seed(0)
    plain = create_classifier(name, 3, pretrained=False, dropout=0.5)
    saving = copy.deepcopy(plain)
    assert checkpoint_blocks(saving) > 3 and list(saving.state_dict()) == list(plain.state_dict())
    for network in (plain, saving):
        torch.manual_seed(5)
        for _ in range(2):
            F.cross_entropy(network.train()(images(4, 64)), torch.tensor([0, 1, 2, 0])).backward()
    for (name, p), q in zip(plain.named_parameters(), saving.named_parameters(), strict=True):
        torch.testing.assert_close(p.grad, q[1].grad, msg=name)
    for (name, p), q in zip(plain.named_buffers(), saving.named_buffers(), strict=True):
        torch.testing.assert_close(p, q[1], msg=name)
    assert saving.body.network.state_dict()[[n for n in saving.body.network.state_dict() if "tracked" in n][0]] == 2
    torch.testing.assert_close(plain.eval()(images(2, 64)), saving.eval()(images(2, 64)))
    assert kept_for_real(saving, images(4, 64)) < 0.6 * kept_for_real(plain, images(4, 64))
    checkpoint_blocks(saving, on=False)
    assert not any("forward" in vars(module) for module in saving.modules())


def test_computing_twice_in_half_precision_and_with_a_frozen_part():
    torch.manual_seed(0)
    plain = create_classifier("resnet18", 3, pretrained=False, dropout=0.0)
    for block in list(plain.body.network.children())[:6]:
        block.requires_grad_(False)
    saving = copy.deepcopy(plain)
    checkpoint_blocks(saving)
    for network in (plain, saving):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(network.train()(images(4, 64)), torch.tensor([0, 1, 2, 0]))
        loss.backward()
    for p, q in zip(plain.parameters(), saving.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad)


def test_single_layers_have_nothing_to_save():
    with pytest.raises(ValueError, match="single layers"):
        checkpoint_blocks(create_vgg(3, SMALL, head="pooled"))


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


# ---- What a reader of the lesson tried

def test_checkpointed_blocks_are_counted_with_the_one_that_is_computed_again():
    """Kept, and on top the inside of the largest block: together less than all, and most of it that block."""
    model = create_classifier("efficientnet_lite0", 3, pretrained=False)
    plain = activation_bytes(model, 64, 4)
    assert largest_block_bytes(model, 64, 4) == 0
    checkpoint_blocks(model)
    kept, more = (count(model, 64, 4) for count in (activation_bytes, largest_block_bytes))
    assert kept < kept + more < 0.5 * plain and more > 2 * kept
    assert activation_bytes(model, 64, 4) == kept  # the blocks are as they were
    assert checkpoint_blocks(model, on=False) and activation_bytes(model, 64, 4) == plain


def test_the_search_for_a_batch_size_moves_no_generator_and_counts_the_area():
    x, y = torch.randn(12, 3, 64, 16), torch.arange(12) % 3
    chance = torch.Generator().manual_seed(3)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 4, shuffle=True, generator=chance)
    learner = Learner(create_vgg(3, (8, "pool", 8), head="pooled"), loader, progress=False)
    before = chance.get_state()
    needed = activation_bytes(learner.model, 32, 8) + 3 * sum(p.nbytes for p in learner.model.parameters())
    assert find_batch_size(learner, 64, memory=needed) == 8  # 64 x 16 is as much as 32 x 32
    assert torch.equal(chance.get_state(), before)
    learner.train_loader = [(torch.randn(4, 1, 16, 16), torch.arange(4) % 3)]
    with pytest.raises(ValueError, match=r"colour images .* gives \(4, 1, 16, 16\)"):
        find_batch_size(learner)


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
