"""What every program beside the peers has: its job, a clock, and one network for all of them.

Each `with_PEER.py` does the same pieces of work in the way that the peer's own documentation does them, one function a
question. A function takes a `Job` and gives back seconds or images a second. `one.py` runs one of them in a process of
its own, `compare.py` all of them in turns.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path

CLASSES_OF_STEP = 37  # outputs of the network where the batch lies in memory and no folder says how many


@dataclass(frozen=True)
class Job:
    """What to work on; a question uses what it needs."""
    folder: str = ""  # has train/CLASS/IMAGE and valid/CLASS/IMAGE
    cache: str = ""  # an empty folder to keep things in
    size: int = 224  # pixels, of the square that the network sees
    stored: int = 256  # pixels, of the square that is made first
    batch: int = 32
    workers: int = 2
    classes: int = CLASSES_OF_STEP
    steps: int = 4  # batches of an epoch where the batch lies in memory
    epochs: int = 3
    iterations: int = 100  # rates that the learning-rate finder tries
    frozen: bool = False
    seed: int = 42
    profile: str = "laptop"  # of `course train`
    few_per_class: int | None = None  # of `course train`; None: what its profile says
    backbone: str = "efficientnet_lite0"  # whose features logistic regression gets

    @classmethod
    def of(cls, values: dict) -> "Job":
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})

    @property
    def train(self) -> Path:
        return Path(self.folder) / "train"

    @property
    def valid(self) -> Path:
        return Path(self.folder) / "valid"


class Clock:
    """Seconds within a `with`, on a GPU until it is done."""

    def __enter__(self) -> "Clock":
        self.start = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        wait()
        self.seconds = time.perf_counter() - self.start


def wait() -> None:
    """Until the GPU has done what it was asked to."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def network(classes: int, layout: str = "contiguous_format"):
    """EfficientNet-Lite0 with its ImageNet weights and a new head, the same for everybody."""
    import torch

    from course_lib.models import create_classifier

    torch.manual_seed(0)
    return create_classifier("efficientnet_lite0", classes).to(memory_format=getattr(torch, layout))


def head_alone(model) -> None:
    """Freeze all but the head, as tutorials do: no gradients for the body."""
    model.requires_grad_(False)
    model.head.requires_grad_(True)


def device():
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def batch_in_memory(job: Job, layout: str = "contiguous_format"):
    import torch

    x = torch.randn(job.batch, 3, job.size, job.size).to(device(), memory_format=getattr(torch, layout))
    return x, torch.randint(job.classes, (job.batch,), device=device())


def pipeline_rates(make_loaders: Callable[[], tuple[Iterable, Iterable]], job: Job) -> dict:
    """Images a second: of making the loaders and going through both once, and of later passes through the first."""
    with Clock() as cold:
        train, valid = make_loaders()
        count = sum(len(batch[0]) for part in (train, valid) for batch in part)
    rates = []
    for _ in range(job.epochs):
        with Clock() as clock:
            images = sum(len(batch[0]) for batch in train)
        rates.append(images / clock.seconds)
    return {"cold": count / cold.seconds, "warm": rates}


def plain_epochs(model, take_step: Callable, train: Iterable, valid: Iterable, job: Job) -> dict:
    """The loop of a training script: seconds of its first epoch and of the later ones, each with validation."""
    import torch

    seconds = []
    for _ in range(job.epochs):
        with Clock() as clock:
            model.train()
            for x, y in train:
                take_step(x.to(device()), y.to(device()))
            model.eval()
            with torch.inference_mode():
                sum((model(x.to(device())).argmax(1).cpu() != y.cpu()).sum().item() for x, y in valid)
        seconds.append(clock.seconds)
    return {"first": seconds[0], "later": seconds[1:]}


def head_learns(job: Job):
    """The network of the job's folder on the device, frozen but for its head."""
    model = network(len(list(job.train.iterdir()))).to(device())
    head_alone(model)
    return model


def step_rates(step: Callable[[], object], job: Job) -> list[float]:
    """Images a second of a training step, in each of several epochs of `steps`, after one that is not counted."""
    rates = []
    for _ in range(1 + job.epochs):
        with Clock() as clock:
            for _ in range(job.steps):
                step()
        rates.append(job.batch * job.steps / clock.seconds)
    return rates[1:]


def images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".png"))
