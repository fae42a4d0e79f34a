"""Measure the course on this machine, and write what was measured to course_lib/results/QUESTION.json.

    python benchmarks/run.py            all questions
    python benchmarks/run.py step       some of: step, train, train_256_5, pets, experiments

`step` runs on a GPU where there is one. `pets` needs the pets sample, any folder in the layout of the Oxford-IIIT Pets,
named by COURSELIB_SAMPLE_PETS; without it, it is left out. The same work beside other libraries is in peers/, the
comparison of lesson 05 in strategies.py, the search for a recipe in recipes.py.
Each result names the machine and the versions. Timings are medians; ratios compare what ran in turns, in one run.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from frame import PETS, arguments, record, run_python

STEP = """
import statistics, sys, time
size, steps, compiled = int(sys.argv[1]), int(sys.argv[2]), "compiled" in sys.argv
import timm, torch, torchvision
from course_lib.app.bench import synchronize
from course_lib.learner import Callback, Learner, error_rate
from course_lib.models import create_classifier
from course_lib.settings import choose_device, seed_everything
seed_everything(42)
device, layout = choose_device("auto"), torch.channels_last
steps = steps if device.type == "cpu" else 25 * steps
model = create_classifier("efficientnet_lite0", 37).to(device, memory_format=layout)
if compiled: model.compile()
x, y = torch.randn(32, 3, size, size).to(device, memory_format=layout), torch.randint(37, (32,), device=device)
seconds = []

class Timed(Callback):
    def before_epoch(self, learner): synchronize(device); self.begin = time.perf_counter()
    def after_epoch(self, learner): synchronize(device); seconds.append(time.perf_counter() - self.begin)

Learner(model, [(x, y)] * steps, metrics=[error_rate], device=device, callbacks=[Timed()], progress=False).fit(3, 1e-6)
first, *later = seconds
_out = dict(speeds=[32 * steps / s for s in later], first=max(first - statistics.median(later), 0), device=str(device))
"""


def bench_step(rounds: int = 3, steps: int = 4, image_size: int = 224) -> dict:
    """The training step of our Learner as it is and with torch.compile: nothing frozen, a batch in memory, AdamW.

    Compiling took as much as the first epoch takes longer, on an empty cache. Each in a new process, in turns.
    """
    kinds: dict[str, tuple[str, ...]] = {"course_lib": (), "compiled": ("compiled",)}
    runs: dict[str, list[dict]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, words in kinds.items():
            with tempfile.TemporaryDirectory() as cache:
                os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
                try:
                    runs[name].append(run_python(STEP, str(image_size), str(steps), *words))
                except RuntimeError as error:
                    if name != "compiled":
                        raise
                    print(f"step: torch.compile is left out: {str(error).strip().splitlines()[-1]}")
    os.environ.pop("TORCHINDUCTOR_CACHE_DIR", None)
    speeds = {name: [speed for run in each for speed in run["speeds"]] for name, each in runs.items() if each}
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    result = {"device": runs["course_lib"][0]["device"], "rounds": rounds,
              "images_per_second": {name: round(value, 2) for name, value in medians.items()},
              "all": {name: [round(speed, 2) for speed in values] for name, values in speeds.items()}}
    if "compiled" in medians:
        saved = 1 / medians["course_lib"] - 1 / medians["compiled"]
        took = statistics.median(run["first"] for run in runs["compiled"])
        result["compile"] = {"ratio": round(medians["compiled"] / medians["course_lib"], 2), "seconds": round(took, 1),
                             "earned_back_after_images": round(took / saved) if saved > 0 else None}
    return {**result, "what": f"EfficientNet-Lite0, 37 classes, nothing frozen, batch 32, {image_size} px"}


TRAIN = """
import sys, json, tempfile
from course_lib.settings import load_settings
from course_lib.app.train import train_classifier
changes = json.loads(sys.argv[2])
settings = load_settings(environ={}, **json.loads(sys.argv[1]))
import time; t = time.perf_counter()
result = train_classifier(settings, output=tempfile.mkdtemp(), **changes)
_out = dict(result.metrics, seconds=round(result.seconds, 1),
            mixed_precision=json.loads((result.folder / "metrics.json").read_text())["mixed_precision"])
