"""Interpretation: equal to scikit-learn, images found again, Grad-CAM by hand and on many backbones, calibration."""

import math
import re
import warnings

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from course_lib.data import Augmentation, BatchTransform, ImageLoader
from course_lib.interpret import (
    Interpretation,
    best_threshold,
    class_errors,
    conformal_threshold,
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
from course_lib.interpret.cam import CamResult, NoFeatureMapError, find_map_layer
from course_lib.interpret.measures import reliability
from course_lib.interpret.plots import confused_pair
from course_lib.learner import Callback, Learner
from course_lib.learner.features import cached_features
from course_lib.models import Classifier, GlobalPool, create_classifier
from course_lib.transfer import freeze

GENERATOR = torch.Generator().manual_seed(0)
PICTURES = np.random.default_rng(0).integers(0, 256, (30, 72, 72, 3), dtype=np.uint8)
LOWEST, HIGHEST = 0.05, 20.0  # what fit_temperature searches by default
QUICK = settings(max_examples=40, deadline=None)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def make_loader(shuffle: bool = False, augmentation: Augmentation | None = None, **options) -> ImageLoader:
    transform = BatchTransform(64, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), augmentation)
    options = {"classes": ("ant", "bee", "cow"), "prefetch": 0, **options}
    return ImageLoader(PICTURES, np.arange(30) % 3, np.arange(3, 30), transform, 8, shuffle=shuffle, drop_last=False,
                       **options)


class Tiny(nn.Module):
    """A convolution, global average pooling, a linear layer; the smallest network with a feature map."""

    def __init__(self, classes: int = 3, channels: int = 4):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, channels, 3, stride=4)
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x):
        return self.linear(self.drop(self.relu(self.norm(self.conv(x))).mean((2, 3))))


def make_learner(loader=None, model: nn.Module | None = None, **options) -> Learner:
    return Learner(model or Tiny(), loader or make_loader(), loader or make_loader(), progress=False, **options)


def some_answers(count: int = 60, classes: int = 4, seed: int = 0) -> Interpretation:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(classes, (count,), generator=generator)
    logits = torch.randn(count, classes, generator=generator) + 1.5 * nn.functional.one_hot(targets, classes)
    return Interpretation(logits, targets, tuple(f"class {i}" for i in range(classes)))


# --- figures -----------------------------------------------------------------------------------------------------

@QUICK
@given(st.integers(1, 6), st.integers(0, 80), st.randoms(use_true_random=False))
def test_the_matrix_is_that_of_scikit_learn(classes, count, random):
    from sklearn import metrics

    targets = [random.randrange(classes) for _ in range(count)]
    predicted = [random.randrange(classes) for _ in range(count)]
    ours = confusion_matrix(torch.tensor(predicted, dtype=torch.long), torch.tensor(targets, dtype=torch.long), classes)
    assert ours.shape == (classes, classes) and ours.dtype == torch.int64
    if len({*targets, *predicted}) > 1:  # for fewer it warns
        theirs = metrics.confusion_matrix(targets, predicted, labels=range(classes))
        assert ours.tolist() == theirs.tolist()
    assert ours.sum() == count


def test_losses_and_errors_are_those_of_scikit_learn():
    from sklearn import metrics

    answers = some_answers(200, 5)
    targets, probabilities = answers.targets.numpy(), answers.probabilities.double().numpy()
    log_loss = metrics.log_loss(targets, probabilities / probabilities.sum(1, keepdims=True), labels=range(5))
    assert math.isclose(answers.losses.mean().item(), log_loss, rel_tol=1e-5)
    assert math.isclose(1 - answers.error, metrics.accuracy_score(targets, answers.predicted.numpy()))
    recalls = metrics.recall_score(targets, answers.predicted.numpy(), average=None)
    assert np.allclose([1 - row.error for row in class_errors(answers)], recalls)


@QUICK
@given(st.integers(0, 10_000), st.integers(2, 7), st.integers(1, 5))
def test_most_confused_lists_what_the_matrix_holds(seed, classes, least):
    answers = some_answers(80, classes, seed)
    found = most_confused(answers, least)
    index = {name: i for i, name in enumerate(answers.classes)}
    assert [c.count for c in found] == sorted((c.count for c in found), reverse=True)
    for confusion in found:
        assert confusion.count >= least and confusion.actual != confusion.predicted
        assert confusion.count == answers.matrix[index[confusion.actual], index[confusion.predicted]]
    off_diagonal = answers.matrix.clone().fill_diagonal_(0)
    assert len(found) == (off_diagonal >= least).sum()
    assert sum(c.count for c in most_confused(answers)) == answers.wrong.sum()


@QUICK
@given(st.integers(0, 10_000), st.integers(1, 100))
def test_top_losses_are_the_largest_and_belong_to_their_rows(seed, count):
    answers = some_answers(50, 4, seed)
    top = top_losses(answers, count)
    assert len(top) == min(count, 50)
    assert [s.loss for s in top] == sorted(answers.losses.tolist(), reverse=True)[:count]
    for s in top:
        assert s.actual == answers.classes[answers.targets[s.row]]
        assert s.predicted == answers.classes[answers.logits[s.row].argmax()]
        assert math.isclose(s.probability, answers.logits[s.row].softmax(0).max().item(), rel_tol=1e-6)


