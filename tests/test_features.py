"""Features kept from a frozen front: equal to the live network, for every kind of body, and safe where a cut is not."""

import numpy as np
import pytest
import torch
from torch import nn

from course_lib.data import Augmentation, BatchTransform, ImageLoader
from course_lib.features import CannotCutError, cache_features, cut_classifier, fold_if_equal, train_last
from course_lib.learner import Learner
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