"""


def bench_train(seeds: tuple[int, ...] = (42, 43, 44), **changes: int | bool) -> dict:
    """`course train` on all cells of elpv, divided by chance as it was published, with its defaults or `changes`:
    error, time and peak memory; the first run builds the image cache and measures what pays.
    """
    changes = {"official_split": False} | changes
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for seed in seeds:
            started = time.perf_counter()
            runs.append(run_python(TRAIN, json.dumps({"seed": seed, "data_dir": folder}), json.dumps(changes))
                        | {"seed": seed})
            runs[-1]["process_seconds"] = round(time.perf_counter() - started, 1)
    errors, pairs = [r["validation_error"] for r in runs], [r["two_class_accuracy"] for r in runs]
    return {"changes": changes, "mean_error": round(statistics.mean(errors), 4),
            "spread": round(statistics.stdev(errors), 4),
            "mean_two_class_accuracy": round(statistics.mean(pairs), 4), "runs": runs,
            "reported": {"Deitsch et al. 2019, CNN": 0.8842}}


def bench_pets(seeds: tuple[int, ...] = (42, 43, 44)) -> dict | None:
    """`course train` on the pets sample: 6 training photos a breed, 37 breeds, 74 test photos."""
    if not PETS.is_dir():
        print(f"pets: left out; there is no folder {PETS}.")
        return None
    with tempfile.TemporaryDirectory() as folder:
        runs = [run_python(TRAIN, json.dumps({"seed": seed, "data_dir": folder, "dataset": str(PETS)}), "{}")
                | {"seed": seed} for seed in seeds]
    errors = [r["validation_error"] for r in runs]
    return {"mean_error": round(statistics.mean(errors), 4), "spread": round(statistics.stdev(errors), 4),
            "runs": [{k: v for k, v in run.items() if k != "error_per_class"} for run in runs]}


EXPERIMENT = """
import sys, time
from pathlib import Path
from course_lib import tuning
import optuna, sqlalchemy.dialects.sqlite, scipy.stats, tqdm.auto  # imports are not what is timed
place, work = Path(sys.argv[1]), float(sys.argv[2])
calls = []
def note(kind, *what):
    calls.append(what)
    with open(place / f"{kind}.log", "a") as log:
        log.write(f"{what}\\n")
    time.sleep(work)
    return {"error": 0.1}
def of_grid(lr, *, seed): return note("grid", lr, seed)
def drawn(x, *, seed): return note("search", x)
configs, space = tuning.grid(lr=[1, 2, 3, 4]), {"x": tuning.uniform(0.0, 1.0)}
t = time.perf_counter()
found = tuning.run_experiment(of_grid, configs, seeds=range(5), path=place / "grid.jsonl")
after_grid = time.perf_counter()
study = tuning.search(drawn, space, path=place / "search.sqlite", trials=20, value="error", sampler="random")
_out = dict(grid_seconds=after_grid - t, search_seconds=time.perf_counter() - after_grid, calls=len(calls),
            rows=len(found.rows), trials=len(study.trials))
"""


def bench_experiments(rounds: int = 5, processes: int = 4) -> dict:
    """Four processes at once on one file and one storage; then a finished experiment and search resumed."""
    with tempfile.TemporaryDirectory() as folder:
        together = [subprocess.Popen([sys.executable, "-c", EXPERIMENT, folder, "0.1"]) for _ in range(processes)]
        if any(process.wait() for process in together):
            raise RuntimeError("a process failed")
        ran = {kind: (Path(folder) / f"{kind}.log").read_text().splitlines() for kind in ("grid", "search")}
        again = [run_python(EXPERIMENT, folder, "0.1") for _ in range(rounds)]
    return {
        "processes": processes, "wanted": 20, "rounds": rounds,
        "ran": {kind: len(lines) for kind, lines in ran.items()},
        "repeated": {kind: len(lines) - len(set(lines)) for kind, lines in ran.items()},
        "lost": {"grid": 20 - again[0]["rows"], "search": 20 - again[0]["trials"]},
        "started_again": max(run["calls"] for run in again),
        "resume_seconds": {kind: round(statistics.median(run[f"{kind}_seconds"] for run in again), 3)
                           for kind in ("grid", "search")}}


QUESTIONS: dict[str, Callable[[], dict | None]] = {
    "step": bench_step, "train": bench_train, "pets": bench_pets, "experiments": bench_experiments,
    "train_256_5": lambda: bench_train(image_size=256, epochs=5)}


def main() -> None:
    asked = arguments(__doc__, QUESTIONS)
    for name in asked.wanted:
        if found := QUESTIONS[name]():
            print(json.dumps(record(name, found, asked.output), indent=1))


if __name__ == "__main__":
    main()
