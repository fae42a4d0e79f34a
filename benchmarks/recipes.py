"""Find the recipe of the profile `tuned` with the tools of lesson 07, and hold it against the laptop's.

    python benchmarks/recipes.py choose     recipes on two seeds that are not used again
    python benchmarks/recipes.py confirm    laptop and tuned on five other seeds (not 42 to 44, which were looked at) in
                                            float32, and laptop in bf16: tuned.json

Every finished training is a line in course_lib/results/recipes_*.jsonl, and an unfinished one keeps its last epoch, so
both can be stopped at any moment and go on where they were. A line is measured by `course train` in a process of its
own, on the quarter that its seed holds out. Several processes share the work: started twice with OMP_NUM_THREADS=1,
they use two cores better than one does.
"""

import json
import shutil
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict

from frame import ROOT, arguments, record, run_python

from course_lib.app.train import recipe_for
from course_lib.settings import CourseSettings
from course_lib.tuning import Experiment, compare, experiment_table, run_experiment, trial_key

DATA = ROOT / "data" / "recipes"  # image cache, unfinished trainings; safe to delete
TRAIN = """
import json, sys
from pathlib import Path
from course_lib.settings import load_settings
from course_lib.app.train import train_classifier
settings = load_settings(environ={}, **json.loads(sys.argv[1]))
folder = Path(sys.argv[3])
stopped = (folder / "checkpoints" / "last.safetensors").exists()
result = train_classifier(settings, output=folder, resume=stopped, echo=lambda line: None, **json.loads(sys.argv[2]))
if stopped:  # the epochs of all processes
    seconds = sum(row["seconds"] for row in json.loads((folder / "metrics.json").read_text())["history"])
_out = {**result.metrics, "minutes": (seconds if stopped else result.seconds) / 60}
"""
PLAIN = {"mixed_precision": "no", "tricks": ""}  # as all were measured at first
LARGER = {"backbone": "efficientnet_lite2", "image_size": 260, "presize": 300, "epochs": 5}
MIRROR = {**LARGER, "epochs": 8, "augmentation": "mirror"}
WHOLE = {**MIRROR, "trained_fraction": 1.0}  # all of the network learns
BF16 = {**WHOLE, "mixed_precision": "bf16"}
CHOOSE: list[dict] = [{**PLAIN, **config} for config in (
    {"views": 8, "epochs": 8},
    {"views": 8, "epochs": 16},
    LARGER,
    {**LARGER, "epochs": 8, "trained_fraction": 0.5},
    {**MIRROR, "trained_fraction": 2 / 3, "views": 4},
    WHOLE,
    {**WHOLE, "epochs": 6},  # recorded with the seeds 43 and 44
    {"image_size": 224, "presize": 256, "trained_fraction": 1.0, "augmentation": "mirror", "epochs": 16},
    {**BF16, "tricks": "progressive_resizing"},  # from here on they were to become faster
    {**BF16, "epochs": 6}, {**BF16, "epochs": 6, "batch_size": 16},
    {**BF16, "epochs": 6, "batch_size": 16, "lr": 2e-3}, {**BF16, "epochs": 5, "batch_size": 16, "lr": 2e-3},
    {**BF16, "epochs": 6, "batch_size": 16, "lr": 5e-4},
    {**BF16, "backbone": "efficientnet_lite1", "image_size": 240, "presize": 280})]


def train(profile: str = "laptop", backbone: str | None = None, image_size: int | None = None,
          presize: int | None = None, views: int | None = None, epochs: int | None = None, lr: float | None = None,
          trained_fraction: float | None = None, augmentation: str | None = None, tricks: str | None = None,
          mixed_precision: str | None = None, *, seed: int, **more: object) -> dict:
    """`course train` with the profile's recipe, but for what is given. It is asked about mirror images in any case, so
    that both ways are in the row.
    """
    settings = {"profile": profile, "backbone": backbone or "auto", "seed": seed, "data_dir": str(DATA),
                "dataset": "elpv"}
    recipe = {"mirror": True, "official_split": False, "image_size": image_size, "presize": presize, "views": views,
              "epochs": epochs, "max_lr": lr, "trained_fraction": trained_fraction, "augmentation": augmentation,
              "tricks": tricks, "mixed_precision": mixed_precision, **more}
    folder = DATA / trial_key(settings | recipe, seed)
    try:
        found = run_python(TRAIN, json.dumps(settings), json.dumps(recipe), str(folder))
    except RuntimeError as error:
        raise RuntimeError(str(error).splitlines()[-1]) from None
    shutil.rmtree(folder)
    plain = {f"{name}_unmirrored": value for name, value in found["unmirrored"].items()}
    return {"error_rate": found["validation_error"], **found, **plain}


CONFIRM: list[dict] = [{"profile": "tuned", **PLAIN}, {"profile": "laptop", **PLAIN},
                       {"profile": "laptop", "mixed_precision": "bf16"}]


def judge(found: Experiment) -> dict:
    """What the trials of `confirm` say: both recipes, by how much they differ, and whether bf16 makes a difference."""
    profiles = {name: CourseSettings(profile_name=name) for name in ("laptop", "tuned")}
    accuracies = {"laptop": found.values("two_class_accuracy_unmirrored", profile="laptop", **PLAIN),
                  "tuned": found.values("two_class_accuracy", profile="tuned", **PLAIN)}
    in_bf16 = found.values("two_class_accuracy_unmirrored", profile="laptop", mixed_precision="bf16")
    bf16 = compare(accuracies["laptop"], in_bf16)
    print("laptop, bf16 against float32:", bf16.in_words("two-class accuracy"))
    difference = compare(accuracies["laptop"], accuracies["tuned"])
    print("tuned against laptop:", difference.in_words("two-class accuracy"))
    return {
        "images": "elpv, the quarter that each seed holds out", "seeds": sorted(accuracies["tuned"]),
        "threads": "1",  # of the trainings in float32, two at a time
        **{name: {"backbone": profile.backbone, "recipe": asdict(recipe_for(profile)),
                  "two_class_accuracy": statistics.fmean(accuracies[name].values()),
                  "spread": statistics.stdev(accuracies[name].values()),
                  "minutes": statistics.median(found.values("minutes", profile=name, **PLAIN).values()),
                  "peak_gb": max(found.values("peak_gb", profile=name, **PLAIN).values())}
           for name, profile in profiles.items()},
        "difference": difference.difference, "interval": [difference.low, difference.high],
        "laptop in bf16": {"two_class_accuracy": statistics.fmean(in_bf16.values()),
                           "spread": statistics.stdev(in_bf16.values()), "difference": bf16.difference,
                           "interval": [bf16.low, bf16.high]},
        "reported": {"Deitsch et al. 2019, CNN": 0.8842}}


def main() -> None:
    questions: dict[str, tuple[Sequence[dict], Sequence[int]]] = {
        "choose": (CHOOSE, (142, 143)), "confirm": (CONFIRM, range(52, 57))}
    asked = arguments(__doc__, questions, default=())
    if not asked.wanted:
        sys.exit(__doc__)
    for name in asked.wanted:
        configs, seeds = questions[name]
        found = run_experiment(train, configs, seeds=seeds, path=asked.output / f"recipes_{name}.jsonl")
        if name == "confirm":
            print(json.dumps(record("tuned", judge(found), asked.output), indent=1))
        for value in ("two_class_accuracy_unmirrored", "two_class_accuracy"):
            print(experiment_table(found, value, highest=True), end="\n\n")


if __name__ == "__main__":
    main()