def test_classes_without_images_are_defined_and_raise_no_warning():
    answers = Interpretation(torch.eye(4)[[0, 1, 1, 3]] * 9, torch.tensor([0, 1, 0, 0]), ("a", "b", "none", "never"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert answers.matrix[2].tolist() == [0, 0, 0, 0] and answers.matrix[3].tolist() == [0, 0, 0, 0]
        rows = class_errors(answers)
        assert rows[2] == ("none", 0, 0, None) and rows[3] == ("never", 0, 0, None)
        assert rows[0].error == 2 / 3 and rows[1].error == 0
        assert most_confused(answers) == [("a", "b", 1), ("a", "never", 1)]
        ax = plot_class_errors(answers)
        texts = [text.get_text().strip() for text in ax.texts]
        assert texts == ["2 of 3", "0 of 1", "no images", "no images"]  # not available is last, and is not zero
        ax = plot_confusion_matrix(answers)
        assert [label.get_text() for label in ax.get_yticklabels()][2:] == ["none (no images)", "never (no images)"]
        plot_reliability(answers)
        ax.figure.canvas.draw()


def test_the_most_confused_pair():
    def pair_of(mistakes):
        targets = [actual for actual, _ in mistakes]
        logits = torch.eye(4)[[said for _, said in mistakes]] * 5
        return confused_pair(Interpretation(logits, torch.tensor(targets), tuple("abcd")))

    assert pair_of([(0, 1), (0, 1), (2, 3), (3, 2), (2, 3)]) == (2, 3)  # both directions count
    assert pair_of([(3, 1), (0, 0)]) == (1, 3)  # the lower number first
    no_mistake = torch.tensor([[5.0, 0, 0, 2], [0, 5, 0, 0], [0, 3, 5, 0], [0, 0, 0, 5]])
    assert confused_pair(Interpretation(no_mistake, torch.arange(4), tuple("abcd"))) == (1, 2)
    with pytest.raises(ValueError, match="Only one class"):
        confused_pair(Interpretation(torch.zeros(2, 1), torch.tensor([0, 0]), ("a",)))


@pytest.mark.parametrize(("arguments", "message"), [
    ((torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), "abc"), "no image to interpret"),
    ((torch.zeros(2, 3), torch.tensor([0, 1]), "ab"), "2 classes are named .* 3 scores"),
    ((torch.zeros(2, 3), torch.tensor([0, 3]), "abc"), "from 0 to 3, but there are 3 classes"),
    ((torch.zeros(2, 3), torch.tensor([-1, 2]), "abc"), "from -1 to 2"),
    ((torch.zeros(2, 3), torch.tensor([0, 1, 2]), "abc"), "2 images but 3 targets"),
    ((torch.zeros(2, 3), torch.tensor([0.0, 1.0]), "abc"), "one whole number an image"),
    ((torch.zeros(2), torch.tensor([0, 1]), "abc"), "one score a class"),
    ((torch.tensor([[math.nan, 0, 0], [0, 0, 0]]), torch.tensor([0, 1]), "abc"), "1 of 2 images are no finite"),
])
def test_answers_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Interpretation(arguments[0], arguments[1], tuple(arguments[2]))


@pytest.mark.parametrize("least", [0, -1, 1.5, True, "5"])
def test_min_val_must_be_a_count(least):
    with pytest.raises(ValueError, match="min_val"):
        most_confused(some_answers(), least)


# --- from a learner ----------------------------------------------------------------------------------------------

def test_interpret_agrees_with_evaluate():
    from course_lib.learner import error_rate

    learner = make_learner(metrics=[error_rate])
    answers, measured = interpret(learner), learner.evaluate()
    assert math.isclose(answers.error, measured["error_rate"])
    assert math.isclose(answers.losses.mean().item(), measured["valid_loss"], rel_tol=1e-5)
    assert answers.classes == ("ant", "bee", "cow") and len(answers) == 27


@pytest.mark.parametrize("fault", ["stop", None])
def test_interpret_leaves_the_model_as_it_was(fault):
    class Fault(Callback):
        def after_evaluate_batch(self, learner):
            if fault:
                raise KeyboardInterrupt

    learner = make_learner(callbacks=[Fault()])
    learner.model.train()
    learner.model.norm.eval()
    before = {name: value.clone() for name, value in learner.model.state_dict().items()}
    try:
        interpret(learner)
        assert not fault
    except KeyboardInterrupt:
        assert fault
    assert learner.model.training and not learner.model.norm.training and learner.model.drop.training
    assert all(torch.equal(value, before[name]) for name, value in learner.model.state_dict().items())


def test_where_the_names_of_the_classes_come_from():
    data_set = TensorDataset(torch.rand(6, 3, 64, 64), torch.arange(6) % 3)
    data_set.classes = ["x", "y", "z"]  # as torchvision's ImageFolder has them
    plain = [(torch.rand(4, 3, 64, 64), torch.tensor([0, 1, 2, 0]))]
    assert interpret(make_learner(plain)).classes == ("0", "1", "2")  # nobody knows: numbers
    assert interpret(make_learner(), plain).classes == ("ant", "bee", "cow")  # from the training loader
    assert interpret(make_learner(DataLoader(Subset(data_set, [4, 2]), 2))).classes == ("x", "y", "z")
    assert interpret(make_learner(), classes=["p", "q", "r"]).classes == ("p", "q", "r")
    with pytest.raises(ValueError, match="4 classes are named"):
        interpret(make_learner(), classes="abcd")


def test_loaders_that_cannot_be_interpreted():
    learner = Learner(Tiny(), make_loader(), progress=False)
    x = torch.rand(2, 3, 64, 64)
    with pytest.raises(ValueError, match="no validation loader"):
        interpret(learner)
    with pytest.raises(ValueError, match="empty"):
        interpret(learner, [])
    with pytest.raises(ValueError, match="gave no batch"):
        interpret(learner, iter([]))
    with pytest.raises(TypeError, match="cannot be iterated"):
        interpret(learner, 5)
    with pytest.raises(ValueError, match="x alone"):
        interpret(learner, [x])
    with pytest.raises(ValueError, match="targets of shape"):
        interpret(learner, [(x, torch.rand(2, 3))])
    with pytest.raises(TypeError, match="must be a pair"):
        interpret(learner, [(x, x, x)])


def loaders_to_replay():
    x = torch.rand(20, 3, 64, 64, generator=GENERATOR)
    data_set = TensorDataset(x, torch.arange(20) % 3)
    return {
        "plain": make_loader(),
        "prefetching": make_loader(prefetch=1),
        "shuffled": make_loader(shuffle=True),
        "augmented": make_loader(shuffle=True, augmentation=Augmentation()),
        "list": [(x[:12], torch.arange(12) % 3), (x[12:], torch.arange(8) % 3)],
        "DataLoader": DataLoader(data_set, 8),
        "DataLoader, shuffled": DataLoader(data_set, 8, shuffle=True),
        "DataLoader, own generator": DataLoader(data_set, 8, shuffle=True, generator=torch.Generator().manual_seed(1)),
    }


@pytest.mark.parametrize("name", loaders_to_replay())
def test_every_image_is_found_again(name):
    """The image of a row, given to the model again, gets the answer of that row, whatever the loader does."""
    learner = make_learner(loaders_to_replay()[name])
    for _ in range(2):  # also in a later epoch
        answers = interpret(learner)
    torch.rand(3)  # time goes by
    epoch, numbers = getattr(learner.valid_loader, "epoch", None), torch.get_rng_state()
    rows = [len(answers) - 1, 0, 7, 0]
    again = learner.predict(answers.replay.inputs(rows)).logits
    torch.testing.assert_close(again, answers.logits[rows], rtol=1e-4, atol=1e-5)
    assert getattr(learner.valid_loader, "epoch", None) == epoch and torch.equal(torch.get_rng_state(), numbers)


def test_a_loader_that_gives_something_else_is_noticed():
    class Restless:
        def __iter__(self):
            yield torch.rand(4, 3, 64, 64, generator=GENERATOR), torch.tensor([0, 1, 2, 0])

    learner = make_learner(Restless())
    answers = interpret(learner)
    with pytest.raises(ValueError, match="other images"):
        show_top_losses(answers)
    once = interpret(learner, iter([next(iter(Restless()))]))
    assert len(once) == 4
    with pytest.raises(ValueError, match="only once"):
        show_top_losses(once)
    with pytest.raises(IndexError, match="from 0 to 3"):
        answers.replay.inputs([4])
    with pytest.raises(IndexError):
        answers.replay.inputs([])


def test_a_replay_that_fails_puts_everything_back():
    class Breaking:
        epoch = 0

        def __iter__(self):
            self.epoch += 1
            torch.rand(1)
            if self.broken:
                raise OSError("disk gone")
            yield torch.rand(4, 3, 64, 64), torch.tensor([0, 1, 2, 0])

    loader = Breaking()
    loader.broken = False
    replay = Replay(loader)
    list(replay)
    loader.broken, numbers = True, torch.get_rng_state()
    with pytest.raises(OSError, match="disk gone"):
        replay.inputs([0])
    assert loader.epoch == 1 and torch.equal(torch.get_rng_state(), numbers)


# --- pictures ----------------------------------------------------------------------------------------------------

def test_the_normalisation_is_undone_exactly():
    transform = BatchTransform(72, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))  # the size of the stored images
    loader = ImageLoader(PICTURES, np.arange(30) % 3, np.arange(5, 15), transform, 4, prefetch=0)
    shown = interpret(make_learner(loader)).images([0, 9])
    assert shown.shape == (2, 72, 72, 3) and np.abs(shown - PICTURES[[5, 14]] / 255).max() < 1e-5


