"""Put the course through faults, many times, and keep what came of it in course_lib/results/faults.jsonl.

    python benchmarks/faults.py              all of these
    python benchmarks/faults.py kill         kill -9 at random points: a cache being built, a training, an experiment, a
                                             download with its unpacking; 50 times each, and then the same again
    python benchmarks/faults.py images       1,000 damaged images in a folder of good ones
    python benchmarks/faults.py archives     10 GB of zeros in an archive of 10 MB, as zip and as tar.gz
    python benchmarks/faults.py rounds       200 rounds of fit and lr_find in one process: memory and open files
    python benchmarks/faults.py notebooks    a lesson killed while it runs, and run again

The processes that are killed are forks of this one, which has imported everything: so Linux and macOS only. A process
that is killed has no chance to clean up. Each result must be that of a run that nobody disturbed, to the bit.
"""

import faulthandler
import functools
import gzip
import hashlib
import http.server
import json
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # threads do not survive a fork

import numpy as np
import torch
from again import figures_of
from frame import RESULTS, ROOT, Rows, arguments, stamp
from PIL import Image
from tqdm import tqdm

from course_lib import data, learner, lr_finder, tuning
from course_lib.app.train import train_classifier
from course_lib.data.archives import ArchiveError, unpack
from course_lib.data.download import download, file_checksum
from course_lib.settings import CourseSettings

RECORD = RESULTS / "faults.jsonl"
PATIENCE = 120.0  # seconds that a forked process may take

def record(row: dict) -> None:
    """Write a row in place of an older one about the same."""
    row = {**row, **stamp(), "when": time.strftime("%Y-%m-%d")}
    Rows(RECORD, "fault", "during").replace(row)
    print(json.dumps(row), flush=True)


def digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


# ---- kill -9

def make_photos(folder: Path, count: int = 24) -> Path:
    """Bright and dark noise, two classes."""
    rng = np.random.default_rng(0)
    for label, low in (("bright", 130), ("dark", 0)):
        (folder / label).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(low, low + 120, (160, 160, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{i:03d}.png")
    return folder


def build_cache(folder: Path, source: Path) -> str:
    """Presize 48 photographs; a cache that is whole stands alone in its folder."""
    cached = data.presize(data.items_from_folders(source / "photos"), 128, folder, progress=False)
    left = sorted(path.name for path in folder.iterdir() if path.is_dir())
    return digest(cached.images.tobytes(), repr(cached.skipped).encode(), repr(left).encode())


def train(folder: Path, source: Path) -> str:
    """`course train` with six epochs: anew, or with --resume where there is a checkpoint."""
    settings = CourseSettings(dataset=str(source / "photos"), data_dir=folder / "data", profile_name="test",
                              device="cpu")
    train_classifier(settings, output=folder / "run", epochs=6, batch_size=8, echo=lambda text: None,
                     resume=(folder / "run" / "checkpoints" / "last.safetensors").exists())
    weights, _ = learner.load_checkpoint(folder / "run" / "model.safetensors")
    metrics = json.loads((folder / "run" / "metrics.json").read_text("utf-8"))
    kept = {name: metrics[name] for name in ("validation_error", "validation_loss")}
    return digest(*(weights[name].numpy().tobytes() for name in sorted(weights)), json.dumps(kept).encode())


def experiment(folder: Path, source: Path) -> str:
    """Twenty trials of a little training each, kept as JSON lines; no trial that is finished may run again."""
    path = folder / "trials.jsonl"
    done = [(row["config"]["lr"], row["seed"]) for row in tuning.read_trials(path)] if path.exists() else []

    def trial(lr: float, *, seed: int) -> dict:
        assert (lr, seed) not in done, f"{lr} with seed {seed} ran twice"
        torch.manual_seed(seed)
        weight, x = torch.zeros(8, requires_grad=True), torch.randn(64, 8)
        for _ in range(60):
            (slope,) = torch.autograd.grad(((x @ weight - x.sum(1)) ** 2).mean(), weight)
            weight = (weight - lr * slope).detach().requires_grad_()
        return {"error": float((weight - 1).norm())}

    found = tuning.run_experiment(trial, tuning.grid(lr=[0.01, 0.03, 0.1, 0.2]), seeds=(1, 2, 3, 4, 5), path=path)
    rows = sorted((row["config"]["lr"], row["seed"], row["values"]["error"]) for row in found.rows)
    return digest(json.dumps(rows).encode())


class Slow(http.server.BaseHTTPRequestHandler):
    """Serves `body` in small pieces, also from the middle."""
    body, pause = b"", 0.0

    def do_GET(self) -> None:
        start = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
        self.send_response(206 if "Range" in self.headers else 200)
        if "Range" in self.headers:
            self.send_header("Content-Range", f"bytes {start}-{len(self.body) - 1}/{len(self.body)}")
        for name, value in (("Content-Length", len(self.body) - start), ("ETag", '"1"'), ("Accept-Ranges", "bytes")):
            self.send_header(name, str(value))
        self.end_headers()
        for at in range(start, len(self.body), 8192):
            try:
                self.wfile.write(self.body[at:at + 8192])
            except OSError:
                return  # the other side was killed
            time.sleep(self.pause)

    def log_message(self, *words: object) -> None: ...


def fetch(folder: Path, source: Path) -> str:
    """Download an archive, check it, unpack it."""
    address = (source / "address").read_text()
    checksum = file_checksum(source / "photos.tar.gz")
    archive = download(address, folder / "photos.tar.gz", checksum=checksum, progress=False)
    unpacked = unpack(archive, folder / "photos", progress=False)
    files = sorted(path for path in unpacked.rglob("*.png"))
    left = sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))
    return digest(*(path.read_bytes() for path in files), repr([len(files), left]).encode())


