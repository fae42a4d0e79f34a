"""Whatever is handed over: the right value, or a ValueError or TypeError that names the argument, and nothing else."""
from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from odd import drawn
from pictures import HALF, fake_items, folder_of
from PIL import Image

from course_lib.data import (
    Augmentation,
    BatchTransform,
    ImageItems,
    ImageLoader,
    Loaders,
    get_items,
    items_from_folders,
    items_from_pattern,
    items_from_table,
    limit_items,
    load_image,
    make_loaders,
    plot_class_counts,
    presize,
    show_batch,
    split_items,
)
from course_lib.data.presizing import RESIZE_MODES, square_image
from course_lib.recipes import RECIPES, changed_recipe
from course_lib.settings import KEYS, SettingsError, load_settings
from course_lib.tuning import choice, uniform

pytestmark = pytest.mark.filterwarnings("ignore")
quick = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
odd = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), st.binary(max_size=4),
                st.lists(st.integers(-3, 9), max_size=3),
                st.dictionaries(st.text(max_size=2), st.integers(), max_size=2), st.just(np.zeros((2, 2))),
                st.just(torch.tensor([True, False])), st.just(object()))
words = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=8).filter(
    lambda word: word.strip(" .") and not word.startswith("."))


def value_or_refusal(call, *names: str):
    """What `call` gives, or `None` when it was refused in words with one of the names in them."""
    try:
        return call()
    except (ValueError, TypeError) as error:
        assert any(name in str(error) for name in names), f"{type(error).__name__}: {error} names none of {names}"
        assert type(error).__module__.split(".")[0] != "numpy"
        return None


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp("in"), {"a": 5, "b": 6})


@pytest.fixture(scope="module")
def presized(root, tmp_path_factory):
    return presize(items_from_folders(root), 16, tmp_path_factory.mktemp("cache"), progress=False)


@pytest.mark.slow
@quick
@given(value=odd)
@example(value=Path("nowhere"))
def test_roots_and_paths(value, root, tmp_path_factory):
    for call, name in ((lambda: items_from_folders(value), "root"), (lambda: items_from_pattern(value, "(.)"), "root"),
                       (lambda: items_from_table(value, root / "x"), "root"), (lambda: get_items(value), "data"),
                       (lambda: items_from_table(root, value), "table"), (lambda: load_image(value, 16), "path")):
        try:
            value_or_refusal(call, name, repr(value))
        except OSError as error:  # there is no such file or folder
            assert str(value) in str(error) or repr(value)[1:-1] in str(error)


@quick
@given(value=odd)
def test_sizes_seeds_and_shares(value, root, presized, tmp_path_factory):
    items = presized.items
    size = value_or_refusal(lambda: load_image(items.path(0), value) if not (
        isinstance(value, int) and value > 999) else None, "size")
    assert size is None or size.shape == (value, value, 3)
    value_or_refusal(lambda: load_image(items.path(0), 16, value), "resize_mode")
    cache = tmp_path_factory.mktemp("cache")
    if not isinstance(value, (int, float)) or 0 < value < 50:
        few = items.subset([0, 6])
        for call, name in ((lambda: presize(few, value, cache, progress=False), "size"),
                           (lambda: presize(few, 8, cache, resize_mode=value, progress=False), "resize_mode"),
                           (lambda: presize(few, 8, cache, workers=value, progress=False), "workers")):
            made = value_or_refusal(call, name)
            assert made is None or len(made) == 2
    for name in ("size", "mean", "std", "augmentation"):
        given = {"size": 16, "mean": HALF, "std": HALF, name: value}
        value_or_refusal(lambda: BatchTransform(**given), name)  # noqa: B023
    value_or_refusal(lambda: presize(items, 8, value) if not isinstance(value, str) else None, "cache_dir")
    limited = value_or_refusal(lambda: limit_items(items, value), "max_images")
    assert limited is None or len(limited) == min(11, 11 if value is None else value)
    split = value_or_refusal(lambda: split_items(items, value), "valid_fraction")
    assert split is None or sorted(np.concatenate(split).tolist()) == list(range(11))
    for name in ("image_size", "batch_size", "valid_fraction", "augmentation", "prefetch"):
        given = {"image_size": 16, "batch_size": 2, **({name: value} if not (name == "image_size" and isinstance(
            value, int) and value > 999) else {})}
        loaders = value_or_refusal(lambda: make_loaders(presized, mean=HALF, std=HALF, **given), name)  # noqa: B023
        assert loaders is None or next(iter(loaders.valid))[0].shape[1] == 3
    for name in ("rotate", "zoom", "probability", "brightness"):
        value_or_refusal(lambda: Augmentation(**{name: value}), name)  # noqa: B023


