"""Which rule reads the better learning rate off a sweep? rules.jsonl: lesson 4 shows it, and chooses by it.

    python benchmarks/rules.py [TASK ...]

A task is a data set, the part of the network that learns, and an optimiser. For each seed (another division into
training and validation, another new head and order) a sweep is made as `lr_find` makes it, each rule names a rate, and
a new network trains at that rate. A fixed rate of 0.001, AdamW's own default, takes part as the rule that never looks.
The body is EfficientNet-Lite0 as ImageNet left it. What is frozen is computed once, for plain images. The test parts
are never used. The tasks on pets need photographs (COURSELIB_SAMPLE_PETS names their folder) and are left out without
them. A line is a task, a seed and a rule. One thread; a quarter of an hour.
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from frame import PETS, Rows, arguments

from course_lib.data import BatchTransform, ImageItems, get_items, limit_items, presize, split_items
from course_lib.learner import Learner, NonFiniteLossError, error_rate
from course_lib.learner.features import FeatureLoader, cut_classifier, train_last
from course_lib.lr_finder import lr_find, suggest_lrs
from course_lib.models import create_classifier
from course_lib.settings import load_settings, seed_everything

SEEDS, FIXED, BATCH, SIZE, STORED = range(200, 205), 1e-3, 32, 112, 128


@dataclass(frozen=True)
class Task:
    data: str  # elpv or pets
    fraction: float  # of the body, from its end, that learns with the head
    epochs: int
    images: int | None = None  # for training; None: all of them
    sgd: bool = False  # SGD with momentum in place of AdamW


TASKS = {
    "elpv, last third": Task("elpv", 1 / 3, 6, images=256),
    "elpv, head": Task("elpv", 0, 5),
    "elpv, head, SGD": Task("elpv", 0, 5, sgd=True),
    "pets, last third": Task("pets", 1 / 3, 10),
    "pets, head": Task("pets", 0, 12),
}


def items_of(data: str) -> ImageItems:
    """Images to be divided; of the pets only those that their authors gave for training."""
    if data == "elpv":  # whose test part `split_items` never gives
        return get_items("elpv", load_settings(profile="laptop").data_dir, announce=False)
    items = get_items(PETS, announce=False)
    return replace(items.subset(split_items(items)[0]), splits=None)


@torch.no_grad()
def features_of(items: ImageItems, fraction: float, folder: str) -> torch.Tensor:
    """What the frozen part says of each image, float32 (1, N, ...); zeros for those of a test part."""
    classifier = create_classifier("efficientnet_lite0", len(items.classes)).eval()
    train_last(classifier, fraction)
    images = presize(items, STORED, folder, progress=False).images
    transform = BatchTransform(SIZE, classifier.body.mean, classifier.body.std)
    front = cut_classifier(classifier, transform(torch.from_numpy(np.array(images[:2]))))[0]
    rows = np.sort(np.concatenate(split_items(items)))
    found = [front(transform(torch.from_numpy(np.array(images[part]))))
             for part in np.array_split(rows, len(rows) // BATCH)]
    features = torch.zeros(1, len(items), *found[0].shape[1:])
    features[0, rows] = torch.cat(found)
    return features


def make_learner(task: Task, items: ImageItems, features: torch.Tensor, seed: int) -> Learner:
    """A learner that has not begun, always the same for a seed, on kept features."""
    seed_everything(seed)
    train, valid = split_items(items, seed=seed)
    if task.images:
        place = {name: i for i, name in enumerate(items.names)}
        train = np.sort([place[name] for name in limit_items(items.subset(train), task.images, seed).names])
    classifier = create_classifier("efficientnet_lite0", len(items.classes))
    train_last(classifier, task.fraction)
    rest = cut_classifier(classifier, torch.zeros(2, 3, SIZE, SIZE))[1]
    targets = torch.from_numpy(items.targets)
    train_loader, valid_loader = (
        FeatureLoader(features[:, rows], targets[rows], batch, shuffle=shuffle, seed=seed, classes=items.classes)
        for rows, batch, shuffle in ((train, BATCH, True), (valid, 128, False)))
    sgd = (lambda groups: torch.optim.SGD(groups, momentum=0.9, weight_decay=1e-4)) if task.sgd else None
    return Learner(rest, train_loader, valid_loader, metrics=[error_rate], make_optimizer=sgd, progress=False)


def train_at(make: Callable[[], Learner], lr: float, epochs: int) -> dict:
    """Validation loss and error after a training at `lr`; both None where the loss became no number."""
    learner = make()
    try:
        learner.fit(epochs, lr)
    except NonFiniteLossError:
        return {"valid_loss": None, "error_rate": None}
    found = learner.evaluate()
    return {"valid_loss": found["valid_loss"], "error_rate": found["error_rate"]}


def run_seed(name: str, items: ImageItems, features: torch.Tensor, seed: int) -> list[dict]:
    """The rows of a task and a seed; rules that name the same rate share a training."""
    task = TASKS[name]
    make = partial(make_learner, task, items, features, seed)
    learner = make()
    rates = {"fixed": FIXED, **suggest_lrs(lr_find(learner))}
    targets = learner.valid_loader.targets  # type: ignore[union-attr]
    commonest = learner.train_loader.targets.mode().values  # type: ignore[attr-defined]
    about = {"train": learner.train_loader.num_samples, "valid": len(targets),  # type: ignore[attr-defined]
             "trivial": (targets != commonest).float().mean().item()}
    runs = {lr: train_at(make, lr, task.epochs) for lr in dict.fromkeys(rates.values())}
    return [{"task": name, "seed": seed, "rule": rule, "lr": lr, **runs[lr], **about} for rule, lr in rates.items()]


def main() -> None:
    asked = arguments(__doc__, TASKS, noun="task")
    torch.set_num_threads(1)
    kept = Rows(asked.output / "rules.jsonl", "task", "seed", "rule")
    found: dict[tuple[str, float], torch.Tensor] = {}
    for name in asked.wanted:
        task, left = TASKS[name], [seed for seed in SEEDS if not kept.done(name, seed, "slide")]
        if task.data == "pets" and not PETS.is_dir():
            print(f"{name}: left out, {os.fspath(PETS)} is no folder (COURSELIB_SAMPLE_PETS names it)")
            continue
        items, kind = items_of(task.data), (task.data, task.fraction)
        if left and kind not in found:
            with tempfile.TemporaryDirectory() as folder:
                found[kind] = features_of(items, task.fraction, folder)
        for seed in left:
            kept.add(*(rows := run_seed(name, items, found[kind], seed)))
            print(name, seed, *(f"{row['rule']} {row['lr']:.1e}: {row['error_rate']}" for row in rows), flush=True)


if __name__ == "__main__":
    main()