def test_normalisation_of_a_torchvision_transform_is_found():
    from torchvision.transforms import v2

    class Folder(torch.utils.data.Dataset):
        transform = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True),
                                v2.Normalize((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))])

        def __len__(self):
            return 6

        def __getitem__(self, index):
            return self.transform(PICTURES[index]), index % 3

    answers = interpret(make_learner(DataLoader(Subset(Folder(), [2, 3, 4]), 2)))
    assert np.abs(answers.images([2]) - PICTURES[4] / 255).max() < 1e-5


def test_unknown_normalisation_is_stretched_and_grey_stays_grey():
    x = 7 + 3 * torch.rand(4, 3, 64, 64, generator=GENERATOR)
    shown = interpret(make_learner([(x, torch.tensor([0, 1, 2, 0]))])).images([1, 2])
    assert np.isclose(shown.min(), 0) and np.isclose(shown.max(), 1) and shown.dtype == np.float32
    grey_model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    grey = interpret(make_learner([(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0]))], grey_model))
    assert grey.images([0]).shape == (1, 8, 8, 3)
    flat = interpret(make_learner([(torch.ones(2, 3, 64, 64), torch.tensor([0, 1]))]))
    assert np.isfinite(flat.images([0])).all()  # an even picture has no spread to divide by


def test_what_is_no_image_cannot_be_shown():
    vectors = interpret(make_learner([(torch.rand(4, 5), torch.tensor([0, 1, 2, 0]))], nn.Linear(5, 3)))
    with pytest.raises(ValueError, match="no image of 1 or 3 channels"):
        show_top_losses(vectors)
    with pytest.raises(ValueError, match="knows no images"):
        show_most_confused(some_answers())


