"""Figures that are what they are called: losses by what they count, metrics over the whole set, targets of any type."""

import copy
import subprocess
import sys
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, SequentialSampler, TensorDataset, WeightedRandomSampler

from course_lib.learner import (
    Averages,
    Callback,
    Checkpoint,
    CheckpointError,
    Learner,
    NonFiniteLossError,
    accuracy,
    error_rate,
    load_weights,
    preserved,
    save_weights,
)
from course_lib.learner.checks import in_order, to_device
from course_lib.learner.features import FeatureLoader
from course_lib.learner.memory import GradientAccumulation
from course_lib.lr_finder import lr_find

WEIGHT = torch.tensor([1.0, 5.0, 20.0])
LOSSES = {
    "plain": F.cross_entropy,
    "weights": nn.CrossEntropyLoss(weight=WEIGHT),
    "ignore": nn.CrossEntropyLoss(ignore_index=1),
    "both": nn.CrossEntropyLoss(weight=WEIGHT, ignore_index=0),
    "smooth": partial(F.cross_entropy, weight=WEIGHT, label_smoothing=0.1),
}


def data(count=23, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 4, generator=generator), torch.arange(count).mul(7).remainder(10).div(4).long()


X, Y = data()


def make(batches, model=None, **options):
    torch.manual_seed(1)
    return Learner(model or nn.Linear(4, 3), batches, batches, progress=False, **options)


def cut(x, y, size):
    return list(zip(x.split(size), y.split(size), strict=True))


# Losses

@pytest.mark.parametrize("loss_fn", LOSSES.values(), ids=LOSSES)
def test_the_loss_of_a_set_does_not_depend_on_the_batch_size(loss_fn):
    """pytorch/pytorch#61309"""
    whole = make([(X, Y)], loss_fn=loss_fn)
    expected = loss_fn(whole.model(X), Y).item()
    for size in (1, 4, 9, 23):
        learner = make(cut(X, Y, size), loss_fn=loss_fn)
        assert learner.evaluate()["valid_loss"] == pytest.approx(expected, rel=1e-5)
        learner.fit(1, 1e-12)  # so slow that nothing is learned: the mean of the epoch is the loss of the set
        assert learner.results["train_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss_fn", LOSSES.values(), ids=LOSSES)
def test_accumulated_gradients_are_those_of_one_large_batch(loss_fn):
    one = make([(X, Y)], loss_fn=loss_fn)
    parts = make(cut(X, Y, 4), loss_fn=loss_fn, callbacks=[GradientAccumulation(99)])
    for learner in (one, parts):
        learner.fit(4, 0.05)
        assert not learner.strategy.sums
    torch.testing.assert_close(parts.model.weight, one.model.weight, rtol=1e-5, atol=1e-6)
    assert parts.results["train_loss"] == pytest.approx(one.results["train_loss"], rel=1e-5)


