"""For anything that is handed over: the right value, or an error that names the argument, and never another one."""

import io
import json
import math
import operator
import random
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from course_lib.core.checks import ArgumentError, nearest, number, one_of, whole
from course_lib.core.device import check_device_name, choose_device
from course_lib.core.files import append_line, json_object, write_text
from course_lib.core.modes import evaluation_mode
from course_lib.core.plots import as_pixels, plain, show_images
from course_lib.core.random import fork_rng, generator_for, seed_everything
from course_lib.core.text import format_bytes, format_value, list_some
from course_lib.settings import CourseSettings
from course_lib.teach import check, hint, lesson_cost, name_cause, quiz, record_result, typical_range, typical_table
from course_lib.teach.progress import read_progress
from course_lib.teach.results import RECORDED_HERE, read_results

some = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

plain_numbers = st.one_of(st.integers(), st.floats(), st.decimals(allow_nan=False), st.fractions(), st.booleans(),
                          st.complex_numbers())
kinds = st.sampled_from([np.int8, np.uint8, np.int64, np.uint64, np.float16, np.float32, np.float64, np.bool_,
                         np.complex64])
numpy_numbers = st.builds(lambda kind, n, shape: np.full(shape, n).astype(kind) if shape is not None else kind(n),
                          kinds, st.integers(0, 100), st.sampled_from([None, (), (1,), (2,), (0,)]))
tensors = st.builds(lambda a: torch.from_numpy(np.asarray(a)), numpy_numbers.filter(lambda a: a.dtype != np.uint64))
words = st.one_of(st.text(max_size=9), st.sampled_from(["3", "nan", "1e3", "٣", "auto", "cuda:", "cuda:²", "CPU"]))
anything = st.one_of(st.none(), plain_numbers, numpy_numbers, tensors, words, st.binary(max_size=4),
                     st.builds(bytearray, st.binary(max_size=4)), st.lists(st.integers(), max_size=3),
                     st.just({}), st.just(object()), st.just(print), st.just(np.timedelta64(3, "s")),
                     st.just(torch.empty((), device="meta")), st.just(torch.device("cpu")), st.just(np.str_("cpu")))


def told(name, call):
    """What `call` gives, or None where it refuses by a ValueError or TypeError that names the argument."""
    try:
        return call()
    except (ValueError, TypeError) as error:
        assert name in str(error), f"{type(error).__name__} does not name {name}: {error}"
        assert len(str(error)) < 600
        return None


def is_whole(value):
    """By its type alone, whether this stands for a whole number."""
    if isinstance(value, torch.Tensor):
        return value.device.type == "cpu" and value.numel() == 1 and not (
            value.dtype.is_floating_point or value.dtype.is_complex or value.dtype == torch.bool)
    return isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.timedelta64)) or (
        isinstance(value, np.ndarray) and value.shape == () and value.dtype.kind in "iu")


@some
@given(anything)
def test_a_whole_number_is_itself_and_nothing_else_becomes_one(value):
    found = told("epochs", lambda: whole("epochs", value, 0, most=10**6))
    if is_whole(value) and 0 <= operator.index(value) <= 10**6:
        assert found == int(value) and type(found) is int
    else:
        assert found is None


@some
@given(anything)
def test_a_number_keeps_its_value_and_what_is_none_does_not_become_one(value):
    found = told("lr", lambda: number("lr", value, least=-1e6, most=1e6))
    if isinstance(value, (int, float, Decimal, Fraction, np.integer, np.floating)) and not isinstance(value, bool) \
            and not isinstance(value, np.timedelta64):
        fits = -10**6 <= (value if isinstance(value, int | Fraction) else float(value)) <= 10**6
        assert found == (float(value) if fits else None)
    elif isinstance(value, (bool, str, bytes, bytearray, complex, list, dict, np.complex64, np.timedelta64, np.bool_)):
        assert found is None
    assert found is None or type(found) is float and math.isfinite(found)


