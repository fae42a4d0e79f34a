"""Interpretation: the right place, the right image, the right name; odd inputs get a right value or a named error."""

import io
import warnings

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from course_lib.core.names import drawn_names
from course_lib.data import BatchTransform, ImageLoader
from course_lib.interpret import (
    Interpretation,
    class_errors,
    confusion_matrix,
    fit_temperature,
    grad_cam,
    interpret,
    most_confused,
    plot_class_errors,
    plot_confusion_matrix,
    plot_reliability,
    show_grad_cam,
    show_most_confused,
    show_top_losses,
    top_losses,
)
from course_lib.interpret.answers import Replay
from course_lib.interpret.cam import CamResult, NoFeatureMapError
from course_lib.interpret.measures import reliability
from course_lib.learner import Learner
from course_lib.models import create_classifier
from course_lib.tricks import FlipTTA

ALL_AXES = [[3], [2], [2, 3]]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


class Bright(nn.Module):
    """Class 1 is where it is bright. `last`: the channels of the map stand last."""

    def __init__(self, last: bool = False, calls: int = 1):
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Conv2d(3, 1, 1), nn.ReLU()), nn.Linear(1, 2, bias=False)
        self.turn, self.last, self.calls = nn.Identity(), last, calls
        with torch.no_grad():
            self.body[0].weight.fill_(1.0), self.body[0].bias.fill_(-1.0)
            self.head.weight.copy_(torch.tensor([[-1.0], [1.0]]))

    def forward(self, x):
        for _ in range(self.calls):
            found = self.body(x)
        if self.last:
            return self.head(self.turn(found.permute(0, 2, 3, 1)).mean((1, 2)))
        return self.head(found.mean((2, 3)))


def spot(row: int, column: int, height: int = 12, width: int = 12) -> torch.Tensor:
    x = torch.zeros(1, 3, height, width)
    x[:, :, row, column] = 5
    return x


def hottest(maps: torch.Tensor) -> tuple[int, int]:
    return divmod(int(maps[0].argmax()), maps.shape[2])


@pytest.mark.parametrize("axes", [[], [[3]], [[2]], ALL_AXES])
@pytest.mark.parametrize("layer", [None, "model.body"])
def test_mirror_images_point_at_the_images_own_place(axes, layer):  # jacobgil/pytorch-grad-cam#277
    x = spot(1, 2)
    alone, mirrored = grad_cam(Bright(), x, 1), grad_cam(FlipTTA(Bright(), axes), x, 1, layer=layer)
    assert hottest(alone.maps) == hottest(mirrored.maps) == (1, 2)
    assert (mirrored.maps > 0).sum() == 1
    torch.testing.assert_close(mirrored.logits.softmax(1), alone.logits.softmax(1))
    learner = Learner(FlipTTA(Bright(), axes), [], progress=False)
    assert hottest(grad_cam(learner, x, 1).maps) == (1, 2)


def test_a_real_network_that_is_mirrored_points_where_the_mean_of_its_mirrored_maps_does():
    torch.manual_seed(0)
    model, x = create_classifier("resnet18", 3, pretrained=False).eval(), torch.randn(2, 3, 96, 96)
    mirrored = grad_cam(FlipTTA(model, [[3]]), x, 1).maps
    torch.testing.assert_close(grad_cam(FlipTTA(model, [[3]]), x.flip(3), 1).maps.flip(2), mirrored,
                               rtol=1e-3, atol=1e-6)


