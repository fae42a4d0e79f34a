"""The `course` command as a student meets it: exit codes, messages, files, and what an interruption leaves behind."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib.app.cli import build_parser, main
from course_lib.app.predict import latest_model, load_classifier, predict_images
from course_lib.learner import load_checkpoint

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
COURSE = [sys.executable, "-m", "course_lib.app.cli"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Two classes that can be told apart: bright and dark noise, 24 images each."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for label, low in (("bright", 130), ("dark", 0)):
        (root / label).mkdir()
        for i in range(24):
            pixels = rng.integers(low, low + 120, (48, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def options(photos, tmp_path_factory) -> list[str]:
    (folder := tmp_path_factory.mktemp("settings")).joinpath("settings.ini").write_text("[course]\nprofile = test\n")
    return ["--settings", str(folder / "settings.ini"), "--dataset", str(photos)]


@pytest.fixture(scope="module")
def undisturbed(options, tmp_path_factory) -> Path:
    """A training of six epochs that nobody interrupted."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert main(["train", *options, "--epochs", "6", "--output", str(folder)]) == 0
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "model.safetensors")[0]


def environ() -> dict[str, str]:
    return {**{k: v for k, v in os.environ.items() if not k.startswith("COURSE_")}, "PYTHONUNBUFFERED": "1"}


def test_help_names_every_command_and_imports_nothing_heavy():
    code = ("import sys; from course_lib.app.cli import build_parser; print(build_parser().format_help()); "
            "print('HEAVY', sorted({'torch', 'torchvision', 'timm', 'matplotlib'} & set(sys.modules)))")
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "HEAVY []" in text
    for command in ("run", "lab", "data", "train", "bench", "predict", "doctor"):
        assert f"\n    {command} " in text


@pytest.mark.parametrize("words", [["train"], ["bench"], ["run"], ["data", "get"], ["data", "check"], ["doctor"],
                                   ["predict"]])
def test_every_command_explains_itself(words, capsys):
    with pytest.raises(SystemExit) as stop:
        build_parser().parse_args([*words, "--help"])
    assert stop.value.code == 0
    assert "usage: course " + " ".join(words) in capsys.readouterr().out


def test_version(capsys):
    import course_lib

    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.strip() == f"course {course_lib.__version__}"


@pytest.mark.parametrize("words, said", [
    (["train", "--profile", "labtop"], "Did you mean 'laptop'"),
    (["train", "--seed", "minus one"], "seed = 'minus one'"),
    (["train", "--epochs", "0"], "epochs = 0"),
    (["train", "--lr", "nan"], "learning rate"),
    (["train", "--backbone", "efficientnet_light0"], "efficientnet_lite0"),
    (["train", "--tricks", "mixup,lable_smoothing"], "Did you mean 'label_smoothing'"),
    (["train", "--tricks", "distillation"], "a trained teacher"),
    (["train", "--dataset", "elpw"], "elpv"),
    (["data", "get", "no-such-folder/at-all"], "no-such-folder"),
    (["run", "77"], "There is no lesson 77"),
    (["predict", "x.png", "--model", "not-there.safetensors"], "not-there.safetensors"),
])
def test_a_mistake_gives_one_clear_line_and_exit_code_2(words, said, capsys, tmp_path, monkeypatch):
    if words[0] == "train":
        words = [*words, "--output", str(tmp_path / "out"), *([] if "--profile" in words else ["--profile", "test"])]
    monkeypatch.setenv("COURSE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(ROOT)
    assert main(words) == 2
    printed = capsys.readouterr()
    assert said in printed.err and "Traceback" not in printed.err
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_settings_file_typo_is_named(tmp_path, capsys):
    file = tmp_path / "settings.ini"
    file.write_text("[course]\nbackbon = resnet18\n")
    assert main(["doctor", "--settings", str(file)]) == 2
    said = capsys.readouterr().err
    assert all(part in said for part in (str(file), "'backbon'", "Did you mean 'backbone'"))


def test_data_list_names_the_data_sets_with_their_licences(capsys):
    assert main(["data", "list"]) == 0
    text = capsys.readouterr().out
    for name in ("elpv", "pets", "hotdog", "birds"):
        assert f"\n{name} " in f"\n{text}"
    assert "CC BY-NC-SA 4.0" in text


def test_data_get_counts_and_check_names_the_damaged(photos, options, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(photos, copy)
    (copy / "dark" / "3.png").write_bytes(b"not an image")
    (copy / "dark" / "4.png").write_bytes((copy / "dark" / "4.png").read_bytes()[:200])
    assert main(["data", "get", str(copy), *options[:2]]) == 0
    assert "48 images in 2 classes" in capsys.readouterr().out
    assert main(["data", "check", str(copy), *options[:2]]) == 1
    text = capsys.readouterr().out
    assert "dark/3.png" in text and "dark/4.png" in text and "46 of 48" in text
    assert main(["data", "check", str(photos), *options[:2]]) == 0


def test_train_writes_what_it_says(undisturbed):
    metrics = json.loads((undisturbed / "metrics.json").read_text())
    assert metrics["validation_images"] == 12 and len(metrics["history"]) == 6 == metrics["epochs"]
    assert metrics["validation_error"] <= 0.1  # bright and dark noise are easy to tell apart
    assert set(metrics["error_per_class"]) == {"bright", "dark"}
    assert metrics["two_class_accuracy"] == 1 - metrics["validation_error"]
    with Image.open(undisturbed / "losses.png") as image:
        assert image.size[0] > 300


def test_what_was_measured_is_what_the_saved_model_does(undisturbed, photos):
    """The recorded error must be that of the saved file on the image files, not only of the model in memory."""
    from course_lib.data import get_items, split_items

    items = get_items(str(photos), "unused", announce=False)
    held_out = split_items(items, seed=42)[1]
    classifier = load_classifier(undisturbed / "model.safetensors")
    said = predict_images(classifier, [items.path(i) for i in held_out])
    error = np.mean([p.label != items.labels[i] for p, i in zip(said, held_out, strict=True)])
    assert error == pytest.approx(json.loads((undisturbed / "metrics.json").read_text())["validation_error"])


def test_predict_goes_on_after_a_bad_file(undisturbed, photos, tmp_path, capsys):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"")
    grey = tmp_path / "grey.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 120, (48, 60), dtype=np.uint8)).save(grey)
    model = str(undisturbed / "model.safetensors")
    assert main(["predict", str(bad), str(photos / "bright" / "0.png"), str(grey), "--model", model]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "cannot be read" in lines[0] and "bright (" in lines[1] and "dark (" in lines[2]


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_predict_refuses_a_pickle_without_opening_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, write in (("a.pth", pickle.dump), ("b.safetensors", torch.save)):
        with open(name, "wb") as file:
            write(Bomb(), file)
        assert main(["predict", "x.png", "--model", name]) == 2
        assert "pickle" in capsys.readouterr().err
    assert not Path("exploded").exists()


def test_latest_model_is_the_default(undisturbed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["predict", "x.png"]) == 2
    assert "course train" in capsys.readouterr().err
    for name, age in (("old", 100), ("new", 0)):
        (tmp_path / "runs" / name).mkdir(parents=True)
        copy = shutil.copy(undisturbed / "model.safetensors", tmp_path / "runs" / name)
        os.utime(copy, (time.time() - age,) * 2)
    assert latest_model().parent.name == "new"


def test_the_same_command_gives_the_same_model(undisturbed, options, tmp_path):
    assert main(["train", *options, "--epochs", "6", "--output", str(tmp_path / "again")]) == 0
    first, second = weights(undisturbed), weights(tmp_path / "again")
    assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_training_goes_on_to_the_same_model(how, undisturbed, options, tmp_path):
    command = [*COURSE, "train", *options, "--epochs", "6", "--output", str(tmp_path / "cut")]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environ(), cwd=ROOT)
    last = tmp_path / "cut" / "checkpoints" / "last.safetensors"
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(how)
    code = process.wait(60)
    text = (tmp_path / "log").read_text()
    assert last.exists(), text
    assert not (tmp_path / "cut" / "model.safetensors").exists(), "finished before it could be interrupted"
    if how == signal.SIGINT:
        assert code == 130 and "--resume" in text and "Traceback" not in text
    assert main(["train", *options, "--epochs", "6", "--output", str(tmp_path / "cut"), "--resume"]) == 0
    first, second = weights(undisturbed), weights(tmp_path / "cut")
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_resuming_with_other_settings_says_what_differs(undisturbed, options, tmp_path, capsys):
    shutil.copytree(undisturbed / "checkpoints", tmp_path / "checkpoints")
    assert main(["train", *options, "--epochs", "7", "--output", str(tmp_path), "--resume"]) == 2
    assert "epochs was 6, is now 7" in capsys.readouterr().err


def test_nothing_to_resume(options, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *options, "--resume"]) == 2
    assert "no interrupted training" in capsys.readouterr().err