def test_soft_targets_count_by_their_number_also_with_class_weights():
    soft = F.one_hot(Y, 3).double() * 0.7 + 0.1
    learner = make(cut(X, soft, 4), loss_fn=nn.CrossEntropyLoss(weight=WEIGHT))
    expected = F.cross_entropy(learner.model(X), soft.float(), weight=WEIGHT).item()
    learner.fit(1, 1e-12)
    assert learner.results["train_loss"] == pytest.approx(expected, rel=1e-5)
    assert learner.results["valid_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("accumulate", [False, True])
def test_a_batch_with_nothing_to_count_takes_no_step(accumulate):
    empty = X[:3], torch.full((3,), -100)
    extra = lambda: {"callbacks": [GradientAccumulation(2)]} if accumulate else {}
    with_empty = make([empty, (X, Y), empty], metrics=[accuracy], **extra())
    without = make([(X, Y)], metrics=[accuracy])
    for learner in (with_empty, without):
        learner.fit(3, 0.1)
    torch.testing.assert_close(with_empty.model.weight, without.model.weight)
    assert with_empty.recorder.losses == pytest.approx(without.recorder.losses)
    for name in ("train_loss", "train_accuracy", "valid_loss", "accuracy"):
        assert with_empty.results[name] == pytest.approx(without.results[name])


def test_where_nothing_at_all_counts_there_is_no_figure():
    learner = make([(X, torch.full_like(Y, -100))])
    before = learner.model.weight.clone()
    for action in (learner.evaluate, lambda: learner.fit(1)):
        with pytest.raises(ValueError, match="every target is left out"):
            action()
    assert torch.equal(learner.model.weight, before)


@pytest.mark.parametrize("loss_fn", [nn.CrossEntropyLoss(reduction="sum"), nn.MSELoss(reduction="sum"),
                                     partial(F.cross_entropy, reduction="sum")])
def test_a_sum_is_refused(loss_fn):
    with pytest.raises(ValueError, match="reduction='sum'"):
        make([(X, Y)], loss_fn=loss_fn).fit(1)


def test_averages_weigh_by_the_count_and_take_numbers_alone():
    averages = Averages()
    averages.add("loss", torch.tensor(1.0), 0.5)
    averages.add("loss", 4.0, torch.tensor(1.0))
    assert averages.read() == {"loss": 3.0}
    for wrong in (torch.ones(1), torch.ones(3), "1", None):
        with pytest.raises(ValueError, match="loss must be one number"):
            averages.add("loss", wrong, 1)


# Targets

@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.bool])
def test_class_numbers_of_any_size(dtype):
    """meta-pytorch/torchtune#981: int32, as NumPy 1 made them on Windows."""
    y = Y.clamp(max=1)
    wide, narrow = make(cut(X, y, 8), metrics=[accuracy]), make(cut(X, y.to(dtype), 8), metrics=[accuracy])
    for learner in (wide, narrow):
        learner.fit(2, 0.1)
    assert torch.equal(wide.model.weight, narrow.model.weight)
    assert narrow.results | {"seconds": 0} == wide.results | {"seconds": 0}


@pytest.mark.parametrize("y, words", [
    (Y.float(), r"y\.long\(\)"), (Y[:, None], r"y\.squeeze\(1\)"), (F.one_hot(Y, 3), r"y\.float\(\)"),
    (Y + 1, "target is 3, but there are 3 classes"), (Y - 1, "target is -1, but there are 3"),
    (torch.ones(23, 3), "probabilities"), (F.one_hot(Y, 4).float(), "it gives 3"), (Y + 0j, "real"),
    (Y.to_sparse(), "dense"),
])
def test_targets_that_are_none_are_refused_before_pytorch_sees_them(y, words):
    for action in (lambda: make([(X, y)]).fit(1), lambda: make([(X, y)]).evaluate()):
        with pytest.raises(ValueError, match=words):
            action()


def test_one_logit_and_other_shapes_of_predictions():
    one = nn.Linear(4, 1)
    for model, words in ((one, "one logit a sample"), (nn.Sequential(one, nn.Flatten(0)), "one real number for each"),
                         (nn.LSTM(4, 3), "gives a tuple")):
        with pytest.raises(ValueError, match=words):
            make([(X, Y)], model).fit(1)
        with pytest.raises(ValueError, match=words):
            make([(X, Y)], model).evaluate()
    learner = make([(X, (Y > 0).float()[:, None])], one, loss_fn=nn.BCEWithLogitsLoss(),
                   metrics={"right": lambda logits, y: ((logits > 0) == (y > 0)).flatten()})
    assert learner.evaluate()["right"] == ((one(X) > 0).flatten() == (Y > 0)).double().mean()


def test_weights_of_another_number_of_classes():
    with pytest.raises(ValueError, match="weight of loss_fn has 2 numbers"):
        make([(X, Y)], loss_fn=nn.CrossEntropyLoss(weight=torch.ones(2))).fit(1)


# Inputs

@pytest.mark.parametrize("x, words", [
    (X.double(), r"x holds torch.float64, the weights torch.float32"), (X.int(), r"Use x\.float\(\)"),
    ((X * 9).byte(), "/ 255"), (X + 0j, "complex64"), (X[:, :2], r"\(23, 2\), a shape that this model cannot take"),
])
def test_inputs_that_the_model_cannot_take(x, words):
    for action in (lambda: make([(x, Y)]).fit(1), lambda: make([(x, Y)]).predict(), lambda: lr_find(make([(x, Y)]))):
        with pytest.raises(ValueError, match=words):
            action()


@pytest.mark.parametrize("where", [0, 1], ids=["first", "last"])
def test_one_image_and_batch_normalisation(where):
    """fastai/fastai#1352"""
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    batches = [(X, Y), (X, Y)]
    batches[where] = X[:1], Y[:1]
    for action in (lambda: make(batches, model).fit(1), lambda: lr_find(make(batches, model))):
        with pytest.raises(ValueError, match=r"one image: x is \(1, 4\).*batch size"):
            action()
    assert make(batches, model).evaluate()  # measuring one image is no trouble


