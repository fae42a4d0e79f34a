"""Tables as people save them: read right, or refused with the row."""
from __future__ import annotations

import csv
import unicodedata
import warnings
from pathlib import Path

import pytest
from pictures import folder_of, picture

from course_lib.data import items_from_table

NFC, NFD = (unicodedata.normalize(form, "cafe\u0301") for form in ("NFC", "NFD"))


def numbered(root: Path, count: int = 4) -> Path:
    """`0.png` to `3.png`, and where the table goes."""
    for i in range(count):
        picture(i).save(root / f"{i}.png")
    return root / "labels.csv"


def silent(call):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return call()


def labels_of(root: Path, text: str | bytes, *columns, **options) -> tuple[str, ...]:
    table = numbered(root)
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    items = silent(lambda: items_from_table(root, table, *columns, **options))
    assert items.names == ("0.png", "1.png", "2.png", "3.png")
    return items.labels


KINDS = ("café", "dog", "café", "dog")
ROWS = "".join(f"{i}.png,{kind}\n" for i, kind in enumerate(KINDS))


@pytest.mark.parametrize("text, options", [
    (ROWS, {}), (ROWS.replace("\n", "\r\n"), {}), (ROWS.replace("\n", "\r"), {}), (ROWS.rstrip("\n"), {}),
    (ROWS.replace(",", " , "), {}), (ROWS.replace("\n", " \n\n"), {}), (ROWS + ",,\n , \n", {}),  # fastai/fastai#937
    (ROWS.replace(",", ", ").replace("dog", '"dog"'), {}), (ROWS.replace(",", ";"), {"delimiter": ";"}),
    (ROWS.replace(",", "\t"), {"delimiter": "\t"}), (ROWS.replace(",", "\t"), {"delimiter": None}),
    (ROWS.encode("utf-8-sig"), {}), (ROWS.encode("utf-16"), {}), (b"\xfe\xff" + ROWS.encode("utf-16-be"), {}),
    (ROWS.replace(NFC, NFD), {}), (ROWS.replace(".png", ""), {}), (ROWS.replace(".png", ".PNG"), {}),
    (ROWS.replace("0.png", "./0.png").replace("1.png", ".\\1.png"), {}), (ROWS.replace(NFC, NFD, 1), {}),
    (ROWS, {"classes": ("dog", NFD)})])
def test_a_table_that_can_be_meant_in_one_way_only(tmp_path, text, options):
    assert labels_of(tmp_path, text, **options) == KINDS


@pytest.mark.parametrize("head, columns", [
    ("file,kind", ("file", "kind")), ("file , kind", ("file", "kind")), ('"file","kind"', ("file", "kind")),
    ("file,kind,note", ("file", "kind")), ("file,kind,a,a", ("file", "kind"))])
def test_titles(tmp_path, head, columns):
    assert labels_of(tmp_path, f"{head}\n{ROWS}", *columns) == KINDS
    assert labels_of(tmp_path, f"\ufeff{head}\n{ROWS}", columns[0], lambda row: row["kind"]) == KINDS


@pytest.mark.filterwarnings("ignore:[0-9]+ (of [0-9]+ )?images:UserWarning")
@pytest.mark.parametrize("text, message", [
    ("0.png,cat\n1.png,\n", "1 row without a name or a label: row 2"), ("0.png,cat\n1.png,nan\n", "row 2"),
    ("0.png,cat\n\n1.png, NaN \n", "row 3"), ("0.png,cat\n,dog\n", "row 2"), ("0.png,cat\n1.png,<NA>\n", "row 2"),
    ("0.png,cat\n1.png,#N/A\n", "row 2"), ("0.png,cat\n1.png,hot dog, big\n", r"row 2 has 3 columns.*quotation marks"),
    ("0.png;cat\n1.png;dog\n", "row 1.*delimiter=';'"), ("0.png\tcat\n1.png\tdog\n", r"row 1.*delimiter='\\t'"),
    ('0.png,"cat\n1.png,dog\n2.png,dog\n', "Is a quotation mark missing"), ("0.png,cat\n1.png\n", "row 2"),
    ("0.png,cat\n0.png,dog\n", r"'0.png' \(as 'cat', 'dog'\)"), ("0.png,cat\n0,cat\n", "more than once: '0.png'"),
    ("", "has no rows"), (" \n,\n", "has no rows"), (b"0.png,cat\n" + b"\0", "zero bytes"),
    ("0.png,caf\xe9\n".encode("cp1252"), "labels.csv cannot be read: byte 9.*CSV UTF-8"),  # isic-challenge-scoring#72
    ("0.png,cat\n".encode("utf-16")[2:], "labels.csv cannot be read: it has zero bytes"),
    (b"PK\3\4\xff", "it is no text file.*Excel"), ("0.png;0,5\n1.png;0,7\n", "delimiter=';'")])
