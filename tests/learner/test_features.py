"""Features kept from a frozen front: equal to the live network, for every kind of body, and safe where a cut is not."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from course_lib.data import Augmentation, BatchTransform, ImageLoader
from course_lib.learner import Callback, Learner, features
from course_lib.learner.features import (
    CannotCutError,
    cache_features,
    cached_features,
    cut_classifier,
    fold_if_equal,
    train_last,
)
from course_lib.models import Classifier, body_blocks, create_classifier

IMAGES = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def logits(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(x)


@pytest.fixture
def loader() -> ImageLoader:
    pictures = np.random.default_rng(0).integers(0, 256, (22, 72, 72, 3), dtype=np.uint8)
    transform = BatchTransform(64, (0.5,) * 3, (0.5,) * 3, Augmentation())
    return ImageLoader(pictures, np.arange(22) % 3, np.arange(20), transform, 8, shuffle=True, prefetch=0)


def test_an_efficientnet_has_a_stem_sixteen_blocks_and_a_top():
    body = create_classifier("efficientnet_lite0", 3, pretrained=False).body
    with_parameters = [block for block in body_blocks(body) if any(True for _ in block.parameters())]
    assert len(with_parameters) == 2 + 16 + 2  # a stage of one block is one block, not its layers


@pytest.mark.slow
@pytest.mark.parametrize("fraction", [0, 0.2, 1 / 3, 0.7])
@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite2", "resnet18", "vgg11_bn", "densenet121",
                                  "mobilenet_v3_small", "convnext_tiny"])
def test_parts_give_what_the_whole_gives(name, fraction):
    classifier = create_classifier(name, 3, pretrained=False)
    train_last(classifier, fraction)
    front, rest = cut_classifier(classifier, IMAGES)
    features = front(IMAGES)
    assert torch.allclose(logits(rest, features), logits(classifier, IMAGES), rtol=1e-3, atol=1e-4)
    folded = fold_if_equal(front, IMAGES)
    assert torch.allclose(folded(IMAGES), features, rtol=1e-3, atol=1e-3 * float(features.abs().max()))


def test_training_the_rest_trains_the_classifier_and_nothing_frozen(loader):
    torch.manual_seed(0)
    classifier = create_classifier("efficientnet_lite0", 3)
    frozen = train_last(classifier, 1 / 3)
    front, rest = cut_classifier(classifier, IMAGES)
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    features = cache_features(front, loader)
    Learner(rest, features, progress=False).fit(2, 1e-3)
    changed = {name for name, value in classifier.state_dict().items() if not torch.equal(value, before[name])}
    still = {id(t) for block in body_blocks(classifier.body)[:frozen] for t in (*block.parameters(), *block.buffers())}
    names = {name for name, t in (*classifier.named_parameters(), *classifier.named_buffers()) if id(t) in still}
    assert names and not names & changed  # parameters and running statistics, bit for bit
    assert any(name.startswith("head") for name in changed) and any(name.startswith("body") for name in changed)
    assert torch.allclose(logits(rest, front(IMAGES)), logits(classifier, IMAGES), rtol=1e-3, atol=1e-4)


def test_live_training_leaves_frozen_blocks_alone_too():
    """Blocks frozen one by one, not a whole parameter group: their running statistics must not move either."""
    classifier = create_classifier("efficientnet_lite0", 3)
    frozen = train_last(classifier, 1 / 3)
    blocks = body_blocks(classifier.body)
    before = [{k: v.clone() for k, v in block.state_dict().items()} for block in blocks[:frozen]]
    Learner(classifier, [(IMAGES, torch.tensor([0, 1, 2, 0]))] * 2, progress=False).fit(1, 1e-3)
    for block, state in zip(blocks, before, strict=False):
        assert all(torch.equal(value, state[name]) for name, value in block.state_dict().items())
    moved = [m for m in blocks[frozen].modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(m.num_batches_tracked > 0 for m in moved)


class Skip(nn.Module):
    """A body in which a later block sees what an earlier one saw."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.two(self.one(x)) + x


def test_a_network_that_is_no_row_of_blocks_is_refused():
    classifier = Classifier(Skip(), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)))
    classifier.body.one.requires_grad_(False)
    with pytest.raises(CannotCutError, match="do not give what the network gives"):
        cut_classifier(classifier, IMAGES)
    classifier.body.requires_grad_(False)  # the whole body can always be the front
    front, rest = cut_classifier(classifier, IMAGES)
    assert torch.equal(logits(rest, front(IMAGES)), logits(classifier, IMAGES))


