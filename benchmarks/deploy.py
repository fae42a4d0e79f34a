"""One photograph at a time: how long do PyTorch and the exported files take? deploy.json.

    python benchmarks/deploy.py [--output FOLDER]

A photograph of 400 x 300 pixels, in memory, becomes the probabilities of four classes: resize, normalise, network,
softmax. The same module runs in eager PyTorch, as `course export --to torch` writes it, and as `--to onnx` writes it,
with 32 bits and with int8 weights, in onnxruntime. Beside them stands eager PyTorch's network alone, on a batch of one
that is prepared already. All take turns, round after round, with as many threads as the machine has cores; what is
recorded is the median of the milliseconds over all rounds, and the median of the rounds' ratios to eager PyTorch.
"""

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from frame import PACKAGES, arguments, record

from course_lib.app.export import Deployed, export_model
from course_lib.app.predict import TrainedClassifier
from course_lib.data import BatchTransform
from course_lib.models import create_backbone, create_classifier

BACKBONES, ROUNDS, TIMES, WARM_UP = ("efficientnet_lite0", "efficientnet_lite2"), 15, 5, 3
SIZES = {"efficientnet_lite0": (256, 224), "efficientnet_lite2": (300, 260)}  # presize, and what the network sees
EAGER = "PyTorch, eager"


def classifier_of(backbone: str) -> TrainedClassifier:
    """A classifier of four classes as `course train` would save it; its head has learned nothing."""
    torch.manual_seed(0)
    body, (presize, size) = create_backbone(backbone), SIZES[backbone]
    model = create_classifier(body, 4, dropout=0.3).eval()
    metadata = {"backbone": backbone, "classes": list("abcd"), "dataset": "elpv", "seed": 42, "epochs": 0,
                "presize": presize, "image_size": size}
    return TrainedClassifier(model, tuple("abcd"), presize, BatchTransform(size, body.mean, body.std), metadata)


def ways_of(backbone: str, folder: Path) -> dict[str, Callable[[], object]]:
    """What is timed: each takes the same photograph."""
    classifier = classifier_of(backbone)
    photograph = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    image, deployed = torch.from_numpy(photograph), Deployed(classifier).eval()
    for to, int8, name in (("torch", False, "torch"), ("onnx", False, "onnx"), ("onnx", True, "int8")):
        print(export_model(classifier, to, folder / name, int8=int8))
    program = torch.export.load(folder / "torch" / "model.pt2").module()
    sessions = {name: onnxruntime.InferenceSession(folder / name / "model.onnx", providers=["CPUExecutionProvider"])
                for name in ("onnx", "int8")}
    x = deployed.prepare(image)
    return {EAGER: lambda: deployed(image), "torch.export": lambda: program(image),
            "onnxruntime": lambda: sessions["onnx"].run(None, {"image": photograph}),
            "onnxruntime, int8 weights": lambda: sessions["int8"].run(None, {"image": photograph}),
            "PyTorch, eager, the network alone": lambda: classifier.model(x)}


@torch.no_grad()
def measure(backbone: str) -> dict:
    """Milliseconds a photograph, and how many times as fast as eager PyTorch."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ways = ways_of(backbone, Path(folder))
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for ask in ways.values():
            for _ in range(WARM_UP):
                ask()
        for _ in range(ROUNDS):
            for name, ask in ways.items():
                start = time.perf_counter()
                for _ in range(TIMES):
                    ask()
                seconds[name].append((time.perf_counter() - start) / TIMES)
    return {name: {"milliseconds": round(1000 * statistics.median(times), 2),
                   "as fast as eager": round(statistics.median(
                       eager / own for eager, own in zip(seconds[EAGER], times, strict=True)), 3)}
            for name, times in seconds.items()}


def main() -> None:
    asked = arguments(__doc__, ())
    result = {"threads": torch.get_num_threads(), "rounds": ROUNDS, "times": TIMES,
              "backbones": {name: measure(name) for name in BACKBONES}}
    record("deploy", result, asked.output, (*PACKAGES, "onnx", "onnxscript", "onnxruntime"))
    for name, ways in result["backbones"].items():
        for way, found in ways.items():
            print(f"{name:<20} {way:<36} {found['milliseconds']:>7.1f} ms  {found['as fast as eager']:.2f} times")


if __name__ == "__main__":
    main()
