"""Two processes on a CPU train what one process trains, with the same whole batches; one of them writes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

import course_lib.app.train as training
from course_lib.app.predict import load_classifier, predict_images
from course_lib.learner import load_checkpoint
from course_lib.settings import CourseSettings

pytestmark = pytest.mark.slow

HERE = Path(__file__).resolve().parent
ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE")} | {
    "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1]), "TQDM_DISABLE": "1"}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def save_photos(folder: Path, swapped: bool = False) -> None:
    """Bright and dark noise: 22 images of each class, one of which may stand in the wrong folder."""
    rng = np.random.default_rng(0)
    for label, low in (("bright", 130), ("dark", 0)):
        (folder / label).mkdir(parents=True)
        for i in range(22):
            pixels = rng.integers(low, low + 120, (48, 48, 3), dtype=np.uint8)
            Image.fromarray(255 - pixels if swapped and i == 3 else pixels).save(folder / label / f"{i}.png")


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> tuple[Path, list[dict]]:
    """What the two processes of `two_processes.py` found, and the folder in which they worked.

    pytest's own workers share it: the first one to come starts them, others wait.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "together"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            run_both(folder)
    return folder, [json.loads((folder / f"found{rank}.json").read_text()) for rank in range(2)]


def run_both(folder: Path) -> None:
    """What a launcher does, without the time that it takes to start one."""
    port = free_port()
    save_photos(folder / "photos")
    save_photos(folder / "others", swapped=True)
    logs = [folder / f"log{rank}.txt" for rank in range(2)]
    processes = []
    for rank, log in enumerate(logs):
        environ = ENVIRON | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
                             "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        with open(log, "w") as file:
            processes.append(subprocess.Popen([sys.executable, HERE / "two_processes.py", folder], env=environ,
                                              stdout=file, stderr=subprocess.STDOUT, cwd=folder))
    try:
        codes = [process.wait(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0, 0], "\n".join(log.read_text()[-3000:] for log in logs)


def difference(one, two) -> float:
    return (torch.tensor(one, dtype=torch.float64) - torch.tensor(two, dtype=torch.float64)).abs().max().item()


@pytest.mark.parametrize("kind", ["BatchNorm2d", "BatchNorm1d", "timm"])
def test_batch_norm_over_unequal_shares_is_that_of_the_whole_batch(found, kind):
    for one in found[1]:
        assert max(one["norms"][kind].values()) < 2e-5, one["norms"][kind]


def test_batch_norm_of_each_process_alone_is_another(found):
    for what in ("value", "input gradient", "weight gradient", "running mean", "running variance"):
        assert all(one["norms"]["alone"][what] > 1e-2 for one in found[1]), what


@pytest.mark.parametrize("kind", ["images", "features"])
def test_two_processes_take_the_steps_of_one(found, kind):
    """In float64, so that what differs would be a mistake: batches of 7 in shares of 4 and 3, the body's end learns."""
    first, second = (one["fits"][kind] for one in found[1])
    assert first["one"] == second["one"] and first["two"]["losses"] == second["two"]["losses"]
    assert first["one"]["kept"] == first["two"]["kept"] == (kind == "features")
    one, two = first["one"], first["two"]
    assert len(one["losses"]) == 6 and difference(one["losses"], two["losses"]) < 1e-9
    assert difference(one["logits"], two["logits"]) < 1e-8 and one["targets"] == two["targets"]
    for row, other in zip(one["rows"], two["rows"], strict=True):
        assert row.keys() == other.keys() and row["error_rate"] == other["error_rate"]
        assert difference([row["train_loss"], row["valid_loss"]], [other["train_loss"], other["valid_loss"]]) < 1e-9


def test_two_processes_count_as_one_with_class_weights_and_targets_to_ignore(found):
    """One share of a batch counts nothing, one batch neither; gradients of two batches are added up."""
    for one in found[1]:
        for name, values in one["weighted"]["one"].items():
            assert difference(values, one["weighted"]["two"][name]) < 1e-9, name
    assert len(found[1][0]["weighted"]["one"]["losses"]) == 12  # of five batches an epoch one counts nothing


def test_the_test_would_see_norms_of_the_processes_own(found):
    fits = found[1][0]["fits"]
    assert difference(fits["images"]["one"]["losses"][:3], fits["own norms"]["losses"]) > 1e-3


@pytest.fixture(scope="module")
def alone(found, tmp_path_factory) -> Path:
    """The training of the two processes, by one."""
    photos, data, output = found[0] / "photos", found[0] / "data", tmp_path_factory.mktemp("alone")
    settings = CourseSettings(dataset=str(photos), data_dir=data, profile_name="test", device="cpu")
    training.train_classifier(settings, output=output, epochs=2, batch_size=7, dropout=0.0,
                              echo=lambda text: None)
    return output


def test_course_train_gives_the_same_loss_and_metrics(found, alone):
    """float32 now: Adam makes steps out of rounding too, so figures differ from the fourth digit on."""
    one, two, resumed = (json.loads((folder / "metrics.json").read_text())
                         for folder in (alone, found[0] / "two", found[0] / "cut"))
    for other in (two, resumed):
        assert one["validation_images"] == other["validation_images"] and len(other["history"]) == 2
        assert one["validation_error"] == other["validation_error"]
        assert abs(one["validation_loss"] - other["validation_loss"]) < 2e-3
        for row, same in zip(one["history"], other["history"], strict=True):
            assert abs(row["train_loss"] - same["train_loss"]) < 2e-3
            assert abs(row["valid_loss"] - same["valid_loss"]) < 2e-3
    assert found[1][0]["trainings"]["whole"] == found[1][1]["trainings"]["whole"]


def test_tricks_mix_the_whole_batch(found, tmp_path):
    """Images of one process into those of the other, as one process would with all of them."""
    settings = CourseSettings(dataset=str(found[0] / "photos"), data_dir=found[0] / "data", profile_name="test",
                              device="cpu")
    training.train_classifier(settings, output=tmp_path, epochs=2, batch_size=7, dropout=0.0,
                              tricks="ricap,cutout,ema,adabound", echo=lambda text: None)
    one, two = (json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path, found[0] / "tricks"))
    assert one["tricks"] == two["tricks"] and one["validation_error"] == two["validation_error"]
    assert difference([row["train_loss"] for row in one["history"]],
                      [row["train_loss"] for row in two["history"]]) < 2e-3
    assert abs(one["validation_loss"] - two["validation_loss"]) < 2e-3
    assert found[1][0]["trainings"]["tricks"] == found[1][1]["trainings"]["tricks"]


