"""Bodies, heads and classifiers of any arguments: the network that was asked for, or an error that names the fault."""

import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd import count_of, heard
from torch import nn

from course_lib.models import (
    Backbone,
    UnknownBackboneError,
    WeightsUnavailableError,
    count_parameters,
    create_backbone,
    create_classifier,
    create_head,
    list_backbones,
)
from course_lib.pooling import create_bilinear_classifier

some = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
ODD = st.one_of(st.none(), st.integers(-3, 9), st.floats(), st.booleans(), st.text(max_size=4), st.just(10**400),
                st.sampled_from([np.int64(4), np.float32(0.5), np.str_("avg"), torch.tensor(4), torch.tensor([1, 2]),
                                 torch.zeros(1, 3, 8, 8), np.zeros(3), "avg", "max", "avgmax", b"avg", object(), len]),
                st.lists(st.integers(0, 5), max_size=3).map(tuple), st.dictionaries(st.text(max_size=1), st.none()))


def tiny(**changes):
    given = dict(name="tiny", network=nn.Conv2d(3, 4, 1), num_features=4, input_size=8, mean=(0.5,) * 3, std=(0.5,) * 3)
    given |= changes
    return Backbone(given.pop("name"), given.pop("network"), **given)


@some
@given(ODD)
def test_a_backbone_keeps_what_it_is_told_or_refuses_it(value):
    for name in ("num_features", "input_size"):
        made = heard(name, lambda name=name: tiny(**{name: value}))
        assert (made and getattr(made, name)) == count_of(value)
    assert heard("network", lambda: tiny(network=value)) is None
    for name in ("mean", "std"):
        made = heard(name, lambda name=name: tiny(**{name: value}))
        fits = isinstance(value, (tuple, list)) and (name == "mean" or all(one > 0 for one in value))
        assert (made is not None) == fits and (made is None or getattr(made, name) == value)


@some
@given(st.one_of(ODD, st.builds(lambda shape, kind: torch.ones(shape).to(kind), st.lists(st.integers(0, 4), max_size=5),
                                st.sampled_from([torch.float32, torch.int64, torch.bool, torch.complex64]))))
def test_a_backbone_takes_images_alone(value):
    body = tiny()
    found = heard("x", lambda: body(value))
    takes = isinstance(value, torch.Tensor) and value.ndim == 4 and value.shape[1] == 3 and value.is_floating_point()
    assert (found is not None) == takes
    if takes:  # a convolution of 1 x 1 is a matrix product at each place
        weight, bias = body.network.weight[..., 0, 0], body.network.bias[:, None, None]
        expected = torch.einsum("oi,nihw->nohw", weight, value) + bias
        torch.testing.assert_close(found, expected)


@some
@given(ODD)
def test_a_module_has_as_many_parameters_as_its_tensors_have_numbers(value):
    assert heard("module", lambda: count_parameters(value)) is None
    sizes = [size for size in (count_of(value) or 1, 3) if size < 100]
    network = nn.Sequential(*(nn.Linear(size, 2) for size in sizes), nn.BatchNorm1d(2))
    network[0].requires_grad_(False)
    assert count_parameters(network) == sum(2 * size + 2 for size in sizes) + 4
    assert count_parameters(network, trainable_only=True) == count_parameters(network) - (2 * sizes[0] + 2)


@some
@given(st.sampled_from(["num_classes", "pool", "hidden", "dropout"]), ODD)
def test_a_classifier_is_as_asked(name, value):
    asked = {"num_classes": 3, "pool": "avg", "hidden": None, "dropout": 0.0} | {name: value}
    made = heard(name, lambda: create_classifier(tiny(), asked["num_classes"],
                                                **{key: asked[key] for key in asked if key != "num_classes"}))
    fits = {"num_classes": count_of(value, 2) is not None, "hidden": value is None or count_of(value) is not None,
            "pool": value is None or isinstance(value, str) and value in ("avg", "max", "avgmax"),
            "dropout": not isinstance(value, (bool, str, bytes, tuple, dict)) and np.ndim(value) == 0
            and isinstance(value, (int, float, np.number, torch.Tensor)) and 0 <= float(min(value, 2)) < 1}[name]
    assert (made is not None) == fits
    if made is None:
        return
    x = torch.randn(2, 3, 5, 5)
    if asked["pool"] is None:
        assert not hasattr(made.head, "pool")
        return
    classes = int(asked["num_classes"])
    assert made.num_classes == classes and made.eval()(x).shape == (2, classes)
    if asked["hidden"] is None:  # the head by hand
        maps, linear = made.body(x), made.head.linear
        pooled = {"avg": [maps.mean((2, 3))], "max": [maps.amax((2, 3))],
                  "avgmax": [maps.mean((2, 3)), maps.amax((2, 3))]}[str(asked["pool"])]
        torch.testing.assert_close(made(x), torch.cat(pooled, 1) @ linear.weight.T + linear.bias)
    else:
        assert made.head.hidden.out_features == made.head.linear.in_features == int(asked["hidden"])
    assert made.head.dropout.p == float(asked["dropout"])
    again = create_head(4, classes, pool=asked["pool"], hidden=asked["hidden"], dropout=asked["dropout"])
    assert count_parameters(again) == count_parameters(made.head)


@pytest.mark.slow
@settings(some, max_examples=15)
@given(st.one_of(ODD, st.text(min_size=5), st.sampled_from(["efficientnet-lite0", "resnet", "timm/", "timm/resnet",
                                                            "resnet18.nothing", "hf-hub:a/b", "../x", "a\0b", ""])))
def test_a_name_that_is_none_is_refused_with_the_nearest(value):
    for create in (create_backbone, lambda name, **o: create_classifier(name, 3, **o),
                   lambda name, **o: create_bilinear_classifier(name, 3, **o)):
        assert heard("backbone", lambda create=create: create(value, pretrained=False)) is None
    if isinstance(value, str):
        with pytest.raises(UnknownBackboneError):
            create_backbone(value, pretrained=False)


@pytest.mark.slow
@settings(some, max_examples=4)
@given(st.sampled_from(["efficientnet_lite0", "resnet18", "shufflenet_v2_x0_5", "timm/mobilenetv3_small_050"]),
       st.integers(2, 5))
def test_every_listed_name_gives_what_it_says(name, classes):
    assert name.removeprefix("timm/") in list_backbones()
    body = create_backbone(np.str_(name), pretrained=False)
    assert type(body.name) is str and not body.pretrained
    assert body.eval()(torch.randn(1, 3, 64, 64)).shape[1] == body.num_features
    model = create_classifier(body, classes)
    assert model.eval()(torch.randn(2, 3, 64, 64)).shape == (2, classes)
    assert count_parameters(model) == count_parameters(body) + (body.num_features + 1) * classes


@some
@given(ODD)
def test_weights_are_downloaded_only_when_that_is_said(value):
    if type(value) is not bool:  # "no" is not taken for yes
        assert heard("pretrained", lambda: create_backbone("resnet18", pretrained=value)) is None


def test_the_errors_say_what_needs_no_network():
    for error in (UnknownBackboneError, WeightsUnavailableError):
        assert "backbone" in (error.__doc__ or "").lower()
    with pytest.raises(UnknownBackboneError, match="efficientnet_lite0.*need no download"):
        create_backbone("resnet_18x")
    assert math.isclose(sum(p.numel() for p in create_head(4, 3).parameters()), 15)
