"""What all benchmarks share: arguments, where results go, what is written beside a figure, going on after a stop, and
the cells of a lesson.

A benchmark is `python benchmarks/NAME.py [QUESTION ...] [--output FOLDER]`. A figure is a JSON file with the machine
and the versions that it was measured with (`record`); what takes hours is a file of JSON lines, one for each piece of
work that is finished (`Rows`). Where the code of a lesson is measured, its cells are found by the names that they
define (`run_cells`), so that sentences and comments in a lesson may change.
"""

import argparse
import ast
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from course_lib.core.device import describe_machine
from course_lib.core.files import append_line, json_object, write_text
from course_lib.settings import load_settings
from course_lib.teach.results import read_results
from course_lib.teach.runner import find_lessons, run_course

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "course_lib" / "results"
PETS = Path(os.environ.get("COURSELIB_SAMPLE_PETS", ROOT / "data" / "oxford-iiit-pet"))
PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow")


# ---- what is asked

def arguments(
    doc: str,
    choices: Iterable[str],  # what may be asked for
    *,
    noun: str = "question",
    default: Sequence[str] | None = None,  # what is meant when nothing is asked for; by default all
    output: Path | None = RESULTS,  # where --output starts from; None: no such option
    kind: Callable[[str], str] = str,  # makes "3" the lesson "03"
    flags: Mapping[str, str] | None = None,  # more options, on or off, and what each says of itself
) -> argparse.Namespace:
    """The command line: `wanted`, a list of what is asked for, `output` and the flags. `doc` is what --help shows."""
    choices = list(choices)
    words = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if choices:
        words.add_argument("wanted", nargs="*", metavar=noun.upper(), type=kind, help=f"some of: {', '.join(choices)}")
    if output is not None:
        words.add_argument("--output", type=Path, default=output, metavar="FOLDER", help=f"in place of {output}")
    for name, help in (flags or {}).items():
        words.add_argument(f"--{name}", action="store_true", help=help)
    asked = words.parse_args()
    if unknown := [word for word in getattr(asked, "wanted", []) if word not in choices]:
        sys.exit(f"There is no {noun} {', '.join(unknown)}. There are: {', '.join(choices)}.")
    asked.wanted = getattr(asked, "wanted", []) or list(choices if default is None else default)
    return asked


# ---- what is written

def stamp(packages: Sequence[str] = PACKAGES) -> dict:
    """The machine and the versions, for writing beside a figure; a package that is not installed is left out."""
    found = {"python": sys.version.split()[0]}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"machine": describe_machine(), "versions": found}


def record(name: str, result: dict, folder: Path = RESULTS, packages: Sequence[str] = PACKAGES) -> dict:
    """Write `result` as the file of its question, in one step, and give back what is in it."""
    result = {"question": name, **stamp(packages), **result}
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{name}.json", json.dumps(result, indent=1) + "\n")
    return result


class Rows:
    """A file of JSON lines, each about what its `keys` name; a run that was stopped goes on from it.

    A line that was cut off says nothing, and what it was about is done again.
    """

    def __init__(self, path: Path, *keys: str):
        self.path, self.keys = path, keys

    def read(self) -> list[dict]:
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        return [row for row in map(json_object, lines) if row.keys() >= set(self.keys)]

    def done(self, *values: object) -> bool:
        """Is there a row with these values of the keys?"""
        return any(tuple(row[key] for key in self.keys) == values for row in self.read())

    def add(self, *rows: dict) -> None:
        """Write rows to the end, all at once, so that a stop does not come between them."""
        if rows:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            append_line(self.path, "\n".join(map(json.dumps, rows)))

    def replace(self, row: dict) -> None:
        """Write a row in place of older ones about the same."""
        old = [each for each in self.read() if any(each[key] != row[key] for key in self.keys)]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, "".join(json.dumps(each) + "\n" for each in (*old, row)))


# ---- what is run

def run_python(code: str, *arguments: str) -> dict:
    """What `code` leaves in `_out`, run in a new process, and the process's peak memory in GB."""
    tail = ("\nimport json as _json, resource, sys\nprint()\nprint(_json.dumps(dict(_out, peak_gb=round("
            "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**(30 if sys.platform == 'darwin' else 20), 3))))")
    done = subprocess.run([sys.executable, "-c", code + tail, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-3000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def run_lesson(number: str, profile: str, seed: int, environ: Mapping[str, str] | None = None) -> list[dict]:
    """The rows that a lesson records when it runs in a kernel and a folder of its own, with more variables."""
    settings = load_settings(profile=profile, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        variables = {"COURSE_PROFILE": profile, "COURSE_SEED": str(seed), **(environ or {})}  # for the kernel
        [lesson], run_folder = run_course(settings, [find_lessons(ROOT / "nbs")[number]], folder, variables)
        rows = [row for row in read_results(run_folder / "results.jsonl") if row["lesson"] == number]
    if lesson.error:
        sys.exit(f"Lesson {number} with seed {seed} did not run to its end: {lesson.error}")
    return rows


def defined_in(source: str) -> set[str]:
    """The functions, classes and variables that a cell defines, also within its `if`, `for` and `with`."""
    names: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(source)]
    inner = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)  # their names stay within
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif not isinstance(node, inner):
            waiting += ast.iter_child_nodes(node)
    return names


def code_cells(notebook: Path) -> list[str]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def find_cells(notebook: Path, names: Sequence[str]) -> list[str]:
    """A lesson's imports, and the cell that defines each of the names; what is exported comes from its module.

    Raises: `ValueError` for a name that no cell defines, or more than one.
    """
    sources = [source for source in code_cells(notebook) if not source.startswith("#| export")]
    places = {}
    for name in names:
        found = [place for place, source in enumerate(sources) if name in defined_in(source)]
        if len(found) != 1:
            raise ValueError(f"{len(found)} cells of {notebook.name} define {name!r}. Name something that one cell, "
                             "and no other, defines.")
        places[name] = found[0]
    imports = [ast.unparse(node) for source in sources[:max(places.values()) + 1] for node in ast.parse(source).body
               if isinstance(node, (ast.Import, ast.ImportFrom))]
    return ["\n".join(dict.fromkeys(imports)), *(sources[place] for place in dict.fromkeys(places.values()))]


def run_cells(notebook: Path, names: Sequence[str]) -> dict:
    """The names of a lesson after the cells that define `names`, in this order, with measuring switched on."""
    os.environ.update(COURSELIB_MEASURE="1", COURSE_PROFILE="laptop")
    os.chdir(notebook.parent)
    [module] = [line.split()[-1] for source in code_cells(notebook) for line in source.splitlines()
                if line.startswith("#| default_exp ")]
    exported = vars(importlib.import_module(f"course_lib.{module}"))
    found = {name: value for name, value in exported.items() if not name.startswith("__")} | {"__name__": "__main__"}
    for source in find_cells(notebook, names):
        exec(compile(source, str(notebook), "exec"), found)
    return found
