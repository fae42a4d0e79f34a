"""Networks at sizes that they were not made for: built for them, or refused with the size to give."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import course_lib.models.classifier as classifier
from course_lib.app.cli import main
from course_lib.learner import Learner
from course_lib.lr_finder import lr_find
from course_lib.models import Backbone, create_backbone, create_classifier, create_head
from course_lib.models.sources import load_body, output_shape


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_a_transformer_that_can_is_built_for_any_size(name):  # lightly-ai/lightly-train#29
    import timm

    torch.manual_seed(0)
    body = create_backbone(name, pretrained=False).eval()
    fixed = timm.create_model(name, num_classes=0, global_pool="" if body.spatial else None).eval()
    weights = {key.removeprefix("network."): value for key, value in body.network.state_dict().items()}
    fixed.load_state_dict(weights)  # the same tensors under the same names
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = fixed(x).permute(0, 3, 1, 2) if body.spatial else fixed(x)
        torch.testing.assert_close(body(x), expected)
        assert body(torch.randn(2, 3, 64, 64)).shape[:2] == (2, body.num_features)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("vit_b_32", 64), ("mixer_s32_224", 64), ("levit_128s", 96),
                                            ("vit_tiny_patch16_224", 100)])
def test_another_network_says_what_to_give(name, size):
    body = create_backbone(name, pretrained=False)
    words = f"{name} does not take images of {size} x {size} pixels .*image_size=224, .*--image-size 224"
    with pytest.raises(ValueError, match=words):
        output_shape(body, size)  # found without computing anything
    model = create_classifier(body, 2)
    loader = [(torch.randn(2, 3, size, size), torch.tensor([0, 1]))]
    learner = Learner(model, loader, loader, progress=False)
    for call in (lambda: model(loader[0][0]), lambda: learner.fit(1), learner.evaluate, lambda: lr_find(learner)):
        with pytest.raises(ValueError, match=words):
            call()


def test_an_error_that_has_nothing_to_do_with_the_size_stays_as_it_is():
    class Faulty(nn.Module):
        def forward(self, x):
            return x @ torch.ones(5, 5)

    body = Backbone("own", Faulty(), num_features=3, input_size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        body(torch.randn(1, 3, 32, 32))


@pytest.mark.slow
def test_course_train_says_it_before_it_touches_an_image(tmp_path, monkeypatch, capsys):
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(6):
            pixels = np.random.default_rng(i).integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    monkeypatch.setattr(classifier, "load_body", lambda name, pretrained: load_body(name, False))
    words = ["train", "--dataset", str(tmp_path / "photos"), "--data-dir", str(tmp_path / "data"), "--profile", "test",
             "--device", "cpu", "--output", str(tmp_path / "out"), "--epochs", "1", "--backbone"]
    assert main([*words, "mixer_s32_224"]) == 2
    assert "--image-size 224" in capsys.readouterr().err
    assert not (tmp_path / "data" / "cache").exists() and not (tmp_path / "out").exists()
    assert main([*words, "vit_tiny_patch16_224"]) == 0  # of 64 pixels


ANYTHING = st.none() | st.integers(-2, 5) | st.floats() | st.text(max_size=4) | st.sampled_from([True, False, [], {}])


@settings(max_examples=120, deadline=None)
@given(ANYTHING, ANYTHING, ANYTHING, ANYTHING)
def test_a_head_of_anything_is_right_or_refused_by_name(features, classes, hidden, dropout):
    try:
        head = create_head(features, classes, pool=None, hidden=hidden, dropout=dropout)
    except (ValueError, TypeError) as error:
        assert any(name in str(error) for name in ("num_features", "num_classes", "hidden", "dropout"))
    else:
        assert head.eval()(torch.zeros(2, features)).shape == (2, classes)


@pytest.mark.parametrize("name", [None, 3, [], {}, b"resnet18", "", "resnet", nn.Linear(2, 2)])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match="backbone"):
        create_backbone(name, pretrained=False)
    with pytest.raises(ValueError, match="backbone"):
        create_classifier(name, 2, pretrained=False)
