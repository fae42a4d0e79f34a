"""Files of any bytes, errors of any number: the text that was meant, or an error that names the path."""

import codecs
import errno
import os
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from course_lib.core.files import (
    LockedError,
    StorageError,
    append_line,
    disk_errors,
    lock,
    new_run_folder,
    read_text,
    replacing,
    write_text,
)

some = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\ufeff"))


@some
@given(TEXT, st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_a_text_is_read_in_any_unicode(tmp_path, text, encoding):
    path = tmp_path / "settings.ini"
    path.write_bytes(text.encode(encoding))
    assert read_text(path) == read_text(str(path)) == text
    write_text(path, text)
    assert path.read_bytes() == text.encode()


@some
@given(st.binary(max_size=30), st.sampled_from([b"", b"PK", codecs.BOM_UTF8, codecs.BOM_UTF16_LE, b"\0", b"\xff"]))
def test_bytes_are_text_or_the_path_is_named(tmp_path, data, start):
    path = tmp_path / "table.csv"
    path.write_bytes(start + data)
    try:
        found = read_text(path)
    except ValueError as error:
        assert "table.csv" in str(error) and "UTF-8" in str(error)
    else:
        assert "\0" not in found and (
            found.encode() in start + data or (start + data)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


@settings(some, max_examples=20)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=5), max_size=4), TEXT)
def test_lines_are_added_whole_whatever_stood_before(tmp_path, lines, before):
    path = tmp_path / "log"
    path.write_text(before, encoding="utf-8", newline="")
    for line in lines:
        append_line(path, line)
    whole = [before.removesuffix("\n")] * bool(before) if lines else [before]
    assert path.read_bytes().decode() == ("\n".join([*whole, *lines, ""]) if lines else before)


@some
@given(st.sampled_from([OSError, PermissionError, FileNotFoundError, StorageError, ValueError, KeyboardInterrupt]),
       st.sampled_from([*errno.errorcode, None]))
def test_a_disks_error_names_the_place_and_others_pass(tmp_path, kind, number):
    path = tmp_path / "file"
    path.write_text("kept")
    error = kind(number, os.strerror(number)) if number and issubclass(kind, OSError) else kind("torn")
    with pytest.raises(StorageError if issubclass(kind, OSError) else kind) as caught:
        with disk_errors(path, "Saving"), replacing(path) as partial:
            partial.write_text("half")
            raise error
    if issubclass(kind, OSError) and kind is not StorageError:
        assert "Saving failed" in str(caught.value) and str(path) in str(caught.value)
        assert caught.value.__cause__ is error
    else:
        assert caught.value is error
    assert path.read_text() == "kept" and [one.name for one in tmp_path.iterdir()] == ["file"]


def test_one_at_a_time_and_who_waits_too_long_is_told(tmp_path):
    path, inside = tmp_path / "deep" / "lock", []

    def enter():
        with lock(path):
            inside.append("in")
            inside.append("out")

    with lock(path):
        with pytest.raises(LockedError, match="deep.lock was held by another program for 0 s"):
            with lock(path, seconds=0):
                inside.append("wrong")
    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inside == ["in", "out"] * 4


@some
@given(st.integers(1, 5))
def test_every_run_has_a_folder_of_its_own(tmp_path, count):
    there = set(tmp_path.iterdir())
    made = {new_run_folder(tmp_path) for _ in range(count)}
    assert len(made) == count and made.isdisjoint(there) and set(tmp_path.iterdir()) == there | made
