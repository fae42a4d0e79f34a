"""Own photographs and few minutes: what error does each way reach? minutes.jsonl and minutes.json.

    python benchmarks/minutes.py [FOLDER ...] [--output FOLDER]

Folders of different kinds, each divided anew several times into images to train on and images to test: breeds, coats
and a kind of their own from the pets sample (COURSELIB_SAMPLE_PETS), cells from the data set that comes with the
course, and a folder of CLASS/FILE with eight images a class or more (COURSELIB_SAMPLE_MANY; the record is of 100 emoji
in eight designs: Apple, EmojiOne, Facebook, Fluent flat and modern, Google, OpenMoji, Twitter). The ways are `course
train` with its defaults in two profiles; the same with the last third of the body trained where the default is the head
alone; fastai's `fine_tune` with more and more epochs; and logistic regression on features of a pretrained network.
Everybody has the same pretrained weights, and begins with image files. Seconds are those of the processor, of all
processes of a way.

A row is one folder, one way and one division. In the summary stands, for each number of minutes, what a way reaches
with the largest work of it that ends within them on average, and how far the course is from it, division by division.
"""

import os
import resource
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from frame import PETS, ROOT, Rows, arguments, record
from scipy.stats import binomtest

sys.path.append(str(Path(__file__).resolve().parent / "peers"))

from compare import installed, run_one

from course_lib.data import ImageItems, get_items
from course_lib.settings import load_settings
from course_lib.tuning import compare

MINUTES = (1, 4, 10)
MANY = Path(os.environ.get("COURSELIB_SAMPLE_MANY", ROOT / "data" / "many"))
WAYS = {
    "course, laptop": ("course", {"epochs": 0}),
    "course, tuned": ("course", {"epochs": 0, "profile": "tuned"}),
    "course, the last third": ("course", {"epochs": 0, "few_per_class": 0}),
    "fastai, 1 epoch": ("fastai", {"epochs": 1, "workers": 0}),
    "fastai, 4 epochs": ("fastai", {"epochs": 4, "workers": 0}),
    "fastai, 13 epochs": ("fastai", {"epochs": 13, "workers": 0}),
    "logistic regression, Lite0": ("sklearn", {}),
    "logistic regression, Lite2": ("sklearn", {"backbone": "efficientnet_lite2", "size": 260, "stored": 300}),
}
LONG_HAIR = ("english_cocker_spaniel english_setter great_pyrenees havanese japanese_chin keeshond leonberger "
             "newfoundland pomeranian saint_bernard samoyed scottish_terrier wheaten_terrier yorkshire_terrier").split()

Files = dict[str, list[Path]]  # by class


def by_class(items: ImageItems) -> Files:
    return {label: [items.path(row) for row in np.flatnonzero(items.targets == k)]
            for k, label in enumerate(items.classes)}


def breeds() -> Files:
    """Of each breed first the data set's own test part, then the others."""
    items = get_items(str(PETS), "data", announce=False)
    tested = {items.path(row) for row in items.part("test")}
    return {label: sorted(files, key=lambda path: path not in tested) for label, files in by_class(items).items()}


def coats() -> Files:
    """Cats, dogs with short hair and dogs with long hair, in an order that mixes the breeds."""
    found: Files = {"cat": [], "dog with short hair": [], "dog with long hair": []}
    for breed, files in breeds().items():
        cat = files[0].name[0].isupper()  # as the data set writes them
        found["cat" if cat else f"dog with {'long' if breed in LONG_HAIR else 'short'} hair"].extend(files)
    return mixed(found, 0)


def cells() -> Files:
    return mixed(by_class(get_items("elpv", load_settings().data_dir, announce=False)), 0)


def two_kinds_of_cell() -> Files:
    return {label: files for label, files in cells().items() if label.startswith("mono")}


def many() -> Files:
    return mixed(by_class(get_items(str(MANY), "data", announce=False)), 0)


def mixed(files: Files, seed: int) -> Files:
    generator = np.random.default_rng(seed)
    return {label: [some[k] for k in generator.permutation(len(some))] for label, some in files.items()}


THIRD = "course, the last third"  # no default: what `fit_to_data` decides against; measured on a round at least


@dataclass(frozen=True)
class Folder:
    """How it is made, and what is measured on it."""
    source: Callable[[], Files]
    train: int | None  # images of each class to learn from; None: all that are not tested
    test: int | None  # and to test; None: a quarter
    trivial: float  # the error of who always says the commonest class
    rounds: int = 1  # how often each image is tested
    blocks: int = 4  # divisions of a round: they test other images
    without: tuple[str, ...] = ()  # ways that take longer than the largest number of minutes, or repeat another one


FOLDERS = {
    "37 breeds, 6 each": Folder(breeds, 6, 2, 36 / 37, rounds=4, without=(THIRD,)),
    "3 coats, 66 each": Folder(coats, 66, 22, 2 / 3, rounds=2),
    "2 kinds of cell, 90 each": Folder(two_kinds_of_cell, 90, 100, 1 / 2, rounds=2, blocks=3),
    "100 kinds of drawing, 6 each": Folder(many, 6, 2, 99 / 100, without=(THIRD, "fastai, 13 epochs")),
    "4 kinds of cell, 1,968 in all": Folder(cells, None, None, 0.5817, without=(
        THIRD, "course, tuned", "fastai, 1 epoch", "fastai, 4 epochs", "fastai, 13 epochs")),
}
SLOW = "fastai"  # is measured on one division only