def test_lazy_layers_are_told_before_anything_else():
    lazy = nn.Sequential(nn.LazyLinear(3))
    learner = make([(X, Y)], lazy)
    actions = (lambda: learner.fit(1), learner.evaluate, learner.predict, lambda: lr_find(learner),
               lambda: preserved(learner).__enter__(), lambda: save_weights("never", lazy))
    for action in actions:
        with pytest.raises(ValueError, match=r"lazy layer .*model\(x\)"):
            action()
    lazy(X)
    learner.fit(1)


def test_float64_goes_to_apples_gpus_as_float32():
    class Fake:
        dtype = torch.float64

        def float(self):
            return X

        def to(self, device, non_blocking=False):
            raise AssertionError("float64 on mps")
    seen = []
    original = torch.Tensor.to
    try:
        torch.Tensor.to = lambda self, device, **options: seen.append((self.dtype, device.type))
        to_device(Fake(), torch.device("mps"))
    finally:
        torch.Tensor.to = original
    assert seen == [(torch.float32, "mps")]


def test_nan_in_evaluation_is_said_and_counts_as_wrong():
    x, y = X.clone(), torch.zeros_like(Y)
    x[:5] = torch.nan
    learner = make([(x, y)], metrics=[accuracy, error_rate])
    with pytest.warns(UserWarning, match="nan for 5 of 23 samples"):
        values = learner.evaluate()
    right = (learner.model(x[5:]).argmax(1) == 0).sum().item()
    assert values["accuracy"] == pytest.approx(right / 23) and values["error_rate"] == pytest.approx(1 - right / 23)


# Metrics

def macro_f1(logits, y):
    from sklearn.metrics import f1_score
    return f1_score(y.numpy(), logits.argmax(1).numpy(), average="macro")


def test_metrics_are_of_the_whole_set_whatever_the_batches():
    """fastai/fastai#865, airctic/icevision#459: Python floats; F1 and AUC are no means over batches."""
    from sklearn.metrics import roc_auc_score

    auc = lambda logits, y: roc_auc_score(y, logits.softmax(1), multi_class="ovr")
    for size in (1, 5, 23):
        learner = make(cut(X, Y, size), metrics={"f1": macro_f1, "auc": auc})
        learner.fit(1, 1e-12)
        logits = learner.model(X).detach()
        for start in ("", "train_"):
            assert learner.results[f"{start}f1"] == pytest.approx(macro_f1(logits, Y))
            assert learner.results[f"{start}auc"] == pytest.approx(auc(logits, Y))


def test_a_metric_gives_a_number_or_one_value_a_sample():
    """Lightning-AI/torchmetrics#228: a tensor of shape (1,)."""
    for value in (0.9, np.float32(0.9), np.array(0.9), torch.tensor(0.9), torch.full((23,), 0.9), [0.9] * 23):
        got = make([(X, Y)], metrics={"it": lambda logits, y, value=value: value}).evaluate()["it"]
        assert got == pytest.approx(0.9)
    for value in (torch.tensor([0.9]), torch.ones(3), np.ones((23, 1)), {"a": 1.0}, None, "0.9", 1j, [1.0, 2.0]):
        with pytest.raises(ValueError, match="The metric 'it' gave"):
            make([(X, Y)], metrics={"it": lambda logits, y, value=value: value}).evaluate()


def test_as_many_samples_as_classes():
    """A value a class and a value a sample have one shape then, and are told apart all the same."""
    x, y = X[:3], torch.arange(3)
    right = lambda logits, y: (logits.argmax(1) == y).float()
    learner = make([(x, y)], metrics={"right": right})
    assert learner.evaluate()["right"] == pytest.approx(right(learner.model(x), y).mean().item())
    with pytest.raises(ValueError, match="'recalls' gave"):
        make([(x, y)], metrics={"recalls": lambda logits, y: torch.ones(3)}).evaluate()


