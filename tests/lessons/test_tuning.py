"""Experiments that can be stopped, shared and trusted; searches that lose nothing."""

import functools
import json
import math
import os
import pickle
import signal
import sqlite3
import statistics
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course_lib.core.files import LockedError
from course_lib.learner import Learner
from course_lib.tuning import (
    choice,
    compare,
    experiment_table,
    grid,
    plot_curves,
    plot_experiment,
    plot_history,
    plot_importances,
    read_trials,
    run_experiment,
    run_trial,
    search,
    seeds_needed,
    summarize,
    uniform,
)
from course_lib.tuning.trials import data_digest


def toy(lr: float = 0.1, size: int = 1, *, seed: int) -> dict:
    return {"error": lr + size / 10 + seed / 100}


def batches(count: int = 4) -> list:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(8, 5, generator=generator), torch.randint(3, (8,), generator=generator)) for _ in range(count)]


def small_learner(epochs: int, callbacks=(), lr: float = 0.1) -> Learner:
    torch.manual_seed(0)
    learner = Learner(nn.Linear(5, 3), batches(), batches(2), lr=lr, progress=False, make_optimizer=torch.optim.SGD)
    if epochs:
        learner.fit(epochs, callbacks=callbacks)
    return learner


# ---- grids and configurations

def test_grid_is_every_combination():
    assert grid(a=[1, 2], b=["x", None]) == [{"a": 1, "b": "x"}, {"a": 1, "b": None}, {"a": 2, "b": "x"},
                                             {"a": 2, "b": None}]
    assert len(grid(a=range(3), b=range(4), c=range(5))) == 60


@pytest.mark.parametrize("action, words", [
    (lambda: grid(), "empty"), (lambda: grid(lr=[]), "no value"), (lambda: grid(lr=0.1), r"lr=\[0.1\]"),
    (lambda: grid(name="adam"), r"name=\['adam'\]"), (lambda: run_experiment(toy, []), "no configuration"),
    (lambda: run_experiment(toy, grid(szie=[1])), "Did you mean 'size'"),
    (lambda: run_experiment(toy, grid(seed=[1])), "no option 'seed'"),
    (lambda: run_experiment(toy, grid(lr=[nn.Linear])), "cannot be written"),
    (lambda: run_experiment(toy, grid(lr=[math.nan])), "cannot be written"),
    (lambda: run_experiment(lambda lr: {"e": lr}, grid(lr=[1])), "named seed"),
    (lambda: run_experiment(lambda lr, *, seed: {"e": lr}, [{}]), "no default for lr"),
    (lambda: run_experiment(toy, [{}], seeds=()), "whole numbers"),
    (lambda: run_experiment(toy, [{}], seeds=(1.5,)), "whole numbers")])
def test_bad_input_is_refused_before_anything_runs(action, words):
    with pytest.raises((ValueError, TypeError), match=words):
        action()


def test_defaults_belong_to_the_configuration(tmp_path):
    path = tmp_path / "r.jsonl"
    run_experiment(toy, [{"lr": 0.5}], seeds=(1,), path=path)
    (row,) = read_trials(path)
    assert row["config"] == {"lr": 0.5, "size": 1}

    def toy_with_other_default(lr: float = 0.1, size: int = 2, *, seed: int) -> dict:
        return toy(lr, size, seed=seed)
    run_experiment(toy_with_other_default, [{"lr": 0.5}], seeds=(1,), path=path)
    assert [r["config"]["size"] for r in read_trials(path)] == [1, 2]  # a changed default is another configuration


def test_a_trial_sees_the_same_options_on_any_day(tmp_path):
    """A tuple, or NumPy's numbers, come back from a file as a list and Python's numbers: so they start as these."""
    seen, path = [], tmp_path / "r.jsonl"

    def trial(sizes, lr, *, seed):
        seen.append((sizes, lr))
        return {"error": lr}
    configs = grid(sizes=[(3, 4)], lr=np.array([0.5, 0.25], dtype=np.float32))
    today = run_experiment(trial, configs, seeds=(1,), path=path)
    tomorrow = run_experiment(trial, configs, seeds=(1,), path=path)
    assert seen == [([3, 4], 0.5), ([3, 4], 0.25)] and all(type(lr) is float for _, lr in seen)
    for found in (today, tomorrow):
        assert found.values("error", sizes=(3, 4), lr=np.float32(0.25)) == {1: 0.25}


@pytest.mark.parametrize("seeds", [(), (-1,), (2**32,), (1.5,), (True,), ([1, 2],), ("a",)])
def test_seeds_that_are_none(seeds):
    with pytest.raises(ValueError, match="whole numbers from 0"):
        run_experiment(toy, [{}], seeds=seeds)


