"""Run the long experiments of lesson 10, and keep every finished trial in course_lib/results/.

    python benchmarks/tricks.py                 the two experiments of the lesson: scratch and labels
    python benchmarks/tricks.py scratch         a small network from scratch, with each trick: tricks_scratch.jsonl
    python benchmarks/tricks.py labels          teachers, students and self-training with few labels: few_labels.jsonl
    python benchmarks/tricks.py tricks          every trick on a pretrained network, five epochs: tricks.jsonl
    python benchmarks/tricks.py cost            what the tricks add to a training step: tricks_cost.json; before tricks

`scratch` and `labels` are the lesson's own code: its cells are run up to the experiment, with measuring switched on
(half an hour and ten minutes on one CPU core). `tricks` is older, and takes an evening: all photographs, divided at
random as in published figures, the test part included. Trials that are in the file are not run again, so a run that
was stopped goes on.
"""

import itertools
import json
import statistics
import sys
import time
from dataclasses import replace

from frame import RESULTS, ROOT, arguments, find_cells, record, run_cells

LESSON = ROOT / "nbs" / "10_tricks.ipynb"
COSTS = RESULTS / "tricks_cost.json"
NETWORK = ("lesson_started", "drop_path", "small_net", "in_memory", "Average", "WAYS", "train_small")
MARKS = {  # what the cells define that a question needs
    "scratch": (*NETWORK, "scratch"),
    "labels": (*NETWORK, "scratch", "features_of", "STUDENTS", "taught"),
}
SEEDS = (42, 43, 44)
COMBINED = ("mixup,label_smoothing,ema", "rand_augment,cutout,tta", "ricap,ema,tta")


def cells(question: str) -> list[str]:
    """The code that the question needs."""
    return find_cells(LESSON, MARKS[question])


