"""Everything `make test` runs, one step after another, each with its time. Plain Python, so that it runs anywhere.

    python tests/run_all.py             what `make test` runs, and CI
    python tests/run_all.py --quick     what `make check` runs: no notebooks, and no test that is marked `slow`
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
WORKERS = "2"
# One thread for each of the two processes: more would only wait for one another on two cores.
ENVIRON = {"OMP_NUM_THREADS": "1", "COURSE_DATA_DIR": str(ROOT / "data"), **os.environ, "COURSE_PROFILE": "test",
           "PYTHONWARNINGS": "default::DeprecationWarning:course_lib"}


def tracked_notebooks() -> dict[Path, bytes]:
    files = [*ROOT.glob("nbs/**/*.ipynb"), *ROOT.glob("course_lib/**/*.py")]
    return {p: p.read_bytes() for p in sorted(files) if ".ipynb_checkpoints" not in p.parts}


def export_and_clean() -> bool:
    """The exported modules and the cleaned notebooks must be what is in the repository, byte for byte."""
    before = tracked_notebooks()
    for tool in ("nbdev-export", "nbdev-clean"):
        subprocess.run([BIN / tool], cwd=ROOT, env=ENVIRON, check=True)
    after = tracked_notebooks()
    changed = sorted(p for p in before.keys() | after.keys() if before.get(p) != after.get(p))
    for path in changed:
        print(f"  {path.relative_to(ROOT)} changes when notebooks are exported and cleaned: commit the result")
    return not changed


def command(*words: str, cwd: Path = ROOT, **environ: str) -> bool:
    return subprocess.run([str(BIN / words[0]), *words[1:]], cwd=cwd, env={**ENVIRON, **environ}).returncode == 0


def notebooks() -> bool:
    """The library and the pages where they are; lessons and exams as `course pack` hands them out, solved.

    Those are all that it packs but for stubs: they run in an empty folder, with a copy of the package and nothing else
    of the course.
    """
    test = ("nbdev-test", "--n-workers", WORKERS, "--timing")
    here = command(*test, "--path-re", "/nbs/(library|pages|practice)/|/nbs/index")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve()
        packed, installed = place / "pack" / "solutions", place / "installed"
        shutil.copytree(ROOT / "course_lib", installed / "course_lib", ignore=shutil.ignore_patterns("__pycache__"))
        if not command("course", "pack", "--output", str(place / "pack")):
            return False
        for stub in [*place.glob("pack/students/00*.ipynb"), *place.glob("pack/exam/*.ipynb")]:
            shutil.copy(stub, packed / f"stub_{stub.name}")
        return command(*test, ".", cwd=packed, PYTHONPATH=str(installed)) and here


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the checks and tests of the course.")
    parser.add_argument("--quick", action="store_true", help="leave out the notebooks and what is marked slow")
    quick = parser.parse_args().quick
    chosen = ["-m", "not slow"] if quick else []
    steps = {
        "export and clean": export_and_clean,
        "ruff": lambda: command("ruff", "check", "."),
        "mypy": lambda: command("mypy"),
        "notebooks": notebooks,
        "pytest": lambda: command("pytest", "-n", WORKERS, "--dist", "worksteal", *chosen),
    }
    if quick:
        del steps["notebooks"]
    failed = []
    for name, step in steps.items():
        print(f"== {name}", flush=True)
        started = time.perf_counter()
        if not step():
            failed.append(name)
        outcome = "FAILED" if name in failed else "passed"
        print(f"== {name}: {outcome} in {time.perf_counter() - started:.0f} s", flush=True)
    print(f"Failed: {', '.join(failed)}." if failed else "All passed.")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
