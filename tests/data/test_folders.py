"""What lies in folders: nothing becomes a class, or vanishes, without a word."""
from __future__ import annotations

import io
import os
import re
import unicodedata
import warnings
from collections import Counter
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from pictures import HALF, fake_items, folder_of, picture
from PIL import Image

from course_lib.data import (
    BatchTransform,
    ImageItems,
    ImageLoader,
    get_items,
    items_from_folders,
    items_from_pattern,
    limit_items,
    load_image,
    plot_class_counts,
    presize,
    split_items,
)
from course_lib.data.listing import image_suffixes, list_images

NFC, NFD = (unicodedata.normalize(form, "cafe\u0301") for form in ("NFC", "NFD"))


def parts_of(root: Path, **parts: dict[str, int]) -> Path:
    """`root/PART/CLASS/000.png` and so on."""
    for part, counts in parts.items():
        folder_of(root / part, counts)
    return root


def silent(call):
    """What `call` gives, when nothing is said."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return call()


def split_of(items: ImageItems) -> tuple[set[str], set[str]]:
    """The topmost folders of the training and of the validation images."""
    train, valid = ({items.names[i].split("/")[0] for i in rows} for rows in split_items(items))
    return train, valid


@pytest.mark.parametrize("train, other", [("train", "val"), ("Train", "Valid"), ("training", "dev"), ("TRAIN", "eval"),
                                          ("train", "validation"), ("train", "testing"), ("train", "Test")])
def test_every_usual_name_of_a_part(tmp_path, train, other):
    items = silent(lambda: items_from_folders(parts_of(tmp_path, **{train: {"a": 3, "b": 3}, other: {"a": 1, "b": 1}})))
    assert items.classes == ("a", "b") and split_of(items) == ({train}, {other})


@pytest.mark.parametrize("parts", [("training_set", "test_set"), ("train2017", "val2017"), ("fold1", "fold2")])
def test_parts_of_other_names_are_said_to_be_taken_for_classes(tmp_path, parts):  # ultralytics/ultralytics#4310
    root = parts_of(tmp_path, **{part: {"cat": 2, "dog": 2} for part in parts})
    with pytest.warns(UserWarning, match=f"'{parts[0]}'.* are taken for classes, though .* same folders, 'cat', 'dog'"):
        assert items_from_folders(root).classes == tuple(sorted(parts))
    folder_of(root / parts[0], {"fox": 2})  # now the folders within the classes are the classes' own
    assert silent(lambda: items_from_folders(root)).classes == tuple(sorted(parts))


@pytest.mark.parametrize("part", ["", "train/"])
def test_a_class_without_any_image_and_one_on_a_missing_disk(tmp_path, part):
    root = folder_of(tmp_path / part, {"cat": 2, "dog": 2}) and tmp_path
    if part:
        folder_of(root / "val", {"cat": 1, "dog": 1})
    silent(lambda: items_from_folders(root))
    (root / part / "scans").mkdir()
    (root / part / "scans" / "0.pdf").write_bytes(b"%PDF-1.4")
    (root / part / "fox").symlink_to(tmp_path / "nowhere")
    with pytest.warns(UserWarning, match=f"1 folder has files, but no image, and so no class: '{part}scans'"), \
            pytest.warns(UserWarning, match=f"1 link leads to nothing: '{part}fox'. Is a disk missing"):
        assert items_from_folders(root).classes == ("cat", "dog")
    with pytest.warns(UserWarning, match="1 link leads to nothing") as said:  # elsewhere folders are no classes
        list_images(root)
    assert len(said) == 1


def test_one_folder_too_many_is_named_only_where_it_is(tmp_path):
    with pytest.raises(ValueError, match=r"Did you mean the folder .*/one/photos\?$"):
        split_items(items_from_folders(folder_of(tmp_path / "one" / "photos", {"a": 2, "b": 2}).parent))
    for part in ("train", "val"):
        folder_of(tmp_path / "two" / part / "images", {"a": 2, "b": 2})
    with pytest.raises(ValueError, match="of one class, 'images'.*are labelled.$"):
        split_items(items_from_folders(tmp_path / "two"))


def test_one_of_a_kind_is_written_as_one(tmp_path):
    root = folder_of(tmp_path, {"a": 2, "b": 2, "rare": 1})
    (root / "link").symlink_to(root / "a")
    (root / "odd.nef").write_bytes(b"")
    with pytest.warns(UserWarning) as caught:
        split_items(items_from_folders(root))
    said = sorted(str(one.message).split(",")[0].split(":")[0] for one in caught)
    assert [text.split()[:2] for text in said] == [["1", "class"], ["1", "file"], ["1", "link"]]
    assert repr(fake_items({"a": 1})) == "ImageItems(1 image, 1 class)"


def test_names_with_dollars_can_be_drawn(tmp_path):  # rueckstiess/mtools#639
    items = items_from_folders(folder_of(tmp_path, {"under $5_$": 2, "$^": 2}))
    ax = plot_class_counts(items, {"$_$": [0, 1], "all $x": [2]})
    ax.figure.savefig(io.BytesIO())
    assert [label.get_text().replace("\\", "") for label in ax.get_yticklabels()] == list(items.classes)
    plt.close(ax.figure)


def test_a_third_folder_beside_the_parts_is_left_out_and_named(tmp_path):  # ultralytics/ultralytics#4310
    root = parts_of(tmp_path, train={"a": 3, "b": 3}, val={"a": 1, "b": 1}, samples={"a": 2, "b": 3})
    for hidden in (".ipynb_checkpoints", "__MACOSX", "@eaDir", "$RECYCLE.BIN"):
        folder_of(root / hidden, {"a": 1})
        folder_of(root / "train" / "a" / hidden, {"x": 1})
    with pytest.warns(UserWarning, match=r"left out: 'samples' \(5 images\)") as said:
        items = items_from_folders(root)
    assert len(said) == 1 and items.classes == ("a", "b") and len(items) == 8
    assert Counter(items.splits) == {"train": 6, "valid": 2}
    picture(1).save(root / "cover.png")
    with pytest.raises(ValueError, match="1 of 9 images .* lie in no class folder: 'cover.png'"), \
            pytest.warns(UserWarning, match="samples"):
        items_from_folders(root)
    with pytest.warns(UserWarning, match=r"'samples' \(5 images\), 1 image in no folder"):  # by pattern too
        assert len(items_from_pattern(root, "^(.)")) == 8


def test_parts_without_one_to_train_on(tmp_path):
    root = parts_of(tmp_path, val={"a": 2, "b": 2}, Test={"a": 2, "b": 2})
    with pytest.raises(ValueError, match="the parts 'Test', 'val', but no 'train'"):
        items_from_folders(root)
    assert silent(lambda: items_from_folders(folder_of(tmp_path / "kinds", {"test": 2, "control": 2}))).classes == (
        "control", "test")  # a class may be called so


def test_a_class_that_is_called_train(tmp_path):
    items = silent(lambda: items_from_folders(folder_of(tmp_path / "v", {"bus": 2, "train": 2})))
    assert items.classes == ("bus", "train") and items.splits is None
    with pytest.warns(UserWarning, match="'extra', 'train' are taken for classes, though 'train' looks like a part"):
        assert items_from_folders(parts_of(tmp_path / "x", train={"a": 2, "b": 2}, extra={"a": 2})).splits is None


def test_parts_within_the_classes(tmp_path):
    root = parts_of(tmp_path, cat={"train": 2, "val": 1}, dog={"train": 2, "val": 1})
    with pytest.warns(UserWarning, match="class folders .* hold 'train', 'val'. They are not taken for a split"):
        assert items_from_folders(root).classes == ("cat", "dog")


@pytest.mark.parametrize("parts, words", [
    ({"train": {"cat": 4, "dog": 4}, "val": {"cat": 2, "fox": 2}}, ["in the training part.*'fox'",
                                                                    "in the validation part.*'dog'"]),
    ({"train": {"cat": 4, "dog": 4}, "val": {"cat": 2, "dog": 2}, "test": {"cat": 1, "fox": 1}}, ["training.*'fox'"]),
    ({"train": {"cat": 4, "dog": 4, "fox": 1}, "test": {"cat": 2, "dog": 2}}, ["validation part.*'fox'"])])
def test_a_class_in_one_part_alone_is_named(tmp_path, parts, words):  # ultralytics/ultralytics#26192
    items = items_from_folders(parts_of(tmp_path, **parts))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        split_items(items)
    assert len(said) == len(words)
    for word in words:
        assert any(re.search(word, str(one.message)) for one in said)
    silent(lambda: split_items(items_from_folders(parts_of(tmp_path / "whole", train={"a": 3, "b": 3},
                                                           val={"a": 1, "b": 1}))))


def test_accents_in_two_forms_are_one_class(tmp_path):  # nodejs/node#2165
    root = parts_of(tmp_path, train={NFC: 3, "the": 3}, val={NFD: 2, "the": 2})
    items = items_from_folders(root)
    assert items.classes == (NFC, "the") and items.class_counts() == {NFC: 5, "the": 5}
    assert all(items.path(i).is_file() for i in range(len(items)))
    silent(lambda: split_items(items))
    for i in range(2):
        picture(i).save(tmp_path / f"{NFD}_{i}.png")
        picture(i).save(tmp_path / f"tee_{i}.png")
    found = items_from_pattern(tmp_path, f"({NFC}|tee)", names=[f"{NFD}_0.png", f"{NFD}_1.png", "tee_0.png"])
    assert found.labels == (NFC, NFC, "tee")


@pytest.mark.parametrize("one, other", [("Cat", "cat"), ("1", "01"), ("1.0", "1"), ("hot  dog", "hot dog"),
                                        ("STRASSE", "straße"), ("cat\u200b", "cat"), ("ｃat", "cat")])
def test_classes_that_differ_in_their_spelling_alone(tmp_path, one, other):
    root = parts_of(tmp_path, train={one: 2, "fox": 2}, val={other: 1, "fox": 1})
    with pytest.warns(UserWarning, match="differ in their spelling alone, and are taken for 2 classes") as said:
        items = items_from_folders(root)
    assert repr(one) in str(said[0].message) and repr(other) in str(said[0].message) and len(items.classes) == 3
    names = ("hot_dog", "hot dog", "hotdog", "10000001", "10000002", "café", "cafe")
    silent(lambda: items_from_folders(folder_of(tmp_path / "others", dict.fromkeys(names, 1))))


def test_blanks_around_the_name_of_a_folder(tmp_path):
    root = parts_of(tmp_path, train={"cat ": 2, "dog": 2}, val={"cat": 1, "dog": 1})
    assert items_from_folders(root).class_counts() == {"cat": 3, "dog": 3}


def test_photographs_that_cannot_be_opened_are_counted(tmp_path):  # caezium/burrow#283
    root = folder_of(tmp_path / "in", {"cat": 3, "dog": 3})
    (root / "fox").mkdir()
    for i in range(3):
        (root / "fox" / f"IMG_{i}.NEF").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    (root / "dog" / "raw.CR2").write_bytes(b"x")
    picture(1).save(root / "dog" / "no ending", "PNG")
    for name in ("notes.txt", "data.mat", "labels.csv", "clip.mov", "Thumbs.db", "photo.xml"):
        (root / "dog" / name).write_bytes(b"nothing to see")
    with pytest.warns(UserWarning, match=r"5 files look like images.*\.nef \(3\).*no image in 'fox'") as said:
        items = items_from_folders(root)
    assert len(said) == 1 and ".cr2 (1)" in str(said[0].message) and "no ending (1)" in str(said[0].message)
    assert items.classes == ("cat", "dog") and len(items) == 6
    with pytest.raises(ValueError, match=r"holds no image. 3 files look like images.*nef \(3\).*Convert"):
        list_images(root / "fox")


def test_only_what_is_no_photograph_beside_them(tmp_path):
    root = folder_of(tmp_path, {"cat": 2, "dog": 2})
    (root / "README.md").write_text("about")
    (root / "notes").mkdir()
    (root / "notes" / "labels.csv").write_text("a,b")
    assert silent(lambda: items_from_folders(root)).classes == ("cat", "dog")
    (root / "fox").mkdir()
    (root / "fox" / ".DS_Store").write_bytes(b"x")
    with pytest.warns(UserWarning, match="1 folder is empty, so it is no class: 'fox'"):
        items_from_folders(root)


def test_the_endings_are_those_of_the_installed_pillow(tmp_path):
    assert image_suffixes() >= {".jpg", ".jpeg", ".jfif", ".png", ".apng", ".tif", ".webp", ".bmp", ".gif", ".jp2",
                                ".mpo", ".ppm", ".tga"}
    assert not image_suffixes() & {".pdf", ".h5", ".grib", ".eps", ".mpg", ".txt"}
    (tmp_path / "a").mkdir()
    picture(1).save(tmp_path / "a" / "1.jp2")
    picture(2).save(tmp_path / "a" / "2.JPG", "PNG")  # the wrong ending of the two is no harm
    assert list_images(tmp_path) == ["a/1.jp2", "a/2.JPG"]
    from PIL import features
    if features.check("avif"):
        picture(3).save(tmp_path / "a" / "3.avif")
        items = ImageItems(tmp_path, tuple(list_images(tmp_path)), ("a", "a", "b"), ("a", "b"))
        assert len(presize(items, 16, tmp_path / "cache", progress=False)) == 3


def test_links_do_not_depend_on_the_order_of_a_folder(tmp_path, monkeypatch):
    root = folder_of(tmp_path / "in", {"dog": 2, "zebra": 2})
    outside = folder_of(tmp_path / "outside", {"x": 3}) / "x"
    try:
        for name, target in (("cat", outside), ("ape", outside), ("aardvark", root / "zebra"), ("loop", root),
                             ("up", tmp_path)):
            (root / name).symlink_to(target, target_is_directory=True)
        (root / "dog" / "again.png").symlink_to(root / "dog" / "000.png")
        (root / "dog" / "q.png").symlink_to(tmp_path / "outside" / "x" / "000.png")
        (root / "dog" / "gone.png").symlink_to(tmp_path / "nothing")
    except OSError:
        pytest.skip("this system makes no links")
    with pytest.warns(UserWarning, match=r"6 links lead to what is in the data set already.*'aardvark', 'cat'"):
        names = list_images(root)
    assert names == ["ape/000.png", "ape/001.png", "ape/002.png", "dog/000.png", "dog/001.png", "dog/gone.png",
                     "zebra/000.png", "zebra/001.png"]
    real = os.scandir

    class Reversed:
        def __init__(self, path):
            self.entries = sorted(real(path), key=lambda entry: entry.name, reverse=True)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr("os.scandir", Reversed)
    with pytest.warns(UserWarning, match="6 links"):
        assert list_images(root) == names


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_is_no_photograph(tmp_path):
    root = folder_of(tmp_path, {"a": 1, "b": 1})
    os.mkfifo(root / "a" / "pipe.png")
    assert list_images(root) == ["a/000.png", "b/000.png"]


def test_a_link_to_what_is_hidden_is_followed(tmp_path):
    folder_of(tmp_path / ".store", {"x": 2})
    folder_of(tmp_path, {"b": 1})
    try:
        (tmp_path / "a").symlink_to(tmp_path / ".store" / "x", target_is_directory=True)
    except OSError:
        pytest.skip("this system makes no links")
    assert silent(lambda: items_from_folders(tmp_path)).class_counts() == {"a": 2, "b": 1}


def with_splits(**parts: dict[str, int]) -> ImageItems:
    rows = [(f"{part}/{name}/{i}.jpg", name, part) for part, counts in parts.items()
            for name, count in counts.items() for i in range(count)]
    names, labels, splits = zip(*rows, strict=True)
    return ImageItems(Path("x"), names, labels, tuple(sorted(set(labels))), splits)


def test_fewer_images_keep_every_part(tmp_path):  # ultralytics/ultralytics#21311
    items = with_splits(train={"a": 100, "b": 100}, valid={"a": 3, "b": 3}, test={"a": 3, "b": 3})
    for seed in range(20):
        few = silent(lambda: limit_items(items, 24, seed))  # noqa: B023
        assert {few.splits[i] for i in split_items(few)[1]} == {"valid"} and len(few) == 24
        assert Counter(zip(few.splits, few.labels, strict=True))["valid", "a"] >= 1
        with pytest.warns(UserWarning, match=r"'test' part \(6\)"):
            few = limit_items(items, 4, seed)
        assert Counter(zip(few.splits, few.labels, strict=True)) == {
            (part, name): 1 for part in ("train", "valid") for name in "ab"}
    with pytest.warns(UserWarning, match=r"class '[ab]' \(106\); 'valid' part \(6\); 'test' part \(6\); max_images"):
        limit_items(items, 1)


def test_fewer_images_without_a_split_are_those_of_before():
    """Recorded figures depend on which images these are."""
    kept = limit_items(fake_items({"a": 30, "b": 10}), 8, 42).names
    assert kept == ("a/4.jpg", "a/8.jpg", "a/13.jpg", "a/20.jpg", "a/26.jpg", "a/27.jpg", "b/7.jpg", "b/8.jpg")


@pytest.mark.parametrize("indices, message", [
    (np.array([False, True]), "Boolean mask.*flatnonzero"), ([True, False], "mask"),  # pytorch/pytorch#25176
    (torch.tensor([False, True]), "mask"), ([0.0, 1.0], "whole numbers"), (np.array([0.5]), "whole numbers"),
    ([2], "2, but the images have the numbers from 0 to 1"), ([-1], "-1"), ([0, 0], "more than once"), (1, "indices"),
    ("01", "whole numbers"), ([[0, 1]], "one row"), (None, "indices"), ([2**70], "indices|numbers"), ([None], "whole")])
def test_indices_that_are_none(indices, message):
    items = ImageItems(Path("x"), ("a.png", "b.png"), ("a", "b"), ("a", "b"))
    with pytest.raises(ValueError, match=message):
        items.subset(indices)
    loader = {"transform": BatchTransform(8, HALF, HALF), "batch_size": 2}
    if message != "more than once":  # a loader may show an image twice
        with pytest.raises(ValueError, match=message):
            ImageLoader(np.zeros((2, 8, 8, 3), np.uint8), np.arange(2), indices, **loader)
        with pytest.raises(ValueError, match=message):
            plot_class_counts(items, {"training": indices})


@pytest.mark.parametrize("images, targets, message", [
    (np.zeros((2, 8, 8, 3)), [0, 1], "images must be uint8.*float64"),
    (np.zeros((2, 8, 8), np.uint8), [0, 1], "images"),
    (np.zeros((2, 8, 8, 3), np.uint8), [0.0, 1.0], "targets must be the numbers"),
    (np.zeros((2, 8, 8, 3), np.uint8), [False, True], "targets must be the numbers")])
def test_images_and_targets_that_are_none(images, targets, message):
    with pytest.raises(ValueError, match=message):
        ImageLoader(images, targets, [0, 1], BatchTransform(8, HALF, HALF), 2)
    loader = ImageLoader(np.zeros((2, 8, 8, 3), np.uint8), np.array([0, 1], np.int8), [0, 1], BatchTransform(
        8, HALF, HALF), 2)
    assert next(iter(loader))[1].dtype == torch.int64  # which is what a loss takes


@pytest.mark.parametrize("indices", [[1, 0], (1, 0), np.array([1, 0], np.uint8), torch.tensor([1, 0]), range(1, -1, -1),
                                     iter([1, 0])])
def test_indices_of_every_type(indices):
    assert ImageItems(Path("x"), ("a.png", "b.png"), ("a", "b"), ("a", "b")).subset(indices).names == ("b.png", "a.png")


@pytest.mark.filterwarnings("ignore:7 of 12 files are left out:UserWarning")
@pytest.mark.filterwarnings("ignore:8 of 12 files are left out:UserWarning")
def test_a_class_whose_files_are_all_damaged(tmp_path):
    root = parts_of(tmp_path / "in", train={"cat": 3, "fox": 3}, val={"cat": 2, "fox": 2}, test={"cat": 1, "fox": 1})
    for path in [*(root / "train" / "fox").iterdir(), *(root / "val").rglob("*.png")]:
        path.write_bytes(b"nothing")
    items = items_from_folders(root)
    for _ in range(2):  # also when the cache is there
        with pytest.warns(UserWarning, match=r"All images are lost of: 'valid' part \(4\); no file of theirs"):
            presized = presize(items, 16, tmp_path / "cache", progress=False)
    with pytest.warns(UserWarning, match="no image in the training part.*'fox'"):
        split_items(presized.items)
    (root / "test" / "fox" / "000.png").write_bytes(b"nothing")
    with pytest.warns(UserWarning, match=r"All images are lost of: class 'fox' \(6\)"):
        presized = presize(items, 16, tmp_path / "cache", progress=False)
    with pytest.raises(ValueError, match="of one class, 'cat'"):
        split_items(presized.items)


def test_items_that_cannot_be_meant():
    make = lambda **given: ImageItems(**{"root": Path("x"), "names": ("a", "b"), "labels": ("c", "d"),
                                         "classes": ("c", "d"), **given})
    for given, message in (({"classes": ("c", "d", "c")}, "classes lists 'c' more than once"),
                           ({"splits": ("training", "val")}, "'training', 'val', but may have train, valid"),
                           ({"names": ("a", "a")}, r"'a' \(as 'c', 'd'\)"),
                           ({"labels": (1, 2)}, "labels = .* must be a list"),
                           ({"classes": "cd"}, "classes = 'cd' must be")):
        with pytest.raises(ValueError, match=message):
            make(**given)
    with pytest.warns(UserWarning, match="1 of 3 classes have no image, so they cannot be learned: 'e'"), \
            pytest.warns(UserWarning, match="one image only"):
        split_items(make(classes=("c", "d", "e")))


@pytest.mark.parametrize("dataset, message", [
    ("https://example.org/photos.zip", "is an address.*Download it, unpack it"), (None, "dataset = None"),
    ("www.example.org/x", "is an address"), ("x\0y", "dataset")])
def test_what_is_no_data_set(dataset, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        get_items(dataset, tmp_path)


def test_paths_of_every_kind(tmp_path, monkeypatch):
    (tmp_path / "photos.zip").write_bytes(b"PK")
    with pytest.raises(NotADirectoryError, match="is a file. Unpack the archive"):
        get_items(tmp_path / "photos.zip")
    folder_of(tmp_path / "my photos #1 100% ?" / "Fotos Ä", {"a": 1, "b": 1})
    strange = tmp_path / "my photos #1 100% ?" / "Fotos Ä"
    assert len(get_items(str(strange), announce=False)) == 2
    with pytest.raises(FileNotFoundError, match="Leave the quotation marks out"):
        get_items(f'"{strange}"', announce=False)
    assert len(presize(get_items(strange, announce=False), 16, strange / "cache ?#%", progress=False)) == 2
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path / "one" / "two", {"a": 1, "b": 1})
    assert len(get_items("one\\two", announce=False)) == 2


def test_the_command_counts_what_is_left_out(tmp_path, capsys):  # ultralytics/ultralytics#4310
    from course_lib.app.cli import main

    root = parts_of(tmp_path / "in", train={"cat": 3, "dog": 3, "fox": 2}, val={"cat": 1, "bee": 1}, samples={"x": 4})
    check = lambda folder: main(["data", "check", str(folder), "--data-dir", str(tmp_path / "data")])
    for path in (root / "train" / "fox").iterdir():
        path.write_bytes(b"nothing")
    (root / "train" / "dog" / "IMG_1.NEF").write_bytes(b"x")
    picture(1).save(root / "train" / "dog" / "film.gif", save_all=True, append_images=[picture(2)])
    assert check(root) == 1
    said = capsys.readouterr().out
    for words in ("train/fox/000.png: ", "9 of 11 images can be read, in 3 classes", "'samples' (4 images)",
                  "All images are lost of: class 'fox' (2); no file of theirs can be read", ".nef (1)",
                  "no image in the training part, so they cannot be learned, and every image of theirs elsewhere will "
                  "be answered wrongly: 'bee'", "1 file holds several pictures"):
        assert words in said
    for number in range(4):  # neither tiny nor copies of one another
        path = tmp_path / "good" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 255, (80, 90, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    assert check(tmp_path / "good") == 0
    assert capsys.readouterr().out == "4 of 4 images can be read, in 2 classes.\n"


def test_a_phones_heic_is_read_with_the_extra_and_named_without(tmp_path, monkeypatch):
    import course_lib.data.listing as listing

    (tmp_path / "fox").mkdir()
    (tmp_path / "fox" / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    monkeypatch.setattr(listing, "image_suffixes", lambda: frozenset({".png"}))
    monkeypatch.setattr(listing, "read_heic", lambda: False)
    with pytest.raises(ValueError, match=r'\.heic \(1\).*HEIC is read with: pip install "course-lib\[heic\]"'):
        list_images(tmp_path)
    monkeypatch.undo()
    pytest.importorskip("pillow_heif")
    assert listing.read_heic()
    Image.fromarray(np.full((40, 60, 3), (200, 30, 30), np.uint8)).save(tmp_path / "fox" / "IMG_1.HEIC", "HEIF")
    assert list_images(tmp_path) == ["fox/IMG_1.HEIC"]
    pixels = load_image(tmp_path / "fox" / "IMG_1.HEIC", 24)
    assert pixels.shape == (24, 24, 3) and np.abs(pixels.reshape(-1, 3).mean(0) - (200, 30, 30)).max() < 6
