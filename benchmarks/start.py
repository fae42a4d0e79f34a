"""How long it takes until something happens, and what it waits for: start.json.

    python benchmarks/start.py             all of it; some of: command, training, lesson, lab,
                                           installation

`command`: a new Python, its imports, and `course --help`. `training`: `course train` in the profile laptop, from the
command to its first step, each of its lines with the second in which it came; with an empty data folder, and again.
`lesson`: a new kernel, and the first code cell of lesson 0. `lab`:
`course lab` until it answers. Medians of several rounds; the training is run once in each way. `installation`: the
course for a student, and with what `make` adds for work on it, from the network and again from uv's cache; once each.
"""

import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from frame import ROOT, arguments, code_cells, record

COURSE = shutil.which("course", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}") or "course"
COMMANDS = {
    "python": [sys.executable, "-c", "pass"],
    "import torch": [sys.executable, "-c", "import torch"],
    "import course_lib": [sys.executable, "-c", "import course_lib"],
    "import course_lib.learner": [sys.executable, "-c", "import course_lib.learner"],
    "course --help": [COURSE, "--help"]}
STEPS = {  # how a line of `course train` begins, and what has been done when it comes
    "Training ": "imports", "Frozen part": "images stored at their size, features computed",
    "Speed: ": "a few steps tried in float32 and bf16", "Results go to": "the time estimated"}


def seconds_of(words: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(words, check=True, capture_output=True)
    return time.perf_counter() - start


def ask_command(rounds: int = 5) -> dict:
    """Seconds of each command, in turns, after a first round that fills the system's file cache."""
    found: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds + 1):
        for name, words in COMMANDS.items():
            found[name].append(seconds_of(words))
    return {"rounds": rounds, "seconds": {name: round(statistics.median(times[1:]), 3)
                                          for name, times in found.items()}}


def seconds_to_first_step(data: Path) -> dict[str, float]:
    """What a training waited for, in seconds, until its first step; the training is then stopped."""
    start, before, found = time.perf_counter(), 0.0, {}
    with tempfile.TemporaryDirectory() as runs, subprocess.Popen(
            [COURSE, "train", "--dataset", "elpv", "--profile", "laptop", "--data-dir", str(data), "--output",
             f"{runs}/out"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"}) as process:
        for line in process.stdout or ():
            now = time.perf_counter() - start
            if name := next((name for begins, name in STEPS.items() if line.startswith(begins)), ""):
                found[name], before = round(now - before, 1), now
            if "epoch" in line:  # the head of the table, or the first word of a bar
                break
        process.send_signal(signal.SIGINT)
        process.communicate()
    return found | {"all": round(before, 1)}


def ask_training() -> dict:
    with tempfile.TemporaryDirectory() as folder:
        return {"first": seconds_to_first_step(Path(folder)), "again": seconds_to_first_step(Path(folder))}


def ask_lesson(rounds: int = 3) -> dict:
    """A kernel as Jupyter starts it, and the cells of lesson 0 in it."""
    from jupyter_client.manager import start_new_kernel

    sources = code_cells(next((ROOT / "nbs").glob("00_*.ipynb")))
    found: dict[str, list[float]] = {"the kernel": [], "the first cell": []}
    for _ in range(rounds + 1):
        start = time.perf_counter()
        manager, client = start_new_kernel(cwd=str(ROOT / "nbs"))
        found["the kernel"].append(time.perf_counter() - start)
        try:
            start = time.perf_counter()
            reply = client.execute_interactive(sources[0], timeout=300, output_hook=lambda message: None)
            found["the first cell"].append(time.perf_counter() - start)
            assert reply["content"]["status"] == "ok", reply["content"]
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
    return {"rounds": rounds, "seconds": {name: round(statistics.median(times[1:]), 2)
                                          for name, times in found.items()}}


def seconds_to_lab() -> float:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = time.perf_counter()
    environ = {**os.environ, "JUPYTER_PORT": str(port), "JUPYTER_TOKEN": "start"}
    with subprocess.Popen([COURSE, "lab", "--no-browser"], env=environ, cwd=ROOT, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as process:
        try:
            while time.perf_counter() - start < 120:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/lab?token=start", timeout=5) as answer:
                        if answer.status == 200:
                            return time.perf_counter() - start
                except OSError:
                    time.sleep(0.05)
            raise RuntimeError("JupyterLab did not answer within two minutes.")
        finally:
            process.terminate()


def ask_lab(rounds: int = 3) -> dict:
    times = [seconds_to_lab() for _ in range(rounds + 1)]
    return {"rounds": rounds, "seconds": round(statistics.median(times[1:]), 2)}


def bytes_below(folder: Path) -> int:
    """On the disk; a file that has several names counts once."""
    found = {(info.st_dev, info.st_ino): info.st_size for path in folder.rglob("*") if not path.is_symlink()
             and path.is_file() for info in [path.stat()]}
    return sum(found.values())


def ask_installation() -> dict:
    uv, found = str(Path(sys.executable).with_name("uv")), {}
    with tempfile.TemporaryDirectory() as folder:
        place, environ = Path(folder), {**os.environ, "UV_CACHE_DIR": f"{folder}/cache", "UV_LINK_MODE": "copy"}
        for name, what in (("a student", "."), ("with dev", ".[dev]")):
            found[name] = {}
            for when in ("from the network", "from the cache"):
                venv = place / "venv"
                start = time.perf_counter()
                subprocess.run([uv, "venv", "--quiet", "--clear", str(venv)], check=True, env=environ)
                subprocess.run([uv, "pip", "install", "--quiet", "--python", str(venv), "--constraint",
                                "constraints.txt", "--editable", what], check=True, env=environ, cwd=ROOT)
                found[name][f"seconds {when}"] = round(time.perf_counter() - start, 1)
            packages = sorted(path for path in venv.glob("lib/*/site-packages/*") if path.is_dir())
            sizes = {path.name: bytes_below(path) for path in packages}
            found[name] |= {"megabytes": round(bytes_below(venv) / 1e6),
                            "largest": {each: round(size / 1e6) for each, size in sorted(
                                sizes.items(), key=lambda pair: -pair[1])[:10]}}
            shutil.rmtree(place / "cache")
    return found


QUESTIONS = {"command": ask_command, "training": ask_training, "lesson": ask_lesson, "lab": ask_lab,
             "installation": ask_installation}


def main() -> None:
    asked = arguments(__doc__, QUESTIONS)
    path = asked.output / "start.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    kept = {name: before[name] for name in QUESTIONS if name in before}
    found = kept | {name: QUESTIONS[name]() for name in asked.wanted}
    print(json.dumps(record("start", {name: found[name] for name in QUESTIONS if name in found}, asked.output),
                     indent=1))


if __name__ == "__main__":
    main()
