"""Read a curve, predict the number: puzzles can be solved by looking, the first answer counts, scores are right."""

import json
import re

import numpy as np
import pytest

from course_lib.app.cli import main
from course_lib.teach import predict_number, read_curves
from course_lib.teach.curves import FAULTS, LETTERS, clear_runs, draw_puzzle, judge, read_score, recorded_runs, signs
from course_lib.teach.practice import exercise_lessons, load_exercises
from course_lib.teach.predict import FIGURES, Figure, Stated, calibration, find_figures, stated_so_far
from course_lib.teach.progress import note_progress, progress_path, read_progress


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_DATA_DIR", str(tmp_path))


# ---- Curves

def test_nearly_every_recorded_run_shows_its_fault_and_none_that_is_drawn_another():
    clear = clear_runs()
    assert {run.kind for run in recorded_runs()} == set(FAULTS) == set(clear)
    assert all(len(runs) >= 8 and len({run.train for run in runs}) == len(runs) for runs in clear.values())
    for kind, runs in clear.items():
        assert all(signs(run) == [kind] for run in runs)


def test_the_runs_are_recorded_trainings_that_differ_in_more_than_their_fault():
    from course_lib.teach import recorded_file

    rows = [json.loads(line) for line in recorded_file("curves.jsonl").read_text("utf-8").splitlines()]
    assert len({(row["kind"], row["number"]) for row in rows}) == len(rows) >= 9 * 12
    assert len({row["plan"]["seed"] for row in rows}) == len(rows)
    assert {len(row[name]) for row in rows for name in ("train_loss", "valid_loss", "error_rate")} == {16}
    sound = [row["plan"] for row in rows if row["kind"] == "sound"]
    assert not any(plan["wrong"] or plan["leak"] or plan["frozen"] for plan in sound)
    assert all(plan["evaluates"] and plan["shuffles"] for plan in sound)


def test_what_is_said_of_a_run_has_its_own_figures():
    for runs in clear_runs().values():
        for run in runs:
            said = FAULTS[run.kind].why(run)
            numbers = [float(one) for one in re.findall(r"\d\.\d\d", said)]
            own = {round(value, 2) for value in (*run.train, *run.valid, run.guess_loss, run.jump)}
            assert numbers and set(numbers) <= own | {round(value + step, 2) for value in own for step in (-.01, .01)}
    assert len({FAULTS[run.kind].why(run) for runs in clear_runs().values() for run in runs}) > 95


def test_puzzles_are_drawn_by_number_and_are_many():
    puzzles = [draw_puzzle(seed) for seed in range(200)]
    assert puzzles == [draw_puzzle(seed) for seed in range(200)]
    assert len({(one.runs, one.offered) for one in puzzles}) == 200
    drawn = [run.kind for one in puzzles for run in one.runs]
    assert all(drawn.count(kind) > 50 for kind in FAULTS)
    where = [one.offered.index(one.runs[0].kind) for one in puzzles]
    assert all(where.count(k) > 15 for k in range(6))  # no favoured place
    state = np.random.get_state()[1].copy()
    assert read_curves().puzzle != read_curves().puzzle and (np.random.get_state()[1] == state).all()
    for seed in (-1, 1.5, "a", True):
        with pytest.raises(ValueError, match="seed"):
            read_curves(seed)


def test_a_page_without_a_kernel_asks_four_questions_and_tells_why():
    shown = read_curves(3)._repr_mimebundle_()
    assert set(shown) == {"text/html", "text/plain"}
    text = shown["text/html"]
    assert text.count("class='question'") == text.count("<details>") == 4 and text.count("<b>Right.</b>") == 4
    assert text.count("data:image/png;base64,") == 1 and "Run D: training loss" in text
    rights = [int(one) for one in re.findall(r"data-right='(\d)'", text)]
    assert [draw_puzzle(3).offered[k] for k in rights] == [run.kind for run in draw_puzzle(3).runs]


def test_the_first_answer_to_a_puzzle_counts():
    puzzle = draw_puzzle(5)
    right = [run.kind for run in puzzle.runs]
    wrong = [*right[1:], right[0]]
    said = judge(puzzle, wrong)
    assert len(said) == 4 and all("<b>No.</b>" in line and "Here it is: " in line for line in said)
    assert "Not kept" in judge(puzzle, right)[-1]
    judge(draw_puzzle(6), [run.kind for run in draw_puzzle(6).runs])
    assert [event["did"] for event in read_progress()] == ["failed", "passed"]
    assert "4 of 8 runs read rightly at the first try, in 2 puzzles" in read_score(read_progress())
    with pytest.raises(ValueError, match="named = 'x' is not known"):
        judge(puzzle, ["x"] * len(LETTERS))
    twice = [{"id": "curves.1", "did": "passed", "named": [[is_, said]] * 4}  # two notebooks at once
             for is_, said in (("low", "high"), ("low", "low"))]
    assert "0 of 4 runs" in read_score(twice)
    damaged = [{"id": "curves.1", "did": "passed", "named": value} for value in (3, [1, 2, 3, 4], [["a", "b"]] * 4)]
    assert read_score(damaged) == ""


