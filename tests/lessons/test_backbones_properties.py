"""Networks by a table, their costs, networks made light: figures counted by hand, or an error that names the fault."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd import count_of, heard
from torch import nn

from course_lib.backbones import (
    count_multiply_adds,
    create_vgg,
    data_parallel_seconds,
    feature_maps,
    measure_latency,
    pareto_front,
    plot_architecture,
    plot_pareto,
    profile_model,
    prune_width,
    quantize_int8,
)
from course_lib.models import Backbone, Classifier, count_parameters
from course_lib.pooling import create_bilinear_classifier

some = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
few = settings(some, max_examples=12)
ODD = st.one_of(st.none(), st.integers(-3, 9), st.floats(), st.booleans(), st.text(max_size=4), st.just(10**400),
                st.sampled_from([np.int64(4), np.float32(0.5), torch.tensor(4), torch.tensor([1, 2]), "pool", "dense",
                                 "pooled", np.str_("pool"), np.array([8, 8]), torch.zeros(1, 3, 8, 8), object(), len,
                                 "cuda:99", torch.device("cpu"), torch.Size([4])]),
                st.lists(st.integers(0, 5), max_size=3), st.dictionaries(st.text(max_size=1), st.floats(), max_size=2))
LAYERS = st.lists(st.integers(1, 6) | st.just("pool"), min_size=1, max_size=5).filter(lambda row: set(row) != {"pool"})


def is_real(value):
    """Whether `value` is one finite number."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.number)) and not (
            isinstance(value, torch.Tensor) and value.ndim == 0):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def positive(value, most=math.inf):
    return is_real(value) and 0 < value <= most


def vgg(layers=(4, "pool", 6), **options):
    return create_vgg(3, layers, **{"head": "pooled", "image_size": 8} | options)


@settings(some, max_examples=8)
@given(LAYERS, st.booleans(), st.booleans(), st.sampled_from([0.5, 1.0, 2.0]))
def test_a_vgg_has_the_layers_and_costs_of_its_table(layers, separable, batch_norm, width):
    size, made = 32, vgg(layers, separable=separable, batch_norm=batch_norm, width=width)
    inputs, side, parameters, adds, shapes = 3, size, 0, 0, []
    for layer in layers:  # by hand: a convolution of 3 x 3 has 9 numbers for each pair of channels
        if layer == "pool":
            side //= 2
        else:
            outputs = max(1, round(layer * width))
            weights = 9 * inputs + inputs * outputs if separable and inputs > 3 else 9 * inputs * outputs
            parameters += weights + outputs * (2 if batch_norm else 1)
            adds, inputs = adds + weights * side**2, outputs
        shapes.append((inputs, side, side))
    assert count_parameters(made) == parameters + 3 * inputs + 3
    assert count_multiply_adds(made, size) == adds + 3 * inputs
    kept = [one.shape for one in feature_maps(made, size) if one.block in ("ReLU", "MaxPool2d")]
    assert kept == shapes
    assert made.eval()(torch.randn(2, 3, size, size)).shape == (2, 3)


@some
@given(st.sampled_from(["num_classes", "layers", "head", "width", "dropout", "image_size"]), ODD)
def test_a_vgg_refuses_by_name_what_it_cannot_be(name, value):
    asked = {"num_classes": 3, "layers": [4], "head": "pooled"} | {name: value}
    made = heard("input_size" if name == "image_size" else name, lambda: create_vgg(**asked))
    if name in ("num_classes", "image_size"):
        assert (made is not None) == (count_of(value, 1 + (name == "num_classes")) is not None)
    elif name == "layers":
        fits = isinstance(value, (list, tuple)) and len(value) and all(one > 0 for one in value)
        assert (made is not None) == bool(fits) and (not fits or made.body.num_features == value[-1])
    elif name == "width":
        assert (made is not None) == positive(value, 1000)
    assert heard("layers", lambda: create_vgg(3, [value, 4], head="pooled")) is None or value in ("pool", 4) \
        or count_of(value)


