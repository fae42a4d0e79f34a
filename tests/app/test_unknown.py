"""What a classifier keeps of what it has seen is the same from images and from cached features."""

import numpy as np
import pytest
import torch

from course_lib.app.unknown import NEIGHBOURS, familiar
from course_lib.data import BatchTransform, ImageLoader
from course_lib.learner import Learner
from course_lib.learner.features import FeatureLoader, cached_features, train_last
from course_lib.models import create_classifier


def loaders_of(train, valid):
    images = np.random.default_rng(0).integers(0, 255, (train + valid, 40, 40, 3), dtype=np.uint8)
    plain = BatchTransform(32, (0.5,) * 3, (0.5,) * 3)
    rows = np.arange(train + valid)
    return [ImageLoader(images, rows % 3, some, plain, 16) for some in (rows[:train], rows[train:])]


@pytest.mark.parametrize("fraction", [0.0, 1 / 3])
def test_features_that_are_cached_are_not_computed_again_and_say_the_same(fraction):
    torch.manual_seed(0)
    classifier, loaders = create_classifier("efficientnet_lite0", 3, pretrained=False), loaders_of(30, 24)
    train_last(classifier, fraction)
    learner = Learner(classifier, *loaders, progress=False)
    wanted = familiar(classifier, *loaders, plain=loaders[0].transform)
    looked = []
    first = next(classifier.body.children())
    with cached_features(learner, views=2, echo=lambda line: None) as cached:
        assert cached and isinstance(learner.train_loader, FeatureLoader)
        handle = first.register_forward_hook(lambda *given: looked.append(1))
        found = familiar(learner.model, learner.train_loader, learner.valid_loader, plain=loaders[0].transform)
        handle.remove()
    assert not looked and found.known.shape == wanted.known.shape == (30, classifier.body.num_features)
    torch.testing.assert_close(found.known, wanted.known, atol=2e-3, rtol=0)
    assert found.limit == pytest.approx(wanted.limit, abs=1e-4)


def test_of_too_few_images_nothing_is_kept():
    torch.manual_seed(0)
    classifier = create_classifier("efficientnet_lite0", 3, pretrained=False)
    for counts in ((NEIGHBOURS - 1, 24), (30, 19)):
        train, valid = loaders_of(*counts)
        assert familiar(classifier, train, valid, plain=train.transform) is None
