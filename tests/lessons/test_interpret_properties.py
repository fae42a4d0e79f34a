"""Answers of any form, interpreted and drawn: figures as NumPy's and scikit-learn's, or an error that says why not."""


import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd import count_of, heard
from sklearn import metrics
from torch import nn

from course_lib.interpret import (
    Interpretation,
    class_errors,
    interpret,
    most_confused,
    plot_class_errors,
    plot_confusion_matrix,
    plot_reliability,
    show_grad_cam,
    show_most_confused,
    show_top_losses,
    top_losses,
)
from course_lib.learner import Learner

some = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
few = settings(some, max_examples=8)
FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
KINDS = [*FLOATS, torch.int64, torch.bool, torch.complex64, torch.uint8, torch.float8_e4m3fn]
WHOLES = [torch.int64, torch.int32, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64]
ODD = st.one_of(st.none(), st.integers(-3, 9), st.floats(), st.booleans(), st.text(max_size=3), st.binary(max_size=3),
                st.just(10**400), st.lists(st.integers(-1, 3), max_size=4), st.lists(st.text(max_size=2), max_size=4),
                st.sampled_from([{"a", "b", "c"}, {"a": 1}, np.array(["a", "b", "c"]), np.array(3), object(), len,
                                 torch.tensor(1), torch.tensor([0, 1]), torch.tensor([True, False]), 2j, [1j], [None],
                                 [[0], [1, 2]], "abc", ("a", "b", "a")]))


@st.composite
def answers_of(draw):
    """Logits, targets and classes that mostly fit together."""
    shape = draw(st.sampled_from([(4, 3), (1, 2), (5, 1), (0, 3), (3,), (2, 3, 1), ()]))
    values = draw(st.lists(st.sampled_from([0.0, 1.5, -2.0, 60000.0, 1e300, -1e300, np.nan, np.inf]) | st.floats(-9, 9),
                           min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    usual = st.sampled_from(FLOATS) if draw(st.booleans()) else st.sampled_from(KINDS)
    logits = torch.tensor(values, dtype=torch.float64).reshape(shape).to(draw(usual))
    logits = logits.to_sparse() if shape and not draw(st.integers(0, 9)) else logits
    count = shape[0] if shape else 1
    targets = draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)
                   | st.lists(st.integers(-1, 5), max_size=5))
    if min(targets, default=0) >= 0 and draw(st.booleans()):
        targets = torch.tensor(targets, dtype=torch.int64).to(draw(st.sampled_from(WHOLES)))
    classes = draw(st.sampled_from([["a", "b", "c"], ("x",) * 3, np.array(["a", "b", "c"]), "abc", range(3), "ab"]))
    return logits, targets, classes


@some
@given(answers_of())
@pytest.mark.filterwarnings("ignore:overflow")
def test_an_interpretation_is_right_or_says_what_does_not_fit(given_):
    logits, targets, classes = given_
    made = heard("scores Scores targets classes image images", lambda: Interpretation(logits, targets, classes))
    fits = (logits.is_floating_point() and logits.layout == torch.strided and logits.ndim == 2 and logits.numel()
            and bool(logits.float().isfinite().all()) and len(targets) == len(logits)
            and all(0 <= int(one) < logits.shape[1] for one in targets) and len(classes) == logits.shape[1])
    assert (made is not None) == bool(fits)
    if made is None:
        return
    z, y = logits.double().numpy(), np.array([int(one) for one in targets])
    predicted, labels = z.argmax(1), range(len(classes))
    exponents = np.exp(z - z.max(1, keepdims=True))
    probabilities = exponents / exponents.sum(1, keepdims=True)
    assert made.predicted.tolist() == predicted.tolist() and len(made) == len(y)
    assert np.allclose(made.probabilities, probabilities, atol=1e-5)
    assert made.classes == tuple(map(str, classes))
    losses = z.max(1) + np.log(exponents.sum(1)) - np.take_along_axis(z, y[:, None], 1)[:, 0]
    assert np.allclose(made.losses, losses, rtol=1e-5, atol=1e-5)
    assert made.error == pytest.approx(1 - metrics.accuracy_score(y, predicted))
    assert made.matrix.tolist() == metrics.confusion_matrix(y, predicted, labels=labels).tolist()
    assert [one.wrong for one in class_errors(made)] == [int(((y == i) & (predicted != i)).sum()) for i in labels]
    assert [one.row for one in top_losses(made)] == np.argsort(-made.losses.numpy(), kind="stable").tolist()
    assert 0 <= made.calibration_error <= 1


ANSWERS = Interpretation(torch.eye(3)[[0, 1, 2, 0]], [0, 1, 1, 2], "abc")


