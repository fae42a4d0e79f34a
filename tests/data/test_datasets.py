"""Data sets by name: found, fetched whole or not at all, and read."""
from __future__ import annotations

import functools
import hashlib
import http.server
import io
import os
import shutil
import tarfile
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pictures import folder_of, picture
from PIL import Image

from course_lib import data
from course_lib.data import DATASETS, get_items, limit_items, presize, split_items

PETS_SAMPLE = Path(os.environ.get("COURSELIB_SAMPLE_PETS",
                                  Path(__file__).parents[2] / "shared" / "data" / "oxford-iiit-pet"))


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
    with pytest.warns(UserWarning, match="'test' part"):  # 37 images keep none of it
        few = limit_items(items, 37)
    presized = presize(few, 96, tmp_path / "cache", progress=False)
    assert len(presized) == 37 and presized.skipped == ()
    by_torchvision = pytest.importorskip("torchvision").datasets.OxfordIIITPet(PETS_SAMPLE.parent, "test")
    assert sorted(Path(p).stem for p in by_torchvision._images) == sorted(Path(items.names[i]).stem for i in valid)
    image = np.asarray(Image.open(few.path(0)).convert("RGB").resize((96, 96), box=(0, 0, 10, 10)))
    assert image.shape == presized.images[0].shape
