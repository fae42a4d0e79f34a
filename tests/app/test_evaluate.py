"""A saved model is measured on the part that it was validated on, on the test part, or on new photographs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from course_lib.app.evaluate import evaluate_classifier
from course_lib.app.export import export_model
from course_lib.app.train import train_classifier
from course_lib.settings import CourseSettings

pytestmark = pytest.mark.slow


def photographs(folder: Path, count: int, seed: int) -> Path:
    """Bright and dark noise, `count` of each; two successive numbers belong to one group."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for label, low in (("bright", 100), ("dark", 60)):
        for i in range(count):
            pixels = rng.integers(low, low + 120, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{label}_{i // 2}_{i}.png")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[CourseSettings, Path]:
    """A model of a flat folder, divided by groups: settings, and the folder of results."""
    root = tmp_path_factory.mktemp("trained")
    settings = CourseSettings(dataset=str(photographs(root / "flat", 24, 0)), data_dir=root / "data",
                              profile_name="test", pattern=r"([a-z]+)_\d+", group=r"_(\d+)_")
    train_classifier(settings, output=root / "run", epochs=1, echo=lambda line: None)
    return settings, root / "run"


def copied(trained, tmp_path) -> tuple[CourseSettings, Path]:
    return trained[0], Path(shutil.copytree(trained[1], tmp_path / "run"))


def test_the_validation_part_is_the_one_of_the_training(trained, tmp_path):
    settings, folder = copied(trained, tmp_path)
    record, lines = json.loads((folder / "metrics.json").read_text()), []
    bare = replace(settings, pattern="", group="")  # the model knows how its images were labelled and divided
    for given in (settings, bare):
        found = evaluate_classifier(given, folder, echo=lines.append)
        assert (found["images"], found["error"]) == (record["validation_images"], record["validation_error"])
    assert (folder / "report-valid.html").is_file() and "Validation error" in lines[0]
    assert record["labels"] == {"pattern": settings.pattern, "group": settings.group}


def test_another_division_is_refused_and_new_photographs_are_measured_whole(trained, tmp_path):
    settings, folder = copied(trained, tmp_path)
    with pytest.raises(ValueError, match="group was .* is now 'duplicates': the part would hold images that the model"):
        evaluate_classifier(replace(settings, group="duplicates"), folder)
    new = replace(settings, dataset=str(photographs(tmp_path / "new", 5, 1)), group="")
    assert evaluate_classifier(new, folder, "all", echo=lambda line: None)["images"] == 10


def test_each_opening_of_the_test_part_is_counted(trained, tmp_path):
    settings, folder = copied(trained, tmp_path)
    lines: list[str] = []
    for _ in range(2):
        found = evaluate_classifier(settings, folder, "test", echo=lines.append)
    said = " ".join(lines)
    assert "The test part was opened, which is noted in" in said and "has now been opened 2 times" in said
    card = (export_model(folder, "torch", tmp_path / "export").folder / "MODEL_CARD.md").read_text()
    assert "The test part was opened 2 times after the training." in card and "was not opened" not in card
    assert [one["images"] for one in json.loads((folder / "test_part.json").read_text())["opened"]] == [
        found["images"]] * 2


def test_a_file_of_the_training_has_to_be_named_again_and_other_classes_are_refused(trained, tmp_path):
    settings, folder = copied(trained, tmp_path)
    (tmp_path / "labels.csv").write_text("name,label\n" + "".join(
        f"{path.name},{path.name.split('_')[0]}\n" for path in sorted(Path(settings.dataset).iterdir())))
    tabled = replace(settings, pattern="", group="", table=str(tmp_path / "labels.csv"))
    train_classifier(tabled, output=tmp_path / "tabled", epochs=1, echo=lambda line: None)
    assert evaluate_classifier(tabled, tmp_path / "tabled", echo=lambda line: None)["images"] == 12
    with pytest.raises(ValueError, match="The training read labels.csv: name that file with --table"):
        evaluate_classifier(replace(tabled, table=""), tmp_path / "tabled")
    other = replace(settings, dataset=str(photographs(tmp_path / "new", 3, 1)), pattern=r"_(\d+)_", group="")
    with pytest.raises(ValueError, match="The images are also of '0', '1', which the model"):
        evaluate_classifier(other, folder, "all")
