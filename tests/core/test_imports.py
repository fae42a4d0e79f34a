"""Importing the course is cheap, and what knows what goes one way: heavy libraries are imported inside the functions
that need them, each room knows only those below it, and no room takes another's private names."""

import ast
import graphlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOUSE = ROOT / "course_lib"
HEAVY = ("matplotlib", "torchvision", "timm", "ipywidgets", "sklearn", "scipy", "pandas", "IPython", "optuna",
         "accelerate", "fastai", "nbformat", "nbclient", "tqdm.notebook")
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

# Which rooms each room may know, also inside functions. A room is a package of course_lib, or a module beside them.
LOWER = ("core", "recipes", "settings", "data", "models", "learner")
LESSONS = ("lr_finder", "transfer", "interpret", "tuning", "backbones", "pooling", "tricks")
ROOMS = {
    "core": (), "recipes": ("core",), "settings": ("core", "recipes"), "data": ("core", "settings"),
    "models": ("core",), "learner": ("core", "recipes", "data", "models"), "schedules": LOWER, "quality": LOWER,
    **dict.fromkeys(LESSONS, (*LOWER, "schedules")),
    "teach": ("core", "recipes", "settings"), "exercises": (*LOWER, "schedules", *LESSONS, "teach"),
    "app": (*LOWER, "schedules", "quality", *LESSONS, "teach"),
}
# `teach` finds the exercises by name, as a program finds its plug-ins: by a string, never by an import statement.
PLUG_INS = {"teach": ("exercises",)}
# The training loop, and what `import course_lib.learner` brings with it, take any loader and any module.
LEARNER_KNOWS = ("core", "recipes", "learner")


# ---- what importing costs

def modules_after(*arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], env=environment, capture_output=True, text=True,
                         timeout=250)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def heavy_among(names):
    return [name for name in names if any(name == heavy or name.startswith(f"{heavy}.") for heavy in HEAVY)]


@pytest.mark.slow
def test_no_module_of_the_course_imports_a_heavy_library():
    """All modules in one process: what one of them imports shows up beside its name."""
    modules = [f"course_lib.{name}" for name in sorted(read_house(HOUSE)) if name]
    assert {"course_lib.learner", "course_lib.learner.features", "course_lib.settings"} <= set(modules)
    imported = modules_after("each", *modules)
    assert {name: heavy_among(imported[name]) for name in modules if heavy_among(imported[name])} == {}


def test_settings_import_no_torch():
    """The command line answers `--help` at once."""
    names = modules_after("each", "course_lib.settings", "course_lib.teach.results")
    assert "torch" not in names["course_lib.settings"] + names["course_lib.teach.results"]


@pytest.mark.slow
def test_the_learner_adds_little_to_torch():
    """The mark is a fifth of the time of `import torch`; counted in modules, so that a busy machine cannot fail it."""
    added = modules_after("torch first")["added"]
    ours = [name for name in added if name.startswith("course_lib")]
    assert {name.split(".")[1] for name in ours if "." in name} <= set(LEARNER_KNOWS), ours
    assert len(added) <= 20, added
    torch_itself = len(modules_after("each", "torch")["torch"])
    assert len(added) < 0.05 * torch_itself
    assert not [name for name in added if name.split(".")[0] in ("torch", "numpy", "safetensors", "tqdm")]


@pytest.mark.parametrize("heavy", ["matplotlib", "matplotlib.pyplot", "timm.models"])
def test_the_check_would_notice(heavy):
    assert heavy_among(["json", heavy]) == [heavy] and heavy_among(["matplotlib_inline", "timmy"]) == []


# ---- who knows whom

@dataclass(frozen=True)
class Arrow:
    """`source` knows `target`; both are modules, written without `course_lib.`."""
    source: str
    target: str
    names: tuple[str, ...] = ()  # that are taken from it
    how: str = "import"  # or "types", for a checker of types alone; or "string", for one that is loaded by name

    @property
    def rooms(self) -> tuple[str, str]:
        return self.source.partition(".")[0], self.target.partition(".")[0]


@cache
def read_house(folder: Path) -> dict[str, ast.Module]:
    """Each module in `folder` by name ("learner.loop"; a package has the name of its folder, the house itself "")."""
    paths = [path for path in sorted(folder.rglob("*.py")) if path.name != "_modidx.py"]
    dotted = {path: ".".join(path.relative_to(folder).with_suffix("").parts) for path in paths}
    return {name.removesuffix("__init__").removesuffix("."): ast.parse(path.read_text(encoding="utf-8"))
            for path, name in dotted.items()}