def test_interpreting_kept_features_gives_the_same_answers():
    torch.manual_seed(0)
    learner = make_learner(model=create_classifier("resnet18", 3, pretrained=False))
    freeze(learner)
    live = interpret(learner)
    with cached_features(learner, echo=lambda text: None) as kept:
        from_features = interpret(learner)
    assert kept
    torch.testing.assert_close(live.logits, from_features.logits, rtol=1e-3, atol=1e-3)


def all_plots(answers: Interpretation, model: nn.Module):
    yield lambda ax: plot_confusion_matrix(answers, ax=ax), True
    yield lambda ax: plot_class_errors(answers, ax=ax), True
    yield lambda ax: plot_reliability(answers, ax=ax), True
    yield lambda ax: show_top_losses(answers, 5), False
    yield lambda ax: show_top_losses(answers, 3, columns=2), False
    yield lambda ax: show_most_confused(answers), False
    yield lambda ax: show_most_confused(answers, ("cow", "ant"), count=2), False
    yield lambda ax: show_grad_cam(model, answers, [0, 3]), False
    yield lambda ax: show_grad_cam(model, answers, [0, 3], of="actual", layer="conv"), False


def test_plots_return_axes_draw_where_told_and_warn_of_nothing():
    learner = make_learner()
    answers = interpret(learner)
    style = dict(matplotlib.rcParams)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for draw, takes_ax in all_plots(answers, learner.model):
            drawn = draw(None)
            for ax in np.ravel(drawn):
                assert isinstance(ax, Axes)
            np.ravel(drawn)[0].figure.canvas.draw()
            if takes_ax:
                ax = plt.subplots()[1]
                assert draw(ax) is ax
    assert dict(matplotlib.rcParams) == style


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4, 12, 37, 80])
def test_the_matrix_is_drawn_with_labels_for_any_number_of_classes(count):
    answers = some_answers(8 * count, count)
    ax = plot_confusion_matrix(answers)
    figure = ax.figure
    figure.canvas.draw()
    assert len(ax.get_xticklabels()) == len(ax.get_yticklabels()) == count
    assert len(ax.texts) == (answers.matrix > 0).sum()  # empty cells stay empty
    assert max(figure.get_size_inches()) <= 12
    boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
    if count <= 37:  # no label covers the next
        assert all(not a.overlaps(b) for a, b in zip(boxes, boxes[1:], strict=False))
    rgb = ax.images[0].get_array()
    wrong = int(torch.argmax(answers.matrix.clone().fill_diagonal_(0)))
    red, _, blue = rgb[wrong // count, wrong % count]
    assert red > blue and rgb[0, 0][2] > rgb[0, 0][0]  # mistakes are red, what is right is blue


def test_side_by_side_shows_the_images_it_says():
    answers = interpret(make_learner())
    axes = show_most_confused(answers, ("ant", "bee"))
    assert axes.shape == (2, 2)
    counts = [int(re.search(r": (\d+)$", ax.get_title()).group(1)) for ax in axes.flat]
    assert counts == [answers.matrix[0, 0], answers.matrix[1, 1], answers.matrix[0, 1], answers.matrix[1, 0]]
    for ax, total in zip(axes.flat, counts, strict=True):
        assert len([t for t in ax.texts if t.get_text().endswith("sure")]) == min(total, 6)
    with pytest.raises(ValueError, match="no class 'dog'"):
        show_most_confused(answers, ("ant", "dog"))


# --- Grad-CAM ----------------------------------------------------------------------------------------------------

def cam_by_weights(model: Classifier, x: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Zhou et al. 2016: the feature maps, weighted by the linear layer's weights for the class."""
    with torch.no_grad():
        maps = model.eval().body(x)
        return torch.einsum("nc,nchw->nhw", model.head.linear.weight[classes], maps).relu()


BACKBONES = ["efficientnet_lite0", "resnet18", "mobilenet_v3_small", "vgg11", "densenet121", "convnext_tiny",
             "squeezenet1_1", "swin_t", "regnet_y_400mf", "shufflenet_v2_x0_5", "mnasnet0_5", "timm/resnet18",
             "timm/edgenext_xx_small", "timm/swin_tiny_patch4_window7_224", "timm/repvgg_a0"]


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_grad_cam_is_cam_on_every_kind_of_backbone(name):
    torch.manual_seed(0)
    model = create_classifier(name, 3, pretrained=False)
    weight = nn.init.normal_(model.head.linear.weight)
    with torch.no_grad():
        weight[2] = -weight[0]  # so that one of them has evidence somewhere
    size = 224 if "swin" in name else 96
    x, classes = torch.randn(1, 3, size, size).repeat(2, 1, 1, 1), torch.tensor([2, 0])
    model.train()
    frozen = name in BACKBONES[::2]  # both ways
    model.body.requires_grad_(not frozen)
    expected = cam_by_weights(model, x, classes)
    model.train()
    result = grad_cam(model, x, classes)
    assert result.maps.ndim == 3 and (result.maps >= 0).all() and result.classes.tolist() == [2, 0]
    places = result.maps[0].numel()
    assert places > 1
    torch.testing.assert_close(result.maps * places, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())
    assert result.maps.max() > 0
    assert all(p.requires_grad is not frozen and p.grad is None for p in model.body.parameters())


def test_grad_cam_of_a_case_solved_by_hand():
    """Two channels on 1 x 3 places; the head takes the average, a hidden layer with ReLU, and a linear layer."""
    model = Classifier(nn.Identity(), nn.Sequential(GlobalPool(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)))
    with torch.no_grad():
        model.head[1].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, -1.0]]))
        model.head[1].bias.copy_(torch.tensor([0.0, 3.0]))
        model.head[3].weight.copy_(torch.tensor([[1.0, 0.0], [2.0, 5.0]]))
        model.head[3].bias.zero_()
    x = torch.tensor([[[[3.0, 6.0, 0.0]], [[1.0, 2.0, 0.0]]]])
    # averages 3 and 1; hidden units 3 and 2, both above zero; score of class 1: 2 * 3 + 5 * 2 = 16.
    # d score / d average = (2, -5), so each place of channel 1 has 2/3 and of channel 2 has -5/3:
    # places: 2/3 * 3 - 5/3 * 1 = 1/3;  2/3 * 6 - 5/3 * 2 = 2/3;  0
    result = grad_cam(model, x, 1)
    assert result.logits.tolist() == [[3.0, 16.0]]
    torch.testing.assert_close(result.maps, torch.tensor([[[1 / 3, 2 / 3, 0.0]]]))
    # class 0 hangs on channel 1 alone: 1/3 of (3, 6, 0)
    torch.testing.assert_close(grad_cam(model, x, 0).maps, torch.tensor([[[1.0, 2.0, 0.0]]]))
    assert grad_cam(model, x).classes.tolist() == [1]  # by default what is predicted


