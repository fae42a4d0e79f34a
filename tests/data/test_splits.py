"""Splits and smaller collections: properties, and what is refused."""
from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import fake_items, folder_of

from course_lib.data import ImageItems, items_from_folders, limit_items, split_items

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


@pytest.mark.filterwarnings("ignore:1 classes have one image only:UserWarning")
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
    for seed in (42.0, None, "42", True, -1):  # each would be another division than that of 42
        with pytest.raises(ValueError, match="seed = "):
            split_items(items, seed=seed)
        with pytest.raises(ValueError, match="seed = "):
            limit_items(items, 2, seed)
    assert split_items(items, seed=np.int64(42))[1].tolist() == split_items(items)[1].tolist()
    with pytest.raises(ValueError, match="no images to split"):
        split_items(items.subset([]))


@pytest.mark.filterwarnings("ignore:All images are lost of:UserWarning")
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