def test_what_a_slip_of_the_hand_gives(tmp_path):
    assert [row["seed"] for row in run_experiment(toy, [{}], seeds=np.arange(2)).rows] == [0, 1]
    assert len(run_experiment(toy, {"lr": 0.5}, seeds=(1,)).rows) == 1  # the brackets forgotten
    with pytest.raises(TypeError, match="a dict of options"):
        run_experiment(toy, ["lr"])
    with pytest.raises(ValueError, match="is a folder"):
        run_experiment(toy, [{}], path=tmp_path)
    with pytest.raises(ValueError, match="is a folder"):
        search(bowl, {"x": uniform(0.0, 1.0)}, path=tmp_path, value="error")
    named = run_experiment(lambda name, *, seed: {"error": len(name)}, grid(name=["a", "bc"]), seeds=(1,))
    assert named.values("error", name="bc") == {1: 2.0}
    mixed = run_experiment(lambda x, *, seed: {"error": 1.0 if x is True else 2.0}, grid(x=[1, True]), seeds=(1,))
    assert mixed.values("error", x=True) == {1: 1.0} and mixed.values("error", x=1) == {1: 2.0}
    uneven = run_experiment(lambda *, seed: {"error": 1.0} if seed else {"loss": 1.0}, [{}], seeds=(1, 0))
    with pytest.raises(ValueError, match="Some trials have no value 'error'.*loss"):
        experiment_table(uneven, "error")


@pytest.mark.slow
def test_failures_are_told():
    def trial(lr, *, seed):
        if lr > 1:
            raise KeyError("typo")
        return {"error": lr}
    found = run_experiment(trial, grid(lr=[1, 2]), seeds=(1, 2))
    for text in (repr(found), experiment_table(found, "error")):
        assert "2 failed, the first with KeyError: 'typo'" in text and "retry_failed=True" in text
    fine = run_experiment(trial, grid(lr=[1]), seeds=(1, 2))
    assert "failed" not in repr(fine) + experiment_table(fine, "error")


@pytest.mark.parametrize("number", [np.float32(0.25), np.float64(0.25), np.array(0.25), torch.tensor(0.25), 0.25])
def test_a_value_may_be_any_number(number):
    row = run_trial(lambda *, seed: {"error": number, "name": "x", "right": np.bool_(True), "all": np.ones(3)}, {}, 1)
    assert row["status"] == "done" and row["values"] == {"error": 0.25} and type(row["values"]["error"]) is float
    json.dumps(row)


# ---- what is kept

def test_nothing_runs_twice_and_the_order_is_as_asked(tmp_path):
    calls = []

    def trial(lr, *, seed):
        calls.append((lr, seed))
        return {"error": lr * seed}
    path = tmp_path / "deep" / "r.jsonl"
    first = run_experiment(trial, grid(lr=[1, 2]), seeds=(1, 2), path=path)
    again = run_experiment(trial, grid(lr=[2, 1, 3]), seeds=(2, 1), path=path)
    assert sorted(calls) == [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)]
    assert [r["values"]["error"] for r in first.rows] == [1, 2, 2, 4]
    assert [(r["config"]["lr"], r["seed"]) for r in again.rows] == [(2, 2), (2, 1), (1, 2), (1, 1), (3, 2), (3, 1)]
    assert not list((tmp_path / "deep" / "r.jsonl.running").iterdir())


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, 400), noise=st.binary(max_size=6))
def test_a_file_cut_anywhere_loses_at_most_the_cut_line(tmp_path_factory, cut, noise):
    path = tmp_path_factory.mktemp("cut") / "r.jsonl"
    run_experiment(toy, grid(lr=[1.0, 2.0]), seeds=(1, 2), path=path)
    whole_file = path.read_bytes()
    path.write_bytes(whole_file[:max(0, len(whole_file) - cut)] + noise)
    kept = read_trials(path)
    complete = whole_file[:max(0, len(whole_file) - cut)].count(b"\n")
    assert len(kept) >= complete - (1 if noise else 0)
    found = run_experiment(toy, grid(lr=[1.0, 2.0]), seeds=(1, 2), path=path)
    assert [row["values"] for row in found.rows] == [toy(lr, seed=s) for lr in (1.0, 2.0) for s in (1, 2)]
    assert len(read_trials(path)) == 4