def test_a_feature_has_one_weight_the_mean_of_its_gradient():
    """A head that knows places: Grad-CAM averages the gradient over them (the paper's equation 1)."""
    model = Classifier(nn.Identity(), nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False)))
    with torch.no_grad():
        model.head[1].weight[0] = torch.tensor([1.0, 3.0, -2.0, 0.0])  # channel 1: mean 2; channel 2: mean -1
    x = torch.tensor([[[[1.0, 2.0]], [[1.0, 3.0]]]])
    torch.testing.assert_close(grad_cam(model, x, 0).maps, torch.tensor([[[2 * 1 - 1 * 1.0, 2 * 2 - 1 * 3.0]]]))


def test_a_layer_that_works_in_place_after_the_map_changes_nothing():
    model, x = Tiny(), torch.randn(2, 3, 32, 32, generator=GENERATOR)
    in_place = grad_cam(model, x, 1, layer="norm")
    model.relu.inplace = False
    torch.testing.assert_close(grad_cam(model, x, 1, layer="norm"), in_place)


def test_images_of_a_batch_do_not_mix():
    torch.manual_seed(0)
    model, x = create_classifier("resnet18", 4, pretrained=False), torch.randn(3, 3, 96, 96)
    together = grad_cam(model, x, [0, 1, 2]).maps
    alone = torch.cat([grad_cam(model, x[i:i + 1], i).maps for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-6)


def hooks_of(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules())


def snapshot(model: nn.Module) -> tuple:
    return ([m.training for m in model.modules()], hooks_of(model),
            [(p.requires_grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()],
            [t.clone() for t in (*model.parameters(), *model.buffers())], torch.is_grad_enabled())


def assert_same(before: tuple, after: tuple) -> None:
    assert before[:2] == after[:2] and before[4] == after[4]
    for (flag, gradient), (flag_now, gradient_now) in zip(before[2], after[2], strict=True):
        assert flag == flag_now
        assert (gradient is None) == (gradient_now is None) and (gradient is None or gradient.equal(gradient_now))
    assert all(torch.equal(old, new) for old, new in zip(before[3], after[3], strict=True))


class Exploding(nn.Module):
    def forward(self, x):
        raise RuntimeError("boom")


@pytest.mark.parametrize("how", ["fine", "bad layer", "no such layer", "bad class", "boom", "interrupt", "no map"])
@pytest.mark.parametrize("mode", ["train", "eval", "mixed"])
@pytest.mark.parametrize("kind", ["frozen", "free", "plain"])
def test_everything_is_as_it_was(how, mode, kind):
    torch.manual_seed(0)
    model = Tiny() if kind == "plain" else Classifier(
        nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
        nn.Sequential(GlobalPool(), nn.Dropout(0.5), nn.Linear(4, 3)))
    if kind == "frozen":
        model.body.requires_grad_(False)
    model.train(mode != "eval")
    if mode == "mixed":
        next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn_like(parameter)  # left by a training that goes on
    x, options, expected = torch.randn(2, 3, 32, 32), {}, None
    last = "linear" if kind == "plain" else "head.2"
    if how == "bad layer":
        options, expected = {"layer": last}, NoFeatureMapError
    elif how == "no such layer":
        options, expected = {"layer": "nowhere"}, ValueError
    elif how == "bad class":
        options, expected = {"classes": 3}, ValueError
    elif how == "no map":
        x, expected = torch.randn(2, 3, 4, 4), NoFeatureMapError
    before = snapshot(model)
    if how in ("boom", "interrupt"):
        error = RuntimeError("boom") if how == "boom" else KeyboardInterrupt()
        expected, layer = type(error), model.get_submodule(last)
        forward = layer.forward

        def fail(x):
            if torch.is_grad_enabled():  # not while the layer is searched
                raise error
            return forward(x)

        layer.forward = fail
    if expected:
        with pytest.raises(expected):
            grad_cam(model, x, **options)
    else:
        grad_cam(model, x, **options)
    assert_same(before, snapshot(model))
    assert not x.requires_grad and x.grad is None


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_grad_cam_works_where_gradients_are_switched_off(around):
    torch.manual_seed(0)
    model = Tiny()
    x = torch.randn(2, 3, 32, 32)
    expected = grad_cam(model, x, 1).maps
    with around():
        torch.testing.assert_close(grad_cam(model, x.clone(), 1).maps, expected)


def test_which_layer_is_taken():
    x = torch.randn(1, 3, 96, 96)
    assert find_map_layer(create_classifier("resnet18", 3, pretrained=False), x)[0] == "body"
    from torchvision import models

    assert find_map_layer(models.resnet18().eval(), x)[0] == "layer4"
    assert find_map_layer(models.mobilenet_v3_small().eval(), x)[0] == "features"
    model = models.resnet18()
    assert find_map_layer(model, x, model.layer2[1])[0] == "layer2.1"
    assert grad_cam(model, x, layer="layer2").maps.shape == (1, 12, 12)
    assert grad_cam(model, x, layer=model.layer3).maps.shape == (1, 6, 6)
    with pytest.raises(ValueError, match="no layer"):
        find_map_layer(model, x, nn.ReLU())


class Aside(Tiny):
    """A network with a layer that runs but has no say, and one that never runs."""

    def __init__(self):
        super().__init__()
        self.aside, self.unused = nn.Conv2d(3, 2, 3), nn.Conv2d(3, 2, 3)

    def forward(self, x):
        self.aside(x)
        return super().forward(x)


def test_models_and_images_without_places_to_point_at():
    x = torch.randn(2, 3, 96, 96)
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(3 * 96 * 96, 3))
    with pytest.raises(NoFeatureMapError, match="no feature map"):
        grad_cam(mlp, x)
    vit = create_classifier("vit_b_32", 3, pretrained=False)
    with pytest.raises(NoFeatureMapError, match=r"'body' of Classifier gives shape \(1, 768\)"):
        grad_cam(vit, torch.randn(1, 3, 224, 224))
    with pytest.raises(NoFeatureMapError, match="no feature map"):  # its patches are a map, but at the beginning
        grad_cam(vit.body.network, torch.randn(1, 3, 224, 224))
    with pytest.raises(NoFeatureMapError, match="more than one place"):
        grad_cam(create_classifier("resnet18", 3, pretrained=False), x[:, :, :32, :32])
    for layer in ("aside", "unused"):
        with pytest.raises(ValueError, match="no influence"):
            grad_cam(Aside(), x, layer=layer)
    for wrong in (x[0], x[:0], torch.randn(2, 3)):
        with pytest.raises(ValueError, match="Grad-CAM takes images"):
            grad_cam(Tiny(), wrong)
    with pytest.raises(ValueError, match="3 classes were given for 2 images"):
        grad_cam(Tiny(), x, [0, 1, 2])
    with pytest.raises(ValueError, match="one score a class"):
        grad_cam(nn.Sequential(nn.Conv2d(3, 2, 3)), x)
    with pytest.raises(ValueError, match="of = 'both'"):
        show_grad_cam(Tiny(), some_answers(), [0], of="both")


def test_an_overlay_leaves_cold_places_alone():
    picture, cold = np.full((8, 8, 3), 0.5, dtype=np.float32), torch.zeros(2, 2)
    maps = torch.stack([cold, torch.tensor([[0.0, 0.0], [0.0, 3.0]])])
    same, hot = CamResult(maps, torch.zeros(2, 3), torch.zeros(2, dtype=torch.long)).over(np.stack([picture] * 2))
    assert np.array_equal(same, picture)
    assert np.allclose(hot[0, 0], 0.5) and hot[-1, -1, 0] > 0.6 and hot[-1, -1, 2] < 0.4
    assert 0 <= hot.min() <= hot.max() <= 1


# --- calibration -------------------------------------------------------------------------------------------------

def test_calibration_error_of_a_case_solved_by_hand():
    # ten bins; confidence 0.55, 0.58 (one right), 0.93 (right), 0.95 (wrong), 0.97 (right), 1.0 (right)
    confidence = torch.tensor([0.55, 0.58, 0.93, 0.95, 0.97, 1.0], dtype=torch.float64)
    probabilities = torch.stack([confidence, 1 - confidence], dim=1)
    targets = torch.tensor([0, 1, 0, 1, 0, 0])
    result = reliability(probabilities, targets)
    assert result.counts.tolist() == [0, 0, 0, 0, 0, 2, 0, 0, 0, 4]
    assert math.isclose(result.accuracy[5], 0.5) and math.isclose(result.confidence[5], 0.565)
    assert math.isclose(result.accuracy[9], 0.75) and math.isclose(result.confidence[9], 0.9625)
    assert math.isclose(result.calibration_error, 2 / 6 * 0.065 + 4 / 6 * 0.2125, abs_tol=1e-12)
    # a single bin: the difference of the two means
    assert math.isclose(reliability(probabilities, targets, 1).calibration_error, 4.98 / 6 - 4 / 6, abs_tol=1e-12)


def test_an_edge_belongs_to_the_bin_below_it():
    probabilities = torch.tensor([[0.5, 0.25, 0.25], [0.75, 0.25, 0.0]], dtype=torch.float64)
    assert reliability(probabilities, torch.tensor([0, 0]), bins=4).counts.tolist() == [0, 1, 1, 0]
    certain = torch.tensor([[1.0, 0.0]])
    assert reliability(certain, torch.tensor([0]), bins=4).counts.tolist() == [0, 0, 0, 1]


@QUICK
@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(1, 20))
def test_calibration_error_is_that_of_a_plain_loop(seed, classes, bins):
    answers = some_answers(60, classes, seed)
    expected, confidence = 0.0, answers.probabilities.double().max(1).values
    for number in range(bins):
        inside = (confidence > number / bins) & (confidence <= (number + 1) / bins)
        if inside.any():
            right = (~answers.wrong[inside]).double().mean()
            expected += inside.double().mean().item() * abs(right - confidence[inside].mean()).item()
    measured = reliability(answers.probabilities, answers.targets, bins).calibration_error
    assert math.isclose(measured, expected, abs_tol=1e-9) and 0 <= measured <= 1