def test_a_layer_that_is_called_twice_is_refused_and_not_chosen():
    with pytest.raises(ValueError, match="'body' of Bright is called 2 times"):
        grad_cam(Bright(calls=2), spot(1, 1), 1)
    with pytest.raises(ValueError, match="called 8 times"):
        grad_cam(FlipTTA(Bright(calls=2), ALL_AXES), spot(1, 1), 1, layer="model.body")

    class OneRelu(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.relu = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.ReLU()
            self.linear = nn.Linear(4, 2)

        def forward(self, x):
            return self.linear(self.relu(self.second(self.relu(self.first(x)))).mean((2, 3)))

    model = OneRelu()
    torch.testing.assert_close(grad_cam(model, spot(3, 4), 1), grad_cam(model, spot(3, 4), 1, layer="second"))
    with pytest.raises(ValueError, match="'relu' of OneRelu is called 2 times"):
        grad_cam(model, spot(3, 4), 1, layer="relu")


@pytest.mark.parametrize(("height", "width"), [(12, 12), (9, 15), (16, 7)])
def test_channels_in_the_last_axis_make_no_difference(height, width):
    x = spot(1, 5, height, width)
    first, last = grad_cam(Bright(), x, 1), grad_cam(Bright(last=True), x, 1, layer="turn")
    torch.testing.assert_close(last.maps, first.maps)
    assert last.maps.shape == (1, height, width)


@pytest.mark.slow
def test_swin_gives_maps_of_places_and_tokens_are_refused():
    import timm
    from torchvision import models

    x = torch.randn(1, 3, 224, 224)
    swin = timm.create_model("swin_tiny_patch4_window7_224", num_classes=3)
    assert grad_cam(swin, x).maps.shape == (1, 7, 7)  # not (1, 7, 768)
    assert grad_cam(models.swin_t(), x, layer="features.1").maps.shape == (1, 56, 56)
    assert grad_cam(create_classifier("swin_tiny_patch4_window7_224", 3, pretrained=False), x).maps.shape == (1, 7, 7)
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=3)
    for layer in ("blocks.11", None):
        with pytest.raises(NoFeatureMapError, match=r"Name a layer|name a layer"):
            grad_cam(vit, x, layer=layer)
    with pytest.raises(NoFeatureMapError, match=r"\(64, 3, 49, 49\)|\(64, 49, 96\)"):  # windows of attention
        grad_cam(swin, x, layer="layers.0.blocks.0.attn")


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_a_model_of_another_precision(kind):  # jacobgil/pytorch-grad-cam#493
    x = spot(3, 2)
    found = grad_cam(Bright().to(kind), x, 1)
    torch.testing.assert_close(found, grad_cam(Bright(), x, 1), rtol=2e-2, atol=1e-3)
    assert found.maps.dtype == found.logits.dtype == torch.float32


def test_odd_questions_are_refused_by_name():
    x = spot(1, 1)
    for wrong in (-1, 2, 1.5, True, "cat", [0, 1], [[1]], [None]):
        with pytest.raises(ValueError, match="classes"):
            grad_cam(Bright(), x, wrong)
    for wrong in (x.numpy(), [1], x.long(), x[0], x[:0], None):
        with pytest.raises(ValueError, match="Grad-CAM takes images"):
            grad_cam(Bright(), wrong)
    with torch.inference_mode():
        made_inside = Bright()
    with pytest.raises(ValueError, match=r"within torch.inference_mode\(\)"):
        grad_cam(made_inside, x)
    broken = Bright()
    nn.init.constant_(broken.head.weight, float("nan"))
    with pytest.raises(ValueError, match="no finite numbers"):
        grad_cam(broken, x)
    assert not any(module._forward_hooks for module in broken.modules())


def test_maps_are_laid_over_the_pictures_that_the_model_saw():
    cam = CamResult(torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]), torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))
    picture = np.full((1, 8, 8, 3), 0.4, np.float32)
    over = cam.over(picture)
    row, column = np.unravel_index(over[0, ..., 0].argmax(), (8, 8))
    assert row < 4 <= column
    assert np.allclose(cam.over((picture * 255).round().astype(np.uint8)), over, atol=2e-3)  # bytes are no fractions
    for wrong in (picture.repeat(3, axis=2), picture.repeat(2, axis=0), picture[..., :2], picture * 9):
        with pytest.raises(ValueError, match="pictures"):
            cam.over(wrong)


# --- which images -------------------------------------------------------------------------------------------------

def image_loader(**options) -> ImageLoader:
    pictures = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    return ImageLoader(pictures, np.arange(20) % 3, np.arange(19, 2, -1), BatchTransform(8, (0.5,) * 3, (0.5,) * 3),
                       5, classes=("a", "b", "c"), prefetch=0, **options)


