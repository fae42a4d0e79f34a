"""Whatever a user hands to a public function of these rooms: a right value, or a ValueError or TypeError in words."""

import math
from contextlib import suppress

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import nn

from course_lib.learner import (
    Averages,
    Checkpoint,
    Learner,
    ProgressBar,
    StopOnNonFiniteLoss,
    Watch,
    accuracy,
    create_strategy,
    error_rate,
    load_weights,
    smooth,
)
from course_lib.learner.features import train_last
from course_lib.learner.memory import GradientAccumulation, checkpoint_blocks
from course_lib.lr_finder import lr_find, try_lrs
from course_lib.models import Classifier
from course_lib.pooling import BilinearPool, CompactBilinearPool, CountSketch, create_bilinear_head
from course_lib.schedules import OneCycle, Schedule, schedule_lrs
from course_lib.transfer import EarlyStopping, fit_one_cycle, freeze_to, lrs_for, scale_head_lr, spread_lrs
from course_lib.tricks import (
    AdaBound,
    AugmentPolicy,
    BatchTricks,
    CutMix,
    Cutout,
    Distillation,
    LabelSmoothing,
    Mixup,
    OneOf,
    Ricap,
    WeightAverage,
    create_trick,
    distillation_loss,
    parse_trick_names,
    rate_bounds,
    soft_targets,
)

MANY = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
DTYPES = [torch.float32, torch.float64, torch.float16, torch.int64, torch.int32, torch.uint8, torch.bool,
          torch.complex64]


SHAPES = array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@st.composite
def tensors(draw):
    values = draw(arrays("float32", draw(SHAPES), elements=st.sampled_from([0.0, 1.0, 2.0, -1.0, math.nan, math.inf])))
    tensor = torch.from_numpy(values).to(draw(st.sampled_from(DTYPES)))
    return tensor.to_sparse() if tensor.ndim and draw(st.integers(0, 9)) == 0 else tensor


NUMBERS = st.one_of(st.integers(-3, 5), st.floats(width=32), st.booleans(), st.just(10**400))
JUNK = st.one_of(NUMBERS, st.none(), st.text(max_size=4), tensors(), st.lists(NUMBERS, max_size=3),
                 st.binary(max_size=2), st.dictionaries(st.text(max_size=2), NUMBERS, max_size=1),
                 st.just(object()), st.just(len), st.just(slice(1e-3)), st.just(slice("a", None)))


def told(action):
    """What `action` gives, or `None` after a refusal in words."""
    try:
        return action()
    except (ValueError, TypeError) as error:
        assert str(error)
        return None


def net():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


IMAGES, CLASSES = torch.randn(6, 3, 4, 4), torch.arange(6) % 3


def learner(**options):
    torch.manual_seed(0)
    return Learner(net(), [(IMAGES, CLASSES)], [(IMAGES, CLASSES)], progress=False, **options)


ONE = [
    smooth, lambda a: smooth([1.0, 2.0], a), lambda a: Watch(a), lambda a: Watch("accuracy", a),
    lambda a: EarlyStopping(a), lambda a: EarlyStopping(by=a), lambda a: WeightAverage(a), GradientAccumulation,
    lambda a: Schedule(a), lambda a: Schedule("step", gamma=a), lambda a: OneCycle(a), lambda a: OneCycle(div=a),
    lambda a: OneCycle(momenta=a), lambda a: schedule_lrs("cosine", a), lambda a: schedule_lrs("cosine", 5, a),
    lambda a: lrs_for(a, 3), lambda a: spread_lrs(a, 1e-3, 3), lambda a: scale_head_lr(a, 10, 3),
    lambda a: freeze_to(Classifier(nn.Conv2d(3, 4, 1), nn.Linear(4, 3)), a),
    lambda a: train_last(Classifier(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), nn.Linear(4, 3)), a),
    lambda a: lr_find(learner(), start=a), lambda a: lr_find(learner(), lrs=a), lambda a: lr_find(learner(), beta=a),
    lambda a: try_lrs(learner(), a), lambda a: fit_one_cycle(learner(), a), lambda a: fit_one_cycle(learner(), 1, a),
    lambda a: learner().fit(a), lambda a: learner().fit(1, a), lambda a: learner(metrics=a),
    lambda a: learner(loss_fn=a), lambda a: learner().evaluate(a), lambda a: learner().predict(a),
    lambda a: learner(callbacks=a),
    lambda a: create_strategy(a), rate_bounds, lambda a: rate_bounds(1, a), lambda a: AdaBound([torch.ones(1)], a),
    lambda a: AdaBound([torch.ones(1)], betas=a), Mixup, CutMix, Ricap, LabelSmoothing, Cutout,
    lambda a: Cutout(holes=a), OneOf, BatchTricks, AugmentPolicy, lambda a: AugmentPolicy("rand", a), Distillation,
    parse_trick_names, create_trick, lambda a: create_trick("mixup", a), BilinearPool, lambda a: CountSketch(a, 4),
    lambda a: CompactBilinearPool(4, a), lambda a: create_bilinear_head(4, 3, dim=a),
    lambda a: create_bilinear_head(4, a), lambda a: checkpoint_blocks(nn.Sequential(), a),
    lambda a: load_weights(a, net()) if not isinstance(a, (str, bytes, int)) else None,
]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(ONE)))
@MANY
@given(value=JUNK)
def test_one_argument(number, value):
    with suppress(Exception):
        if abs(int(value)) > 5:
            value = float("inf")  # a training of 10**400 epochs would be right, but late
    told(lambda: ONE[number](value))


