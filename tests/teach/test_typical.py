"""The recorded runs behind "Is your result normal?": complete, of several seeds, and what the lessons show."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from course_lib.teach.results import NORMAL_FILE, TIMES_FILE, read_results, recorded_file
from course_lib.teach.typical import FEWEST_SEEDS, typical_range, typical_table

ROOT = Path(__file__).resolve().parents[2]
LESSONS = json.loads(recorded_file(TIMES_FILE).read_text(encoding="utf-8"))["lessons"]
NORMAL = read_results(recorded_file(NORMAL_FILE))


@pytest.mark.parametrize("lesson", LESSONS)
def test_every_error_that_a_lesson_records_can_be_judged(lesson):
    rows = [row for row in LESSONS[lesson]["results"] if row["unit"] == "fraction"]
    judged = {row["name"]: typical_range(row, NORMAL) for row in rows}
    assert any(typical.verdict == "within" for typical in judged.values())
    for name, typical in judged.items():
        assert typical.seeds >= FEWEST_SEEDS and typical.verdict == "within", f"{name}: {typical}"


def test_the_recorded_runs_are_of_the_seeds_that_they_name():
    """Runs of several seeds differ; the same run five times over would make anything else look odd."""
    for lesson in LESSONS:
        by_seed = {}
        for row in NORMAL:
            if row["lesson"] == lesson:
                by_seed.setdefault(row["seed"], {})[row["name"], row["backbone"]] = row["value"]
        assert len(by_seed) >= FEWEST_SEEDS
        for one in by_seed:
            for other in by_seed:
                assert one == other or by_seed[one] != by_seed[other], f"lesson {lesson}: seeds {one} and {other}"


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_shows_the_table_of_its_recorded_run(lesson):
    [path] = (ROOT / "nbs").glob(f"{lesson}_*.ipynb")
    [cell] = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
              if f'Markdown(typical_table("{lesson}"))' in "".join(cell["source"])]
    [output] = cell["outputs"]
    assert "".join(output["data"]["text/markdown"]) == typical_table(lesson, LESSONS[lesson]["results"], NORMAL)


def test_what_a_changed_camera_costs_is_what_lesson_11_says_of_five_runs():
    runs = {}
    for row in NORMAL:
        if row["lesson"] == "11":
            runs.setdefault(row["seed"], {})[row["name"].removeprefix("error, ")] = 100 * row["value"]
    cost = {name: [run[name] - run["as collected"] for run in runs.values()] for name in (
        "out of focus", "contrast × ¼", "brighter, × 1.7", "contrast × ¼, stretched")}
    [path] = (ROOT / "nbs").glob("11_*.ipynb")
    text = " ".join(path.read_text(encoding="utf-8").replace('\\n",', " ").replace('"', " ").split())
    least_and_most = [(round(min(each)), round(max(each))) for each in cost.values()]
    (a, b), (c, d), (e, f), stretched = least_and_most
    said = f"out of focus cost {a} to {b} points, a quarter of the contrast {c} to {d}, more brightness {e} to {f}."
    assert said in text
    assert "within two points of where it was in all five" in text and max(map(abs, stretched)) <= 2 and len(runs) == 5


@pytest.fixture
def script(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("normal", ROOT / "benchmarks" / "normal.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RECORD", tmp_path / "normal.jsonl")
    monkeypatch.setattr("sys.argv", ["normal.py", "3"])
    return module


def fake_course(seed_of):
    """In place of `run_course`: a lesson that records two figures, with the seed that `seed_of` makes of the asked."""
    def run(settings, notebooks, folder, environ):
        common = {"lesson": "03", "value": 0.1, "profile": environ["COURSE_PROFILE"],
                  "seed": seed_of(int(environ["COURSE_SEED"]))}
        rows = [common | {"name": name, "unit": unit} for name, unit in (("error", "fraction"), ("t", "seconds"))]
        (Path(folder) / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return [SimpleNamespace(error="")], Path(folder)
    return run


def test_the_script_gives_each_seed_to_the_kernels_and_goes_on_where_it_was(script, monkeypatch):
    monkeypatch.setattr("frame.run_course", fake_course(lambda seed: seed))
    script.main()
    rows = read_results(script.RECORD)
    assert [row["seed"] for row in rows] == list(script.SEEDS) and {row["name"] for row in rows} == {"error"}
    script.RECORD.write_text("".join(json.dumps(row) + "\n" for row in rows[:2]))
    script.main()
    assert read_results(script.RECORD) == rows  # three more, none twice


def test_the_script_refuses_a_lesson_that_ran_with_another_seed(script, monkeypatch):
    monkeypatch.setattr("frame.run_course", fake_course(lambda seed: 42))
    with pytest.raises(SystemExit, match="did not run with seed 1042"):
        script.main()
    assert [row["seed"] for row in read_results(script.RECORD)] == [42]
