"""What check_images finds in pictures with planted faults, and what the review writes."""
from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

import course_lib.app.folds as folds
import course_lib.app.train as training
import course_lib.quality.check as check
from course_lib.app.cli import main
from course_lib.core.checks import ArgumentError
from course_lib.data import get_items
from course_lib.data.decisions import Decision, read_decisions
from course_lib.quality import Quality, check_images, review_images
from course_lib.quality.labels import confident_joint, held_out_probabilities, likely_errors
from course_lib.quality.review import Review, make_review, write_review
from course_lib.settings import CourseSettings


def scene(number: int, size: int = 100) -> Image.Image:
    coarse = np.random.default_rng(number).integers(0, 255, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.NEAREST)


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> CourseSettings:
    """Twelve cats and twelve dogs, and faults among them."""
    root = tmp_path_factory.mktemp("faults")
    for number in range(24):
        path = root / "in" / ("cat", "dog")[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        scene(number).save(path)
    shutil.copy(root / "in" / "cat" / "00.png", root / "in" / "dog" / "same.png")
    shutil.copy(root / "in" / "cat" / "02.png", root / "in" / "cat" / "again.png")
    scene(4, 220).save(root / "in" / "cat" / "larger.jpg", quality=80)
    scene(50).filter(ImageFilter.GaussianBlur(12)).save(root / "in" / "cat" / "soft.png")
    scene(51, 30).save(root / "in" / "dog" / "small.png")
    Image.new("RGB", (90, 90), "grey").save(root / "in" / "dog" / "grey.png")
    (root / "in" / "dog" / "broken.png").write_bytes(b"x")
    return CourseSettings(dataset=str(root / "in"), data_dir=root / "data", profile_name="test", device="cpu")


@pytest.fixture(scope="module")
def quality(settings) -> Quality:
    """With features in which number 00 of the cats lies among the dogs, and 01 of the dogs far from all."""
    items = get_items(settings.dataset, settings.data_dir, announce=False)
    rng = np.random.default_rng(0)

    def features(presized, *options) -> np.ndarray:
        found = np.eye(8)[presized.items.targets] + rng.normal(0, 0.02, (len(presized), 8))
        found[presized.items.names.index("cat/06.png")] = np.eye(8)[1]
        found[presized.items.names.index("dog/01.png")] = np.eye(8)[1] * 2 + np.eye(8)[7] * 2
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(check, "image_features", features)
        return check_images(items, settings)


def names(quality: Quality, kind: str) -> set[str]:
    return {finding.name for finding in quality.of(kind)}


def test_every_planted_fault_is_found(quality):
    assert names(quality, "unreadable") == {"dog/broken.png"}
    assert names(quality, "two labels") == {"dog/same.png"} and names(quality, "duplicate") == {"cat/again.png"}
    assert {(one.name, one.other) for one in quality.of("near-duplicate")} == {("cat/larger.jpg", "cat/04.png")}
    assert names(quality, "tiny") == {"dog/small.png"} and names(quality, "blank") == {"dog/grey.png"}
    assert names(quality, "blurred") == {"cat/soft.png"}
    assert quality.of("outlier")[0].name == "dog/01.png"
    doubted = quality.of("label")[0]
    assert doubted.name == quality.ranked()[0] == "cat/06.png" and doubted.proposal == "dog"
    said = repr(quality)
    assert "30 images looked at" in said and "but 'dog' and 'cat'" in said
    with pytest.raises(ArgumentError, match="Did you mean 'label'"):
        quality.of("labels")


def test_pixels_alone_need_no_network(settings, monkeypatch):
    monkeypatch.setattr(check, "image_features", lambda *given: pytest.fail("asked for features"))
    items = get_items(settings.dataset, settings.data_dir, announce=False)
    found = check_images(items, settings, features=False)
    assert found.ranked() == [] and names(found, "blank") == {"dog/grey.png"} and not found.of("label")


# Recorded: cleanlab 2.9.0, compute_confident_joint(calibrate=False) and find_label_issues(
# filter_by="low_self_confidence", return_indices_ranked_by="self_confidence").
TARGETS = [0, 1, 2, 2, 0, 0, 0, 0, 2, 2, 1, 0]
PROBABILITIES = [[.29, .08, .63], [.27, .52, .21], [.42, .31, .27], [.25, .41, .34], [.59, .24, .17], [.41, .52, .07],
                 [.62, .12, .26], [.40, .41, .19], [.07, .05, .88], [.53, .12, .35], [.24, .53, .23], [.80, .20, .00]]
CLEANLAB = [[3, 0, 1], [0, 1, 0], [1, 0, 1]], [2, 0]


def test_confident_learning_gives_what_cleanlab_gives():
    joint, errors = CLEANLAB
    probabilities, targets = np.array(PROBABILITIES), np.array(TARGETS)
    assert confident_joint(probabilities, targets).tolist() == joint
    assert likely_errors(probabilities, targets).tolist() == errors


def test_flipped_labels_come_first_and_copies_stay_in_one_fold(quality):
    rng, count = np.random.default_rng(1), len(quality.items)
    features = np.eye(6)[quality.items.targets] + rng.normal(0, 0.3, (count, 6))
    found = held_out_probabilities(features, quality.items)
    assert np.allclose(found.sum(1), 1) and (found.argmax(1) == quality.items.targets).mean() > 0.8


def test_a_review_writes_undoes_and_goes_on(quality, tmp_path):
    table = tmp_path / "d" / "decisions.csv"
    review = Review(quality, table, page=3)
    assert len(review.shown()) == 3 and "dog/broken.png" not in {one.name for one in review.findings}
    review.decide("dog/same.png", "delete")
    review.decide("cat/06.png", "relabel", "dog")
    assert read_decisions(table) == {"dog/same.png": Decision("delete"), "cat/06.png": Decision("relabel", "dog")}
    assert Review(quality, table).decisions == review.decisions  # another day
    review.undo()
    assert read_decisions(table) == {"dog/same.png": Decision("delete")} and "1 of" in review.status()
    review.turn(9)
    assert review.shown()[-1] == review.findings[-1]
    review.turn(-9)
    assert review.start == 0


def test_the_widget_decides_by_clicks(quality, tmp_path):
    widgets = pytest.importorskip("ipywidgets")
    review = Review(quality, tmp_path / "decisions.csv", "label")
    box = make_review(review)
    status, cards, buttons = box.children

    def part(kind, description=None):
        card = cards.children[0]
        return next(one for row in card.children for one in getattr(row, "children", [row])
                    if isinstance(one, kind) and description in (None, getattr(one, "description", None)))

    part(widgets.ToggleButton, "delete").value = True
    assert read_decisions(review.path)["cat/06.png"] == Decision("delete") and "1 of" in status.value
    assert part(widgets.ToggleButton, "delete").value and not part(widgets.ToggleButton, "keep").value
    part(widgets.Dropdown).value = "dog"
    assert read_decisions(review.path)["cat/06.png"] == Decision("relabel", "dog")
    buttons.children[2].click()
    assert read_decisions(review.path)["cat/06.png"] == Decision("delete")
    assert 'alt="cat/06.png, labelled cat"' in part(widgets.HTML).value
    review_images(quality, tmp_path / "other.csv", live=False)
    assert not (tmp_path / "other.csv").exists()


def test_the_table_for_a_spreadsheet(quality, tmp_path):
    path = tmp_path / "review.csv"
    assert write_review(quality, path) == len(read_decisions(path)) == len(Review(quality, tmp_path / "x").findings)
    assert {made.decision for made in read_decisions(path).values()} == {"keep"}
    with pytest.raises(ArgumentError, match="may hold your decisions"):
        write_review(quality, path)


def test_data_check_says_it_and_fails_for_one_file_under_two_labels(settings, tmp_path, capsys):
    table = tmp_path / "review.csv"
    words = ["data", "check", settings.dataset, "--data-dir", str(settings.data_dir), "--profile", "test", "--quick"]
    assert main([*words, "--review", str(table)]) == 1
    said = capsys.readouterr().out
    for part in ("dog/broken.png: ", "two labels: dog/same.png", "30 of 31 images", f"--decisions {table}"):
        assert part in said
    assert "cat/again.png" in read_decisions(table)


def test_a_training_says_what_makes_its_error_look_small(settings, tmp_path):
    root = shutil.copytree(settings.dataset, tmp_path / "in")
    for path in sorted((root / "cat").glob("*.png")):
        for number in range(3):
            shutil.copy(path, path.with_name(f"{path.stem}-{number}.png"))
    for path in sorted((root / "dog").iterdir())[4:]:
        path.unlink()
    here = CourseSettings(dataset=str(root), data_dir=tmp_path / "data", profile_name="test", device="cpu")
    said: list[str] = []
    loaders = training.prepare_loaders(here, here.profile, (0.5,) * 3, (0.5,) * 3, said.append)
    assert "near-duplicates of training images" in said[0] and "--group duplicates" in said[0]
    assert "1 class is rare: dog (4), where the commonest has" in said[1]
    kept: list[str] = []
    together = dataclasses.replace(here, group="duplicates")
    training.prepare_loaders(together, here.profile, (0.5,) * 3, (0.5,) * 3, kept.append)
    assert len(kept) == 1 and "rare" in kept[0]  # no advice that was taken already
    recipe = training.fit_to_data(here.profile, loaders, said.append)
    assert recipe.trained_fraction == 0 and "3 images of dog are few" in said[-1]  # the mean would be many
    assert recipe.balance == "yes" and "because dog is rare" in said[-2] and "--balance no" in said[-2]
    for asked in ("yes", "no"):  # without a word
        count = len(said)
        chosen = dataclasses.replace(here.profile, balance=asked)
        assert training.fit_to_data(chosen, loaders, said.append).balance == asked and len(said) == count + 1


def test_folds_are_put_together(settings, tmp_path, monkeypatch):
    asked = []

    def train(settings, output, echo, **changes):
        asked.append(settings.fold)
        metrics = {"validation_error": 0.25, "validation_images": 8, "error_per_class": {"cat": 0.5, "dog": 0.0}}
        return training.TrainingResult(output, metrics, 1.0, settings)

    monkeypatch.setattr(folds, "train_classifier", train)
    (tmp_path / "out").mkdir()
    found = folds.cross_validate(settings, 3, output=tmp_path / "out", echo=lambda line: None)
    assert asked == ["1/3", "2/3", "3/3"] and (found.wrong, found.images, found.error) == (6, 24, 0.25)
    assert found.interval == pytest.approx((0.1200, 0.4490), abs=1e-4)  # Wilson's for 6 of 24
    assert "25.0% on 24 images (95 % interval 12.0% to 44.9%), balanced 25.0%" in found.summary()
    assert Path(found.folder / "cross_validation.json").is_file()
    with pytest.raises(ArgumentError, match="Name a new folder"):
        folds.cross_validate(settings, 3, output=tmp_path / "out")
