"""Measure the course on this machine, and write what was measured to benchmarks/results/.

    python benchmarks/run.py            all questions
    python benchmarks/run.py import     one of: import, pipeline, step, finder, finetune, train, train_256_5, pets,
                                        experiments

`pipeline`, `finder` and `finetune` need fastai (`make bench` installs it) and the pets sample; `pets` needs the sample.
`step` compares with fastai where it is installed, and runs on a GPU where there is one.
The sample is any folder in the layout of the Oxford-IIIT Pets, named by COURSELIB_SAMPLE_PETS. What is missing is said
and left out. The comparison of lesson 05 and the search for a recipe are scripts of their own: strategies.py and
recipes.py.
Each result names the machine and the versions. Timings are medians; ratios compare what ran in turns, in one run.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PETS = Path(os.environ.get("COURSELIB_SAMPLE_PETS", HERE.parent / "data" / "oxford-iiit-pet"))


def versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for name in ("torch", "torchvision", "timm", "numpy", "pillow", "fastai"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def record(question: str, result: dict) -> None:
    from course_lib.runner import describe_machine

    result = {"question": question, "machine": describe_machine(), "versions": versions(), **result}
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{question}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def run_python(code: str, *arguments: str) -> dict:
    """Run `code` in a fresh process; its last printed line is JSON. Adds the process's peak memory in GB."""
    tail = ("\nimport resource, json as _json\nprint()\nprint(_json.dumps(dict(_out, peak_gb=round("
            "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2))))")
    done = subprocess.run([sys.executable, "-c", code + tail, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def bench_import(rounds: int = 5) -> None:
    """`import course_lib.learner` beside `import torch`, in turns, each in a new process."""
    seconds: dict[str, list[float]] = {"torch": [], "course_lib.learner": []}
    for _ in range(rounds):
        for name, times in seconds.items():
            code = f"import time; t = time.perf_counter(); import {name}; _out = dict(s=time.perf_counter() - t)"
            times.append(run_python(code)["s"])
    medians = {name: round(statistics.median(times), 3) for name, times in seconds.items()}
    record("import", {"seconds": medians, "rounds": rounds,
                      "ratio": round(medians["course_lib.learner"] / medians["torch"], 3)})


OURS = """
import sys, time
from course_lib.data import get_items, presize, make_loaders
items = get_items(sys.argv[1], sys.argv[2], announce=False)
presized = presize(items, 256, sys.argv[2], progress=False)
loader = make_loaders(presized, image_size=224, batch_size=32, mean=(.5,) * 3, std=(.5,) * 3).train
rates = []
for epoch in range(6):
    t = time.perf_counter(); n = sum(len(x) for x, y in loader); rates.append(n / (time.perf_counter() - t))
_out = dict(rates=rates[1:])
"""

FASTAI = """
import sys, time
from fastai.vision.all import *
def label(path): return path.name.rsplit("_", 1)[0]
def is_valid(path): return path.name in held_out
folder = Path(sys.argv[1])
held_out = {line.split()[0] + ".jpg" for line in open(folder / "annotations" / "test.txt")}
block = DataBlock(blocks=(ImageBlock, CategoryBlock), get_items=get_image_files, splitter=FuncSplitter(is_valid),
                  get_y=label, item_tfms=Resize(256), batch_tfms=aug_transforms(size=224, min_scale=0.75))
loader = block.dataloaders(folder / "images", bs=32, num_workers=2).train
rates = []
for epoch in range(6):
    t = time.perf_counter(); n = sum(len(x) for x, y in loader); rates.append(n / (time.perf_counter() - t))
_out = dict(rates=rates[1:])
"""


def bench_pipeline(rounds: int = 2) -> None:
    """Augmented training batches a second at 224 px from a warm start: ours, and fastai with two workers, in turns."""
    if not PETS.is_dir() or "fastai" not in versions():
        print("pipeline: left out; it needs fastai and the pets sample (see --help).")
        return
    rates: dict[str, list[float]] = {"course_lib": [], "fastai": []}
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(rounds):
            rates["course_lib"] += run_python(OURS, str(PETS), cache)["rates"]
            rates["fastai"] += run_python(FASTAI, str(PETS))["rates"]
    medians = {name: round(statistics.median(values), 1) for name, values in rates.items()}
    record("pipeline", {"images_per_second": medians, "all": {k: [round(v, 1) for v in vs] for k, vs in rates.items()},
                        "ratio": round(medians["course_lib"] / medians["fastai"], 2),
                        "what": "pets sample, 222 training images, batch 32, 224 px, augmented, after a first epoch"})


STEP = """
import os, statistics, sys, time
size, steps, layout, compiled = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], "compiled" in sys.argv
import timm, torch, torchvision
from course_lib.bench import synchronize
from course_lib.models import create_classifier
from course_lib.settings import choose_device, seed_everything
seed_everything(42)
device, layout = choose_device("auto"), getattr(torch, layout)
steps = steps if device.type == "cpu" else 25 * steps
model = create_classifier("efficientnet_lite0", 37).to(device, memory_format=layout)
if compiled: model.compile()
x, y = torch.randn(32, 3, size, size).to(device, memory_format=layout), torch.randint(37, (32,), device=device)
seconds = []

class Watch:
    def start(self): synchronize(device); self.begin = time.perf_counter()
    def stop(self): synchronize(device); seconds.append(time.perf_counter() - self.begin)
"""

STEP_OURS = STEP + """
from course_lib.learner import Callback, Learner, error_rate
class Timed(Callback, Watch):
    def before_epoch(self, learner): self.start()
    def after_epoch(self, learner): self.stop()
Learner(model, [(x, y)] * steps, metrics=[error_rate], device=device, callbacks=[Timed()], progress=False).fit(3, 1e-6)
"""

STEP_FASTAI = STEP + """
from fastai.vision.all import Callback, DataLoaders, Learner, error_rate, nn
class Timed(Callback, Watch):
    def before_train(self): self.start()
    def after_train(self): self.stop()
learner = Learner(DataLoaders([(x, y)] * steps, [(x, y)]), model, nn.CrossEntropyLoss(), metrics=error_rate,
                  splitter=lambda model: model.parameter_groups(), cbs=Timed())
with learner.no_bar(), learner.no_logging(): learner.fit(3, 1e-6)
"""

STEP_END = """
first, *later = seconds
_out = dict(rates=[32 * steps / s for s in later], first=max(first - statistics.median(later), 0), device=str(device))
"""


def bench_step(rounds: int = 3, steps: int = 4, image_size: int = 224) -> None:
    """The training step of our Learner beside fastai's: same model, same batch in memory, nothing frozen, AdamW.

    fastai as it comes, in contiguous memory, and given `channels_last`; no progress bars. Ours also with torch.compile,
    whose time is what the first epoch takes longer, on an empty cache. Each in a new process, in turns.
    """
    kinds = {"course_lib": (STEP_OURS, "channels_last"), "compiled": (STEP_OURS, "channels_last", "compiled")}
    if "fastai" in versions():
        kinds |= {"fastai": (STEP_FASTAI, "contiguous_format"), "fastai channels_last": (STEP_FASTAI, "channels_last")}
    else:
        print("step: without fastai, which `make bench` installs.")
    runs: dict[str, list[dict]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, (code, *words) in kinds.items():
            with tempfile.TemporaryDirectory() as cache:
                os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
                try:
                    runs[name].append(run_python(code + STEP_END, str(image_size), str(steps), *words))
                except RuntimeError as error:
                    if name != "compiled":
                        raise
                    print(f"step: torch.compile is left out: {str(error).strip().splitlines()[-1]}")
    os.environ.pop("TORCHINDUCTOR_CACHE_DIR", None)
    rates = {name: [rate for run in each for rate in run["rates"]] for name, each in runs.items() if each}
    medians = {name: statistics.median(values) for name, values in rates.items()}
    result = {"device": runs["course_lib"][0]["device"], "rounds": rounds,
              "images_per_second": {name: round(value, 2) for name, value in medians.items()},
              "all": {name: [round(rate, 2) for rate in values] for name, values in rates.items()},
              "ratio": {f"to {name}": round(medians["course_lib"] / medians[name], 2)
                        for name in medians if name.startswith("fastai")}}
    if "compiled" in medians:
        saved = 1 / medians["course_lib"] - 1 / medians["compiled"]
        took = statistics.median(run["first"] for run in runs["compiled"])
        result["compile"] = {"ratio": round(medians["compiled"] / medians["course_lib"], 2), "seconds": round(took, 1),
                             "earned_back_after_images": round(took / saved) if saved > 0 else None}
    record("step", {**result, "what": f"EfficientNet-Lite0, 37 classes, nothing frozen, batch 32, {image_size} px"})


SHARED = """
import sys, time, json, tempfile
from pathlib import Path
import timm, torchvision  # what both need, so that no clock measures an import
pets, seed, what = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
cache = tempfile.TemporaryDirectory()

class Clock:
    def __enter__(self): self.start = time.perf_counter(); return self
    def __exit__(self, *error): self.seconds = round(time.perf_counter() - self.start, 3)
"""

OURS_LEARNER = SHARED + """
from course_lib.data import get_items, make_loaders, presize
from course_lib import lr_finder
from course_lib.learner import Learner, error_rate
from course_lib.models import create_classifier
from course_lib.settings import seed_everything
from course_lib.transfer import fine_tune, fit_one_cycle, freeze
import math, shutil
lr_finder.DIVERGED = math.inf  # go through all rates, as fastai is told to

def make_learner(fresh=True):
    if fresh: shutil.rmtree(cache.name, ignore_errors=True)
    seed_everything(seed)
    classifier = create_classifier("efficientnet_lite0", 37)
    presized = presize(get_items(pets, cache.name, announce=False), 256, cache.name, progress=False)
    loaders = make_loaders(presized, image_size=224, batch_size=32, mean=classifier.body.mean,
                           std=classifier.body.std, seed=seed)
    return Learner(classifier, loaders.train, loaders.valid, metrics=[error_rate], progress=False)
"""

FASTAI_LEARNER = SHARED + """
from fastai.vision.all import *
from course_lib.models import create_classifier

def make_learner():
    set_seed(seed)
    classifier = create_classifier("efficientnet_lite0", 37).to(memory_format=torch.contiguous_format)
    held_out = {line.split()[0] + ".jpg" for line in open(Path(pets) / "annotations" / "test.txt")}
    block = DataBlock(blocks=(ImageBlock, CategoryBlock), get_items=get_image_files,
                      splitter=FuncSplitter(lambda path: path.name in held_out),
                      get_y=lambda path: path.name.rsplit("_", 1)[0], item_tfms=Resize(256),
                      batch_tfms=[*aug_transforms(size=224, min_scale=0.75),
                                  Normalize.from_stats(classifier.body.mean, classifier.body.std)])
    loaders = block.dataloaders(Path(pets) / "images", bs=32, num_workers=2)
    return Learner(loaders, classifier, splitter=lambda model: model.parameter_groups(), metrics=error_rate,
                   path=cache.name)
"""

FIND = """
_out = {}
for state in what:
    learner = make_learner()
    if state == "frozen": FREEZE
    with Clock() as clock: count = SWEEP
    _out[state] = {"seconds": clock.seconds, "iterations": count}
    if AGAIN and state == "frozen":
        with Clock() as clock: SWEEP
        _out["frozen, again"] = {"seconds": clock.seconds, "iterations": count}
"""
FIND_OURS = OURS_LEARNER + (FIND.replace("FREEZE", "freeze(learner)").replace("AGAIN", "True").replace(
    "SWEEP", "len(lr_finder.lr_find(learner, echo=lambda line: None).rates)"))
FIND_FASTAI = FASTAI_LEARNER + (FIND.replace("FREEZE", "learner.freeze()").replace("AGAIN", "False").replace(
    "SWEEP", "(learner.lr_find(stop_div=False, show_plot=False), len(learner.recorder.lrs))[1]"))


def have_peer(question: str) -> bool:
    if PETS.is_dir() and "fastai" in versions():
        return True
    print(f"{question}: left out; it needs fastai (`make bench` installs it) and the pets sample {PETS}.")
    return False


def bench_finder() -> None:
    """Learning-rate finder, all of 100 iterations, beside fastai's: the body frozen, and nothing frozen.

    One after the other in one run. Our frozen time includes computing the features, on an empty cache; `again` is
    with the features there. fastai runs as it comes: contiguous memory, BatchNorm of the frozen body learning.
    """
    if not have_peer("finder"):
        return
    rounds = [("course_lib", FIND_OURS), ("fastai", FIND_FASTAI)]
    runs: dict[str, list[dict]] = {"course_lib": [], "fastai": []}
    for name, code in rounds:
        runs[name].append(run_python(code, str(PETS), "42", "frozen", "unfrozen"))
    median = lambda name, state: statistics.median(run[state]["seconds"] for run in runs[name])
    ratios = {state: round(median("fastai", state) / median("course_lib", state), 1)
              for state in ("frozen", "unfrozen")}
    record("finder", {"ratio": ratios, "runs": runs,
                      "what": "pets sample, EfficientNet-Lite0, batch 32, 224 px, 100 iterations, seconds of lr_find"})


TUNE = """
with Clock() as clock:
    learner = make_learner()
    TUNED
error = ERROR
_out = {"seed": seed, "seconds": clock.seconds, "error": round(float(error), 4)}
if "epochs" in what:
    learner = make_learner()
    FROZEN
    _out["frozen_epochs"] = [round(float(t), 4) for t in EPOCHS]
"""
TUNE_OURS = (OURS_LEARNER + TUNE.replace("TUNED", "fine_tune(learner, 2)")
             .replace("ERROR", 'learner.results["error_rate"]')
             .replace("FROZEN", "freeze(learner); fit_one_cycle(learner, 6)")
             .replace("EPOCHS", '[row["seconds"] for row in learner.recorder.rows]'))
TUNE_FASTAI = FASTAI_LEARNER + """
class Timed(Callback):
    def before_fit(self): self.seconds = []
    def before_epoch(self): self.start = time.perf_counter()
    def after_epoch(self): self.seconds.append(time.perf_counter() - self.start)
""" + (
    TUNE.replace("TUNED", "learner.fine_tune(2)").replace("ERROR", "learner.recorder.values[-1][-1]")
    .replace("FROZEN", "timed = Timed(); learner.freeze(); learner.fit_one_cycle(3, cbs=timed)")
    .replace("EPOCHS", "timed.seconds"))


def bench_finetune(seeds: tuple[int, ...] = (42, 43, 44)) -> None:
    """`fine_tune(2)` with its defaults, from image files to the test error, beside fastai's, seed by seed in turns.

    Also the seconds of an epoch with the body frozen, after the first, in which ours computes the features. Ours
    starts from an empty cache every time.
    """
    if not have_peer("finetune"):
        return
    runs: dict[str, list[dict]] = {"course_lib": [], "fastai": []}
    for seed in seeds:
        for name, code in (("course_lib", TUNE_OURS), ("fastai", TUNE_FASTAI)):
            runs[name].append(run_python(code, str(PETS), str(seed), *(["epochs"] if seed == seeds[0] else [])))
    mean = {name: {key: round(statistics.mean(run[key] for run in each), 4) for key in ("seconds", "error")}
            for name, each in runs.items()}
    later = {name: statistics.median(each[0]["frozen_epochs"][1:]) for name, each in runs.items()}
    record("finetune", {"mean": mean, "ratio": round(mean["fastai"]["seconds"] / mean["course_lib"]["seconds"], 2),
                        "frozen_epoch_after_first": later, "runs": runs,
                        "frozen_epoch_ratio": round(later["fastai"] / later["course_lib"], 1),
                        "what": "pets sample, 222 training and 74 test photos, EfficientNet-Lite0, batch 32, 224 px"})


TRAIN = """
import sys, json, tempfile
from course_lib.settings import load_settings
from course_lib.training import train_classifier
changes = json.loads(sys.argv[2])
settings = load_settings(environ={}, **json.loads(sys.argv[1]))
import time; t = time.perf_counter()
result = train_classifier(settings, output=tempfile.mkdtemp(), **changes)
_out = dict(result.metrics, seconds=round(result.seconds, 1))
"""


def bench_train(seeds: tuple[int, ...] = (42, 43, 44), **changes: int) -> None:
    """`course train` on elpv, with its defaults or `changes`: error, time and peak memory; the first run builds the
    image cache.
    """
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for seed in seeds:
            started = time.perf_counter()
            runs.append(run_python(TRAIN, json.dumps({"seed": seed, "data_dir": folder}), json.dumps(changes))
                        | {"seed": seed})
            runs[-1]["process_seconds"] = round(time.perf_counter() - started, 1)
    errors, pairs = [r["validation_error"] for r in runs], [r["two_class_accuracy"] for r in runs]
    name = "_".join(["train", *map(str, changes.values())])
    record(name, {"changes": changes, "mean_error": round(statistics.mean(errors), 4),
                  "spread": round(statistics.stdev(errors), 4),
                  "mean_two_class_accuracy": round(statistics.mean(pairs), 4), "runs": runs,
                  "reported": {"Deitsch et al. 2019, CNN": 0.8842, "ResNet-152, one-cycle, 2025": 0.9013}})


def bench_pets(seeds: tuple[int, ...] = (42, 43, 44)) -> None:
    """`course train` on the pets sample: 6 training photos a breed, 37 breeds, 74 test photos."""
    if not PETS.is_dir():
        print(f"pets: left out; there is no folder {PETS}.")
        return
    with tempfile.TemporaryDirectory() as folder:
        runs = [run_python(TRAIN, json.dumps({"seed": seed, "data_dir": folder, "dataset": str(PETS)}), "{}")
                | {"seed": seed} for seed in seeds]
    errors = [r["validation_error"] for r in runs]
    record("pets", {"mean_error": round(statistics.mean(errors), 4), "spread": round(statistics.stdev(errors), 4),
                    "runs": [{k: v for k, v in run.items() if k != "error_per_class"} for run in runs]})


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


def bench_experiments(rounds: int = 5, processes: int = 4) -> None:
    """Four processes at once on one file and one storage; then a finished experiment and search resumed."""
    with tempfile.TemporaryDirectory() as folder:
        together = [subprocess.Popen([sys.executable, "-c", EXPERIMENT, folder, "0.1"]) for _ in range(processes)]
        if any(process.wait() for process in together):
            raise RuntimeError("a process failed")
        ran = {kind: (Path(folder) / f"{kind}.log").read_text().splitlines() for kind in ("grid", "search")}
        again = [run_python(EXPERIMENT, folder, "0.1") for _ in range(rounds)]
    record("experiments", {
        "processes": processes, "wanted": 20, "rounds": rounds,
        "ran": {kind: len(lines) for kind, lines in ran.items()},
        "repeated": {kind: len(lines) - len(set(lines)) for kind, lines in ran.items()},
        "lost": {"grid": 20 - again[0]["rows"], "search": 20 - again[0]["trials"]},
        "started_again": max(run["calls"] for run in again),
        "resume_seconds": {kind: round(statistics.median(run[f"{kind}_seconds"] for run in again), 3)
                           for kind in ("grid", "search")}})


QUESTIONS = {"import": bench_import, "pipeline": bench_pipeline, "step": bench_step, "finder": bench_finder,
             "finetune": bench_finetune,
             "train": bench_train, "train_256_5": lambda: bench_train(image_size=256, epochs=5), "pets": bench_pets,
             "experiments": bench_experiments}

if __name__ == "__main__":
    names = sys.argv[1:] or list(QUESTIONS)
    if unknown := [name for name in names if name not in QUESTIONS]:
        sys.exit(f"{__doc__}\nUnknown: {', '.join(unknown)}")
    for name in names:
        QUESTIONS[name]()