def test_one_process_writes_and_speaks(found):
    folder = found[0] / "two"
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == [
        "best.safetensors", "last.safetensors", "losses.png", "metrics.json", "model.safetensors",
        "report.html", "report.json"]
    assert found[1][1]["trainings"]["said"] == []
    assert any("2 processes" in line for line in found[1][0]["trainings"]["said"])
    log = (found[0] / "log1.txt").read_text()
    assert "train loss" not in log and "train loss" in (found[0] / "log0.txt").read_text()


def test_what_two_processes_saved_one_can_use(found, alone):
    two, one = (load_checkpoint(folder / "model.safetensors") for folder in (found[0] / "two", alone))
    assert two[0].keys() == one[0].keys() and two[1].keys() == one[1].keys()
    classifier = load_classifier(found[0] / "two" / "model.safetensors")
    image = found[0] / "photos" / "bright" / "0.png"
    assert predict_images(classifier, [image])[0].problem == ""


def test_mirror_images_and_half_of_the_bits(found):
    first, second = (one["trainings"]["mirror"] for one in found[1])
    assert first == second and first["unmirrored"]["validation_loss"] != first["validation_loss"]
    saved = load_checkpoint(found[0] / "mirror" / "model.safetensors")
    assert saved[1]["mixed_precision"] == "bf16"
    assert all(tensor.dtype != torch.bfloat16 for tensor in saved[0].values())


@pytest.mark.parametrize("what, said", [
    ("seed", "seed is 42 in process 0, 43 in process 1"), ("epochs", "epochs is 2 in process 0, 3 in process 1"),
    ("images", "pixels"), ("batch", "a batch of 1, but there are 2 processes")])
def test_processes_that_do_not_fit_together_are_refused_everywhere(found, what, said):
    for one in found[1]:
        assert said in one["trainings"][what] and ("LaunchError" in one["trainings"][what]) == (what != "batch")


def test_a_process_that_goes_away_is_noticed(found):
    assert "lost the others" in found[1][0]["lost"]


def test_accelerate_launch_runs_the_command(found):
    """With the launcher itself: the flags of `course train`, one table, one set of files."""
    output = found[0] / "launched"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
               "--main_process_port", "0", "-m", "course_lib.app.cli", "train", "--device", "cpu", "--profile", "test",
               "--dataset", str(found[0] / "photos"), "--data-dir", str(found[0] / "data"), "--epochs", "1",
               "--batch-size", "8", "--output", str(output)]
    ran = subprocess.run(command, env=ENVIRON, cwd=found[0], capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert ran.stdout.count("train loss") == ran.stdout.count("Validation error") == 1
    written = {path.name for path in output.iterdir()}
    assert written == {"checkpoints", "losses.png", "metrics.json", "model.safetensors", "report.html", "report.json"}
    assert json.loads((output / "metrics.json").read_text())["batch_size"] == 8


def test_accelerates_cpu_flag_does_not_pass_for_two_processes(found, monkeypatch):
    """It starts one, and sets the variables that this looks at."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("MASTER_PORT", "29500")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(RuntimeError, match="--multi_gpu"):
        training.train_classifier(CourseSettings(profile_name="test", device="cpu"), output=found[0] / "none")
    assert not (found[0] / "none").exists()
