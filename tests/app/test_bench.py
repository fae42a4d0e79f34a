"""`course bench`: what it measures, what it makes of the figures, and what it says when something is wrong."""

import itertools
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import course_lib.app.bench as bench
from course_lib.app.cli import main
from course_lib.models import Classifier
from course_lib.settings import CourseSettings

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for label in ("a", "b"):
        (root / label).mkdir()
        for i in range(8):
            Image.fromarray(rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(root / label / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def settings(photos, tmp_path_factory) -> CourseSettings:
    return CourseSettings(dataset=str(photos), data_dir=tmp_path_factory.mktemp("data"), profile_name="test",
                          device="cpu")


@pytest.fixture
def small_backbone(monkeypatch):
    """A body of two convolutions in place of a real one, so that a step takes milliseconds."""
    from course_lib.models import Backbone

    def create(name):
        network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3), nn.ReLU())
        return Backbone(name, network, num_features=8, input_size=32, mean=(0.5,) * 3, std=(0.5,) * 3)

    monkeypatch.setattr(bench, "create_backbone", create)


def run(settings: CourseSettings, **options) -> bench.BenchResult:
    usual = dict(seconds=0.05, repeats=2, progress=False, image_size=32, batch_size=4)
    return bench.bench_training(settings, **(usual | options))


def result(data: float, model: float, combined: float, **more) -> bench.BenchResult:
    repeats = {"data": (data,) * 3, "model": (model,) * 3, "combined": (combined,) * 3}
    return bench.BenchResult(repeats | {name: (rate,) * 3 for name, rate in more.items() if name != "compile_seconds"},
                             compile_seconds=more.get("compile_seconds"))


def test_a_real_backbone_on_an_own_folder(settings):
    found = run(settings)
    assert list(found.repeats) == ["data", "model", "combined", "contiguous", "not fused"]
    assert all(len(rates) == 2 and min(rates) > 0 for rates in found.repeats.values())
    assert found.bottleneck == "model"  # a whole network, against one interpolation to 32 pixels
    assert found.rates["combined"] < found.rates["data"]
    assert list(found.gains) == ["channels_last", "fused AdamW"] and found.compile_seconds is None
    text = str(found)
    assert "efficientnet_lite0" in text and settings.dataset in text and "32 px, batches of 4" in text
    assert "cpu" in text and torch.__version__ in text and "The bottleneck is the model" in text


def test_a_known_speed_is_measured():
    step = lambda: time.sleep(0.02) or 6
    rate = bench.images_per_second(step, 0.3, CPU)
    assert 30 < rate <= 300  # 6 images in at least a fiftieth of a second; a busy machine only makes it slower


def test_what_a_loader_has_made_ahead_is_not_counted():
    first_is_ready = itertools.chain([0.0], itertools.repeat(0.05))
    rate = bench.images_per_second(lambda: time.sleep(next(first_is_ready)) or 1, 1e-9, CPU)
    assert rate <= 20


def test_a_gpu_is_waited_for_before_each_look_at_the_clock(monkeypatch):
    events = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: events.append("wait"))
    bench.images_per_second(lambda: events.append("step") or 1, 1e-9, torch.device("cuda"))
    assert events == ["step", "wait", "step", "wait"]
    bench.synchronize(CPU)
    assert len(events) == 4


@pytest.mark.parametrize("data, model, which, said", [
    (1200, 100, "model", "the loader could feed 12 times as much"),
    (240, 100, "model", "the loader could feed 2.4 times as much"),
    (100, 350, "data", "the model could learn from 3.5 times as much"),
    (100, 105, "both", "Neither is the bottleneck"),
    (105, 100, "both", "Neither is the bottleneck"),
])
def test_the_sentence_names_the_bottleneck(data, model, which, said):
    found = result(data, model, min(data, model))
    assert found.bottleneck == which and said in bench.explain_bottleneck(found)
    others = {"model": "The bottleneck is the model", "data": "The bottleneck is the data", "both": "Neither"}
    assert [name for name, words in others.items() if words in str(found)] == [which]


def test_the_sentence_says_what_the_two_lose_together():
    assert "as fast as the slower one alone." in bench.explain_bottleneck(result(1000, 50, 49))
    assert "as fast as the slower one alone." in bench.explain_bottleneck(result(1000, 50, 52))  # by chance
    assert "reach 60% of the slower one alone" in bench.explain_bottleneck(result(100, 400, 60))