def test_metrics_cannot_disturb_each_other_or_the_model():
    calls = []

    def rude(logits, y):
        calls.append((model.training, torch.is_grad_enabled()))
        model.train()
        model(X)  # would move the statistics
        logits.zero_()
        y.fill_(2)
        return 0

    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, momentum=None))
    calm, loud = make([(X, Y)], copy.deepcopy(model), metrics=[accuracy]), make([(X, Y)], model)
    loud.metrics = {"rude": lambda logits, y: rude(logits, y), "accuracy": accuracy}
    model.train()
    assert loud.evaluate()["accuracy"] == calm.evaluate()["accuracy"] and calls == [(False, False)] and model.training


def test_a_metric_with_a_memory_begins_anew():
    class Count(nn.Module):
        seen = 0

        def reset(self):
            self.seen = 0

        def forward(self, logits, y):
            self.seen += len(y)
            return self.seen
    learner = make(cut(X, Y, 5), metrics=[Count()])
    assert learner.evaluate()["Count"] == learner.evaluate()["Count"] == 23


def test_a_metric_that_fails_is_named():
    with pytest.raises(ValueError, match="The metric 'broken' failed on 23 samples.*IndexError"):
        make([(X, Y)], metrics={"broken": lambda logits, y: logits[99]}).evaluate()


@pytest.mark.parametrize("metrics, words", [
    ([lambda p, t: 1, lambda p, t: 2], "Two metrics are called '<lambda>'"),
    ({"seconds": accuracy}, "cannot be called 'seconds'"), ({"valid_loss": accuracy}, "cannot be called"),
    ({"epoch": accuracy}, "cannot be called"), ({"train_accuracy": accuracy}, "cannot be called"),
    ({"a": 0.5}, "cannot be called with"), (5, "metrics = 5"), ("accuracy", "metrics = 'accuracy'"),
])
def test_names_of_metrics(metrics, words):
    with pytest.raises(ValueError, match=words):
        make([(X, Y)], metrics=metrics)


def test_samples_without_a_class_are_not_shown_to_metrics():
    y = Y.masked_fill(torch.arange(23) < 8, 255)
    learner = make(cut(X, y, 4), loss_fn=nn.CrossEntropyLoss(ignore_index=255), metrics=[accuracy])
    learner.fit(1, 1e-12)
    expected = accuracy(learner.model(X[8:]), Y[8:]).item()
    assert learner.results["accuracy"] == learner.results["train_accuracy"] == pytest.approx(expected)


@pytest.mark.parametrize("logits, targets, words", [
    (torch.eye(3), torch.arange(3)[:, None], r"targets\.squeeze\(1\)"),  # oxfordinternetinstitute/oxonfair#39
    (torch.eye(3), torch.eye(3), r"targets\.argmax\(1\)"), (torch.eye(3), torch.arange(2), r"\(2,\)"),
    (torch.ones(3), torch.arange(3), r"\(3,\)"), (torch.ones(3, 1), torch.zeros(3).long(), "one logit"),
    (torch.eye(3), torch.tensor([0, 1, 5]), "target is 5"), (torch.eye(3), torch.tensor([0, 1, -100]), "-100"),
    (torch.eye(3), torch.arange(3.0), "whole"), ([[1.0, 2.0]], torch.tensor([1]), "logits must be a tensor"),
    (torch.empty(0, 3), torch.empty(0).long(), r"\(0, 3\)"),
])
def test_accuracy_of_what_cannot_be_compared(logits, targets, words):
    for metric in (accuracy, error_rate):
        with pytest.raises(ValueError, match=words):
            metric(logits, targets)


def test_half_precision_models_are_measured_in_full():
    seen = []
    x, y = data(2000)
    learner = make(cut(x.bfloat16(), y, 50), nn.Linear(4, 3).bfloat16(),
                   metrics={"type": lambda logits, y: seen.append(logits.dtype) or 0})
    logits = learner.model(x.bfloat16()).double()
    assert learner.evaluate()["valid_loss"] == pytest.approx(F.cross_entropy(logits, y).item(), rel=1e-6)
    assert seen == [torch.float32]


def test_evaluating_within_a_batch_does_not_change_the_figures_of_the_training():
    class Look(Callback):
        def after_backward(self, learner):
            learner.evaluate()
            learner.predict(X[:2])
    plain, looking = make(cut(X, Y, 5), metrics=[accuracy]), make(cut(X, Y, 5), metrics=[accuracy], callbacks=[Look()])
    for learner in (plain, looking):
        learner.valid_loader = [(X[:7], Y[:7])]
        learner.fit(2)
    assert plain.results | {"seconds": 0} == looking.results | {"seconds": 0}