def seconds_of(action, repeats: int) -> float:
    """The shortest of several runs: what it takes when nothing else disturbs."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return min(times)


# ---- Every trick on a pretrained network

class Fewer:
    """The first batches of each pass of a loader: other images in each epoch, since the loader shuffles."""

    def __init__(self, loader, count: int):
        self.loader, self.count = loader, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self):
        return itertools.islice(self.loader, self.count)


def prepare_trial(tricks: str, size: int, epochs: int, seed: int):
    """A learner with these tricks, as `course train --tricks` makes it; its loaders and learning rates."""
    from course_lib.app.train import prepare_learner
    from course_lib.core.random import seed_everything
    from course_lib.data import get_items, make_loaders, presize
    from course_lib.learner import ProgressBar
    from course_lib.learner.distributed import Processes
    from course_lib.models import create_classifier
    from course_lib.recipes import Recipe
    from course_lib.settings import load_settings
    from course_lib.tricks import parse_trick_names

    settings = load_settings(profile="laptop")
    items = replace(get_items("elpv", settings.data_dir, announce=False), splits=None)
    names = parse_trick_names([] if tricks == "none" else tricks)
    recipe = Recipe("a trial", epochs, image_size=size, tricks=names, label_smoothing=0.0)
    small = presize(items, size + 16, settings.cache_dir, progress=False)
    seed_everything(seed)
    network = create_classifier("efficientnet_lite0", len(items.classes), dropout=recipe.dropout)
    loaders = make_loaders(small, image_size=size, batch_size=32, mean=network.body.mean, std=network.body.std,
                           seed=seed)
    learner = prepare_learner(network, loaders, recipe, Processes())
    for bar in [callback for callback in learner.callbacks if isinstance(callback, ProgressBar)]:
        learner.remove_callback(bar)
    return learner, loaders, [recipe.max_lr, recipe.max_lr, 3 * recipe.max_lr]


def train_tricks(tricks: str = "none", dataset: str = "elpv", size: int = 96, epochs: int = 5, share: float = 1.0, *,
                 seed: int):
    """One training with these tricks; `share`: of its steps."""
    from course_lib.app.train import mirror_axes
    from course_lib.learner import Learner, error_rate
    from course_lib.tricks import FlipTTA

    learner, loaders, lrs = prepare_trial(tricks, size, epochs, seed)
    if share < 1:
        learner.train_loader = Fewer(loaders.train, max(1, round(share * len(loaders.train))))
    learner.fit(epochs, lrs)
    if "tta" in tricks.split(","):
        both = FlipTTA(learner.model, mirror_axes(loaders.train.transform.augmentation))
        learner.recorder.rows[-1] |= Learner(both, [], loaders.valid, metrics=[error_rate], progress=False).evaluate()
    return learner


def run_tricks() -> str:
    """Each trick at equal epochs, and those that cost more at equal time too, seed after seed."""
    from course_lib.tuning import experiment_table, run_experiment

    costs = json.loads(COSTS.read_text("utf-8")).get("times_a_step", {}) if COSTS.is_file() else {}
    if not costs:
        sys.exit("First measure what each trick costs, while nothing else runs: python benchmarks/tricks.py cost")
    shares = {name: min(1.0, round(1 / cost, 2)) for name, cost in costs.items()}
    chosen = [{"tricks": name} for name in costs]
    chosen += [{"tricks": name, "share": share} for name, share in shares.items() if share < 0.97]
    for count in range(1, len(SEEDS) + 1):  # a stop leaves a fair table
        found = run_experiment(train_tricks, chosen, seeds=SEEDS[:count], path=RESULTS / "tricks.jsonl")
    return experiment_table(found)


def run_question(question: str) -> None:
    if question == "tricks":
        print(run_tricks())
        return
    from course_lib.tuning import experiment_table

    print(experiment_table(run_cells(LESSON, MARKS[question])["scratch" if question == "scratch" else "taught"]))


# ---- What the tricks cost

def make_step(size: int, batch_size: int, part: float):
    """A training step of EfficientNet-Lite0 of which the last `part` learns, and its images and targets."""
    import torch

    from course_lib.learner import make_adamw
    from course_lib.learner.features import train_last
    from course_lib.models import create_classifier
    from course_lib.tricks import soft_targets

    torch.manual_seed(0)
    model = create_classifier("efficientnet_lite0", 4).to(memory_format=torch.channels_last)
    train_last(model, part)
    model.train()
    optimizer = make_adamw([{"params": [p for p in model.parameters() if p.requires_grad], "lr": 1e-4}])
    x = (torch.rand(batch_size, 3, size, size) * 2 - 1).contiguous(memory_format=torch.channels_last)
    y = soft_targets(torch.arange(batch_size) % 4, 4)

    def step() -> None:
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step, x, y


def optimizer_seconds(rounds: int) -> dict[str, float]:
    """One step of each optimiser on all weights of EfficientNet-Lite0."""
    import torch

    from course_lib.models import create_classifier
    from course_lib.tricks import AdaBound

    weights = list(create_classifier("efficientnet_lite0", 4, pretrained=False).parameters())
    for p in weights:
        p.grad = 1e-2 * torch.randn_like(p)
    optimizers = {"AdamW, foreach": torch.optim.AdamW(weights, 1e-6, foreach=True),
                  "AdamW, fused": torch.optim.AdamW(weights, 1e-6, fused=True),
                  "AdaBound": AdaBound(weights, 1e-6, weight_decay=0.01),
                  "AMSBound": AdaBound(weights, 1e-6, weight_decay=0.01, amsbound=True)}
    times: dict[str, list[float]] = {name: [] for name in optimizers}
    for _ in range(rounds):
        for name, optimizer in optimizers.items():
            times[name].append(seconds_of(optimizer.step, 3))
    return {name: statistics.median(found) for name, found in times.items()}


def cost(size: int = 224, batch_size: int = 32, rounds: int = 7) -> dict:
    """Seconds that each batch trick adds, in turns with a whole training step; and of a step of each optimiser."""
    import torch

    from course_lib.tricks import BATCH_TRICKS, create_trick

    step, x, y = make_step(size, batch_size, 1.0)
    tricks = {name: create_trick(name) for name in BATCH_TRICKS}
    step()
    steps, times = [], {name: [] for name in tricks}
    for number in range(rounds):
        steps.append(seconds_of(step, 1))
        for name, trick in tricks.items():
            torch.manual_seed(number)  # what is drawn decides what it costs
            times[name].append(seconds_of(lambda trick=trick: trick(x, y), 1))
    whole = statistics.median(steps)
    optimizers = optimizer_seconds(rounds)
    return {"image_size": size, "batch_size": batch_size, "step_seconds": whole,
            "trick_seconds": {name: statistics.median(found) for name, found in times.items()},
            "share_of_a_step": {name: round(statistics.median(found) / whole, 4) for name, found in times.items()},
            "optimizer_seconds": optimizers,
            "adabound_over_adamw": round(optimizers["AdaBound"] / optimizers["AdamW, foreach"], 3)}


def step_costs(size: int = 96, repeats: int = 20) -> dict[str, float]:
    """How many times as long a step takes with these tricks: what they add is timed alone, and so are plain steps."""
    from course_lib.tricks import BATCH_TRICKS, OTHER_TRICKS, WeightAverage, create_trick

    step, x, y = make_step(size, 32, 1 / 3)
    step()
    whole = seconds_of(step, repeats)
    added = {name: seconds_of(lambda name=name: create_trick(name)(x, y), repeats) for name in BATCH_TRICKS}
    learner, _, _ = prepare_trial("none", size, 1, SEEDS[0])
    average = WeightAverage()
    average.before_fit(learner)
    times = optimizer_seconds(repeats)
    added |= {"ema": seconds_of(lambda: average.after_step(learner), repeats), "tta": 0.0,  # no training changes
              "adabound": max(0.0, times["AdaBound"] - times["AdamW, foreach"])}
    others = [name for name in OTHER_TRICKS if name in added]  # small images make a step cheaper
    return {names: round(1 + sum(added.get(name, 0.0) for name in names.split(",")) / whole, 3)
            for names in ("none", *BATCH_TRICKS, *others, *COMBINED)}


def main() -> None:
    asked = arguments(__doc__, [*MARKS, "tricks", "cost"], default=list(MARKS), output=None)
    for question in asked.wanted:
        if question == "cost":
            print(json.dumps(record("tricks_cost", cost() | {"times_a_step": step_costs()}), indent=1))
        else:
            run_question(question)


if __name__ == "__main__":
    main()