@pytest.mark.slow
def test_a_failure_is_a_row_and_the_rest_goes_on(tmp_path):
    broken = [True]

    def trial(kind, *, seed):
        if kind == "raises" and broken[0]:
            raise RuntimeError("the disk is\nfull")
        if kind == "memory":
            raise MemoryError
        if kind == "nan":
            return {"error": math.nan}
        return {"error": 0.5} if kind != "nothing" else None
    kinds = ["raises", "memory", "nan", "nothing", "fine"]
    found = run_experiment(trial, grid(kind=kinds), seeds=(1, 2), path=tmp_path / "r.jsonl")
    errors = {row["config"]["kind"]: row["error"] for row in found.rows}
    assert errors["raises"] == "RuntimeError: the disk is" and "out of memory" in errors["memory"]
    assert "error came out as no finite number" in errors["nan"] and "not NoneType" in errors["nothing"]
    assert [s.failed for s in summarize(found, "error")] == [2, 2, 2, 2, 0] and "8 failed" in repr(found)
    table = experiment_table(found, "error")
    assert table.count("none finished") == 4 and "2 failed" in table
    broken[0] = False
    again = run_experiment(trial, grid(kind=kinds), seeds=(1, 2), path=tmp_path / "r.jsonl")
    assert again.rows[0]["status"] == "failed"
    mended = run_experiment(trial, grid(kind=kinds), seeds=(1, 2), path=tmp_path / "r.jsonl", retry_failed=True)
    assert [row["status"] for row in mended.rows][:3] == ["done", "done", "failed"]


def test_a_trial_starts_at_its_seed_and_disturbs_nobody():
    def draws(*, seed):
        return {"value": torch.rand(()).item()}
    torch.manual_seed(9)
    before = torch.get_rng_state()
    first, second, other = (run_trial(draws, {}, seed)["values"]["value"] for seed in (1, 1, 2))
    assert first == second != other and torch.equal(torch.get_rng_state(), before)


def test_a_learner_gives_values_and_curves():
    row = run_trial(lambda *, seed: small_learner(3), {}, 1)
    assert len(row["curves"]) == 3 and row["values"]["valid_loss"] == row["curves"][-1]["valid_loss"]
    assert "never trained" in run_trial(lambda *, seed: small_learner(0), {}, 1)["error"]


WORKER = """
import sys, time
from course_lib.tuning import *
def trial(lr, *, seed):
    with open(sys.argv[2], "a") as file:
        file.write(f"{lr} {seed}\\n")
    time.sleep(0.05)
    return {"error": lr + seed}
def drawn(x, *, seed):
    with open(sys.argv[2], "a") as file:
        file.write(f"{x}\\n")
    time.sleep(float(sys.argv[4]) if len(sys.argv) > 4 else 0.05)
    return {"error": (x - 0.3) ** 2}
if sys.argv[3] == "grid":
    found = run_experiment(trial, grid(lr=list(range(6))), seeds=(1, 2, 3), path=sys.argv[1])
    assert len(found.rows) == 18
else:
    study = search(drawn, {"x": uniform(0.0, 1.0)}, path=sys.argv[1], trials=16, value="error", sampler=sys.argv[3])
    assert sum(t.state.is_finished() and "error" not in t.user_attrs for t in study.trials) >= 16
"""


def start(tmp_path, *arguments) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", WORKER, *map(str, arguments)], cwd=tmp_path, text=True,
                            stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.mark.slow
@pytest.mark.parametrize("kind, count", [("grid", 18), ("random", 16), ("tpe", 16)])
def test_four_processes_lose_and_repeat_no_trial(tmp_path, kind, count):
    path, calls = tmp_path / f"r-{kind}", tmp_path / "calls"
    processes = [start(tmp_path, path, calls, kind) for _ in range(4)]
    for process in processes:
        said = process.communicate(timeout=240)[1]
        assert process.returncode == 0, said
    lines = calls.read_text().splitlines()
    assert len(lines) == count and len(set(lines)) == count


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="kills with a POSIX signal")
def test_the_trial_of_a_killed_process_is_taken_over(tmp_path):
    path, calls = tmp_path / "r.sqlite", tmp_path / "calls"
    process = start(tmp_path, path, calls, "random", 600)
    deadline = time.monotonic() + 90
    while not calls.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    second = start(tmp_path, path, calls, "random", 0)
    said = second.communicate(timeout=240)[1]
    assert second.returncode == 0, said
    lines = calls.read_text().splitlines()
    assert len(lines) == 17 and len(set(lines)) == 16 and lines[0] in lines[1:]  # its parameters were tried again


# ---- tables, comparisons, plots

