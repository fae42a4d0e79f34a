"""Data sets, labels, splits, the presized cache, augmentation and loaders: properties, faults and bad input."""
from __future__ import annotations

import errno
import functools
import hashlib
import http.server
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from course_lib import data
from course_lib.data import (
    DATASETS,
    Augmentation,
    BadImageError,
    BatchTransform,
    ImageItems,
    ImageLoader,
    StorageError,
    get_items,
    items_from_folders,
    items_from_pattern,
    items_from_table,
    limit_items,
    load_image,
    make_loaders,
    presize,
    split_items,
    warp_images,
)

PETS_SAMPLE = Path(os.environ.get("COURSELIB_SAMPLE_PETS",
                                  Path(__file__).parents[2] / "shared" / "data" / "oxford-iiit-pet"))
HALF = (0.5, 0.5, 0.5)


def picture(number: int, width: int = 40, height: int = 30) -> Image.Image:
    """A small picture that differs from every other and has a left, a right, an upper and a lower side."""
    image = Image.new("RGB", (width, height), (number * 7 % 256, number * 29 % 256, number * 53 % 256))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, width // 3, height // 4), fill="white")
    draw.ellipse((width // 2, height // 2, width - 2, height - 2), fill=(255 - number * 11 % 256, 90, 20))
    return image


def folder_of(root: Path, counts: dict[str, int], suffix: str = ".png") -> Path:
    """A folder with `counts[class]` pictures in each class folder."""
    number = 0
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            picture(number).save(root / name / f"{i:03}{suffix}")
            number += 1
    return root


def fake_items(counts: dict[str, int], shuffle_with: random.Random | None = None) -> ImageItems:
    """Items without files."""
    pairs = [(f"{name}/{i}.jpg", name) for name, count in counts.items() for i in range(count)]
    if shuffle_with:
        shuffle_with.shuffle(pairs)
    return ImageItems(Path("nowhere"), tuple(n for n, _ in pairs), tuple(c for _, c in pairs), tuple(sorted(counts)))


# ---------------------------------------------------------------- labels

def test_elpv_is_what_its_source_says():
    items = get_items("elpv", announce=False)
    table = np.genfromtxt(items.root / "labels.csv", dtype=None, encoding="utf-8")
    assert len(items) == 2624 == len(table)
    assert items.classes == ("mono functional", "mono defective", "poly functional", "poly defective")
    expected = [f"{kind} {'defective' if probability > 0.5 else 'functional'}" for _, probability, kind in table]
    assert list(items.labels) == expected
    assert list(items.class_counts().values()) == [705, 369, 1098, 452]
    assert all(items.path(i).is_file() for i in range(len(items)))
    assert items.info is DATASETS["elpv"]


def test_licence_and_citation_are_printed(capsys, tmp_path):
    get_items("elpv")
    printed = capsys.readouterr().out
    assert "CC BY-NC-SA 4.0" in printed and "Deitsch" in printed and "Buerhop-Lutz" in printed
    get_items(folder_of(tmp_path / "mine", {"a": 1, "b": 2}))
    printed = capsys.readouterr().out
    assert "'mine'" in printed and "3 images, 2 classes" in printed and "licence" in printed
    get_items("elpv", announce=False)
    assert capsys.readouterr().out == ""
    for info in DATASETS.values():
        assert info.licence and info.citation and info.title


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
    except OSError:
        pass  # Windows without the right to make links
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


def test_labels_by_table(tmp_path):
    folder_of(tmp_path, {"x": 4})
    table = tmp_path / "table.csv"
    table.write_text("file,kind\nx/000.png,cat\nx/001.png,dog\nx\\002.png,cat\n", encoding="utf-8-sig")
    items = items_from_table(tmp_path, table, "file", "kind")
    assert items.labels == ("cat", "dog", "cat") and items.names[2] == "x/002.png"
    table.write_text("x/000.png 0.2\nx/001.png 0.9\n")
    high_or_low = lambda row: "high" if float(row[1]) > 0.5 else "low"
    by_function = items_from_table(tmp_path, table, 0, high_or_low, delimiter=None)
    assert by_function.labels == ("low", "high")
    assert items_from_table(tmp_path, table, 0, 1, delimiter=None, classes=("0.9", "0.2")).targets.tolist() == [1, 0]


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


def test_unknown_names(tmp_path):
    with pytest.raises(ValueError, match=r"called 'elvp'\. Did you mean 'elpv'\?.*elpv, pets, hotdog, birds, coffee"):
        get_items("elvp", tmp_path)
    with pytest.raises(ValueError, match="'pet'.*Did you mean 'pets'"):
        get_items("pet", tmp_path)
    with pytest.raises(FileNotFoundError, match="no public address.*coffee"):
        get_items("coffee", tmp_path)
    folder_of(tmp_path / "coffee", {"Dark": 1, "Light": 1})
    assert get_items("coffee", tmp_path, announce=False).classes == ("Dark", "Light")
    folder_of(tmp_path / "beans", {"Dark": 1, "Light": 2})
    assert len(get_items("beans", tmp_path, announce=False)) == 3  # a folder in the data folder
    with pytest.raises(FileNotFoundError, match="course data get hotdog"):
        get_items("hotdog", tmp_path, download=False)


# ---------------------------------------------------------------- splits

counts_strategy = st.dictionaries(st.sampled_from(["ant", "bee", "Möwe", "dog", "eel", "fox"]), st.integers(1, 40),
                                  min_size=2)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(counts=counts_strategy, seed=st.integers(0, 2**32 - 1), fraction=st.sampled_from([0.1, 0.2, 0.25, 0.5, 0.9]),
       order=st.randoms(use_true_random=False))
@pytest.mark.filterwarnings("ignore:.*one image only")
def test_split_properties(counts, seed, fraction, order):
    items = fake_items(counts)
    train, valid = split_items(items, fraction, seed)
    assert train.dtype == valid.dtype == np.int64
    assert sorted([*train, *valid]) == list(range(len(items)))  # complete and disjoint
    for number, name in enumerate(items.classes):
        held_out = int((items.targets[valid] == number).sum())
        expected = min(max(int(counts[name] * fraction + 0.5), 1), counts[name] - 1)
        assert held_out == expected and held_out < counts[name]  # the share is right and training keeps one
    shuffled = fake_items(counts, order)
    again = split_items(shuffled, fraction, seed)[1]
    assert {shuffled.names[i] for i in again} == {items.names[i] for i in valid}  # file order does not matter


def test_split_is_the_same_on_every_machine():
    """The rule itself, worked out by hand: the smallest hashes of 'seed/name' are held out."""
    items = fake_items({"cat": 8, "dog": 8})
    _, valid = split_items(items, 0.25, seed=7)
    for name in ("cat", "dog"):
        ranked = sorted((hashlib.sha256(f"7/{name}/{i}.jpg".encode()).hexdigest(), f"{name}/{i}.jpg") for i in range(8))
        assert {n for n in (items.names[i] for i in valid) if n.startswith(name)} == {n for _, n in ranked[:2]}
    assert split_items(items, 0.25, seed=8)[1].tolist() != valid.tolist()


def test_accents_do_not_change_the_split():
    """macOS hands out 'é' as two characters, Linux as one."""
    one = ImageItems(Path("x"), tuple(f"caf\u00e9/{i}.jpg" for i in range(9)) + ("a/1.jpg", "a/2.jpg"),
                     ("c",) * 9 + ("a",) * 2, ("a", "c"))
    two = replace(one, names=tuple(name.replace("\u00e9", "e\u0301") for name in one.names))
    assert [a.tolist() for a in split_items(one)] == [a.tolist() for a in split_items(two)]


def test_split_warnings_and_errors(tmp_path):
    with pytest.warns(UserWarning, match="1 classes have one image only, which stays in training.*'rare'"):
        train, valid = split_items(fake_items({"rare": 1, "dog": 8}))
    items = fake_items({"rare": 1, "dog": 8})
    assert "rare" in {items.labels[i] for i in train} and "rare" not in {items.labels[i] for i in valid}
    with pytest.raises(ValueError, match="All 5 images are of one class, 'dog'; a classifier needs at least two"):
        split_items(fake_items({"dog": 5}))
    nested = items_from_folders(folder_of(tmp_path / "wrapper" / "inner", {"a": 1, "b": 1}).parent)
    with pytest.raises(ValueError, match="Did you mean the folder .*inner"):
        split_items(nested)
    for fraction in (0, 1, -0.5, 2):
        with pytest.raises(ValueError, match="between 0 and 1"):
            split_items(items, fraction)
    with pytest.raises(ValueError, match="no images to split"):
        split_items(items.subset([]))


@settings(max_examples=40, deadline=None)
@given(counts=counts_strategy, limit=st.integers(1, 60))
def test_limit_keeps_every_class_that_fits(counts, limit):
    items = fake_items(counts)
    few = limit_items(items, limit)
    assert len(few) == min(limit, len(items)) and few.classes == items.classes
    assert set(few.names) <= set(items.names) and list(few.names) == [n for n in items.names if n in set(few.names)]
    if limit >= len(counts):
        assert all(few.class_counts().values())
    if limit >= 4 * len(counts):  # shares are kept, to within two images
        for name, count in few.class_counts().items():
            assert abs(count - counts[name] * len(few) / len(items)) <= len(counts) + 2
    assert limit_items(items, None) is items


# ---------------------------------------------------------------- single images

def test_load_image_is_the_antialiased_centre_square(tmp_path):
    image = picture(3, 400, 300)
    image.save(tmp_path / "x.png")
    loaded = load_image(tmp_path / "x.png", 100)
    assert loaded.shape == (100, 100, 3) and loaded.dtype == np.uint8
    shorter_side_then_crop = image.resize((133, 100), Image.Resampling.BICUBIC).crop((17, 0, 117, 100))
    assert np.abs(loaded.astype(int) - np.asarray(shorter_side_then_crop)).mean() < 3
    exact = picture(3, 100, 100)
    exact.save(tmp_path / "exact.png")
    assert np.array_equal(load_image(tmp_path / "exact.png", 100), np.asarray(exact))  # nothing to do, nothing done


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_undone(tmp_path, orientation):
    undo = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_90}
    inverse = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    upright = picture(5, 60, 40)
    stored = upright.transpose(inverse.get(orientation, undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    upright.save(tmp_path / "upright.png")
    assert np.array_equal(load_image(tmp_path / "turned.png", 32), load_image(tmp_path / "upright.png", 32))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_broken_exif_note_loses_no_photo(tmp_path):
    picture(5).save(tmp_path / "x.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\xff")
    assert load_image(tmp_path / "x.jpg", 16).shape == (16, 16, 3)


def save_as(mode: str, path: Path) -> np.ndarray:
    """Save the same picture in another mode; returns what it should look like, in RGB."""
    base = picture(9, 48, 48)
    if mode == "I;16":
        grey = np.asarray(base.convert("L")).astype(np.uint16)
        Image.fromarray(grey * 257).save(path.with_suffix(".png"))
        return np.repeat(grey[..., None], 3, 2)
    if mode == "I":
        grey = np.asarray(base.convert("L")).astype(np.int32)
        Image.fromarray(grey * 257).save(path.with_suffix(".tiff"))
        return np.repeat(grey[..., None], 3, 2)
    if mode in ("RGBA", "LA"):
        image = base.convert(mode)
        alpha = Image.new("L", base.size, 255)
        alpha.paste(0, (0, 0, 24, 48))  # the left half is transparent
        image.putalpha(alpha)
        image.save(path.with_suffix(".png"))
        expected = np.array(base.convert("RGB" if mode == "RGBA" else "L").convert("RGB"))
        expected[:, :24] = 255
        return expected
    image = base.convert(mode)
    image.save(path.with_suffix(".tiff" if mode == "CMYK" else ".png"))
    return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "RGBA", "LA", "I;16", "I"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    expected = save_as(mode, tmp_path / "x")
    loaded = load_image(next(tmp_path.iterdir()), 48)
    assert loaded.shape == (48, 48, 3) and np.abs(loaded.astype(int) - expected).max() <= 1


def test_cmyk_jpeg_and_transparent_palette(tmp_path):
    picture(9, 48, 48).convert("CMYK").save(tmp_path / "x.jpg", quality=95)
    assert np.abs(load_image(tmp_path / "x.jpg", 48).astype(int) - np.asarray(picture(9, 48, 48))).mean() < 12
    image = picture(9, 48, 48).convert("P")
    image.save(tmp_path / "x.gif", transparency=image.getpixel((1, 1)))
    assert (load_image(tmp_path / "x.gif", 48)[1, 1] == 255).all()


def bad_files(root: Path) -> dict[str, str]:
    """Files that are no usable images, and what should be said of each."""
    whole = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(whole, "JPEG")
    (root / "truncated.jpg").write_bytes(whole.getvalue()[:-900])
    whole = io.BytesIO()
    Image.fromarray(noise).save(whole, "PNG")
    (root / "truncated.png").write_bytes(whole.getvalue()[:3000])
    (root / "zero.jpg").write_bytes(b"")
    (root / "page.jpg").write_text("<html>404 not found</html>")
    (root / "head.png").write_bytes(whole.getvalue()[:20])
    Image.fromarray(np.full((8, 8), 0.5, dtype=np.float32)).save(root / "float.tiff")
    huge = bytearray(whole.getvalue())
    huge[16:24] = (60000).to_bytes(4, "big") * 2  # a header that promises 3.6 gigapixels
    import zlib
    huge[29:33] = zlib.crc32(bytes(huge[12:29])).to_bytes(4, "big")
    (root / "bomb.png").write_bytes(bytes(huge))
    return {"truncated.jpg": "truncated", "truncated.png": "truncated", "zero.jpg": "the file is empty",
            "page.jpg": "not an image", "head.png": "", "float.tiff": "floating-point", "bomb.png": "[Bb]omb"}


def test_bad_files_say_why(tmp_path):
    for name, reason in bad_files(tmp_path).items():
        with pytest.raises(BadImageError, match=f"{name} cannot be used: .*{reason}"):
            load_image(tmp_path / name, 32)
    with pytest.raises(FileNotFoundError):
        load_image(tmp_path / "missing.png", 32)


# ---------------------------------------------------------------- the cache

def test_cache_equals_load_image_and_is_found_again(tmp_path, monkeypatch):
    items = items_from_folders(folder_of(tmp_path / "in", {"a": 5, "b": 6}))
    presized = presize(items, 24, tmp_path / "cache", progress=False)
    assert presized.images.shape == (11, 24, 24, 3) and presized.size == 24 and presized.skipped == ()
    for i in range(11):
        assert np.array_equal(presized.images[i], load_image(items.path(i), 24))
    with pytest.raises(ValueError):
        presized.images[0] = 0  # mapped for reading
    monkeypatch.setattr(data, "load_image", None)  # a second call decodes nothing
    again = presize(items, 24, tmp_path / "cache")
    assert again.folder == presized.folder and np.array_equal(again.images, presized.images)
    assert not list((tmp_path / "cache").glob("*.partial"))
    moved = tmp_path / "moved"
    shutil.copytree(tmp_path / "in", moved)
    assert presize(items_from_folders(moved), 24, tmp_path / "cache").folder == presized.folder  # content counts


def test_changed_data_or_size_is_another_cache(tmp_path):
    root = folder_of(tmp_path / "in", {"a": 3, "b": 3})
    first = presize(items_from_folders(root), 16, tmp_path / "cache", progress=False)
    path, stat = root / "a" / "001.png", (root / "a" / "001.png").stat()
    picture(200).save(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # its time does not give the change away
    second = presize(items_from_folders(root), 16, tmp_path / "cache", progress=False)
    assert second.folder != first.folder and np.array_equal(second.images[1], load_image(path, 16))
    assert presize(items_from_folders(root), 17, tmp_path / "cache", progress=False).folder not in (first.folder,
                                                                                                    second.folder)


def test_bad_files_are_named_and_skipped(tmp_path):
    root = folder_of(tmp_path / "in", {"a": 3, "b": 4})
    bad = bad_files(root / "a")
    items = items_from_folders(root)
    with pytest.warns(UserWarning, match=f"{len(bad)} of {len(items)} files are left out") as caught:
        presized = presize(items, 24, tmp_path / "cache", progress=False)
    assert "truncated.jpg" in str(caught[-1].message) or "and 2 more" in str(caught[-1].message)
    assert {name for name, _ in presized.skipped} == {f"a/{name}" for name in bad}
    assert len(presized.items) == len(presized.images) == 7
    for i in range(7):  # rows and names still belong together
        assert np.array_equal(presized.images[i], load_image(presized.items.path(i), 24))
    with pytest.warns(UserWarning, match="left out"):  # and it is said again when the cache is used again
        again = presize(items, 24, tmp_path / "cache")
    assert again.skipped == presized.skipped


def test_all_bad_and_none(tmp_path):
    (tmp_path / "in" / "a").mkdir(parents=True)
    bad_files(tmp_path / "in" / "a")
    items = items_from_folders(tmp_path / "in")
    with pytest.raises(ValueError, match="None of the 7 image files can be used"):
        presize(items, 24, tmp_path / "cache", progress=False)
    assert not [p for p in (tmp_path / "cache").iterdir() if p.is_dir()]
    with pytest.raises(ValueError, match="no images to presize"):
        presize(items.subset([]), 24, tmp_path / "cache")
    for size in (0, -1, 2.5):
        with pytest.raises(ValueError, match="whole number of pixels"):
            presize(items, size, tmp_path / "cache")


def test_an_unreadable_file_is_skipped_until_it_can_be_read(tmp_path, monkeypatch):
    items = items_from_folders(folder_of(tmp_path / "in", {"a": 2, "b": 2}))
    real, locked = data._file_digest, items.path(1)
    monkeypatch.setattr(data, "_file_digest", lambda path: data.UNREADABLE if path == locked else real(path))
    with pytest.warns(UserWarning, match="a/001.png: the file cannot be read"):
        assert len(presize(items, 16, tmp_path / "cache", progress=False)) == 3
    monkeypatch.undo()
    assert len(presize(items, 16, tmp_path / "cache", progress=False)) == 4


def test_a_disk_that_fails_loses_nothing(tmp_path, monkeypatch):
    """A read error is not the image's fault: stop, keep what is done, go on next time."""
    items = items_from_folders(folder_of(tmp_path / "in", {"a": 6, "b": 6}))
    whole = presize(items, 16, tmp_path / "whole", progress=False)
    real, decoded = load_image, []

    def failing(path, size):
        if path.name == "004.png" and path.parent.name == "b":
            raise OSError(errno.EIO, "Input/output error")
        return real(path, size)

    monkeypatch.setattr(data, "load_image", failing)
    with pytest.raises(OSError, match="Reading failed .*kept"):
        presize(items, 16, tmp_path / "cache", progress=False, workers=1)
    monkeypatch.setattr(data, "load_image", lambda path, size: decoded.append(path) or real(path, size))
    again = presize(items, 16, tmp_path / "cache", progress=False)
    assert np.array_equal(again.images, whole.images)
    assert len(decoded) == 2  # the ten before were kept


def partial_of(cache: Path) -> Path:
    return next(cache.glob("*.partial"))


@pytest.mark.parametrize("cut", ["half a row", "half a line", "garbage", "everything"])
def test_resuming_from_a_torn_partial_cache(tmp_path, monkeypatch, cut):
    root = folder_of(tmp_path / "in", {"a": 5, "b": 5})
    (root / "a" / "002.png").write_bytes(b"no image")
    (root / "a" / "003.png").write_bytes(b"")
    items, row = items_from_folders(root), 16 * 16 * 3
    with pytest.warns(UserWarning, match="left out"):
        whole = presize(items, 16, tmp_path / "whole", progress=False)
    real = load_image

    def failing(path, size):
        if path.name == "002.png" and path.parent.name == "b":
            raise OSError(errno.EIO, "Input/output error")
        return real(path, size)

    monkeypatch.setattr(data, "load_image", failing)
    with pytest.raises(OSError):
        presize(items, 16, tmp_path / "cache", progress=False, workers=1)
    monkeypatch.undo()
    images, log = partial_of(tmp_path / "cache") / "images.bin", partial_of(tmp_path / "cache") / "skipped.jsonl"
    if cut == "half a row":
        os.truncate(images, 2 * row + 100)
    elif cut == "half a line":  # killed while it wrote that 003 is bad; no later row can be there then
        os.truncate(log, log.stat().st_size - 4)
        os.truncate(images, 2 * row)
    elif cut == "garbage":
        log.write_bytes(b"\x00\x00\x00\n")
    else:
        images.unlink()
        log.unlink()
    with pytest.warns(UserWarning, match="left out"):
        again = presize(items, 16, tmp_path / "cache", progress=False)
    assert np.array_equal(again.images, whole.images) and again.skipped == whole.skipped


@pytest.mark.parametrize("damage", ["short", "no note", "nonsense"])
def test_a_damaged_cache_is_built_again(tmp_path, damage):
    items = items_from_folders(folder_of(tmp_path / "in", {"a": 3, "b": 3}))
    first = presize(items, 16, tmp_path / "cache", progress=False)
    expected = np.array(first.images)
    if damage == "short":
        os.truncate(first.folder / "images.bin", 1000)
    elif damage == "no note":
        (first.folder / "cache.json").unlink()
    else:
        (first.folder / "cache.json").write_text("[]")
    assert np.array_equal(presize(items, 16, tmp_path / "cache", progress=False).images, expected)


CHILD = textwrap.dedent("""
    import signal, sys, time, warnings
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it switched off
    from course_lib import data
    root, cache, delay = sys.argv[1], sys.argv[2], float(sys.argv[3])
    real = data.load_image
    data.load_image = lambda path, size: (time.sleep(delay), real(path, size))[1]
    warnings.simplefilter("ignore")
    presized = data.presize(data.items_from_folders(root), 24, cache, progress=False, workers=2)
    print("built", len(presized))
""")


def start_child(root: Path, cache: Path, delay: float) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", CHILD, str(root), str(cache), str(delay)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def wait_for_rows(cache: Path, rows: int, child: subprocess.Popen) -> None:
    for _ in range(3000):
        done = [p.stat().st_size for p in cache.glob("*.partial/images.bin")]
        if done and done[0] >= rows * 24 * 24 * 3:
            return
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.01)
    raise AssertionError("the child never got there")


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("how", ["SIGINT", "SIGKILL"])
def test_an_interrupted_build_goes_on(tmp_path, monkeypatch, how):
    root = folder_of(tmp_path / "in", {"a": 30, "b": 30})
    (root / "a" / "001.png").write_bytes(b"no image")
    items = items_from_folders(root)
    with pytest.warns(UserWarning, match="left out"):
        whole = presize(items, 24, tmp_path / "whole", progress=False)
    child = start_child(root, tmp_path / "cache", 0.05)
    wait_for_rows(tmp_path / "cache", 12, child)
    child.send_signal(getattr(signal, how))
    _, said = child.communicate(timeout=20)
    assert child.returncode != 0 and (how == "SIGKILL" or "KeyboardInterrupt" in said)
    assert not list((tmp_path / "cache").glob("*/cache.json"))  # nothing that looks whole
    kept = (partial_of(tmp_path / "cache") / "images.bin").stat().st_size // (24 * 24 * 3)
    assert 12 <= kept < 59
    decoded, real = [], load_image
    monkeypatch.setattr(data, "load_image", lambda path, size: decoded.append(path) or real(path, size))
    with pytest.warns(UserWarning, match="a/001.png"):
        again = presize(items, 24, tmp_path / "cache", progress=False)
    assert again.images.tobytes() == whole.images.tobytes() and again.skipped == whole.skipped
    assert len(decoded) == 60 - kept - 1  # none twice


def test_two_processes_build_one_cache(tmp_path, capsys):
    """This process comes while a child is building: it waits, and then uses what the child has made."""
    root = folder_of(tmp_path / "in", {"a": 20, "b": 20})
    items = items_from_folders(root)
    child = start_child(root, tmp_path / "cache", 0.05)
    wait_for_rows(tmp_path / "cache", 4, child)
    cached = presize(items, 24, tmp_path / "cache", progress=False)
    said = child.communicate(timeout=60)
    assert child.returncode == 0 and "built 40" in said[0], said
    assert "another process is at it" in capsys.readouterr().out
    whole = presize(items, 24, tmp_path / "whole", progress=False)
    assert cached.images.tobytes() == whole.images.tobytes()
    assert [p.name for p in (tmp_path / "cache").iterdir() if p.is_dir()] == [cached.folder.name]


def test_threads_of_one_process_build_one_cache(tmp_path):
    items = items_from_folders(folder_of(tmp_path / "in", {"a": 20, "b": 20}))
    built = list(data.map_ahead(lambda _: presize(items, 24, tmp_path / "cache", progress=False), range(3), workers=3,
                                ahead=3))
    assert len({b.folder for b in built}) == 1 and len({b.images.tobytes() for b in built}) == 1


def test_too_little_room_is_said_before_the_work(tmp_path, monkeypatch):
    items = items_from_folders(folder_of(tmp_path / "in", {"a": 3, "b": 3}))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(StorageError, match=r"needs 3 MB more in .*cache.*data_dir"):
        presize(items, 400, tmp_path / "cache", progress=False)


def test_a_disk_that_fills_up_on_the_way(tmp_path, monkeypatch):
    items = items_from_folders(folder_of(tmp_path / "in", {"a": 5, "b": 5}))
    whole = presize(items, 16, tmp_path / "whole", progress=False)
    real, calls = data._append, []

    def full(file, block):
        calls.append(1)
        if len(calls) > 4:
            file.write(memoryview(block).cast("B")[:100])  # a full disk often takes a part
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file, block)

    monkeypatch.setattr(data, "_append", full)
    with pytest.raises(StorageError, match="No space left on device.*data_dir.*kept"):
        presize(items, 16, tmp_path / "cache", progress=False)
    monkeypatch.undo()
    assert np.array_equal(presize(items, 16, tmp_path / "cache", progress=False).images, whole.images)


@pytest.fixture
def mounted(tmp_path):
    """Mount a small file system of one's own, where that is allowed."""
    points = []

    def mount(options: str) -> Path:
        point = tmp_path / f"disk{len(points)}"
        point.mkdir()
        if shutil.which("mount") is None or subprocess.run(
                ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(point)], capture_output=True).returncode:
            pytest.skip("mounting is not allowed here")
        points.append(point)
        return point

    yield mount
    for point in points:
        subprocess.run(["umount", "-l", str(point)], check=True)


def test_a_disk_that_is_really_full(tmp_path, monkeypatch, mounted):
    disk = mounted("size=100k")
    items = items_from_folders(folder_of(tmp_path / "in", {"a": 10, "b": 10}))
    with pytest.raises(StorageError, match="MB are free"):
        presize(items, 64, disk / "cache", progress=False)
    monkeypatch.setattr(data, "_check_free_space", lambda *_: None)  # as if another program had taken the room since
    with pytest.raises(StorageError, match="No space left.*data_dir"):
        presize(items, 64, disk / "cache", progress=False)
    rows = (partial_of(disk / "cache") / "images.bin").stat().st_size // (64 * 64 * 3)
    assert rows > 2
    subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
    decoded, real = [], load_image
    monkeypatch.setattr(data, "load_image", lambda path, size: decoded.append(path) or real(path, size))
    assert len(presize(items, 64, disk / "cache", progress=False)) == 20 and len(decoded) == 20 - rows


def test_a_read_only_data_folder(tmp_path, mounted):
    items = items_from_folders(folder_of(tmp_path / "in", {"a": 2, "b": 2}))
    disk = mounted("size=1m")
    ready = presize(items, 16, disk / "cache", progress=False)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert np.array_equal(presize(items, 16, disk / "cache").images, ready.images)  # what is there can be used
    with pytest.raises(StorageError, match="cannot write to .*data_dir"):
        presize(items, 17, disk / "cache", progress=False)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path):
    items = items_from_folders(folder_of(tmp_path / "in", {"a": 2, "b": 2}))
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(StorageError, match="cannot write to .*data_dir"):
        presize(items, 16, tmp_path / "locked" / "cache", progress=False)


