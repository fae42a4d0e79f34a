"""The test part of the solar cells: which cells are in it, and what three classifiers reach on it.

    python benchmarks/test_part.py divide     writes course_lib/data/splits/elpv-*.csv; the same files every time
    python benchmarks/test_part.py measure    always one answer, a linear probe, and the recipe of lesson 5, the last
                                              two with five seeds: test_part.jsonl; then test_part.json
    python benchmarks/test_part.py tuned      the recipe of the profile `tuned` too, half an hour a seed on one core

A seed divides the rest of the cells into training and validation, and starts the training. A finished training is a
line, and what was recorded is not measured again. Started twice with OMP_NUM_THREADS=1, two processes share the work.
The recipes were fixed before the test part was opened, and no choice was made by these figures.
"""

import json
import re
import shutil
import statistics
import sys

import numpy as np
import torch
import torch.nn.functional as F
from frame import ROOT, arguments, record, run_python
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from course_lib.data import ImageItems, get_items, group_test_split, presize, split_items
from course_lib.data.datasets import SPLITS
from course_lib.tuning import Experiment, compare, run_experiment, trial_key

DATA = ROOT / "data" / "test_part"  # image cache, unfinished trainings; safe to delete
CHANGES = {"linear probe": {"trained_fraction": 0.0, "epochs": 20}, "lesson 5": {}}  # of the recipe of `laptop`
TUNED = "tuned"  # the profile's own recipe
BLOCK, ALIKE = 32, 0.95


# ---- which cells

def near_duplicates(items: ImageItems) -> np.ndarray:
    """Pairs (K, 2) of polycrystalline cells whose correlation at 32 x 32 pixels is above `ALIKE`."""
    poly = np.flatnonzero(items.targets >= 2)  # mono cells all look alike; crystals are like a fingerprint
    grey = torch.from_numpy(np.array(presize(items, 256, DATA).images[poly][..., 0])).float()
    looks = F.interpolate(grey[:, None], (32, 32), mode="area").flatten(1)
    looks = F.normalize(looks - looks.mean(1, keepdim=True))
    return poly[np.argwhere((looks @ looks.T).numpy() > ALIKE)]


def groups_of_cells(items: ImageItems) -> np.ndarray:
    """For each cell its group: `BLOCK` successive numbers, and all blocks that near-duplicates connect."""
    numbers = [int(re.search(r"\d+", name.rsplit("/", 1)[-1]).group()) for name in items.names]
    blocks = (np.array(numbers) - 1) // BLOCK
    first, second = blocks[near_duplicates(items)].T
    links = coo_array((np.ones(len(first)), (first, second)), shape=[blocks.max() + 1] * 2)
    joined = connected_components(links, directed=False)[1]
    smallest = {group: blocks[joined[blocks] == group].min() for group in set(joined[blocks].tolist())}
    return np.array([smallest[group] for group in joined[blocks].tolist()])