def test_table_and_summary_by_hand():
    found = run_experiment(toy, grid(lr=[0.1, 0.3]), seeds=(1, 2, 3))
    (first, second) = summarize(found, "error")
    errors = [toy(0.1, seed=s)["error"] for s in (1, 2, 3)]
    assert first.options == {"lr": 0.1} and first.finished == 3
    assert (first.mean, first.std) == pytest.approx((statistics.fmean(errors), statistics.stdev(errors)))
    table = experiment_table(found, "error", reported=["a", "b"]).splitlines()
    assert table[0] == "| lr | error | seeds | a trial takes | reported |"
    assert "**22.0 ± 1.0 %**" in table[2] and table[3].startswith("| 0.3 | 42.0 ± 1.0 % | 3 |")
    assert table[3].endswith("| b |")
    assert "**42.0" in experiment_table(found, "error", highest=True)
    equal = run_experiment(lambda lr, *, seed: {"error": 0.1}, grid(lr=[1, 2]), seeds=(1,))
    assert "**" not in experiment_table(equal, "error")  # no best where all are equal
    assert "| 10.0 % | 1 |" in experiment_table(equal, "error")  # a single trial has no spread
    assert "| 0.1 s | 1 |" in experiment_table(equal, "error", unit="s")
    for action, words in ((lambda: experiment_table(found, "loss"), "They have: error"),
                          (lambda: experiment_table(found, "error", reported=["a"]), "1 entries for 2"),
                          (lambda: found.values("error", lr=7), "No trial"),
                          (lambda: found.values("error"), "Several configurations")):
        with pytest.raises(ValueError, match=words):
            action()


def test_seeds_that_all_agree_say_nothing_of_others():
    """A spread of zero would make any difference clear; with a few seeds it is luck."""
    found = compare({1: 0.3, 2: 0.2, 3: 0.1}, {1: 0.28, 2: 0.18, 3: 0.08})
    assert not found.clear
    assert found.in_words() == "-2.0 points of error with each of 3 seeds, which cannot say how much that varies"
    assert not compare({1: 0.3, 2: 0.2}, {1: 0.3, 2: 0.2}).clear
    single = torch.tensor([10, 10, 9, 9, 9, 8]).float().div(74).tolist()  # errors in float32, one photo less each time
    assert not compare(dict(enumerate(single[:3])), dict(enumerate(single[3:]))).clear


def test_comparison_equals_scipy():
    from scipy.stats import ttest_rel

    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, 7, generator=generator, dtype=torch.double).tolist()
    found = compare(dict(enumerate(first)), dict(enumerate(second)), held_out=0)
    interval = ttest_rel(second, first).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.in_words().startswith("cannot tell: ")
    clear = compare({1: 0.2, 2: 0.3, 3: 0.1}, {1: 0.1, 2: 0.21, 3: 0.02, 4: 9.0})
    small = compare({1: 0.002, 2: 0.003, 3: 0.001}, {1: 0.0021, 2: 0.0031, 3: 0.00111})
    assert small.clear and "0.010 points higher" in small.in_words()  # not 0.0
    assert clear.pairs == 3 and clear.clear and "9.0 points lower error" in clear.in_words()


def test_the_interval_holds_the_truth_as_often_as_it_says():
    generator = torch.Generator().manual_seed(1)
    held = 0
    for _ in range(300):
        noise = 0.3 + torch.randn(4, generator=generator, dtype=torch.double)
        found = compare(dict.fromkeys(range(4), 0.0), dict(enumerate(noise.tolist())), held_out=0)
        held += found.low <= 0.3 <= found.high
    assert 0.90 <= held / 300 <= 0.99


@pytest.mark.parametrize("seeds, wider", [(3, 1.414), (5, 1.633)])  # Nadeau and Bengio 2003, a quarter held out
def test_the_interval_is_corrected_for_images_that_are_used_again(seeds, wider):
    values = dict.fromkeys(range(seeds), 0.0), {seed: 0.1 + 0.01 * seed**2 for seed in range(seeds)}
    plain, corrected = (compare(*values, held_out=share) for share in (0, 0.25))
    assert corrected == compare(*values) and corrected.difference == plain.difference
    assert (corrected.high - corrected.low) / (plain.high - plain.low) == pytest.approx(wider, abs=1e-3)
    for share in (-0.1, 1, "a quarter"):
        with pytest.raises((ValueError, TypeError), match="held_out"):
            compare(*values, held_out=share)


def test_the_corrected_interval_holds_the_truth_of_overlapping_draws():
    """Two classifiers of 400 images; each seed measures on a quarter: the plain interval is too narrow, ours is not."""
    generator, held = torch.Generator().manual_seed(2), {0: 0, 0.25: 0}
    for _ in range(300):
        first, second = (torch.rand(2, 400, generator=generator) < torch.tensor([[0.3], [0.2]])).double()
        draws = [torch.randperm(400, generator=generator)[:100] for _ in range(5)]
        values = [{seed: one[draw].mean().item() for seed, draw in enumerate(draws)} for one in (first, second)]
        for share in held:
            found = compare(*values, held_out=share)
            held[share] += found.low <= -0.1 <= found.high
    assert held[0] / 300 < 0.93 < held[0.25] / 300


