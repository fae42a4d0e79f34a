"""One of two processes that `test_distributed.py` starts: does everything that takes two, and writes what it found."""

import json
import os
import sys
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from timm.layers import BatchNormAct2d
from torch import nn

import course_lib.app.train as training
import course_lib.learner.distributed as together
from course_lib.data import Augmentation, BatchTransform, ImageLoader
from course_lib.learner import Callback, Learner, error_rate
from course_lib.learner.features import FeatureLoader, cached_features, train_last
from course_lib.learner.memory import GradientAccumulation
from course_lib.models import create_classifier
from course_lib.settings import CourseSettings

PARTS = (4, 3)  # rows of each process: the shares need not be equal


def norm_differences(make, shape, shared=True) -> dict[str, float]:
    """How far a BatchNorm over two processes is from the same on the whole batch: value, gradients, statistics."""
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(sum(PARTS), *shape, generator=generator) + torch.arange(sum(PARTS)).view(-1, *[1] * len(shape))
    target = torch.randn(whole.shape, generator=generator)
    torch.manual_seed(1)
    usual = nn.Sequential(make())
    nn.init.uniform_(usual[0].weight, 0.5, 1.5)
    nn.init.uniform_(usual[0].bias, 0.5, 1.5)
    own, all_rows = deepcopy(usual), whole.clone().requires_grad_()
    y = usual(all_rows)
    (y * target).sum().backward()
    part = slice(0, PARTS[0]) if RANK == 0 else slice(PARTS[0], None)
    rows = whole[part].clone().requires_grad_()
    with together.sync_batch_norms(own) if shared else nullcontext():
        own_y = own(rows)
        (own_y * target[part]).sum().backward()
    for weight in own.parameters():
        torch.distributed.all_reduce(weight.grad)
    pairs = {"value": (own_y, y[part]), "input gradient": (rows.grad, all_rows.grad[part]),
             "weight gradient": (own[0].weight.grad, usual[0].weight.grad),
             "bias gradient": (own[0].bias.grad, usual[0].bias.grad),
             "running mean": (own[0].running_mean, usual[0].running_mean),
             "running variance": (own[0].running_var, usual[0].running_var)}
    assert own[0].num_batches_tracked == usual[0].num_batches_tracked == 1
    return {name: (a - b).abs().max().item() for name, (a, b) in pairs.items()}


class Double(nn.Module):
    """A layer that computes in float64; so do all that come after it."""

    def __init__(self, module):
        super().__init__()
        self.module = module.double()

    def forward(self, x):
        return self.module(x.double())


def make_learner(make):
    """A small network of the course in float64, so that rounding cannot hide what is wrong nor look like it."""
    pixels = np.random.default_rng(0).integers(0, 255, (37, 40, 40, 3), dtype=np.uint8)
    targets = np.arange(37) % 3
    pixels[targets == 1] //= 2
    transform = BatchTransform(32, (0.5,) * 3, (0.5,) * 3, Augmentation())
    train = ImageLoader(pixels, targets, np.arange(22), transform, 7, shuffle=True)
    valid = ImageLoader(pixels, targets, np.arange(22, 37), replace(transform, augmentation=None), 7)
    torch.manual_seed(0)
    classifier = create_classifier("efficientnet_lite0", 3, dropout=0.0)
    train_last(classifier, 1 / 3)
    first = next(name for name, child in classifier.body.network.named_children())
    classifier.double()
    setattr(classifier.body.network, first, Double(getattr(classifier.body.network, first)))
    return make(classifier, train, valid, metrics=[error_rate], progress=False, lr=1e-3)


def fit(make, keep, epochs=2) -> dict:
    """What the epochs give: losses of the steps, the rows of the epochs, logits, the weights as one sum."""
    learner = make_learner(make)
    with cached_features(learner, keep=keep) as kept:
        learner.fit(epochs)
        logits, targets = learner.predict()
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in learner.recorder.rows]
    assert next(learner.model.parameters()).dtype == torch.float64
    return {"kept": kept, "losses": learner.recorder.losses, "rows": rows, "logits": logits.tolist(),
            "targets": targets.tolist()}


def fits() -> dict:
    def shared(model, train, valid, **options):
        PROCESSES.shard(train)
        PROCESSES.shard(valid, "validation loader", every_batch=False)
        return Learner(model, train, valid, strategy=PROCESSES.strategy(), **options)

    alone = PROCESSES.gather(fit(Learner, keep=RANK == 1))  # each process does one of the two
    found = {name: {"one": one, "two": fit(shared, keep)}
             for name, one, keep in zip(("images", "features"), alone, (False, True), strict=True)}
    original, together.sync_batch_norms = together.sync_batch_norms, lambda model: nullcontext()
    found["own norms"] = fit(shared, False, epochs=1)
    together.sync_batch_norms = original
    return found


