"""Few photographs, few minutes, rare classes: what is summed up is what was measured, and nothing is tested twice."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib.teach import read_record, recorded_file

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def benchmarks(monkeypatch):
    for folder in ("benchmarks", "benchmarks/peers"):
        monkeypatch.syspath_prepend(str(ROOT / folder))
    import minutes
    import rare

    return minutes, rare


def lines(name):
    return [json.loads(line) for line in recorded_file(name).read_text(encoding="utf-8").splitlines()]


def test_the_summaries_are_those_of_the_rows(benchmarks):
    minutes, rare = benchmarks
    record, rows = read_record("minutes.json"), lines("minutes.jsonl")
    assert minutes.summary(rows) == {key: record[key] for key in ("what", "folders")}
    assert record["folders"].keys() == minutes.FOLDERS.keys()
    assert len({(row["folder"], row["way"], row["division"]) for row in rows}) == len(rows)
    record, rows = read_record("rare.json"), lines("rare.jsonl")
    assert rare.summary(rows) == {key: record[key] for key in ("what", "means")}
    assert len({(row["folder"], row["way"], row["seed"]) for row in rows}) == len(rows)
    for ways in record["means"].values():
        seeds = {found["seeds"] for found in ways.values()}
        assert ways.keys() == rare.WAYS.keys() and len(seeds) == 1 and seeds.pop() >= 2
        for found in ways.values():
            both = (found["error_of_the_rare"] + found["error_of_the_common"]) / 2
            assert abs(both - found["balanced_error"]) < 1e-3


def test_the_course_is_beside_the_others_what_the_lesson_says(benchmarks):
    """fastai works longer and errs more, logistic regression errs more, and a rare class is found more often."""
    folders = read_record("minutes.json")["folders"]
    for folder in folders.values():
        own = folder["ways"]["course, laptop"]
        for way, found in folder["ways"].items():
            if way.startswith("fastai"):
                assert found["error"] > own["error"] and found["processor_seconds"] > own["processor_seconds"]
        assert set(folder["minutes"]) == {"1", "4", "10"}
        for found in folder["minutes"].values():
            if found["sklearn"] and found["course"]:
                assert found["course"]["error"] <= found["sklearn"]["error"]
        ways = folder["ways"]
        for own, other in (("course, laptop", "Lite0"), ("course, tuned", "Lite2")):
            assert own not in ways or ways[own]["error"] < ways[f"logistic regression, {other}"]["error"]
    for found in folders["37 breeds, 6 each"]["minutes"].values():
        assert found["fastai"] is None or found["course"]["error"] < found["fastai"]["error"]
    coats, drawings, cells = (next(each["ways"] for name, each in folders.items() if word in name)
                              for word in ("coats", "drawing", "1,968"))
    assert coats["course, the last third"]["error"] > 4 * coats["course, laptop"]["error"]
    regression = "logistic regression, Lite0"
    assert drawings["course, laptop"]["interval"][1] < drawings[regression]["interval"][0]
    assert cells["course, laptop"]["error"] < cells[regression]["error"] - 0.03
    for ways in read_record("rare.json")["means"].values():
        errors = {way: found["balanced_error"] for way, found in ways.items()}
        assert errors["logit adjustment"] < min(0.75 * errors["plain"], min(errors.values()) + 0.01)


@pytest.fixture
def pets(tmp_path):
    """Two breeds of eight photographs, in the layout of the Oxford-IIIT Pets."""
    parts = {"trainval": [], "test": []}
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations").mkdir()
    for number, breed in enumerate(("Bengal", "boxer"), 1):
        for k in range(8):
            Image.new("RGB", (40, 40), (20 * k, 80 * number, 0)).save(tmp_path / "images" / f"{breed}_{k}.jpg")
            parts["test" if k in (2, 5) else "trainval"].append(f"{breed}_{k} {number} {2 - number % 2} 1")
    for name, some in parts.items():
        (tmp_path / "annotations" / f"{name}.txt").write_text("\n".join(some) + "\n")
    return tmp_path


def test_each_photograph_is_tested_once_a_round_and_never_learned_from(benchmarks, pets, tmp_path, monkeypatch):
    minutes, _ = benchmarks
    monkeypatch.setattr(minutes, "PETS", pets)
    folder = minutes.Folder(minutes.breeds, 6, 2, 1 / 2, rounds=2)
    for turn in range(2):
        parts = [sum(minutes.divide(folder, 4 * turn + block)[1].values(), []) for block in range(4)]
        assert len(set().union(*parts)) == sum(map(len, parts)) == 16
    own = {path.name for files in minutes.divide(folder, 0)[1].values() for path in files}
    assert own == {"Bengal_2.jpg", "Bengal_5.jpg", "boxer_2.jpg", "boxer_5.jpg"}  # the data set's own test part
    assert minutes.make_folder(tmp_path / "made", folder, 6) == 4
    found = {part: {path.name for path in (tmp_path / "made" / part).rglob("*.jpg")} for part in ("train", "valid")}
    assert len(found["valid"]) == 4 and not found["valid"] & found["train"]
    assert len(found["train"]) == 12 and len(list((tmp_path / "made" / "train").iterdir())) == 2
    quarter = minutes.Folder(minutes.breeds, None, None, 1 / 2)
    train, test = minutes.divide(quarter, 3)
    assert {len(files) for files in test.values()} == {2} and {len(files) for files in train.values()} == {6}


def test_the_kinds_of_coat_are_those_of_the_breeds(benchmarks, pets, monkeypatch):
    minutes, _ = benchmarks
    monkeypatch.setattr(minutes, "PETS", pets)
    found = {kind: {path.name.split("_")[0] for path in files} for kind, files in minutes.coats().items()}
    assert found == {"cat": {"Bengal"}, "dog with short hair": {"boxer"}, "dog with long hair": set()}


def test_the_trivial_error_of_the_cells_is_that_of_the_division(benchmarks):
    minutes, _ = benchmarks
    for name, folder in minutes.FOLDERS.items():
        if "cell" in name:
            tested = [len(files) for files in minutes.divide(folder, 0)[1].values()]
            assert abs(1 - max(tested) / sum(tested) - folder.trivial) < 5e-4


def test_what_took_longer_than_the_minutes_does_not_count(benchmarks):
    minutes, _ = benchmarks
    name = next(iter(minutes.FOLDERS))
    row = {"folder": name, "division": 0, "images": 74, "wrong": 10, "error": 10 / 74}
    rows = [row | {"way": "course, laptop", "processor_seconds": 50},
            row | {"way": "course, tuned", "processor_seconds": 200, "wrong": 5},
            row | {"way": "fastai, 1 epoch", "processor_seconds": 70, "wrong": 40}]
    reached = minutes.summary(rows)["folders"][name]["minutes"]
    assert reached["1"]["course"]["way"] == "course, laptop" and reached["1"]["fastai"] is None
    assert reached["4"]["course"] == {"way": "course, tuned", "error": round(5 / 74, 4)}
    assert reached["10"]["fastai"]["way"] == "fastai, 1 epoch" and reached["10"]["sklearn"] is None


def test_the_difference_is_that_of_the_same_divisions(benchmarks):
    minutes, _ = benchmarks
    name = next(iter(minutes.FOLDERS))
    wrong = {"course, laptop": (10, 12, 30), "logistic regression, Lite0": (12, 12)}
    rows = [{"folder": name, "way": way, "division": k, "images": 100, "wrong": some, "processor_seconds": 50}
            for way, each in wrong.items() for k, some in enumerate(each)]
    found = minutes.summary(rows)["folders"][name]["minutes"]["1"]["sklearn"]
    assert found["more_than_course"] == 0.01 and found["interval"][0] < 0 < found["interval"][1]


class Some:
    """A loader's rows, or a learner with a loss."""

    def __init__(self, **values):
        vars(self).update(values)


