"""The bench beside the peers: every program that can run here does its work, and the figures are what they say."""

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from course_lib.teach import read_record

pytestmark = pytest.mark.slow

PEERS = Path(__file__).resolve().parents[2] / "benchmarks" / "peers"
sys.path.append(str(PEERS.parents[1] / "website"))
QUESTIONS = ("pipeline", "finder", "frozen", "step", "inference")


@pytest.fixture(scope="module")
def programs():
    sys.path.insert(0, str(PEERS))
    yield importlib.import_module
    sys.path.remove(str(PEERS))
    for name in ("common", "one", "compare", *(f"with_{peer}" for peer in ("course", "timm", "torchvision"))):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def folder(programs, tmp_path_factory):
    place = tmp_path_factory.mktemp("photographs")
    programs("compare").make_synthetic(place, 24)
    return place


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # timm leaves files to be closed
@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("peer", ["course", "timm", "torchvision"])
def test_every_program_does_its_work(peer, question, programs, folder, tmp_path):
    program = programs(f"with_{peer}")
    if not hasattr(program, question):
        assert (peer, question) in {("timm", "finder"), ("torchvision", "finder")}
        return
    job = programs("common").Job(folder=str(folder), cache=str(tmp_path), size=32, stored=40, batch=4, workers=0,
                                 classes=4, steps=1, epochs=2, iterations=10, frozen=True)
    found = getattr(program, question)(job)
    keys = {"pipeline": {"cold", "warm"}, "finder": {"seconds", "iterations", "again"}, "frozen": {"first", "later"},
            "step": {"rates"}, "inference": {"rate"}}[question]
    assert found.keys() == keys
    values = [value for some in found.values() for value in (some if isinstance(some, list) else [some])]
    assert all(value > 0 for value in values)
    assert len(values) == {"pipeline": 3, "finder": 3, "frozen": 2, "step": 2, "inference": 1}[question]


@pytest.mark.parametrize("question, key", [("step_bf16", "rates"), ("inference_exported", "rate")])
def test_the_course_at_its_fastest_does_its_work(question, key, programs, folder, tmp_path):
    if question == "inference_exported":
        pytest.importorskip("onnxruntime")
    job = programs("common").Job(folder=str(folder), cache=str(tmp_path), size=32, stored=40, batch=4, workers=0,
                                 classes=4, steps=1, epochs=1, iterations=10, frozen=True)
    assert np.min(getattr(programs("with_course"), question)(job)[key]) > 0


def test_the_lines_by_which_a_start_is_divided_are_those_that_a_training_prints(monkeypatch):
    monkeypatch.syspath_prepend(PEERS.parent)
    start = importlib.import_module("start")
    rooms = PEERS.parents[1] / "course_lib"
    printed = "".join((rooms / name).read_text(encoding="utf-8")
                      for name in ("app/train.py", "app/speed.py", "learner/features.py"))
    assert all(f'echo(f"{begins}' in printed for begins in start.STEPS)


def test_the_photographs_are_all_different_and_as_many_as_asked(folder):
    files = {part: sorted((folder / part).rglob("*.jpg")) for part in ("train", "valid")}
    assert {part: len(some) for part, some in files.items()} == {"train": 24, "valid": 4}
    assert len({path.read_bytes() for path in files["train"]}) == 24
    assert len({path.parent.name for path in files["valid"]}) == 4


def test_medians_ratios_and_slopes(programs):
    compare = programs("compare")
    runs = {"course": [{"seconds": 2.0, "rates": [10, 30]}, {"seconds": 4.0, "rates": [20, 20]}],
            "fastai": [{"seconds": 9.0, "rates": [5, 5]}, {"seconds": 9.0, "rates": [5, 5]}]}
    for each in runs.values():
        for run in each:
            run["peak_gb"] = 1.0
    found = compare.figures(runs, "seconds", "rates")
    assert found["seconds"] == {"course": 3.0, "fastai": 9.0} and found["rates"] == {"course": 20, "fastai": 5}
    assert compare.times_as_good(found["seconds"], False) == {"fastai": 3.0}
    assert compare.times_as_good(found["rates"], True) == {"fastai": 4.0}
    assert compare.times_as_good({"course": 10, "timm": 20}, True) == {"timm": 0.5}  # the peer wins
    assert compare.slope([(1, 3), (2, 12), (4, 48)]) == 2.0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere mapped files are not told apart")
