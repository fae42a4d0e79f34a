"""Half of the bits: what is refused, what it leaves alone, and that a training with it can be taken up again."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import course_lib.app.train as training
from course_lib.learner import (
    Callback,
    Learner,
    load_checkpoint,
    preserved,
    resume_training,
    save_checkpoint,
)
from course_lib.learner.strategy import MixedPrecision, ScaledPrecision, Strategy, create_strategy
from course_lib.lr_finder import lr_find
from course_lib.models import create_classifier
from course_lib.settings import CourseSettings
from course_lib.transfer import OneCycle


def make_learner(precision="no", **options) -> Learner:
    torch.manual_seed(0)
    x = torch.randn(48, 6)
    batches = [(part, (part.sum(1) > 0).long()) for part in x.split(12)]
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 2))
    return Learner(model, batches, batches, progress=False, mixed_precision=precision, **options)


def make_scaled(scale=2.0**10, **options) -> Learner:
    """As on a GPU with fp16; PyTorch can do it on a CPU too, slowly."""
    learner = make_learner(**options)
    learner.strategy = ScaledPrecision(torch.autocast("cpu", dtype=torch.float16),
                                        torch.amp.GradScaler("cpu", init_scale=scale))
    return learner


@pytest.mark.parametrize("word, said", [("half", "Allowed: no, bf16, fp16"), ("fp16", "Use 'bf16', or 'no'")])
def test_a_learner_refuses_what_cannot_be(word, said):
    with pytest.raises(ValueError, match=said):
        make_learner(word)


@pytest.mark.parametrize("word", ["half", "fp16"])
def test_course_train_refuses_it_before_it_writes(word, tmp_path):
    settings = CourseSettings(profile_name="test", device="cpu", data_dir=tmp_path / "data")
    with pytest.raises(ValueError, match="mixed_precision"):
        training.train_classifier(settings, output=tmp_path / "out", mixed_precision=word)
    assert not list(tmp_path.iterdir())


def test_the_launchers_precision_is_not_silently_dropped(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(ValueError, match="course train --mixed-precision bf16"):
        training.train_classifier(CourseSettings(profile_name="test", device="cpu"), output=tmp_path / "out")


@pytest.mark.slow
def test_without_it_accelerate_is_not_imported():
    code = ("import sys, torch; from course_lib.learner import Learner; from torch import nn\n"
            "learner = Learner(nn.Linear(2, 2), [(torch.ones(4, 2), torch.tensor([0, 1, 0, 1]))], progress=False)\n"
            "learner.fit(1); import course_lib.app.train\n"
            "assert 'accelerate' not in sys.modules")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert type(make_learner().strategy) is Strategy


def test_learners_of_each_kind_live_side_by_side():
    from accelerate.state import AcceleratorState, PartialState

    learners = [make_learner("bf16"), make_learner("no"), make_learner("bf16")]
    for learner in learners:
        torch.manual_seed(1)
        learner.fit(2)
    assert learners[0].recorder.losses == learners[2].recorder.losses != learners[1].recorder.losses
    assert type(learners[0].strategy) is MixedPrecision
    assert AcceleratorState._shared_state == {} == PartialState._shared_state


def test_evaluation_and_predictions_use_it_and_come_in_float32():
    learner = make_learner("bf16")
    seen = []
    learner.model[0].register_forward_hook(lambda layer, inputs, output: seen.append(output.dtype))
    loss, logits = learner.evaluate()["valid_loss"], learner.predict().logits
    assert set(seen) == {torch.bfloat16} and logits.dtype == torch.float32
    targets = torch.cat([y for _, y in learner.valid_loader])
    assert loss == pytest.approx(nn.functional.cross_entropy(logits, targets).item(), abs=1e-6)


class Depthwise(nn.Module):
    """A convolution over all channels, and one for each channel, or for some."""

    def __init__(self, kernel=3, stride=2, groups=8):
        super().__init__()
        self.pointwise = nn.Conv2d(3, 8, 1)
        self.depthwise = nn.Conv2d(8, 8, kernel, stride, padding=kernel // 2, groups=groups)

    def forward(self, x):
        return self.depthwise(self.pointwise(x)).mean((2, 3))


def depthwise_seen(model: nn.Module, x: torch.Tensor) -> tuple[torch.dtype, bool]:
    """The type of what the depthwise layer of `model` gives in bf16, and whether its gradients are those made here."""
    seen = []
    hook = model.depthwise.register_forward_hook(lambda layer, inputs, output: seen.append(output))
    create_strategy("bf16").forward(model, x)
    hook.remove()
    return seen[0].dtype, "DepthwiseInHalves" in str(seen[0].grad_fn)


@pytest.mark.parametrize("kernel, stride, groups, own", [
    (3, 2, 8, True), (5, 1, 8, True), (3, 1, 8, False), (3, 2, 4, False), (5, 1, 1, False)])
def test_only_convolutions_whose_gradients_are_slow_in_bf16_get_others(kernel, stride, groups, own):
    model, x = Depthwise(kernel, stride, groups), torch.randn(2, 3, 8, 8)
    assert depthwise_seen(model, x) == (torch.bfloat16, own)
    with torch.no_grad():  # without gradients bf16 is quick
        assert depthwise_seen(model, x) == (torch.bfloat16, False)


def test_weights_in_halves_and_padding_in_words_are_left_to_pytorch():
    model, x = Depthwise(), torch.randn(2, 3, 8, 8)
    model.depthwise.bfloat16()
    assert depthwise_seen(model, x) == (torch.bfloat16, False)
    model = Depthwise(5, 1)
    model.depthwise.padding = "same"
    assert depthwise_seen(model, x) == (torch.bfloat16, False)


def test_a_layer_with_a_forward_of_its_own_keeps_it():
    model = Depthwise()
    model.depthwise.forward = mine = lambda x: x + 1
    create_strategy("bf16").forward(model, torch.randn(2, 3, 8, 8))
    assert model.depthwise.forward is mine


@pytest.mark.parametrize("kernel", [3, 5, (3, 5)])
@pytest.mark.parametrize("stride, padding, dilation, bias", [
    (1, 2, 1, False), (2, 1, 1, True), ((1, 2), (0, 2), 1, False), (2, 2, 2, True)])
def test_its_gradients_are_those_of_float32_but_for_rounding(kernel, stride, padding, dilation, bias):
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 6, kernel, stride, padding, dilation, groups=6, bias=bias)
    x = torch.randn(4, 6, 12, 11).bfloat16().float()  # so that the input itself is exact
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(parameter.bfloat16())
    found = {}
    for word in ("no", "bf16"):
        layer.zero_grad()
        own = x.clone().requires_grad_()
        y = create_strategy(word).forward(layer, own)
        y.backward(torch.ones_like(y))
        found[word] = y, own.grad, *(parameter.grad for parameter in layer.parameters())
        assert all(one.dtype == torch.float32 for one in found[word])
    for full, half in zip(*found.values(), strict=True):
        torch.testing.assert_close(half, full, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("kernel, stride, of_x, of_weight", [
    (3, 2, torch.float32, torch.bfloat16), (5, 1, torch.bfloat16, torch.float32), (5, 2, torch.float32, torch.float32)])
def test_only_the_slow_gradient_is_computed_in_float32(kernel, stride, of_x, of_weight):
    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if "convolution_backward" in str(func):
                seen.append((tuple(args[-1][:2]), args[0].dtype))
            return func(*args, **(kwargs or {}))

    seen: list = []
    layer = nn.Conv2d(6, 6, kernel, stride, groups=6)
    y = create_strategy("bf16").forward(layer, torch.randn(2, 6, 9, 9, requires_grad=True))
    with Watch():
        y.sum().backward()
    assert seen == [((True, False), of_x), ((False, True), of_weight)]


def test_what_needs_no_gradient_gets_none():
    torch.manual_seed(0)
    layer, strategy = nn.Conv2d(6, 6, 5, 2, groups=6), create_strategy("bf16")
    strategy.forward(layer, torch.randn(2, 6, 9, 9)).sum().backward()
    whole = [parameter.grad for parameter in layer.parameters()]
    assert all(one is not None for one in whole)
    layer.requires_grad_(False)
    x = torch.randn(2, 6, 9, 9, requires_grad=True)
    strategy.forward(layer, x).sum().backward()
    assert x.grad is not None and all(one is parameter.grad for one, parameter in zip(whole, layer.parameters(),
                                                                                      strict=True))


@pytest.mark.slow
def test_blocks_that_are_computed_twice_learn_the_same_in_bf16():
    from course_lib.learner.memory import checkpoint_blocks

    batch, losses = (torch.randn(4, 3, 64, 64), torch.arange(4)), []
    for twice in (False, True):
        torch.manual_seed(0)
        model = create_classifier("efficientnet_lite0", 4, pretrained=False, dropout=0.0)
        learner = Learner(model, [batch] * 3, progress=False, mixed_precision="bf16")
        assert checkpoint_blocks(model, twice) > 0
        learner.fit(1, 1e-4)
        losses.append(learner.recorder.losses)
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


class Sizes(Callback):
    """The largest gradient of every step."""

    def __init__(self):
        self.sizes = []

    def after_backward(self, learner):
        self.sizes.append(max(p.grad.abs().max().item() for p in learner.model.parameters()))


def test_callbacks_see_gradients_without_the_scale():
    looks = [Sizes(), Sizes()]
    make_learner().fit(1, callbacks=[looks[0]])
    make_scaled().fit(1, callbacks=[looks[1]])
    assert looks[0].sizes == pytest.approx(looks[1].sizes, rel=0.05)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("make_optimizer", [None, lambda groups: torch.optim.SGD(groups, momentum=0.9)])
def test_a_step_left_out_moves_nothing_and_the_schedule_goes_on(make_optimizer):
    learner = make_scaled(2.0**40, make_optimizer=make_optimizer, callbacks=[OneCycle()])
    before = [p.clone() for p in learner.model.parameters()]
    learner.fit(1, 0.1)
    assert all(torch.equal(p, old) for p, old in zip(learner.model.parameters(), before, strict=True))
    assert learner.strategy.state()["scale"] == 2.0**36 and len({rate[0] for rate in learner.recorder.lrs}) == 4
    learner.strategy.load_state({**learner.strategy.state(), "scale": 2.0**10})
    learner.fit(1, 0.1)
    assert not any(torch.equal(p, old) for p, old in zip(learner.model.parameters(), before, strict=True))


def test_trials_leave_the_scaler_as_it_was():
    learner = make_scaled(2.0**40)
    state = learner.strategy.state()
    with preserved(learner):
        learner.fit(1)
        assert learner.strategy.state() != state
    assert learner.strategy.state() == state
    lr_find(learner, iterations=12)
    assert learner.strategy.state() == state
    learner.fit(1)


def test_the_scaler_is_in_the_checkpoint(tmp_path):
    whole = make_scaled(2.0**18)
    whole.fit(3)
    first = make_scaled(2.0**18)

    class Stop(Callback):
        def after_epoch(self, learner):
            if learner.epoch == 2:
                save_checkpoint(tmp_path / "cut.safetensors", learner)

    first.fit(3, callbacks=[Stop()])
    second = make_scaled(2.0**4)
    resume_training(tmp_path / "cut.safetensors", second)
    second.fit(3)
    assert second.strategy.state() == whole.strategy.state()
    assert second.recorder.losses == whole.recorder.losses


def test_course_train_records_it_and_resume_refuses_another(tmp_path):
    settings = CourseSettings(profile_name="test", device="cpu", data_dir=tmp_path / "data")
    train = lambda **options: training.train_classifier(settings, output=tmp_path / "out", epochs=1,
                                                        echo=lambda text: None, **options)
    train(mixed_precision="bf16")
    tensors, metadata = load_checkpoint(tmp_path / "out" / "model.safetensors")
    assert metadata["mixed_precision"] == "bf16"
    assert {tensor.dtype for tensor in tensors.values()} <= {torch.float32, torch.int64}
    with pytest.raises(ValueError, match="mixed_precision was 'bf16', is now 'no'"):
        train(resume=True)


def test_memory_that_ran_out_becomes_advice_and_leaves_nothing(tmp_path, monkeypatch):
    """A CPU's allocator has no error of its own, so it is asked for more than there is."""
    def greedy(*arguments, **options):
        torch.empty(2**50)

    settings = CourseSettings(profile_name="test", device="cpu", data_dir=tmp_path / "data")
    monkeypatch.setattr(training.Learner, "train_batch", greedy)
    with pytest.raises(RuntimeError, match="memory ran out at batch_size = 16. .* --batch-size 8"):
        training.train_classifier(settings, runs=tmp_path / "runs", echo=lambda text: None)
    assert not list((tmp_path / "runs").iterdir())


def test_bf16_where_it_is_not_computed(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "An old GPU")
    with pytest.raises(ValueError, match="An old GPU does not compute bf16. Use 'fp16'"):
        create_strategy("bf16", torch.device("cuda"))
