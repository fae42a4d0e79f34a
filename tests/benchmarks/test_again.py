"""The comparison of a lesson's figures with those of a second run."""

import json
import sys

import again
import pytest

pytestmark = pytest.mark.slow


def rows(unit="fraction", **values):
    return [{"name": name, "value": value, "unit": unit} for name, value in values.items()]


def test_every_digit_counts_but_times_do_not():
    first, second = rows(error=0.1, loss=0.5) + rows("seconds", epoch=3.0), rows(error=0.1, loss=0.5000000001)
    found = again.compare_lesson(first, second + rows("seconds", epoch=4.0), rows(error=0.13))
    assert found["figures"] == 2 and found["same"] == 1 and found["differing"] == {"loss": [0.5, 0.5000000001]}
    assert found["one_thread"] == {"figures": 1, "same": 0, "largest_difference": pytest.approx(0.03), "where": "error"}
    assert again.compare_lesson(first, first, [])["same"] == 2


def test_a_record_of_other_figures_is_refused():
    with pytest.raises(ValueError, match="Other figures.*loss"):
        again.compare_lesson(rows(error=0.1, loss=0.5), rows(error=0.1), [])


def test_only_figures_that_both_have_are_held_against_each_other():
    found = again.distance({"error": 0.1, "loss": 0.5, "kept": 3.0}, {"error": 0.13, "loss": 0.5})
    assert found == {"figures": 2, "same": 1, "largest_difference": pytest.approx(0.03), "where": "error"}
    assert again.distance({"error": 0.1}, {}) == {"figures": 0, "same": 0, "largest_difference": 0.0, "where": ""}


@pytest.mark.parametrize("runs, same, elsewhere", [
    ([0.1], 2, None), ([0.2, 0.2], 2, 1), ([0.2, 0.3], 1, None)])
def test_a_record_of_another_machine_is_told_from_runs_that_differ_here(monkeypatch, runs, same, elsewhere):
    values = list(runs)
    monkeypatch.setattr(again, "run_lesson", lambda *_: rows(error=values.pop(0), loss=0.5))
    found = again.repeat("03", "laptop", 42, rows(error=0.1, loss=0.5), rows(error=0.1))
    assert not values and found["figures"] == 2 and found["same"] == same
    assert found["one_thread"] == {"figures": 1, "same": 1, "largest_difference": 0.0, "where": ""}
    assert found["differing"] == ({} if same == 2 else {"error": [0.2, 0.3]})
    if elsewhere is None:  # runs that differ here say nothing of another machine
        assert "elsewhere" not in found and "here" not in found
    else:
        assert found["elsewhere"]["same"] == 1 and found["elsewhere"]["largest_difference"] == pytest.approx(0.1)
        assert found["here"] == {"error": 0.2, "loss": 0.5}


def test_a_plain_run_stands_beside_the_others_and_replaces_none(monkeypatch, tmp_path):
    record = {"machine": "a machine", "profile": "laptop", "lessons": {
        "03": {"results": [row | {"seed": 42, "lesson": "03"} for row in rows(error=0.1)]}}}
    (tmp_path / "lessons.json").write_text(json.dumps(record), encoding="utf-8")
    (tmp_path / "normal.jsonl").write_text("", encoding="utf-8")
    asked = []

    def run_lesson(number, profile, seed, more=None):
        asked.append((number, profile, seed, bool(more)))
        return rows(error=0.15 if more else 0.1)

    monkeypatch.setattr(again, "RESULTS", tmp_path)
    monkeypatch.setattr(again, "run_lesson", run_lesson)
    for words in ([], ["--plain", "3"], ["3"]):  # the last keeps what the second found
        monkeypatch.setattr(sys, "argv", ["again.py", *words])
        again.main()
    lesson = json.loads((tmp_path / "again.json").read_text(encoding="utf-8"))["lessons"]["03"]
    assert asked == [("03", "laptop", 42, plain) for plain in (False, True, False)]
    assert lesson["same"] == 1 and lesson["plain"]["largest_difference"] == pytest.approx(0.05)
    monkeypatch.setattr(sys, "argv", ["again.py", "17"])
    with pytest.raises(SystemExit, match="no recorded lesson 17. There are: 03"):
        again.main()