def nearest_module(dotted: str, modules: dict) -> str:
    """The module that a dotted name begins with: names that are no module's stand for something within one."""
    parts = dotted.split(".")
    return next((found for n in range(len(parts), 1, -1) if (found := ".".join(parts[:n])) in modules), parts[0])


def absolute(module: str, level: int, name: str, modules: dict) -> str | None:
    """What `from <level dots><module>` means in the module `name`, without `course_lib.`; `None` if it is not ours."""
    if level == 0:
        own, _, rest = module.partition(".")
        return rest if own == "course_lib" else None
    is_package = name == "" or any(other.startswith(f"{name}.") for other in modules)
    parts = [part for part in ["course_lib", *name.split(".")] if part]
    parts = parts[:len(parts) - level + is_package]
    return ".".join([*parts[1:], *([module] if module else [])])


def statements(tree: ast.Module) -> Iterator[tuple[ast.AST, bool]]:
    """Every node, and whether it is there for a checker of types alone."""
    guards = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    types = {id(node) for guard in guards for statement in guard.body for node in ast.walk(statement)}
    yield from ((node, id(node) in types) for node in ast.walk(tree))


def strings_that_name_modules(tree: ast.Module) -> Iterator[str]:
    """All strings that look like a module of ours, in a file that loads modules by name."""
    called = {ast.unparse(node.func).split(".")[-1] for node in ast.walk(tree) if isinstance(node, ast.Call)}
    if called & {"import_module", "__import__"}:
        yield from (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)
                    and isinstance(node.value, str) and re.fullmatch(r"(course_lib|\.)(\.?\w+)+\.?", node.value))


@cache
def arrows(folder: Path) -> list[Arrow]:
    """Which module knows which, for all imports in `folder`: at the top, in functions, for types, and by name."""
    modules, found = read_house(folder), []
    for name, tree in modules.items():
        for node, types in statements(tree):
            how = "types" if types else "import"
            if isinstance(node, ast.Import):
                found += [Arrow(name, nearest_module(alias.name.removeprefix("course_lib."), modules), (), how)
                          for alias in node.names if alias.name.startswith("course_lib.")]
            elif isinstance(node, ast.ImportFrom):
                target = absolute(node.module or "", node.level, name, modules)
                for alias in node.names if target is not None else ():
                    inner = f"{target}.{alias.name}".removeprefix(".")
                    found.append(Arrow(name, inner, (), how) if inner in modules else
                                 Arrow(name, nearest_module(target, modules), (alias.name,), how))
        for text in strings_that_name_modules(tree):
            level = len(text) - len(text.lstrip("."))
            target = absolute(text.strip("."), level, name, modules)
            if target and (level == 0 or target in modules):
                found.append(Arrow(name, nearest_module(target, modules), (), "string"))
    return [arrow for arrow in found if arrow.target and arrow.target != arrow.source]


def forbidden_arrows(folder: Path) -> list[str]:
    """Modules that know a room which theirs may not know, and modules without a room in the table."""
    rooms = {name.partition(".")[0] for name in read_house(folder) if name}
    wrong = [f"{room} has no place in the table of rooms" for room in sorted(rooms - set(ROOMS))]
    for arrow in arrows(folder):
        room, other = arrow.rooms
        may_know = (room, *ROOMS.get(room, ()), *(PLUG_INS.get(room, ()) if arrow.how == "string" else ()))
        if other not in may_know:
            wrong.append(f"{arrow.source or 'course_lib'} may not know {arrow.target}")
    return sorted(set(wrong))


def in_a_circle(folder: Path, package: str) -> list[str]:
    """Modules of a package that know one another in a circle; imports for types alone make none."""
    graph: dict[str, set[str]] = {}
    for arrow in arrows(folder):
        if arrow.rooms == (package, package) and arrow.how != "types":
            graph.setdefault(arrow.source, set()).add(arrow.target)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def reached_from(folder: Path, start: str) -> set[str]:
    """Modules that are loaded when `start` is used, packages on the way included."""
    knows: dict[str, set[str]] = {}
    for arrow in arrows(folder):
        if arrow.how != "types":
            parents = {".".join(arrow.target.split(".")[:n]) for n in range(1, arrow.target.count(".") + 1)}
            knows.setdefault(arrow.source, set()).update({arrow.target} | parents)
    reached, waiting = set(), [start]
    while waiting:
        if (name := waiting.pop()) not in reached:
            reached.add(name)
            waiting += knows.get(name, ())
    return reached