def test_the_median_counts_and_ratios_are_taken_round_by_round():
    found = bench.BenchResult({"data": (1.0, 9.0, 8.0), "model": (10.0, 20.0, 40.0), "combined": (5.0, 5.0, 6.0),
                               "contiguous": (5.0, 5.0, 20.0)})
    assert found.rates == {"data": 8.0, "model": 20.0, "combined": 5.0, "contiguous": 5.0}
    gain = found.gains["channels_last"]
    assert gain.ratios == (2.0, 4.0, 2.0) and gain.ratio == 2.0  # the ratio of the medians would be 4
    assert list(found.gains) == ["channels_last"]


@pytest.mark.parametrize("ratios, verdict", [((1.2, 1.01), "faster"), ((0.8, 0.99), "slower"),
                                             ((0.99, 1.4), "no clear difference")])
def test_a_switch_helps_only_when_every_round_says_so(ratios, verdict):
    gain = bench.Gain(bench.SWITCHES[2], ratios)
    assert gain.verdict == verdict and f"{verdict}; off in the course" in str(gain)


def test_compiling_is_earned_back_or_not():
    pays = result(1000, 20, 20, compiled=40, compile_seconds=60.0)
    assert "earned back after 2,400 training images" in str(pays)
    assert "took 60 s, and is not earned back" in str(result(1000, 20, 20, compiled=19, compile_seconds=60.0))
    assert "ompiling" not in str(result(1000, 20, 20))


def test_the_variants_differ_in_one_thing_each(settings, small_backbone, monkeypatch):
    learners, ready = [], bench._ready_learner

    def remember(*arguments):
        learners.append(ready(*arguments))
        return learners[-1]

    monkeypatch.setattr(bench, "_ready_learner", remember)
    run(settings)
    usual, contiguous, plain = learners
    last = lambda tensor: tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()
    weight = lambda learner: learner.model.body.network[2].weight
    assert [last(weight(learner)) for learner in learners] == [True, False, True]
    assert [last(learner.x) for learner in learners] == [True, False, True]
    assert [bool(learner.optimizer.param_groups[0]["fused"]) for learner in learners] == [True, True, False]
    assert len({type(learner.optimizer) for learner in learners}) == 1
    assert len({learner.optimizer.param_groups[0]["weight_decay"] for learner in learners}) == 1
    assert len({id(weight(learner)) for learner in learners}) == 3  # nobody trains another's weights
    assert all(learner.step > 2 and learner.model.training for learner in learners)


@pytest.mark.parametrize("fraction, trains", [(1.0, [True] * 3), (0.0, [False, False, True])])
def test_the_trained_fraction_counts(fraction, trains, settings, small_backbone, monkeypatch):
    seen, ready = [], bench._ready_learner
    monkeypatch.setattr(bench, "_ready_learner", lambda *given: seen.append(ready(*given)) or seen[-1])
    found = run(settings, trained_fraction=fraction)
    for learner in seen:
        groups = learner.model.parameter_groups()
        assert [any(p.requires_grad for p in group) for group in groups] == trains
    assert ("the head alone trained" in str(found)) == (fraction == 0) == ("frozen part" in str(found))


def test_fewer_images_than_a_batch_are_said(settings, small_backbone):
    found = run(settings, batch_size=64)
    assert "only 12 training images, fewer than batch_size = 64" in str(found) and "batches of 12" in str(found)