def test_no_difference_that_matters_needs_the_whole_interval_inside_the_margin():
    noise = [0.001, -0.002, 0.0015, -0.0005]
    found = compare(dict.fromkeys(range(4), 0.2), dict(enumerate(0.2 + one for one in noise)))
    reach = max(abs(found.low), abs(found.high))
    assert not found.clear and found.within(reach + 1e-9) and not found.within(reach - 1e-9)
    clear = compare(dict.fromkeys(range(4), 0.2), dict(enumerate(0.22 + one for one in noise)))
    assert clear.clear and not clear.within(0.01) and clear.within(0.1)  # real, but smaller than what would matter
    assert not compare({1: 0.3, 2: 0.2}, {1: 0.3, 2: 0.2}).within(0.5)  # all agree: that says nothing
    for margin in (0, -0.01, math.nan, "one point"):
        with pytest.raises((ValueError, TypeError), match="margin"):
            found.within(margin)


def test_seeds_needed_find_the_difference_as_often_as_they_say():
    count = seeds_needed(0.01, 0.01, held_out=0)
    generator, clear = torch.Generator().manual_seed(3), 0
    for _ in range(400):
        noise = 0.01 + 0.01 * torch.randn(count, generator=generator, dtype=torch.double)
        clear += compare(dict.fromkeys(range(count), 0.0), dict(enumerate(noise.tolist())), held_out=0).clear
    assert 0.74 <= clear / 400 <= 0.88
    fewer = seeds_needed(0.01, 0.01, held_out=0, power=0.5)
    assert fewer < count < seeds_needed(0.01, 0.01, held_out=0, power=0.9)


def test_seeds_needed_know_that_more_seeds_are_not_more_images():
    assert seeds_needed(0.01, 0.02, held_out=0) < seeds_needed(0.01, 0.02) < 1000
    assert seeds_needed(0.01, 0.016) is None and seeds_needed(0.01, 0.016, held_out=0) < 10  # 1.62 std is the limit
    assert seeds_needed(0.0, 0.01) == 2
    for arguments, name in (((-1, 1), "std"), ((1, 0), "difference"), ((math.nan, 1), "std")):
        with pytest.raises(ValueError, match=name):
            seeds_needed(*arguments)
    for options, name in (({"held_out": 1}, "held_out"), ({"power": 1}, "power"), ({"power": 0.3}, "power")):
        with pytest.raises(ValueError, match=name):
            seeds_needed(0.01, 0.01, **options)


def test_plots_have_what_they_show():
    import matplotlib.pyplot as plt

    found = run_experiment(toy, grid(lr=[0.001, 0.1], size=[1, 2]), seeds=(1, 2))
    ax = plot_experiment(found, "error", x="lr", by="size")
    assert ax.get_xscale() == "log" and ax.get_ylabel() == "error (%)" and len(ax.containers) == 2
    assert len({bar.lines[0].get_marker() for bar in ax.containers}) == 2  # not by colour alone
    pale = [line for line in ax.lines if line.get_alpha()]
    assert sorted(y for line in pale for y in line.get_ydata()) == pytest.approx(
        sorted(100 * row["values"]["error"] for row in found.rows))  # each seed is there
    with pytest.raises(ValueError, match="size varied too"):
        plot_experiment(found, "error", x="lr")
    with pytest.raises(ValueError, match="no option"):
        plot_experiment(found, "error", x="rate")
    trained = run_experiment(lambda *, seed: small_learner(3), [{}], seeds=(1, 2))
    means, stds = trained.curve("valid_loss")
    assert len(means) == 3 and stds == [0.0] * 3  # nothing in the toy is random
    assert len(plot_curves(trained, ["train_loss", "valid_loss"]).lines) == 2
    with pytest.raises(ValueError, match="Curves: "):
        trained.curve("accuracy")
    plt.close("all")


# ---- search

def bowl(x: float = 0.0, kind: str = "a", *, seed: int) -> dict:
    return {"error": (x - 0.3) ** 2 + (0.1 if kind == "a" else 0.0)}


@pytest.mark.slow
def test_search_finds_resumes_and_starts_no_trial_again(tmp_path):
    space, calls = {"x": uniform(-2.0, 2.0), "kind": choice("a", "b")}, []

    def counted(x, kind, *, seed):
        calls.append((x, kind))
        return bowl(x, kind, seed=seed)
    study = search(counted, space, path=tmp_path / "s.sqlite", trials=20, value="error")
    assert len(calls) == 20 and study.best_value < 0.3
    again = search(counted, space, path=tmp_path / "s.sqlite", trials=20, value="error")
    assert len(calls) == 20 and again.best_params == study.best_params
    assert len(search(counted, space, path=tmp_path / "s.sqlite", trials=22, value="error").trials) == 22
    with pytest.raises(ValueError, match="its space was different"):
        search(counted, {**space, "x": uniform(0.0, 1.0)}, path=tmp_path / "s.sqlite", value="error")


