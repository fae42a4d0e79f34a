"""The promise that after installation the default data set and backbone need no network, kept under watch.

A second Python does what a student does first. An audit hook, which no library can go around, refuses and writes down
every attempt to look up or reach another machine; where Linux allows it, that Python also has no network at all.
"""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CHILD = r"""
import contextlib, io, json, os, socket, sys, warnings

attempts = []
OUTSIDE = {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname",
           "socket.gethostbyaddr", "urllib.Request"}

def watch(event, args):
    if event in OUTSIDE and getattr(args[0], "family", None) != getattr(socket, "AF_UNIX", "none"):
        attempts.append(f"{event} {args[0] if event == 'urllib.Request' else args[:2]}")
        raise ConnectionRefusedError(f"blocked by the test: {event}")

def section(work):
    del attempts[:]
    try:
        result = {"value": work()}
    except BaseException as error:
        result = {"error": type(error).__name__, "message": str(error)}
    return result | {"attempts": list(attempts)}

sys.addaudithook(watch)

def knock():
    socket.create_connection(("127.0.0.1", 9), timeout=2)

def learn():
    from pathlib import Path
    from course_lib.data import get_items, limit_items, make_loaders, presize
    from course_lib.learner import Learner
    from course_lib.models import create_classifier, lite_weights
    from course_lib.settings import load_settings
    import torch

    settings = load_settings(Path(os.environ["HERE"]) / "settings.ini", environ={})
    everything = get_items(settings.dataset, settings.data_dir)
    presized = presize(limit_items(everything, 24), 80, settings.cache_dir, progress=False)
    model = create_classifier(settings.backbone, len(everything.classes))
    first = next(iter(lite_weights(settings.backbone).values()))
    pretrained = torch.equal(next(model.body.parameters()).detach(), first)
    loaders = make_loaders(presized, image_size=64, batch_size=8, mean=model.body.mean, std=model.body.std)
    learner = Learner(model, loaders.train, loaders.valid, metrics=None, progress=False)
    learner.fit(1)
    return {"dataset": settings.dataset, "backbone": settings.backbone, "images": len(everything),
            "presized": len(presized), "pretrained": pretrained, "steps": learner.step,
            "loss": learner.evaluate()["valid_loss"]}

def train():
    from course_lib.app.cli import main

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(["train", "--profile", "test", "--settings", os.environ["HERE"] + "/settings.ini",
                     "--output", os.environ["HERE"] + "/trained"])
    return [code, sorted(os.listdir(os.environ["HERE"] + "/trained"))]

def weights():
    from course_lib.models import create_backbone
    create_backbone("resnet18")

def pets():
    from course_lib.data import get_items
    get_items("pets", os.environ["HERE"] + "/data", announce=False)

with contextlib.redirect_stdout(sys.stderr):
    report = {work.__name__: section(work) for work in (knock, learn, train, weights, pets)}
print(json.dumps(report))
"""


def cut_off() -> list[str]:
    """The words that start a command without a network, where this system lets us; else none."""
    words = ["unshare", "--map-root-user", "--net"]
    if sys.platform == "linux" and shutil.which("unshare"):
        if subprocess.run([*words, "true"], capture_output=True).returncode == 0:
            return words
    return []


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    here = tmp_path_factory.mktemp("offline")
    shutil.copy(Path(__file__).parents[2] / "settings.ini", here)  # what a fresh clone has; its data folder is empty
    environ = {name: value for name, value in os.environ.items()
               if not name.upper().endswith("_PROXY") and not name.startswith(("COURSE", "HF_", "TORCH_"))}
    environ |= {"HERE": str(here), "HOME": str(here), "USERPROFILE": str(here), "TORCH_HOME": str(here / "torch"),
                "HF_HOME": str(here / "hf"), "XDG_CACHE_HOME": str(here / "xdg")}  # no weights from earlier downloads
    done = subprocess.run([*cut_off(), sys.executable, "-c", CHILD], env=environ, cwd=here, capture_output=True,
                          text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_the_watch_sees_and_stops_an_attempt(report):
    assert report["knock"]["error"] == "ConnectionRefusedError" and report["knock"]["attempts"]


def test_the_first_training_needs_no_network(report):
    assert "error" not in report["learn"], report["learn"]
    assert report["learn"]["attempts"] == []
    found = report["learn"]["value"]
    assert (found["dataset"], found["backbone"]) == ("elpv", "efficientnet_lite0")  # the defaults of settings.ini
    assert found["images"] == 2624 and found["presized"] == 24
    assert found["pretrained"], "the weights are not those of the package"
    assert found["steps"] > 0 and 0 < found["loss"] < 100


def test_course_train_needs_no_network(report):
    assert "error" not in report["train"], report["train"]
    assert report["train"]["attempts"] == []
    code, files = report["train"]["value"]
    assert code == 0 and "model.safetensors" in files


def test_what_needs_a_network_tries_it_and_names_what_does_not(report):
    for name, error, words in (("weights", "WeightsUnavailableError", "efficientnet_lite0"),
                               ("pets", "DownloadError", "dataset = elpv")):
        assert report[name]["error"] == error and words in report[name]["message"], report[name]
        assert report[name]["attempts"], f"{name} was refused without a try"
