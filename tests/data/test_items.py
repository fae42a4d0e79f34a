"""Labels from folders, patterns and tables, and every mistake in them."""
from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from pictures import folder_of, picture

from course_lib.data import (
    ImageItems,
    get_items,
    items_from_folders,
    items_from_pattern,
    items_from_table,
    split_items,
)


def test_folders_with_and_without_splits(tmp_path):
    plain = items_from_folders(folder_of(tmp_path / "plain", {"cat": 2, "dog": 3}))
    assert plain.classes == ("cat", "dog") and plain.splits is None and plain.class_counts() == {"cat": 2, "dog": 3}
    assert plain.names[0] == "cat/000.png" and plain.targets.tolist() == [0, 0, 1, 1, 1]
    assert plain.targets.dtype == np.int64

    split = tmp_path / "split"
    for part, count in (("train", 4), ("val", 2), ("test", 1)):
        folder_of(split / part, {"cat": count, "dog": count})
    items = get_items(split, announce=False)
    assert items.classes == ("cat", "dog") and len(items) == 14
    train, valid = split_items(items)
    assert {items.names[i].split("/")[0] for i in train} == {"train"} and len(train) == 8
    assert {items.names[i].split("/")[0] for i in valid} == {"val"} and len(valid) == 4
    train, valid = split_items(items, official=False)
    assert len(train) + len(valid) == 14

    shutil.rmtree(split / "val")
    items = items_from_folders(split)
    assert {items.names[i].split("/")[0] for i in split_items(items)[1]} == {"test"}  # test stands in for valid


def test_hidden_files_other_files_and_links_are_left_alone(tmp_path):
    root = folder_of(tmp_path / "root", {"a": 2, "b": 2})
    (root / "a" / ".hidden.png").write_bytes(b"x")
    (root / "a" / "notes.txt").write_text("x")
    (root / ".cache").mkdir()
    (root / ".cache" / "x.png").write_bytes(b"x")
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX" / "x.png").write_bytes(b"x")
    try:
        (root / "a" / "loop").symlink_to(root, target_is_directory=True)
    except OSError:  # Windows without the right to make links
        assert len(items_from_folders(root)) == 4
    else:
        with pytest.warns(UserWarning, match="left out: 'a/loop'"):
            assert len(items_from_folders(root)) == 4


def test_loose_images_are_an_error(tmp_path):
    root = folder_of(tmp_path, {"a": 2, "b": 2})
    picture(1).save(root / "loose.png")
    with pytest.raises(ValueError, match=r"1 of 5 images .* no class folder: 'loose.png'.*pattern="):
        items_from_folders(root)


@pytest.mark.parametrize("pattern, name, label", [
    (r"(.+)_\d+.jpg$", "great_pyrenees_17.jpg", "great_pyrenees"),
    (r"^(?P<number>\d+)-(?P<label>\w+)", "17-cat.jpg", "cat"),
    (r"(\w+)/[^/]+$", "photos/cat/1.jpg", "cat"),
])
def test_labels_by_pattern(tmp_path, pattern, name, label):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    picture(1).save(tmp_path / name)
    items = get_items(tmp_path, pattern=pattern, announce=False)
    assert items.labels == (label,) and items.names == (name,)


def test_a_name_that_no_pattern_matches(tmp_path):
    for i in range(7):
        picture(i).save(tmp_path / f"cat_{i}.jpg")
    for name in ("holiday.jpg", "IMG.jpg", "me.jpg", "you.jpg", "zoo.jpg"):
        picture(1).save(tmp_path / name)
    with pytest.raises(ValueError, match=r"5 of 12 names do not match .*'IMG.jpg', 'holiday.jpg', 'me.jpg' and 2 more"):
        items_from_pattern(tmp_path, r"(.+)_\d+.jpg$")


@pytest.mark.parametrize("pattern, message", [(r"(.+_\d+.jpg$", "not a regular expression"),
                                              (r".+_\d+.jpg$", "no group")])
def test_broken_patterns(tmp_path, pattern, message):
    with pytest.raises(ValueError, match=message):
        items_from_pattern(tmp_path, pattern)


@pytest.mark.filterwarnings("ignore:2 images beside those of table.csv:UserWarning")
def test_labels_by_table(tmp_path):
    folder_of(tmp_path, {"x": 4})
    table = tmp_path / "table.csv"
    table.write_text("file,kind\nx/000.png,cat\nx/001.png,dog\nx\\002.png,cat\n", encoding="utf-8-sig")
    with pytest.warns(UserWarning, match="left out: 'x/003.png'"):
        items = items_from_table(tmp_path, table, "file", "kind")
    assert items.labels == ("cat", "dog", "cat") and items.names[2] == "x/002.png"
    table.write_text("x/000.png 0.2\nx/001.png 0.9\n")
    high_or_low = lambda row: "high" if float(row[1]) > 0.5 else "low"
    by_function = items_from_table(tmp_path, table, 0, high_or_low, delimiter=None)
    assert by_function.labels == ("low", "high")
    assert items_from_table(tmp_path, table, 0, 1, delimiter=None, classes=("0.9", "0.2")).targets.tolist() == [1, 0]


@pytest.mark.filterwarnings("ignore:1 images beside those of table.csv:UserWarning")
def test_tables_with_mistakes(tmp_path):
    folder_of(tmp_path, {"x": 2})
    table = tmp_path / "table.csv"
    table.write_text("x/000.png,cat\nx/001.png\n")
    with pytest.raises(ValueError, match="row 2"):
        items_from_table(tmp_path, table)
    table.write_text("x/000.png,cat\nx/000.png,cat\n")
    with pytest.raises(ValueError, match="more than once.*000.png"):
        items_from_table(tmp_path, table)
    table.write_text("x/000.png,cat\nx/777.png,cat\n")
    with pytest.warns(UserWarning, match="1 of 2 images .* missing: 'x/777.png'"):
        assert len(items_from_table(tmp_path, table)) == 1
    table.write_text("x/777.png,cat\n")
    with pytest.raises(FileNotFoundError, match="None of the 1 images"):
        items_from_table(tmp_path, table)
    table.write_text("")
    with pytest.raises(ValueError, match="no rows"):
        items_from_table(tmp_path, table)
    with pytest.raises(ValueError, match="not among the classes"):
        ImageItems(tmp_path, ("a.png",), ("cat",), ("dog",))
    with pytest.raises(ValueError, match="one entry per image"):
        ImageItems(tmp_path, ("a.png",), ("dog", "dog"), ("dog",))


def test_empty_missing_and_unreadable_folders(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="holds no image"):
        get_items(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        get_items(tmp_path / "nothing")
    file = tmp_path / "file.png"
    picture(1).save(file)
    with pytest.raises(NotADirectoryError, match="is a file"):
        get_items(file)
    scandir = os.scandir

    def locked(path):
        if Path(path).name == "b":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    folder_of(tmp_path / "root", {"a": 1, "b": 1})
    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(PermissionError, match="cannot be read.*check its permissions"):
        get_items(tmp_path / "root")