def divide() -> None:
    items = get_items("elpv", announce=False)
    rest, test = group_test_split(items, groups_of_cells(items))
    parts = {"test": test, **dict(zip(("train", "valid"), (rest[i] for i in split_items(
        ImageItems(items.root, *(tuple(np.array(v)[rest].tolist()) for v in (items.names, items.labels)),
                   items.classes))), strict=True))}
    SPLITS.mkdir(exist_ok=True)
    for name, rows in parts.items():
        lines = ["name,label", *(f"{items.names[i]},{items.labels[i]}" for i in rows)]
        (SPLITS / f"elpv-{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(name, len(rows), np.bincount(items.targets[rows]).tolist())


# ---- what is reached

TRAIN = """
import json, sys
from pathlib import Path
from course_lib.app.predict import load_classifier
from course_lib.app.train import train_classifier
from course_lib.data import ImageLoader, get_items, presize
from course_lib.learner import Learner
from course_lib.settings import load_settings
settings = load_settings(environ={}, **json.loads(sys.argv[1]))
folder = Path(sys.argv[3])
stopped = (folder / "checkpoints" / "last.safetensors").exists()
result = train_classifier(settings, output=folder, resume=stopped, echo=print, **json.loads(sys.argv[2]))
seconds = result.seconds
if stopped:  # the epochs of all processes
    seconds = sum(row["seconds"] for row in json.loads((folder / "metrics.json").read_text())["history"])
trained = load_classifier(folder / "model.safetensors")
items = get_items("elpv", announce=False)
images = presize(items, trained.presize, settings.cache_dir)
loader = ImageLoader(images.images, items.targets, items.part("test"), trained.transform, batch_size=64)
logits, targets = Learner(trained.model, [], loader, progress=False).predict()
predicted = logits.argmax(1)
_out = {**result.metrics, "minutes": seconds / 60, "test_images": len(targets),
        "test_error": (predicted != targets).float().mean().item(),
        "test_two_class_error": (predicted % 2 != targets % 2).float().mean().item(),
        "test_predicted": predicted.tolist()}
"""


def measure_one(what: str, *, seed: int) -> dict:
    profile = "tuned" if what == TUNED else "laptop"
    settings = {"profile": profile, "seed": seed, "data_dir": str(DATA), "dataset": "elpv"}
    folder = DATA / trial_key({"what": what}, seed)
    found = run_python(TRAIN, json.dumps(settings), json.dumps(CHANGES.get(what, {})), str(folder))
    shutil.rmtree(folder)
    return {"error_rate": found["test_error"], **found}


def summary(found: Experiment, value: str, what: str) -> dict:
    """Mean, standard deviation and all values over the seeds, and the corrected 95 % interval of the mean."""
    values = found.values(value, what=what)
    seeds = sorted(values)
    mean = compare(dict.fromkeys(seeds, 0.0), values)
    return {"error": mean.difference, "std": statistics.stdev(values.values()),
            "errors": [values[seed] for seed in seeds], "interval": [mean.low, mean.high]}


def judge(found: Experiment) -> dict:
    """What the runs say: errors on the test part in four classes and in two, and by how much recipes differ."""
    items = get_items("elpv", announce=False)
    test = items.targets[items.part("test")]
    commonest = np.bincount(items.targets[items.part("rest")]).argmax()  # what somebody who never looks would say
    result = {"test_images": len(test), "seeds": sorted(found.values("test_error", what="lesson 5")),
              "always the commonest class": float((test != commonest).mean()),
              "always functional": float((test % 2 == 1).mean())}  # as two classes; defective ones are odd
    tuned = sorted(found.values("test_error", what=TUNED))
    for what in [*CHANGES, *[TUNED] * (len(tuned) > 1)]:  # a part of tuned's seeds will do
        result[what] = summary(found, "test_error", what) | {
            "two classes": summary(found, "test_two_class_error", what)}

    def against(what: str, other: str) -> dict:
        difference = compare(*(found.values("test_error", what=one) for one in (other, what)))
        print(f"{what} against {other}:", difference.in_words("error on the test part"))
        return {"difference": difference.difference, "interval": [difference.low, difference.high]}

    result |= against("lesson 5", "linear probe")
    if TUNED in result:
        result[TUNED] |= {"seeds": tuned, "against lesson 5": against(TUNED, "lesson 5")}
    return result


def main() -> None:
    asked = arguments(__doc__, ("divide", "measure", "tuned"), default=())
    if not asked.wanted:
        sys.exit(__doc__)
    if "divide" in asked.wanted:
        divide()
    if {"measure", "tuned"} & set(asked.wanted):
        configs = [{"what": what} for what in [*CHANGES, *[TUNED] * ("tuned" in asked.wanted)]]
        found = run_experiment(measure_one, configs, seeds=range(42, 47), path=asked.output / "test_part.jsonl")
        print(json.dumps(record("test_part", judge(found), asked.output), indent=1))


if __name__ == "__main__":
    main()
