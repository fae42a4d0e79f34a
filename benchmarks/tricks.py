"""Run the long experiments of lesson 10, and keep every finished trial in course_lib/results/.

    python benchmarks/tricks.py                 both experiments
    python benchmarks/tricks.py tricks          every trick and three combinations on elpv: tricks.jsonl
    python benchmarks/tricks.py distillation    EfficientNet-Lite2 teaches Lite0 and a small VGG: distillation.jsonl
    python benchmarks/tricks.py cost            what the tricks add to a training step: tricks_cost.json; comes first

What is measured is the lesson's own code: its cells are run up to the experiment, with measuring switched on. Trials
that are in the file are not run again, so a run that was stopped goes on. Each experiment first says how long it will
take, from one step measured here; run `cost` while nothing else runs.
"""

import json
import statistics
import sys
import time

from frame import RESULTS, ROOT, arguments, find_cells, record, run_cells

LESSON = ROOT / "nbs" / "10_tricks.ipynb"
COSTS = RESULTS / "tricks_cost.json"
START = ("lesson_started", "items", "TRICKS", "train_tricks")
MARKS = {  # what the cells define that a question needs
    "tricks": (*START, "run_tricks", "judged"),
    "distillation": (*START, "STUDENTS", "PUPILS"),
}
STEPS = 61 * 5  # of 32 images, in one trial
TRIALS = {"tricks": 3 * 22, "distillation": 3 * 12}  # in trainings of STEPS steps of a Lite0, roughly


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


def estimate(question: str) -> None:
    """Say how long an experiment will take: the steps, and a quarter for validation."""
    step, _, _ = make_step(96, 32, 1 / 3)
    step()
    minutes = 1.25 * TRIALS[question] * STEPS * seconds_of(step, 5) / 60
    print(f"{question}: about {minutes:.0f} minutes from the start; less what is recorded already.", flush=True)


def run_question(question: str) -> None:
    if question == "tricks" and not (COSTS.is_file() and "times_a_step" in json.loads(COSTS.read_text("utf-8"))):
        sys.exit("First measure what each trick costs, while nothing else runs: python benchmarks/tricks.py cost")
    estimate(question)
    names = run_cells(LESSON, MARKS[question])
    print("\n".join(names["lines"]) if question == "tricks" else names["experiment_table"](names["taught"]))


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


def main() -> None:
    asked = arguments(__doc__, [*MARKS, "cost"], default=list(MARKS), output=None)
    for question in asked.wanted:
        if question == "cost":
            names = run_cells(LESSON, START)
            found = cost() | {"times_a_step": names["step_costs"](names["TRICKS"])}
            print(json.dumps(record("tricks_cost", found), indent=1))
        else:
            run_question(question)


if __name__ == "__main__":
    main()
