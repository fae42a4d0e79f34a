"""Records: they come with the package and are found from anywhere; a damaged file costs no more than its damage."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from frame import find_cells

import course_lib
from course_lib.settings import CourseSettings
from course_lib.teach import lesson_cost, read_record, record_result, recorded_file, typical_range, typical_table
from course_lib.teach.pack import lesson_notebook
from course_lib.teach.progress import note_progress, read_progress
from course_lib.teach.results import RECORDED_HERE, read_results

ROOT = Path(__file__).resolve().parents[2]
ROW = {"lesson": "03", "name": "validation error", "unit": "fraction", "dataset": "d", "backbone": "b",
       "profile": "laptop"}


@pytest.fixture(autouse=True)
def nothing_recorded():
    kept, RECORDED_HERE[:] = RECORDED_HERE[:], []
    yield
    RECORDED_HERE[:] = kept


def test_records_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert recorded_file("lighter.jsonl") == Path(course_lib.__file__).parent / "results" / "lighter.jsonl"
    assert read_record("tuned.json")["reported"] and "not been recorded" not in lesson_cost("07")
    assert lesson_cost(7) == lesson_cost("07") and read_record("no-such.json") == read_record(".") == {}


def test_a_lesson_on_another_data_set_says_that_its_text_is_about_the_cells(monkeypatch):
    plain = lesson_cost("06")
    monkeypatch.setenv("COURSE_DATASET", "elpv")
    assert lesson_cost("06") == plain and "solar" not in plain
    monkeypatch.setenv("COURSE_DATASET", "/home/me/birds of my garden")
    said = lesson_cost("06")
    assert said.startswith(plain) and "solar cells; you work on **birds of my garden**" in said


@pytest.mark.slow
def test_the_lessons_read_their_records_from_an_installed_wheel_in_an_empty_folder(tmp_path):
    """As in a pack of `course pack`, opened on a computer without the course's folder."""
    source, built = tmp_path / "source", tmp_path / "built"
    shutil.copytree(ROOT / "course_lib", source / "course_lib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    code = f"from setuptools import build_meta as b; b.build_wheel({str(built)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    [wheel] = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    kept = {f"course_lib/results/{path.name}" for path in recorded_file("").iterdir()
            if path.suffix in (".json", ".jsonl")}  # no lock file of a benchmark that ran here
    assert kept and kept <= set(names)
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    (empty := tmp_path / "empty").mkdir()
    program = "\n".join([
        "import course_lib, matplotlib; matplotlib.use('agg')", f"assert {str(tmp_path)!r} in course_lib.__file__",
        "from course_lib.tuning import *",
        "shown = lambda *found, **options: ''",  # the lesson's table; here the records count
        *find_cells(lesson_notebook("07", ROOT / "nbs"), ["tried", "confirmed"]),
        *find_cells(lesson_notebook("08", ROOT / "nbs"), ["settings", "measured"]),
        "assert len(tried.rows) > 5 and len(confirmed.rows) == 15",
        "assert len(measured('lighter.jsonl').rows) > 5 and measured('layers.jsonl').rows",
        "from course_lib.teach.results import recorded_lessons", "assert recorded_lessons()['lessons']['08']"])
    done = subprocess.run([sys.executable, "-c", program], cwd=empty, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(tmp_path / "site"), "MPLBACKEND": "agg"})
    assert done.returncode == 0, done.stderr[-2000:]


# ---- What is written, and read again

def test_a_figure_names_a_folder_without_its_path_and_a_data_set_as_it_is(tmp_path):
    """A path names a person's folders, and differs from run to run where a lesson makes the folder."""
    (tmp_path / "elsewhere" / "birds in my garden").mkdir(parents=True)
    for given, kept in ((str(tmp_path / "elsewhere" / "birds in my garden"), "birds in my garden"), ("elpv", "elpv")):
        assert record_result(CourseSettings(dataset=given), "11", "error", 0.1)["dataset"] == kept


def test_a_figure_that_is_none_is_refused_by_name():
    for value in (float("nan"), float("inf"), "0.5", None, True, [0.5], 10**400):
        with pytest.raises(ValueError, match="value = .*finite number.*validation error"):
            record_result(CourseSettings(), "03", "validation error", value)


def test_a_row_can_be_read_again_whatever_the_figures_were_kept_in(tmp_path, monkeypatch):
    file = tmp_path / "results.jsonl"
    monkeypatch.setenv("COURSELIB_RESULTS", str(file))
    record_result(CourseSettings(), 3, "validation error", np.float32(0.25), images=np.int64(656), lrs=np.arange(2),
                  file=Path.home() / "photo.png")
    [row] = read_results(file)
    assert (row["lesson"], row["value"], row["details"]) == ("03", 0.25, {"images": 656, "lrs": [0, 1],
                                                                           "file": "photo.png"})
    assert typical_table(3).startswith("| | yours")


@pytest.mark.parametrize("line", ["", "[]", "3", '{"value": 1}', '{"value": NaN, "lesson": "03", "name": "x"}',
                                  '{"value": 1e999, "lesson": "03", "name": "x"}', "\0", "[" * 9999,
                                  '{"value": %s, "lesson": "03", "name": "x"}' % ("9" * 400)])
def test_a_damaged_line_costs_that_line(tmp_path, line):
    file, whole = tmp_path / "results.jsonl", json.dumps({**ROW, "value": 0.5})
    file.write_text(f"\ufeff{whole}\n{line}\n{whole}\n", encoding="utf-8")
    assert [row["value"] for row in read_results(file)] == [0.5, 0.5]
    assert read_results(tmp_path) == []  # a folder in place of the file


def test_only_rows_that_are_whole_are_compared_with():
    kept = [{**ROW, "seed": seed, "value": 0.1 + seed / 100} for seed in range(5)]
    odd = [3, {}, {**ROW, "seed": 9}, {**ROW, "seed": 8, "value": float("nan")}, {**ROW, "seed": 7, "value": "x"}]
    assert typical_range({**ROW, "value": 0.12}, kept + odd) == typical_range({**ROW, "value": 0.12}, kept)
    for value in (None, "x", float("nan")):
        with pytest.raises(ValueError, match="value"):
            typical_range({**ROW, "value": value}, kept)
    assert "Nothing of lesson 03" in typical_table("03", [{"lesson": "03"}, 4], kept)


# ---- Progress

def test_progress_that_an_editor_saved_with_a_mark_in_front_is_whole(tmp_path, capsys):
    path = tmp_path / "progress.jsonl"
    note_progress("03.loop", "hint", path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert [event["id"] for event in read_progress(path)] == ["03.loop"] and not capsys.readouterr().out
    assert [path] == list(tmp_path.iterdir())


def test_a_folder_in_place_of_the_progress_costs_the_progress_and_no_check(tmp_path, capsys):
    path = tmp_path / "progress.jsonl"
    path.mkdir()
    assert read_progress(path) == []
    note_progress("03.loop", "hint", path)
    said = capsys.readouterr().out
    assert said.count("progress") >= 2 and "could not be read" in said and "could not be kept" in said