@pytest.mark.parametrize(("probabilities", "bins", "message"), [
    (torch.randn(4, 3), 10, "no probabilities"), (torch.full((4, 3), 0.5), 10, "no probabilities"),
    (torch.zeros(0, 3), 10, "at least one"), (torch.full((3, 3), 1 / 3), 10, "one row"),
    (torch.full((4, 3), 1 / 3), 0, "bins"), (torch.full((4, 3), 1 / 3), 2.5, "bins"),
])
def test_what_has_no_calibration_error(probabilities, bins, message):
    with pytest.raises(ValueError, match=message):
        reliability(probabilities, torch.zeros(4 if len(probabilities) else 0, dtype=torch.long), bins)


@QUICK
@given(st.integers(0, 10_000), st.floats(0.3, 4))
def test_the_temperature_is_the_best_one(seed, scale):
    answers = some_answers(80, 4, seed)
    logits = answers.logits * scale
    best = fit_temperature(logits, answers.targets)
    loss = lambda temperature: nn.functional.cross_entropy(logits.double() / temperature, answers.targets).item()
    assert LOWEST <= best <= HIGHEST * (1 + 1e-9)
    assert loss(best) <= min(loss(best * 1.02), loss(best / 1.02), loss(1.0)) + 1e-9
    cooled = Interpretation(logits, answers.targets, answers.classes).at_temperature(best)
    assert torch.equal(cooled.predicted, answers.predicted)
    assert math.isclose(cooled.losses.mean(), loss(best), rel_tol=1e-4)


