"""Run the long experiments of lesson 08, and keep every finished trial in course_lib/results/.

    python benchmarks/depth.py layers      8 to 50 layers, with and without residual connections: layers.jsonl
    python benchmarks/depth.py attention   a small vision transformer and a convolutional network, 100 to 1,600
                                           training images: attention.jsonl
    python benchmarks/depth.py lighter     a narrow VGG-16 and its lighter versions: lighter.jsonl
    python benchmarks/depth.py pets        EfficientNet-Lite 0, 1, 2 by `course train` on a sample of the Oxford-IIIT
                                           Pets, if COURSELIB_SAMPLE_PETS says where it is: depth.jsonl

Solar cells of 32 px, trained from new weights by the lesson's own `train_small`; each seed draws its own validation
images, and the test part is not looked at. Trials that are in the file are not run again. The first three take about
half an hour of one core.
"""

from dataclasses import replace
from functools import partial
from tempfile import TemporaryDirectory

import torch
from frame import PETS, ROOT, arguments, run_cells

from course_lib.app.train import train_classifier
from course_lib.backbones.design import SmallViT, create_resnet
from course_lib.models import LITE_SIZES
from course_lib.settings import load_settings, seed_everything
from course_lib.tuning import experiment_table, grid, run_experiment

LESSON = ROOT / "nbs" / "08_deeper_backbones.ipynb"
CELLS = ("settings", "train_small", "train_way")  # what the cells define that the experiments use
SEEDS = {"layers": range(42, 45), "attention": range(42, 47), "lighter": range(42, 45), "pets": range(42, 45)}
LAYERS = [{"lr": 3e-3, "depth": depth, "skip": skip} for depth in (8, 20, 32, 50) for skip in (True, False)]
SLOWER = [{"lr": 1e-3, "depth": 50, "skip": skip} for skip in (True, False)]  # with the first seed alone
LITES = [{"dataset": "pets", "backbone": name, "size": size} for name, size in
         (*LITE_SIZES.items(), ("efficientnet_lite0", LITE_SIZES["efficientnet_lite2"]))]


def layers(lesson: dict, depth: int, skip: bool, lr: float, epochs: int = 8, *, seed: int) -> dict:
    """A plain or a residual network of `depth` layers."""
    seed_everything(seed)
    network = create_resnet(depth, len(lesson["classes"]), skip=skip)
    return lesson["train_small"](network, lesson["small_loaders"](seed), epochs, lr)


def attention(lesson: dict, network: str, images: int, lr: float, steps: int = 300, *, seed: int) -> dict:
    """One of the two networks, from `images` training images, for the same number of steps."""
    seed_everything(seed)
    classes = len(lesson["classes"])
    made = SmallViT(classes) if network == "transformer" else create_resnet(14, classes)
    return lesson["train_small"](made, lesson["small_loaders"](seed, images), round(steps * 32 / images), lr)


def pets(lesson: dict, dataset: str, backbone: str, size: int, *, seed: int) -> dict:
    """`course train` with another backbone and size."""
    chosen = replace(load_settings(profile="laptop"), backbone=backbone, dataset=PETS, seed=seed)
    with TemporaryDirectory() as folder:
        result = train_classifier(chosen, image_size=size, output=folder, echo=lambda line: None, official_split=True)
    return {"error_rate": result.metrics["validation_error"], "minutes": result.seconds / 60}


TRANSFORMER = grid(network=["transformer"], lr=[1e-3], images=[100, 400, 1600])
CONVOLUTIONAL = grid(network=["convolutional"], lr=[3e-3], images=[100, 400, 1600])
QUESTIONS = {  # the trial, its configurations and its file
    "layers": (layers, LAYERS, "layers.jsonl"),
    "attention": (attention, TRANSFORMER + CONVOLUTIONAL, "attention.jsonl"),
    "lighter": (None, None, "lighter.jsonl"),
    "pets": (pets, LITES, "depth.jsonl"),
}


def main() -> None:
    asked = arguments(__doc__, QUESTIONS)
    lesson = run_cells(LESSON, CELLS)
    for question in asked.wanted:
        trial, configs, name = QUESTIONS[question]
        if question == "pets" and not PETS.is_dir():
            print("The sample of Oxford-IIIT Pets is not there: COURSELIB_SAMPLE_PETS says where it is.")
            continue
        if configs is None:
            configs = grid(way=list(lesson["WAYS"]))
        seeds = SEEDS[question]
        for count in range(1, len(seeds) + 1):  # seed after seed, so that an interrupted comparison is a fair one
            found = run_experiment(partial(trial, lesson) if trial else lesson["train_way"], configs,
                                   seeds=seeds[:count], path=asked.output / name)
        if question == "layers":
            run_experiment(partial(trial, lesson), SLOWER, seeds=seeds[:1], path=asked.output / name)
        print(experiment_table(found))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