def test_own_memory_is_that_of_all_processes_without_files(programs, tmp_path):
    one, most = programs("one"), [0.0]
    np.zeros(100_000_000, np.uint8).tofile(tmp_path / "file")
    with one.watch_own_memory(before := [0.0], 0.01):
        time.sleep(0.2)
    with one.watch_own_memory(most, 0.01):
        mapped = np.memmap(tmp_path / "file", np.uint8, "r")
        assert mapped.sum() == 0
        time.sleep(0.2)
    assert 0 < before[0] and most[0] < before[0] + 0.06  # of 0.1 GB that is mapped
    program = "import time; held = bytearray(b'x' * 200_000_000); time.sleep(2)"
    with one.watch_own_memory(more := [0.0], 0.01):
        subprocess.run([sys.executable, "-c", program], check=True)
    assert 0.15 < more[0] - before[0] < 0.5


def test_who_is_not_installed_is_said_and_left_out(programs, monkeypatch, capsys):
    compare = programs("compare")
    monkeypatch.setattr(compare, "installed", lambda peer: peer != "fastai")
    assert compare.taking_part("step", "course", "fastai") == {"course": ("course", "step")}
    assert "without fastai" in capsys.readouterr().out


def test_what_comes_with_a_package_is_counted_once_and_without_extras(programs):
    compare = programs("compare")
    needed = compare.requirements("course-lib", set())
    assert {"course-lib", "torch", "jupyterlab", "pillow"} <= needed and "ruff" not in needed
    assert compare.requirements("no-such-package", set()) == set()


GROWING = ["growth_images", "growth_classes", "growth_pixels", "growth_workers"]


@pytest.mark.parametrize("question", ["pipeline", "finder", "frozen", "step", "inference", "tune", *GROWING])
def test_a_course_that_is_twice_as_good_has_the_ratio_two(question, programs, monkeypatch):
    """Whichever way round a question's figures go, and with peers that are not installed here."""
    compare, asked = programs("compare"), []

    def run_one(peer, question, job, threads=None):
        asked.append((peer, question, job.get("epochs")))
        fast = 2.0 if peer == "course" else 1.0
        rates = {"cold": 10 * fast, "warm": [99 * fast, 100 * fast, 101 * fast], "rate": 30 * fast, "rates": [7 * fast]}
        seconds = {"seconds": 60 / fast, "again": 1.0, "iterations": 100, "first": 8 / fast, "later": [4 / fast]}
        return rates | seconds | {"error": 0.3 if job.get("epochs") == 2 else 0.1, "peak_gb": 1.0}

    monkeypatch.setattr(compare, "run_one", run_one)
    monkeypatch.setattr(compare, "installed", lambda peer: True)
    job = {"folder": "f", "size": 224, "stored": 256, "batch": 32, "steps": 4, "epochs": 3, "iterations": 100}
    more = {"quick": True} if question in GROWING else {}
    found = getattr(compare, f"ask_{question}")(job, 2, **more)
    if question in GROWING:
        points = found["points"]
        assert points.keys() == found["slopes"].keys() == {"course", "fastai"} | (
            {"course, bf16"} if question == "growth_pixels" else set())
        assert {asked_of for _, asked_of, _ in asked} <= {"pipeline", "step", "step_bf16"}
        for own, other in zip(points["course"], points["fastai"], strict=True):
            assert own["size"] == other["size"] and other["cost"] == pytest.approx(2 * own["cost"], rel=1e-3)
        cost = {"growth_images": 24 / 10, "growth_classes": 32 / 7, "growth_pixels": 8 / 7, "growth_workers": 10.0}
        assert found["points"]["fastai"][0]["cost"] == pytest.approx(cost[question], rel=1e-3)
        return
    ratios = [pair for row in found["ratios"].values() for pair in row.items()]
    others = {ratio for name, ratio in ratios if not name.startswith("course, ")}
    assert others == {2.0} and {ratio for name, ratio in ratios if name.startswith("course, ")} <= {1.0}
    assert {peer for peer, _, _ in asked} >= {"course", "fastai"}
    if question == "tune":
        assert found["figures"]["seconds"] == {"course": 30.0, "fastai": 60.0}
        assert [point["epochs"] for point in found["points"]["fastai"]] == [2, 4]  # then it was reached
    else:  # everybody once in each of the two rounds, in turns
        first = asked[:len(asked) // 2] if question != "finder" else asked[:len(asked) // 4]
        assert len(set(first)) == len(first) and asked[:2 * len(first)] == 2 * first


def test_what_an_import_puts_off_is_seen_in_the_time_to_a_first_step(programs, monkeypatch):
    compare, clock, asked = programs("compare"), [0.0], []

    def run_one(peer, question, job, threads=None):
        asked.append((peer, question, job["batch"], job["epochs"]))
        clock[0] += 30.0 if peer == "course" else 15.0

    def run(words, **_):
        course = "course_lib" in words[2].splitlines()[1]
        return subprocess.CompletedProcess(words, 0, f"said by a library\n8.0 {0.5 if course else 2.0}")

    monkeypatch.setattr(compare, "run_one", run_one)
    monkeypatch.setattr(compare, "installed", lambda peer: peer in ("course", "timm"))
    monkeypatch.setattr(compare.subprocess, "run", run)
    monkeypatch.setattr(compare.time, "perf_counter", lambda: clock[0])
    found = compare.ask_import({}, 3)
    assert asked == 3 * [("course", "step", 2, 0), ("timm", "step", 2, 0)]
    assert found["ratios"] == {"beyond torch": {"timm": 4.0}, "first step": {"timm": 0.5},
                               "with torch": {"timm": round(10 / 8.5, 2)}}


def test_an_error_that_nobody_reaches_is_said_to_be_not_reached(programs, monkeypatch):
    compare = programs("compare")
    monkeypatch.setattr(compare, "installed", lambda peer: True)
    monkeypatch.setattr(compare, "run_one", lambda peer, *_: {"seconds": 9.0, "peak_gb": 1.0,
                                                              "error": 0.1 if peer == "course" else 0.2})
    found = compare.ask_tune({}, 1)
    assert found["figures"]["seconds"] == {"course": 9.0, "fastai": None} and found["ratios"] == {"seconds": {}}
    assert found["at_least"] == {"seconds": {"fastai": 1.0}}  # all four budgets took as long as the course


def test_a_question_that_there_is_not_is_named_with_those_there_are():
    done = subprocess.run([sys.executable, str(PEERS / "compare.py"), "pipelin"], capture_output=True, text=True)
    assert done.returncode == 1 and "no question pipelin. There are: import, size, pipeline" in done.stderr


def test_rounds_take_turns_in_processes_of_their_own(programs, tmp_path):
    """The whole way, quick: a step by all that is installed."""
    done = subprocess.run([sys.executable, str(PEERS / "compare.py"), "--quick", "--output", str(tmp_path), "step"],
                          capture_output=True, text=True, cwd=PEERS.parents[2])
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "peers_step.json").read_text())
    assert found["quick"] and found["figures"]["images/s"].keys() == found["runs"].keys()
    assert {"course", "timm", "torchvision"} <= found["figures"]["images/s"].keys()
    assert 0.1 < found["figures"]["peak_gb"]["course"] < 10 and found["ratios"]["images/s"]["timm"] > 0