@some
@given(ODD)
def test_rows_temperatures_and_classes_that_are_none_are_named(value):
    chosen = heard("rows", lambda: ANSWERS.select(value))
    if chosen is not None:
        assert len(chosen) and chosen.replay is None and set(chosen.targets.tolist()) <= {0, 1, 2}
        assert [one.row for one in ANSWERS.describe(value)] == [int(one) for one in np.atleast_1d(np.asarray(value))]
    cooler = heard("temperature", lambda: ANSWERS.at_temperature(value))
    assert cooler is None or torch.allclose(cooler.logits * float(value), ANSWERS.logits)
    named = heard("classes", lambda: Interpretation(ANSWERS.logits, ANSWERS.targets, value))
    assert named is None or len(named.classes) == 3 == len(value) and not isinstance(value, (set, bytes))
    assert named is None or named.classes == tuple(map(str, value))
    images = heard("rows", lambda: SEEN.inputs(value))
    assert images is None or torch.equal(images, X[[one.row for one in SEEN.describe(value)]])


# ---- Asking a model

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


X, Y = torch.rand(7, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2, 2])
LEARNER = Learner(Small(), [], [(X, Y)], progress=False)
SEEN = interpret(LEARNER, classes="abc")


@some
@given(st.sampled_from(["learner", "loader", "classes", "batch", "x", "y"]), ODD)
def test_a_model_is_asked_about_every_image_or_the_argument_is_named(name, value):
    learner, loader, classes = LEARNER, [(X[:4], Y[:4]), (X[4:], Y[4:])], None
    if name == "learner":
        learner = value
    elif name == "loader":
        loader = value
    elif name == "classes":
        classes = value
    else:
        loader = [value] if name == "batch" else [(value, Y)] if name == "x" else [(X, value)]
    found = heard(f"{name} loader batch x y targets images target", lambda: interpret(learner, loader, classes=classes))
    if name == "learner":
        assert found is None
    if found is not None:
        assert len(found) == 7 and torch.allclose(found.logits, LEARNER.model.eval()(X), atol=1e-6)
        assert torch.equal(found.targets, Y) and torch.equal(found.inputs([6, 0]), X[[6, 0]])
        assert found.classes == (("0", "1", "2") if classes is None else tuple(map(str, classes)))


# ---- Pictures

PLOTS = {"plot_confusion_matrix": plot_confusion_matrix, "plot_class_errors": plot_class_errors,
         "plot_reliability": plot_reliability, "show_top_losses": show_top_losses,
         "show_most_confused": show_most_confused, "show_grad_cam": lambda i: show_grad_cam(LEARNER, i, [0])}


@few
@given(st.sampled_from(sorted(PLOTS)), ODD)
def test_what_is_no_interpretation_is_not_drawn(which, value):
    assert heard("interpretation", lambda: PLOTS[which](value)) is None
    if which.startswith("plot"):
        drawn = heard("ax", lambda: PLOTS[which](SEEN, ax=value))
        assert (drawn is None) == (value is not None)
    plt.close("all")


@few
@given(ODD)
def test_bins_counts_and_columns_are_as_asked(value):
    if isinstance(value, int) and value > 9:
        value = 2**63
    drawn = heard("bins", lambda: plot_reliability(SEEN, value))
    assert (drawn is None) == (count_of(value) is None)
    if drawn is not None:
        confidence, right = SEEN.confidence.double().numpy(), ~SEEN.wrong.numpy()
        place = np.ceil((confidence - 1e-7) * int(value)).astype(int) - 1
        heights = [right[place == i].mean() for i in sorted(set(place))]
        assert [bar.get_height() for bar in drawn.containers[0]] == pytest.approx(heights)
    shown = heard("count", lambda: show_top_losses(SEEN, value))
    assert (shown is None) == (count_of(value) is None) and (shown is None or len(shown) == min(7, int(value)))
    assert (heard("columns", lambda: show_top_losses(SEEN, 2, columns=value)) is None) == (count_of(value) is None)
    assert (heard("count", lambda: show_most_confused(SEEN, count=value)) is None) == (count_of(value) is None)
    plt.close("all")


@pytest.mark.slow
@few
@given(st.sampled_from(["model", "rows", "of", "layer", "columns"]), ODD)
def test_maps_and_pairs_are_of_what_was_asked(name, value):
    asked = {"model": LEARNER, "rows": [1], "of": "predicted", "layer": "body", "columns": 2} | {name: value}
    model, rows = asked.pop("model"), asked.pop("rows")
    drawn = heard(name, lambda: show_grad_cam(model, SEEN, rows, **asked))
    if drawn is not None:
        assert len(drawn) == 2 * len(np.atleast_1d(np.asarray(rows)))
        row = int(np.atleast_1d(np.asarray(rows))[0])
        assert drawn[0].get_title() == f"it is\n{'abc'[Y[row]]}"
        assert drawn[1].get_title().startswith(f"for {'abc'[SEEN.predicted[row]]}\n")
    pair = heard("pair", lambda: show_most_confused(SEEN, value))
    if pair is not None and value is not None:
        assert pair.shape == (2, 2) and len(value) == 2 and set(value) <= set("abc")
    plt.close("all")


@some
@given(ODD)
def test_what_is_no_interpretation_is_named(value):
    for function in (class_errors, most_confused, top_losses):
        assert heard("interpretation", lambda function=function: function(value)) is None
