"""Exercises, labs, quizzes and records: as they were written, or an error that names the part that is wrong."""

import json
import re
from dataclasses import fields

import matplotlib.pyplot as plt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd import drawn, few, odd, told

from course_lib.teach import (
    Cause,
    Exercise,
    Lab,
    Question,
    Quiz,
    check,
    read_record,
    recorded_file,
    require,
    results,
    show_lab,
    solution,
)
from course_lib.teach.practice import find_exercise, find_lab

TASK = {"id": "99.x", "title": "t", "task": "t", "examples": lambda seed: [(1,)], "verified": "v",
        "hints": ("a", "b", "c"), "why": "w"}
CAUSES = (Cause("a", "b", True), *[Cause("c", "d")] * 3)
BROKEN = {"id": "99.lab", "title": "t", "story": "s", "curves": lambda function: {"a": [1.0]}, "causes": CAUSES,
          "exercise": Exercise(**TASK)}
ASKED = {"text": "t", "choices": (("a", "b"), ("c", "d")), "right": 1}
QUIZ = {"title": "t", "questions": (Question(**ASKED),)}
PARTS = [(Exercise, TASK), (Lab, BROKEN), (Cause, {"text": "t", "why": "w"}), (Question, ASKED), (Quiz, QUIZ)]
PLACES = [(kind, given_, f.name) for kind, given_ in PARTS for f in fields(kind) if f.init and f.name != "may_change"]


@few
@given(value=odd)
@pytest.mark.parametrize(("kind", "parts", "name"), PLACES, ids=lambda part: getattr(part, "__name__", None))
def test_every_part_is_kept_or_named(kind, parts, name, value):
    made = told(lambda: kind(**{**parts, name: value}), name, "four causes" if name == "causes" else name,
                "right" if name == "choices" else name)
    if made is not None:
        assert getattr(made, name) is value or getattr(made, name) == value
        if name in ("id", "title", "task", "verified", "why", "needs", "story", "ylabel", "text"):
            assert isinstance(value, str)


@few
@given(title=st.text(max_size=5), choices=st.lists(st.tuples(st.text(max_size=4), st.text(max_size=4)), min_size=1,
                                                   max_size=3), data=st.data())
def test_a_quiz_says_which_choice_is_right(title, choices, data):
    from html import escape

    right = data.draw(st.integers(0, len(choices) - 1))
    text, said = Quiz(title, (Question("q", tuple(choices), right),)).text(), escape(choices[right][1])
    assert text.count("Right.") == 1 + sum("Right." in part for pair in choices for part in pair)
    # a word in backticks is code, and one between stars is emphasised
    said = re.sub(r"`([^`]+)`|(?<!\w)\*(\w[^*`]*)\*(?!\w)",
                  lambda found: f"<code>{found[1]}</code>" if found[1] else f"<em>{found[2]}</em>", said)
    assert f"<b>Right.</b> {said}" in text and f"<h4>{escape(title)}</h4>" in text


def test_marks_in_a_question_are_shown_as_what_they_mean():
    question = Question("Of the *training* images, `a*b*c` is 2*3*4 < 25. What is *not* so?", (("`x`", "*No*."),), 0)
    text = Quiz("t", (question,)).text()
    assert ("Of the <em>training</em> images, <code>a*b*c</code> is 2*3*4 &lt; 25. What is <em>not</em> so?") in text
    assert "<code>x</code>" in text and "<em>No</em>." in text


@pytest.mark.slow
@few
@given(value=odd)
def test_practice_is_for_what_there_is(value, tmp_path_factory, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_DATA_DIR", str(tmp_path_factory.mktemp("d")))
    assert told(lambda: require(value, len), "exercise") is None
    assert told(lambda: solution(value), "exercise") is None
    assert told(lambda: show_lab(value), "lab") is None
    right = find_exercise("04.lr_sweep").answer
    require("04.lr_sweep", right)
    if value is not right:
        with pytest.raises(AssertionError, match="not yet"):
            require("04.lr_sweep", value)
        capsys.readouterr()
        check("04.lr_sweep", value)
        assert "not yet" in capsys.readouterr().out
    told(lambda: require("04.lr_sweep", right, value), "seed")
    if not callable(value) and value is not None:
        assert told(lambda: show_lab("04.lab", value), "answer") is None


@pytest.mark.slow
def test_a_lab_shows_the_run_as_given_and_the_mended_one():
    lab = find_lab("04.lab")
    given_ = drawn(show_lab("04.lab")).lines
    both = drawn(show_lab("04.lab", lab.exercise.answer)).lines
    for lines, function in ((given_, lab.exercise.wrong_start), (both[len(given_):], lab.exercise.answer)):
        assert [list(line.get_ydata()) for line in lines] == [pytest.approx(list(values), nan_ok=True)
                                                              for values in lab.curves(function).values()]
    plt.close("all")


@few
@given(value=odd, record=st.dictionaries(st.text(), st.integers(), max_size=2), junk=st.binary(max_size=20))
def test_a_record_is_a_file_of_the_course(value, record, junk, tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("r")
    monkeypatch.setattr(results, "RECORDS", folder)
    (folder / "it.json").write_text(json.dumps(record), encoding="utf-8")
    (folder / "damaged.json").write_bytes(junk)
    (folder.parent / "beside.json").write_text('{"a": 1}', encoding="utf-8")
    assert read_record("it.json") == record and read_record("damaged.json") == results.json_object(
        junk.decode("utf-8-sig", "replace"))
    for name in (value, "../beside.json", str(folder.parent / "beside.json")):
        path = told(lambda name=name: recorded_file(name), "name")
        assert path is None or path == folder / name and "/" not in name.strip("/.")
        assert told(lambda name=name: read_record(name), "name") in (None, {})
