"""The check of an assignment: right answers pass on unseen examples, and one line that replaces something does not."""

import json
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from course_lib.teach.compare import difference
from course_lib.teach.exercise import function_source
from course_lib.teach.grading import CELL, MARK, _from_bytes, answer_runs, grade, run_notebook
from course_lib.teach.practice import find_exercise
from course_lib.teach.sandbox import as_bytes

ID = "04.lr_sweep"
RIGHT = function_source(find_exercise(ID).answer)
WRONG = "def lr_sweep(start, stop, steps):\n    return [0.0] * steps"
RUN = """
import json, sys
names = {"In": [""], "__name__": "__main__"}
for cell in json.loads(sys.argv[1]):
    names["In"].append(cell)
    failed = ""
    try:
        exec(cell, names)
    except BaseException as error:
        failed = f"{type(error).__name__}: {error}"
sys.__stdout__.write(failed)
"""


def graded(*cells: str, seed: int = 731) -> str:
    """What the locked cell says after these cells, in an interpreter of its own; nothing when it gives the points."""
    done = subprocess.run([sys.executable, "-c", RUN, json.dumps([*cells, CELL.format(id=ID, seed=seed)])],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_right_answer_gets_its_points_and_a_wrong_one_hears_its_mistake_and_no_values():
    assert graded("import math", RIGHT) == ""
    mistake = find_exercise(ID).mistakes[0]
    source = function_source(mistake.answer).replace(f"def {mistake.answer.__name__}(", "def lr_sweep(")
    said = graded(source)
    assert said.startswith("AssertionError: 04.lr_sweep: not yet. ") and mistake.says in said
    assert "expected" not in said and "731" not in said


@pytest.mark.slow
@pytest.mark.parametrize("cheat", [
    "require = check = lambda *anything, **named: None",
    "import course_lib.teach.practice as p; p.require = lambda *a, **k: None; p.examine = p.require",
    "import sys, types; sys.modules['course_lib.teach'] = types.ModuleType('x')",
    "import subprocess; subprocess.run = lambda *a, **k: subprocess.CompletedProcess(a, 0, 'right', '')",
    "import sys; sys.executable = 'echo'",
    "import course_lib.teach.verdict as v; v._same = lambda *a: True; v._differs = lambda *a: ''",
    "import torch; torch.isclose = lambda a, *b, **k: torch.ones_like(a).bool()",
    "import pickle; pickle.dumps = lambda *a: b''",
    "from course_lib.teach.practice import find_exercise; lr_sweep = find_exercise('04.lr_sweep').answer",
    "import builtins; builtins.AssertionError = AssertionError = Warning",
    "lr_sweep = type('L', (), {'__eq__': lambda *a: True, '__new__': lambda c, *a: object.__new__(c)})",
    "In = ['']",
])
def test_one_line_in_place_of_an_answer_gets_no_points(cheat):
    assert graded(WRONG, cheat).strip() != ""


def test_an_answer_on_the_visible_examples_alone_is_wrong_on_the_unseen_ones():
    learned = [(args, find_exercise(ID).answer(*args)) for args in find_exercise(ID).examples(0)]
    cell = f"def lr_sweep(*args):\n    return dict({learned!r})[args]"
    assert grade(ID, [cell], 0).passed and not grade(ID, [cell], 731).passed


def test_cells_run_as_in_a_notebook_that_goes_on_after_an_error():
    names = run_notebook(["a = 1", "%matplotlib inline\nb = 2", "1 / 0", f"{MARK}\na = 9", "c = a + b", "exit()"])
    assert (names["a"], names["c"]) == (1, 3)


def test_what_an_answer_gives_is_judged_by_its_value_not_by_its_class():
    cell = ("import math\nclass Rates(list):\n    pass\nclass Odd(Exception):\n    pass\n" + RIGHT)
    assert grade(ID, [cell], 3).passed
    odd = "def lr_sweep(start, stop, steps):\n    raise Odd(1)"
    verdict = grade(ID, [cell.replace("def lr_sweep", "def other"), odd], 3)
    assert not verdict.passed and "raised" in verdict.message
    assert answer_runs(ID, ["lr_sweep = 3"], 0) == [] and not grade(ID, [RIGHT], 0, lambda *asked: []).passed


class Runs:
    """Pickled, it is a call of `os.mkdir`."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_what_an_answer_sends_is_read_as_values_and_never_run(tmp_path):
    """The bytes come from the answer's process and are read where the verdict is made."""
    made = tmp_path / "made"
    inner = pickle.dumps(Runs(made))
    named = lambda module, name: b"\x80\x04\x8c" + bytes([len(module)]) + module + b"\x8c" + bytes([len(name)]) + name
    folder = str(made).encode()
    told = b"\x8c" + bytes([len(folder)]) + folder + b"\x85R."
    for bad in (inner, named(b"pathlib", b"os.mkdir") + b"\x93" + told,  # through a module that imports it
                named(b"numpy.testing._private.utils", b"runstring") + b"\x93" + told,
                named(b"torch.storage", b"_load_from_bytes") + b"\x93B" + len(inner).to_bytes(4, "little") + inner
                + b"\x85R."):
        with pytest.raises(pickle.UnpicklingError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the protocol
            _from_bytes(bad)
    assert not made.exists()
    pickle.loads(inner)
    assert made.exists()  # so the bytes are what they seem
    for value in (torch.ones(2, 3), torch.nn.Parameter(torch.ones(2)), torch.ones(2, dtype=torch.bfloat16), torch.int8,
                  np.arange(3.0)[::2], np.float64(2), Path("a"), {"a": [1, (2,)]}, 10**400, None):
        assert difference(value, _from_bytes(as_bytes(value))) == "", value
