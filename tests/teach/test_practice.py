"""Every exercise tells right from wrong, in words; every lesson's exercise cells are made from the one source."""

import ast
import builtins
import dis
import io
import json
import os
import random
import re
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from tqdm import tqdm

import course_lib.teach.sandbox as sandbox
import course_lib.teach.verdict as checker
from course_lib.app.cli import main
from course_lib.teach import check, hint, name_cause, quiz, require, show_lab, solution
from course_lib.teach.compare import difference
from course_lib.teach.exercise import BEGIN, END, function_source, solution_source, stub_function, stub_source
from course_lib.teach.lab import judge_cause
from course_lib.teach.pack import practice_cells, with_practice
from course_lib.teach.practice import (
    exercise_lessons,
    find_exercise,
    find_lab,
    load_exercises,
    load_labs,
    progress_table,
)
from course_lib.teach.progress import PROGRESS_FILE, read_progress
from course_lib.teach.sandbox import can_copy, codes_of, time_limit
from course_lib.teach.verdict import examine, prove_exercise

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
LESSONS = exercise_lessons()
ALL = [exercise.id for lesson in LESSONS for exercise in load_exercises(lesson)]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Progress is written into a folder of the test."""
    monkeypatch.setenv("COURSE_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data" / PROGRESS_FILE


@pytest.mark.usefixtures("known_answers_run_once")
@pytest.mark.parametrize("seed, copied", [(0, True), (3, False)])
@pytest.mark.parametrize("id", ALL)
def test_the_reference_passes_each_mistake_gets_its_own_words_and_the_stub_fails_politely(
        id, seed, copied, monkeypatch):
    """Both ways to run answers: in a copy of the process, and where there is none, in this one."""
    if not copied:
        monkeypatch.setattr(sandbox, "can_copy", lambda: False)
    assert not prove_exercise(find_exercise(id), seed)


@pytest.mark.parametrize("id", ALL)
def test_stub_and_solution_are_python_and_the_stub_holds_no_solution(id):
    exercise = find_exercise(id)
    stub, solved = stub_source(exercise), solution_source(exercise)
    for source in (stub, solved):
        assert ast.parse(source).body[0].name == exercise.answer.__name__
        assert BEGIN not in source and END not in source
    if exercise.wrong_start is None:
        inside = re.findall(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", function_source(exercise.answer), re.S)
        lost = [line.strip() for part in inside for line in part.splitlines() if len(line.strip()) > 12]
        assert inside and not [line for line in lost if line in stub]


@pytest.mark.parametrize("id", ALL)
def test_a_stub_uses_no_name_that_the_lesson_before_it_may_have_given_to_something_else(id):
    function = stub_function(find_exercise(id))
    codes = codes_of(function.__code__)
    loaded = {step.argval for code in codes for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL"}
    assert not {name for name in loaded if name not in function.__globals__ and not hasattr(builtins, name)}


def test_the_head_of_a_function_to_be_mended_stays_below_its_bracket():
    first, second, third = stub_source(find_exercise("04.tidy_sweep")).splitlines()[:3]
    assert second.index("x: ") == third.index("rates") == first.index("(") + 1


@pytest.mark.usefixtures("known_answers_run_once")
@pytest.mark.parametrize("id", ALL)
@pytest.mark.parametrize("wrong", ["raises", "wrong type", "no arguments", "not a function"])
def test_any_answer_gets_a_verdict_in_words(id, wrong):
    answer = {"raises": lambda *a, **k: 1 / 0, "wrong type": lambda *a, **k: object(), "no arguments": lambda: 1,
              "not a function": 3.0}[wrong]
    verdict = examine(find_exercise(id), answer)
    assert not verdict.passed and len(verdict.message) > 20 and "AssertionError" not in str(verdict)
    if wrong == "raises":
        assert "ZeroDivisionError" in str(verdict)


@pytest.mark.parametrize("id", ALL)
def test_a_check_is_quick(id):
    exercise = find_exercise(id)
    examine(exercise, exercise.answer)  # what has to be imported is imported now
    started = time.process_time()
    examine(exercise, exercise.answer)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_has_four_exercises_of_more_than_one_kind_a_lab_and_five_questions(lesson):
    labs = load_labs(lesson)
    exercises = [e for e in load_exercises(lesson) if e.id not in {lab.exercise.id for lab in labs}]
    assert len(exercises) >= 4 and len({e.difficulty for e in exercises}) >= 2 and len(labs) == 1
    assert all(e.id.startswith(f"{lesson}.") and 0 < e.minutes <= 60 for e in exercises)
    assert len(quiz(lesson).questions) == 5
    for question in quiz(lesson).questions:
        assert len(question.choices) >= 3 and 0 <= question.right < len(question.choices)
        assert all(len(says) > 15 for _, says in question.choices)


@pytest.mark.parametrize("lesson", LESSONS)
def test_the_lesson_holds_exactly_the_cells_that_are_made_from_the_one_source(lesson):
    [path] = (ROOT / "nbs").glob(f"{lesson}_*.ipynb")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    made = with_practice(cells, lesson)
    assert ["".join(c["source"]) for c in made] == ["".join(c["source"]) for c in cells], (
        f"{path.name}: run python website/author.py, and commit the notebook")
    text = "".join("".join(cell["source"]) for cell in cells)
    for exercise in load_exercises(lesson):
        for part in re.findall(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", function_source(exercise.answer), re.S):
            assert part.strip() not in text, f"the solution of {exercise.id} stands in the lesson"


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lab_shows_its_bug_and_is_mended_by_the_reference(lesson):
    [lab] = load_labs(lesson)
    broken, mended = (dict(lab.curves(answer)) for answer in (lab.exercise.wrong_start, lab.exercise.answer))
    assert broken.keys() == mended.keys() and all(len(values) >= 3 for values in broken.values())
    assert difference({k: list(v) for k, v in broken.items()}, {k: list(v) for k, v in mended.items()}, 0.01)
    right = [judge_cause(lab, number)[0] for number in (1, 2, 3, 4)]
    assert sum(right) == 1
    axes = show_lab(lab.id, lab.exercise.answer)  # also in the notebook, by its name
    assert len(axes.lines) == 2 * len(broken) and axes.get_ylabel() and axes.get_legend()


def test_an_answer_that_loops_for_ever_is_stopped_even_if_it_swallows_everything():
    def stubborn(*arguments):
        while True:
            try:
                time.sleep(0.001)
            except BaseException:
                pass

    exercise = replace(find_exercise("04.lr_sweep"), seconds=0.3)
    exercise.answer, exercise.mistakes = find_exercise("04.lr_sweep").answer, []
    started = time.perf_counter()
    assert "stopped after 0.3 seconds" in examine(exercise, lambda start, stop, count: stubborn()).message
    assert time.perf_counter() - started < 30
    for _ in range(200):  # and nothing is raised into what comes later
        with time_limit(10):
            pass


def test_an_import_does_not_use_up_the_time_of_an_answer(tmp_path, monkeypatch):
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(0.5)\n")
    monkeypatch.syspath_prepend(tmp_path)

    def answer(start, stop, count):
        import slow_to_import  # noqa: F401
        return [start * (stop / start) ** (k / (count - 1)) for k in range(count)]

    exercise = replace(find_exercise("04.lr_sweep"), seconds=0.3)
    exercise.answer, exercise.mistakes = find_exercise("04.lr_sweep").answer, []
    assert examine(exercise, answer).passed


def test_an_answer_leaves_the_session_as_it_was():
    def careless(start, stop, count):
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        torch.manual_seed(5)
        print("noise")
        return [start * (stop / start) ** (k / (count - 1)) for k in range(count)]

    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    verdict = examine(find_exercise("04.lr_sweep"), careless)
    assert verdict.passed and "It also printed: noise" in str(verdict)
    assert torch.is_grad_enabled() and torch.get_default_dtype() is torch.float32
    assert torch.equal(torch.rand(2), expected)


def test_an_answer_must_not_change_what_it_is_given():
    def emptying(losses, beta):
        result = find_exercise("04.running_mean").answer(list(losses), beta)
        losses.clear()
        return result

    assert "changes one of its arguments" in examine(find_exercise("04.running_mean"), emptying).message


@pytest.mark.parametrize("name, replacement", [("difference", lambda *a: ""), ("_differs", lambda *a: "")])
def test_a_replaced_checker_is_noticed(monkeypatch, name, replacement):
    monkeypatch.setattr(checker, name, replacement)
    verdict = checker.examine(find_exercise("04.lr_sweep"), lambda start, stop, count: 17)
    assert not verdict.passed and "Restart the kernel" in verdict.message


def test_torch_replaced_by_the_answer_is_noticed(monkeypatch):
    monkeypatch.setattr(torch, "isclose", lambda a, b, **options: torch.ones_like(a, dtype=torch.bool))
    verdict = examine(find_exercise("04.lr_sweep"), lambda start, stop, count: [start] * count)
    assert not verdict.passed


def test_an_unknown_exercise_or_lab_names_the_nearest():
    with pytest.raises(ValueError, match="Did you mean '04.lr_sweep'"):
        check("04.lr_swep", lambda: 0)
    with pytest.raises(ValueError, match="Did you mean '04.lr_sweep'"):
        check(" 04.LR_Sweep", lambda: 0)
    with pytest.raises(ValueError, match="'04.lab' is a lab; its function is exercise '04.tidy_sweep'"):
        hint("04.lab")
    with pytest.raises(ValueError, match="choose 1, 2, 3 or 4"):
        name_cause("04.lab", 3.0)
    with pytest.raises(ValueError, match="There are, for example: 01"):
        hint("nonsense")
    with pytest.raises(ValueError, match="no lab '04.lap', only: .*04.lab"):
        name_cause("04.lap", 1)
    with pytest.raises(ValueError, match="choose 1, 2, 3 or 4"):
        name_cause("04.lab", 5)
    with pytest.raises(ValueError, match="hints 1, 2 and 3"):
        hint("04.lr_sweep", 4)
    with pytest.raises(ValueError, match="no exercises for lesson '77'"):
        load_exercises("77")


def test_hints_come_in_their_order_and_progress_remembers(capsys, elsewhere):
    exercise = find_exercise("04.lr_sweep")
    for text in (*exercise.hints, exercise.hints[2]):
        hint(exercise.id)
        assert text in capsys.readouterr().out
    check(exercise.id, lambda start, stop, count: [start] * count)
    check(exercise.id, exercise.mistakes[0].answer)
    solution(exercise.id)
    check(exercise.id, exercise.answer)
    out = capsys.readouterr().out
    assert "not yet" in out and exercise.why[:40] in out and "lr_sweep: right." in out
    did = [event["did"] for event in read_progress(elsewhere)]
    assert did == ["hint"] * 4 + ["failed", "failed", "solution", "passed"]
    assert read_progress(elsewhere)[5]["mistake"] == 0
    assert main(["progress", "04"]) == 0
    table = capsys.readouterr().out
    assert re.search(r"\[x\] 04.lr_sweep .*\(3 tries, 3 hints, solution seen\)", table), table
    assert "1 of" in table


def test_eleven_tries_are_tries():
    events = [{"id": "04.lr_sweep", "did": "failed"}] * 11 + [{"id": "04.running_mean", "did": "failed"}]
    table = progress_table(events, "04")
    assert "(11 tries)" in table and "(1 try)" in table


def test_the_right_cause_of_a_lab_does_not_always_stand_at_the_same_place():
    labs = [find_lab(f"{lesson}.lab") for lesson in LESSONS]
    places = [next(k for k, cause in enumerate(lab.causes) if cause.right) for lab in labs]
    assert set(places) == {0, 1, 2, 3} and max(map(places.count, places)) < len(places) / 2


def test_a_damaged_progress_file_is_kept_aside(capsys, elsewhere):
    check("04.lr_sweep", find_exercise("04.lr_sweep").answer)
    good = elsewhere.read_bytes()
    elsewhere.write_bytes(good + b'\x00\xff{"id": 3}\n[1, 2]\n' + good)
    assert [event["did"] for event in read_progress(elsewhere)] == ["passed", "passed"]
    assert "is kept as progress.damaged-1.jsonl" in capsys.readouterr().out
    assert (elsewhere.parent / "progress.damaged-1.jsonl").read_bytes().startswith(good + b"\x00")
    assert len(read_progress(elsewhere)) == 2 and not capsys.readouterr().out


def test_progress_that_cannot_be_written_costs_the_note_and_not_the_check(capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("COURSE_DATA_DIR", str(tmp_path / "file"))
    check("04.lr_sweep", find_exercise("04.lr_sweep").answer)
    out = capsys.readouterr().out
    assert "right" in out and "could not be kept" in out


def test_grading_raises_with_the_whole_explanation():
    require("04.lr_sweep", find_exercise("04.lr_sweep").answer, seed=5)
    with pytest.raises(AssertionError, match="equal \\*amounts\\*"):
        require("04.lr_sweep", find_exercise("04.lr_sweep").mistakes[0].answer)


@pytest.mark.parametrize("expected, got, words", [
    (1.0, 1.00001, ""), (1.0, 1.01, "1.01 in place of 1"), (float("nan"), float("nan"), ""),
    (float("inf"), 1.0, "1 in place of inf"),
    (1e-6, 1.0001e-6, ""), (1e-6, 2e-6, "2e-06 in place"),
    (torch.ones(3), [1.0, 1.0, 1.0], "of type list in place of Tensor"),
    (torch.ones(2, 3), torch.ones(3, 2), "shape is (3, 2)"), (torch.ones(2), np.ones(2, np.float32), ""),
    ([1, [2, 3]], (1, (2, 4)), "at [1]: at [1]: 4 in place of 3"), ({"a": [1]}, {"a": [1], "b": 2}, "'b' should not"),
    ("cat", "dog", "'dog' in place of 'cat'"), (True, 1, "1 in place of True, of type int"),
    (None, 0.0, "0 in place of None"),
    (np.int64(3), 3, ""), ({1, 2}, {2, 1}, ""),
])
def test_differences_are_said_in_words(expected, got, words):
    found = difference(expected, got)
    assert (words in found) if words else not found, found


def test_models_are_compared_by_their_weights():
    torch.manual_seed(0)
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    assert difference(one, other) and not difference(one, one)


def test_a_lesson_without_the_headings_is_refused():
    with pytest.raises(ValueError, match="'## Recap'"):
        with_practice([{"cell_type": "markdown", "source": ["## Exercises\n"]}], "04")
    kinds = [kind for kind, _ in practice_cells("04", solved=True)]
    assert kinds.count("code") >= 6 and find_lab("04.lab").exercise.id == "04.tidy_sweep"


SWEEP = "04.lr_sweep"


def rates(start, stop, count):
    return [start * (stop / start) ** (k / (count - 1)) for k in range(count)]


@pytest.mark.parametrize("drawn", [0, 1, 3, 20, 49])  # of 50 seeds that nobody knows; not 2, which is seed 3
def test_what_is_learned_from_the_shown_examples_does_not_pass(drawn, monkeypatch):
    monkeypatch.setattr("course_lib.teach.verdict.secrets.randbelow", lambda count: drawn)
    exercise = find_exercise(SWEEP)
    table = {given: exercise.answer(*given) for seed in (0, 3) for given in exercise.examples(seed)}
    assert not examine(exercise, lambda start, stop, count: table.get((start, stop, count), []), 0).passed
    calls = iter([exercise.answer(*given) for given in exercise.examples(0)])
    assert not examine(exercise, lambda start, stop, count: next(calls)).passed


def test_the_second_seed_is_another_one_each_time(monkeypatch):
    """A table of one seed more passes only where chance names that seed: once in 50 times."""
    asked = []
    monkeypatch.setattr("course_lib.teach.verdict.secrets.randbelow", lambda count: asked.append(count) or 2)
    exercise = find_exercise(SWEEP)
    table = {given: exercise.answer(*given) for seed in (0, 3) for given in exercise.examples(seed)}
    assert examine(exercise, lambda start, stop, count: table.get((start, stop, count), []), 0).passed
    assert asked == [50]


def quick(seconds=0.5):
    exercise = replace(find_exercise(SWEEP), seconds=seconds)
    exercise.answer, exercise.mistakes = find_exercise(SWEEP).answer, find_exercise(SWEEP).mistakes
    return exercise


needs_copy = pytest.mark.skipif(not can_copy(), reason="answers run in a copy of the process on Linux without a GPU")


@needs_copy
@pytest.mark.parametrize("what", ["while True: pass", "time.sleep(60)", "sum(range(10**12))"])
def test_an_answer_that_does_not_end_is_stopped_at_its_first_example(what):
    def answer(start, stop, count):
        exec(what, {"time": time})

    started = time.perf_counter()
    verdict = examine(quick(), answer)
    assert "stopped after 0.5 seconds" in verdict.message and "lr_sweep(0.001, 1, 4)" in str(verdict)
    assert time.perf_counter() - started < 10


@needs_copy
def test_an_answer_that_is_stopped_while_it_draws_a_bar_stops_no_bar_to_come():
    def answer(start, stop, count):
        tqdm.get_lock().acquire()  # as each bar does for a moment
        while True:
            pass

    tqdm.get_lock()  # made by the first bar of a session, and shared with copies from then on
    assert "stopped after 0.5 seconds" in examine(quick(), answer).message
    later = threading.Thread(target=lambda: list(tqdm(range(2), file=io.StringIO())), daemon=True)
    later.start()
    later.join(20)
    assert not later.is_alive()


@needs_copy
@pytest.mark.parametrize("what", ["os._exit(0)", "[bytearray(10**9) for _ in range(100)]", "os.kill(os.getpid(), 9)",
                                  "os.kill(os.getpid(), 11)"])
def test_an_answer_cannot_end_the_kernel(what):
    verdict = examine(quick(9), lambda start, stop, count: eval(what, {"os": os}))
    assert not verdict.passed and ("ended Python" in verdict.message or "MemoryError" in verdict.message), verdict


@needs_copy
def test_an_answer_changes_nothing_of_the_session():
    def careless(start, stop, count):
        torch.isclose = torch.allclose = lambda *a, **k: True
        os.environ["COURSE_DATA_DIR"] = "/nowhere"
        torch.set_default_device("meta")
        random.seed(1)
        np.random.seed(1)
        print("x" * 10**6)
        return [0.0] * count

    random.seed(7)
    before = random.getstate(), np.random.get_state()[1].tolist(), os.environ["COURSE_DATA_DIR"]
    verdict = examine(find_exercise(SWEEP), careless)
    assert not verdict.passed and len(verdict.printed) < 5000
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), os.environ["COURSE_DATA_DIR"])
    assert torch.ones(1).device.type == "cpu" and not torch.allclose(torch.ones(1), torch.zeros(1))


class Silent:
    def __repr__(self):
        raise ValueError("nothing to say")

    __eq__ = __len__ = __repr__
    __hash__ = None


def holds_itself():
    endless = []
    endless.append(endless)
    return endless


@pytest.mark.parametrize("make", [
    lambda: 10**400, lambda: [10**400] * 4, lambda: torch.ones(4).to_sparse(), lambda: torch.ones(4, device="meta"),
    lambda: torch.ones(4).to(torch.float8_e4m3fn), holds_itself, Silent, lambda: [Silent()] * 4, lambda: iter("ab"),
    lambda: {1: 2}, lambda: type, lambda: np.array([None] * 4), lambda: nn.Linear(1, 1), lambda: float("nan"),
    lambda: (k for k in "ab"), lambda: b"a",
])
def test_a_result_of_any_type_gets_words(make):
    verdict = examine(find_exercise(SWEEP), lambda start, stop, count: make())
    assert not verdict.passed and len(str(verdict)) > 100 and len(str(verdict).splitlines()) <= 6


def test_a_list_of_numbers_may_be_an_array_or_a_tensor_and_a_number_holds_no_graph():
    for kind in (np.array, torch.tensor, tuple):
        as_kind = lambda start, stop, count, kind=kind: kind(rates(start, stop, count))
        assert examine(find_exercise(SWEEP), as_kind).passed
    graph = torch.ones((), requires_grad=True)
    verdict = examine(find_exercise(SWEEP), lambda start, stop, count: [graph * r for r in rates(start, stop, count)])
    assert not verdict.passed and "`.item()`" in verdict.message


def test_a_forgotten_return_is_told_and_the_stub_is_told_from_it():
    def forgotten(start, stop, count):
        found = rates(start, stop, count)
        found[0] = start

    assert "needs a `return` with the value" in examine(find_exercise(SWEEP), forgotten).message
    assert "does nothing yet" in examine(find_exercise(SWEEP), stub_function(find_exercise(SWEEP))).message

    def nothing_added(losses, beta):
        means = []
        mean = 0.0
        for loss in losses:
            mean = beta * mean + (1 - beta) * loss
        return means

    assert "your lines do not change it" in examine(find_exercise("04.running_mean"), nothing_added).message


@pytest.mark.parametrize("id, call", [
    ("05.head_step", "head_step(_Points, SGD, "), ("04.tidy_sweep", "tidy_sweep(Sequential, AdamW, "),
    ("07.make_training", "make_training([tensor([1., 1.])], 0.1, 2, 0.5)")])
def test_the_call_that_is_shown_is_the_students(id, call):
    assert examine(find_exercise(id), find_exercise(id).mistakes[-1].answer).call.startswith(call)


@pytest.mark.parametrize("id", ALL)
def test_what_is_said_has_at_most_six_lines(id):
    for mistake in find_exercise(id).mistakes:
        assert len(textwrap.wrap(mistake.says, checker.WIDTH)) <= 3, mistake.says


def test_a_mistake_is_recognised_by_what_it_does_on_most_examples():
    from scipy.stats import norm

    def normal(first, second):
        d = [second[s] - first[s] for s in first if s in second]
        reach = norm.ppf(0.975) * np.std(d, ddof=1) / len(d) ** 0.5
        return np.mean(d) - reach, np.mean(d) + reach

    assert "You use 1.96" in examine(find_exercise("07.paired_interval"), normal).message


def test_progress_counts_hints_by_number_and_shows_labs(capsys):
    hint(SWEEP, 3)
    hint(SWEEP, 3)
    hint(SWEEP)
    name_cause("04.lab", 1)
    name_cause("04.lab", 3)
    assert capsys.readouterr().out.count("hint 3 of 3") == 3
    table = progress_table(read_progress(), "4")
    assert table == progress_table(read_progress(), "04") and table.startswith("lesson 04: 0 of")
    assert "(1 hint)" in table and re.search(r"\[x\] 04.lab .*\(2 tries\)", table)
    assert "1 of 1 causes of labs named" in table and quiz("4") is quiz("04")


def test_the_right_choice_of_a_quiz_has_no_favoured_place_or_length():
    questions = [question for lesson in LESSONS for question in quiz(lesson).questions]
    places = [question.right for question in questions]
    assert all(places.count(place) < 0.4 * len(places) for place in range(3))
    sizes = [[len(choice) for choice, _ in question.choices] for question in questions]
    longest, shortest = (sum(size[q.right] == pick(size) for q, size in zip(questions, sizes, strict=True))
                         for pick in (max, min))
    assert longest < 0.4 * len(questions) and shortest < 0.6 * len(questions)


@pytest.mark.parametrize("lesson", LESSONS)
def test_the_legend_of_a_lab_hides_no_curve(lesson):
    [lab] = load_labs(lesson)
    axes = show_lab(lab.id, lab.exercise.answer)
    axes.figure.canvas.draw()
    legend = axes.get_legend().get_window_extent()
    assert not legend.overlaps(axes.bbox) and legend.y0 >= 0


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_shows_what_the_checker_says_today_of_an_unsolved_exercise(lesson):
    """The first line, and the form of the rest; a whole answer is seen when the lesson is recorded."""
    [path] = (ROOT / "nbs").glob(f"{lesson}_*.ipynb")
    saved = ["".join(output["text"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
             for output in cell.get("outputs", []) if output["output_type"] == "stream"]
    shown = {match[1]: text for text in saved if (match := re.match(r"(\d\d\.\w+): not yet", text))}
    assert shown.keys() == {exercise.id for exercise in load_exercises(lesson)}
    for name, text in shown.items():
        lines, [head] = text.splitlines(), str(checker.Verdict(name, False, "")).splitlines()
        assert lines[0] == head and not any(line.startswith(("  expected", "hint(")) for line in lines), text


CHECKED = """
import sys
from course_lib.teach.practice import find_exercise
from course_lib.teach.verdict import examine
exercise = find_exercise("02.conv_parameters")
assert examine(exercise, exercise.answer).passed
print([name for name in ("torch._dynamo", "torch._inductor") if name in sys.modules])
"""


def test_the_first_check_does_not_wait_for_torch_s_compiler():
    """It takes two seconds to load, and no answer needs it."""
    assert subprocess.run([sys.executable, "-c", CHECKED], capture_output=True, text=True).stdout == "[]\n"