@some
@given(ODD)
def test_costs_are_those_of_a_network_of_images(value):
    for measure in (count_multiply_adds, feature_maps, profile_model, plot_architecture, prune_width,
                    lambda model: measure_latency(model, torch.zeros(1, 3, 8, 8)),
                    lambda model: quantize_int8(model, [torch.zeros(1, 3, 8, 8)])):
        heard("classifier" if measure is prune_width else "", lambda measure=measure: measure(value))
        with pytest.raises((TypeError, ValueError), match="model|classifier"):
            measure(value)
    wrong = nn.Sequential(nn.Conv2d(1, 2, 1))  # grey images
    for measure in (count_multiply_adds, feature_maps, profile_model, plot_architecture):
        assert heard("model", lambda measure=measure: measure(wrong, 8)) is None
    small = nn.Sequential(nn.Conv2d(3, 2, 9))
    assert heard("image_size", lambda: profile_model(small, 4)) is None


@few
@given(st.sampled_from(["image_size", "batch_size", "repeats", "device"]), ODD)
def test_a_profile_is_of_what_was_asked(name, value):
    if type(value) is int and value > 100:
        value = 2**70
    model = vgg()
    asked = {"image_size": 8, "batch_size": 2, "repeats": 1, name: value}
    found = heard(name, lambda: profile_model(model, **asked))
    if name == "device":
        assert (found is not None) == (value is None or isinstance(value, torch.device))
    elif value is not None or name != "image_size":
        assert (found is not None) == (count_of(value, name != "repeats") is not None)
    if found is None:
        return
    asked = {"image_size": 8, "batch_size": 2} | {name: 8 if value is None else value}
    assert (found.image_size, found.batch_size) == (int(asked["image_size"]), int(asked["batch_size"]))
    assert found.parameters == count_parameters(model) and found.weight_bytes == 4 * found.parameters
    assert math.isnan(found.latency) == (name == "repeats" and value == 0) and str(found.parameters) in str(found)
    assert next(model.parameters()).device.type == "cpu"
    if name == "image_size":
        assert plot_architecture(model, value).get_title().startswith("vgg")
        plt.close("all")
    seconds = heard("repeats", lambda: measure_latency(model, torch.zeros(1, 3, 8, 8), value))
    assert (seconds is None) == (count_of(value) is None) and (seconds is None or seconds > 0)
    assert heard("x", lambda: measure_latency(model, value)) is None or value.shape == (1, 3, 8, 8)


@some
@given(ODD)
def test_the_strongest_filters_stay(keep):
    model = vgg((8, "pool", 5), batch_norm=True)
    made = heard("keep", lambda: prune_width(model, keep))
    assert (made is not None) == positive(keep, 1)
    if made is not None:
        first, kept = model.body.network[0], made.body.network[0]
        strength = first.weight.detach().abs().sum((1, 2, 3))
        chosen = sorted(strength.argsort(descending=True)[:max(1, round(float(keep) * 8))].tolist())
        torch.testing.assert_close(kept.weight, first.weight[chosen], rtol=0, atol=0)
        assert made.eval()(torch.randn(2, 3, 8, 8)).shape == (2, 3) and made.body.num_features <= 5


@pytest.mark.slow
@few
@given(st.one_of(ODD, ODD.map(lambda one: [one]), st.sampled_from([
    [torch.zeros(1, 1, 8, 8)], [torch.zeros(0, 3, 8, 8)], [torch.zeros(1, 3, 8, 8).int()], [torch.zeros(1, 3, 1, 1)],
    [torch.randn(2, 3, 8, 8), torch.randn(1, 3, 12, 8)], [torch.randn(2, 3, 8, 8).double()],
    [(torch.randn(2, 3, 8, 8), torch.zeros(2))]])))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_eight_bits_answer_nearly_as_thirty_two(batches):
    model = vgg().eval()
    made = heard("batches", lambda: quantize_int8(model, batches))
    if made is not None:
        assert isinstance(batches, list) and batches[0].shape[1] == 3
        x = batches[0].float()
        torch.testing.assert_close(made(x), model(x), atol=0.05, rtol=0.1)


# ---- Costs and errors

NUMBER = st.floats(0, 100) | st.integers(0, 5)


@some
@given(st.dictionaries(st.text(max_size=2) | st.integers(0, 3), st.tuples(NUMBER, NUMBER), max_size=6))
def test_the_front_is_what_nothing_beats(points):
    costs, errors = ({name: pair[i] for name, pair in points.items()} for i in (0, 1))
    front = pareto_front(costs, errors)
    beaten = {a for a, (x, y) in points.items() for u, v in points.values() if u <= x and v <= y and (u, v) != (x, y)}
    assert set(front) == points.keys() - beaten and [costs[n] for n in front] == sorted(costs[n] for n in front)


