"""Photographs without labels come into groups of what looks alike, whose classes make a table of labels."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from course_lib.app.cli import main
from course_lib.data import get_items
from course_lib.quality import ImageGroups, group_images, label_images
from course_lib.quality.sorting import make_sorting
from course_lib.settings import CourseSettings, load_settings

NOISE = {"bright": (130, 120), "dark": (0, 120), "flat": (100, 3)}  # grey from, and how far


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Thirty photographs of three kinds, whose names say nothing."""
    root, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for number in range(30):
        low, far = NOISE[kind_of(number)]
        pixels = rng.integers(low, low + far, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"IMG_{number:02}.png")
    return root


def kind_of(number: int) -> str:
    return list(NOISE)[0 if number % 2 else 1 + (number % 10 == 0)]  # 15, 12 and 3


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> CourseSettings:
    return CourseSettings(data_dir=tmp_path_factory.mktemp("data"), profile_name="test")


@pytest.fixture(scope="module")
def groups(folder, settings) -> ImageGroups:
    return group_images(folder, settings, 3)


def test_a_group_holds_what_looks_alike_and_the_largest_is_the_first(groups):
    assert [len(rows) for rows in groups.groups] == [15, 12, 3]
    assert [{kind_of(row) for row in rows} for rows in groups.groups] == [{"bright"}, {"dark"}, {"flat"}]
    assert repr(groups).startswith("group 1: 15 images, such as IMG_")


def test_typical_images_stand_first(groups, settings):
    from course_lib.quality.labels import image_features

    features = image_features(groups.presized, settings.profile.image_size, settings.backbone)
    for rows in groups.groups:
        far = np.linalg.norm(features[rows] - features[rows].mean(0), axis=1)
        assert (np.diff(far) >= -1e-6).all()


def test_the_table_labels_the_folder(groups, folder, settings, tmp_path):
    path = tmp_path / "labels.csv"
    assert groups.write(path, ["grass", "", " tar "]) == 18
    items = get_items(load_settings(environ={}, dataset=str(folder), table=str(path)).dataset, announce=False)
    assert items.class_counts() == {"grass": 15, "tar": 3}
    groups.write(tmp_path / "joined.csv", ["grass", "tar", "tar"])
    joined = load_settings(environ={}, dataset=str(folder), table=str(tmp_path / "joined.csv"))
    assert get_items(joined.dataset, announce=False).class_counts() == {"grass": 15, "tar": 15}


@pytest.mark.parametrize("classes, says", [
    (["a", "b"], r"names 2 groups, and there are 3"), (["a", "a", ""], "fewer than two classes"),
    (["", " ", "a"], "fewer than two classes")])
def test_names_that_make_no_table_are_refused_and_nothing_is_written(groups, classes, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        groups.write(tmp_path / "labels.csv", classes)
    assert not (tmp_path / "labels.csv").exists()


def test_a_table_with_labels_is_not_replaced(groups, tmp_path):
    (tmp_path / "labels.csv").write_text("mine")
    with pytest.raises(ValueError, match="is there already, and may hold your labels"):
        groups.write(tmp_path / "labels.csv", ["a", "b", "c"])
    assert (tmp_path / "labels.csv").read_text() == "mine"


def test_more_groups_than_images_are_refused(folder, settings):
    with pytest.raises(ValueError, match="count = 31 .*at most that of images"):
        group_images(folder, settings, 31)


def test_the_widget_writes_the_table_and_says_what_is_missing(groups, tmp_path):
    box = make_sorting(groups, tmp_path / "labels.csv")
    fields = [line.children[0].children[1] for line in box.children[:-1]]
    button, said = box.children[-1].children
    fields[0].value = "grass"
    button.click()
    assert "fewer than two classes" in said.value and not (tmp_path / "labels.csv").exists()
    fields[2].value = "tar"
    button.click()
    assert said.value.startswith("18 labels in") and (tmp_path / "labels.csv").is_file()
    assert "alt=" in box.children[0].children[1].value


def test_without_a_kernel_there_is_a_picture(groups, capsys):
    label_images(groups, live=False)
    assert "Image" in capsys.readouterr().out


def test_the_command_shows_groups_and_then_writes_the_table(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.ini").write_text("[course]\nprofile = test\n")
    asked = ["data", "label", str(folder), "--groups", "3", "--settings", "settings.ini"]
    assert main(asked) == 0
    said = capsys.readouterr().out
    assert "group 1: 15 images" in said and not plt.get_fignums() and (tmp_path / "labels.png").stat().st_size > 1000
    assert not (tmp_path / "labels.csv").exists()
    assert main([*asked, "--names", "grass,,tar"]) == 0
    said = capsys.readouterr().out
    assert "18 labels in labels.csv" in said and f"course data check {folder} --table labels.csv" in said
    assert main([*asked, "--names", "grass,tar"]) == 2
    assert "names 2 groups, and there are 3" in capsys.readouterr().err