def test_a_table_that_cannot_be_meant(tmp_path, text, message):
    table = numbered(tmp_path)
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        items_from_table(tmp_path, table)


@pytest.mark.filterwarnings("ignore:1 of 5 images listed:UserWarning")
@pytest.mark.filterwarnings("ignore:No image is there of:UserWarning")
@pytest.mark.parametrize("columns, options, message", [
    (("file", 1), {}, "name_column = 'file' and label = 1"), ((0, "kind"), {}, "two numbers, or two titles"),
    (("name", "kind"), {}, r"no columns with the title 'name'; its first row is \['file', 'kind'\]"),
    ((0.5, 1), {}, "name_column = 0.5"), ((True, 1), {}, "name_column"), ((0, None), {}, "label = None"),
    ((0, 1), {"delimiter": ""}, "delimiter = ''"), ((0, 1), {"delimiter": ", "}, "delimiter"),
    ((0, 1), {"delimiter": 5}, "delimiter = 5"), ((0, 1), {"classes": "ab"}, "classes = 'ab'"), ((0, 7), {}, "row 1"),
    (("file", lambda row: 1 / 0), {}, "row 2.*ZeroDivisionError"), (("file", lambda row: None), {}, "row 2"),
    (("file", lambda row: float("nan")), {}, "without a name or a label: row 2, 3, 4, 5")])
def test_columns_that_are_none(tmp_path, columns, options, message):
    table = numbered(tmp_path)
    table.write_text(f"file,kind\n{ROWS}", encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        items_from_table(tmp_path, table, *columns, **options)


def test_labels_that_are_numbers(tmp_path):
    table = numbered(tmp_path)
    table.write_text("0.png,1\n1.png,01\n2.png,2\n3.png,1.0\n")
    with pytest.warns(UserWarning, match="'01', '1', '1.0' differ in their spelling alone.* for 3 classes"):
        assert items_from_table(tmp_path, table).classes == ("01", "1", "1.0", "2")


def test_names_in_another_form_than_the_files(tmp_path):
    root = folder_of(tmp_path / "in", {NFD: 2, "tee": 2})
    table = root / "t.csv"
    table.write_text(f"{NFC}\\000.png,a\n{NFC}/001,b\nTee/000.PNG,a\ntee/001,b\n", encoding="utf-8")
    items = silent(lambda: items_from_table(root, table))
    assert items.names == (f"{NFD}/000.png", f"{NFD}/001.png", "tee/000.png", "tee/001.png")
    assert items.labels == ("a", "b", "a", "b") and all(items.path(i).is_file() for i in range(4))


def test_a_name_that_two_files_have(tmp_path):
    table = numbered(tmp_path)
    picture(9).save(tmp_path / "0.jpg")
    table.write_text("0,cat\n1.png,dog\n")
    with pytest.warns(UserWarning, match="1 of 2 images listed in labels.csv are missing: '0'"), \
            pytest.warns(UserWarning, match="No image is there of 1 class of labels.csv: 'cat'"):
        assert items_from_table(tmp_path, table).labels == ("dog",)


def test_a_table_of_some_of_the_files(tmp_path):
    table = numbered(tmp_path)
    folder_of(tmp_path, {"another folder": 5})
    table.write_text("0.png,cat\n1.png,dog\n2.png,dog\n")
    assert silent(lambda: items_from_table(tmp_path, table)).names == ("0.png", "1.png", "2.png")


def test_no_table(tmp_path):
    numbered(tmp_path)
    for table, kind in ((tmp_path / "no.csv", FileNotFoundError), (tmp_path, FileNotFoundError), (None, ValueError)):
        with pytest.raises(kind, match="table"):
            items_from_table(tmp_path, table)
    (tmp_path / "labels.csv").write_text("0.png,x\n")
    with pytest.raises(FileNotFoundError, match="The folder .* does not exist"):
        items_from_table(tmp_path / "nowhere", tmp_path / "labels.csv")
    (tmp_path / "labels.csv").write_text("0.png,a\n" + "x" * (csv.field_size_limit() + 9) + ",b\n")
    with pytest.raises(ValueError, match="row 2"):
        items_from_table(tmp_path, tmp_path / "labels.csv")


def test_a_table_in_quotation_marks(tmp_path):  # NVlabs/stylegan2-ada-pytorch#183
    table = numbered(tmp_path)
    table.write_text(ROWS, encoding="utf-8")
    with pytest.raises(FileNotFoundError, match="Leave the quotation marks out"):
        items_from_table(tmp_path, f'"{table}"')
    with pytest.raises(FileNotFoundError, match=r"no table .*absent\.csv\.$"):
        items_from_table(tmp_path, tmp_path / "absent.csv")