@pytest.mark.slow
def test_same_seed_same_random_draws_and_no_configuration_runs_twice(tmp_path):
    runs = [search(bowl, {"x": uniform(0.0, 1.0)}, path=tmp_path / f"{i}.sqlite", trials=5, sampler="random",
                   value="error", seed=seed) for i, seed in enumerate((1, 1, 2))]
    drawn = [[t.params["x"] for t in study.trials] for study in runs]
    assert drawn[0] == drawn[1] != drawn[2] and len(set(drawn[0])) == 5
    calls = []

    def counted(kind, *, seed):
        calls.append(kind)
        return {"error": 0.5}
    search(counted, {"kind": choice("a", "b")}, path=tmp_path / "k.sqlite", trials=8, value="error")
    assert sorted(calls) == ["a", "b"]


@pytest.mark.slow
def test_failures_and_ctrl_c_in_a_search(tmp_path):
    calls = []

    def trial(x, *, seed):
        calls.append(x)
        if len(calls) == 2:
            raise MemoryError
        if len(calls) == 4:
            raise KeyboardInterrupt
        return {"error": x}
    space = {"x": uniform(0.0, 1.0)}
    with pytest.raises(KeyboardInterrupt):
        search(trial, space, path=tmp_path / "s.sqlite", trials=6, value="error", sampler="random")
    study = search(trial, space, path=tmp_path / "s.sqlite", trials=6, value="error", sampler="random")
    assert [t.user_attrs.get("error", "")[:13] for t in study.trials].count("out of memory") == 1
    assert sum(t.state.name == "COMPLETE" for t in study.trials) == 5 and calls[3] in calls[4:]
    with pytest.raises(RuntimeError, match="All 2 trials failed, the last with there is no value 'accuracy'"):
        search(trial, space, path=tmp_path / "w.sqlite", trials=2, value="accuracy")


@pytest.mark.slow
def test_bad_trials_are_given_up_early(tmp_path):
    epochs = []

    def trial(lr, *, seed, callbacks=()):
        learner = small_learner(0, lr=lr)
        try:
            learner.fit(6, callbacks=callbacks)
        finally:
            epochs.append(learner.epoch)
        return learner
    space = {"lr": uniform(1e-6, 1.0, log=True)}
    study = search(trial, space, path=tmp_path / "s.sqlite", trials=16, value="valid_loss", sampler="random")
    pruned = [t for t in study.trials if t.state.name == "PRUNED"]
    assert pruned and len(epochs) == 16 and sum(e < 6 for e in epochs) == len(pruned)
    everything = search(trial, space, path=tmp_path / "n.sqlite", trials=8, value="valid_loss", prune=False)
    assert all(t.state.name == "COMPLETE" for t in everything.trials)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a?b", "50% off", "a#b", "{x}", "%20", "ä b"])
def test_a_search_in_a_folder_of_any_name(tmp_path, name):
    """A storage's address is a URL, in which these signs mean something else."""
    path = tmp_path / name / "s.sqlite"
    path.parent.mkdir()
    for trials in (1, 2):  # the second call finds what the first one wrote
        study = search(bowl, {"x": uniform(0.0, 1.0)}, path=path, trials=trials, value="error")
        assert len(study.trials) == trials and len(pickle.loads(pickle.dumps(study)).trials) == trials
    assert path.is_file() and [folder.name for folder in tmp_path.iterdir()] == [name]


def test_numbers_that_are_no_range():
    assert uniform(1e1, 1e3, integer=True, log=True).high == 1000
    for low, high, options, message in ((0.5, 3, {"integer": True}, "low = 0.5 must be a whole number"), (
            2, 1, {}, "high = 1 must be a finite number of at least 2"), (0, 1, {"log": True}, "low = 0 .*above 0"), (
            0, float("nan"), {}, "high"), ("0", 1, {}, "low = '0'")):
        with pytest.raises(ValueError, match=message):
            uniform(low, high, **options)


def test_a_locked_storage_and_a_file_that_is_none(tmp_path):
    path, space = tmp_path / "s.sqlite", {"x": uniform(0.0, 1.0)}
    search(bowl, space, path=path, trials=1, value="error")
    with sqlite3.connect(path) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LockedError, match="finished trials are kept"):
            search(bowl, space, path=path, trials=2, value="error", wait=0.3)
        other.rollback()
    assert len(search(bowl, space, path=path, trials=2, value="error").trials) == 2
    (tmp_path / "no.sqlite").write_text("this is a diary " * 100)
    with pytest.raises(ValueError, match="no storage of a search"):
        search(bowl, space, path=tmp_path / "no.sqlite", value="error")


def test_a_storage_holds_one_search(tmp_path):
    path, space = tmp_path / "s.sqlite", {"x": uniform(0.0, 1.0)}
    search(bowl, space, path=path, trials=2, value="error", seed=3)
    for options, words in (({"value": "error", "highest": True, "seed": 3}, "highest"),
                           ({"value": "other", "seed": 3}, "value"), ({"value": "error", "seed": 4}, "seed")):
        with pytest.raises(ValueError, match=f"its {words} was different"):
            search(bowl, space, path=path, trials=3, **options)
    renamed = path.rename(tmp_path / "other.sqlite")
    assert len(search(bowl, space, path=renamed, trials=3, value="error", seed=3).trials) == 3  # not two and three