def test_a_data_folder_that_is_a_file(tmp_path):
    items = items_from_folders(folder_of(tmp_path / "in", {"a": 2, "b": 2}))
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="cannot write to .*data_dir"):
        presize(items, 16, tmp_path / "file" / "cache", progress=False)


# ---------------------------------------------------------------- augmentation

def smooth_batch(size: int = 64, count: int = 3) -> torch.Tensor:
    """Pictures that bilinear interpolation reproduces exactly: planes in x and y, one for each channel."""
    place = (2 * torch.arange(size) + 1) / size - 1
    x, y = place.expand(size, size), place[:, None].expand(size, size)
    planes = torch.stack((x, y, 0.5 * x - 0.25 * y))
    return planes.expand(count, 3, size, size) * 100 + 120


def ones(count: int) -> torch.Tensor:
    return torch.ones(count)


def test_identity_reproduces_and_flips_mirror_exactly():
    images = torch.randint(0, 256, (3, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    same = warp_images(images, torch.eye(3).repeat(3, 1, 1), 48)
    assert same.is_contiguous(memory_format=torch.channels_last)
    assert (same - images).abs().max() < 0.01
    across = warp_images(images, data.flip_matrix(-ones(3), ones(3)), 48)
    assert (across - images.flip(3)).abs().max() < 0.01
    down = warp_images(images, data.flip_matrix(ones(3), -ones(3)), 48)
    assert (down - images.flip(2)).abs().max() < 0.01
    quarter = warp_images(images, data.rotation_matrix(90 * ones(3)), 48)
    assert (quarter - torch.rot90(images, 1, (2, 3))).abs().max() < 0.02  # anticlockwise, as rot90 turns


@settings(max_examples=40, deadline=None)
@given(degrees=st.floats(-30, 30), zoom=st.floats(1, 2), warp=st.floats(-0.2, 0.2), width=st.floats(0.5, 0.7),
       offset=st.floats(-0.1, 0.1))
def test_composed_warp_equals_the_formula(degrees, zoom, warp, width, offset):
    """On planes the result can be worked out by hand: the colour at each pixel is the plane at its source place."""
    size = 32
    w, h = width * ones(1), 0.6 * ones(1)
    matrix = (data.crop_matrix(w, h, offset * ones(1), 0 * ones(1)) @ data.rotation_matrix(degrees * ones(1))
              @ data.zoom_matrix(zoom * ones(1)) @ data.warp_matrix(warp * ones(1), -warp * ones(1)))
    result = warp_images(smooth_batch(64, 1), matrix, size)[0]
    for row, column in ((4, 7), (16, 16), (27, 10), (12, 29)):
        x, y = (2 * column + 1) / size - 1, (2 * row + 1) / size - 1
        x, y = x / (1 + warp * x - warp * y), y / (1 + warp * x - warp * y)  # perspective first
        x, y = x / zoom, y / zoom
        sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
        x, y = cosine * x - sine * y, sine * x + cosine * y
        x, y = width * x + offset, 0.6 * y
        if max(abs(x), abs(y)) < 0.95:  # inside the picture
            expected = np.array([x, y, 0.5 * x - 0.25 * y]) * 100 + 120
            assert np.abs(result[:, row, column].numpy() - expected).max() < 0.05


def test_grid_equals_pytorchs_own():
    matrices = torch.eye(3).repeat(4, 1, 1)
    matrices[:, :2] += 0.2 * torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    expected = F.affine_grid(matrices[:, :2], (4, 3, 20, 20), align_corners=False)
    assert torch.allclose(data.warp_grid(matrices, 20), expected, atol=1e-5)


def test_result_does_not_depend_on_how_many_images_are_done_at_once():
    images = torch.randint(0, 256, (7, 3, 40, 40), dtype=torch.uint8)
    matrices = data.draw_matrices(torch.rand(7, data.NUM_DRAWS), Augmentation())
    together = warp_images(images, matrices, 32)
    alone = torch.cat([warp_images(images[i:i + 1], matrices[i:i + 1], 32) for i in range(7)])
    assert torch.equal(together, alone)


def test_lighting_is_the_same_wherever_it_is_worked_out():
    images, draws = torch.randint(0, 256, (7, 40, 40, 3), dtype=torch.uint8), torch.rand(7, data.NUM_DRAWS)
    mean, std, augmentation = torch.tensor((0.4, 0.5, 0.6)), torch.tensor((0.2, 0.25, 0.3)), Augmentation()
    gain, offset = data.draw_lighting(draws, augmentation)
    assert len(set(gain.tolist())) > 1 and len(set(offset.tolist())) > 1
    seen = warp_images(images.permute(0, 3, 1, 2), data.draw_matrices(draws, augmentation), 32).permute(0, 2, 3, 1)
    lit = gain[:, None, None, None] * seen / 255 + offset[:, None, None, None]
    x = BatchTransform(32, tuple(mean.tolist()), tuple(std.tolist()), augmentation)(images, draws=draws)
    assert torch.allclose(x.permute(0, 2, 3, 1), (lit - mean) / std, atol=1e-5)
    assert x.is_contiguous(memory_format=torch.channels_last)


PAGES = """
import resource
import torch
from course_lib.settings import disable_malloc_trim

def pages_asked_for():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(50_000_000, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(pages_asked_for(), disable_malloc_trim(), pages_asked_for() and pages_asked_for())
"""


def test_memory_that_is_kept_is_not_asked_for_again():
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-c", PAGES], capture_output=True, text=True, check=True)
    before, possible, after = done.stdout.split()
    if possible == "False":
        pytest.skip("this C library cannot be told to keep memory")
    assert int(after) < int(before) / 3, done.stdout


def test_a_loader_on_the_cpu_keeps_its_memory_for_the_next_batch(monkeypatch):
    calls = []
    monkeypatch.setattr(data, "disable_malloc_trim", lambda: calls.append(1))
    loader = ImageLoader(np.zeros((4, 8, 8, 3), np.uint8), np.zeros(4, np.int64), np.arange(4),
                         BatchTransform(8, (0.5,) * 3, (0.5,) * 3), 2)
    assert len(list(loader)) == 2 and calls == [1]


def test_transform_normalises_like_the_formula_and_is_channels_last():
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    x = BatchTransform(32, mean, std)(images)
    expected = (images.permute(0, 3, 1, 2) / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert x.dtype == torch.float32 and x.shape == (4, 3, 32, 32)
    assert torch.allclose(x, expected, atol=1e-5)
    assert x.is_contiguous(memory_format=torch.channels_last) and not x.requires_grad
    smaller = BatchTransform(16, mean, std)(images)
    reference = F.interpolate(images.permute(0, 3, 1, 2).float(), (16, 16), mode="bilinear", antialias=True) / 255
    reference = (reference - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert (smaller - reference).abs().max() < 1.01 / 255 / 0.22  # at most one grey level of rounding
    assert smaller.is_contiguous(memory_format=torch.channels_last)


def test_augmentation_is_chance_from_the_generator_alone():
    images = torch.randint(0, 256, (5, 40, 40, 3), dtype=torch.uint8)
    transform = BatchTransform(32, HALF, HALF, Augmentation())
    draw = lambda seed: transform(images, torch.Generator().manual_seed(seed))
    torch.manual_seed(0)
    first = draw(3)
    torch.manual_seed(1)
    assert torch.equal(first, draw(3)) and not torch.equal(first, draw(4))


def test_augmentation_off_is_the_plain_picture():
    off = Augmentation(horizontal_flip=False, rotate=0, zoom=1, warp=0, min_scale=1, max_ratio=1, brightness=0,
                       contrast=0)
    images = torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8)
    with_off, without = BatchTransform(32, HALF, HALF, off), BatchTransform(32, HALF, HALF)
    assert torch.allclose(with_off(images), without(images), atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_draws_stay_in_their_ranges(seed):
    a = Augmentation(rotate=20, zoom=1.5, warp=0, min_scale=0.3)
    draws = torch.rand(64, data.NUM_DRAWS, generator=torch.Generator().manual_seed(seed))
    matrices = data.draw_matrices(draws, a)
    area = torch.linalg.det(matrices[:, :2, :2]).abs()
    assert (area >= 0.3 / 1.5**2 - 1e-5).all() and (area <= 1 + 1e-5).all()
    gain, offset = data.draw_lighting(draws, a)
    assert (gain <= 1.2 + 1e-5).all() and (gain >= 1 / 1.2 - 1e-5).all()
    assert ((gain * 0.5 + offset - 0.5).abs() <= 0.1 + 1e-5).all()  # mid-grey moves by the brightness alone
    crop_only = data.draw_matrices(draws, Augmentation(rotate=0, zoom=1, warp=0, min_scale=0.1, horizontal_flip=False))
    corners = crop_only @ torch.tensor([[-1.0, 1], [-1, 1], [1, 1]])
    assert corners[:, :2].abs().max() <= 1 + 1e-5  # a crop never leaves the picture


def test_shrinking_a_lot_averages_first():
    """One-pixel stripes, shrunk four times, are grey; four-pixel interpolation alone would keep stripes."""
    stripes = (torch.arange(256) % 2 * 255).to(torch.uint8).expand(1, 3, 256, 256)
    shrunk = warp_images(stripes, torch.eye(3)[None], 64)
    assert shrunk[..., 4:-4, 4:-4].std() < 15 and abs(shrunk.mean().item() - 127.5) < 2


def test_augmentation_checks_its_ranges():
    changes = {"rotate": -1, "zoom": 0.5, "warp": 0.9, "min_scale": 0, "probability": 2, "contrast": -1}
    for name, value in changes.items():
        with pytest.raises(ValueError, match=f"{name} = {value} must lie"):
            Augmentation(**{name: value})


def test_solar_cells_are_flipped_both_ways_and_pets_are_not():
    items = fake_items({"a": 2, "b": 2})
    assert data.default_augmentation(replace(items, info=DATASETS["elpv"])).vertical_flip
    assert not data.default_augmentation(replace(items, info=DATASETS["pets"])).vertical_flip
    assert data.default_augmentation(items) == Augmentation()


# ---------------------------------------------------------------- loaders

def number_images(count: int) -> np.ndarray:
    """Images whose first pixel is their number."""
    images = np.zeros((count, 8, 8, 3), np.uint8)
    images[:, :, :, :] = np.arange(count, dtype=np.uint8)[:, None, None, None]
    return images


def plain(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return images.permute(0, 3, 1, 2).float()


def loader_of(count: int = 20, **changes) -> ImageLoader:
    options = dict(batch_size=6, shuffle=False, seed=1) | changes
    rows = options.pop("indices", np.arange(count))
    return ImageLoader(number_images(count), np.arange(count) % 3, rows, options.pop("transform", plain), **options)


def seen(loader: ImageLoader) -> list[int]:
    return [int(v) for x, _ in loader for v in x[:, 0, 0, 0]]


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_loader_gives_each_image_once_with_its_target(prefetch):
    loader = loader_of(20, prefetch=prefetch)
    batches = list(loader)
    assert len(batches) == len(loader) == 4 and [len(x) for x, _ in batches] == [6, 6, 6, 2]
    assert [int(v) for x, _ in batches for v in x[:, 0, 0, 0]] == list(range(20))
    for x, y in batches:
        assert y.dtype == torch.int64 and torch.equal(y, (x[:, 0, 0, 0].long() % 3))
    subset = loader_of(20, indices=np.array([3, 5, 17]), prefetch=prefetch)
    assert seen(subset) == [3, 5, 17]


def test_training_loader_drops_what_batch_norm_cannot_use():
    loader = loader_of(19, shuffle=True)  # 6 + 6 + 6 + 1
    assert [len(x) for x, _ in loader] == [6, 6, 6] and len(loader) == 3
    assert [len(x) for x, _ in loader_of(19, shuffle=True, drop_last=False)] == [6, 6, 6, 1]
    assert [len(x) for x, _ in loader_of(4, shuffle=True)] == [4]  # the only batch stays
    assert len(loader_of(18, shuffle=True)) == len(loader_of(18)) == 3


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), epoch=st.integers(0, 50), prefetch=st.integers(0, 2))
def test_an_epoch_can_be_replayed(seed, epoch, prefetch):
    transform = BatchTransform(8, HALF, HALF, Augmentation())
    loader = loader_of(13, shuffle=True, seed=seed, transform=transform, drop_last=False, prefetch=prefetch)
    loader.epoch = epoch
    first = list(loader)
    assert loader.epoch == epoch + 1
    second = list(loader)
    loader.epoch = epoch
    again = list(loader)
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a[0], b[0]) for a, b in zip(first, second, strict=True))
    fresh = loader_of(13, shuffle=True, seed=seed, transform=transform, drop_last=False, prefetch=0, epoch=epoch)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, fresh, strict=True))  # also in another process


