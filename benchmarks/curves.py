"""Trainings with one fault each, for `read_curves`: their curves, in course_lib/results/curves.jsonl.

    python benchmarks/curves.py               every kind of run
    python benchmarks/curves.py leak high     these

Each is a real training of the course's `Learner`, as in lessons 3 and 7: a head with a hidden layer learns on the
features that a frozen EfficientNet-Lite0 gives for the course's solar cells, at 96 pixels. What sound runs differ in
(seed, rate, batch, width, number of photographs, dropout, a rate that falls or stays) is drawn for each run, so that a
run is told from the others by its fault. The features take a quarter of a minute on two cores, a run a second. What is
in the file is not run again. The test part is not touched.
"""

import random
from dataclasses import asdict, dataclass, replace

import torch
from frame import RESULTS, Rows, arguments
from torch import nn

from course_lib.core.random import seed_everything
from course_lib.data import BatchTransform, ImageLoader, get_items, presize, split_items
from course_lib.learner import Callback, Learner, error_rate
from course_lib.models import create_classifier
from course_lib.settings import load_settings
from course_lib.transfer import fit_one_cycle

RECORD = RESULTS / "curves.jsonl"
SIZE, EPOCHS, RUNS = 96, 16, 12


@dataclass(frozen=True)
class Plan:
    """What a run is made of."""
    seed: int
    lr: float
    batch: int
    width: int
    images: int
    dropout: float
    falls: bool  # the rate follows one cycle; else it stays
    decay: float = 0.02
    wrong: bool = False  # the training labels are shuffled
    leak: bool = False  # the validation photographs are also trained on
    frozen: int = 0  # epochs in which the last layer alone learns
    evaluates: bool = True  # evaluation mode while it is measured
    shuffles: bool = True  # a new order of the training photographs in each epoch


def sound(draw: random.Random) -> Plan:
    """A run without a fault."""
    return Plan(draw.randrange(2**31), 10 ** draw.uniform(-3.4, -2.9), draw.choice([32, 64]), draw.choice([32, 64]),
                draw.choice([1000, 1300, 1600]), draw.choice([0.3, 0.5]), draw.random() < 0.5)


MEMORISES = {"batch": 16, "width": 128, "dropout": 0.0, "decay": 0.0}
KINDS = {
    "sound": lambda plan, draw: plan,
    "low": lambda plan, draw: replace(plan, lr=10 ** draw.uniform(-5.6, -5.2), falls=False),
    "high": lambda plan, draw: replace(plan, lr=10 ** draw.uniform(-0.8, 0.0), falls=False),
    "overfit": lambda plan, draw: replace(plan, images=draw.choice([100, 150, 200]), falls=False,
                                          lr=10 ** draw.uniform(-2.6, -2.3), **MEMORISES),
    "labels": lambda plan, draw: replace(plan, wrong=True),
    "leak": lambda plan, draw: replace(plan, leak=True, images=draw.choice([50, 100, 200]),
                                       lr=10 ** draw.uniform(-2.9, -2.6), **MEMORISES),
    "mode": lambda plan, draw: replace(plan, evaluates=False),
    "frozen": lambda plan, draw: replace(plan, frozen=draw.randint(8, 12), falls=False),
    "order": lambda plan, draw: replace(plan, shuffles=False),
}


class AlwaysTraining(nn.Sequential):
    """A network that nobody puts into evaluation mode."""

    def train(self, mode: bool = True) -> nn.Sequential:
        return super().train(True)


def network(plan: Plan, inputs: int, classes: int) -> nn.Sequential:
    """A hidden layer, and the last one."""
    body = nn.Sequential(nn.Linear(inputs, plan.width, bias=False), nn.BatchNorm1d(plan.width), nn.ReLU())
    head = nn.Sequential(nn.Dropout(plan.dropout), nn.Linear(plan.width, classes))
    return (nn.Sequential if plan.evaluates else AlwaysTraining)(body, head)


