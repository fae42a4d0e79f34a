"""What all benchmarks share: arguments, results, rows that a stopped run goes on from, and a lesson's cells by name."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import depth
import frame
import pytest
import tricks

pytestmark = pytest.mark.slow

SCRIPTS = {"again": "03", "depth": "layers", "faults": "kill", "fine_grained": "pets", "normal": "03",
           "pieces": "few", "recipes": "confirm", "rules": "elpv", "run": "step", "strategies": "",
           "test_part": "divide", "tricks": "cost"}


@pytest.mark.parametrize("words, wanted, output, quick", [
    ([], ["a", "b"], frame.RESULTS, False), (["b", "--quick"], ["b"], frame.RESULTS, True),
    (["--output", "there", "b", "a"], ["b", "a"], Path("there"), False)])
def test_arguments_are_questions_a_folder_and_flags(monkeypatch, words, wanted, output, quick):
    monkeypatch.setattr(sys, "argv", ["one.py", *words])
    asked = frame.arguments("What it does.", ("a", "b"), flags={"quick": "tiny"})
    assert (asked.wanted, asked.output, asked.quick) == (wanted, output, quick)


def test_a_question_that_there_is_not_and_options_that_it_has_not_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["one.py", "3"])
    assert frame.arguments("", ("03",), kind=lambda word: word.zfill(2)).wanted == ["03"]
    with pytest.raises(SystemExit, match="There is no lesson 3. There are: 01, 02"):
        frame.arguments("", ("01", "02"), noun="lesson")
    monkeypatch.setattr(sys, "argv", ["one.py", "--output", "there"])
    with pytest.raises(SystemExit):
        frame.arguments("", ("a",), output=None)
    assert "--output" in capsys.readouterr().err


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_says_what_it_takes(name, monkeypatch, capsys):
    """And imports with what the course has."""
    script = importlib.import_module(name)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        script.main()
    said = capsys.readouterr().out
    assert ended.value.code == 0 and script.__doc__.splitlines()[0] in said and SCRIPTS[name] in said


def test_a_figure_has_machine_and_versions_beside_it(tmp_path):
    written = frame.record("step", {"rounds": 3, "question": "other"}, tmp_path / "new", ("torch", "no-such-package"))
    assert json.loads((tmp_path / "new" / "step.json").read_text()) == written
    assert written["question"] == "other" and written["rounds"] == 3 and written["machine"]
    assert written["versions"].keys() == {"python", "torch"}


def test_rows_go_on_where_they_were(tmp_path):
    rows = frame.Rows(tmp_path / "new" / "rows.jsonl", "lesson", "seed")
    assert rows.read() == [] and not rows.done("03", 42)
    rows.add()
    assert not rows.path.exists()
    rows.add({"lesson": "03", "seed": 42, "value": 1}, {"lesson": "03", "seed": 42, "value": 2})
    rows.path.write_text(rows.path.read_text() + '{"lesson": "04", "se')  # cut off
    assert rows.done("03", 42) and not rows.done("04", 42) and not rows.done("03", 43)
    rows.add({"lesson": "04", "seed": 42, "value": 3})  # on a line of its own
    assert [row["value"] for row in rows.read()] == [1, 2, 3]
    rows.replace({"lesson": "03", "seed": 42, "value": 4})
    assert [row["value"] for row in rows.read()] == [3, 4]


def test_code_runs_in_a_process_of_its_own():
    found = frame.run_python("import sys\nprint('said')\n_out = {'words': sys.argv[1:]}", "a", "b")
    assert found["words"] == ["a", "b"] and 0 < found["peak_gb"] < 4
    with pytest.raises(RuntimeError, match="ValueError: no"):
        frame.run_python("raise ValueError('no')")


# ---- cells of a lesson

def lesson(path: Path, *sources: str) -> Path:
    cells = [{"cell_type": "code", "source": source.splitlines(keepends=True)} for source in sources]
    path.write_text(json.dumps({"cells": [*cells, {"cell_type": "markdown", "source": ["x = 3"]}]}))
    return path


def test_what_a_cell_defines_is_what_it_binds_itself():
    source = ("import os\nfor i in []:\n    with open(i) as f: a, (b, *c) = 1\nif i:\n    def g(p):\n        q = 1\n"
              "class K:\n    r = 1\nd: int = [s for s in (t := [])]\nu = lambda v: v\nw.x = y[0] = 1\n")
    assert frame.defined_in(source) == {"i", "f", "a", "b", "c", "g", "K", "d", "u"}


def test_cells_are_found_by_what_they_define_and_not_by_what_they_say(tmp_path):
    path = lesson(tmp_path / "08.ipynb", "#| default_exp core.text", "#| export\nimport math\nsize = 1",
                  "from __future__ import annotations\nimport json  # size = 2", "import json\nsize = 3\n",
                  "# size = 4\nwords = 'size = 5'", "both = 1", "if True:\n    both = 2", "import never")
    assert frame.find_cells(path, ["words", "size"]) == [
        "from __future__ import annotations\nimport json", "# size = 4\nwords = 'size = 5'", "import json\nsize = 3\n"]
    for name, count in (("math", 0), ("both", 2)):
        with pytest.raises(ValueError, match=f"{count} cells of 08.ipynb define '{name}'"):
            frame.find_cells(path, ["size", name])


def test_cells_run_with_what_the_lessons_module_exports_and_measuring_switched_on(tmp_path, monkeypatch):
    path = lesson(tmp_path / "08.ipynb", "#| default_exp core.text", "import os\nsays = format_bytes(2e9)",
                  "raise RuntimeError", "where = os.getcwd(), os.environ['COURSELIB_MEASURE'], says")
    monkeypatch.setenv("COURSELIB_MEASURE", "")
    monkeypatch.setenv("COURSE_PROFILE", "test")
    monkeypatch.chdir(tmp_path.parent)
    assert frame.run_cells(path, ["says", "where"])["where"] == (str(tmp_path.resolve()), "1", "2.0 GB")


@pytest.mark.parametrize("notebook, names", [
    (depth.LESSON, depth.CELLS),
    *((tricks.LESSON, names) for names in tricks.MARKS.values())])
def test_the_lessons_have_the_cells_that_are_measured(notebook, names):
    found = frame.find_cells(notebook, names)
    assert len(set(found)) == len(found) == 1 + len(names)
    trains = ["def train_small("] if notebook == depth.LESSON else ["run_experiment(", "run_tricks("]
    assert any(word in source for word in trains for source in found)
    for source in found:
        compile(source, "cell", "exec")


def test_scripts_find_one_another_from_any_folder(tmp_path):
    """The one in peers/, too, whose folder is another."""
    for script in ("normal.py", "peers/compare.py"):
        path = Path(frame.__file__).with_name(script) if "/" not in script else Path(frame.__file__).parent / script
        done = subprocess.run([sys.executable, str(path), "--help"], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0 and "--output" in done.stdout, done.stderr