@pytest.mark.parametrize("seed", [0, 20240101, 2**32 - 1])
def test_a_search_takes_any_seed(tmp_path, seed):
    assert search(bowl, {"x": uniform(0, 1)}, path=tmp_path / "s.sqlite", trials=1, value="error", seed=seed).best_value


@pytest.mark.slow
def test_a_search_in_which_everything_fails_says_why(tmp_path):
    def broken(x, *, seed):
        raise KeyError("typo")
    with pytest.raises(RuntimeError, match="All 2 trials failed.*typo.*delete"):
        search(broken, {"x": uniform(0.0, 1.0)}, path=tmp_path / "s.sqlite", trials=2, value="error")


@pytest.mark.parametrize("values", [(), ([1, 2],), ((1, 2), (3, 4)), (np.int64(3),), (torch.optim.SGD,)])
def test_choices_are_plain_values(values):
    with pytest.raises(TypeError, match="choice takes text, numbers"):
        choice(*values)


def test_a_lock_that_nobody_lets_go_of(tmp_path):
    path = tmp_path / "s.sqlite"
    with FileLock(f"{path}.lock"):
        with pytest.raises(LockedError, match="End the process"):
            search(bowl, {"x": uniform(0.0, 1.0)}, path=path, trials=1, value="error", wait=0.2)
    assert len(search(bowl, {"x": uniform(0.0, 1.0)}, path=path, trials=1, value="error").trials) == 1


@pytest.mark.parametrize("action, words", [
    (lambda path: search(bowl, {}, path=path), "empty"),
    (lambda path: search(bowl, {"y": uniform(0, 1)}, path=path), "no option 'y'"),
    (lambda path: search(bowl, {"x": [1, 2]}, path=path), "may be drawn"),
    (lambda path: search(bowl, {"x": uniform(0, 1)}, path=path, trials=0), "at least 1"),
    (lambda path: search(bowl, {"x": uniform(0, 1)}, path=path, sampler="grid"),
     "sampler = 'grid' is not known. Allowed: tpe, random")])
def test_searches_that_make_no_sense(tmp_path, action, words):
    with pytest.raises((ValueError, TypeError), match=words):
        action(tmp_path / "s.sqlite")


@pytest.mark.slow
def test_plots_of_a_search_leave_the_style_alone(tmp_path):
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    before = dict(mpl.rcParams)
    study = search(bowl, {"x": uniform(-1.0, 1.0), "kind": choice("a", "b"), }, path=tmp_path / "s.sqlite", trials=12,
                   value="error")
    for ax in (plot_history(study, "error"), plot_importances(study, "error")):
        assert ax.figure.get_size_inches().tolist() == [6, 3.5] and ax.get_xlabel()
    assert dict(mpl.rcParams) == before
    few = search(bowl, {"x": uniform(-1.0, 1.0)}, path=tmp_path / "f.sqlite", trials=2, value="error")
    with pytest.raises(ValueError, match="run more"):
        plot_importances(few)
    plt.close("all")
    assert uniform(1, 5, integer=True).high == 5 and uniform(1, 5, integer=True).low == 1


def test_rows_are_lines_of_json(tmp_path):
    run_experiment(toy, [{}], seeds=(1,), path=tmp_path / "r.jsonl")
    row = json.loads((tmp_path / "r.jsonl").read_text(encoding="utf-8"))
    assert row["status"] == "done" and row["seed"] == 1 and row["seconds"] >= 0


# ---- other data

def on(data, kind: str):
    """A trial that names the data in one of the ways in which students do."""
    def mean() -> float:
        return float(torch.cat([x.float().reshape(-1) for x, _ in data]).mean())

    def helped(lr: float = 0.1, *, seed: int) -> dict:
        return {"error": mean()}

    def around(lr: float = 0.1, *, seed: int) -> dict:
        return {"error": sum(float(x.float().mean()) for x, _ in data)}

    def given(data, /, lr: float = 0.1, *, seed: int) -> dict:
        return {"error": float(data[0][0].float().mean())}

    return {"around": around, "helper": helped, "partial": functools.partial(given, data)}[kind]


