"""What computers and people do to a course: full disks, clocks that jump, files that something has written over."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from course_lib.core.files import new_run_folder
from course_lib.data import items_from_folders, make_loaders, presize
from course_lib.data.download import DownloadError, download
from course_lib.learner import Callback, Checkpoint, Learner, load_checkpoint, resume_training
from course_lib.lr_finder import lr_find
from course_lib.settings import CourseSettings, SettingsError, load_settings
from course_lib.teach.progress import read_progress
from course_lib.teach.results import lesson_cost, read_results, recorded_lessons
from course_lib.teach.typical import typical_range
from course_lib.tuning import read_trials

pytestmark = pytest.mark.slow

many = hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own of `size`, where mounting is allowed."""
    points = []

    def mount(size: str) -> Path:
        point = tmp_path / "disk"
        point.mkdir()
        if shutil.which("mount") is None or subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(point)], capture_output=True).returncode:
            pytest.skip("mounting is not allowed here")
        points.append(point)
        return point

    yield mount
    if points:
        subprocess.run(["umount", "-l", str(points[0])], check=True)


# ---- Full disks. The cache: test_data.test_a_disk_that_is_really_full

def make_learner(folder: Path) -> tuple[Learner, Checkpoint]:
    torch.manual_seed(0)
    x, y = torch.randn(64, 50), torch.randint(3, (64,))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 16, shuffle=True)
    checkpoint = Checkpoint(folder)
    return Learner(nn.Sequential(nn.Linear(50, 200), nn.Dropout(0.5), nn.Linear(200, 3)), loader,
                   callbacks=[checkpoint], progress=False), checkpoint


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with open(path, "wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(4096))


class FillUp(Callback):
    """Another program takes all room of the disk before the third epoch."""
    order = 1

    def __init__(self, file: Path):
        self.file = file

    def before_epoch(self, learner):
        if learner.epoch == 2:
            fill(self.file)


def test_a_disk_that_fills_up_during_a_training(tmp_path, small_disk):
    """The checkpoint of the epoch before stays, and with room again the training ends as if nothing had been."""
    whole, _ = make_learner(tmp_path / "whole")
    whole.fit(4, 0.01)
    disk = small_disk("2m")
    learner, checkpoint = make_learner(disk / "run")
    with pytest.raises(OSError, match="could not be written.*What was there before is still there.*full disk"):
        learner.fit(4, 0.01, callbacks=[FillUp(disk / "other")])
    assert load_checkpoint(checkpoint.last_path)[1]["epoch"] == 2
    assert not list((disk / "run").glob(".*.part"))
    (disk / "other").unlink()
    again, checkpoint = make_learner(disk / "run")
    resume_training(checkpoint.last_path, again)
    again.fit(4, 0.01)
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True))


class Sender(BaseHTTPRequestHandler):
    """Sends 300 kB, also from the middle, and keeps from where it was asked to. Half-way it does `meanwhile`."""
    body, asked, meanwhile = bytes(range(256)) * 1200, [], None

    def do_GET(self):
        start = int((self.headers.get("Range") or "bytes=0-")[6:].rstrip("-"))
        self.asked.append(start)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(self.body) - 1}/{len(self.body)}")
        self.send_header("Content-Length", str(len(self.body) - start))
        self.send_header("ETag", '"1"')
        self.end_headers()
        with suppress(OSError):
            for at in range(start, len(self.body), 30_000):
                self.wfile.write(self.body[at:at + 30_000])
                if Sender.meanwhile and at >= 150_000:
                    time.sleep(0.2)  # until what was sent has been written
                    Sender.meanwhile()

    def log_message(self, *words):
        pass


