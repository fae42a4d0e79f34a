"""Five ways to spend four epochs on a pretrained network, and one of them without random crops: lesson 05's table.

    python benchmarks/strategies.py        writes course_lib/results/transfer.json

elpv in small: IMAGES training images of SIZE pixels, every validation image, over three seeds (each with its own
split and its own new head). All have the same number of epochs, the same one-cycle schedule and the same highest
learning rate. Errors alone are recorded, so it may run beside other work. Runs that are done are kept in
transfer.partial.jsonl, so that an interrupted comparison goes on where it was.
"""

import json
import statistics
from dataclasses import replace

from frame import Rows, arguments, record

IMAGES, SIZE, STORED, EPOCHS, LR, SEEDS = 600, 112, 128, 4, 2e-3, (42, 43, 44)
STRATEGIES = ("from scratch", "head only", "all at once", "two-stage", "discriminative", "two-stage, resized")


def train(strategy: str, seed: int) -> dict:
    """One run: error on all validation images of the seed's split, and seconds of training."""
    import numpy as np

    from course_lib.data import get_items, limit_items, make_loaders, presize
    from course_lib.learner import Learner, error_rate
    from course_lib.models import create_classifier
    from course_lib.settings import load_settings, seed_everything
    from course_lib.transfer import fit_one_cycle, freeze, unfreeze

    settings = load_settings(profile="laptop", seed=seed)
    seed_everything(seed)
    classifier = create_classifier("efficientnet_lite0", 4, pretrained=strategy != "from scratch")
    images = presize(get_items("elpv", settings.data_dir, announce=False), STORED, settings.cache_dir)
    loaders = make_loaders(images, image_size=SIZE, batch_size=32, mean=classifier.body.mean, std=classifier.body.std,
                           seed=seed)
    subset = limit_items(images.items.subset(loaders.train.indices), IMAGES, seed)
    number = {name: i for i, name in enumerate(images.items.names)}
    few = replace(loaders.train, indices=np.sort([number[name] for name in subset.names]))
    if strategy.endswith("resized"):
        few.transform = replace(few.transform, augmentation=None)
    learner = Learner(classifier, few, progress=False, metrics=[error_rate])
    if strategy in ("from scratch", "all at once"):
        fit_one_cycle(learner, EPOCHS, LR)
    else:
        freeze(learner)
        alone = strategy == "head only"  # on augmented images, as the later epochs of the others, not on cached ones
        fit_one_cycle(learner, EPOCHS if alone else 1, LR, keep_features=not alone)
    if strategy in ("two-stage", "two-stage, resized", "discriminative"):
        unfreeze(learner)
        fit_one_cycle(learner, EPOCHS - 1, (LR / 100, LR) if strategy == "discriminative" else LR)
    valid, commonest = loaders.valid.targets[loaders.valid.indices], np.bincount(few.targets[few.indices]).argmax()
    return {"strategy": strategy, "seed": seed, "error": learner.evaluate(loaders.valid)["error_rate"],
            "commonest": float((valid != commonest).mean()),
            "images": len(few.indices), "validation_images": len(valid)}


def main() -> None:
    asked = arguments(__doc__, ())
    partial = Rows(asked.output / "transfer.partial.jsonl", "strategy", "seed")
    for seed in SEEDS:
        for strategy in STRATEGIES:
            if not partial.done(strategy, seed):
                partial.add(found := train(strategy, seed))
                print(found, flush=True)
    runs, table = partial.read(), []
    for strategy in STRATEGIES:
        errors = [run["error"] for run in runs if run["strategy"] == strategy]
        table.append({"strategy": strategy, "error": statistics.mean(errors), "spread": statistics.stdev(errors),
                      "errors": errors})
    result = {"dataset": "elpv", "backbone": "efficientnet_lite0", "image_size": SIZE, "epochs": EPOCHS,
              "batch_size": 32, "highest_rate": LR, "training_images": runs[0]["images"],
              "validation_images": [run["validation_images"] for run in runs[::len(STRATEGIES)]],
              "always the commonest class": statistics.mean(run["commonest"] for run in runs),
              "seeds": list(SEEDS), "strategies": table}
    print(json.dumps(record("transfer", result, asked.output), indent=1))
    partial.path.unlink()


if __name__ == "__main__":
    main()