# ---- Predictions

def test_every_figure_is_recorded_and_lies_in_its_range():
    for one in FIGURES:
        assert one.least < one.truth() < one.most, one.id
        assert one.unit != "%" or one.truth() > 1  # an interval below 1 is taken for fractions
    lessons = {f"{number:02}" for number in range(12)}
    assert {one.id[:2] for one in FIGURES} == lessons and all(2 <= len(find_figures(one)) <= 3 for one in lessons)
    taken = {one.id for lesson in exercise_lessons() for one in load_exercises(lesson)}
    assert len({one.id for one in FIGURES}) == len(FIGURES) and not taken & {one.id for one in FIGURES}
    with pytest.raises(LookupError, match="recorded no 'nothing'"):
        Figure("03.x", "t", "t", "nothing").truth()


def test_nobody_betters_the_score_by_saying_something_else_than_what_they_believe():
    """The mean score of many normal figures is smallest for the interval that holds 80 % of them."""
    truths, figure = np.random.default_rng(0).normal(50, 5, 4000), find_figures("03.seeds")[0]

    def mean_score(half: float, middle: float = 50) -> float:
        return float(np.mean([Stated(figure, middle - half, middle + half, 80, truth).score for truth in truths]))

    best = mean_score(1.2816 * 5)
    assert all(best < mean_score(half) for half in (3, 5, 8, 10)) and best < mean_score(6.4, 47) and best < 1


def test_the_first_interval_counts_and_a_second_is_said_not_to(capsys):
    predict_number("03.seeds", 5, 30, 90)
    assert "holds it" in capsys.readouterr().out
    predict_number("03.seeds", 50, 60)
    assert "Not kept" in capsys.readouterr().out
    assert [(one["low"], one["confidence"]) for one in read_progress()] == [(5, 90)]
    predict_number("00.error", 50, 60)
    assert "lies above it" in capsys.readouterr().out
    assert [one.holds for one in stated_so_far(read_progress()).values()] == [True, False]
    note_progress("00.error", "predicted", low=1, high=90, truth=13, confidence=80)  # two notebooks at once
    assert [one.holds for one in stated_so_far(read_progress()).values()] == [True, False]


@pytest.mark.parametrize(("name", "values", "said"), [
    ("03", (1, 2), "03.seeds, 03.state, 03.features"), ("03.seeds", (20, 10), "smaller number first"),
    ("03.seeds", (10, 10), "not a single number"), ("03.seeds", (0.1, 0.2), "10 and 20?"),
    ("03.seeds", (5, None), "high = None"), ("03.seeds", (float("nan"), 3), "low = nan"),
    ("03.seeds", (5, 120), "from 0 to 100"), ("03.features", (0, 9), "low = 0"),
    ("03.seeds", (5, 9, 0.8), "confidence = 0.8"), ("03.sedes", (1, 2), "Did you mean '03.seeds'"),
    ("12", (), "no figure to predict for '12'"), (None, (), "None")])
def test_what_cannot_be_meant_is_refused_and_not_kept(name, values, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        predict_number(name, *values)
    assert read_progress() == []


def test_too_narrow_and_too_wide_are_told_from_chance():
    figure = find_figures("03.seeds")[0]
    hits, misses = Stated(figure, 0, 99, 80, 13), Stated(figure, 20, 30, 80, 13)
    assert "too narrow" in calibration([misses] * 6 + [hits] * 4)
    assert "agrees with what you said" in calibration([misses] * 2 + [hits] * 8)
    assert "too wide" in calibration([hits] * 40) and "Too few to judge" in calibration([misses])


def test_a_page_without_a_kernel_folds_the_figures():
    shown = predict_number("06")._repr_mimebundle_()
    assert set(shown) == {"text/html", "text/plain"}
    for one in find_figures("06"):
        before = shown["text/html"].split(f"id='predict-{one.id.replace('.', '-')}'")[1].split("</details>")[0]
        asked, answer = before.split("<details>")
        assert one.said(one.truth()) in answer and one.said(one.truth()) not in asked


def test_course_progress_shows_both(capsys):
    predict_number("03.seeds", 5, 30)
    judge(draw_puzzle(5), [run.kind for run in draw_puzzle(5).runs])
    note_progress("03.state", "predicted", low="x", high=3, truth=None, confidence=80)  # damaged: passed over
    capsys.readouterr()
    assert main(["progress"]) == 0
    said = capsys.readouterr().out
    assert "predictions: 1 of 34 stated" in said and "[x] 03.seeds" in said and "5 to 30 % at 80 %: holds" in said
    assert "4 of 4 runs read rightly" in said and "exercises solved" in said and str(progress_path()) in said
    assert main(["progress", "0"]) == 0
    said = capsys.readouterr().out
    assert "predictions: 0 of 2 stated" in said and "solved" not in said and "of 80 %, 1 of 1 hold" in said