# Every sample once, in order

def test_a_shuffling_loader_is_measured_in_order_and_whole():
    """fastai/fastai#1914, #3051"""
    rows = TensorDataset(X, Y)
    loader = DataLoader(rows, 5, shuffle=True, drop_last=True)
    learner = make(loader)
    for given in (loader, DataLoader(rows, 5, drop_last=True), FeatureLoader(X[None], Y, 5, shuffle=True)):
        logits, targets = learner.predict(given)
        assert torch.equal(targets, Y)
        torch.testing.assert_close(logits, learner.model(X).detach())
    assert learner.evaluate(loader)["valid_loss"] == pytest.approx(F.cross_entropy(learner.model(X), Y).item())
    kept = FeatureLoader(X[None], Y, 5, shuffle=True, epoch=3)
    learner.predict(kept)
    assert kept.epoch == 3  # the training's next order is what it was
    plain = DataLoader(rows, 5)
    assert in_order(plain) is plain


def test_a_sampler_that_draws_as_it_likes_is_said():
    rows = TensorDataset(X, Y)
    learner = make([(X, Y)])
    with pytest.warns(UserWarning, match="WeightedRandomSampler"):
        learner.predict(DataLoader(rows, 5, sampler=WeightedRandomSampler([1.0] * 23, 30)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learner.predict(DataLoader(rows, 5, sampler=SequentialSampler(rows)))


# Which way is better?

@pytest.mark.parametrize("name, falls", [("valid_loss", True), ("error_rate", True), ("word_error_rate", True),
                                         ("accuracy", False), ("train_f1", False), ("f1_score", False)])
def test_names_that_say_their_direction(name, falls, tmp_path):
    watch = Checkpoint(tmp_path, monitor=name)
    assert watch.improves({name: 0.5}) and watch.improves({name: 0.4 if falls else 0.6})
    assert not watch.improves({name: 0.45 if falls else 0.55})


@pytest.mark.parametrize("name", ["true_positive_rate", "learning_rate", "neg_log_loss", "non_error", "f1_drop"])
def test_names_that_do_not_are_asked_for(name, tmp_path):
    with pytest.raises(ValueError, match="mode='min' or mode='max'"):
        Checkpoint(tmp_path, monitor=name)
    watch = Checkpoint(tmp_path, monitor=name, mode="max")
    assert watch.improves({name: 0.5}) and watch.improves({name: 0.6}) and not watch.improves({name: 0.55})


# Logs

def test_a_log_file_gets_lines_and_no_bars(tmp_path):
    """tqdm/tqdm#506"""
    code = ("import time, torch\nfrom torch import nn\nfrom course_lib.learner import Learner, ProgressBar\n"
            "from course_lib.lr_finder import lr_find\nProgressBar.line_seconds = 0.5\n"
            "class Slow(nn.Linear):\n    def forward(self, x):\n        time.sleep(0.03)\n"
            "        return super().forward(x)\n"
            "learner = Learner(Slow(4, 2), [(torch.randn(8, 4), torch.tensor([0, 1] * 4))] * 40)\n"
            "learner.fit(1)\nlr_find(learner, iterations=30)\n")
    with open(tmp_path / "log.txt", "wb") as log:
        subprocess.run([sys.executable, "-c", code], stdout=log, stderr=log, check=True)
    text = (tmp_path / "log.txt").read_bytes()
    assert b"\r" not in text and b"epoch 1/1: batch" in text and b"of 40, loss 0." in text
    assert text.splitlines()[-1].split()[0] == b"1"


# Weights that stay what they were

def test_a_checkpoint_of_another_type_is_not_rounded(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_weights(path, nn.Linear(4, 3))
    half = nn.Linear(4, 3).half()
    before = half.weight.clone()
    with pytest.raises(CheckpointError, match="is torch.float32 in the checkpoint and torch.float16 here"):
        load_weights(path, half)
    assert torch.equal(half.weight, before)
    save_weights(path, half)
    wide = nn.Linear(4, 3)
    load_weights(path, wide)  # every half number is a whole one of twice the size
    assert torch.equal(wide.weight, half.weight.float())


def test_a_nan_batch_is_still_no_step():
    learner = make([(X * torch.nan, Y)])
    before = learner.model.weight.clone()
    with pytest.raises(NonFiniteLossError):
        learner.fit(1)
    assert torch.equal(before, learner.model.weight)
