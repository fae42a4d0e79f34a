"""The same work done by this course's library and by its peers, in turns, on this machine.

    python benchmarks/peers/compare.py                    every question
    python benchmarks/peers/compare.py pipeline step      some: import, size, pipeline, finder, frozen, step, tune,
                                                          inference, growth_images, growth_classes, growth_pixels,
                                                          growth_workers
    options: --quick            tiny, to see that it works; measures nothing, so it writes to a temporary folder
             --output FOLDER    in place of course_lib/results

Peers: fastai, timm, torchvision's training recipe, Lightning (`make bench` installs them; one that is not installed is
said and left out). Who has nothing of his own for a question does not take part in it. The photographs are a folder in
the layout of the Oxford-IIIT Pets, named by COURSELIB_SAMPLE_PETS, or else 600 solar cells, which come with the course.
Every round runs every peer once, each in a new process; what is reported are medians over the rounds, and ratios of
medians. Peak memory is that of the process and of its largest worker, mapped files included; `own_gb` is the most that
all of them hold at a time without files. A file a question: peers_QUESTION.json.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from frame import PETS, RESULTS, arguments, record

HERE = Path(__file__).resolve().parent
PEERS = ("course", "fastai", "timm", "torchvision", "lightning")
PACKAGES = {"course": "course_lib"}
DISTRIBUTIONS = {"course": "course-lib"}
TARGET_ERROR = 0.15

Run = dict[str, float | list[float]]


def installed(peer: str) -> bool:
    return find_spec(PACKAGES.get(peer, peer)) is not None


def run_one(peer: str, question: str, job: dict, threads: int | None = None) -> Run:
    """One piece of work in a new process, with an empty folder for what it wants to keep."""
    environ = {**os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
    with tempfile.TemporaryDirectory() as cache:
        words = [sys.executable, str(HERE / "one.py"), peer, question, json.dumps({"cache": cache} | job)]
        done = subprocess.run(words, capture_output=True, text=True, env=environ)
    if done.returncode:
        raise RuntimeError(f"{peer}, {question}: {done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def in_turns(question: str, peers: dict[str, tuple[str, str]], job: dict, rounds: int) -> dict[str, list[Run]]:
    """All runs of each: `peers` maps the name that is shown to the program and its function."""
    runs: dict[str, list[Run]] = {name: [] for name in peers}
    for number in range(rounds):
        for name, (peer, function) in peers.items():
            runs[name].append(run_one(peer, function, job))
            print(f"{question}, round {number + 1} of {rounds}, {name}: {json.dumps(runs[name][-1])[:150]}", flush=True)
    return runs


def taking_part(function: str, *wanted: str) -> dict[str, tuple[str, str]]:
    """Who of `wanted` is installed, as `in_turns` takes it."""
    for peer in wanted:
        if not installed(peer):
            print(f"{function}: without {peer}, which is not installed; `make bench` installs it.")
    return {peer: (peer, function) for peer in wanted if installed(peer)}


def median_of(runs: list[Run], key: str) -> float:
    """The median over all runs, and over what each has several of."""
    values = [run[key] if isinstance(run[key], list) else [run[key]] for run in runs]
    return statistics.median([value for some in values for value in some])


def figures(runs: dict[str, list[Run]], *keys: str) -> dict[str, dict[str, float]]:
    """key -> who -> median; for `peak_gb`, too."""
    return {key: {name: round(median_of(each, key), 4) for name, each in runs.items() if key in each[0]}
            for key in (*keys, "peak_gb")}


def times_as_good(medians: dict[str, float], more_is_better: bool) -> dict[str, float]:
    """Who -> how many times as good the course is; below 1, the peer wins."""
    own = medians["course"]
    return {name: round(own / value if more_is_better else value / own, 2)
            for name, value in medians.items() if name != "course"}


# ---- what to work on

def make_folder(place: Path, quick: bool) -> str:
    """Photographs as train/CLASS/FILE and valid/CLASS/FILE in `place`; what they are."""
    import shutil

    from course_lib.data import get_items, limit_items, split_items

    sample = PETS.is_dir()
    items = get_items(str(PETS) if sample else "elpv", "data", announce=False)
    items = items if sample else limit_items(items, 600, 42)
    for part, rows in zip(("train", "valid"), split_items(items, seed=42), strict=True):
        for row in rows[:8] if quick else rows:
            path = items.path(row)
            label = "".join(c if c.isalnum() else "_" for c in items.labels[row])
            (place / part / label).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place / part / label / path.name)
    if quick:  # the same classes on both sides
        for part, other in (("train", "valid"), ("valid", "train")):
            for folder in (place / part).iterdir():
                if not (place / other / folder.name).exists():
                    shutil.copytree(folder, place / other / folder.name)
    counts = {part: sum(1 for file in (place / part).rglob("*") if file.is_file()) for part in ("train", "valid")}
    name = "photographs of a pets sample" if sample else "solar cells (elpv)"
    return (f"{counts['train']} training and {counts['valid']} validation {name}, "
            f"{len(list((place / 'train').iterdir()))} classes")


def make_synthetic(place: Path, count: int, classes: int = 4) -> int:
    """`count` training images of 320 × 240 in files of their own, and a tenth of that to validate; how many in all."""
    import io

    import numpy as np
    from PIL import Image

    rng, files = np.random.default_rng(0), []
    for _ in range(50):
        picture = Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)).resize((320, 240))
        picture.save(file := io.BytesIO(), "JPEG", quality=85)
        files.append(file.getvalue())
    parts = {"train": count, "valid": max(classes, count // 10)}
    for part, number in parts.items():
        for i in range(number):
            folder = place / part / f"class_{i % classes}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{i:06d}.jpg").write_bytes(files[i % len(files)] + i.to_bytes(4, "big"))  # all differ
    return sum(parts.values())


# ---- the questions

def ask_import(job: dict, rounds: int) -> dict:
    """Seconds of `import torch`, which all need, of what each needs beyond it, and from nothing to a first step.

    The last shows what an import puts off until it is used: a new Python, the network with its weights, two images.
    """
    code = ("import time; t = time.perf_counter(); import torch; torch_only = time.perf_counter() - t\n"
            "t = time.perf_counter(); {line}\nprint(torch_only, time.perf_counter() - t)")
    import importlib

    lines = {peer: importlib.import_module(f"with_{peer}").IMPORT for peer in taking_part("import", *PEERS)}
    seconds: dict[str, list[float]] = {"import torch": [], **{name: [] for name in lines}}
    to_a_step: dict[str, list[float]] = {name: [] for name in lines}
    for _ in range(rounds):
        for name, line in lines.items():
            said = subprocess.run([sys.executable, "-c", code.format(line=line)], capture_output=True, text=True,
                                  check=True).stdout.split()
            seconds["import torch"].append(float(said[-2]))
            seconds[name].append(float(said[-1]))
        for name in lines:
            start = time.perf_counter()
            run_one(name, "step", job | {"batch": 2, "size": 64, "classes": 4, "steps": 1, "epochs": 0})
            to_a_step[name].append(time.perf_counter() - start)
    medians = {name: round(statistics.median(times), 3) for name, times in seconds.items()}
    steps = {name: round(statistics.median(times), 3) for name, times in to_a_step.items()}
    torch_alone = medians.pop("import torch")
    whole = {name: torch_alone + value for name, value in medians.items()}
    return {"what": "seconds of importing, beyond `import torch` (the course imports the rest at its first use), and "
                    "from the start of Python to the end of a step with two images",
            "imports": lines, "import_torch": torch_alone, "runs": {"beyond torch": seconds, "first step": to_a_step},
            "figures": {"seconds, beyond PyTorch": medians, "seconds, to a first step": steps},
            "ratios": {"beyond torch": times_as_good(medians, False), "first step": times_as_good(steps, False),
                       "with torch": times_as_good(whole, False)}}


def requirements(name: str, seen: set[str]) -> set[str]:
    """All distributions that are installed because of this one."""
    from packaging.requirements import Requirement

    plain = name.lower().replace("_", "-").replace(".", "-")
    if plain in seen:
        return seen
    try:
        needs = distribution(name).requires or []
    except PackageNotFoundError:
        return seen
    seen.add(plain)
    for need in map(Requirement, needs):
        if need.marker is None or need.marker.evaluate({"extra": ""}):
            requirements(need.name, seen)
    return seen


def ask_size(job: dict, rounds: int) -> dict:
    """Megabytes and packages that come with each beyond PyTorch and what PyTorch needs."""
    base = requirements("torch", set())

    def megabytes(names: set[str]) -> float:
        files = {file.locate() for name in names for file in distribution(name).files or ()}
        return sum(os.stat(file).st_size for file in files if os.path.isfile(file)) / 1e6

    needed = {peer: requirements(DISTRIBUTIONS.get(peer, peer), set()) - base for peer in taking_part("size", *PEERS)}
    sizes = {peer: round(megabytes(names), 1) for peer, names in needed.items()}
    return {"what": "megabytes installed beyond PyTorch and what it needs itself (the course: with JupyterLab, weights "
                    "of three networks and a data set)",
            "pytorch_megabytes": round(megabytes(base), 1),
            "figures": {"megabytes": sizes, "packages": {peer: len(names) for peer, names in needed.items()}},
            "ratios": {"megabytes": times_as_good(sizes, False)}}


def ask_pipeline(job: dict, rounds: int) -> dict:
    """From image files to augmented batches: the first pass, with all that has to be made first, and later ones."""
    runs = in_turns("pipeline", taking_part("pipeline", "course", "fastai", "timm", "torchvision"), job, rounds)
    found = figures(runs, "cold", "warm")
    return {"what": "images a second: the first pass from image files, training and validation images (cold), and "
                    "later passes through the training images (warm)",
            "figures": {"cold, images/s": found["cold"], "warm, images/s": found["warm"], "peak_gb": found["peak_gb"]},
            "runs": runs, "ratios": {key: times_as_good(found[key], True) for key in ("cold", "warm")}}


def ask_finder(job: dict, rounds: int) -> dict:
    """The learning-rate finder, all of its rates, with the body frozen and with nothing frozen."""
    job = job | {"size": min(job["size"], 128), "stored": min(job["stored"], 144)}
    found, runs = {}, {}
    for state in ("frozen", "unfrozen"):
        runs[state] = in_turns(f"finder, {state}", taking_part("finder", "course", "fastai", "lightning"),
                               job | {"frozen": state == "frozen"}, rounds)
        found[state] = figures(runs[state], "seconds")
    again = median_of(runs["frozen"]["course"], "again")
    return {"what": f"seconds of a sweep of {job['iterations']} batches of {job['batch']}, {job['size']} px",
            "figures": {"body frozen, s": found["frozen"]["seconds"],
                        "nothing frozen, s": found["unfrozen"]["seconds"],
                        "peak_gb": found["unfrozen"]["peak_gb"]},
            "course, body frozen, again": again, "runs": runs,
            "ratios": {f"{state}": times_as_good(found[state]["seconds"], False) for state in found}}


def ask_frozen(job: dict, rounds: int) -> dict:
    """Training the head of a frozen body: the first epoch, and those after it."""
    runs = in_turns("frozen", taking_part("frozen", *PEERS), job, rounds)
    found = figures(runs, "first", "later")
    return {"what": "seconds of an epoch with validation, the body frozen: the first, and later ones",
            "figures": {"first epoch, s": found["first"], "later epochs, s": found["later"],
                        "peak_gb": found["peak_gb"]},
            "runs": runs, "ratios": {key: times_as_good(found[key], False) for key in ("first", "later")}}


def ask_step(job: dict, rounds: int) -> dict:
    """A training step with nothing frozen, on a batch that lies in memory."""
    peers = taking_part("step", *PEERS) | {"course, bf16": ("course", "step_bf16")}
    if "fastai" in peers:
        peers["fastai, channels_last"] = ("fastai", "step_channels_last")
    for peer in [peer for peer in ("fastai", "lightning") if peer in peers]:
        peers[f"{peer}, channels_last, compiled"] = (peer, "step_best")
    runs = in_turns("step", peers, job, rounds)
    found = figures(runs, "rates")
    return {"what": f"images a second of a training step, nothing frozen, batch {job['batch']}, {job['size']} px",
            "figures": {"images/s": found["rates"], "peak_gb": found["peak_gb"]}, "runs": runs,
            "ratios": {"images/s": times_as_good(found["rates"], True)}}


def ask_tune(job: dict, rounds: int, budgets: dict[str, tuple[int, ...]] | None = None) -> dict:
    """Fine-tuning from image files, with more epochs until the error is low; 0: as many as `course train` takes."""
    budgets = budgets or {"course": (1, 2, 0), "fastai": (2, 4, 8, 12)}
    points: dict[str, list[dict]] = {}
    for peer in taking_part("tune", *budgets):
        points[peer] = []
        for epochs in budgets[peer]:
            runs = [run_one(peer, "tune", job | {"epochs": epochs, "seed": 42 + seed}) for seed in range(rounds)]
            means = {key: round(statistics.mean(run[key] for run in runs), 4)
                     for key in ("seconds", "error", "peak_gb")}
            points[peer].append({"epochs": epochs, **means, "runs": runs})
            print(f"tune, {peer}: {epochs} epochs: {means}", flush=True)
            if means["error"] <= TARGET_ERROR:
                break
    reached = {peer: min((point["seconds"] for point in some if point["error"] <= TARGET_ERROR), default=None)
               for peer, some in points.items()}
    most = {peer: max(point["peak_gb"] for point in some) for peer, some in points.items()}
    found = {"what": f"seconds until the mean error over {rounds} seeds is at most {TARGET_ERROR:.0%}, from files",
             "target": TARGET_ERROR, "points": points, "figures": {"seconds": reached, "peak_gb": most},
             "ratios": {"seconds": {}}}
    if own := reached.get("course"):
        for peer in points.keys() - {"course"}:  # who did not get there would take longer than the longest did
            seconds = reached[peer] or max(point["seconds"] for point in points[peer])
            ratios = found.setdefault("ratios" if reached[peer] else "at_least", {}).setdefault("seconds", {})
            ratios[peer] = round(seconds / own, 2)
    return found


def ask_inference(job: dict, rounds: int) -> dict:
    """The class of every image file in a folder, with a trained network."""
    peers = taking_part("inference", *PEERS)
    if find_spec("onnxruntime") and find_spec("onnxscript"):
        peers["course, exported to ONNX"] = ("course", "inference_exported")
    runs = in_turns("inference", peers, job, rounds)
    found = figures(runs, "rate")
    return {"what": f"images a second, from files to classes, {job['size']} px",
            "figures": {"images/s": found["rate"], "peak_gb": found["peak_gb"]}, "runs": runs,
            "ratios": {"images/s": times_as_good(found["rate"], True)}}


def slope(points: list[tuple[float, float]]) -> float:
    """How cost grows: the exponent b of cost = a · size^b, by least squares on the logarithms."""
    xs, ys = ([math.log(value) for value in values] for values in zip(*points, strict=True))
    mean_x, mean_y = statistics.mean(xs), statistics.mean(ys)
    return round(sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
                 / sum((x - mean_x) ** 2 for x in xs), 3)


def growth(what: str, unit: str, sizes: Sequence[int], measure: Callable[[str, int], tuple[float, Run]],
           also: Sequence[str] = ()) -> dict:
    """What each of the course, `also` in other ways, and fastai costs at each size, in turns, and the slope."""
    points: dict[str, list[dict]] = {peer: [] for peer in ("course", *also, "fastai")
                                     if installed(peer.partition(",")[0])}
    for size in sizes:
        for peer in points:
            cost, run = measure(peer, size)
            memory = {key: run[key] for key in ("peak_gb", "own_gb") if key in run}
            points[peer].append({"size": size, "cost": round(cost, 4), **memory})
            print(f"{what}, {peer}: {points[peer][-1]}", flush=True)
    slopes = {peer: slope([(row["size"], row["cost"]) for row in rows]) for peer, rows in points.items()}
    return {"what": f"how cost grows with {what}", "grows": what, "unit": unit, "points": points, "slopes": slopes}


def ask_growth_images(job: dict, rounds: int, quick: bool = False) -> dict:
    """The first pass through more and more images, which are synthetic."""
    def measure(peer: str, count: int) -> tuple[float, Run]:
        with tempfile.TemporaryDirectory() as place:
            total = make_synthetic(Path(place), count)
            run = run_one(peer, "pipeline", job | {"folder": place, "epochs": 1, "watched": True})
        return total / run["cold"], run

    return growth("images", "seconds of the first pass", (20, 40) if quick else (300, 3000, 30000), measure)


def ask_growth_classes(job: dict, rounds: int, quick: bool = False) -> dict:
    """A training step with more and more classes."""
    def measure(peer: str, classes: int) -> tuple[float, Run]:
        run = run_one(peer, "step", job | {"classes": classes})
        return job["batch"] / statistics.median(run["rates"]), run

    return growth("classes", f"seconds of a step of {job['batch']}", (4, 40) if quick else (4, 40, 400), measure)


def ask_growth_pixels(job: dict, rounds: int, quick: bool = False) -> dict:
    """A training step with larger and larger images."""
    def measure(peer: str, size: int) -> tuple[float, Run]:
        own, _, half = peer.partition(", ")
        run = run_one(own, f"step_{half}" if half else "step", job | {"size": size, "batch": 8})
        return 8 / statistics.median(run["rates"]), run

    return growth("pixels of a side", "seconds of a step of 8", (32, 64) if quick else (128, 224, 320, 448), measure,
                  also=("course, bf16",))


def ask_growth_workers(job: dict, rounds: int, quick: bool = False) -> dict:
    """Later passes with one worker and two: processes for fastai, threads for the course."""
    def measure(peer: str, workers: int) -> tuple[float, Run]:
        threads = workers if peer == "course" else None
        run = run_one(peer, "pipeline", job | {"workers": workers}, threads)
        return 1000 / statistics.median(run["warm"]), run

    return growth("workers", "seconds for 1,000 images", (1, 2), measure)


# question -> (function, rounds)
QUESTIONS: dict[str, tuple[Callable, int]] = {
    "import": (ask_import, 5), "size": (ask_size, 1), "pipeline": (ask_pipeline, 3), "finder": (ask_finder, 2),
    "frozen": (ask_frozen, 2), "step": (ask_step, 3), "tune": (ask_tune, 2), "inference": (ask_inference, 3),
    "growth_images": (ask_growth_images, 1), "growth_classes": (ask_growth_classes, 1),
    "growth_pixels": (ask_growth_pixels, 1), "growth_workers": (ask_growth_workers, 1)}


def main() -> None:
    asked = arguments(__doc__, QUESTIONS, output=RESULTS, flags={"quick": "tiny, to see that it works"})
    output = Path(tempfile.mkdtemp()) if asked.quick and asked.output == RESULTS else asked.output
    job = {"size": 64, "stored": 72, "batch": 4, "steps": 1, "epochs": 2, "iterations": 12} if asked.quick else {
        "size": 224, "stored": 256, "batch": 32, "steps": 4, "epochs": 3, "iterations": 100}
    packages = ["torch", *(DISTRIBUTIONS.get(peer, peer) for peer in PEERS if installed(peer))]
    with tempfile.TemporaryDirectory() as place:
        photographs = make_folder(Path(place), asked.quick)
        job["folder"] = place
        for name in asked.wanted:
            ask, rounds = QUESTIONS[name]
            more = {"quick": True} if asked.quick and name.startswith("growth") else {}
            more |= {"budgets": {"course": (1,), "fastai": (1,)}} if asked.quick and name == "tune" else {}
            found = ask(dict(job), 1 if asked.quick else rounds, **more)
            if memory := found.get("figures", {}).get("peak_gb"):
                found["ratios"]["peak_gb"] = times_as_good(memory, False)
            record(f"peers_{name}", {"question": name, "photographs": photographs, "quick": asked.quick,
                                     "rounds": 1 if asked.quick else rounds, **found}, output, packages)
            print(f"{name}: {json.dumps(found.get('ratios', found.get('slopes')))[:600]}", flush=True)
    print(f"Written to {output}.")


if __name__ == "__main__":
    main()
