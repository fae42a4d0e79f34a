"""A class of few images among many of another: what helps to find it? rare.jsonl and rare.json.

    python benchmarks/rare.py [FOLDER ...] [--output FOLDER]

`course train` with the profile laptop on folders in which one class is rare (the head alone learns, from eight versions
of each image); the error is measured on other images, and the mean over the two classes is compared.
Ways: the plain loss; mistakes weighted by one through the share of the class; images of the rare class drawn as often
as those of the other; the logarithm of the class's share added to its score while it learns (logit adjustment, Menon et
al. 2021). Solar cells come with the course; cats and dogs are those of the pets sample (COURSELIB_SAMPLE_PETS). A row
is one folder, one way and one seed, which draws the images.
"""

import itertools
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from frame import PETS, Rows, arguments, record
from torch.nn import functional as F

import course_lib.app.train as training
from course_lib.app.balance import AdjustedLoss
from course_lib.data import get_items
from course_lib.settings import CourseSettings, load_settings

SEEDS = (1, 2)


@dataclass(frozen=True)
class Folder:
    """What it is made of."""
    rare: tuple[str, int]  # the class, and how many images of it are there to learn from
    common: tuple[str, int]
    tested: int  # images of each class, at most, that the error is measured on


FOLDERS = {
    "5 cats, 140 dogs": Folder(("cat", 5), ("dog", 140), 70),
    "5 defective cells, 200 functional": Folder(("mono defective", 5), ("mono functional", 200), 150),
    "15 cats, 140 dogs": Folder(("cat", 15), ("dog", 140), 70),
}


def files_of(label: str) -> list[Path]:
    """All images of a class, in a fixed order."""
    if label in ("cat", "dog"):  # the names of cats' breeds begin with a capital letter
        return [path for path in sorted((PETS / "images").glob("*.jpg")) if path.name[0].isupper() == (label == "cat")]
    items = get_items("elpv", load_settings().data_dir, announce=False)
    return [items.path(row) for row in np.flatnonzero(np.array(items.labels) == label)]


def make_folder(place: Path, folder: Folder, seed: int) -> None:
    """train/CLASS/FILE and valid/CLASS/FILE in `place`."""
    generator = np.random.default_rng(seed)
    for label, count in (folder.common, folder.rare):
        files = files_of(label)
        drawn = [files[k] for k in generator.permutation(len(files))]
        for part, some in (("train", drawn[:count]), ("valid", drawn[count:count + folder.tested])):
            (place / part / label).mkdir(parents=True)
            for path in some:
                shutil.copy(path, place / part / label / path.name)


# ---- the ways: each changes the loaders or the loss of a learner that is ready

def plain(loaders, learner, counts: torch.Tensor, smoothing: float) -> None: ...


def weights(loaders, learner, counts: torch.Tensor, smoothing: float) -> None:
    each = counts.sum() / (len(counts) * counts)
    learner.loss_fn = lambda logits, y: (
        each[y] * F.cross_entropy(logits, y, reduction="none", label_smoothing=smoothing)).mean()


def adjusted(loaders, learner, counts: torch.Tensor, smoothing: float) -> None:
    learner.loss_fn = AdjustedLoss(counts.numpy(), smoothing)


def sampled(loaders, counts: torch.Tensor) -> None:
    """As many of each class, those of the rare one again and again."""
    rows, most = loaders.train.indices, int(counts.max())
    of_class = [rows[loaders.train.targets[rows] == k] for k in range(len(counts))]
    loaders.train.indices = np.concatenate([np.resize(some, most) for some in of_class])


WAYS: dict[str, Callable | None] = {"plain": plain, "class weights": weights, "logit adjustment": adjusted,
                                    "balanced sampling": None}


def measure(folder: Folder, way: str, seed: int) -> dict:
    original = training.prepare_learner

    def prepare(classifier, loaders, recipe, processes):
        counts = torch.bincount(torch.from_numpy(loaders.train.targets[loaders.train.indices])).float()
        if WAYS[way] is None:
            sampled(loaders, counts)
        learner = original(classifier, loaders, recipe, processes)
        (WAYS[way] or plain)(loaders, learner, counts, recipe.label_smoothing)
        return learner

    training.prepare_learner = prepare
    started = time.process_time()
    try:
        with tempfile.TemporaryDirectory() as place:
            make_folder(Path(place) / "images", folder, seed)
            settings = CourseSettings(dataset=str(Path(place) / "images"), data_dir=Path(place) / "data",
                                      profile_name="laptop", device="cpu", seed=seed)
            result = training.train_classifier(settings, output=Path(place) / "run", echo=lambda line: None,
                                               balance="no", few_views=8)
    finally:
        training.prepare_learner = original
    errors = result.metrics["error_per_class"]
    return {"balanced_error": round(statistics.fmean(errors.values()), 4),
            "error_of_the_rare": round(errors[folder.rare[0]], 4),
            "error_of_the_common": round(errors[folder.common[0]], 4),
            "processor_seconds": round(time.process_time() - started, 1)}


def summary(rows: list[dict]) -> dict:
    """Means over the seeds of each folder and way."""
    means: dict[str, dict] = {}
    for name, way in itertools.product(FOLDERS, WAYS):
        if some := [row for row in rows if (row["folder"], row["way"]) == (name, way)]:
            means.setdefault(name, {})[way] = {
                key: round(statistics.fmean(row[key] for row in some), 4)
                for key in ("balanced_error", "error_of_the_rare", "error_of_the_common")} | {"seeds": len(some)}
    return {"what": "mean error of two classes, of which one is rare in training; means over seeds", "means": means}


def main() -> None:
    asked = arguments(__doc__, FOLDERS, noun="folder")
    kept = Rows(asked.output / "rare.jsonl", "folder", "way", "seed")
    for seed, name, way in itertools.product(SEEDS, asked.wanted, WAYS):
        if "cats" in name and not PETS.is_dir() or kept.done(name, way, seed):
            continue
        kept.add({"folder": name, "way": way, "seed": seed, **measure(FOLDERS[name], way, seed)})
        print(kept.read()[-1], flush=True)
    for name, ways in record("rare", summary(kept.read()), asked.output)["means"].items():
        print(name, {way: f"{found['balanced_error']:.1%}" for way, found in ways.items()})


if __name__ == "__main__":
    main()