@pytest.mark.slow
@MANY
@given(logits=st.one_of(tensors(), JUNK), targets=st.one_of(tensors(), JUNK))
def test_accuracy(logits, targets):
    right, wrong = told(lambda: accuracy(logits, targets)), told(lambda: error_rate(logits, targets))
    assert (right is None) == (wrong is None)
    if right is not None:
        assert 0 <= right <= 1 and right + wrong == pytest.approx(1)


@pytest.mark.slow
@MANY
@given(name=st.text(max_size=3), mean=JUNK, count=st.integers(1, 5))
def test_averages(name, mean, count):
    averages = Averages()
    if told(lambda: (averages.add(name, mean, count), True)):
        assert list(averages.read()) == [name]


def refusals(action):
    try:
        action()
    except ArithmeticError as error:  # a loss that is no number has an error of its own
        assert "became" in str(error) or "loss is" in str(error)


@pytest.mark.slow
@settings(MANY, max_examples=200)
@given(x=st.one_of(tensors(), st.just(IMAGES)), y=st.one_of(tensors(), st.just(CLASSES)), weighted=st.booleans())
def test_batches(x, y, weighted):
    """Whatever the loader gives: trained, measured and predicted on, or refused."""
    loss_fn = nn.CrossEntropyLoss(weight=torch.tensor([0.0, 1.0, 2.0])) if weighted else None
    for action in ("fit", "evaluate", "predict"):
        made = learner(metrics=[accuracy], loss_fn=loss_fn)
        made.train_loader = made.valid_loader = [(x, y), (IMAGES, CLASSES)]
        arguments = (1,) if action == "fit" else ()
        refusals(lambda made=made, action=action, arguments=arguments: told(lambda: getattr(made, action)(*arguments)))


@pytest.mark.slow
@settings(MANY, max_examples=200)
@given(value=JUNK)
def test_metrics_that_give_anything(value):
    got = told(lambda: learner(metrics={"it": lambda logits, y: value}).evaluate())
    assert got is None or isinstance(got["it"], float)


@pytest.mark.slow
@settings(MANY, max_examples=150)
@given(x=tensors(), y=tensors(), trick=st.sampled_from([Mixup(), CutMix(), Ricap(), Cutout(), LabelSmoothing()]))
def test_tricks(x, y, trick):
    soft = told(lambda: soft_targets(y, 3))
    assert soft is None or soft.shape == (len(y), 3)
    told(lambda: trick(x, y))
    told(lambda: distillation_loss(x, y, y))
    told(lambda: distillation_loss(x, x, y))


@pytest.mark.slow
@MANY
@given(x=tensors())
def test_pooling(x):
    for pool in (BilinearPool(3), CompactBilinearPool(3, 5)):
        pooled = told(lambda pool=pool: pool(x))
        assert pooled is None or pooled.shape == (len(x), pool.dim)


def test_the_ordinary_is_not_refused(tmp_path):
    made = learner(metrics=[accuracy], callbacks=[Checkpoint(tmp_path), StopOnNonFiniteLoss(), ProgressBar()])
    made.fit(2)
    assert math.isfinite(made.results["valid_loss"])
