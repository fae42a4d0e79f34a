"""settings.ini as people save it, and paths as they write them."""
from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from course_lib.data import DATASETS
from course_lib.settings import DATASET_NAMES, SettingsError, find_settings_file, load_settings


def settings_of(folder: Path, text: str | bytes, **environ: str):
    path = folder / "settings.ini"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_settings(path, environ)


TEXT = "; Über die Einstellungen\n[course]\nseed = 7\ndata_dir = Größen\n"


@pytest.mark.parametrize("text", [
    TEXT.encode("utf-8-sig"), TEXT.encode("utf-16"), b"\xfe\xff" + TEXT.encode("utf-16-be"), TEXT.encode(),
    TEXT.replace("\n", "\r\n").encode("utf-8-sig"), TEXT.replace("= 7", "=7   ").encode(),
    TEXT.replace("= 7", "= '7'").encode(), TEXT.replace("seed", "Seed").encode()])
def test_a_file_saved_by_any_editor(tmp_path, monkeypatch, text):  # python/cpython#116310
    settings = settings_of(tmp_path, text)
    assert settings.seed == 7 and settings.data_dir == (tmp_path / "Größen").resolve()
    (tmp_path / "nbs").mkdir()
    monkeypatch.chdir(tmp_path / "nbs")
    assert find_settings_file() == tmp_path.resolve() / "settings.ini" and load_settings(environ={}).seed == 7


@pytest.mark.parametrize("text, message", [
    (TEXT.encode("cp1252"), r"settings.ini.*no UTF-8.*Notepad"),
    (TEXT.encode("utf-16-le"), "cannot be read as settings"),
    ("[course]\ndata_dir = C:\\data\n", "backslashes"),
    ("[course]\nseed = 7\nseed = 8\n", "seed.*already exists"), ("[Course]\nseed = 7\n", r"no \[course\] section"),
    ("[course]\nseed = 7 ; mine\n", "seed = '7 ; mine'"), ("[course]\ndata_dir = data ; mine\n", "comment behind it"),
    ("[course]\ndataset = photos # mine\n", "comment behind it"),
    ("[course]\ndata_dir = data\n  seed = 7\n", "second line"),
    ("[course]\nseed 7\n", "cannot be read as settings"), ("[course]\ndata-dir = x\n", "Did you mean 'data_dir'")])
def test_a_file_that_cannot_be_meant(tmp_path, monkeypatch, text, message):
    with pytest.raises(SettingsError, match=message):
        settings_of(tmp_path, text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=message):  # and it is not passed over in silence
        load_settings(environ={})


@pytest.mark.parametrize("name", ["photos", "my photos", "Fotos Ä", "100% #1 ? & ;x", "a ; b", "a # b", "c%20d", "$x"])
def test_a_data_set_lies_where_its_file_says(tmp_path, monkeypatch, name):  # NVlabs/stylegan2-ada-pytorch#183
    (tmp_path / "project" / "more" / name).mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    place, there = tmp_path / "project", (tmp_path / "project" / "more" / name).resolve()
    for text in (f"more/{name}", f"'more/{name}'", f'"{there}"', f"“{there}”", f"./more/{name}  ", f"more\\{name}",
                 str(there)):
        assert settings_of(place, f"[course]\ndataset = {text}\n").dataset == str(there)
    (tmp_path / "elsewhere" / "late").mkdir(exist_ok=True)
    assert settings_of(place, "[course]\ndataset = ./late\n").dataset == str((place / "late").resolve())  # not there
    assert settings_of(place, f"[course]\ndata_dir = more/{name}/d\n").data_dir == there / "d"
    assert settings_of(place / "more", f"[course]\ndataset = {name}\n").dataset == str(there)
    monkeypatch.chdir(place)  # a variable and an argument are relative to where one is
    assert Path(load_settings(None, {"COURSE_DATASET": f"more\\{name}"}).dataset).resolve() == there
    assert load_settings(None, {}, dataset=f'"more/{name}"').dataset == f"more/{name}"  # no path of this machine in it


def test_home_and_variables_in_paths(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("PHOTOS", str(tmp_path / "photos"))
    for text in ("~/photos", "$PHOTOS", "${PHOTOS}", "$HOME/photos"):
        settings = settings_of(tmp_path, f"[course]\ndataset = {text}\ndata_dir = {text}/data\n")
        assert settings.dataset == str((tmp_path / "photos").resolve())
        assert settings.data_dir == (tmp_path / "photos" / "data").resolve()
    assert settings_of(tmp_path, "[course]\ndata_dir = ~nobody-of-that-name/x\n").data_dir.name == "x"


def test_names_of_data_sets_stay_names(tmp_path):
    assert set(DATASET_NAMES) == set(DATASETS)
    for name in DATASET_NAMES:
        (tmp_path / name).mkdir()
        assert settings_of(tmp_path, f"[course]\ndataset = {name}\n").dataset == name
    for text in ("https://example.org/photos.zip", "unknown"):  # what is wrong with them, get_items says
        assert settings_of(tmp_path, f"[course]\ndataset = {text}\n").dataset == text


def test_an_ordinary_file_says_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        settings = settings_of(tmp_path, "; comment\n[course]\n# another\ndataset = elpv\ndata_dir = data\nseed = 42\n")
    assert (settings.dataset, settings.data_dir, settings.seed) == ("elpv", (tmp_path / "data").resolve(), 42)