def test_threads_end_also_after_an_error(settings, small_backbone, monkeypatch):
    before = threading.active_count()
    run(settings)
    assert threading.active_count() == before
    monkeypatch.setattr(bench, "measure_in_turns", lambda *given, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(settings)
    assert threading.active_count() == before


def test_a_compile_that_fails_is_one_line(settings, small_backbone, monkeypatch):
    def fail(self, *given):
        raise RuntimeError("No working C++ compiler found\n\nSet TORCHDYNAMO_VERBOSE=1 " + "and more " * 100)

    monkeypatch.setattr(Classifier, "compile", fail)
    found = run(settings, compile=True)
    assert found.compile_seconds is None and "compiled" not in found.repeats
    assert list(found.gains) == ["channels_last", "fused AdamW"]
    lines = [line for line in str(found).splitlines() if "compile" in line]
    assert len(lines) == 1 and lines[0].endswith("RuntimeError: No working C++ compiler found")


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no such signal on Windows")
def test_a_compile_that_does_not_end_is_stopped_and_another_alarm_goes_on(settings, small_backbone, monkeypatch,
                                                                                  capsys):
    monkeypatch.setattr(bench, "PATIENCE", 0.5)
    monkeypatch.setattr(Classifier, "compile", lambda self: threading.Event().wait(60))
    before = signal.setitimer(signal.ITIMER_REAL, 300)
    try:
        started = time.monotonic()
        found = run(settings, compile=True, progress=True)
        assert time.monotonic() - started < 30
        assert "Compiling takes a minute or more. After" in capsys.readouterr().out
        assert 200 < signal.getitimer(signal.ITIMER_REAL)[0] < 300
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)
    assert found.compile_seconds is None and "compiled" not in found.repeats
    assert "torch.compile was left out, because it was not done after" in str(found)
    assert len(found.repeats["model"]) == 2


def test_a_compile_that_works_is_measured_on_a_model_of_its_own(settings, small_backbone, monkeypatch):
    compiled = []
    monkeypatch.setattr(Classifier, "compile", lambda self: compiled.append(self))
    found = run(settings, compile=True)
    assert len(compiled) == 1 and len(found.repeats["compiled"]) == 2 and found.compile_seconds > 0
    assert "Compiling took" in str(found) and "torch.compile " in str(found)
    run(settings)
    assert len(compiled) == 1  # not unless asked for


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"),
                                   MemoryError()])
def test_too_little_memory_says_to_halve_the_batch(error, settings, small_backbone, monkeypatch):
    def fail(self, x):
        raise error

    monkeypatch.setattr(Classifier, "forward", fail)
    with pytest.raises(RuntimeError, match="batch_size = 4. Halve it: course bench --batch-size 2"):
        run(settings)


def test_another_error_stays_what_it_is(settings, small_backbone, monkeypatch):
    def fail(self, x):
        raise RuntimeError("sizes do not match")

    monkeypatch.setattr(Classifier, "forward", fail)
    with pytest.raises(RuntimeError, match="^sizes do not match$"):
        run(settings)


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"seconds": -1.0}, {"seconds": float("nan")}, {"seconds": "5"},
                                   {"seconds": float("inf")}, {"seconds": True}, {"repeats": 0}, {"repeats": 1.5}])
def test_times_that_make_no_sense(wrong, settings):
    (name, value), = wrong.items()
    with pytest.raises(ValueError, match=f"{name} = {value!r} must be"):
        run(settings, **wrong)


@pytest.mark.parametrize("words, said", [
    (["--seconds", "0"], "seconds = 0.0"), (["--image-size", "8"], "image_size = 8"),
    (["--batch-size", "0"], "batch_size = 0"), (["--trained-fraction", "1.5"], "fraction = 1.5"),
    (["--backbone", "efficientnet_light0"], "efficientnet_lite0"), (["--dataset", "elpw"], "elpv"),
])
def test_a_mistake_on_the_command_line(words, said, settings, tmp_path, capsys):
    options = ["--dataset", settings.dataset, "--data-dir", str(tmp_path), "--profile", "test", "--device", "cpu"]
    assert main(["bench", *options, *words]) == 2
    printed = capsys.readouterr()
    assert said in printed.err and "Traceback" not in printed.err and "images/s" not in printed.out


def test_the_command_prints_the_table(settings, small_backbone, capsys):
    options = ["--dataset", settings.dataset, "--data-dir", str(settings.data_dir), "--profile", "test"]
    assert main(["bench", *options, "--device", "cpu", "--seconds", "0.05", "--image-size", "32", "--batch-size", "4",
                 "--trained-fraction", "0.5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rates = {line.split()[0]: float(line.split()[1].replace(",", "")) for line in lines
             if line.startswith(("data ", "model ", "combined "))}
    assert set(rates) == {"data", "model", "combined"} and min(rates.values()) > 0
    assert any("batches of 4, the last 50% of the body trained" in line for line in lines)
    assert sum("bottleneck" in line for line in lines) == 1
    assert any(line.startswith("channels_last ") and "on in the course" in line for line in lines)