def weighted_fit(strategy=None) -> dict:
    """Class weights and targets to ignore, in shares that count differently or not at all; two batches a step."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 33, 4, dtype=torch.float64, generator=generator)
    y = torch.arange(33) % 3
    y[[4, 5, 6, *range(14, 21)]] = -100  # a share, and a whole batch
    train, valid = FeatureLoader(x, y, 7, drop_last=False), FeatureLoader(x[:, :16], y[:16], 7)
    if strategy is not None:
        PROCESSES.shard(train)
        PROCESSES.shard(valid, "validation loader", every_batch=False)
    torch.manual_seed(0)
    learner = Learner(nn.Linear(4, 3).double(), train, valid, strategy=strategy, metrics=[error_rate], progress=False,
                      loss_fn=nn.CrossEntropyLoss(torch.tensor([1.0, 3.0, 9.0]).double()),
                      callbacks=[GradientAccumulation(2)])
    learner.fit(3, 0.05)
    figures = [learner.results[name] for name in ("train_loss", "train_error_rate", "valid_loss", "error_rate")]
    return {"losses": learner.recorder.losses, "weights": learner.model.weight.flatten().tolist(), "figures": figures}


class PowerCut(Callback):
    """The electricity fails after the first epoch, once it is saved."""
    order = 99

    def after_epoch(self, learner) -> None:
        raise KeyboardInterrupt


def train(photos, output, **options):
    settings = CourseSettings(dataset=str(photos), data_dir=FOLDER / "data", profile_name="test", device="cpu",
                              seed=options.pop("seed", 42))
    options = {"epochs": 2, "batch_size": 7, "dropout": 0.0, "echo": SAID.append} | options
    return training.train_classifier(settings, output=output, **options).metrics


def refusal(*arguments, **options) -> str:
    """The message of a training that should not begin; nothing is written."""
    output = FOLDER / "refused"
    try:
        train(arguments[0], output, **options)
    except (ValueError, together.LaunchError) as error:
        assert not output.exists()
        return f"{type(error).__name__}: {error}"
    raise AssertionError("this training should have been refused")


def trainings() -> dict:
    photos, others = FOLDER / "photos", FOLDER / "others"
    found = {"whole": train(photos, FOLDER / "two"), "said": list(SAID)}
    found["mirror"] = train(photos, FOLDER / "mirror", mirror=True, mixed_precision="bf16", epochs=1)
    found["tricks"] = train(photos, FOLDER / "tricks", tricks="ricap,cutout,ema,adabound")
    usual = training.prepare_learner

    def prepare(*arguments):
        learner = usual(*arguments)
        learner.add_callback(PowerCut())
        return learner

    training.prepare_learner = prepare
    try:
        train(photos, FOLDER / "cut")
    except KeyboardInterrupt:
        training.prepare_learner = usual
    found["resumed"] = train(photos, FOLDER / "cut", resume=True)
    found["seed"] = refusal(photos, seed=42 + RANK)
    found["images"] = refusal(others if RANK else photos)
    found["epochs"] = refusal(photos, epochs=2 + RANK)
    found["batch"] = refusal(photos, batch_size=1)
    return found


def lose_the_other() -> str:
    """Process 1 is gone all at once; what does process 0 say?"""
    try:
        with together.together(torch.device("cpu")) as processes:
            if processes.rank == 1:
                os._exit(0)
            processes.gather("still there?")
    except together.LaunchError as error:
        return str(error)
    raise AssertionError("nobody noticed")


if __name__ == "__main__":
    FOLDER, SAID = Path(sys.argv[1]), []
    PROCESSES = together.join_processes(torch.device("cpu"))
    RANK = PROCESSES.rank
    results = {"norms": {
        "BatchNorm2d": norm_differences(lambda: nn.BatchNorm2d(5), (5, 3, 3)),
        "BatchNorm1d": norm_differences(lambda: nn.BatchNorm1d(5), (5,)),
        "timm": norm_differences(lambda: BatchNormAct2d(5), (5, 3, 3)),
        "alone": norm_differences(lambda: nn.BatchNorm2d(5), (5, 3, 3), shared=False)}}
    results["weighted"] = {"one": weighted_fit(), "two": weighted_fit(PROCESSES.strategy())}
    results |= {"fits": fits(), "trainings": trainings()}
    path = FOLDER / f"found{RANK}.json"
    path.write_text(json.dumps(results))
    if RANK == 0:
        results["lost"] = lose_the_other()
        path.write_text(json.dumps(results))
    else:
        lose_the_other()