def test_shuffling_visits_all_and_differs_each_epoch():
    loader = loader_of(50, shuffle=True, drop_last=False)
    first, second = seen(loader), seen(loader)
    assert sorted(first) == sorted(second) == list(range(50)) and first != second != list(range(50))


def threads_now() -> int:
    return threading.active_count()


def test_leaving_early_ends_the_thread():
    before = threads_now()
    for _ in loader_of(200, prefetch=3):
        break
    iterator = iter(loader_of(200, prefetch=2))
    next(iterator)
    iterator.close()
    assert threads_now() == before


def test_an_error_in_the_thread_reaches_the_loop():
    def broken(images, generator):
        if int(images[0, 0, 0, 0]) >= 12:
            raise RuntimeError("batch three is broken")
        return plain(images, generator)

    before, got = threads_now(), []
    with pytest.raises(RuntimeError, match="batch three is broken"):
        for x, _ in loader_of(20, transform=broken):
            got.append(len(x))
    assert got == [6, 6] and threads_now() == before


def test_prefetching_works_while_the_consumer_does():
    slow = lambda images, generator: (time.sleep(0.03), plain(images, generator))[1]

    def duration(prefetch: int) -> float:
        start = time.perf_counter()
        for _ in loader_of(60, transform=slow, prefetch=prefetch):
            time.sleep(0.03)
        return time.perf_counter() - start

    assert duration(1) < 0.8 * duration(0)


