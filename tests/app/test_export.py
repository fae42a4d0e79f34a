"""What is exported answers as the training's model does, in programs that have no course."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import CLASSES, photograph, tiny_model

from course_lib.app.export import Agreement, Deployed, check_agreement, export_model, int8_rows
from course_lib.app.predict import load_classifier, predict_images
from course_lib.app.report import headline_text, judge
from course_lib.interpret import grad_cam

pytestmark = pytest.mark.slow
BLOCK = "import sys; sys.modules['course_lib'] = None\n"
ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number, shape in enumerate(((90, 120), (120, 70), (64, 64), (200, 31))):
        Image.fromarray(photograph(number, *shape)).save(folder / f"{number}.png")
    return folder


def five_lines(card: Path) -> str:
    """The lines of Python that a model card gives."""
    text = card.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    assert len(text.strip().splitlines()) == 5
    return text


@pytest.mark.parametrize("to", ["torch", pytest.param("onnx", marks=pytest.mark.skipif(not ONNX, reason="no onnx"))])
def test_five_lines_without_the_course_say_what_predict_says(to, model, images, tmp_path):
    made = export_model(model, to, tmp_path, images=images)
    assert "4 photographs" in str(made) and "0 photographs get another class" in str(made)
    data = (tmp_path / made.files[0]).read_bytes()
    for word in (str(Path(__file__).parents[2]), str(Path.home()), str(tmp_path)):
        assert word.encode() not in data, word
    for image in sorted(images.iterdir())[:1]:  # one process is enough: the file was compared on all of them
        (tmp_path / "photo.jpg").write_bytes(image.read_bytes())
        code = f"{BLOCK}{five_lines(tmp_path / 'MODEL_CARD.md')}\nprint([float(p) for p in probabilities])"
        ran = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, capture_output=True, text=True,
                             env={"PATH": ""}, timeout=200)
        assert ran.returncode == 0, ran.stderr
        said = json.loads(ran.stdout)
        (expected,) = predict_images(load_classifier(model), image)
        assert CLASSES[int(np.argmax(said))] == expected.label
        assert max(said) == pytest.approx(expected.probability, abs=0.02)


def test_evidence_is_grad_cam_and_photographs_are_prepared_as_in_training(model):
    for mode in ("crop", "squash", "pad"):
        classifier = load_classifier(model)
        classifier = replace(classifier, metadata=classifier.metadata | {"resize_mode": mode})
        deployed = Deployed(classifier).eval()
        for shape in ((90, 120), (120, 70), (400, 300)):
            image = photograph(5, *shape)
            with torch.no_grad():
                probabilities, evidence, distance = deployed(torch.from_numpy(image))
                x = deployed.prepare(torch.from_numpy(image))
            (expected,) = predict_images(classifier, image)
            assert probabilities.max().item() == pytest.approx(expected.probability, abs=0.01), (mode, shape)
            heat, best = grad_cam(classifier.model, x).maps[0], int(probabilities.argmax())
            torch.testing.assert_close(evidence[best] / evidence[best].max(), heat / heat.max(), rtol=1e-3, atol=1e-3)
            assert 0 <= distance.item() < 2


def test_what_answers_otherwise_is_refused():
    for bad in (Agreement(50, 0.03, 0.03, 0), Agreement(50, 0.0, 0.2, 3)):
        with pytest.raises(ValueError, match="It was not written"):
            check_agreement(bad, False)
        check_agreement(bad, True)  # the error of int8 is stated
    check_agreement(Agreement(50, 0.001, 0.02, 1), False)


def test_weights_go_to_timm_under_its_own_names(model, tmp_path):
    import timm
    from safetensors.torch import load_file

    export_model(model, "safetensors", tmp_path)
    network = timm.create_model("test_efficientnet", num_classes=3)
    network.load_state_dict(load_file(tmp_path / "weights.safetensors"))


def test_a_byte_a_weight_is_off_by_half_a_step():
    weight = np.random.default_rng(0).normal(size=(6, 5, 2, 2)).astype(np.float32)
    small, scale = int8_rows(weight)
    assert small.dtype == np.int8 and np.abs(small).max() == 127
    assert (np.abs(small * scale[:, None, None, None] - weight) <= scale[:, None, None, None] * 0.501).all()


def test_figures_have_intervals_and_rare_classes_count():
    targets = torch.tensor([0] * 80 + [1] * 5)
    logits = torch.zeros(85, 2)
    logits[:, 0] = 1.0  # always the commonest class
    found = judge(logits, targets, ("bees", "ants"))
    assert found["error"] == pytest.approx(5 / 85) == pytest.approx(found["commonest_class_error"])
    assert found["balanced_error"] == 0.5 and found["worst_class"] == {"name": "ants", "right": 0, "images": 5}
    low, high = found["interval"]
    assert 0.02 < low < 5 / 85 < high < 0.14
    assert "few images" in headline_text(found)[0] and "0 of 5 found" in headline_text(found)[1]
    assert found["classes"][1]["precision"] is None and found["classes"][1]["auc"] == 0.5
    json.dumps(found, allow_nan=False)


def test_a_page_for_a_web_server_holds_the_model_the_runtime_and_its_names(model, tmp_path, monkeypatch):
    from course_lib.app import static

    runtime = tmp_path / "data" / f"onnxruntime-web-{static.VERSION}"
    runtime.mkdir(parents=True)
    for name in static.RUNTIME:
        (runtime / name).write_text(name)
    files = static.write_page(load_classifier(model), tmp_path / "data", tmp_path / "data")
    assert {"index.html", "app.js", "about.json", *static.RUNTIME} <= set(files)
    assert all((tmp_path / "data" / name).is_file() for name in files)
    assert json.loads((tmp_path / "data" / "about.json").read_text())["classes"] == list(CLASSES)


def test_without_npm_the_page_says_where_the_archive_goes_and_another_archive_is_refused(tmp_path, monkeypatch):
    from course_lib.app import static
    from course_lib.data.download import DownloadError

    monkeypatch.setattr(static.shutil, "which", lambda name: None)
    with pytest.raises(DownloadError, match="there is no npm.*npm pack onnxruntime-web@.*put the file"):
        static.fetch_runtime(tmp_path)
    monkeypatch.setattr(static.shutil, "which", lambda name: sys.executable)  # it knows no `pack`
    with pytest.raises(DownloadError, match="npm could not fetch.*put the file that it writes into"):
        static.fetch_runtime(tmp_path)
    (tmp_path / "downloads" / static.ARCHIVE).write_bytes(b"another")
    with pytest.raises(DownloadError, match="its SHA-256 is another. Delete it"):
        static.fetch_runtime(tmp_path)
