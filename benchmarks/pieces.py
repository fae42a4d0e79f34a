"""What each piece of lesson 05's recipe buys, on validation images alone: course_lib/results/pieces.json.

    python benchmarks/pieces.py recipe      the recipe, and the recipe with one piece changed: elpv, 224 px
    python benchmarks/pieces.py few         100 training images of 112 px: what learns, and with how many versions
    python benchmarks/pieces.py pets        the same question on the course's sample of Oxford-IIIT Pets, if it is there

Five seeds, each with its own division and its own new head. The recipe itself and the head alone were trained by
test_part.py with the same seeds; their validation errors are read from test_part.jsonl. A finished training is a line
of pieces.jsonl, and a run that was stopped goes on from it; the last one to end writes pieces.json. About 25 minutes
of one core.
"""

import json
import statistics
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from frame import PETS, RESULTS, Rows, arguments, record
from torch import nn

from course_lib.data import get_items, limit_items, make_loaders, presize
from course_lib.learner import Learner, error_rate
from course_lib.learner.features import cached_features, train_last
from course_lib.learner.strategy import make_adamw
from course_lib.models import create_backbone, create_classifier
from course_lib.schedules import OneCycle
from course_lib.settings import load_settings, seed_everything

SEEDS = range(42, 47)
PIECES = {  # what is changed of the recipe
    "a constant rate": {"one_cycle": False},
    "one rate for body and head": {"head_factor": 1},
}
FEW, EPOCHS = 100, 10
SMALL = {f"{part}, {views}": {"fraction": fraction, "views": count, "keep": fraction < 1}
         for part, fraction in (("the head", 0.0), ("the last third", 1 / 3), ("everything", 1.0))
         for views, count in (("plain", 1), ("augmented", 4))}
PLAIN = {"smoothing": 0.0, "epochs": EPOCHS}


def train(loaders, seed: int, *, fraction=1 / 3, epochs=5, one_cycle=True, head_factor=3, lr=1e-3, smoothing=0.05,
          dropout=0.3, views=1, keep=True) -> dict:
    """One training; its error on the validation images."""
    body = create_backbone("efficientnet_lite0")
    seed_everything(seed)
    classifier = create_classifier(body, len(loaders.classes), dropout=dropout)
    train_last(classifier, fraction)
    if not keep and views == 1:  # everything learns: images each time, plain or augmented anew
        loaders.train.transform = replace(loaders.train.transform, augmentation=None)
    learner = Learner(classifier, loaders.train, metrics=[error_rate], progress=False,
                      loss_fn=nn.CrossEntropyLoss(label_smoothing=smoothing), callbacks=[OneCycle()] * one_cycle,
                      make_optimizer=partial(make_adamw, weight_decay=0.02))
    with cached_features(learner, views=views, keep=keep):
        learner.fit(epochs, [lr, lr, head_factor * lr])
    valid = loaders.valid.targets[loaders.valid.indices]
    commonest = np.bincount(loaders.train.targets[loaders.train.indices]).argmax()
    return {"error": learner.evaluate(loaders.valid)["error_rate"], "commonest": float((valid != commonest).mean()),
            "images": len(loaders.train.indices), "validation_images": len(valid)}


def loaders_of(items, size: int, stored: int, seed: int, few: int | None = None):
    settings = load_settings(profile="laptop")
    body = create_backbone("efficientnet_lite0")
    images = presize(items, stored, settings.cache_dir)
    loaders = make_loaders(images, image_size=size, batch_size=32 if few is None else 16, mean=body.mean, std=body.std,
                           seed=seed)
    if few is not None:
        kept = set(limit_items(items.subset(loaders.train.indices), few, seed).names)
        loaders.train.indices = np.array([i for i in loaders.train.indices if items.names[i] in kept])
    return loaders


def measure(question: str, name: str, seed: int) -> dict:
    if question == "recipe":
        return train(loaders_of(get_items("elpv", announce=False), 224, 256, seed), seed, **PIECES[name])
    if question == "few":
        return train(loaders_of(get_items("elpv", announce=False), 112, 128, seed, FEW), seed, **PLAIN | SMALL[name])
    items = get_items("pets", PETS.parent, announce=False)
    return train(loaders_of(items, 224, 256, seed), seed, **PLAIN | SMALL[name])


def names_of(question: str) -> list[str]:
    return list(PIECES) if question == "recipe" else list(SMALL) if question == "few" else list(SMALL)[:2]


def trained_before(folder) -> list[dict]:
    """The recipe and the head alone, as test_part.py trained them: their validation errors."""
    rows = Rows(folder / "test_part.jsonl", "config", "seed", "values").read()
    names = {"lesson 5": "the recipe", "linear probe": "the head alone"}
    return [{"question": "recipe", "name": names[row["config"]["what"]], "seed": row["seed"],
             "error": row["values"]["validation_error"]} for row in rows if row["status"] == "done"]


def table_of(rows: list[dict]) -> list[dict]:
    """One row a way: the seeds that are done, their errors, mean and standard deviation (n - 1)."""
    table = []
    for name in dict.fromkeys(row["name"] for row in rows):
        errors = {row["seed"]: row["error"] for row in rows if row["name"] == name}
        if len(errors) > 1:
            table.append({"way": name, "error": statistics.mean(errors.values()),
                          "std": statistics.stdev(errors.values()), "seeds": sorted(errors),
                          "errors": [errors[seed] for seed in sorted(errors)]})
    return table


def main() -> None:
    asked = arguments(__doc__, ("recipe", "few", "pets"))
    rows = Rows(asked.output / "pieces.jsonl", "question", "name", "seed")
    for question in asked.wanted:
        if question == "pets" and not PETS.is_dir():
            print("The sample of Oxford-IIIT Pets is not there: COURSELIB_SAMPLE_PETS says where it is.")
            continue
        for seed in SEEDS:
            for name in names_of(question):
                if not rows.done(question, name, seed):
                    rows.add(found := {"question": question, "name": name, "seed": seed,
                                       **measure(question, name, seed)})
                    print(found, flush=True)
    found: dict = {}
    for question in ("recipe", "few", "pets"):
        own = [row for row in rows.read() if row["question"] == question]
        if own:
            facts = {key: own[0][key] for key in ("images", "validation_images")}
            commonest = statistics.mean(row["commonest"] for row in own)
            found[question] = {**facts, "always the commonest class": commonest,
                               "ways": table_of((trained_before(RESULTS) if question == "recipe" else []) + own)}
    print(json.dumps(record("pieces", found, asked.output), indent=1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