def test_a_disk_that_fills_up_during_a_download(small_disk, monkeypatch):
    """What has come stays, and with room again it goes on from there."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    disk = small_disk("1m")
    monkeypatch.setattr(Sender, "meanwhile", lambda: fill(disk / "other"))
    with ThreadingHTTPServer(("127.0.0.1", 0), Sender) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/a.bin"
        with pytest.raises(DownloadError, match="No space left|is full|free"):
            download(address, disk / "a.bin", progress=False, retries=1, backoff=0.01)
        assert not (disk / "a.bin").exists()
        monkeypatch.setattr(Sender, "meanwhile", None)
        (disk / "other").unlink()
        Sender.asked.clear()
        assert download(address, disk / "a.bin", progress=False, backoff=0.01).read_bytes() == Sender.body
        assert Sender.asked[-1] > 100_000
        server.shutdown()


# ---- Several processes in one data folder. Two: test_data.test_two_processes_build_one_cache

PRESIZE = """
import sys
from course_lib.data import items_from_folders, presize
cached = presize(items_from_folders(sys.argv[1]), 48, sys.argv[2], progress=False)
print(cached.folder.name, int(cached.images.sum(dtype="int64")))
"""


def make_photos(folder: Path, count: int = 20) -> Path:
    chance = np.random.default_rng(0)
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(chance.integers(0, 255, (60, 60, 3), dtype=np.uint8)).save(folder / label / f"{i}.png")
    return folder


def test_four_processes_build_one_cache(tmp_path):
    photos = make_photos(tmp_path / "photos")
    command = [sys.executable, "-c", PRESIZE, str(photos), str(tmp_path / "cache")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    said = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    assert len({out.splitlines()[-1] for out, _ in said}) == 1, said
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1


# ---- A clock that jumps

@pytest.mark.parametrize("jump", [-400 * 86400, 400 * 86400, -3600])
def test_a_clock_that_jumps_hides_and_overwrites_nothing(jump, tmp_path, monkeypatch):
    """Runs get folders of their own, checkpoints are resumed, caches found, whatever year it seems to be."""
    items = items_from_folders(make_photos(tmp_path / "photos", 4))
    first = presize(items, 24, tmp_path / "cache", progress=False)
    learner, checkpoint = make_learner(tmp_path / "run")
    learner.fit(1, 0.01)
    folders = [new_run_folder(tmp_path / "runs")]
    now, nanoseconds, local = time.time, time.time_ns, time.localtime
    monkeypatch.setattr(time, "time", lambda: now() + jump)
    monkeypatch.setattr(time, "time_ns", lambda: nanoseconds() + jump * 10**9)
    stamp = time.strftime
    monkeypatch.setattr(time, "strftime", lambda form, moment=None: stamp(form, moment or local(now() + jump)))
    for _ in range(3):
        folders.append(new_run_folder(tmp_path / "runs"))
    assert len(set(folders)) == 4 == len(list((tmp_path / "runs").iterdir()))
    decoded = []
    monkeypatch.setattr("course_lib.data.presizing.load_image", lambda *given: decoded.append(given))
    again = presize(items, 24, tmp_path / "cache", progress=False)
    assert again.folder == first.folder and not decoded
    other, _ = make_learner(tmp_path / "run")
    resume_training(checkpoint.last_path, other)
    other.fit(2, 0.01)
    assert load_checkpoint(checkpoint.last_path)[1]["epoch"] == 2


# ---- Files that something has written over

TEXT = st.one_of(
    st.binary(max_size=400),
    st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(st.sampled_from(["[course]", "seed = 42", "profile=laptop", "seed=", "data_dir = \0", "= 3", "[",
                              "dataset", "seed = 99999999999999999999999", " device = cpu", "[course",
                              "seed = 1\nseed = 2", "%(x)s", "profile = %", "backbone = \u202e",
                              "seed = " + "9" * 5000]),
             max_size=8).map(lambda lines: "\n".join(lines).encode()))


@many
@given(TEXT)
@example(b"[course]\ndata_dir = a\0b\n")
def test_any_settings_file_is_read_or_refused_in_words(tmp_path, text):
    path = tmp_path / "settings.ini"
    path.write_bytes(text)
    try:
        found = load_settings(path, environ={})
    except SettingsError as error:
        assert "settings.ini" in str(error)
    else:
        assert isinstance(found, CourseSettings) and isinstance(found.seed, int)


def rows_of(valid: dict):
    """Lines of a results file: whole rows, rows with something else in a field, and what is no row."""
    things = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
                       st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=3), st.integers()))
    changed = st.tuples(st.sampled_from(sorted(valid)), things).map(lambda pair: {**valid, pair[0]: pair[1]})
    missing = st.sampled_from(sorted(valid)).map(lambda key: {k: v for k, v in valid.items() if k != key})
    row = st.one_of(st.just(valid), changed, missing).map(lambda row: json.dumps(row).encode())
    cut = st.tuples(row, st.integers(0, 80)).map(lambda pair: pair[0][:pair[1]])
    deep = st.sampled_from([b"[" * 100_000, b"1" * 5000, b'{"lesson": ' * 5000, b"\0" * 30, b"\xff\xfe", b"NaN"])
    return st.lists(st.one_of(row, cut, deep, st.binary(max_size=60)), max_size=6).map(b"\n".join)


RESULT = {"lesson": "03", "name": "validation error", "value": 0.15, "unit": "fraction", "dataset": "elpv",
          "backbone": "efficientnet_lite0", "profile": "laptop", "seed": 42}
TRIAL = {"key": "0a", "config": {"lr": 0.1}, "seed": 1, "status": "done", "values": {"error": 0.2}, "curves": [],
         "error": "", "seconds": 1.0}
EVENT = {"id": "04.lr_sweep", "did": "passed", "when": 1}


@many
@given(rows_of(RESULT))
def test_any_results_file_gives_the_rows_that_are_whole(tmp_path, text):
    path = tmp_path / "results.jsonl"
    path.write_bytes(text + b"\n" + json.dumps(RESULT).encode() + b"\n")
    rows = read_results(path)
    assert rows[-1] == RESULT
    assert str(typical_range(RESULT, rows))


@many
@given(rows_of(TRIAL))
def test_any_file_of_trials_gives_the_trials_that_are_whole(tmp_path, text):
    path = tmp_path / "trials.jsonl"
    path.write_bytes(text + b"\n" + json.dumps(TRIAL).encode() + b"\n")
    assert read_trials(path)[-1] == TRIAL


@many
@given(rows_of(EVENT))
def test_any_progress_file_is_read_and_a_damaged_one_kept(tmp_path, text):
    path = tmp_path / "progress.jsonl"
    path.write_bytes(text + b"\n" + json.dumps(EVENT).encode() + b"\n")
    before = path.read_bytes()
    events = read_progress(path, echo=lambda words: None)
    assert events[-1] == EVENT
    kept = [other.read_bytes() for other in tmp_path.glob("progress.damaged-*")]
    assert before in kept or path.read_bytes() == before
    for other in tmp_path.glob("progress.damaged-*"):
        other.unlink()


@many
@given(st.one_of(st.binary(max_size=100), st.sampled_from([
    b"[" * 100_000, b"[]", b"{}", b'{"lessons": []}', b'{"lessons": {"03": 4}}', b'{"lessons": {"03": {"seconds": 5}}}',
    b'{"lessons": {"03": {"seconds": "x"}}}'])))
def test_any_record_of_lessons_leaves_the_lessons_runnable(tmp_path, text):
    (tmp_path / "lessons.json").write_bytes(text)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("course_lib.teach.results.RECORDS", tmp_path)
        assert isinstance(recorded_lessons(), dict)
        assert lesson_cost("03")


# ---- Long use, and memory that is not there

def test_a_cell_that_runs_out_of_memory_leaves_the_kernel_usable(tmp_path):
    class Greedy(nn.Linear):
        greedy = True

        def forward(self, x):
            return super().forward(torch.zeros(2**60 if self.greedy else 1).sum() * 0 + x)

    torch.manual_seed(0)
    batches = [(torch.randn(4, 3), torch.tensor([0, 1, 0, 1])) for _ in range(3)]
    learner = Learner(Greedy(3, 2), batches, batches, progress=False)
    before = [p.clone() for p in learner.model.parameters()]
    with pytest.raises((RuntimeError, MemoryError)):
        learner.fit(2)
    assert all(torch.equal(a, b) for a, b in zip(before, learner.model.parameters(), strict=True))
    learner.model.greedy = False
    learner.fit(2)
    assert len(learner.recorder.rows) == 2


def test_many_rounds_leave_no_file_open_and_no_thread_running(tmp_path):
    """200 rounds, with the memory they hold: benchmarks/faults.py rounds."""
    items = items_from_folders(make_photos(tmp_path / "photos"))
    cached = presize(items, 32, tmp_path / "cache", progress=False)
    counts = []
    for _ in range(8):
        loaders = make_loaders(cached, image_size=24, batch_size=8, mean=(0.5,) * 3, std=(0.5,) * 3)
        learner = Learner(nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 2)), loaders.train, loaders.valid,
                          callbacks=[Checkpoint(tmp_path / "run")], progress=False)
        lr_find(learner, iterations=20, echo=lambda words: None)
        learner.fit(1, 1e-3)
        counts.append((len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0,
                       threading.active_count()))
    assert max(counts[1:]) <= counts[0], counts


# ---- The script that does it many times

SCRIPT = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import faults
faults.RECORD = Path(sys.argv[2]) / "faults.jsonl"
faults.images(40, 24)
faults.archives(0.4)
source = Path(sys.argv[2]) / "source"
faults.make_photos(source / "photos", 12)
faults.torch.set_num_threads(1)
for name, work in (("cache", faults.build_cache), ("experiment", faults.experiment)):
    faults.kill_at_random(name, work, source, 3)
liar = lambda folder, source: faults.build_cache(folder, source) + folder.name
faults.kill_at_random("a liar", liar, source, 1)
hurried = lambda folder, source: faults.time.sleep(1 if folder.name == "whole" else 0.02) or "done"
faults.kill_at_random("one that met a busy machine first", hurried, source, 3)
asleep = faults.forked(lambda *_: faults.time.sleep(60), source, source, source / "asleep.txt")
assert faults.finished(asleep, source / "asleep.txt", patience=0.2) == "exit: no end in 0.2 s"
faults.tqdm.get_lock()  # made by the first bar, and shared with forked processes from then on
holder = faults.forked(lambda *_: faults.tqdm.get_lock().acquire() and faults.time.sleep(60), source, source,
                       source / "holder.txt")
faults.time.sleep(2)
faults.os.kill(holder, 9)
faults.os.waitpid(holder, 0)
drawn = faults.forked(lambda *_: str(len(list(faults.tqdm(range(3))))), source, source, source / "after.txt")
assert faults.finished(drawn, source / "after.txt", patience=30) == "3"
faults.rounds(3)
answers = iter([0.1, None, 0.1, None, 0.2])
faults.lesson_results = lambda *_: (1.0, {} if (error := next(answers)) is None else {"error": error})
faults.notebooks(2)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks")
def test_the_script_of_faults_finds_what_it_should(tmp_path):
    """Nothing is lost by damaged images or kills; and a result that differs is counted as lost."""
    scripts = Path(__file__).resolve().parents[2] / "benchmarks"
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(scripts), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "faults.jsonl").read_text().splitlines()
    damaged, *bombs, built, tried, liar, hurried, long_use, lesson = map(json.loads, lines)
    assert damaged["good"] == damaged["good_as_they_were"] == 24
    assert damaged["left_out"] + damaged["still_readable"] == 40 and damaged["left_out"] > 10
    assert [bomb["left"] for bomb in bombs] == [["bomb.zip"], ["bomb.tar.gz"]]
    assert all("more than 200 MB" in bomb["said"] and bomb["archive_mb"] < 4 for bomb in bombs)
    assert built["kills"] == tried["kills"] == 6 and built["same_result"] == tried["same_result"] == 3
    assert liar["same_result"] == 0
    assert hurried["kills"] == 6 and hurried["same_result"] == 3
    assert len(long_use["memory_mb"]) == 3 and len(long_use["open_files"]) == len(long_use["threads"]) == 1
    assert lesson["kills"] == 2 and lesson["same_result"] == 1
