"""How a folder is labelled and divided by settings: patterns, tables, groups, folds and decisions."""
from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from course_lib.data import DATASETS, get_items, split_items
from course_lib.data.decisions import Decision, apply_decisions, read_decisions, write_decisions
from course_lib.data.dividing import divide_items, fold_items
from course_lib.data.duplicates import crossing_pairs, linked_groups, near_duplicates, perceptual_hashes
from course_lib.settings import CourseSettings, SettingsError, load_settings


def scene(number: int, size: int = 64) -> Image.Image:
    """A picture of coarse coloured noise, like no other."""
    coarse = np.random.default_rng(number).integers(0, 220, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def flat(tmp_path_factory) -> Path:
    """24 images of 12 animals in one folder, with a table of the file, the kind and the animal."""
    root = tmp_path_factory.mktemp("flat")
    rows = ["file;kind;animal"]
    for number in range(24):
        kind = "cat" if number // 2 % 2 else "dog"
        scene(number).save(root / f"{kind}{number // 2}_{number}.png")
        rows.append(f"{kind}{number // 2}_{number}.png;{kind};{number // 2}")
    (root / "labels.csv").write_text("\n".join(rows))
    return root


def silently(capsys, *arguments, **options):
    items = get_items(*arguments, announce=False, **options)
    return items, capsys.readouterr().out


def test_settings_reach_get_items_by_the_name_of_the_data_set_alone(flat, capsys):
    for how in ({"pattern": r"^([a-z]+)"}, {"table": "labels.csv", "columns": "file, kind"}):
        settings = load_settings(environ={}, dataset=str(flat), **how)
        assert settings.dataset == str(flat) and settings.values()["dataset"] == str(flat)
        assert silently(capsys, settings.dataset, settings.data_dir)[0].classes == ("cat", "dog")
    environ = {"COURSE_DATASET": str(flat), "COURSE_PATTERN": "^([a-z]+)"}
    assert silently(capsys, load_settings(environ=environ).dataset)[0].classes == ("cat", "dog")


def test_another_data_set_comes_without_the_labels_of_the_first(tmp_path):
    file = tmp_path / "settings.ini"
    file.write_text("[course]\ndataset = photos\npattern = (.+)_\ngroup = duplicates\n")
    assert load_settings(file, {}).pattern == "(.+)_"
    assert load_settings(file, {}, dataset="elpv").dataset.how == {}
    assert load_settings(file, {}, seed=7).dataset.how == {"pattern": "(.+)_", "group": "duplicates"}
    assert load_settings(file, {"COURSE_PATTERN": ""}).dataset.how == {"group": "duplicates"}
    with pytest.raises(SettingsError, match="Did you mean 'pattern'"):
        load_settings(file, {"COURSE_PATERN": "x"})


def test_a_table_lies_beside_the_settings_or_in_the_folder(flat, tmp_path, monkeypatch):
    file = tmp_path / "settings.ini"
    shutil.copy(flat / "labels.csv", tmp_path / "mine.csv")
    file.write_text(f"[course]\ndataset = {flat}\ntable = mine.csv\ncolumns = file, kind\n")
    monkeypatch.chdir(flat)
    found = load_settings(file, {})
    assert found.table == str(tmp_path / "mine.csv")
    assert len(get_items(found.dataset, announce=False)) == 24


@pytest.mark.parametrize("how, message", [
    ({}, r"labels\.csv.*--table labels\.csv"),
    ({"pattern": "(.+)_", "table": "labels.csv"}, "leave out one"), ({"columns": "0, 1"}, "--table"),
    ({"table": "labels.csv"}, "3 columns, 'file', 'kind', 'animal'.*--columns"),
    ({"table": "lables.csv"}, "There is 'labels.csv'"),
    ({"table": "labels.csv", "columns": "file"}, "two columns"),
    ({"pattern": "^([a-z]+)", "group": "animal"}, "no table of which.*group = duplicates"),
    ({"pattern": "^([a-z]+)", "group": "^(dog)"}, "group = .*do not match the pattern"),
    ({"pattern": "^([a-z]+)", "fold": "6/5"}, "fold = '6/5'"),
    ({"pattern": "^([a-z]+)", "group": "^([a-z]+)"}, "2 groups cannot be divided into 5 parts")])
def test_what_cannot_be_meant_says_what_to_give(flat, how, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        get_items(flat, announce=False, **how)


def test_a_folder_of_one_class_names_pattern_and_table(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(4):
        scene(number).save(tmp_path / "images" / f"{'ab'[number % 2]}_{number}.png")
    (tmp_path / "labels.csv").write_text("x")
    with pytest.raises(ValueError, match=r"one class.*--table labels\.csv.*--pattern \"\(\.\+\)_\\d\+\""):
        split_items(get_items(tmp_path, announce=False))
    with pytest.raises(NotADirectoryError, match="--table"):
        get_items(tmp_path / "labels.csv")


def test_a_group_divides_into_three_parts_of_whole_groups(flat, capsys):
    by_column, said = silently(capsys, flat, table="labels.csv", columns="file, kind", group="animal")
    by_pattern, _ = silently(capsys, flat, pattern="^([a-z]+)", group=r"(\d+)_")
    assert "Divided by animal, 12 groups" in said
    assert sorted(zip(by_column.names, by_column.splits, strict=True)) == sorted(
        zip(by_pattern.names, by_pattern.splits, strict=True))
    parts = [{by_column.groups[i] for i in by_column.part(part)} for part in ("train", "valid", "test")]
    assert all(parts) and not any(a & b for a, b in ((parts[0], parts[1]), (parts[0], parts[2]), (parts[1], parts[2])))
    train, valid = split_items(by_column, seed=99)  # every lesson divides so
    assert not {by_column.groups[i] for i in train} & {by_column.groups[i] for i in valid}
    assert not set(by_column.part("test").tolist()) & {*train.tolist(), *valid.tolist()}
    assert by_column.subset([0, 1]).groups == by_column.groups[:2]
    other = divide_items(by_column, seed=1)
    assert other.part("test").tolist() == by_column.part("test").tolist()  # no seed moves the test part


def test_every_image_validates_in_one_fold(flat):
    items = get_items(flat, announce=False, pattern="^([a-z]+)", group=r"(\d+)_")
    folds = list(fold_items(items, 3))
    held = np.concatenate([fold.part("valid") for fold in folds])
    assert sorted(held.tolist()) == sorted({*range(24)} - set(items.part("test").tolist()))
    for fold in folds:
        assert not {fold.groups[i] for i in fold.part("valid")} & {fold.groups[i] for i in fold.part("train")}
    assert get_items(flat, announce=False, pattern="^([a-z]+)", fold="2/3").splits.count("valid") == 8


def test_decisions_are_applied_said_and_undone(flat, tmp_path, capsys):
    table = tmp_path / "decisions.csv"
    plain = silently(capsys, flat, pattern="^([a-z]+)")[0]
    first, second = plain.names[:2]
    write_decisions(table, {first: Decision("delete"), second: Decision("relabel", "dog"),
                            plain.names[2]: Decision("keep")})
    items, said = silently(capsys, flat, pattern="^([a-z]+)", decisions=table)
    assert "1 image left out, 1 image relabelled" in said and first not in items.names
    assert items.labels[items.names.index(second)] == "dog" and (flat / first).is_file()
    with open(table, "a") as file:
        file.write(f"{first},keep,\n")  # the later row counts
    assert len(silently(capsys, flat, pattern="^([a-z]+)", decisions=table)[0]) == 24
    write_decisions(table, {"gone.png": Decision("delete")})
    with pytest.warns(UserWarning, match="1 decision .* 'gone.png'"):
        apply_decisions(plain, table)
    write_decisions(table, {first: Decision("relabel", "dgo")})
    with pytest.raises(ValueError, match="Did you mean 'dog'"):
        apply_decisions(plain, table)
    assert read_decisions(tmp_path / "none.csv") == {}


@pytest.mark.parametrize("text, message", [
    ("a,b\n", "no table of decisions"), ("name,decision,label\nx,keep,dog\n", "row 2"),
    ("name,decision,label\nx,relabel,\n", "row 2"), ("name,decision,label\nx,remove,\n", "row 2")])
def test_a_table_that_is_none_of_decisions(tmp_path, text, message):
    (tmp_path / "d.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_decisions(tmp_path / "d.csv")


CHANGES = (ImageOps.mirror, lambda image: ImageEnhance.Brightness(image).enhance(1.15), lambda image: image.resize(
    (40, 40)).resize((64, 64)))


@pytest.mark.parametrize("others", [20, 120])  # from 100 on, what most images share is taken away
def test_copies_are_found_and_nothing_else(others):
    pictures = [np.array(scene(number)) for number in range(others)]
    copies = [np.array(change(scene(number))) for number, change in enumerate(CHANGES)]
    blank = [np.full((64, 64, 3), value, np.uint8) for value in (0, 0, 255)]
    hashes = perceptual_hashes(np.stack([*pictures, *copies, *blank]))
    pairs = list(near_duplicates(hashes))
    assert {(one, two) for one, two, _ in pairs} == {(number, others + number) for number in range(3)}
    assert linked_groups(len(hashes), pairs)[others:others + 3].tolist() == [0, 1, 2]
    assert crossing_pairs(pairs, np.array([1, others]), np.array([0, 5])) == [(others, 0)]


def test_near_duplicates_stay_together(flat, tmp_path):
    root = shutil.copytree(flat, tmp_path / "in")
    for path in sorted(root.glob("*.png")):
        with Image.open(path) as image:
            ImageOps.mirror(image).save(path.with_name(f"{path.stem}0.png"))
    items = get_items(root, tmp_path / "data", announce=False, pattern="^([a-z]+)", group="duplicates")
    assert len(items) == 48 and len(set(items.groups)) == 24
    for group in set(items.groups):
        assert len({split for split, own in zip(items.splits, items.groups, strict=True) if own == group}) == 1


def test_the_same_settings_for_every_named_data_set():
    assert all(not CourseSettings(dataset=name).dataset.how for name in DATASETS)
