"""Points by property: what is right counts, what is wrong on ordinary input counts nothing, and one line gets none."""

from dataclasses import replace

import pytest

from course_lib.teach.exercise import stub_function
from course_lib.teach.points import LEAVES, ORDINARY, SPECIAL, no_properties, properties
from course_lib.teach.practice import check, exam_tasks, exercise_lessons, find_exercise, load_exercises
from course_lib.teach.sandbox import run_apart

pytestmark = pytest.mark.slow

ALL = [exercise.id for lesson in exercise_lessons() for exercise in [*load_exercises(lesson), *exam_tasks(lesson)]]
CHEATS = [lambda *given: None, lambda *given: given[0], lambda *given: 0, lambda *given: [], lambda *given: 0.5,
          lambda *given: {}, lambda *given: given, lambda *given: ""]


def points_of(exercise, answer, seed=5):
    return {one.name: one.points for one in properties(exercise, run_apart(exercise, answer, seed), seed) if one.held}


@pytest.mark.parametrize("id", ALL)
def test_the_reference_has_every_property_and_the_stub_has_none(id):
    exercise = find_exercise(id)
    found = points_of(exercise, exercise.answer)
    assert found == {one.name: one.points for one in no_properties(exercise)} and next(iter(found.values())) == 2
    assert points_of(exercise, stub_function(exercise)) == {}


@pytest.mark.parametrize("id", [id for id in ALL if id.startswith("exam")])
def test_one_line_gets_no_points_in_an_exam(id):
    assert [points_of(find_exercise(id), cheat) for cheat in CHEATS] == [{}] * len(CHEATS)


def test_points_are_lost_one_property_at_a_time():
    exercise = find_exercise("04.running_mean")
    right = exercise.answer
    emptying = lambda losses, beta: (right(list(losses), beta), losses.clear())[0]
    fails_on_nothing = lambda losses, beta: right(losses, beta) if losses else None
    assert points_of(exercise, right) == {ORDINARY: 2, SPECIAL: 1, LEAVES: 1}
    assert points_of(exercise, emptying) == {ORDINARY: 2, SPECIAL: 1}
    assert points_of(exercise, fails_on_nothing) == {ORDINARY: 2, LEAVES: 1}
    assert points_of(exercise, lambda losses, beta: [0.0] * len(losses)) == {}  # right in the special case of no losses
    known = {losses[0] if losses else None: right(losses, beta) for losses, beta in exercise.examples(0)}
    assert points_of(exercise, lambda losses, beta: known[losses[0] if losses else None]) == {}


def test_the_type_is_a_property_of_its_own():
    exercise = find_exercise("06.count_confusions")
    name = exercise.parts["type"]
    assert points_of(exercise, exercise.answer)[name] == 1
    assert points_of(exercise, lambda *given: exercise.answer(*given).float()) == \
        {one.name: one.points for one in no_properties(exercise) if one.name != name}


def test_cases_that_are_named_take_the_place_of_the_usual_ones():
    exercise = replace(find_exercise("04.lr_sweep"), cases={"grows": (1, 3, 4), "two equal ends": (2,)})
    exercise.answer = find_exercise("04.lr_sweep").answer
    assert list(points_of(exercise, exercise.answer)) == ["grows", "two equal ends"]


def test_an_exam_says_points_and_no_values(capsys):
    for task in (task for lesson in exercise_lessons() for task in exam_tasks(lesson)):
        check(task.id, task.answer, seed=3)
        right = capsys.readouterr().out
        check(task.id, lambda *given: 1 / 0, seed=3)
        check(task.id, 3)
        wrong = capsys.readouterr().out
        none = no_properties(task)
        most = sum(one.points for one in none)
        assert f"{most} of {most} points" in right and wrong.count(f"0 of {most} points") == 2
        assert set(wrong.splitlines()) == {f"{task.id}: 0 of {most} points", *(f"  {one}" for one in none)}
