"""The bench beside the peers: every program that can run here does its work, and the figures are what they say."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

PEERS = Path(__file__).resolve().parents[1] / "benchmarks" / "peers"
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


def test_rounds_take_turns_in_processes_of_their_own(programs, tmp_path):
    """The whole way, quick: a step by all that is installed."""
    done = subprocess.run([sys.executable, str(PEERS / "compare.py"), "--quick", "--output", str(tmp_path), "step"],
                          capture_output=True, text=True, cwd=PEERS.parents[1])
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "peers_step.json").read_text())
    assert found["quick"] and found["figures"]["images/s"].keys() == found["runs"].keys()
    assert {"course", "timm", "torchvision"} <= found["figures"]["images/s"].keys()
    assert 0.1 < found["figures"]["peak_gb"]["course"] < 10 and found["ratios"]["images/s"]["timm"] > 0