def test_prefetching_leaves_the_number_of_threads_alone():
    before = torch.get_num_threads()
    inside = []
    probe = lambda images, generator: (inside.append(torch.get_num_threads()), plain(images, generator))[1]
    list(loader_of(20, transform=probe, prefetch=1))
    assert set(inside) == {1} and torch.get_num_threads() == before


def test_an_iterator_that_is_held_does_not_keep_the_process_alive():
    code = textwrap.dedent("""
        import numpy as np
        from course_lib.data import ImageLoader
        images = np.zeros((100, 4, 4, 3), np.uint8)
        held = iter(ImageLoader(images, np.arange(100), np.arange(100), lambda x, g: x, 2, prefetch=4))
        next(held)
        print("end")
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.strip() == "end" and done.stderr == ""


@pytest.mark.parametrize("change, message", [
    ({"batch_size": 0}, "batch_size must be a whole number of at least 1, not 0"),
    ({"batch_size": 2.5}, "batch_size"), ({"prefetch": -1}, "prefetch"), ({"epoch": -1}, "epoch"),
    ({"indices": np.array([], dtype=np.int64)}, "no images in this set"),
])
def test_loader_refuses_nonsense(change, message):
    with pytest.raises(ValueError, match=message):
        loader_of(20, **change)
    with pytest.raises(ValueError, match="20 images but 19 targets"):
        ImageLoader(number_images(20), np.arange(19), np.arange(3), plain)


def test_make_loaders(tmp_path):
    items = items_from_folders(folder_of(tmp_path / "in", {"a": 12, "b": 20}))
    presized = presize(items, 20, tmp_path / "cache", progress=False)
    loaders = make_loaders(presized, image_size=16, batch_size=4, mean=HALF, std=HALF)
    assert loaders.classes == loaders.train.classes == ("a", "b")
    assert len(loaders.train.indices) == 24 and len(loaders.valid.indices) == 8
    assert not set(loaders.train.indices) & set(loaders.valid.indices)
    x, y = next(iter(loaders.train))
    assert x.shape == (4, 3, 16, 16) and y.shape == (4,) and loaders.train.shuffle
    assert loaders.train.transform.augmentation and loaders.valid.transform.augmentation is None
    first, second = list(loaders.valid), list(loaders.valid)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, second, strict=True))  # validation has no chance in it
    assert make_loaders(presized, image_size=16, batch_size=4, mean=HALF, std=HALF,
                        augmentation=None).train.transform.augmentation is None
    with pytest.raises(ValueError, match="augmentation = 'strong'"):
        make_loaders(presized, image_size=16, batch_size=4, mean=HALF, std=HALF, augmentation="strong")
    with pytest.raises(ValueError, match="batch_size"):
        make_loaders(presized, image_size=16, batch_size=0, mean=HALF, std=HALF)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_gives_the_same_batches():
    make = lambda device: loader_of(20, shuffle=True, device=device,
                                    transform=BatchTransform(8, HALF, HALF, Augmentation()))
    for (a, y), (b, z) in zip(make("cpu"), make("cuda"), strict=True):
        assert b.is_cuda and b.is_contiguous(memory_format=torch.channels_last)
        assert torch.allclose(a, b.cpu(), atol=2e-3) and torch.equal(y, z.cpu())


# ---------------------------------------------------------------- looking

def test_plots_return_axes(tmp_path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    items = items_from_folders(folder_of(tmp_path / "in", {"a": 4, "b": 6}))
    presized = presize(items, 20, tmp_path / "cache", progress=False)
    loaders = make_loaders(presized, image_size=16, batch_size=4, mean=HALF, std=HALF)
    ax = data.show_batch(loaders.train)
    assert len(ax.images) == 4 and {text.get_text() for text in ax.texts} <= {"a", "b"} and loaders.train.epoch == 0
    mine = plt.subplots()[1]
    assert data.show_batch(next(iter(loaders.valid)), ax=mine, rows=1, columns=2) is mine and len(mine.images) == 2
    train, valid = split_items(items)
    ax = data.plot_class_counts(items, {"training": train, "validation": valid})
    assert ax.get_xlabel() == "images" and sum(patch.get_width() for patch in ax.patches) == 10
    plt.close("all")


def test_a_batch_of_unknown_normalisation_is_shown_from_black_to_white():
    x = torch.stack([torch.full((3, 8, 8), value) for value in (-2.0, 0.0, 6.0)])
    ax = data.show_batch((x, torch.tensor([0, 1, 0])), rows=1, columns=3)
    means = [float(np.asarray(image.get_array()).mean()) for image in ax.images]
    means = [mean / 255 if max(means) > 1 else mean for mean in means]
    assert np.allclose(means, [0, 0.25, 1], atol=0.01)



def test_image_sizes(tmp_path):
    root = folder_of(tmp_path, {"a": 2})
    picture(1, 100, 50).save(root / "a" / "wide.png")
    (root / "a" / "zz.png").write_bytes(b"no image")
    items = items_from_folders(root)
    assert data.image_sizes(items).tolist() == [[40, 30], [40, 30], [100, 50], [0, 0]]
    statistics = data.image_size_statistics(items)
    assert statistics["width"] == {"min": 40, "median": 40, "max": 100}
    assert statistics["aspect ratio"]["max"] == 2
    with pytest.raises(ValueError, match="None of the 1 files"):
        data.image_size_statistics(items.subset([3]))


# ---------------------------------------------------------------- getting data sets

class Server(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    """Serves the folder `tmp_path/www`; gives its path and address."""
    folder = tmp_path / "www"
    folder.mkdir()
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, directory=str(folder)))
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield folder, f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def tar_of(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def zip_of(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def jpeg(number: int) -> bytes:
    buffer = io.BytesIO()
    picture(number).save(buffer, "JPEG")
    return buffer.getvalue()


def offer(monkeypatch, name: str, address: str, archives: list[Path]) -> None:
    """Let the data set `name` come from our own server."""
    md5 = [hashlib.md5(path.read_bytes()).hexdigest() for path in archives]
    pairs = tuple((f"{address}/{path.name}", f"md5:{digest}") for path, digest in zip(archives, md5, strict=True))
    monkeypatch.setitem(DATASETS, name, replace(DATASETS[name], archives=pairs))


def pets_archives(folder: Path) -> list[Path]:
    ids = [*(f"Abyssinian_{i}" for i in (1, 2, 3)), *(f"great_pyrenees_{i}" for i in (10, 11, 12))]
    images = tar_of(folder / "images.tar.gz", {f"images/{name}.jpg": jpeg(i) for i, name in enumerate(ids)}
                    | {"images/Abyssinian_1.mat": b"not a picture"})
    line = lambda name: f"{name} 1 1 1\n"
    notes = tar_of(folder / "annotations.tar.gz", {
        "annotations/trainval.txt": "".join(line(n) for n in (*ids[:2], *ids[3:5])).encode(),
        "annotations/test.txt": (line(ids[2]) + line(ids[5])).encode(), "annotations/README": b"about"})
    return [images, notes]


def test_pets_from_download_to_split(tmp_path, monkeypatch, server, capsys):
    folder, address = server
    offer(monkeypatch, "pets", address, pets_archives(folder))
    items = get_items("pets", tmp_path / "data")
    assert "Parkhi" in capsys.readouterr().out
    assert items.classes == ("Abyssinian", "great_pyrenees") and len(items) == 6
    train, valid = split_items(items)
    assert [items.names[i] for i in valid] == ["images/Abyssinian_3.jpg", "images/great_pyrenees_12.jpg"]
    assert len(train) == 4
    assert (tmp_path / "data" / "oxford-iiit-pet" / "images").is_dir()  # where torchvision looks as well
    assert not list((tmp_path / "data").rglob("*.tar.gz")) and not list((tmp_path / "data").glob("*.partial"))
    monkeypatch.setitem(DATASETS, "pets", replace(DATASETS["pets"], archives=()))
    assert get_items("pets", tmp_path / "data", announce=False).names == items.names  # no second download
    assert get_items(tmp_path / "data" / "oxford-iiit-pet", announce=False).names == items.names
    by_torchvision = pytest.importorskip("torchvision").datasets.OxfordIIITPet(tmp_path / "data", "test")
    assert [Path(p).name for p in by_torchvision._images] == [Path(items.names[i]).name for i in valid]


def test_half_a_pets_folder_is_used_as_far_as_it_goes(tmp_path):
    folder = tmp_path / "data" / "oxford-iiit-pet"
    (tmp_path / "www").mkdir()
    for archive in pets_archives(tmp_path / "www"):
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data") if hasattr(tarfile, "data_filter") else tar.extractall(folder)
    (folder / "images" / "Abyssinian_2.jpg").unlink()
    with pytest.warns(UserWarning, match="1 of 6 images listed in the annotations are missing"):
        items = get_items("pets", tmp_path / "data", announce=False)
    assert len(items) == 5 and len(split_items(items)[0]) == 3
    shutil.rmtree(folder / "annotations")
    items = get_items("pets", tmp_path / "data", announce=False)
    assert items.splits is None and items.class_counts() == {"Abyssinian": 2, "great_pyrenees": 3}


def test_hotdog_from_download_to_split(tmp_path, monkeypatch, server):
    folder, address = server
    kinds = ("hotdog", "not-hotdog")
    files = {f"hotdog/{part}/{kind}/{i}.png": jpeg(i) for part in ("train", "test") for kind in kinds for i in range(3)}
    offer(monkeypatch, "hotdog", address, [zip_of(folder / "hotdog.zip", files)])
    items = get_items("hotdog", tmp_path / "data", announce=False)
    assert items.classes == ("hotdog", "not-hotdog") and len(items) == 12
    train, valid = split_items(items)
    assert len(train) == len(valid) == 6 and all(items.names[i].startswith("test/") for i in valid)


def test_birds_from_download_to_split(tmp_path, monkeypatch, server):
    folder, address = server
    names = [f"{c:03}.{kind}/{kind}_{i}.jpg" for c, kind in ((1, "Albatross"), (2, "Auklet")) for i in range(4)]
    files = {f"CUB_200_2011/images/{name}": jpeg(i) for i, name in enumerate(names)}
    files["CUB_200_2011/images.txt"] = "".join(f"{i} {name}\n" for i, name in enumerate(names, 1)).encode()
    files["CUB_200_2011/train_test_split.txt"] = "".join(f"{i} {i % 2}\n" for i in range(1, 9)).encode()
    files["attributes.txt"] = b"beside the folder"
    offer(monkeypatch, "birds", address, [tar_of(folder / "CUB_200_2011.tgz", files)])
    items = get_items("birds", tmp_path / "data", announce=False)
    assert items.classes == ("Albatross", "Auklet") and len(items) == 8
    train, valid = split_items(items)
    assert [Path(items.names[i]).stem for i in valid] == ["Albatross_1", "Albatross_3", "Auklet_1", "Auklet_3"]
    assert get_items(items.root, announce=False).names == items.names  # recognised by its files


@pytest.mark.parametrize("fault", ["checksum", "second missing", "evil", "incomplete"])
def test_a_download_that_fails_leaves_nothing_that_looks_whole(tmp_path, monkeypatch, server, fault):
    folder, address = server
    archives = pets_archives(folder)
    if fault == "evil":
        tar_of(archives[1], {"../escaped.txt": b"x", "annotations/trainval.txt": b""})
    if fault == "incomplete":
        tar_of(archives[0], {"pictures/x.jpg": b"x"})
    offer(monkeypatch, "pets", address, archives)
    if fault == "checksum":
        archives[1].write_bytes(b"something else")
    if fault == "second missing":
        archives[1].unlink()
    with pytest.raises((OSError, ValueError)):
        get_items("pets", tmp_path / "data")
    assert not (tmp_path / "data" / "oxford-iiit-pet").exists() and not (tmp_path / "escaped.txt").exists()
    assert not list(tmp_path.rglob("escaped.txt"))
    offer(monkeypatch, "pets", address, pets_archives(folder))
    assert len(get_items("pets", tmp_path / "data", announce=False)) == 6  # the next try succeeds


def test_a_folder_in_the_way_is_not_deleted(tmp_path, monkeypatch, server):
    folder, address = server
    offer(monkeypatch, "pets", address, pets_archives(folder))
    mine = tmp_path / "data" / "oxford-iiit-pet" / "my notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("do not delete")
    with pytest.raises(FileExistsError, match="not the data set 'pets'.*Move it away"):
        get_items("pets", tmp_path / "data")
    assert mine.read_text() == "do not delete"


def test_two_threads_get_one_data_set(tmp_path, monkeypatch, server):
    folder, address = server
    offer(monkeypatch, "pets", address, pets_archives(folder))
    get = lambda _: get_items("pets", tmp_path / "data", announce=False)
    got = list(data.map_ahead(get, range(3), workers=3, ahead=3))
    assert len({items.names for items in got}) == 1


@pytest.mark.skipif(not PETS_SAMPLE.is_dir(), reason="the sample of the pets data set is not here")
def test_real_photos(tmp_path):
    items = get_items(PETS_SAMPLE, announce=False)
    assert len(items) == 296 and len(items.classes) == 37 and set(items.class_counts().values()) == {8}
    train, valid = split_items(items)
    assert len(train) == 222 and len(valid) == 74
    few = limit_items(items, 37)
    presized = presize(few, 96, tmp_path / "cache", progress=False)
    assert len(presized) == 37 and presized.skipped == ()
    by_torchvision = pytest.importorskip("torchvision").datasets.OxfordIIITPet(PETS_SAMPLE.parent, "test")
    assert sorted(Path(p).stem for p in by_torchvision._images) == sorted(Path(items.names[i]).stem for i in valid)
    image = np.asarray(Image.open(few.path(0)).convert("RGB").resize((96, 96), box=(0, 0, 10, 10)))
    assert image.shape == presized.images[0].shape


def test_json_note_is_small_and_plain(tmp_path):
    items = items_from_folders(folder_of(tmp_path / "in", {"a": 2, "b": 2}))
    presized = presize(items, 16, tmp_path / "c", progress=False)
    note = json.loads((presized.folder / "cache.json").read_text())
    assert note == {"count": 4, "skipped": [], "version": data.CACHE_VERSION}


def test_the_answers_to_the_lessons_exercises():
    items = items_from_pattern(Path("x"), r"^[\d-]+_(.+)_\d+.png$", names=["2024-05-01_dark_roast_0007.png"])
    assert items.classes == ("dark_roast",)
    items = items_from_pattern(Path("x"), r"(.+)_\d+.png$", names=["2024-05-01_dark_roast_0007.png"])
    assert items.classes == ("2024-05-01_dark_roast",)
    assert 0.75 ** 0.5 * 258 < 224 <= 0.75 ** 0.5 * 259
    once = BatchTransform(8, HALF, HALF)(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 8, 8, 3))
    assert torch.allclose((once[:, 0, 0, 0] - 0.5) / 0.5, torch.tensor([-3.0, 1.0]))
