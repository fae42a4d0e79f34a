"""Going on with a training, and writing where something is: only with the same images, and never in silence."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import course_lib.app.train as training
from course_lib.app.cli import main
from course_lib.learner import Checkpoint, CheckpointError, load_checkpoint
from course_lib.settings import CourseSettings

pytestmark = pytest.mark.slow


class PowerCut(Checkpoint):
    """The electricity fails after the first epoch."""

    def after_epoch(self, learner) -> None:
        super().after_epoch(learner)
        if learner.epoch == 1:
            raise KeyboardInterrupt


def photos(root: Path, count: int = 16, start: int = 0) -> Path:
    for label, low in (("bright", 130), ("dark", 0)):
        (root / label).mkdir(parents=True, exist_ok=True)
        for i in range(start, start + count):
            pixels = np.random.default_rng([low, i]).integers(low, low + 120, (48, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"{i:02}.png")
    return root


def train(root: Path, output: Path, dataset: Path | None = None, seed: int = 42, **options) -> list[str]:
    said: list[str] = []
    settings = CourseSettings(dataset=str(dataset or root / "photos"), data_dir=root / "data", profile_name="test",
                              device="cpu", seed=seed)
    training.train_classifier(settings, output=output, **{"epochs": 2, "batch_size": 6, **options}, echo=said.append)
    return said


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory) -> Path:
    """A folder with `photos`, and `run`, a training of two epochs that stopped after the first."""
    root = tmp_path_factory.mktemp("interrupted")
    photos(root / "photos")
    with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(training, "Checkpoint", PowerCut)
        train(root, root / "run")
    return root


@pytest.fixture
def copy(interrupted, tmp_path) -> Path:
    shutil.copytree(interrupted, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture(scope="module")
def whole(interrupted) -> dict[str, torch.Tensor]:
    train(interrupted, interrupted / "whole")
    return load_checkpoint(interrupted / "whole" / "model.safetensors")[0]


def add(root: Path) -> None:
    photos(root / "photos", 3, start=16)


def remove(root: Path) -> None:
    (root / "photos" / "dark" / "03.png").unlink()
    (root / "photos" / "dark" / "04.png").unlink()


def change(root: Path) -> None:
    path = root / "photos" / "dark" / "03.png"
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)


def relabel(root: Path) -> None:
    for name in ("05.png", "06.png"):
        first, second = root / "photos" / "dark" / name, root / "photos" / "bright" / name
        kept = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(kept)


@pytest.mark.parametrize(("do", "words"), [
    (add, "6 new"), (remove, "2 missing"), (change, "1 new, 1 missing"), (relabel, "4 of another class")])
def test_other_images_are_refused_and_counted(do, words, copy):  # bghira/SimpleTuner#1172
    do(copy)
    with pytest.raises(CheckpointError, match="trained with other images") as error:
        train(copy, copy / "run", resume=True)
    assert words in str(error.value)
    assert not (copy / "run" / "model.safetensors").exists()


def test_images_that_changed_sides_are_refused(copy, monkeypatch):
    make = training.make_loaders

    def exchanged(*arguments, **options):
        loaders = make(*arguments, **options)
        loaders.train.indices[0], loaders.valid.indices[0] = loaders.valid.indices[0], loaders.train.indices[0]
        return loaders

    monkeypatch.setattr(training, "make_loaders", exchanged)
    with pytest.raises(CheckpointError, match="2 moved between training and validation"):
        train(copy, copy / "run", resume=True)


def test_a_moved_folder_goes_on_to_the_same_model(copy, whole):
    (copy / "photos").rename(copy / "elsewhere")
    shutil.rmtree(copy / "data")
    said = train(copy, copy / "run", dataset=copy / "elsewhere", resume=True)
    assert not any("other" in line for line in said)
    tensors, metadata = load_checkpoint(copy / "run" / "model.safetensors")
    assert all(torch.equal(whole[name], tensor) for name, tensor in tensors.items())
    assert "images" not in metadata and "images" not in json.loads((copy / "run" / "metrics.json").read_text())


@pytest.mark.parametrize(("options", "words"), [
    ({"epochs": 3}, "epochs was 2, is now 3"), ({"seed": 7}, "seed was 42, is now 7"),
    ({"resize_mode": "pad"}, "resize_mode was 'crop', is now 'pad'"), ({"max_lr": 0.5}, "max_lr was"),
    ({"balance": "yes"}, "balance was 'no'")])
def test_another_recipe_is_refused(options, words, copy):
    with pytest.raises(CheckpointError) as error:
        train(copy, copy / "run", resume=True, **options)
    assert words in str(error.value) or "seed" in options and "moved between" in str(error.value)


def test_another_version_of_torch_and_an_old_checkpoint_are_said(copy, monkeypatch):
    load = training.load_checkpoint
    old = lambda path: (load(path)[0], {**load(path)[1], "torch": "1.0"})
    monkeypatch.setattr(training, "load_checkpoint", old)
    assert any("Begun with PyTorch 1.0" in line for line in train(copy, copy / "run", resume=True))
    older = lambda path: (load(path)[0], {key: v for key, v in load(path)[1].items() if key not in ("torch", "images")})
    monkeypatch.setattr(training, "load_checkpoint", older)
    assert any("does not say which images" in line for line in train(copy, copy / "run", resume=True))


@pytest.mark.parametrize("name", ["model.safetensors", "metrics.json", "losses.png"])
def test_what_is_there_is_not_replaced_in_silence(name, tmp_path):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=f"holds {name}.*overwrite=True"):
        train(tmp_path, tmp_path)  # before the data set is even looked for
    assert (tmp_path / name).read_text() == "mine" and [path.name for path in tmp_path.iterdir()] == [name]


def test_an_interrupted_training_is_not_begun_anew_in_silence(copy, capsys):
    with pytest.raises(ValueError, match=r"checkpoints/last.safetensors.*resume=True"):
        train(copy, copy / "run")
    with pytest.raises(ValueError, match="exclude each other"):
        train(copy, copy / "run", resume=True, overwrite=True)
    with pytest.raises(ValueError, match="is a file"):
        train(copy, copy / "photos" / "dark" / "00.png")
    words = ["train", "--dataset", str(copy / "photos"), "--data-dir", str(copy / "data"), "--profile", "test",
             "--device", "cpu", "--output", str(copy / "run"), "--epochs", "1"]
    assert main(words) == 2 and "--overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0 and (copy / "run" / "model.safetensors").exists()
    assert main(words) == 2 and "holds model.safetensors" in capsys.readouterr().err


def test_overwriting_leaves_nothing_of_the_old_training(copy, monkeypatch):
    train(copy, copy / "run", resume=True)
    monkeypatch.setattr(training, "_write_results", lambda *arguments: 1 / 0)  # it stops at the very end
    with pytest.raises(ZeroDivisionError):
        train(copy, copy / "run", overwrite=True, epochs=1)
    assert [path.name for path in (copy / "run").iterdir()] == ["checkpoints"]


class Said:
    """A learner whose answers are given."""

    def __init__(self, logits, targets):
        self.answer = logits, targets

    def predict(self):
        return self.answer


@pytest.mark.parametrize("classes", [("functional", "non-functional"), ("good functional", "not defective"),
                                     ("mono functional", "poly defective"), ("Functional", "defective")])
def test_two_classes_are_never_guessed_from_the_ends_of_names(classes):  # zae-bayern/elpv-dataset#2
    metrics = training.measure(Said(torch.eye(2).repeat(2, 1), torch.tensor([1, 0, 1, 0])), classes)
    assert metrics["two_class_accuracy"] == 0 and metrics["validation_error"] == 1  # two classes: what is not wrong


@pytest.mark.parametrize("classes", [("functional", "defective"), ("defective", "functional")])
def test_elpvs_own_classes_have_it(classes):
    metrics = training.measure(Said(torch.eye(2).repeat(2, 1), torch.tensor([1, 1, 0, 1])), classes)
    assert metrics["two_class_accuracy"] == 0.75 and metrics["validation_error"] == 0.25


def test_scores_that_are_no_numbers_are_no_result():
    logits = torch.eye(2).repeat(2, 1)
    logits[1, 0] = float("nan")
    with pytest.raises(ValueError, match="1 of 4 validation images"):
        training.measure(Said(logits, torch.zeros(4, dtype=torch.long)), ("a", "b"))


def test_a_class_without_an_image_to_train_on_is_named(tmp_path):  # ultralytics/ultralytics#4310
    photos(tmp_path / "photos")
    for path in (tmp_path / "photos" / "dark").iterdir():
        shutil.copy(path, tmp_path / "photos" / "bright" / f"more{path.name}")
    (tmp_path / "photos" / "fox").mkdir()
    for i in range(4):
        (tmp_path / "photos" / "fox" / f"{i}.png").write_bytes(b"nothing")
    with pytest.warns(UserWarning, match="fox"):
        said = train(tmp_path, tmp_path / "run", epochs=1)
    assert any("no image to train on of 'fox'" in line for line in said)


def test_no_bar_of_the_library_writes_into_a_log():  # tqdm/tqdm#506
    """Every bar is left out where the output is no terminal and no notebook: `disable=None`, or True when it is."""
    import ast
    from pathlib import Path

    import course_lib

    bars = []
    for path in Path(course_lib.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "tqdm":
                given = {word.arg: word.value for word in node.keywords}
                bars.append((path.name, ast.unparse(given["disable"]) if "disable" in given else "", None in given))
    assert len(bars) >= 9
    assert not [bar for bar in bars if not bar[1].startswith("None") and not bar[2]]
