"""What one may hand to `predict_images`: the same picture in every form gets the same answer; nothing else breaks."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from course_lib.app.cli import main
from course_lib.app.predict import ImagePrediction, TrainedClassifier, load_classifier, predict_images
from course_lib.data import BatchTransform
from course_lib.learner import save_weights
from course_lib.models import create_classifier

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)


class Means(nn.Module):
    """The mean red, green and blue as logits, so that other pixels give other probabilities."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(9.0))

    def forward(self, x):
        return self.weight * x.mean((2, 3))


CLASSIFIER = TrainedClassifier(Means(), ("red", "green", "blue"), 32, BatchTransform(32, (0.5,) * 3, (0.5,) * 3), {})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for number, name in enumerate(("b.png", "a.png", "deep/c.png")):
        (root / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.roll(PIXELS, number, 2)).save(root / name)
    (root / "notes.txt").write_text("no picture")
    return root


def said(images, **options) -> list[tuple[str, float]]:
    found = predict_images(CLASSIFIER, images, **options)
    assert not any(one.problem for one in found), found
    return [(one.label, round(one.probability, 4)) for one in found]


def test_a_path_alone_is_one_image(folder):  # fastai/course22#55
    name = folder / "b.png"
    assert said(str(name)) == said(name) == said([name]) == said((str(name),)) == said(iter([name]))
    assert [one.path for one in predict_images(CLASSIFIER, str(name))] == [name]
    assert predict_images(CLASSIFIER, []) == []


def test_a_folder_and_a_pattern_are_all_their_images(folder, monkeypatch):
    inside = predict_images(CLASSIFIER, folder)
    assert [one.path.relative_to(folder).as_posix() for one in inside] == ["a.png", "b.png", "deep/c.png"]
    assert said(folder) == said([folder / "a.png", folder / "b.png", folder / "deep" / "c.png"])
    assert said(f"{folder}/*.png") == said(folder)[:2]
    assert said(f"{folder}/**/c.png") == said(folder)[2:]
    both = predict_images(CLASSIFIER, [folder / "deep", folder / "a.png"])
    assert [one.path.name for one in both] == ["c.png", "a.png"]
    monkeypatch.chdir(folder)
    assert said("?.png") == said(".")[:2]
    strange = folder / "deep" / "[1]*.png"  # a file may be named like a pattern
    strange.write_bytes((folder / "a.png").read_bytes())
    assert said(str(strange)) == said("a.png")
    strange.unlink()


def test_a_picture_in_memory_is_as_its_file(tmp_path):  # autogluon/autogluon#925
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path)
    expected, tensor = said(path), torch.from_numpy(PIXELS).permute(2, 0, 1)
    opened = Image.open(path)
    opaque = np.concatenate([PIXELS, np.full((40, 48, 1), 255, np.uint8)], 2)
    for picture in (PIXELS, Image.fromarray(PIXELS), opened, path.read_bytes(), bytearray(path.read_bytes()), opaque,
                    PIXELS / 255, (PIXELS / 255).astype(np.float32), PIXELS.astype(int), tensor, tensor / 255.0,
                    tensor.permute(1, 2, 0), PIXELS.transpose(2, 0, 1)):
        assert said(picture) == said([picture]) == expected
    assert opened.size == (48, 40)  # the caller's image was not touched
    for pair in (np.stack([PIXELS, PIXELS]), torch.stack([tensor] * 2), [PIXELS, str(path)]):
        assert said(pair) == expected * 2
    assert said(one for one in (PIXELS, path)) == expected * 2
    names = [one.path for one in predict_images(CLASSIFIER, [path, PIXELS, tensor])]
    assert names == [path, "images[1]", "images[2]"]
    grey = PIXELS[..., 0]
    for same in (np.repeat(grey[..., None], 3, 2), grey[..., None], torch.tensor(grey)[None]):
        assert said(grey) == said(same)
    assert said(grey.astype(np.uint16) * 257) == said(grey)  # 16 bits
    clear = np.concatenate([PIXELS, np.zeros((40, 48, 1), np.uint8)], 2)
    assert said(clear) == said(np.full_like(PIXELS, 255))  # what is transparent is white, as in a file
    half = said(tensor.bfloat16() / 255)[0]
    assert half[0] == expected[0][0] and half[1] == pytest.approx(expected[0][1], abs=0.02)


def test_a_turned_photograph_is_put_upright_in_memory_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG", exif=exif)
    assert said(Image.open(file)) == said(file.getvalue()) == said(Image.fromarray(np.rot90(PIXELS, -1)))