class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(192, 3)

    def forward(self, x):
        return self.linear(x.flatten(1))


def test_training_images_are_interpreted_whole_and_in_order():  # fastai/fastai#1914
    train = image_loader(shuffle=True)  # 17 images, batches of 5: in training, two are left out of each epoch
    learner = Learner(Flat(), train, image_loader(), progress=False)
    before = train.epoch
    answers = interpret(learner, train)
    assert len(answers) == 17 and answers.targets.tolist() == [int(train.targets[i]) for i in train.indices]
    torch.testing.assert_close(answers.logits, learner.predict(image_loader()).logits)
    for sample in top_losses(answers, 17):
        shown = answers.images([sample.row])[0]
        assert np.allclose(shown * 255, train.images[train.indices[sample.row]], atol=0.6)
    assert (train.shuffle, train.epoch) == (True, before)


def test_a_loader_that_drops_images_is_refused_only_if_it_does():
    data = TensorDataset(torch.rand(10, 3, 8, 8), torch.arange(10) % 3)
    learner = Learner(Flat(), [], DataLoader(data, 5, drop_last=True), progress=False)
    assert len(interpret(learner)) == 10
    with pytest.raises(ValueError, match="2 of 10 images would be missing.*drop_last=False"):
        interpret(learner, DataLoader(data, 4, drop_last=True, shuffle=True))


def test_one_score_an_image_is_refused():
    learner = Learner(nn.Sequential(nn.Flatten(), nn.Linear(192, 1)), [(torch.rand(2, 3, 8, 8), torch.zeros(2).long())],
                      progress=False)
    with pytest.raises(ValueError, match="one score an image"):
        interpret(learner, learner.train_loader)


# --- figures against scikit-learn ---------------------------------------------------------------------------------

@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(1, 40))
def test_ties_and_classes_that_are_never_there_count_as_in_scikit_learn(seed, classes, count):
    from sklearn import metrics

    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(0, 2, (count, classes), generator=generator).float()  # many ties
    targets = torch.randint(0, max(1, classes - 1), (count,), generator=generator)  # the last is never right
    answers = Interpretation(logits, targets, list(range(classes)))
    labels = range(classes)
    predicted = logits.numpy().argmax(1)
    assert answers.predicted.tolist() == predicted.tolist()
    assert answers.matrix.tolist() == metrics.confusion_matrix(targets, predicted, labels=labels).tolist()
    recalls = metrics.recall_score(targets, predicted, labels=labels, average=None, zero_division=np.nan)
    errors = [np.nan if row.error is None else row.error for row in class_errors(answers)]
    assert np.allclose(1 - recalls, errors, equal_nan=True)
    assert sum(c.count for c in most_confused(answers)) == int((targets.numpy() != predicted).sum())
    confidence = answers.probabilities.double().max(1).values.numpy()
    result, right = reliability(answers.probabilities, targets, 5), predicted == targets.numpy()
    place = np.searchsorted(np.linspace(0, 1, 6)[1:-1] + 1e-7, confidence)
    gaps = [abs(right[place == i].mean() - confidence[place == i].mean()) * (place == i).mean() for i in set(place)]
    assert result.calibration_error == pytest.approx(sum(gaps), abs=1e-6)


# --- names in figures ---------------------------------------------------------------------------------------------

NAMES = ("under $5_$", "$100^$ and more", "_x", "%s 50%", "<b>bold</b>", "", "x" * 300,
         "\u05d0\u05d1\u05d2 \u0627\u0628")


def with_images(names=NAMES, count: int = 24) -> Interpretation:
    generator = torch.Generator().manual_seed(0)
    loader = [(torch.rand(count, 3, 16, 16, generator=generator), torch.arange(count) % len(names))]
    replay = Replay(loader)
    assert len(list(replay)) == 1
    return Interpretation(torch.randn(count, len(names), generator=generator), loader[0][1], names, replay)


