"""Single images, and the cache: faults of files, disks and processes."""
from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from pictures import folder_of, picture
from PIL import Image

from course_lib import data
from course_lib.data import BadImageError, StorageError, items_from_folders, load_image, presize, presizing


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


def test_cache_equals_load_image_and_is_found_again(tmp_path, monkeypatch):
    items = items_from_folders(folder_of(tmp_path / "in", {"a": 5, "b": 6}))
    presized = presize(items, 24, tmp_path / "cache", progress=False)
    assert presized.images.shape == (11, 24, 24, 3) and presized.size == 24 and presized.skipped == ()
    for i in range(11):
        assert np.array_equal(presized.images[i], load_image(items.path(i), 24))
    with pytest.raises(ValueError):
        presized.images[0] = 0  # mapped for reading
    monkeypatch.setattr(presizing, "load_image", None)  # a second call decodes nothing
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
    real, locked = presizing._file_digest, items.path(1)
    monkeypatch.setattr(presizing, "_file_digest", lambda path: presizing.UNREADABLE if path == locked else real(path))
    with pytest.warns(UserWarning, match="a/001.png: the file cannot be read"):
        assert len(presize(items, 16, tmp_path / "cache", progress=False)) == 3
    monkeypatch.undo()
    assert len(presize(items, 16, tmp_path / "cache", progress=False)) == 4


def test_a_disk_that_fails_loses_nothing(tmp_path, monkeypatch):
    """A read error is not the image's fault: stop, keep what is done, go on next time."""
    items = items_from_folders(folder_of(tmp_path / "in", {"a": 6, "b": 6}))
    whole = presize(items, 16, tmp_path / "whole", progress=False)
    real, decoded = load_image, []

    def failing(path, size, *mode):
        if path.name == "004.png" and path.parent.name == "b":
            raise OSError(errno.EIO, "Input/output error")
        return real(path, size, *mode)

    monkeypatch.setattr(presizing, "load_image", failing)
    with pytest.raises(OSError, match="Reading failed .*kept"):
        presize(items, 16, tmp_path / "cache", progress=False, workers=1)
    monkeypatch.setattr(presizing, "load_image", lambda *given: decoded.append(given[0]) or real(*given))
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

    def failing(path, size, *mode):
        if path.name == "002.png" and path.parent.name == "b":
            raise OSError(errno.EIO, "Input/output error")
        return real(path, size, *mode)

    monkeypatch.setattr(presizing, "load_image", failing)
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
    from course_lib.data import presizing
    root, cache, delay = sys.argv[1], sys.argv[2], float(sys.argv[3])
    real = presizing.load_image
    presizing.load_image = lambda *given: (time.sleep(delay), real(*given))[1]
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


@pytest.mark.slow
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
    monkeypatch.setattr(presizing, "load_image", lambda *given: decoded.append(given[0]) or real(*given))
    with pytest.warns(UserWarning, match="a/001.png"):
        again = presize(items, 24, tmp_path / "cache", progress=False)
    assert again.images.tobytes() == whole.images.tobytes() and again.skipped == whole.skipped
    assert len(decoded) == 60 - kept - 1  # none twice


@pytest.mark.slow
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
    real, calls = presizing._append, []

    def full(file, block):
        calls.append(1)
        if len(calls) > 4:
            file.write(memoryview(block).cast("B")[:100])  # a full disk often takes a part
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file, block)

    monkeypatch.setattr(presizing, "_append", full)
    with pytest.raises(StorageError, match="no room left for .*cache.*data_dir.*kept"):
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
    monkeypatch.setattr(presizing, "_check_free_space", lambda *_: None)  # as if another program had taken it since
    with pytest.raises(StorageError, match="no room left.*data_dir"):
        presize(items, 64, disk / "cache", progress=False)
    rows = (partial_of(disk / "cache") / "images.bin").stat().st_size // (64 * 64 * 3)
    assert rows > 2
    subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
    decoded, real = [], load_image
    monkeypatch.setattr(presizing, "load_image", lambda *given: decoded.append(given[0]) or real(*given))
    assert len(presize(items, 64, disk / "cache", progress=False)) == 20 and len(decoded) == 20 - rows


def test_a_read_only_data_folder(tmp_path, mounted):
    items = items_from_folders(folder_of(tmp_path / "in", {"a": 2, "b": 2}))
    disk = mounted("size=1m")
    ready = presize(items, 16, disk / "cache", progress=False)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert np.array_equal(presize(items, 16, disk / "cache").images, ready.images)  # what is there can be used
    with pytest.raises(StorageError, match="may not be read or written.*data_dir"):
        presize(items, 17, disk / "cache", progress=False)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path):
    items = items_from_folders(folder_of(tmp_path / "in", {"a": 2, "b": 2}))
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(StorageError, match="may not be read or written.*data_dir"):
        presize(items, 16, tmp_path / "locked" / "cache", progress=False)


def test_a_data_folder_that_is_a_file(tmp_path):
    items = items_from_folders(folder_of(tmp_path / "in", {"a": 2, "b": 2}))
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="cannot be written.*data_dir"):
        presize(items, 16, tmp_path / "file" / "cache", progress=False)


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


def test_json_note_is_small_and_plain(tmp_path):
    items = items_from_folders(folder_of(tmp_path / "in", {"a": 2, "b": 2}))
    presized = presize(items, 16, tmp_path / "c", progress=False)
    note = json.loads((presized.folder / "cache.json").read_text())
    assert note == {"count": 4, "skipped": [], "version": presizing.CACHE_VERSION}
