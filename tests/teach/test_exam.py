"""Answers to the exams: right ones in other styles get all points, wrong ones only the points of what they do right."""

import importlib
import pkgutil

import exams
import pytest

import course_lib.teach.points as points
from course_lib.teach.compare import difference
from course_lib.teach.points import cases_of, no_properties, properties
from course_lib.teach.practice import exam_tasks, exercise_lessons, find_exercise
from course_lib.teach.sandbox import run_apart

pytestmark = pytest.mark.slow

for _, name, _ in pkgutil.iter_modules(exams.__path__, "exams."):
    importlib.import_module(name)
TASKS = [task for lesson in exercise_lessons() for task in exam_tasks(lesson)]
SEED = 7


@pytest.fixture(autouse=True)
def the_reference_runs_once(monkeypatch, ran={}, runs=points._runs):  # noqa: B006
    """What the reference does is the same for all answers."""
    def once(task, answer, seed):
        assert answer is task.answer
        if (task.id, seed) not in ran:
            ran[task.id, seed] = runs(task, answer, seed)
        return ran[task.id, seed]

    monkeypatch.setattr(points, "_runs", once)


def named(answers):
    return [pytest.param(*each, id=f"{each[0]}-{each[1].__name__}") for each in answers]


def held(id, answer):
    task = find_exercise(id)
    points._runs(task, task.answer, SEED)  # what has to be imported is imported now
    return [one.held for one in properties(task, run_apart(task, answer, SEED), SEED)]


@pytest.mark.parametrize("id, answer", named(exams.RIGHT))
def test_a_right_answer_in_another_style_gets_all_points(id, answer):
    assert all(held(id, answer))


@pytest.mark.parametrize("id, answer, holds", named(exams.WRONG))
def test_a_wrong_answer_gets_the_points_of_what_it_does_right(id, answer, holds):
    found = held(id, answer)
    assert [place for place, has in enumerate(found) if has] == list(holds) and len(holds) < len(found)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.id)
def test_a_task_of_an_exam_stands_by_itself_and_its_examples_cannot_be_known(task):
    numbers = [k for places in task.cases.values() for k in places]
    assert sorted(numbers) == list(range(len(task.examples(0)))) and len(task.cases) >= 2
    assert len(no_properties(task)) >= 3 and not any(task.hints) and not task.mistakes
    for k in next(iter(cases_of(task, 0).values())):
        assert any(difference(*pair) for pair in zip(task.examples(0)[k], task.examples(1)[k], strict=True))
    assert not {"lesson", "above", "exercise"} & set(task.task.lower().replace(",", " ").replace(".", " ").split())
    assert task.id.split(".")[1] == task.answer.__name__ and task.minutes >= 5
    assert [id for id, _ in exams.RIGHT].count(task.id) >= 3
    assert [id for id, *_ in exams.WRONG].count(task.id) >= 6
    assert all(id.split(".")[0][4:] in exercise_lessons() for id, *_ in exams.WRONG)