def texts_of(result) -> list[str]:
    """Draw it, with every warning an error; what is written in it."""
    ax = result if hasattr(result, "figure") else np.asarray(result).flat[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ax.figure.savefig(io.BytesIO())
    return [text.get_text().replace(r"\$", "$") for text in ax.figure.findobj(matplotlib.text.Text)]


@pytest.mark.parametrize("draw", [plot_confusion_matrix, plot_class_errors, plot_reliability, show_top_losses,
                                  show_most_confused, lambda i: show_grad_cam(Small(len(i.classes)), i, range(8))])
@pytest.mark.parametrize("names", [NAMES, ("same", "same", "same"), ("only",), tuple("abcdefghijklmnopqrstuvwxyz")],
                         ids=["odd", "alike", "one", "many"])
def test_every_figure_can_be_drawn_with_any_names(draw, names):  # rueckstiess/mtools#639
    if names == ("only",) and draw is show_most_confused:
        with pytest.raises(ValueError, match="Only one class"):
            draw(with_images(names))
        return
    assert texts_of(draw(with_images(names)))


class Small(nn.Module):
    def __init__(self, classes: int):
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, classes)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def test_names_are_drawn_as_they_stand():
    written = texts_of(plot_confusion_matrix(with_images()))
    for name in ("under $5_$", "$100^$ and more", "%s 50%", "<b>bold</b>", "(no name)"):
        assert name in written
    assert max(map(len, written)) < 60


def test_letters_that_no_font_has_are_said_and_told_apart():
    with pytest.warns(UserWarning, match="No font in use has all letters of '.*1', '.*2':"):
        assert drawn_names(["cat", "\U000f0001", "\U000f0002"]) == ["cat", "1: \u25a1", "2: \u25a1"]
    with pytest.warns(UserWarning, match="No font"):
        assert "1: \u25a1" in texts_of(plot_class_errors(with_images(("cat", "\U000f0001"))))


def test_a_pair_must_be_two_names_of_one_class_each():
    answers = with_images(("a", "a", "b"))
    for wrong in (("a", "b"), ("b",), ("b", "b", "b"), "bb"):
        with pytest.raises(ValueError, match="pair"):
            show_most_confused(answers, wrong)


# --- anything -----------------------------------------------------------------------------------------------------

NUMBERS = st.lists(st.integers(-2, 4) | st.floats() | st.booleans() | st.none() | st.text(max_size=2), max_size=4)
TENSORS = st.builds(lambda shape, kind, value: torch.full(shape, value).to(kind),
                    st.lists(st.integers(0, 3), max_size=3), st.sampled_from([torch.int64, torch.float32, torch.bool]),
                    st.integers(-1, 3) | st.floats(allow_nan=True, width=32))
ANYTHING = NUMBERS | TENSORS | st.integers(-3, 9) | st.floats() | st.text(max_size=3) | st.none()


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["matrix", "answers", "temperature", "reliability", "select", "describe", "cam", "least"]),
       ANYTHING, ANYTHING)
@pytest.mark.filterwarnings("ignore")
def test_anything_gets_a_right_value_or_an_error_that_names_it(what, first, second):
    answers = Interpretation(torch.eye(3), torch.tensor([0, 1, 1]), "abc")
    calls = {
        "matrix": lambda: confusion_matrix(first, second, 3).sum() == len(first),
        "answers": lambda: len(Interpretation(first, second, "abc")) == len(first),
        "temperature": lambda: 0.04 < fit_temperature(first, second) < 21,
        "reliability": lambda: 0 <= reliability(first, second).calibration_error <= 1,
        "select": lambda: len(answers.select(first)) > 0,
        "describe": lambda: all(s.actual == answers.classes[answers.targets[s.row]] for s in answers.describe(first)),
        "cam": lambda: grad_cam(Bright(), spot(1, 1), first).classes.shape == (1,),
        "least": lambda: all(c.count >= first for c in most_confused(answers, first)),
    }
    try:
        right = calls[what]()
    except (ValueError, TypeError) as error:
        words = ("predicted", "targets", "num_classes", "scores", "logits", "Scores", "probabilities", "rows",
                 "classes", "min_val", "no image")
        assert any(word in str(error) for word in words), error
    else:
        assert right
