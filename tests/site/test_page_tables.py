"""The tables that only pages show."""

import json
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "website"))
from page_tables import format_ratio, lesson_promise, lessons_table, peers_table, start_tables  # noqa: E402


def test_the_promise_is_the_quote_below_the_title(tmp_path, monkeypatch):
    monkeypatch.setattr("course_lib.teach.results.RECORDS", tmp_path)
    quoted = ["# T\n", "\n", "> One\n", "> two."]
    assert lesson_promise({"cells": [{"cell_type": "markdown", "source": quoted}]}) == "One two."
    assert lesson_promise({"cells": []}) == ""
    small = {"cells": [{"cell_type": "markdown", "source": ["# A\n", "\n", "> Why."]}]}
    (tmp_path / "01_a.ipynb").write_text(json.dumps(small), encoding="utf-8")
    assert "| [A](01_a.ipynb) | Why. | not counted yet | not recorded yet |" in lessons_table(tmp_path)
    record = {"lessons": {"01": {"seconds": 96, "reading_minutes": 90}}}
    (tmp_path / "lessons.json").write_text(json.dumps(record), encoding="utf-8")
    assert "| [A](01_a.ipynb) | Why. | about 90 min | 1.6 min |" in lessons_table(tmp_path)
    record["lessons"]["01"]["exercise_minutes"] = 40
    (tmp_path / "lessons.json").write_text(json.dumps(record), encoding="utf-8")
    assert "| Why. | about 90 min, 40 of them exercises | 1.6 min |" in lessons_table(tmp_path)


def test_a_ratio_has_as_many_digits_as_mean_something(tmp_path, monkeypatch):
    assert [format_ratio(ratio) for ratio in (0.861, 1.63, 2.57, 98.6, 1234)] == ["0.86", "1.63", "2.6", "99", "1,234"]
    monkeypatch.setattr("course_lib.teach.results.RECORDS", tmp_path)
    assert peers_table() == "Not measured yet: `make bench`."


def test_what_one_waits_for_is_a_table_each(tmp_path, monkeypatch):
    monkeypatch.setattr("course_lib.teach.results.RECORDS", tmp_path)
    assert start_tables() == []
    record = {
        "command": {"seconds": {"course --help": 0.21}}, "lesson": {"seconds": {"the kernel": 0.96}},
        "lab": {"seconds": 1.5},
        "training": {"first": {"imports": 6.0, "features": 20.0, "all": 26.0}, "again": {"imports": 5.9, "all": 5.9}},
        "installation": {"a student": {"seconds from the network": 52.7, "seconds from the cache": 44.5,
                                       "megabytes": 6118, "largest": {"nvidia": 3196, "torch": 1141, "scipy": 83}}}}
    (tmp_path / "start.json").write_text(json.dumps(record), encoding="utf-8")
    commands, training, installation = start_tables()
    assert commands.splitlines()[2:] == ["| `course --help` | 0.21 |", "| a lesson: the kernel | 0.96 |",
                                         "| `course lab`, until it answers | 1.50 |"]
    assert training.splitlines()[2:] == ["| imports | 6.0 | 5.9 |", "| features | 20.0 | 0.0 |",
                                         "| **until the first step** | **26.0** | **5.9** |"]
    assert "| a student | 53 | 44 | 6,118 | 4,337 |" in installation
