"""Importing the course is cheap: heavy libraries are imported inside the functions that need them."""

import ast
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import course_lib

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("matplotlib", "torchvision", "timm", "ipywidgets", "sklearn", "scipy", "pandas", "IPython", "optuna",
         "accelerate", "fastai", "nbformat", "nbclient", "tqdm.notebook")
MODULES = sorted(f"course_lib.{module.name}" for module in pkgutil.iter_modules(course_lib.__path__)
                 if not module.name.startswith("_"))
SCRIPT = """
import importlib, json, sys
answer = {"alone": len(sys.modules)}
if sys.argv[1] == "torch first":
    import torch
    before = set(sys.modules)
    import course_lib.learner
    answer["added"] = sorted(set(sys.modules) - before)
else:
    for name in sys.argv[2:]:
        before = set(sys.modules)
        importlib.import_module(name)
        answer[name] = sorted(set(sys.modules) - before)
print(json.dumps(answer))
"""


def modules_after(*arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], env=environment, capture_output=True, text=True,
                         timeout=250)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def heavy_among(names):
    return [name for name in names if any(name == heavy or name.startswith(f"{heavy}.") for heavy in HEAVY)]


def test_no_module_of_the_course_imports_a_heavy_library():
    """All modules in one process: what one of them imports shows up beside its name."""
    assert "course_lib.learner" in MODULES and "course_lib.settings" in MODULES
    imported = modules_after("each", *MODULES)
    assert {name: heavy_among(imported[name]) for name in MODULES if heavy_among(imported[name])} == {}


def test_settings_import_no_torch():
    """The command line answers `--help` at once."""
    names = modules_after("each", "course_lib.settings", "course_lib.teach.results")
    assert "torch" not in names["course_lib.settings"] + names["course_lib.teach.results"]


def test_the_learner_adds_little_to_torch():
    """The mark is a fifth of the time of `import torch`; counted in modules, so that a busy machine cannot fail it."""
    added = modules_after("torch first")["added"]
    ours = [name for name in added if name.startswith("course_lib")]
    assert sorted(ours) == ["course_lib", "course_lib.learner", "course_lib.settings"]
    assert len(added) <= 20, added
    torch_itself = len(modules_after("each", "torch")["torch"])
    assert len(added) < 0.05 * torch_itself
    assert not [name for name in added if name.split(".")[0] in ("torch", "numpy", "safetensors", "tqdm")]


@pytest.mark.parametrize("heavy", ["matplotlib", "matplotlib.pyplot", "timm.models"])
def test_the_check_would_notice(heavy):
    assert heavy_among(["json", heavy]) == [heavy] and heavy_among(["matplotlib_inline", "timmy"]) == []


# Which rooms each room may know, also inside functions. Arrows go one way: no room stands below one that it knows.
ROOMS = {
    "settings": (), "results": ("settings",), "download": (), "data": ("settings", "download"), "models": ("settings",),
    "precision": (), "learner": ("settings", "precision"), "features": ("data", "models", "learner"),
    "lr_finder": ("learner", "features", "results"), "transfer": ("learner", "models", "features"),
    "interpret": ("learner", "data"), "pooling": ("models",), "backbones": ("models", "learner"),
    "tricks": ("settings", "learner"),
    "tuning": ("learner", "transfer", "results", "settings"),
    "distributed": ("data", "learner"), "practice": ("settings", "results"), "pack": ("practice", "results"),
    # None: may know all that do not know it
    "doctor": None, "runner": None, "training": None, "bench": None, "cli": None,
}


def known_rooms(path):
    """The modules of the course that the source in `path` imports, anywhere in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.level == 1 or (node.module or "").startswith("course_lib")):
            module = (node.module or "").removeprefix("course_lib").removeprefix(".")
            yield from [module.split(".")[0]] if module else [alias.name for alias in node.names]


def test_arrows_between_the_rooms_go_one_way():
    knows = {}
    for path in sorted((ROOT / "course_lib").glob("[a-z]*.py")):
        room = path.stem
        assert room in ROOMS, f"{room} has no place in the table of rooms"
        knows[room] = set(known_rooms(path)) - {room}
        if ROOMS[room] is not None:
            assert knows[room] <= set(ROOMS[room]), f"{room} may not import {knows[room] - set(ROOMS[room])}"
    assert set(knows) == set(ROOMS)
    while free := [room for room, others in knows.items() if not others & set(knows)]:
        for room in free:
            del knows[room]
    assert not knows, f"these know one another in a circle: {sorted(knows)}"
    assert not any("cli" in set(known_rooms(path)) for path in (ROOT / "course_lib").glob("[a-z]*.py"))
