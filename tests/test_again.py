"""The comparison of a lesson's figures with those of a second run."""

import importlib.util
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location(
    "again", Path(__file__).resolve().parents[1] / "benchmarks" / "again.py")
again = importlib.util.module_from_spec(spec)
spec.loader.exec_module(again)


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
