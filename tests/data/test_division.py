"""The test part: whole groups, the same on every machine, in files; and no division that uses it by accident."""
from __future__ import annotations

import csv
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import HALF, fake_items, folder_of

from course_lib.data import (
    ImageItems,
    get_items,
    group_test_split,
    items_from_folders,
    limit_items,
    make_loaders,
    presize,
    split_items,
)
from course_lib.data.datasets import SPLITS

PARTS = ("test", "train", "valid")
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def grouped(draw):
    """Items of two to four classes, and a group for each."""
    counts = draw(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 30), min_size=2))
    items = fake_items(counts)
    groups = draw(st.lists(st.integers(0, 12), min_size=len(items), max_size=len(items)))
    return items, np.array(groups)


# ---- Making a test part

@quick
@given(made=grouped(), fraction=st.sampled_from([0.05, 0.2, 0.5, 0.9]), seed=st.integers(0, 2**32 - 1))
def test_groups_are_whole_and_no_class_has_more_than_its_share_in_the_test_part(made, fraction, seed):
    items, groups = made
    rest, test = group_test_split(items, groups, fraction, seed)
    assert rest.dtype == test.dtype == np.int64 and list(rest) == sorted(rest) and list(test) == sorted(test)
    assert sorted([*rest, *test]) == list(range(len(items)))  # complete and disjoint
    assert not set(groups[rest]) & set(groups[test])
    counts = np.bincount(items.targets, minlength=len(items.classes))
    taken = np.bincount(items.targets[test], minlength=len(items.classes))
    assert (taken <= fraction * counts).all()
    for group in set(groups[rest]):  # nothing was left out that would have fitted
        more = np.bincount(items.targets[groups == group], minlength=len(items.classes))
        assert (taken + more > fraction * counts).any()


@quick
@given(made=grouped(), order=st.randoms(use_true_random=False))
def test_neither_the_order_of_the_list_nor_how_the_groups_are_kept_matters(made, order):
    items, groups = made
    _, test = group_test_split(items, groups, 0.4)
    places = list(range(len(items)))
    order.shuffle(places)
    _, again = group_test_split(items.subset(places), groups[places].tolist(), 0.4)
    assert {items.names[places[i]] for i in again} == {items.names[i] for i in test}


def test_another_seed_gives_another_test_part():
    items = fake_items({"a": 40, "b": 40})
    groups = np.arange(80) // 4
    found = {tuple(group_test_split(items, groups, 0.3, seed)[1]) for seed in range(5)}
    assert len(found) > 1 and all(map(len, found))


def test_what_cannot_be_meant_is_refused_by_name():
    items = fake_items({"a": 4, "b": 4})
    for fraction in (0, 1, -0.1, 1.5, float("nan"), "0.2", True, None):
        with pytest.raises(ValueError, match="fraction = "):
            group_test_split(items, range(8), fraction)
    for groups in (range(7), range(9), [], 3, np.zeros((8, 1)), np.zeros((2, 4))):
        with pytest.raises(ValueError, match="groups needs one entry for each of the 8 images.*its shape is"):
            group_test_split(items, groups)
    for seed in (-1, 1.5, "42", True):
        with pytest.raises(ValueError, match="seed = "):
            group_test_split(items, range(8), seed=seed)


# ---- Dividing what has a test part

def with_test_part(counts, share=4):
    items = fake_items(counts)
    return replace(items, splits=tuple("test" if i % share == 0 else "rest" for i in range(len(items))))


def test_a_part_is_its_indices():
    items = replace(fake_items({"a": 3, "b": 3}), splits=("rest", "test", "rest", "test", "rest", "rest"))
    assert items.part("test").tolist() == [1, 3] and items.part("rest").tolist() == [0, 2, 4, 5]
    assert items.part("train").tolist() == [] and replace(items, splits=None).part("test").tolist() == []
    assert items.official_split() is None and items.subset([3, 0]).part("test").tolist() == [0]
    with pytest.raises(ValueError, match="splits has 'rset', but may have train, valid, test and rest only"):
        replace(items, splits=("rset", *items.splits[1:]))


@quick
@given(counts=st.dictionaries(st.sampled_from("abcd"), st.integers(6, 40), min_size=2), seed=st.integers(0, 99),
       share=st.integers(2, 6))