@pytest.mark.parametrize("kind", ["around", "helper", "partial"])
def test_trials_of_other_data_are_not_taken_for_these(kind, tmp_path):
    path, x, y = tmp_path / "r.jsonl", torch.arange(12.0).view(4, 3), torch.tensor([0, 1, 0, 1])
    first = run_experiment(on([(x, y)], kind), [{}], seeds=(1,), path=path).values("error")
    same = on([(x.clone(), y.clone())], kind)
    assert run_experiment(same, [{}], seeds=(1, 2), path=path).values("error")[1] == first[1]
    for other in ([(x + 1, y)], [(x, 1 - y)], [(x, y), (x, y)]):
        with pytest.raises(ValueError, match=f"{path} holds 2 of these trials, but they ran on other data"):
            run_experiment(on(other, kind), [{}], seeds=(1, 2), path=path)
        assert run_experiment(on(other, kind), [{"lr": 9}], seeds=(1,), path=path).rows  # new ones may go beside them
        path.write_text("\n".join(path.read_text().splitlines()[:2]) + "\n")
    run_experiment(on([(x + 1, y)], kind), [{}], seeds=(1,))  # without a file nothing is kept


def test_rows_without_a_digest_and_trials_with_counters_go_on(tmp_path):
    path, calls = tmp_path / "r.jsonl", []

    def counted(lr: float = 0.1, *, seed: int) -> dict:
        calls.append((lr, seed))
        return {"error": lr}

    for seeds in ((1,), (1, 2), (1, 2, 3)):
        run_experiment(counted, [{}], seeds=seeds, path=path)
    assert len(calls) == 3
    rows = [{k: v for k, v in json.loads(line).items() if k != "data"} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))  # as older versions wrote them
    run_experiment(counted, [{}], seeds=(1, 2, 3), path=path)
    assert len(calls) == 3


def test_the_digest_sees_loaders_of_every_kind_and_nothing_that_is_no_data():
    from torch.utils.data import DataLoader, Subset, TensorDataset

    from course_lib.data import BatchTransform, ImageLoader, Loaders

    def digest(data) -> str:
        return data_digest(lambda *, seed: data)

    x, y = torch.rand(6, 3, generator=torch.Generator().manual_seed(0)), torch.arange(6)
    pictures = np.zeros((6, 8, 8, 3), np.uint8)
    image = lambda images=pictures, labels=y, rows=(0, 1, 2): ImageLoader(
        images, labels.numpy(), np.array(rows), BatchTransform(8, (0.5,) * 3, (0.5,) * 3))
    pairs = TensorDataset(x, y)
    kinds = [DataLoader(pairs, 2), Subset(pairs, [0, 1]), Subset(pairs, [0, 2]), image(),
             image(pictures + 1), image(labels=y + 1), image(rows=(0, 1, 3)), Loaders(image(), image(), ()),
             {"a": x}, [y, x], x.bfloat16(), np.array(["a"]), []]
    found = [digest(data) for data in kinds]
    assert len(set(found)) == len(found) and found == [digest(data) for data in kinds]
    assert digest(DataLoader(TensorDataset(x.clone(), y), 3)) == found[0]
    assert digest(nn.Linear(2, 2)) == digest(math) == digest(3) == digest("text")


def test_a_search_on_other_data_is_another_search(tmp_path):
    path, x, y = tmp_path / "s.sqlite", torch.arange(12.0).view(4, 3), torch.tensor([0, 1, 0, 1])
    options = {"path": path, "trials": 2, "value": "error", "prune": False}
    search(on([(x, y)], "around"), {"lr": uniform(0, 1)}, **options)
    search(on([(x.clone(), y)], "around"), {"lr": uniform(0, 1)}, **options)
    with pytest.raises(ValueError, match="its data was different"):
        search(on([(x + 1, y)], "around"), {"lr": uniform(0, 1)}, **options)


@pytest.mark.parametrize("arguments", [(2, 1), ("a", 1), (0, math.nan), (None, 1)])
def test_a_range_that_is_none_is_refused_by_name(arguments):
    with pytest.raises(ValueError, match="low|high"):
        uniform(*arguments)
    with pytest.raises(ValueError, match="low"):
        uniform(0, 1, log=True)


def test_names_in_tables_and_plots_are_drawn_as_they_stand():
    names = ["under $5_$", "_x", "<b>|bold", "two\nlines", "$", ""]
    found = run_experiment(lambda name, *, seed: {"error": len(name) / 100}, grid(name=names), seeds=(1,))
    table = experiment_table(found, "error")
    assert "&lt;b&gt;\\|bold" in table and "<b>" not in table and len(table.splitlines()) == 2 + len(names)
    ax = plot_experiment(found, "error", x="name")
    assert [label.get_text().replace("\\$", "$").strip("\u200b") for label in ax.get_xticklabels()] == [
        "under $5_$", "_x", "<b>|bold", "two lines", "$", "(no name)"]
    ax = plot_experiment(run_experiment(lambda a, name, *, seed: {"error": a}, grid(a=[1, 2], name=names), seeds=(1,)),
                         "error", x="a", by="name")
    assert len(ax.get_legend().get_texts()) == len(names)  # also the one that begins with _
    ax.figure.canvas.draw()