@quick
@given(indices=st.one_of(odd, st.lists(st.one_of(st.integers(-2, 12), st.booleans(), st.floats())), st.lists(
    st.integers(0, 10), unique=True)))
def test_indices(indices, presized):
    few = value_or_refusal(lambda: presized.items.subset(indices), "indices", "names are listed more than once")
    assert few is None or few.names == tuple(presized.items.names[i] for i in indices)
    loader = value_or_refusal(lambda: ImageLoader(presized.images, presized.items.targets, indices, BatchTransform(
        16, HALF, HALF), 4), "indices", "no images in this set")
    assert loader is None or torch.cat([y for _, y in loader]).tolist() == [presized.items.targets[i] for i in indices]


@quick
@given(name=st.sampled_from(["names", "labels", "classes", "splits"]), value=odd)
def test_items(name, value):
    whole = {"root": "x", "names": ("a",), "labels": ("c",), "classes": ("c",)}
    items = value_or_refusal(lambda: ImageItems(**{**whole, name: value}), name)
    assert items is None or items.path(0) == Path("x") / items.names[0]


@quick
@given(labels=st.lists(words, min_size=2, max_size=5, unique_by=lambda word: word.casefold()),
       pattern=st.one_of(odd, st.text("ab().*+?[]\\d_^$|{}9", max_size=8)))
def test_patterns(labels, pattern):
    names = [f"{label}_{i}.jpg" for i, label in enumerate(labels)]
    by_name = value_or_refusal(lambda: items_from_pattern("x", r"(.+)_\d+.jpg$", names=names), "pattern", "label")
    if by_name:
        assert [label.strip() for label in by_name.labels] == list(by_name.labels) and by_name.names == tuple(names)
    value_or_refusal(lambda: items_from_pattern("x", pattern, names=names), "pattern", "label")


@quick
@given(labels=st.lists(words, min_size=4, max_size=4), encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
       delimiter=st.sampled_from([",", ";", "\t"]), data=st.one_of(st.none(), st.binary(max_size=30)))
def test_tables(labels, encoding, delimiter, data, tmp_path_factory):
    import csv
    import io
    import unicodedata

    root = folder_of(tmp_path_factory.mktemp("t"), {"x": 4})
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows([f"x/{i:03}.png", label] for i, label in enumerate(labels))
    table = root / "t.csv"
    table.write_bytes(text.getvalue().encode(encoding) if data is None else data)
    try:
        items = value_or_refusal(lambda: items_from_table(root, table, delimiter=delimiter), "t.csv")
    except FileNotFoundError as error:
        assert "listed in t.csv" in str(error)
        return
    if items and data is None:
        assert items.labels == tuple(unicodedata.normalize("NFC", label).strip() for label in labels)


@quick
@given(key=st.sampled_from(KEYS), value=odd, text=st.text(max_size=20))
def test_settings(key, value, text, tmp_path_factory):
    path = tmp_path_factory.mktemp("s") / "settings.ini"
    path.write_text(f"[course]\n{key} = {text}\n", encoding="utf-8")
    for call in (lambda: load_settings(None, {}, **{key: value}), lambda: load_settings(path, {})):
        try:
            call()
        except SettingsError as error:
            assert key in str(error) or "settings.ini" in str(error)


@quick
@given(value=odd, name=st.sampled_from(["epochs", "presize", "resize_mode", "batch_size", "image_size", "max_lr",
                                        "trained_fraction", "mixed_precision", "augmentation"]))
def test_recipes(value, name):
    recipe = value_or_refusal(lambda: changed_recipe(RECIPES["test"], **{name: value}), name)
    assert recipe is None or value is None or getattr(recipe, name) == value or name == "presize"


@quick
@given(low=odd, high=odd, log=st.booleans(), integer=st.booleans())
def test_spaces(low, high, log, integer):
    drawn = value_or_refusal(lambda: uniform(low, high, log=log, integer=integer), "low", "high")
    assert drawn is None or (drawn.low, drawn.high) == (low, high)
    value_or_refusal(lambda: choice(low, high), "choice")


@quick
@given(counts=st.dictionaries(words, st.integers(1, 5), min_size=1, max_size=5), limit=st.integers(1, 20))
def test_limit_and_split(counts, limit):
    items = limit_items(fake_items(counts), limit)
    split = value_or_refusal(lambda: split_items(items), "of one class")
    assert split is None or sorted(np.concatenate(split).tolist()) == list(range(len(items)))


