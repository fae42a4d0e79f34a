"""Few photographs and few minutes: what error does each way reach? minutes.jsonl and minutes.json.

    python benchmarks/minutes.py [WAY ...] [--output FOLDER]

On the pets sample (COURSELIB_SAMPLE_PETS names its folder), 37 breeds with eight photographs each: six to train on and
two to test, in up to four divisions that test other photographs; the first one is the data set's own. The ways are
`course train` with its defaults in two profiles, fastai's `fine_tune` with more and more epochs, and logistic
regression on features of a pretrained network. Everybody has the same pretrained weights, and begins with image files.
Seconds are those of the processor, of all processes of a way.

A row is one way and one division. In the summary stands, for each number of minutes, what a way reaches with the
largest work of it that ends within them on average.
"""

import itertools
import resource
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from frame import PETS, Rows, arguments, record
from scipy.stats import binomtest

sys.path.append(str(Path(__file__).resolve().parent / "peers"))

from compare import installed, run_one

from course_lib.data import get_items

MINUTES = (1, 4, 10)
WAYS = {
    "course, laptop": ("course", {"epochs": 0}),
    "course, tuned": ("course", {"epochs": 0, "profile": "tuned"}),
    "fastai, 1 epoch": ("fastai", {"epochs": 1, "workers": 0}),
    "fastai, 4 epochs": ("fastai", {"epochs": 4, "workers": 0}),
    "fastai, 13 epochs": ("fastai", {"epochs": 13, "workers": 0}),
    "logistic regression, Lite0": ("sklearn", {}),
    "logistic regression, Lite2": ("sklearn", {"backbone": "efficientnet_lite2", "size": 260, "stored": 300}),
}


def divisions(folder: Path) -> list[list[Path]]:
    """Four times the photographs that are tested, two of each breed; the first are the data set's own test part."""
    items = get_items(str(folder), "data", announce=False)
    parts: list[list[Path]] = [[items.path(row) for row in items.part("test")]]
    rest = np.setdiff1d(np.arange(len(items)), items.part("test"))
    for k in range(3):
        parts.append([items.path(row) for label in items.classes
                      for row in rest[items.targets[rest] == items.classes.index(label)][2 * k:2 * k + 2]])
    assert len(set(itertools.chain(*parts))) == sum(map(len, parts)), "a photograph is tested twice"
    return parts


def make_folder(place: Path, folder: Path, division: int) -> None:
    """train/BREED/FILE and valid/BREED/FILE in `place`."""
    items = get_items(str(folder), "data", announce=False)
    tested = set(divisions(folder)[division])
    for row in range(len(items)):
        path = items.path(row)
        target = place / ("valid" if path in tested else "train") / items.labels[row]
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target / path.name)


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def summary(rows: list[dict]) -> dict:
    """What each way reaches within each number of minutes."""
    ways = {}
    for name in WAYS:
        if found := [row for row in rows if row["way"] == name]:
            wrong, images = sum(row["wrong"] for row in found), sum(row["images"] for row in found)
            low, high = binomtest(wrong, images).proportion_ci(method="wilson")
            ways[name] = {"peer": WAYS[name][0], "divisions": len(found), "error": round(wrong / images, 4),
                          "interval": [round(low, 4), round(high, 4)], "images": images,
                          "processor_seconds": round(statistics.fmean(row["processor_seconds"] for row in found), 1)}
    reached = {}
    for minutes in MINUTES:
        for peer in dict.fromkeys(peer for peer, _ in WAYS.values()):
            within = [(each["processor_seconds"], name) for name, each in ways.items()
                      if each["peer"] == peer and each["processor_seconds"] <= 60 * minutes]
            reached.setdefault(str(minutes), {})[peer] = (
                {"way": max(within)[1], "error": ways[max(within)[1]]["error"]} if within else None)
    return {"what": "error on the photographs of some divisions, six of each of 37 breeds to train on, and processor "
                    "seconds from files to the error",
            "ways": ways, "minutes": reached}


def main() -> None:
    asked = arguments(__doc__, WAYS, noun="way")
    if not PETS.is_dir():
        sys.exit("COURSELIB_SAMPLE_PETS names no folder of the pets sample.")
    kept = Rows(asked.output / "minutes.jsonl", "way", "division")
    for division, name in itertools.product(range(4), asked.wanted):
        peer, job = WAYS[name]
        if kept.done(name, division) or not installed(peer):
            continue
        with tempfile.TemporaryDirectory() as place:
            make_folder(Path(place), PETS, division)
            before = processor_seconds()
            found = run_one(peer, "tune", {"folder": place, "seed": 42 + division, **job}, threads=1)
            seconds = processor_seconds() - before
            images = sum(1 for file in (Path(place) / "valid").rglob("*") if file.is_file())
        kept.add({"way": name, "division": division, "error": round(found["error"], 4), "images": images,
                  "wrong": round(found["error"] * images), "processor_seconds": round(seconds, 1),
                  "peak_gb": found["peak_gb"]})
        print(kept.read()[-1], flush=True)
    for name, found in record("minutes", summary(kept.read()), asked.output)["ways"].items():
        print(f"{name}: {found['error']:.1%} in {found['processor_seconds']:.0f} s")


if __name__ == "__main__":
    main()