def test_views_and_replay(loader):
    classifier = create_classifier("efficientnet_lite0", 3, pretrained=False)
    train_last(classifier, 0)
    front, _ = cut_classifier(classifier, IMAGES)
    epoch = loader.epoch
    kept = cache_features(front, loader, views=2)
    assert loader.epoch == epoch and kept.features.shape[:2] == (2, 20) and len(kept) == len(loader) == 2
    assert kept.targets.tolist() == [i % 3 for i in range(20)]
    first = [x for x, _ in kept]
    second = [x for x, _ in kept]
    kept.epoch = 0
    assert all(torch.equal(a, b) for a, b in zip(first, kept_x(kept), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    for value in (0, -1):
        with pytest.raises(ValueError, match="views"):
            cache_features(front, loader, views=value)


def kept_x(loader) -> list[torch.Tensor]:
    return [x for x, _ in loader]


@pytest.mark.parametrize("fraction", [-0.1, 1.5, float("nan")])
def test_a_fraction_outside_0_to_1_is_refused(fraction):
    with pytest.raises(ValueError, match="from 0"):
        train_last(create_classifier("efficientnet_lite0", 2, pretrained=False), fraction)


def a_learner(learns: float = 0.0, pictures=None, **options) -> Learner:
    torch.manual_seed(0)
    classifier = create_classifier("efficientnet_lite0", 3, dropout=0.0)
    train_last(classifier, learns)
    if pictures is None:
        pictures = np.random.default_rng(0).integers(0, 256, (14, 72, 72, 3), dtype=np.uint8)
    transform = BatchTransform(64, (0.5,) * 3, (0.5,) * 3, Augmentation())
    train = ImageLoader(pictures, np.arange(14) % 3, np.arange(10), transform, 5, shuffle=True, prefetch=0)
    valid = replace(train, indices=np.arange(10, 14), shuffle=False, transform=replace(transform, augmentation=None))
    return Learner(classifier, train, valid, **{"progress": False} | options)


@pytest.fixture
def on_disk(tmp_path):
    """Pictures mapped from a file, as presizing keeps them."""
    np.random.default_rng(0).integers(0, 256, (14, 72, 72, 3), dtype=np.uint8).tofile(tmp_path / "images.bin")
    return np.memmap(tmp_path / "images.bin", dtype=np.uint8, mode="r", shape=(14, 72, 72, 3))


def passes(learner: Learner, **options) -> int:
    """How many images went through the frozen front within `cached_features`."""
    count = [0]
    original = features._one_view

    def counting(front, loader, description):
        count[0] += len(loader.indices)
        return original(front, loader, description)

    features._one_view = counting
    try:
        with cached_features(learner, **options):
            learner.evaluate()
    finally:
        features._one_view = original
    return count[0]


@pytest.mark.parametrize("learns", [0, 1 / 3])
def test_kept_and_live_logits_agree(learns):
    learner = a_learner(learns)
    live = learner.predict()
    with cached_features(learner) as kept:
        assert kept
        cached = learner.predict()
    assert torch.equal(live.targets, cached.targets)
    assert torch.allclose(live.logits, cached.logits, rtol=1e-3, atol=1e-4)


def test_features_are_found_again_on_disk(on_disk):
    assert passes(a_learner(pictures=on_disk)) == 14
    assert passes(a_learner(pictures=on_disk)) == 0  # another learner, as after a restart
    assert passes(a_learner(pictures=on_disk), views=3) == 30  # the validation images are found
    assert not list(Path(on_disk.filename).parent.glob("features/*.part"))


def test_features_of_images_in_memory_are_held_by_their_loader():
    learner = a_learner()
    assert [passes(learner), passes(learner)] == [14, 0]


@pytest.mark.slow
@pytest.mark.parametrize("change", ["weights", "statistics", "pixels", "size", "normalisation", "rows", "cut"])
def test_a_stale_cache_is_never_used(on_disk, change):
    assert passes(a_learner(pictures=on_disk)) == 14
    learner = a_learner(1 / 3 if change == "cut" else 0, pictures=np.array(on_disk) if change == "pixels" else on_disk)
    train, valid = learner.train_loader, learner.valid_loader
    with torch.no_grad():
        if change == "weights":
            next(learner.model.body.parameters())[0, 0, 0, 0] += 1e-3
        if change == "statistics":
            next(b for name, b in learner.model.body.named_buffers() if "running_var" in name)[0] += 1e-2
    if change == "pixels":
        learner.train_loader.images[:, 0, 0, 0] ^= 1
    if change in ("size", "normalisation"):
        new = {"size": 96} if change == "size" else {"mean": (0.4,) * 3}
        train.transform, valid.transform = replace(train.transform, **new), replace(valid.transform, **new)
    if change == "rows":
        train.indices, valid.indices = np.arange(4, 14), np.arange(4)
    live = learner.predict().logits
    assert passes(learner) == 14
    with cached_features(learner):
        assert torch.allclose(learner.predict().logits, live, rtol=1e-3, atol=1e-4)


def test_pixels_that_change_in_memory_are_noticed():
    learner = a_learner(pictures=np.zeros((14, 72, 72, 3), dtype=np.uint8))
    assert passes(learner) == 14
    learner.train_loader.images[0] = 255  # the same array, other pixels
    assert passes(learner) == 10  # those of the training images alone


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "other", "empty"])
def test_a_damaged_file_is_computed_again(on_disk, damage):
    passes(a_learner(pictures=on_disk))
    for file in (Path(on_disk.filename).parent / "features").iterdir():
        content = file.read_bytes()
        file.write_bytes({"cut": content[:-50], "other": b"not features", "empty": b""}[damage])
    assert passes(a_learner(pictures=on_disk)) == 14
    assert passes(a_learner(pictures=on_disk)) == 0  # and mended


