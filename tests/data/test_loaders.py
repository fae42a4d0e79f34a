"""Loaders: order, chance, threads, shards and what is refused; and looking at batches."""
from __future__ import annotations

import ctypes
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import HALF, folder_of

from course_lib import data
from course_lib.core.protocols import HasClasses, HasEpoch, ShardedLoader
from course_lib.data import (
    Augmentation,
    BatchTransform,
    ImageLoader,
    items_from_folders,
    make_loaders,
    presize,
    split_items,
)
from course_lib.data.duplicates import perceptual_hashes
from course_lib.learner.features import pictures_digest


def test_a_loader_leaves_malloc_and_everybodys_random_numbers_alone(monkeypatch):
    """Whoever trains says what is done to the process; see `core.device.disable_malloc_trim`."""
    monkeypatch.setattr(ctypes, "CDLL", lambda *_: pytest.fail("a loader has asked for the C library"))
    loader = ImageLoader(np.zeros((4, 8, 8, 3), np.uint8), np.zeros(4, np.int64), np.arange(4),
                         BatchTransform(8, (0.5,) * 3, (0.5,) * 3, Augmentation()), 2, shuffle=True)
    before = torch.get_rng_state()
    assert len(list(loader)) == 2 and torch.equal(before, torch.get_rng_state())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody says what of a file a process holds")
def test_what_was_read_of_a_mapped_file_is_not_kept(tmp_path):
    """Thirty thousand images of 256 pixels took 7 GB, because what had been read stayed until the end."""
    side, count, file = 256, 160, tmp_path / "images.bin"
    (np.arange(count, dtype=np.uint8)[:, None] * np.ones((1, side * side * 3), np.uint8)).tofile(file)
    images = np.memmap(file, np.uint8, "r", shape=(count, side, side, 3))

    def held() -> float:
        """Megabytes of the file in this process."""
        lines = iter(Path("/proc/self/smaps").read_text().splitlines())
        found = (next(line for line in lines if line.startswith("Rss:")) for line in lines if str(file) in line)
        return sum(int(line.split()[1]) for line in found) / 1024

    loader = ImageLoader(images, np.zeros(count, np.int64), np.arange(count),
                         BatchTransform(32, (0.0,) * 3, (1.0,) * 3), 16, shuffle=True)
    seen = torch.cat([255 * x[:, 0, 0, 0] for x, _ in loader])
    assert seen.round().int().sort().values.tolist() == list(range(count))
    assert held() < 1
    pictures_digest(loader)
    perceptual_hashes(images)
    assert held() < 1
    assert np.asarray(images).sum() and held() > 25  # what is measured is measured


def test_a_loader_keeps_the_promises_of_the_protocols():
    loader = loader_of(20)
    assert isinstance(loader, ShardedLoader) and isinstance(loader, HasEpoch) and isinstance(loader, HasClasses)
    assert loader.num_samples == 20 and loader_of(20, indices=np.arange(7), shard=(0, 2)).num_samples == 7


def test_the_shards_of_a_batch_are_the_batch():
    transform = BatchTransform(8, HALF, HALF, Augmentation())
    options = dict(shuffle=True, drop_last=False, transform=transform, batch_size=5)
    shards = [list(loader_of(11, shard=(index, 2), **options)) for index in range(2)]
    assert [len(shard) for shard in shards] == [3, 2]  # the last batch has one image, so the second gets none of it
    for number, (x, y) in enumerate(loader_of(11, **options)):
        parts = [shard[number] for shard in shards if number < len(shard)]
        torch.testing.assert_close(torch.cat([part for part, _ in parts]), x)
        assert torch.equal(torch.cat([labels for _, labels in parts]), y)
    with pytest.raises(TypeError, match="only if the loader's transform is a BatchTransform"):
        list(loader_of(11, shard=(0, 2)))


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


@pytest.mark.slow
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
    ({"batch_size": 0}, "batch_size = 0 must be a whole number of at least 1"),
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
