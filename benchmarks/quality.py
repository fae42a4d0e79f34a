"""How many planted wrong labels and copies are found? quality.jsonl and quality.json.

    python benchmarks/quality.py [elpv] [pets] [--output FOLDER]

In elpv, and in the pets sample (COURSELIB_SAMPLE_PETS names its folder, which may be any folder of photographs), one
label in twenty is replaced by another, drawn at random. The images are ranked as `course data check` ranks them: by
the probability that logistic regression on features of EfficientNet-Lite0 gives the label without having seen the
image. The ranking is measured in its first tenth and its first twentieth; beside it stand the images that confident
learning lists.

Copies are made of three images in a hundred: compressed to quality 60, half as large, mirrored, or brighter by 1.3, in
turn. They are copies of images without a near-duplicate in the data set, because elpv has hundreds of its own: wafers
of one block of silicon. A pair that is found and holds a copy is right if the other is its original. A line is one
data set and one seed.
"""

import random
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from frame import PETS, Rows, arguments, record
from PIL import Image, ImageEnhance, ImageOps

from course_lib.data import ImageItems, PresizedImages, get_items, presize
from course_lib.data.duplicates import linked_groups, near_duplicates, perceptual_hashes
from course_lib.quality.labels import held_out_probabilities, image_features, likely_errors
from course_lib.settings import CourseSettings, load_settings

SEEDS, FLIPPED, COPIED = range(5), 0.05, 0.03
CHANGES = {
    "compressed": lambda image: image,
    "half as large": lambda image: image.resize((image.width // 2, image.height // 2)),
    "mirrored": ImageOps.mirror,
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
}


def flip_labels(items: ImageItems, seed: int) -> tuple[ImageItems, np.ndarray]:
    """The items with some labels replaced by another class, and the indices of those."""
    rng = np.random.default_rng(seed)
    flipped = rng.choice(len(items), round(FLIPPED * len(items)), replace=False)
    targets = items.targets.copy()
    targets[flipped] = (targets[flipped] + rng.integers(1, len(items.classes), len(flipped))) % len(items.classes)
    return replace(items, labels=tuple(items.classes[target] for target in targets)), flipped


def find_labels(items: ImageItems, features: np.ndarray, seed: int) -> dict:
    """What part of the flipped labels stands in the first tenth and twentieth of the ranking, and in the list."""
    changed, flipped = flip_labels(items, seed)
    probabilities = held_out_probabilities(features, changed, seed=seed)
    order = np.argsort(probabilities[np.arange(len(items)), changed.targets], kind="stable")
    listed = likely_errors(probabilities, changed.targets)
    found = {"images": len(items), "flipped": len(flipped), "listed": len(listed),
             "listed_recall": np.isin(flipped, listed).mean().item(),
             "listed_precision": np.isin(listed, flipped).mean().item()}
    for name, share in (("tenth", 0.1), ("twentieth", 0.05)):
        first = order[:round(share * len(items))]
        found |= {f"{name}_recall": np.isin(flipped, first).mean().item(),
                  f"{name}_precision": np.isin(first, flipped).mean().item()}
    return found


def make_copies(items: ImageItems, sources: list[int], folder: Path) -> ImageItems:
    """A changed copy of each source in `folder`."""
    for number, (source, name) in enumerate(zip(sources, list(CHANGES) * len(sources), strict=False)):
        with Image.open(items.path(source)) as image:
            changed = CHANGES[name](image.convert("RGB"))
        changed.save(folder / f"{number}.jpg", quality=60 if name == "compressed" else 90)
    names = tuple(f"{number}.jpg" for number in range(len(sources)))
    return ImageItems(folder, names, tuple(items.labels[i] for i in sources), items.classes)


def find_copies(items: ImageItems, hashes: np.ndarray, own: list, settings: CourseSettings, seed: int) -> dict:
    """Recall and precision of the copies that are planted; `own`: the pairs that the data set has itself."""
    paired = {i for one, two, _ in own for i in (one, two)}
    alone = [i for i in range(len(items)) if i not in paired]
    sources = random.Random(seed).sample(alone, round(COPIED * len(items)))
    with tempfile.TemporaryDirectory() as folder:
        copies = presize(make_copies(items, sources, Path(folder)), settings.profile.presize, Path(folder) / "cache",
                         progress=False)
        both = np.concatenate([hashes, perceptual_hashes(copies.images)])
    wanted = {(source, len(items) + number) for number, source in enumerate(sources)}
    found = {(one, two) for one, two, _ in near_duplicates(both) if two >= len(items)}
    kinds = {name: {pair for pair in wanted if (pair[1] - len(items)) % len(CHANGES) == place}
             for place, name in enumerate(CHANGES)}
    return {"copies": len(wanted), "copies_recall": len(found & wanted) / len(wanted),
            "copies_precision": len(found & wanted) / max(len(found), 1), "own_pairs": len(own),
            "recall_of": {name: len(found & pairs) / len(pairs) for name, pairs in kinds.items()}}


def prepared(name: str, settings: CourseSettings) -> tuple[PresizedImages, np.ndarray, np.ndarray, list]:
    """Presized images, features, hashes and near-duplicates of a data set as it is."""
    items = get_items("elpv" if name == "elpv" else PETS, settings.data_dir, announce=False)
    presized = presize(replace(items, splits=None), settings.profile.presize, settings.cache_dir)
    hashes = perceptual_hashes(presized.images)
    features = image_features(presized, settings.profile.image_size)
    return presized, features, hashes, list(near_duplicates(hashes))


def main() -> None:
    asked = arguments(__doc__, ("elpv", "pets"), noun="data set")
    settings, kept = load_settings(profile="laptop"), Rows(asked.output / "quality.jsonl", "data", "seed")
    for name in asked.wanted:
        left = [seed for seed in SEEDS if not kept.done(name, seed)]
        if name == "pets" and not PETS.is_dir():
            print("pets: left out, COURSELIB_SAMPLE_PETS names no folder")
            continue
        if left:
            presized, features, hashes, own = prepared(name, settings)
            groups = linked_groups(len(presized), own)
            items = replace(presized.items, groups=tuple(map(str, groups.tolist())))
        for seed in left:
            kept.add({"data": name, "seed": seed, **find_labels(items, features, seed),
                      **find_copies(items, hashes, own, settings, seed)})
            print(kept.read()[-1], flush=True)
    rows = kept.read()
    mean = {name: {key: round(statistics.fmean(row[key] for row in rows if row["data"] == name), 4)
                   for key, value in rows[0].items() if isinstance(value, (int, float)) and key != "seed"}
            for name in sorted({row["data"] for row in rows})}
    record("quality", {"what": "5 % of the labels flipped, 3 % of the images copied; means over seeds",
                       "seeds": list(SEEDS), "means": mean}, asked.output)
    for name, found in mean.items():
        print(name, found)


if __name__ == "__main__":
    main()