def test_the_table_of_rooms_has_no_circle_and_nobody_knows_the_app():
    order = list(graphlib.TopologicalSorter(ROOMS).static_order())
    assert order[0] == "core" and set(order) == set(ROOMS)
    assert not any("app" in below or "exercises" in below for below in ROOMS.values())


def test_every_module_has_a_place_and_every_place_a_module():
    assert {name.partition(".")[0] for name in read_house(HOUSE) if name} == set(ROOMS)


def test_arrows_between_the_rooms_go_one_way():
    assert forbidden_arrows(HOUSE) == []


@pytest.mark.slow
@pytest.mark.parametrize("package", ROOMS)
def test_no_circle_inside_a_room(package):
    assert in_a_circle(HOUSE, package) == []


@pytest.mark.parametrize("start", ["learner", "learner.loop"])
def test_the_learner_takes_any_loader_and_any_module(start):
    rooms = {name.partition(".")[0] for name in reached_from(HOUSE, start)}
    assert rooms <= set(LEARNER_KNOWS), rooms


def made_up(folder: Path, **sources: str) -> Path:
    """A small house: `core__text="..."` is the module core.text; folders are packages."""
    for name, source in sources.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(source)
    (folder / "learner").mkdir(exist_ok=True)
    (folder / "learner" / "__init__.py").touch()
    return folder


@pytest.mark.parametrize("module, source, wrong", [
    ("core__text", "from ..data import items", "core.text may not know data.items"),
    ("core__text", "def late():\n    from ..data.items import get", "core.text may not know data.items"),
    ("core__text", "from .. import data", "core.text may not know data"),
    ("core__text", "import course_lib.data.items as items", "core.text may not know data.items"),
    ("core__text", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..learner import Learner",
     "core.text may not know learner"),
    ("models__deep__body", "from ...app import cli", "models.deep.body may not know app.cli"),
    ("models__deep__body", "from ..deep import other\nfrom ... import app", "models.deep.body may not know app"),
    ("tuning", "from .app.cli import main", "tuning may not know app.cli"),
    ("tuning", "from importlib import import_module\nimport_module('course_lib.app.cli')",
     "tuning may not know app.cli"),
    ("tuning", "import importlib\nimportlib.import_module(f'course_lib.exercises.lesson{1}')",
     "tuning may not know exercises"),
    ("tuning", "import importlib\nimportlib.import_module('.app.cli', 'course_lib')", "tuning may not know app.cli"),
    ("tuning", "import importlib\nHOMES = {'x': 'course_lib.app.cli'}\nimportlib.import_module(HOMES['x'])",
     "tuning may not know app.cli"),
    ("teach__practice", "import course_lib.exercises as package", "teach.practice may not know exercises"),
    ("attic", "", "attic has no place in the table of rooms")])
def test_an_arrow_that_goes_up_is_noticed(tmp_path, module, source, wrong):
    house = made_up(tmp_path, data__items="get = 1", app__cli="main = 1", exercises__lesson01="", **{module: source})
    assert forbidden_arrows(house) == [wrong]


def test_arrows_that_go_down_are_allowed(tmp_path):
    house = made_up(
        tmp_path, core__text="import torch, course_lib\nfrom . import files", core__files="",
        settings="from .core import text", models__head="Head = 1",
        models__body="from .head import Head\nfrom ..core.text import x",
        tuning="def late():\n    from course_lib.models.body import x", exercises__lesson01="from ..tuning import x",
        teach__practice="import importlib\nimportlib.import_module(f'course_lib.exercises.lesson{1}')\nx = 'a.png'")
    assert forbidden_arrows(house) == [] and in_a_circle(house, "models") == []


def test_a_circle_inside_a_room_is_noticed(tmp_path):
    house = made_up(tmp_path, data__items="def late():\n    from .loaders import x",
                    data__loaders="from . import items", tuning="",
                    models__body="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .head import Head",
                    models__head="from .body import x")
    assert set(in_a_circle(house, "data")) == {"data.items", "data.loaders"} and in_a_circle(house, "models") == []
    (house / "learner" / "loop.py").write_text("from .features import cache")
    (house / "learner" / "features.py").write_text("from ..data.items import x")
    read_house.cache_clear()
    arrows.cache_clear()
    assert "data.items" in reached_from(house, "learner.loop") and "data" in reached_from(house, "learner.loop")


# ---- what a room promises

def promised(tree: ast.Module) -> set[str]:
    """The names in a module's `__all__`."""
    values = [node.value for node in tree.body if isinstance(node, ast.Assign)
              and any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets)]
    return set(ast.literal_eval(values[0])) if values else set()