def test_the_temperature_undoes_a_scale():
    answers = some_answers(200, 3, 1)
    best = fit_temperature(answers.logits, answers.targets)
    assert math.isclose(fit_temperature(answers.logits * 3, answers.targets), 3 * best, rel_tol=1e-6)


def test_the_ends_of_the_temperature():
    right = torch.eye(3)
    assert math.isclose(fit_temperature(right, torch.arange(3)), LOWEST, rel_tol=1e-6)  # all right
    assert math.isclose(fit_temperature(right, torch.tensor([1, 2, 0])), HIGHEST, rel_tol=1e-6)  # all wrong
    assert LOWEST <= fit_temperature(torch.zeros(3, 3), torch.arange(3)) <= HIGHEST * 1.0001
    with pytest.raises(ValueError, match="at least one"):
        fit_temperature(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    for wrong in (0, -1, math.inf, math.nan):
        with pytest.raises(ValueError, match="temperature"):
            some_answers().at_temperature(wrong)


def test_some_rows_keep_what_belongs_together():
    answers = some_answers(30)
    part = answers.select([4, 20, 4])
    assert torch.equal(part.targets, answers.targets[[4, 20, 4]])
    assert torch.equal(part.losses, answers.losses[[4, 20, 4]])
    assert part.replay is None and part.classes == answers.classes


def test_rows_of_a_tensor_and_a_learner_will_do():
    learner = make_learner()
    answers = interpret(learner)
    for rows in (answers.losses.argsort(descending=True)[:3], torch.tensor(2), [1]):
        assert len(show_grad_cam(learner, answers, rows).flat) >= 2
    torch.testing.assert_close(grad_cam(learner, torch.ones(1, 3, 16, 16)).maps,
                               grad_cam(learner.model, torch.ones(1, 3, 16, 16)).maps)


@pytest.mark.parametrize("columns", [0, 1, 3, 2.0, True])
def test_image_and_map_stand_in_one_line(columns):
    learner = make_learner()
    with pytest.raises(ValueError, match="even number"):
        show_grad_cam(learner.model, interpret(learner), [0], columns=columns)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_temperature_for_no_numbers_is_refused(value):
    logits = torch.randn(5, 3)
    logits[2, 1] = value
    with pytest.raises(ValueError, match="no finite numbers"):
        fit_temperature(logits, torch.zeros(5, dtype=torch.long))


@pytest.mark.parametrize("count", [0, -1, 1.5])
def test_at_least_one_image_of_each_kind(count):
    with pytest.raises(ValueError, match="at least 1"):
        show_most_confused(some_answers(), count=count)


@pytest.mark.parametrize("tenths", range(6, 11))
def test_a_bin_holds_its_upper_edge_also_in_float32(tenths):
    probabilities = torch.tensor([[tenths / 10, 1 - tenths / 10]])
    assert reliability(probabilities, torch.tensor([0])).counts.tolist().index(1) == tenths - 1


# --- decisions ---------------------------------------------------------------------------------------------------

def cost_at(threshold, scores, positive, miss, false_alarm) -> float:
    alarms = [score >= threshold for score in scores]
    return sum(miss * (right and not alarm) + false_alarm * (alarm and not right)
               for alarm, right in zip(alarms, positive, strict=True))


@QUICK
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.5, 0.7]) | st.floats(-1e308, 1e308), st.booleans()),
                min_size=1, max_size=30), st.floats(0.01, 100), st.floats(0.01, 100))