def test_a_disk_that_takes_nothing_is_no_reason_to_stop(on_disk, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    said = []
    learner = a_learner(pictures=on_disk)
    with cached_features(learner, echo=said.append) as kept:
        assert kept and learner.evaluate()
    assert any("No space left" in line for line in said)
    assert not list((Path(on_disk.filename).parent / "features").iterdir())


def test_the_oldest_features_make_room(on_disk, monkeypatch):
    folder = Path(on_disk.filename).parent / "features"
    passes(a_learner(pictures=on_disk))
    size = sum(file.stat().st_size for file in folder.iterdir())
    old = {file.name for file in folder.iterdir()}
    for file in folder.iterdir():
        os.utime(file, (1, 1))
    monkeypatch.setattr(features, "_FOLDER_LIMIT", size)
    learner = a_learner(pictures=on_disk)
    with torch.no_grad():
        next(learner.model.body.parameters())[0, 0, 0, 0] += 1
    passes(learner)
    left = {file.name for file in folder.iterdir()}
    assert left and not left & old and passes(learner) == 0


class SeesImages(Callback):
    def before_batch(self, learner):
        assert learner.x.shape[1:] == (3, 64, 64)


@pytest.mark.slow
@pytest.mark.parametrize("reason, options, said", [
    ("nothing frozen", {}, ""), ("keep", {"keep": False}, ""), ("memory", {"memory_limit": 1e3}, "GB of memory"),
    ("callback", {}, "SeesImages"), ("loader", {}, "not ImageLoaders"), ("model", {}, "")])
def test_images_are_used_where_features_would_be_wrong(reason, options, said):
    learner = a_learner(1 if reason == "nothing frozen" else 0)
    if reason == "callback":
        learner.add_callback(SeesImages())
    if reason == "loader":
        learner.train_loader = list(learner.train_loader)
    if reason == "model":
        learner.model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 3))
    lines, before = [], (learner.model, learner.train_loader, learner.valid_loader)
    with cached_features(learner, echo=lines.append, **options) as kept:
        assert not kept and (learner.model, learner.train_loader, learner.valid_loader) == before
        learner.fit(1, 1e-4)
    assert said in " ".join(lines) and bool(said) == bool(lines)


def test_everything_is_back_after_an_error():
    learner = a_learner()
    before = learner.model, learner.train_loader, learner.valid_loader
    with pytest.raises(KeyboardInterrupt), cached_features(learner):
        raise KeyboardInterrupt
    assert (learner.model, learner.train_loader, learner.valid_loader) == before


def test_a_learner_without_validation_images():
    learner = a_learner()
    learner.valid_loader = None
    with cached_features(learner) as kept:
        learner.fit(2, 1e-3)
    assert kept and learner.train_loader.epoch == 2 and learner.valid_loader is None


def test_views_are_drawn_anew_in_every_epoch():
    learner = a_learner()
    with cached_features(learner, views=4):
        loader = learner.train_loader
        assert loader.features.shape[:2] == (4, 10) and learner.valid_loader.features.shape[0] == 1
        first, second = (torch.cat([x for x, _ in loader])[:, 0].sort().values for _ in range(2))
        assert not torch.equal(first, second)
    for views in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="views"), cached_features(learner, views=views):
            pass


def test_a_block_frozen_behind_the_cut_stands_still():
    learner = a_learner(1 / 3)
    late = body_blocks(learner.model.body)[-2]
    late.requires_grad_(False)
    before = [t.clone() for t in (*late.parameters(), *late.buffers())]
    with cached_features(learner):
        learner.fit(1, 1e-2)
    assert all(torch.equal(a, b) for a, b in zip(before, (*late.parameters(), *late.buffers()), strict=True))


def test_what_cannot_be_done_inside_says_so():
    learner = a_learner()
    with cached_features(learner):
        with pytest.raises(RuntimeError, match="after the `with` block"):
            learner.predict(torch.zeros(2, 3, 64, 64))
        for parameter in learner.model.whole_model.parameters():
            parameter.requires_grad_(True)
        with pytest.raises(ValueError, match="was unfrozen whose features are cached"):
            learner.fit(1)
    learner.fit(1)