def defined(tree: ast.Module) -> set[str]:
    """The names that a module has of its own at the top: functions, classes, constants."""
    names = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    return names | {name.id for node in tree.body if isinstance(node, (ast.Assign, ast.AnnAssign))
                    for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)}


def broken_promises(folder: Path) -> list[str]:
    """Names that a package promises and none of the modules it takes them from does, or that it takes and none has."""
    modules, wrong = read_house(folder), []
    packages = [name for name in modules if any(other.startswith(f"{name}.") for other in modules) and name]
    for package in packages:
        inside = [module for module in modules if module.startswith(f"{package}.")]
        own = {name: module for module in inside for name in promised(modules[module])}
        taken = {name: arrow.target for arrow in arrows(folder) if arrow.source == package for name in arrow.names}
        for name in sorted(promised(modules[package])):
            home = taken.get(name, own.get(name))
            if home is None or name not in promised(modules[home]):
                wrong.append(f"{package} promises {name}, and {home or 'no module of it'} does not")
        wrong += [f"{package} takes {name} from {home}, which has no such name" for name, home in sorted(taken.items())
                  if name not in defined(modules[home]) | promised(modules[home]) | promised(modules[package])]
    return wrong


@pytest.mark.slow
def test_a_package_promises_what_its_modules_promise():
    assert broken_promises(HOUSE) == []


def test_a_promise_that_nobody_keeps_is_noticed(tmp_path):
    house = made_up(tmp_path, data__items="__all__ = ['get']\ndef get(): ...\ndef helper(): ...")
    (house / "data" / "__init__.py").write_text(
        "from .items import get, helper, gone\n__all__ = ['get', 'helper', 'lost']")
    assert broken_promises(house) == [
        "data promises helper, and data.items does not", "data promises lost, and no module of it does not",
        "data takes gone from data.items, which has no such name"]


# ---- private names stay in their room

def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def private_names_taken(folder: Path) -> list[str]:
    """Underscore names that a module takes from another room: imported, or asked of a module that it has imported."""
    modules = read_house(folder)
    wrong = [f"{arrow.source} takes {name} from {arrow.target}" for arrow in arrows(folder)
             for name in arrow.names if is_private(name) and arrow.rooms[0] != arrow.rooms[1]]
    for source, tree in modules.items():
        bound = {}  # names in this module that stand for a module of ours
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                bound |= {alias.asname: alias.name.removeprefix("course_lib.") for alias in node.names
                          if alias.asname and alias.name.startswith("course_lib.")}
            elif isinstance(node, ast.ImportFrom):
                target = absolute(node.module or "", node.level, source, modules)
                bound |= {alias.asname or alias.name: inner for alias in node.names if target is not None
                          and (inner := f"{target}.{alias.name}".removeprefix(".")) in modules}
        for node in ast.walk(tree):
            owner, name = "", ""
            if isinstance(node, ast.Attribute):
                owner, name = ast.unparse(node.value), node.attr
            elif (isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr") and len(node.args) > 1
                  and isinstance(node.args[1], ast.Constant)):
                owner, name = ast.unparse(node.args[0]), str(node.args[1].value)
            home = bound.get(owner, owner.removeprefix("course_lib.") if owner.startswith("course_lib.") else "")
            if is_private(name) and home and home.partition(".")[0] != source.partition(".")[0]:
                wrong.append(f"{source} takes {name} from {home}")
    return sorted(set(wrong))


def test_no_room_takes_private_names_of_another():
    assert private_names_taken(HOUSE) == []


@pytest.mark.parametrize("source, wrong", [
    ("from ..data.items import _rows", ["tuning.trials takes _rows from data.items"]),
    ("from ..data import items\nitems._rows()", ["tuning.trials takes _rows from data.items"]),
    ("def late():\n    import course_lib.data.items as i\n    i._rows", ["tuning.trials takes _rows from data.items"]),
    ("import course_lib.data.items\ncourse_lib.data.items._rows()", ["tuning.trials takes _rows from data.items"]),
    ("from ..data import items\ngetattr(items, '_rows', None)", ["tuning.trials takes _rows from data.items"]),
    ("from ..data import items\nfrom .search import _mine\nitems.__name__\nself._own", [])])
def test_a_private_name_that_leaves_its_room_is_noticed(tmp_path, source, wrong):
    house = made_up(tmp_path, data__items="_rows = 1", tuning__search="_mine = 1", tuning__trials=source)
    assert private_names_taken(house) == wrong
