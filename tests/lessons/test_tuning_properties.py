"""Experiments and searches: the right figure, or an error that names the argument."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd import drawn, few, odd, told
from scipy import stats

from course_lib.tuning import (
    Experiment,
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
    search,
    summarize,
    uniform,
)

pytestmark = pytest.mark.filterwarnings("ignore:No font:UserWarning", "ignore:Glyph:UserWarning")


def toy(lr=0.1, name="a", *, seed):
    return {"error_rate": lr + seed / 100}


MADE = run_experiment(toy, grid(lr=[0.1, 0.2], name=["a", "$x^_$"]), seeds=[1, 2])
by_seed = st.dictionaries(st.integers(0, 4), st.floats(-1e3, 1e3), max_size=5)


@few
@given(by_seed, by_seed)
def test_a_comparison_is_the_paired_t_test(first, second):
    found = told(lambda: compare(first, second, held_out=0), "first and second")
    common = sorted(first.keys() & second.keys())
    assert (found is None) == (len(common) < 2)
    if found and len(set(differences := [second[s] - first[s] for s in common])) > 1:
        low, high = stats.t.interval(0.95, len(common) - 1, np.mean(differences), stats.sem(differences))
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6, abs=1e-9) and found.pairs == len(common)


@few
@given(odd)
def test_what_is_compared_is_numbers_by_seed(value):
    good = {0: 0.1, 1: 0.2}
    for call, name in ((lambda: compare(value, good), "first"), (lambda: compare(good, value), "second"),
                       (lambda: compare(good, {0: value, 1: value}), "second")):
        found = told(call, name)
        assert found is None or math.isfinite(found.difference) and found.pairs == 2


@pytest.mark.slow
@few
@given(st.lists(st.floats(0, 1), min_size=1, max_size=4), st.integers(0, 2))
def test_a_summary_is_mean_and_deviation(values, failed):
    def rated(*, seed):
        return {"error_rate": values[seed]} if seed < len(values) else {}

    made = run_experiment(rated, [{}], seeds=range(len(values) + failed))
    (one,) = summarize(made)
    assert (one.finished, one.failed) == (len(values), failed) and one.mean == pytest.approx(np.mean(values))
    assert one.std == pytest.approx(np.std(values, ddof=1) if len(values) > 1 else 0)
    assert f"{100 * statistics.fmean(values):.1f}" in experiment_table(made)


@pytest.mark.slow
@few
@given(odd)
def test_experiments_are_shown_as_they_are(value):
    for call in (summarize, experiment_table, lambda v: plot_experiment(v, x="lr"), lambda v: plot_curves(v, ["a"])):
        assert told(lambda call=call: call(value), "experiment") is None
    rows = told(lambda: Experiment(value), "rows")
    assert rows is None or len(rows.rows) == 0  # nothing else of these is rows
    for call in (lambda: summarize(MADE, value), lambda: experiment_table(MADE, value),
                 lambda: plot_experiment(MADE, value, x="lr", by="name")):
        assert (told(call, "value") is None) == (not isinstance(value, str) or value != "error_rate")
    reported = told(lambda: experiment_table(MADE, reported=value), "reported")
    assert reported is None or (value is None) == ("reported" not in reported)
    table = told(lambda: experiment_table(MADE, unit=value), "unit")
    assert isinstance(table, str) == isinstance(value, str)
    assert told(lambda: plot_experiment(MADE, x=value, by="name"), "x or by") is None
    assert told(lambda: plot_experiment(MADE, x="lr", by=value), "x or by", "varied too") is None
    assert told(lambda: plot_curves(MADE, value), "names", "no curve") is None
    found = told(lambda: MADE.values("error_rate", lr=value), "options")
    assert found is None
    found = told(lambda: MADE.values(value, lr=0.1, name="a"), "name", "have no value")
    assert found is None or found == pytest.approx({1: 0.11, 2: 0.12})


def test_points_stand_where_the_figures_are():
    ax = drawn(plot_experiment(MADE, x="lr", by="name"))
    for line in (container.lines[0] for container in ax.containers):
        assert line.get_xdata().tolist() == [0.1, 0.2] and line.get_ydata() == pytest.approx([11.5, 21.5])


@pytest.mark.slow
@few
@given(value=odd)
def test_an_experiment_says_what_it_cannot_run(value, tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("in")
    monkeypatch.chdir(folder)
    made = told(lambda: run_experiment(value, [{}], seeds=[1]), "trial")
    assert made is None
    made = told(lambda: run_experiment(toy, value, seeds=[1]), "configs", "onfiguration", "no option")
    assert made is None or all(row["config"]["lr"] == 0.1 for row in made.rows)
    made = told(lambda: run_experiment(toy, [{}], seeds=value), "seed")
    assert made is None or [row["values"]["error_rate"] for row in made.rows] == pytest.approx(
        [0.1 + row["seed"] / 100 for row in made.rows])
    try:
        made = told(lambda: run_experiment(toy, [{}], seeds=[1], path=value), "path")
        assert made is None or value is None or read_trials(value) == list(made.rows)
    except OSError as error:  # no file can have that name
        assert repr(value)[1:-1] in str(error) or error.filename
    told(lambda: read_trials(value), "path")


SPACE = {"lr": uniform(0.1, 0.2)}


@pytest.mark.slow
@few
@given(name=st.sampled_from(["trial", "space", "path", "trials", "sampler", "value", "seed", "wait"]), value=odd)
def test_a_search_says_what_it_cannot_use(name, value, tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("in")
    monkeypatch.chdir(folder)
    asked = {"trial": toy, "space": SPACE, "path": folder / "s.db", "trials": 2, name: value}
    if name == "path" and isinstance(value, str):
        asked["path"] = folder / value.replace("\0", "").replace("/", "") / "s.db"
        asked["path"].parent.mkdir(exist_ok=True)
    try:
        study = told(lambda: search(**asked), name, "no option", "cannot be drawn", "may be drawn")
    except RuntimeError as error:
        assert name == "value" and f"no value {value!r}" in str(error)
        return
    if study is not None:
        assert len(study.trials) == asked["trials"]
        assert study.best_value == pytest.approx(study.best_params["lr"] + study.user_attrs["search"]["seed"] / 100)


@pytest.mark.slow
def test_plots_of_a_search_are_of_its_trials(tmp_path):
    study = search(toy, {**SPACE, "name": choice("a", "b")}, path=tmp_path / "s.db", trials=5)
    ax = drawn(plot_history(study, "$error^_$"))
    assert sorted(y for _, y in ax.collections[0].get_offsets()) == pytest.approx(sorted(t.value for t in study.trials))
    assert {label.get_text() for label in drawn(plot_importances(study)).get_yticklabels()} == {"lr", "name"}
    for plot in (plot_history, plot_importances):
        for value in (None, [study], "search", 3.0):
            assert told(lambda plot=plot, value=value: plot(value), "study") is None
            assert told(lambda plot=plot, value=value: plot(study, value), "value") is None or isinstance(value, str)
