"""Running lessons: what is kept when a cell fails, a kernel dies, or the student stops the run."""

import json
import os
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest

from course_lib.app.cli import main
from course_lib.settings import CourseSettings
from course_lib.teach.results import read_results, record_result
from course_lib.teach.runner import run_course, run_lesson, select_lessons

pytestmark = pytest.mark.slow

PLOT = "import matplotlib.pyplot as plt\nplt.plot([1, 2]);"
RECORD = ("from course_lib.teach.results import record_result\nfrom course_lib.settings import CourseSettings\n"
          "record_result(CourseSettings(), '01', 'validation error', 0.125);")


def write_lesson(folder: Path, name: str, *code: str) -> Path:
    cells = [nbformat.v4.new_markdown_cell(f"# Title of {name}\n\n## A plot")]
    notebook = nbformat.v4.new_notebook(cells=cells + [nbformat.v4.new_code_cell(c) for c in code])
    folder.mkdir(exist_ok=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


@pytest.fixture
def course(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "nbs"


def test_a_run_keeps_copies_results_and_plots(course, tmp_path, capsys):
    write_lesson(course, "01_first", "import os; print(os.environ['COURSE_SEED'])", RECORD, PLOT)
    write_lesson(course, "02_second", "1 / 0", "print('never')")
    write_lesson(course, "07_later", "print('not a core lesson')")
    assert main(["run", "--profile", "test", "--seed", "7"]) == 1  # lesson 02 failed
    text = capsys.readouterr().out
    assert "1 of 2 lessons ran to the end" in text and "12.5 %" in text and "cell 1: ZeroDivisionError" in text
    (run,) = (tmp_path / "runs").iterdir()
    assert str(run / "report.html") in text
    copy = nbformat.read(run / "01_first.ipynb", as_version=4)
    assert copy.cells[1].outputs[0].text == "7\n"
    assert [row["value"] for row in read_results(run / "results.jsonl")] == [0.125]
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in page and "12.5 %" in page and "division by zero" in page
    source = nbformat.read(course / "01_first.ipynb", as_version=4)
    assert all(not c.get("outputs") for c in source.cells)  # the lesson itself is as it was


class Balanced(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.images = [], []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.images.append(dict(attrs))
        elif tag not in ("meta",):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_is_well_formed_and_pictures_have_words(course, tmp_path):
    path = write_lesson(course, "01_<b>odd & name", PLOT)
    lessons, run = run_course(CourseSettings(profile_name="test"), [path], tmp_path / "runs", echo=lambda text: None)
    parser = Balanced()
    parser.feed((run / "report.html").read_text(encoding="utf-8"))
    assert parser.open == [] and [image["alt"] for image in parser.images] == ["A plot"]


@pytest.mark.skipif(os.name == "nt", reason="kills its own kernel with a POSIX signal")
def test_a_dead_kernel_is_explained(course, tmp_path):
    path = write_lesson(course, "01_dead", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    lesson = run_lesson(path, tmp_path)
    assert "kernel died" in lesson.error and "memory" in lesson.error and "profile = test" in lesson.error


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
@pytest.mark.parametrize("wait", [0.1, 0.5, 1.2])
def test_ctrl_c_keeps_what_was_finished(course, tmp_path, wait):
    write_lesson(course, "01_first", RECORD)
    write_lesson(course, "02_slow", "open('started', 'w').close()", "import time; time.sleep(600)")
    process = subprocess.Popen([sys.executable, "-m", "course_lib.app.cli", "run"], cwd=tmp_path, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 90
    while not (course / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(wait)
    process.send_signal(signal.SIGINT)
    text = process.communicate(timeout=60)[0]
    assert process.returncode == 130 and "Traceback" not in text and "1 of 1 lessons" in text
    (run,) = (tmp_path / "runs").iterdir()
    assert "12.5 %" in (run / "report.html").read_text(encoding="utf-8")


def test_results_survive_a_torn_line(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSELIB_RESULTS", str(tmp_path / "r.jsonl"))
    for value in (0.5, 0.25):
        record_result(CourseSettings(), "01", "error", value)
    whole = (tmp_path / "r.jsonl").read_bytes()
    for cut in range(len(whole)):
        (tmp_path / "cut.jsonl").write_bytes(whole[:cut])
        assert [r["value"] for r in read_results(tmp_path / "cut.jsonl")] in ([], [0.5], [0.5, 0.25])


@pytest.mark.parametrize("damage", [
    lambda text: "<<<<<<< HEAD\n" + text, lambda text: "", lambda text: "[]", lambda text: "{}", lambda text: "null",
    lambda text: text[:100], lambda text: '{"cells": 3, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}'])
def test_a_damaged_notebook_does_not_end_the_course(course, tmp_path, damage):
    paths = [write_lesson(course, "01_torn", "1"), write_lesson(course, "02_fine", "1")]
    paths[0].write_text(damage(paths[0].read_text(encoding="utf-8")), encoding="utf-8")
    said = []
    lessons, run = run_course(CourseSettings(profile_name="test"), paths, tmp_path / "runs", echo=said.append)
    assert "cannot be read as a notebook" in lessons[0].error and lessons[1].passed
    assert "1 of 2 lessons" in said[-1] and "cannot be read" in (run / "report.html").read_text(encoding="utf-8")


def test_numbers_of_lessons_may_be_numbers(course):
    lessons = {"03": Path("a"), "04": Path("b")}
    assert select_lessons(lessons, [3]) == select_lessons(lessons, "03") == [Path("a")]


def test_a_run_says_which_results_are_not_as_they_should_be(tmp_path, monkeypatch):
    from course_lib.settings import CourseSettings
    from course_lib.teach.runner import LessonRun, render_report, summarize_run

    row = {"lesson": "03", "name": "validation error", "unit": "fraction", "dataset": "d", "backbone": "b",
           "profile": "laptop"}
    (tmp_path / "normal.jsonl").write_text("".join(
        json.dumps({**row, "seed": seed, "value": 0.14 + seed / 1000}) + "\n" for seed in range(5)), encoding="utf-8")
    monkeypatch.setattr("course_lib.teach.results.RECORDS", tmp_path)
    lesson, rows = [LessonRun("03", "Loops", tmp_path / "03.ipynb")], [{**row, "seed": 9, "value": 0.3}]
    words = summarize_run(lesson, rows, tmp_path)
    assert "30.0 % is worse than it should be" in words and "1. the learning rate" in words
    assert "Outside what is normal: 1 of 1 figures" in words
    two = summarize_run(lesson, [*rows, {**row, "seed": 9, "value": 0.142}], tmp_path)
    assert "Outside what is normal: 1 of 2 figures" in two and two.count("than it should be") == 1
    assert ">worse</span>" in render_report(lesson, rows, CourseSettings(), "A run")
    assert "Outside what is normal" not in summarize_run(lesson, [{**row, "seed": 9, "value": 0.142}], tmp_path)
    other = [{**row, "seed": 9, "value": 0.3, "profile": "full"}]
    assert "Outside what is normal" not in summarize_run(lesson, other, tmp_path)


def test_the_report_does_not_say_whose_computer_it_was(course, tmp_path, monkeypatch):
    (tmp_path / "canary-home").mkdir()
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "canary-home"))
    monkeypatch.setenv("COURSELIB_CANARY", "canary-value")
    fails = "from pathlib import Path\nraise OSError(f'no {Path.home()}/photos')"
    path = write_lesson(course, "01_first", RECORD, fails)
    settings = CourseSettings(dataset=str(tmp_path / "canary-home" / "photos"), profile_name="test")
    [lesson], run = run_course(settings, [path], tmp_path / "runs", echo=lambda text: None)
    assert "canary-home" in lesson.error  # on the screen a path is whole
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "no ~/photos" in page and "canary" not in page
