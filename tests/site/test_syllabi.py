"""The syllabi of the page for teachers add up, and fit into the time that they name."""

import re
import sys
from pathlib import Path

import pytest

from course_lib.teach.practice import exam_tasks, load_exercises
from course_lib.teach.results import recorded_lessons

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "website"))

from page_tables import SYLLABI, syllabus_table  # noqa: E402

LESSONS = recorded_lessons()["lessons"]


def rows_of(name):
    """The rows of the table: when, what, and the four columns of minutes; the sum stands last."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in syllabus_table(name).splitlines()[2:]]
    return [(when, what, *map(int, minutes)) for when, what, *minutes in rows[:-1]], [*map(int, rows[-1][2:])]


@pytest.mark.parametrize("name", SYLLABI)
def test_the_minutes_are_those_of_the_lessons_and_add_up(name):
    rows, total = rows_of(name)
    for _, what, reading, doing, other, together in rows:
        assert reading + doing + other == together
        here = re.match(r"lessons? ([\d, ]+)", what)
        lessons = [number.strip().zfill(2) for number in here[1].split(",")] if here else []
        exercises = [exercise for lesson in lessons if lesson != "00" for exercise in load_exercises(lesson)]
        if "all exercises" not in what:
            exercises = [exercise for exercise in exercises if f"`{exercise.id}`" in what]
            assert len(exercises) == what.count("`") / 2
        assert sum(exercise.minutes for exercise in exercises) == doing
        assert sum(LESSONS[one]["reading_minutes"] - LESSONS[one]["exercise_minutes"] for one in lessons) == reading
        found = re.search(r"exam tasks of lessons ([\d, ]+)", what)
        asked = sum(task.minutes for number in found[1].split(",") for task in exam_tasks(number.strip().zfill(2))) \
            if found else 0
        assert other >= asked and (asked > 0) == bool(found)
    assert total == [sum(row[k] for row in rows) for k in (2, 3, 4, 5)]


def test_each_fits_into_its_time():
    day, week, term = (rows_of(name)[0] for name in ("a day", "a week", "twelve weeks"))
    assert sum(row[5] for row in day[:2]) <= 180 and sum(row[5] for row in day[2:]) <= 180
    assert len(week) == 5 and all(row[5] <= 300 for row in week)
    assert len(term) == 12 and all(row[2] + row[4] <= 90 and row[3] <= 90 for row in term)


def test_six_lessons_do_not_fit_into_a_day():
    """So the page does not promise it."""
    assert sum(LESSONS[f"0{k}"]["reading_minutes"] for k in range(1, 7)) > 2 * 300