def test_numbers_of_every_kind():
    for value in (2, 2.0, Decimal(2), Fraction(4, 2), np.float16(2), np.int8(2), np.array(2), torch.tensor(2.0)):
        assert number("lr", value) == 2.0
    for value in (True, np.True_, torch.tensor(True), "2", b"2", bytearray(b"2"), np.array([2.0]), torch.tensor([2.0]),
                  2 + 0j, np.complex64(2), np.timedelta64(2, "s"), math.nan, Decimal("nan"), Decimal("sNaN"), 10**400):
        with pytest.raises(ArgumentError, match="lr = .* must be a finite number"):
            number("lr", value)
    with pytest.raises(ArgumentError, match=r"n = <int> must be"):
        whole("n", 10**5000, most=3)
    with pytest.raises(ArgumentError, match=r"^x = .{,200} must be a whole"):
        whole("x", np.zeros((99, 99)))


@some
@given(anything, st.lists(words, min_size=1, max_size=4, unique=True))
def test_a_word_is_one_of_the_allowed_or_the_error_lists_them(value, allowed):
    found = told("profile", lambda: one_of("profile", value, allowed))
    expected = value if isinstance(value, str) and value in allowed else None
    assert found == expected and (found is None or type(found) is str)
    assert isinstance(nearest(value, allowed), str)


@some
@given(anything)
def test_a_device_is_one_that_pytorch_knows(value):
    told("device", lambda: choose_device(value))
    if (name := told("device", lambda: check_device_name(value))) not in (None, "auto"):
        assert str(torch.device(name)) == name == str(value)


@some
@given(anything)
def test_a_seed_makes_all_three_generators_the_same_again(value):
    with fork_rng():
        before = random.getstate(), torch.get_rng_state()
        told("seed", lambda: seed_everything(value))
        if not is_whole(value) or not 0 <= operator.index(value) < 2**32:
            assert before[0] == random.getstate() and torch.equal(before[1], torch.get_rng_state())
        else:
            first = random.random(), np.random.rand(), torch.rand(()).item()
            seed_everything(int(value))
            assert first == (random.random(), np.random.rand(), torch.rand(()).item())
    assert torch.rand(1, generator=generator_for(value, 1)) == torch.rand(1, generator=generator_for(value, 1))


@some
@given(anything, st.sampled_from(["fraction", "seconds", "images/s", ""]))
def test_a_figure_in_words_is_the_figure(value, unit):
    assert isinstance(told("value", lambda: format_value(value, unit)), str | None)
    assert format_value(0.1234, "fraction") == "12.3 %" and format_bytes(1.2e9) == "1.2 GB"
    assert list_some(["a"] * 5) == "'a', 'a', 'a' and 2 more"


@some
@given(st.text(alphabet=st.characters(codec="latin-1", exclude_categories=["Cc"])), st.booleans())
def test_any_text_is_drawn_as_it_stands(text, dollars):  # rueckstiess/mtools#639
    import matplotlib.pyplot as plt

    text = f"${text}^_$" if dollars else text
    label = plt.figure().text(0, 0, plain(text))
    drawn, mathematics = label._preprocess_math(label.get_text())
    assert drawn.lstrip("\u200b") == text and not mathematics
    plt.close("all")


shapes = st.sampled_from([(), (4,), (4, 5), (4, 5, 1), (4, 5, 3), (4, 5, 4), (3, 4, 5), (4, 5, 2), (0, 5, 3),
                          (1, 2, 3, 4)])
images = st.builds(lambda shape, kind, most: np.full(shape, most).astype(kind), shapes, kinds,
                   st.sampled_from([0, 1, 2, 200, 255, 300, -1]))


@some
@given(st.one_of(images, images.map(lambda a: [a]), images.map(lambda a: [a, a]), anything, tensors.map(lambda t: [t])))
def test_images_are_drawn_with_the_colours_they_have_or_refused(value):
    import matplotlib.pyplot as plt

    told("image", lambda: show_images(value).figure.savefig(io.BytesIO(), dpi=20))
    plt.close("all")