@some
@given(ODD)
def test_a_cost_or_error_that_is_no_number_is_named(value):
    assert heard("costs", lambda: pareto_front(value, {"a": 1.0})) is None
    real = is_real(value)
    front = heard("costs", lambda: pareto_front({"a": value, "b": 1.5}, {"a": 1.0, "b": 2.0}))
    assert front == (None if not real else ["a"] if value <= 1.5 else ["b", "a"])
    front = heard("errors", lambda: pareto_front({"a": 1.0, "b": 1.5}, {"a": value, "b": 2.5}))
    assert front == (None if not real else ["a"] if value <= 2.5 else ["a", "b"])


@settings(some, max_examples=10)
@given(st.sampled_from(["costs", "errors", "stds", "all stds", "ax"]), ODD)
def test_every_point_is_drawn_where_it_is(name, value):
    costs, errors, stds, ax = {"a": 2.0}, {"a": 0.25}, {"a": 0.125}, None
    if name in ("costs", "errors", "stds"):
        {"costs": costs, "errors": errors, "stds": stds}[name]["a"] = value
    stds, ax = value if name == "all stds" else stds, value if name == "ax" else None
    drawn = heard(name.split()[-1], lambda: plot_pareto(costs, errors, stds, ax=ax))
    if name in ("costs", "errors", "stds"):
        assert (drawn is not None) == bool(
            is_real(value) and (name == "errors" or value > 0 or name == "stds" and value == 0))
    if drawn is not None and name != "all stds" and (not is_real(value) or abs(value) < 1e6):
        drawn.figure.canvas.draw()
        (line,) = drawn.containers[0].lines[:1]
        assert line.get_xdata()[0] == pytest.approx(float(costs["a"]))
        assert line.get_ydata()[0] == pytest.approx(100 * float(errors["a"]))
    plt.close("all")


@some
@given(st.integers(0, 3), ODD)
def test_the_seconds_of_a_step_are_the_formulas(place, value):
    given_ = [2.0, 8.0, 2, 4.0]
    given_[place] = value
    name = ("step_seconds", "gradient_bytes", "processes", "bytes_per_second")[place]
    found = heard(name, lambda: data_parallel_seconds(*given_))
    assert (found is not None) == (count_of(value) is not None if place == 2 else positive(value))
    if found is not None:
        step, size, n, speed = map(float, given_)
        assert found == pytest.approx(step / n + 2 * (n - 1) / n * size / speed) and type(found) is float


# ---- Bilinear heads

@pytest.mark.slow
@some
@given(st.sampled_from(["num_classes", "dim", "dropout", "seed"]), ODD)
def test_a_bilinear_classifier_is_as_asked(name, value):
    body = Backbone("tiny", nn.Conv2d(3, 4, 1), num_features=4, input_size=8, mean=(0.5,) * 3, std=(0.5,) * 3)
    asked = {"num_classes": 3, "dim": 9, "dropout": 0.0, "seed": 1} | {name: value}
    made = heard(name, lambda: create_bilinear_classifier(body, **asked))
    if name != "dropout":
        least, most = {"num_classes": (2, 99), "dim": (1, 16), "seed": (0, 2**32 - 1)}[name]
        fits = count_of(value, least) is not None and count_of(value, least) <= most or name == "dim" and value is None
        assert (made is not None) == fits
    if made is not None:
        x = torch.randn(2, 3, 5, 5)
        assert made.eval()(x).shape == (2, int(asked["num_classes"]))
        if asked["dim"] is None:
            maps = body(x).flatten(2)
            torch.testing.assert_close(made.head.pool(body(x)), (maps @ maps.mT / 25).flatten(1))
        again = create_bilinear_classifier(body, **asked)
        assert asked["dim"] is None or torch.equal(made.head.pool.first.buckets, again.head.pool.first.buckets)
    assert heard("backbone", lambda: create_bilinear_classifier(value, 3, pretrained=False)) is None
    assert isinstance(made, Classifier) or made is None