def test_no_threshold_costs_less(pairs, miss, false_alarm):
    scores, positive = zip(*pairs, strict=True)
    found = best_threshold(torch.tensor(scores, dtype=torch.float64), torch.tensor(positive), miss=miss,
                           false_alarm=false_alarm)
    cost = cost_at(found, scores, positive, miss, false_alarm)
    for other in (*scores, math.inf, -math.inf):
        assert cost <= cost_at(other, scores, positive, miss, false_alarm) * (1 + 1e-5) + 1e-9


def test_a_threshold_solved_by_hand():
    scores, positive = torch.tensor([0.9, 0.6, 0.4, 0.1]), torch.tensor([True, False, True, False])
    assert math.isclose(best_threshold(scores, positive, miss=10), 0.25, abs_tol=1e-6)  # both found, one false alarm
    assert math.isclose(best_threshold(scores, positive, false_alarm=10), 0.75, abs_tol=1e-6)
    assert best_threshold(scores, torch.zeros(4, dtype=torch.bool)) == math.inf  # nothing to find: never
    assert math.isclose(best_threshold(scores, torch.ones(4, dtype=torch.bool)), 0.1, abs_tol=1e-6)  # always
    equal = best_threshold(torch.tensor([0.5, 0.5, 0.2]), torch.tensor([True, False, False]), miss=5)
    assert 0.2 < equal < 0.5 + 1e-9  # equal scores get equal answers


@pytest.mark.parametrize(("arguments", "options", "message"), [
    (([], []), {}, "scores"), (([math.nan], [True]), {}, "scores"), (([0.5], [1]), {}, "True or False"),
    (([0.5], [True, False]), {}, "positive"), (([0.5], [True]), {"miss": 0}, "miss"),
    (([0.5], [True]), {"false_alarm": -1}, "false_alarm"),
])
def test_what_has_no_best_threshold(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        best_threshold(*arguments, **options)


def test_the_conformal_limit_counts_one_image_more():
    right = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.35, 0.3, 0.2], dtype=torch.float64)
    probabilities = torch.stack([right, 1 - right], dim=1)
    targets = torch.zeros(9, dtype=torch.long)
    assert conformal_threshold(probabilities, targets, 0.9) == 0.2  # (9 + 1) * 0.9 = 9: the ninth largest
    assert conformal_threshold(probabilities, targets, 0.5) == 0.5
    assert conformal_threshold(probabilities, targets, 0.95) == 0.0  # 10 of 9: every class
    for wrong in (0, 1, math.nan, "0.9"):
        with pytest.raises(ValueError, match="coverage"):
            conformal_threshold(probabilities, targets, wrong)
    with pytest.raises(ValueError, match="no probabilities"):
        conformal_threshold(torch.randn(9, 2), targets)


def test_conformal_sets_hold_the_right_class_as_often_as_promised():
    """Over many draws of a bad network's answers, the mean coverage lies between the promise and a little above."""
    covered = []
    for seed in range(60):
        answers = some_answers(200, 4, seed)
        half, other = range(100), range(100, 200)
        limit = conformal_threshold(answers.probabilities[half], answers.targets[half], 0.8)
        inside = answers.probabilities[other].double() >= limit
        covered.append(inside.gather(1, answers.targets[other][:, None]).double().mean().item())
    assert 0.8 - 0.01 <= np.mean(covered) <= 0.8 + 1 / 101 + 0.01


def test_contours_leave_the_photograph_alone():
    answers = interpret(make_learner())
    axes = show_grad_cam(make_learner().model, answers, [0, 1], layer="conv")
    for plain, marked in zip(axes[::2], axes[1::2], strict=True):
        assert np.array_equal(plain.images[0].get_array(), marked.images[0].get_array())
        assert not plain.collections and plain.images[0].get_array().shape == (64, 64, 3)
    assert any(ax.collections for ax in axes[1::2])