def test_grey_is_grey_and_ranges_are_not_stretched():
    grey = np.array([[10, 20], [30, 40]], np.uint8)
    assert as_pixels("x", grey).tolist() == np.stack([grey] * 3, 2).tolist()
    assert as_pixels("x", grey.astype(np.int64)).dtype == np.uint8
    assert as_pixels("x", grey > 15).max() == 1.0 and as_pixels("x", torch.rand(4, 5, 3)).shape == (4, 5, 3)
    for bad, words in ((grey + np.uint16(300), "0 to 255"), (grey / 20, "0 to 1"), (torch.rand(3, 4, 5), "permute"),
                       (np.full((2, 2), np.nan), "nan")):
        with pytest.raises(ArgumentError, match=words):
            as_pixels("x", bad)
    with pytest.raises(ArgumentError, match="lists"):
        show_images(np.zeros((8, 8, 3)))
    with pytest.raises(ArgumentError, match="no title more"):
        show_images([grey], ["a", "b"])


@some
@given(st.one_of(st.text(), st.binary().map(lambda b: b.decode("latin-1")), st.just('\ufeff{"a": 1}')), st.text())
def test_files_give_back_what_was_written(tmp_path, text, line):
    assert isinstance(json_object(text), dict) and json_object('\ufeff{"a": 1}') == {"a": 1}
    path = tmp_path / "file"
    write_text(path, "torn")
    append_line(path, json.dumps([line]))
    assert json.loads(path.read_text(encoding="utf-8").split("\n")[1]) == [line]


@some
@given(anything)
def test_only_a_model_can_be_evaluated(value):
    def evaluate():
        with evaluation_mode(value):
            raise AssertionError("it was taken")
    told("model", evaluate)


# ---- Practice and results

@some
@given(anything)
def test_results_take_figures_and_say_what_is_none(value):
    kept = RECORDED_HERE[:]
    if (row := told("value", lambda: record_result(CourseSettings(), "03", "error", value))) is not None:
        assert row["value"] == float(value) and math.isfinite(row["value"])
        assert typical_range(row).verdict == "unknown" and typical_table("03", [row])
    told("value", lambda: typical_range({"lesson": "03", "name": "x", "dataset": "", "backbone": "", "profile": "",
                                         "unit": "", "value": value}))
    told("typical_range", lambda: typical_range(value))
    assert isinstance(lesson_cost(value), str) and isinstance(typical_table("03", [value]), str)
    RECORDED_HERE[:] = kept


@pytest.mark.slow
@settings(some, max_examples=8)
@given(anything)
def test_practice_names_what_it_does_not_know(tmp_path, value):
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("COURSE_DATA_DIR", str(tmp_path))
        told("exercise", lambda: check(value, print))
        told("number", lambda: hint("04.lr_sweep", value))
        told("cause", lambda: name_cause("04.lab", value))
        told("lab", lambda: name_cause(value, 1))
        told("lesson", lambda: quiz(value))
        told("seed", lambda: check("04.lr_sweep", lambda start, stop, steps: 1, value))


@some
@given(st.binary(max_size=200))
def test_any_file_of_results_or_progress_can_be_read(tmp_path, data):
    whole_row = b'\n{"id": "03.x", "did": "hint"}\n{"lesson": "03", "name": "x", "value": 1}\n'
    (tmp_path / "progress.jsonl").write_bytes(data + whole_row)
    assert read_results(tmp_path / "progress.jsonl")[-1]["value"] == 1
    assert read_progress(tmp_path / "progress.jsonl", lambda said: None)[-1]["did"] == "hint"
    for path in tmp_path.iterdir():
        path.unlink()


def test_a_class_that_a_lesson_defines_anew_counts():
    """A notebook that exports a class has its own one of the same name, and hands it to the library."""
    from course_lib.core.checks import instance
    from course_lib.learner import Learner

    lessons_own = type("Learner", (), {})()
    assert instance("learner", lessons_own, Learner) is lessons_own
    with pytest.raises(ArgumentError, match="learner = 3 must be a Learner"):
        instance("learner", 3, Learner)
    with pytest.raises(ArgumentError, match="must be a str"):
        instance("text", type("str", (), {})(), str)  # only classes of ours