def test_the_table_says_where_a_peer_wins(tmp_path, monkeypatch):
    from page_tables import peers_table

    monkeypatch.setattr("course_lib.teach.results.RECORDS", folder := tmp_path)
    assert peers_table() == "Not measured yet: `make bench`."
    (folder / "peers_size.json").write_text('{"ratios": {"megabytes": {"fastai": 0.861, "timm": 1.5}}}')
    (folder / "peers_finder.json").write_text(json.dumps(
        {"ratios": {"frozen": {"fastai": 61.23}, "unfrozen": {"fastai": 2.54}, "peak_gb": {"fastai": 0.97}}}))
    (folder / "peers_tune.json").write_text('{"ratios": {"seconds": {}}, "at_least": {"seconds": {"fastai": 11.3}}}')
    (folder / "peers_step.json").write_text('{"ratios": {"images/s": {}')  # cut off: says nothing
    lines = peers_table().splitlines()
    assert lines[:2] == ["| times as good as | fastai | timm | torchvision | lightning |", "|---|---|---|---|---|"]
    assert lines[2:] == ["| size on disk, beyond PyTorch | **0.86** | 1.50 |  |  |",
                         "| learning-rate finder, body frozen | 61 |  |  |  |",
                         "| learning-rate finder, nothing frozen | 2.5 |  |  |  |",
                         "| fine-tuning to an error of 15 % | > 11 |  |  |  |",
                         "| peak memory: learning-rate finder | 0.97 |  |  |  |"]
    (folder / "peers_frozen.json").write_text('{"ratios": {"first": {"fastai": 6.5}, "later": {"fastai": 962}}}')
    [row] = [line for line in peers_table().splitlines() if "962" in line]
    assert "features kept, without augmentation" in row  # what is compared with what
    assert "| 6.5 |" in peers_table()