@quick
@given(width=st.integers(1, 40), height=st.integers(1, 40), size=st.integers(1, 40),
       mode=st.sampled_from(RESIZE_MODES),
       kind=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "I;16", "F"]),
       junk=st.binary(max_size=60))
def test_pictures(width, height, size, mode, kind, junk, tmp_path_factory):
    path = tmp_path_factory.mktemp("p") / "x.tif"
    Image.new(kind, (width, height)).save(path)
    loaded = value_or_refusal(lambda: load_image(path, size, mode), "x.tif")
    assert (loaded is None) == (kind == "F") and (loaded is None or loaded.shape == (size, size, 3))
    path.write_bytes(path.read_bytes()[:30] + junk)
    value_or_refusal(lambda: load_image(path, size, mode), "x.tif")


@pytest.mark.slow
@quick
@given(counts=st.dictionaries(words, st.integers(1, 4), min_size=1, max_size=4), value=odd)
def test_bars_are_as_long_as_the_classes(counts, value):
    items = fake_items(counts)
    ax = drawn(plot_class_counts(items))
    assert [bar.get_width() for bar in ax.patches] == [counts[name] for name in items.classes]
    assert len({label.get_text() for label in ax.get_yticklabels()}) == len(counts)
    value_or_refusal(lambda: plot_class_counts(value), "items")
    value_or_refusal(lambda: plot_class_counts(items, value), "splits")
    few = value_or_refusal(lambda: plot_class_counts(items, {"$a^_$": value}), "splits")
    assert few is None or sum(bar.get_width() for bar in few.patches) == len(value)
    plt.close("all")


@pytest.mark.slow
@quick
@given(name=st.sampled_from(["batch", "x", "y", "classes", "mean", "std", "rows", "columns"]), value=odd)
def test_a_batch_is_shown_as_its_images_were(name, value, presized):
    loader = ImageLoader(presized.images, presized.items.targets, range(11), BatchTransform(16, HALF, HALF), 4,
                         classes=presized.items.classes)
    x, y = next(iter(loader))
    shown = show_batch(loader).images[0].get_array()
    assert np.abs(np.asarray(shown) - presized.images[0] / 255).max() < 1e-3 and loader.epoch == 1
    asked = {"batch": (x, y), "mean": HALF, "std": HALF}
    asked |= {"batch": (value, y) if name == "x" else (x, value)} if name in ("x", "y") else {name: value}
    ax = value_or_refusal(lambda: show_batch(**asked), "batch" if name in ("x", "y") else name)
    assert ax is None or len(drawn(ax).images) == min(4, (value if name == "rows" else 2) * (
        value if name == "columns" else 4))
    plt.close("all")


@pytest.mark.slow
@quick
@given(kind=st.sampled_from(["L", "RGB", "P"]), width=st.integers(1, 30), size=st.integers(1, 20),
       mode=st.sampled_from(RESIZE_MODES), value=odd)
def test_a_square_is_of_the_colour_of_its_image(kind, width, size, mode, value):
    image = Image.new("RGB", (width, 12), (40, 90, 200)).convert(kind, palette=Image.Palette.ADAPTIVE)
    square = square_image(image, size, mode)
    assert square.shape == (size, size, 3) and square.dtype == np.uint8
    if mode != "pad" or width == 12:
        assert np.abs(square.astype(int) - np.asarray(image.convert("RGB"))[0, 0]).max() <= 1
    value_or_refusal(lambda: square_image(value, size), "image")
    value_or_refusal(lambda: square_image(image, value) if not (isinstance(value, int) and value > 99) else 0, "size")
    assert value_or_refusal(lambda: square_image(image, size, value), "resize_mode") is None


@quick
@given(name=st.sampled_from(["presized", "device", "mean", "std", "image_size", "batch_size"]), value=odd)
def test_loaders_share_the_images_out(name, value, presized):
    value = 7 if isinstance(value, int) and value > 99 else value
    asked = {"presized": presized, "image_size": 16, "batch_size": 3, "mean": HALF, "std": HALF, name: value}
    loaders = value_or_refusal(lambda: make_loaders(**asked), name)
    if loaders is not None:
        assert sorted([*loaders.train.indices, *loaders.valid.indices]) == list(range(11))
        assert loaders.classes == ("a", "b") == Loaders(loaders.train, loaders.valid, ("a", "b")).train.classes