@pytest.mark.filterwarnings("ignore:.*one image only")
def test_the_rest_alone_is_divided_and_as_if_there_were_nothing_else(counts, seed, share):
    items = with_test_part(counts, share)
    rest, test = items.part("rest"), items.part("test")
    train, valid = split_items(items, seed=seed)
    assert not {*train, *valid} & {*test} and sorted([*train, *valid]) == rest.tolist()
    alone = replace(items.subset(rest), splits=None)
    assert [rest[part].tolist() for part in split_items(alone, seed=seed)] == [train.tolist(), valid.tolist()]
    everything = split_items(items, seed=seed, official=False)  # as published
    assert sorted(np.concatenate(everything)) == list(range(len(items)))
    whole = split_items(replace(items, splits=None), seed=seed)
    assert [part.tolist() for part in everything] == [part.tolist() for part in whole]


def test_a_smaller_collection_keeps_both_parts():
    items = with_test_part({"a": 40, "b": 40})
    few = limit_items(items, 20)
    assert Counter(few.splits)["test"] >= 2 and Counter(few.splits)["rest"] >= 10


def test_loaders_do_not_show_the_test_part_unless_all_is_asked_for(tmp_path):
    plain = items_from_folders(folder_of(tmp_path / "in", {"a": 12, "b": 12}))
    items = replace(plain, splits=tuple("test" if i % 3 == 0 else "rest" for i in range(24)))
    presized = presize(items, 20, tmp_path / "cache", progress=False)
    for official, count in ((True, 16), (False, 24)):
        loaders = make_loaders(presized, image_size=16, batch_size=4, mean=HALF, std=HALF, official=official)
        used = [int(i) for loader in (loaders.train, loaders.valid) for i in loader.indices]
        assert len(used) == count and (not official) == bool({*used} & {*items.part("test").tolist()})


# ---- The lists of the solar cells

def listed(part):
    with open(SPLITS / f"elpv-{part}.csv", encoding="utf-8", newline="") as file:
        return {row["name"]: row["label"] for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def elpv():
    return get_items("elpv", announce=False)


def test_every_cell_is_in_exactly_one_list_with_its_label(elpv):
    lists = [listed(part) for part in PARTS]
    assert [len(names) for names in lists] == [480, 1607, 537]
    assert Counter(name for names in lists for name in names) == Counter(elpv.names)
    assert {name: label for names in lists for name, label in names.items()} == dict(
        zip(elpv.names, elpv.labels, strict=True))


def test_the_lists_are_what_split_items_gives_with_seed_42(elpv):
    train, valid = split_items(elpv)
    for part, rows in (("test", elpv.part("test")), ("train", train), ("valid", valid)):
        assert [elpv.names[i] for i in rows] == list(listed(part)), part
    assert elpv.part("rest").tolist() == sorted([*train, *valid])
    shuffled = list(range(len(elpv)))
    random.Random(0).shuffle(shuffled)
    other = elpv.subset(shuffled)
    assert {other.names[i] for i in split_items(other)[1]} == set(listed("valid"))


@pytest.mark.slow
def test_the_lists_follow_from_the_groups_and_no_near_duplicate_is_on_both_sides(elpv, tmp_path, monkeypatch):
    import test_part as making

    monkeypatch.setattr(making, "DATA", tmp_path / "cache")
    groups = making.groups_of_cells(elpv)
    rest, test = group_test_split(elpv, groups)
    assert test.tolist() == elpv.part("test").tolist() and rest.tolist() == elpv.part("rest").tolist()
    pairs = making.near_duplicates(elpv)
    inside = np.isin(pairs, test)
    other = pairs[pairs[:, 0] != pairs[:, 1]]
    assert len(other) > 100 and (inside[:, 0] == inside[:, 1]).all()
    assert set(Counter(groups.tolist()).values()) != {32}  # blocks were joined
    monkeypatch.setattr(making, "SPLITS", tmp_path / "splits")
    making.divide()
    for part in PARTS:
        name = f"elpv-{part}.csv"
        assert (tmp_path / "splits" / name).read_bytes() == (SPLITS / name).read_bytes()


def test_the_recorded_trivial_answers_are_what_the_lists_say():
    """Errors like the other figures: what somebody is wrong in who always says the same."""
    from course_lib.teach import read_record

    labels = {part: [line.split(",")[1] for line in (SPLITS / f"elpv-{part}.csv").read_text().splitlines()[1:]]
              for part in PARTS}
    test, found = labels["test"], read_record("test_part.json")
    assert found["test_images"] == len(test)
    defective = sum(label.endswith("defective") for label in test) / len(test)
    commonest = Counter(labels["train"] + labels["valid"]).most_common(1)[0][0]
    assert found["always functional"] == pytest.approx(defective) and 0.2 < defective < 0.4
    assert found["always the commonest class"] == pytest.approx(1 - test.count(commonest) / len(test))


def test_the_lists_come_with_the_package():
    import course_lib

    assert SPLITS == Path(course_lib.__file__).resolve().parent / "data" / "splits"
    assert isinstance(get_items("elpv", announce=False), ImageItems)