def test_a_model_of_another_kind_is_named(undisturbed, tmp_path):
    from course_lib.learner import CheckpointError, load_weights
    from course_lib.models import create_classifier

    with pytest.raises(CheckpointError, match="efficientnet_lite0"):
        load_weights(undisturbed / "model.safetensors", create_classifier("efficientnet_lite1", 2, pretrained=False))
    with pytest.raises(CheckpointError, match="classes"):
        load_weights(undisturbed / "model.safetensors", create_classifier("efficientnet_lite0", 2, pretrained=False),
                     classes=("bright", "shiny"))


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX systems")
def test_the_lab_opens_the_index_and_ends_with_its_command(tmp_path):
    """Also without a browser the address that is printed leads to the index; what ends the command ends the server."""
    environ = os.environ | {"JUPYTER_CONFIG_DIR": str(tmp_path), "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
                            "JUPYTER_DATA_DIR": str(tmp_path / "data"), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-m", "course_lib.app.cli", "lab", "--no-browser"], cwd=ROOT,
                               env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    timer = threading.Timer(100, process.kill)
    timer.start()
    try:
        first = "/lab/tree/nbs/00_first_classifier.ipynb?token="
        address = next((line for line in process.stdout if first in line), "")
        assert "http://localhost" in address or "http://127.0.0.1" in address
        notes = tmp_path / "runtime"
        for _ in range(100):  # the server's note may come after its words
            if process.poll() is not None or list(notes.glob("jpserver-*.json")):
                break
            time.sleep(0.1)
        assert [note.name for note in notes.glob("jpserver-*.json")] == [f"jpserver-{process.pid}.json"]  # no child
        process.terminate()
        assert process.wait(timeout=30) is not None
    finally:
        timer.cancel()
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_warning_is_one_plain_line(tmp_path):
    for name in ("train/a/1.png", "train/b/1.png", "val/a/1.png", "val/b/1.png", "samples/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    done = subprocess.run([sys.executable, "-m", "course_lib.app.cli", "data", "get", str(tmp_path)],
                          capture_output=True, text=True, check=True)
    assert done.stderr.startswith("course: Beside train, valid and test") and done.stderr.count("\n") == 1
    assert "'samples' (1 image)" in done.stderr and "UserWarning" not in done.stderr