def test_a_file_a_question_with_memory_beside(programs, monkeypatch, tmp_path):
    compare = programs("compare")
    found = {"what": "w", "figures": {"peak_gb": {"course": 1.0, "fastai": 2.5}}, "ratios": {"rate": {"fastai": 3.0}}}
    monkeypatch.setattr(compare, "QUESTIONS", {"step": (lambda job, rounds: found, 3)})
    monkeypatch.setattr(compare, "PETS", tmp_path / "none")
    monkeypatch.setattr(sys, "argv", ["compare.py", "--quick", "--output", str(tmp_path / "new")])
    compare.main()
    kept = json.loads((tmp_path / "new" / "peers_step.json").read_text())
    assert kept["ratios"] == {"rate": {"fastai": 3.0}, "peak_gb": {"fastai": 2.5}}
    assert kept["question"] == "step" and kept["quick"] is True and kept["rounds"] == 1
    assert "solar cells" in kept["photographs"] and {"torch", "course-lib"} <= kept["versions"].keys()


def test_the_published_figures_follow_from_the_recorded_runs(programs):
    """What the page shows: none of a --quick run, medians of the runs, ratios in the figures' order."""
    from page_tables import PEER_QUESTIONS
    from page_tables import PEERS as SHOWN

    from course_lib.teach import read_record

    compare = programs("compare")
    assert (("course", *SHOWN), {*PEER_QUESTIONS, *GROWING}) == (compare.PEERS, compare.QUESTIONS.keys())
    for question in GROWING:
        record = read_record(f"peers_{question}.json")
        assert record["quick"] is False and all(len(rows) >= 2 for rows in record["points"].values()), question
        assert record["slopes"] == {peer: compare.slope([(row["size"], row["cost"]) for row in rows])
                                    for peer, rows in record["points"].items()}
    assert f"{100 * compare.TARGET_ERROR:.0f} %" in PEER_QUESTIONS["tune"]["seconds"]
    keys = {"pipeline": ("cold", "warm"), "frozen": ("first", "later"), "step": ("rates",), "inference": ("rate",)}
    for question, names in PEER_QUESTIONS.items():
        record = read_record(f"peers_{question}.json")
        assert record["quick"] is False and names.keys() <= record["ratios"].keys(), question
        if question in keys:
            again = compare.figures(record["runs"], *keys[question])
            assert list(record["figures"].values()) == list(again.values())
        if question == "finder":
            again = [compare.figures(record["runs"][state], "seconds") for state in ("frozen", "unfrozen")]
            assert list(record["figures"].values()) == [again[0]["seconds"], again[1]["seconds"], again[1]["peak_gb"]]
        if question == "import":
            again = [{name: round(compare.statistics.median(times), 3) for name, times in some.items()}
                     for some in record["runs"].values()]
            assert again[0].pop("import torch") == record["import_torch"]
            assert list(record["figures"].values()) == again
        if question != "tune":
            for (kind, row), ratios in zip(record["figures"].items(), record["ratios"].values(), strict=False):
                for name, ratio in compare.times_as_good(row, "images/s" in kind).items():
                    assert ratios[name] == pytest.approx(ratio, rel=0.03), (question, kind, name)


def test_the_published_time_to_an_error_follows_from_the_recorded_runs(programs, monkeypatch):
    compare, record = programs("compare"), read_record("peers_tune.json")
    runs = {(peer, point["epochs"], 42 + seed): run for peer, points in record["points"].items()
            for point in points for seed, run in enumerate(point["runs"])}
    monkeypatch.setattr(compare, "installed", lambda peer: True)
    monkeypatch.setattr(compare, "run_one", lambda peer, _, job: runs[peer, job["epochs"], job["seed"]])
    again = compare.ask_tune({}, record["rounds"])
    assert again["ratios"]["seconds"] == record["ratios"]["seconds"] and again["at_least"] == record["at_least"]
    assert all(again[key] == record[key] for key in ("what", "points", "figures", "target"))
    assert record["ratios"]["peak_gb"] == compare.times_as_good(record["figures"]["peak_gb"], False)


def test_a_quick_run_does_not_replace_what_was_measured(programs, monkeypatch, tmp_path, capsys):
    compare = programs("compare")
    monkeypatch.setattr(compare, "QUESTIONS", {"step": (lambda job, rounds: {"ratios": {}}, 3)})
    monkeypatch.setattr(compare, "PETS", tmp_path / "none")
    monkeypatch.setattr(compare, "RESULTS", tmp_path / "results")
    for words, there in ((["--quick"], False), ([], True)):
        monkeypatch.setattr(sys, "argv", ["compare.py", *words])
        compare.main()
        assert (tmp_path / "results" / "peers_step.json").exists() is there
        written = Path(capsys.readouterr().out.strip().splitlines()[-1].removeprefix("Written to ").rstrip("."))
        assert json.loads((written / "peers_step.json").read_text())["quick"] is not there