class Batches:
    """The training part in batches, in a new order each time, or folder after folder."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor, plan: Plan):
        self.x, self.y, self.plan = x, y, plan
        self.draws = torch.Generator().manual_seed(plan.seed)

    def __len__(self) -> int:
        return len(self.x) // self.plan.batch

    def __iter__(self):
        order = torch.randperm(len(self.x), generator=self.draws)
        if not self.plan.shuffles:
            order = self.y.argsort(stable=True)
        for some in order.split(self.plan.batch)[:len(self)]:
            yield self.x[some], self.y[some]


class Thaw(Callback):
    """The hidden layer learns only after so many epochs."""

    def __init__(self, epochs: int):
        self.epochs = epochs

    def before_epoch(self, learner: Learner) -> None:
        learner.model[0].requires_grad_(learner.epoch >= self.epochs)


def train(plan: Plan, features: torch.Tensor, items) -> dict:
    """The curves of a run: a number for each epoch; and what an answer without a look at the photographs gives."""
    targets = torch.tensor(items.targets)
    part, valid = (torch.as_tensor(some) for some in split_items(items, seed=plan.seed))
    valid = valid[targets[valid].argsort(stable=True)]  # folder after folder
    seed_everything(plan.seed)
    some = part[torch.randperm(len(part))[:plan.images]]
    if plan.leak:
        some = torch.cat([some, valid])
    y = targets[some][torch.randperm(len(some))] if plan.wrong else targets[some]
    learner = Learner(network(plan, features.shape[1], len(items.classes)), Batches(features[some], y, plan),
                      list(zip(features[valid].split(64), targets[valid].split(64), strict=True)), metrics=[error_rate],
                      make_optimizer=lambda groups: torch.optim.AdamW(groups, weight_decay=plan.decay),
                      callbacks=[Thaw(plan.frozen)], progress=False)
    if plan.falls:
        fit_one_cycle(learner, EPOCHS, plan.lr, keep_features=False)
    else:
        learner.fit(EPOCHS, plan.lr)
    shares = y.bincount(minlength=len(items.classes)).float() / len(y)
    guess = {"guess_loss": float(-shares[targets[valid]].log().mean()),
             "guess_error": float((targets[valid] != shares.argmax()).float().mean())}
    curves = {name: [round(row[name], 3) for row in learner.recorder.rows]
              for name in ("train_loss", "valid_loss", "error_rate")}
    return curves | {name: round(value, 3) for name, value in guess.items()}


def frozen_features(items, settings) -> torch.Tensor:
    """What the pretrained body sees in each photograph; nan for the test part, which nobody may use."""
    body = create_classifier("efficientnet_lite0", len(items.classes)).eval().body
    photographs = presize(items, SIZE, settings.cache_dir, progress=False).images
    used = torch.cat([torch.as_tensor(some) for some in split_items(items)]).sort().values
    loader = ImageLoader(photographs, items.targets, used.numpy(), BatchTransform(SIZE, body.mean, body.std), 64)
    with torch.inference_mode():
        found = torch.cat([body(x).mean((2, 3)) for x, _ in loader])
    features = torch.full((len(items), found.shape[1]), torch.nan)
    features[used] = found
    return features


def main() -> None:
    asked = arguments(__doc__, KINDS, noun="kind of run", output=RECORD.parent)
    settings, rows = load_settings(profile="laptop"), Rows(asked.output / RECORD.name, "kind", "number")
    items = get_items("elpv", settings.data_dir, announce=False)
    features = frozen_features(items, settings)
    for number in range(RUNS):
        for kind in asked.wanted:
            if rows.done(kind, number):
                continue
            draw = random.Random(f"{kind} {number}")
            plan = KINDS[kind](sound(draw), draw)
            rows.add({"kind": kind, "number": number, **train(plan, features, items), "plan": asdict(plan)})


if __name__ == "__main__":
    main()
