"""Students' answers: right ones in another style pass every check, wrong ones are refused in words that help.

The answers stand in `tests/teach/student`, a file for each lesson. None is a copy of what the exercises know as a
mistake.
"""

import importlib

import pytest
import student

from course_lib.teach.practice import exercise_lessons, find_exercise, load_exercises
from course_lib.teach.verdict import examine

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("known_answers_run_once")]

LESSONS = [lesson for lesson in exercise_lessons() if importlib.util.find_spec(f"student.lesson{lesson}")]
for lesson in LESSONS:
    importlib.import_module(f"student.lesson{lesson}")


def named(answers):
    return [pytest.param(*each, id=f"{each[0]}-{each[1].__name__}") for each in answers]


@pytest.mark.parametrize("id, answer", named(student.RIGHT))
def test_a_right_answer_in_another_style_passes(id, answer):
    verdict = examine(find_exercise(id), answer)
    assert verdict.passed, verdict


@pytest.mark.parametrize("id, answer, says", named(student.WRONG))
def test_a_wrong_answer_is_refused_in_words_that_help(id, answer, says):
    verdict = examine(find_exercise(id), answer)
    said = " ".join(str(verdict).split())
    assert not verdict.passed and len(says) >= 8 and says in said, verdict
    assert "no longer tells" not in said and "AssertionError" not in said, verdict
    assert len(str(verdict).splitlines()) <= 6 and "{'" not in verdict.message, verdict


@pytest.mark.parametrize("lesson", LESSONS)
def test_every_exercise_has_answers_of_students(lesson):
    for exercise in load_exercises(lesson):
        assert [id for id, _ in student.RIGHT].count(exercise.id) >= 3, exercise.id
        assert [id for id, *_ in student.WRONG].count(exercise.id) >= 6, exercise.id