def test_the_ways_do_what_they_are_called(benchmarks):
    _, rare = benchmarks
    counts, logits = torch.tensor([2.0, 6.0]), torch.tensor([[0.3, -0.4], [1.0, 2.0], [0.0, 0.0]])
    y, learner = torch.tensor([0, 1, 1]), Some(loss_fn=None)
    each = torch.nn.functional.cross_entropy(logits, y, reduction="none", label_smoothing=0.1)
    rare.weights(None, learner, counts, 0.1)
    torch.testing.assert_close(learner.loss_fn(logits, y), (each * torch.tensor([2.0, 2 / 3, 2 / 3])).mean())
    rare.adjusted(None, learner, counts, 0.1)
    shifted = logits + torch.tensor([0.25, 0.75]).log()
    torch.testing.assert_close(learner.loss_fn(logits, y),
                               torch.nn.functional.cross_entropy(shifted, y, label_smoothing=0.1))
    loaders = Some(train=Some(indices=np.arange(1, 9), targets=np.array([0, 0, 0, 1, 1, 1, 1, 1, 1])))
    rare.sampled(loaders, counts)
    drawn = loaders.train.indices
    assert len(drawn) == 12 and set(drawn) == set(range(1, 9)) and sum(loaders.train.targets[drawn] == 0) == 6


def test_no_image_is_learned_from_and_tested(benchmarks, pets, tmp_path, monkeypatch):
    _, rare = benchmarks
    monkeypatch.setattr(rare, "PETS", pets)
    for seed in (1, 2):
        rare.make_folder(tmp_path / str(seed), rare.Folder(("cat", 2), ("dog", 5), 3), seed)
        names = {part: sorted(path.name for path in (tmp_path / str(seed) / part).rglob("*.jpg"))
                 for part in ("train", "valid")}
        assert len(names["train"]) == 7 and len(names["valid"]) == 6 and not set(names["train"]) & set(names["valid"])
        assert all((path.parent.name == "cat") == path.name.startswith("Bengal")
                   for path in (tmp_path / str(seed)).rglob("*.jpg"))


def test_logistic_regression_learns_from_files_what_can_be_told_apart(benchmarks, pets, tmp_path, monkeypatch):
    minutes, _ = benchmarks
    import with_sklearn
    from common import Job

    monkeypatch.setattr(minutes, "PETS", pets)
    minutes.make_folder(tmp_path / "made", minutes.Folder(minutes.breeds, 6, 2, 1 / 2), 0)
    found = with_sklearn.tune(Job(folder=str(tmp_path / "made"), size=64, stored=72))
    assert found["error"] == 0 and found["seconds"] > 0  # two breeds in two colours
    for path in (tmp_path / "made" / "valid" / "Bengal").iterdir():  # the other breed's, under a wrong name
        path.rename(path.parents[1] / "boxer" / path.name)
    (tmp_path / "made" / "valid" / "Bengal" / "x.jpg").write_bytes(
        next((tmp_path / "made" / "train" / "boxer").iterdir()).read_bytes())
    assert with_sklearn.tune(Job(folder=str(tmp_path / "made"), size=64, stored=72))["error"] == 3 / 5