def forked(work: Callable, folder: Path, source: Path, answer: Path) -> int:
    """Do `work` in a copy of this process, which writes the digest of what came out; its process number."""
    if pid := os.fork():
        return pid
    try:
        with open(answer.with_suffix(".log"), "a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        tqdm.set_lock(threading.RLock())  # tqdm's own is shared with forked processes: killed with it, all would wait
        faulthandler.dump_traceback_later(PATIENCE - 5)  # for one that hangs, its log says where
        found = work(folder, source)
        answer.write_text(found)
        os._exit(0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def finished(pid: int, answer: Path, patience: float = PATIENCE) -> str:
    """What the process found; an error that it ended with is shown, and so is one that does not end (seconds)."""
    over, log = time.monotonic() + patience, answer.with_suffix(".log")
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > over:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return f"exit: no end in {patience:g} s" + (log.read_text()[-3000:] and f"\n{log.read_text()[-3000:]}")
        time.sleep(0.002)
    code = os.waitstatus_to_exitcode(ended[1])
    return answer.read_text() if code == 0 else f"exit {code}: " + log.read_text()[-300:]


def kill_at_random(name: str, work: Callable, source: Path, times: int) -> None:
    """Kill `work` at a random moment, sometimes again while it goes on, then let it end; compare with undisturbed."""
    generator, same, kills, lost, went_on = random.Random(1), 0, 0, [], 0
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        (place / "whole").mkdir()
        started = time.perf_counter()
        expected = finished(forked(work, place / "whole", source, place / "whole.txt"), place / "whole.txt")
        duration = until = time.perf_counter() - started
        assert not expected.startswith("exit"), expected
        for number in range(times):
            folder, answer, killed = place / str(number), place / f"{number}.txt", 0
            folder.mkdir()
            while killed < 1 + number % 3:  # once, twice, three times
                pid = forked(work, folder, source, answer)
                time.sleep(generator.uniform(0, until))
                ended = os.waitpid(pid, os.WNOHANG)[0]
                if ended:
                    until *= 0.9  # the undisturbed run may have met a busy machine: three kills in a row must be likely
                    shutil.rmtree(folder)  # it was faster: try again from the start
                    answer.unlink(missing_ok=True)
                    folder.mkdir()
                    killed = 0
                    continue
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                killed += 1
            kills, went_on = kills + killed, went_on + any(folder.rglob("*"))
            answer.unlink(missing_ok=True)
            found = finished(forked(work, folder, source, answer), answer)
            same += found == expected
            lost += [found] * (found != expected)
            shutil.rmtree(folder)
    record({"fault": "kill -9", "during": name, "times": times, "kills": kills, "same_result": same,
            "found_something": went_on, "undisturbed_seconds": round(duration, 2), "others": lost[:3]})


def kill(times: int = 50) -> None:
    import matplotlib.pyplot  # noqa: F401  what a training imports on its way takes longer than the training

    from course_lib.models import create_classifier

    torch.set_num_threads(1)
    create_classifier("efficientnet_lite0", 2)
    with tempfile.TemporaryDirectory() as place:
        source = Path(place)
        make_photos(source / "photos")
        with tarfile.open(source / "photos.tar.gz", "w:gz") as archive:
            archive.add(source / "photos", "photos")
        Slow.body, Slow.pause = (source / "photos.tar.gz").read_bytes(), 0.002
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
        (source / "address").write_text(f"http://127.0.0.1:{server.server_port}/photos.tar.gz")
        if (serving := os.fork()) == 0:  # a process of its own: threads do not survive a fork
            server.serve_forever()
        server.socket.close()
        try:
            for name, work in (("cache", build_cache), ("training", train), ("experiment", experiment),
                               ("download and unpacking", fetch)):
                kill_at_random(name, work, source, times)
        finally:
            os.kill(serving, signal.SIGKILL)
            os.waitpid(serving, 0)


# ---- damaged images

@functools.cache
def bomb(width: int, height: int) -> bytes:
    """A small PNG of very many pixels; of more than 200 million, only the header promises them."""
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    pixels = (1 + width) * height
    rows = zlib.compress(bytes(pixels if pixels < 2e8 else 1000), 9)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
            + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def damaged_bytes(good: list[bytes], heads: list[bytes], generator: random.Random) -> tuple[str, bytes]:
    """One damaged image and what was done to it."""
    kind = generator.choice(("bytes flipped", "cut", "header of another format", "bomb", "no image at all"))
    raw = bytearray(generator.choice(good))
    if kind == "bytes flipped":
        for _ in range(generator.choice((1, 3, 30, 300))):
            raw[generator.randrange(len(raw))] = generator.randrange(256)
    elif kind == "cut":
        raw = raw[:generator.choice((0, 1, 8, generator.randrange(len(raw))))]
    elif kind == "header of another format":
        head = generator.choice(heads)
        raw[:len(head)] = head
    elif kind == "bomb":
        raw = bytearray(bomb(*generator.choice(((13_000, 13_000), (60_000, 60_000), (2**31 - 1, 1), (1, 2**31 - 1)))))
    else:
        raw = bytearray(generator.randbytes(generator.randrange(1, 4000)))
    return kind, bytes(raw)


def make_damaged(folder: Path, count: int, good_count: int) -> dict[str, int]:
    """`good_count` good images as they are, and `count` damaged ones beside them; how many of each kind."""
    generator, rng, kinds = random.Random(2), np.random.default_rng(2), {}
    formats = {"png": "PNG", "jpg": "JPEG", "bmp": "BMP", "gif": "GIF", "webp": "WEBP", "tiff": "TIFF"}
    good: dict[str, list[bytes]] = {end: [] for end in formats}
    for number in range(good_count):
        end = list(formats)[number % len(formats)]
        label = folder / ("bright", "dark")[number // len(formats) % 2]
        label.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (96, 120, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(label / f"good{number:04d}.{end}", formats[end])
        good[end].append((label / f"good{number:04d}.{end}").read_bytes())
    heads = [images[0][:generator.choice((4, 12, 40))] for images in good.values()]
    for number in range(count):
        end = generator.choice(list(formats))
        kind, raw = damaged_bytes(good[end], heads, generator)
        (folder / ("bright", "dark")[number % 2] / f"bad{number:04d}.{end}").write_bytes(raw)
        kinds[kind] = kinds.get(kind, 0) + 1
    return kinds


def images(count: int = 1000, good_count: int = 240) -> None:
    """Build a cache of them all; the good ones must be as in a folder of their own, and memory must stay small."""
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        kinds = make_damaged(place / "all", count, good_count)
        items = data.items_from_folders(place / "all")
        before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            cached = data.presize(items, 64, place / "cache", progress=False)
        seconds = time.perf_counter() - started
        more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024  # KiB on Linux
        for path in (place / "all").rglob("bad*"):
            path.unlink()
        alone = data.presize(data.items_from_folders(place / "all"), 64, place / "alone", progress=False)
        rows = {name: cached.images[row] for row, name in enumerate(cached.items.names)}
        same = sum(bool((rows[name] == image).all()) for name, image in
                   zip(alone.items.names, alone.images, strict=True) if name in rows)
        readable = sum(Path(name).name.startswith("bad") for name in rows)
        record({"fault": "damaged images", "during": "cache", "times": count, "kinds": kinds, "left_out":
                len(cached.skipped), "still_readable": readable, "good": good_count, "good_as_they_were": same,
                "warnings": len(said), "warning": str(said[0].message)[:300] if said else "",
                "seconds": round(seconds, 1), "more_memory_mb": round(more)})


# ---- hostile archives

def make_bomb(path: Path, gigabytes: float) -> None:
    """An archive with one file of zeros, made without ever holding them."""
    block, count = bytes(10_000_000), int(gigabytes * 100)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            with archive.open("zeros.png", "w", force_zip64=True) as file:
                for _ in range(count):
                    file.write(block)
        return
    member = tarfile.TarInfo("zeros.png")
    member.size = count * len(block)
    packed = gzip.compress(block)  # a gzip file may be several, one after the other
    with path.open("wb") as file:
        file.write(gzip.compress(member.tobuf()))
        for _ in range(count):
            file.write(packed)
        file.write(gzip.compress(bytes(-member.size % 512 + 1024)))


def archives(gigabytes: float = 10) -> None:
    """They must be refused in words, leave nothing behind, and not have filled the disk on the way."""
    for name in ("bomb.zip", "bomb.tar.gz"):
        with tempfile.TemporaryDirectory() as place:
            archive, said, started = Path(place) / name, "", 0.0
            make_bomb(archive, gigabytes)
            free, lowest, over = shutil.disk_usage(place).free, [shutil.disk_usage(place).free], threading.Event()

            def look(lowest: list = lowest, over: threading.Event = over, place: str = place) -> None:
                while not over.wait(0.01):
                    lowest.append(shutil.disk_usage(place).free)

            watch = threading.Thread(target=look)
            watch.start()
            started = time.perf_counter()
            try:
                unpack(archive, Path(place) / "out", progress=False)
            except ArchiveError as error:
                said = str(error).replace(place, "...")
            seconds = time.perf_counter() - started
            over.set()
            watch.join()
            left = sorted(path.name for path in Path(place).iterdir() if not path.name.endswith(".lock"))
            record({"fault": f"{gigabytes:g} GB of zeros", "during": name, "archive_mb":
                    round(archive.stat().st_size / 1e6, 1), "said": said, "left": left, "seconds": round(seconds, 2),
                    "most_disk_gb": round((free - min(lowest)) / 1e9, 2)})


# ---- long use

def open_files() -> int:
    return len(os.listdir("/proc/self/fd" if Path("/proc/self/fd").exists() else "/dev/fd"))


def memory_mb() -> float:
    """What this process holds now; on macOS, without /proc, the most that it ever held."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(next(line for line in status.read_text().splitlines() if line.startswith("VmRSS")).split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def rounds(times: int = 200) -> None:
    """As a student does who never restarts the kernel: a learner, lr_find, fit, the plots, and again."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    from course_lib.models import create_classifier
    from course_lib.transfer import freeze

    with tempfile.TemporaryDirectory() as place:
        photos = make_photos(Path(place) / "photos")
        pictures = data.presize(data.items_from_folders(photos), 64, Path(place) / "cache", progress=False)
        seen, looks = [], max(1, times // 20)
        for number in range(times):
            classifier = create_classifier("efficientnet_lite0", 2)
            freeze(classifier)
            loaders = data.make_loaders(pictures, image_size=48, batch_size=12, mean=(0.5,) * 3, std=(0.5,) * 3)
            one = learner.Learner(classifier, loaders.train, loaders.valid, metrics=[learner.error_rate],
                                  progress=False)
            lr_finder.plot_lr_sweep(lr_finder.lr_find(one, iterations=20, echo=lambda text: None))
            one.fit(1, 1e-3)
            learner.plot_losses(one.recorder)
            plt.close("all")
            if (number + 1) % looks == 0:
                seen.append((number + 1, round(memory_mb(), 1), open_files(), threading.active_count()))
                print(seen[-1], flush=True)
        settled = [row for row in seen if row[0] >= times // 4]
        record({"fault": "long use", "during": "fit and lr_find", "times": times, "memory_mb": [r[1] for r in seen],
                "growth_mb_after_a_quarter": round(settled[-1][1] - settled[0][1], 1),
                "open_files": sorted({row[2] for row in seen}), "threads": sorted({row[3] for row in seen})})


# ---- notebooks

def lesson_results(folder: Path, number: str, kill_after: float | None) -> tuple[float, dict[str, float]]:
    """Run a lesson in the test profile, killed with all its processes after some seconds; seconds, and its figures."""
    command = [sys.executable, "-m", "course_lib.app.cli", "run", number]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               start_new_session=True, env={**os.environ, "COURSE_PROFILE": "test",
                                                            "PYTHONPATH": str(ROOT)})
    try:
        said = process.communicate(timeout=kill_after)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return time.perf_counter() - started, {}
    assert process.returncode == 0, said[-2000:]
    newest = max((folder / "runs").iterdir(), key=lambda path: path.stat().st_mtime)
    rows = [json.loads(line) for line in (newest / "results.jsonl").read_text("utf-8").splitlines()]
    return time.perf_counter() - started, figures_of(rows)


def notebooks(times: int = 6, number: str = "03") -> None:
    generator, same, kills = random.Random(3), 0, 0
    with tempfile.TemporaryDirectory() as place:
        def copy(name: str) -> Path:
            folder = Path(place) / name
            folder.mkdir()
            shutil.copytree(ROOT / "nbs", folder / "nbs", ignore=shutil.ignore_patterns("data", "runs"))
            shutil.copy(ROOT / "settings.ini", folder)
            return folder

        seconds, expected = lesson_results(copy("whole"), number, None)
        for k in range(times):
            folder = copy(str(k))
            _, found = lesson_results(folder, number, generator.uniform(0.15, 0.95) * seconds)
            kills += not found
            same += lesson_results(folder, number, None)[1] == expected
    record({"fault": "kill -9", "during": f"lesson {number}, with its kernel", "times": times, "kills": kills,
            "same_result": same, "figures": len(expected), "undisturbed_seconds": round(seconds, 1)})


def main() -> None:
    questions = {"kill": kill, "images": images, "archives": archives, "rounds": rounds, "notebooks": notebooks}
    asked = arguments(__doc__, questions, output=None)
    if not hasattr(os, "fork"):
        sys.exit("These experiments need fork: run them on Linux or macOS.")
    for name in asked.wanted:
        questions[name]()


if __name__ == "__main__":
    main()