@pytest.mark.parametrize(("thing", "problem"), [
    ("https://example.org/cat.jpg", "web address"), (Path("https://example.org/cat.jpg"), "web address"),
    ("data:image/png;base64,AA", "web address"), ("", "empty name"), ("missing.png", "cannot be read"),
    ("no-such-folder/*.jpg", "pattern that no file"), ("a\0b.png", "cannot be read"), ("x" * 5000, "cannot be read"),
    (b"", "not an image"), (b"nothing", "not an image"), (PIXELS / 255 * 4 - 2, "from -2 to 2"),
    (PIXELS.astype(float), "from 0 to 255"), (np.full((9, 9), np.nan), "nan"), (PIXELS.astype(int) * 9, "0 to 255"),
    (np.zeros((0, 3, 3)), "shape"), (np.zeros((9, 9, 2)), "shape"), (np.zeros(9), "shape"),
    (torch.tensor(3.0), "shape"),
])
def test_what_cannot_be_used_gets_its_problem_said_and_the_others_go_on(thing, problem, folder, monkeypatch):
    monkeypatch.chdir(folder)
    first, bad, last = predict_images(CLASSIFIER, ["a.png", thing, PIXELS], batch_size=2)
    assert problem in bad.problem and not bad.label and str(bad.path if isinstance(thing, str) else "") in str(bad)
    assert [(first.label, last.label)] == [(said("a.png")[0][0], said(PIXELS)[0][0])]


@pytest.mark.parametrize("thing", [None, 3, {"a.png": 1}, [None], [3.5], [["a.png"]], [{}]])
def test_what_is_no_image_at_all_is_refused_by_name(thing):
    with pytest.raises(ValueError, match="images"):
        predict_images(CLASSIFIER, thing)


def test_a_classifier_that_is_none_and_one_that_is_broken():
    with pytest.raises(ValueError, match="classifier is a str"):
        predict_images("model.safetensors", PIXELS)
    with pytest.raises(ValueError, match=r"scores of shape \(1, 3\) .* 2 classes"):
        predict_images(replace(CLASSIFIER, classes=("a", "b")), PIXELS)
    broken = replace(CLASSIFIER, model=Means())
    nn.init.constant_(broken.model.weight, float("nan"))
    (found,) = predict_images(broken, PIXELS)
    assert "no finite numbers" in found.problem and not found.label  # not "red (nan%)"


@pytest.mark.parametrize("mode", ["crop", "squash", "pad"])
def test_a_photograph_becomes_square_as_in_the_training(mode):
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, :20, 0] = wide[:, 40:, 2] = 255  # red at the left, blue at the right, black in the middle
    classifier = replace(CLASSIFIER, metadata={"resize_mode": mode})
    (found,) = predict_images(classifier, wide)
    thirds = {"crop": 1 / 3, "squash": None, "pad": None}[mode]  # crop: three equal logits
    assert found.probability == pytest.approx(thirds, abs=0.02) if thirds else found.probability > 0.4


@pytest.mark.slow
def test_the_command_takes_a_folder_a_pattern_and_a_models_folder(folder, tmp_path, capsys, monkeypatch):
    model = create_classifier("efficientnet_lite0", 2, pretrained=False)
    metadata = {"backbone": "efficientnet_lite0", "classes": ["z", "a"], "presize": 40, "image_size": 32,
                "mean": [0.5] * 3, "std": [0.5] * 3, "dropout": 0.2}
    save_weights(tmp_path / "model.safetensors", model, metadata)
    assert load_classifier(tmp_path).classes == ("z", "a")  # in the order in which they were saved
    monkeypatch.chdir(folder)
    assert main(["predict", "--model", str(tmp_path), "*.png"]) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["a.png", "b.png"]
    assert main(["predict", "--model", str(tmp_path), ".", "https://example.org/x.png"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == ["a.png", "b.png", "deep/c.png"] and "web address" in lines[3]
    with pytest.raises(ValueError, match="path = 5"):
        load_classifier(5)
    (tmp_path / "none.safetensors").write_bytes(b"nothing")
    assert main(["predict", "--model", str(tmp_path / "none.safetensors"), "a.png"]) == 2
    assert "no checkpoint" in capsys.readouterr().err


ANYTHING = st.recursive(
    st.none() | st.integers() | st.floats() | st.text("ab:é\0 [", max_size=8) | st.binary(max_size=20) | st.just(PIXELS)
    | st.just(Image.fromarray(PIXELS)) | st.just(Path("x.png")) | st.builds(
        lambda shape, kind, value: np.full(shape, value).astype(kind), st.lists(st.integers(0, 4), max_size=4),
        st.sampled_from(["uint8", "int64", "float32", "bool", "uint16", "complex64", "U3"]), st.integers(-2, 300)),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=2), one, max_size=2), max_leaves=4)


@settings(max_examples=150, deadline=None)
@given(ANYTHING)
@pytest.mark.filterwarnings("ignore")
def test_anything_gets_an_answer_or_an_error_that_names_it(tmp_path_factory, thing):
    try:
        found = predict_images(CLASSIFIER, thing)
    except (ValueError, TypeError) as error:
        assert "images" in str(error)
    else:
        assert all(isinstance(one, ImagePrediction) and bool(one.problem) != bool(one.label) for one in found)