def divide(folder: Folder, number: int) -> tuple[Files, Files]:
    """Files to train on and files to test. The divisions of a round test each image once, or less."""
    turn, block = divmod(number, folder.blocks)
    train, test = {}, {}
    for label, files in (mixed(folder.source(), turn) if turn else folder.source()).items():
        count = folder.test or len(files) // folder.blocks
        first = block * count
        test[label] = files[first:first + count]
        train[label] = (files[:first] + files[first + count:])[:folder.train]
    return train, test


def make_folder(place: Path, folder: Folder, number: int) -> int:
    """train/CLASS/FILE and valid/CLASS/FILE in `place`; how many are tested."""
    train, test = divide(folder, number)
    for part, files in (("train", train), ("valid", test)):
        for label, some in files.items():
            (place / part / label).mkdir(parents=True)
            for path in some:
                shutil.copy(path, place / part / label / path.name)
    return sum(map(len, test.values()))


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# ---- what is summed up

def of_ways(rows: list[dict], blocks: int) -> dict:
    """The error of each way, and an interval that counts an image once, however often it was tested."""
    ways = {}
    for name in WAYS:
        if found := [row for row in rows if row["way"] == name]:
            images = sum(row["images"] for row in found)
            error = sum(row["wrong"] for row in found) / images
            once = sum(row["images"] for row in found[:blocks])
            low, high = binomtest(round(error * once), once).proportion_ci(method="wilson")
            ways[name] = {"divisions": len(found), "error": round(error, 4), "images": once,
                          "interval": [round(low, 4), round(high, 4)],
                          "processor_seconds": round(statistics.fmean(row["processor_seconds"] for row in found), 1)}
    return ways


def reached(rows: list[dict], ways: dict, held_out: float) -> dict:
    """minutes -> peer -> its largest work within them, and its error less the course's, with a 95 % interval."""
    errors = {way: {row["division"]: row["wrong"] / row["images"] for row in rows if row["way"] == way} for way in ways}
    found: dict[str, dict] = {}
    for minutes in MINUTES:
        here = found[str(minutes)] = {}
        for peer in dict.fromkeys(peer for peer, _ in WAYS.values()):
            within = [(each["processor_seconds"], way) for way, each in ways.items()
                      if WAYS[way][0] == peer and way != THIRD and each["processor_seconds"] <= 60 * minutes]
            here[peer] = {"way": max(within)[1], "error": ways[max(within)[1]]["error"]} if within else None
        own = here["course"]
        for peer, one in here.items():
            if own and one and peer != "course" and len(errors[one["way"]].keys() & errors[own["way"]].keys()) > 1:
                far = compare(errors[own["way"]], errors[one["way"]], held_out=held_out)
                one |= {"more_than_course": round(far.difference, 4),
                        "interval": [round(far.low, 4), round(far.high, 4)]}
    return found


def summary(rows: list[dict]) -> dict:
    """What each way reaches on each folder, and within each number of minutes."""
    folders = {}
    for name, folder in FOLDERS.items():
        if some := [row for row in rows if row["folder"] == name]:
            ways = of_ways(some, folder.blocks)
            held_out = 0.25 if folder.train is None else folder.test / (folder.train + folder.test)
            folders[name] = {"trivial_error": round(folder.trivial, 4), "ways": ways,
                             "minutes": reached(some, ways, held_out)}
    return {"what": "error on images that were not learned from, and processor seconds from files to the error",
            "folders": folders}


def main() -> None:
    asked = arguments(__doc__, FOLDERS, noun="folder")
    kept = Rows(asked.output / "minutes.jsonl", "folder", "way", "division")
    for name in asked.wanted:
        folder = FOLDERS[name]
        needed = {breeds: PETS, coats: PETS, many: MANY}.get(folder.source)
        if needed and not needed.is_dir():
            print(f"Without {name}: there is no folder {needed}.")
            continue
        for division in range(folder.rounds * folder.blocks):
            for way, (peer, job) in WAYS.items():
                if (way in folder.without or kept.done(name, way, division) or not installed(peer)
                        or (peer == SLOW and division > 0) or (way == THIRD and division >= folder.blocks)):
                    continue
                with tempfile.TemporaryDirectory() as place:
                    images = make_folder(Path(place), folder, division)
                    start = processor_seconds()
                    found = run_one(peer, "tune", {"folder": place, "seed": 42 + division, **job}, threads=1)
                    seconds = processor_seconds() - start
                kept.add({"folder": name, "way": way, "division": division, "error": round(found["error"], 4),
                          "images": images, "wrong": round(found["error"] * images),
                          "processor_seconds": round(seconds, 1), "peak_gb": found["peak_gb"]})
                print(kept.read()[-1], flush=True)
    for name, found in record("minutes", summary(kept.read()), asked.output)["folders"].items():
        print(name)
        for way, one in found["ways"].items():
            print(f"  {way}: {one['error']:.1%} in {one['processor_seconds']:.0f} s")


if __name__ == "__main__":
    main()
