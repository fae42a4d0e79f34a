"""What `make notebooks` saves of a run: outputs without its noise and without the author's computer, times, figures."""

import base64
import io
import json
import socket
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbdev.clean import clean_nb
from PIL import Image

from course_lib.settings import CourseSettings
from course_lib.teach.results import TIMES_FILE, exercise_minutes, lesson_cost, reading_minutes, recorded_lessons
from course_lib.teach.runner import find_lessons, run_course

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "website"))
from record import (  # noqa: E402
    as_jpeg,
    clean_output,
    picture_of,
    record_home,
    record_lessons,
    save_outputs,
    save_pictures,
    shown_width,
    smaller_png,
    without_machine,
)

PLOT = "import matplotlib.pyplot as plt\nplt.plot([1, 2]);"
RECORD = ("from course_lib.teach.results import record_result\nfrom course_lib.settings import CourseSettings\n"
          "record_result(CourseSettings(), '01', 'validation error', 0.125);")


def write_lesson(folder: Path, name: str, *code: str) -> Path:
    cells = [nbformat.v4.new_markdown_cell(f"# Title of {name}\n\n## A plot")]
    notebook = nbformat.v4.new_notebook(cells=cells + [nbformat.v4.new_code_cell(c) for c in code])
    folder.mkdir(exist_ok=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


def test_saving_puts_outputs_and_figures_into_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("course_lib.teach.results.RECORDS", tmp_path)
    course = tmp_path / "nbs"
    cost = ("from IPython.display import Markdown\nfrom course_lib.teach.results import lesson_cost\n"
            'Markdown(lesson_cost("01"))')
    path = write_lesson(course, "01_first", "print('hello')", RECORD, cost, PLOT)
    broken = write_lesson(course, "02_broken", "1 / 0")
    settings = CourseSettings(profile_name="test")
    lessons, run = run_course(settings, [path, broken], tmp_path / "runs", echo=lambda text: None)
    assert "1 lesson" in record_lessons(lessons, [path, broken], run, settings)
    saved = nbformat.read(path, as_version=4)
    assert saved.cells[1].outputs[0].text == "hello\n" and saved.cells[1].execution_count is None
    written = json.loads(path.read_text(encoding="utf-8"))
    cleaned = json.loads(json.dumps(written))
    clean_nb(cleaned, repair=False)
    assert cleaned["cells"][1:] == written["cells"][1:]  # pictures too: nbdev-clean has nothing left to do
    assert "image/png" in written["cells"][4]["outputs"][0]["data"]
    said = saved.cells[3].outputs[0].data["text/markdown"]  # the time of this very run, not of the one before
    assert said.startswith("About 5 minutes of reading and doing; the computer works") and "profile test" in said
    assert not nbformat.read(broken, as_version=4).cells[1].outputs  # a failed lesson is not saved
    record = json.loads((tmp_path / TIMES_FILE).read_text(encoding="utf-8"))
    assert list(record["lessons"]) == ["01"] and record["lessons"]["01"]["seconds"] > 0
    assert record["lessons"]["01"]["results"][0]["value"] == 0.125 and "CPU cores" in record["machine"]


def test_the_recorded_minutes_follow_from_the_notebooks():
    """After a change of a lesson: python website/record.py --count."""
    recorded = recorded_lessons()["lessons"]
    lessons = {number: json.loads(path.read_text(encoding="utf-8"))
               for number, path in find_lessons(ROOT / "nbs").items() if number in recorded}
    counted = {number: reading_minutes(lesson) for number, lesson in lessons.items()}
    assert {number: recorded[number].get("reading_minutes") for number in counted} == counted
    practice = {number: exercise_minutes(lesson) for number, lesson in lessons.items()}
    assert {number: recorded[number].get("exercise_minutes") for number in practice} == practice
    assert all(40 < minutes < 90 for number, minutes in practice.items() if number != "00") and practice["00"] == 0
    assert len(counted) > 9 and all(f"About {minutes} minutes" in lesson_cost(number)
                                    for number, minutes in counted.items())


def test_large_figures_are_saved_with_fewer_colours_and_look_the_same():
    smooth = np.linspace(0, 255, 300)[None, :, None] * np.linspace(0.5, 1, 300)[:, None, None] * np.array([1, 0.7, 0.4])
    noisy = np.clip(smooth + np.random.default_rng(0).normal(0, 6, (300, 300, 3)), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "png")
    large = base64.b64encode(file.getvalue()).decode()
    small = smaller_png(large)
    assert len(small) < 0.6 * len(large)
    again = np.asarray(Image.open(io.BytesIO(base64.b64decode(small))).convert("RGB")).astype(float)
    assert again.shape == noisy.shape and np.abs(again - noisy).mean() < 10
    assert smaller_png(large + "\n", limit=10**7) == large == large.strip()  # as nbdev-clean keeps it
    grey = io.BytesIO()
    Image.fromarray(noisy[..., 0]).convert("RGB").save(grey, "png")
    few = Image.open(io.BytesIO(base64.b64decode(smaller_png(base64.b64encode(grey.getvalue()).decode()))))
    assert len(few.getcolors()) <= 64 < len(Image.open(io.BytesIO(base64.b64decode(small))).getcolors())
    assert np.abs(np.asarray(few.convert("L")).astype(float) - noisy[..., 0]).mean() < 2


def test_a_smaller_figure_keeps_the_dots_an_inch_that_it_was_drawn_with():
    noise, file = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8), io.BytesIO()
    Image.fromarray(noise).save(file, "png", dpi=(144, 144))
    given = base64.b64encode(file.getvalue()).decode()
    for small in (smaller_png(given), as_jpeg(given, limit=90_000)):
        assert small != given and round(Image.open(io.BytesIO(base64.b64decode(small))).info["dpi"][0]) == 144


def test_photographs_are_saved_as_jpeg_where_no_png_is_small():
    noise = np.random.default_rng(0).integers(0, 255, (600, 600, 3), dtype=np.uint8)
    plain = np.full((600, 600, 3), 200, np.uint8)
    found = {}
    for name, pixels in (("photograph", noise), ("drawing", plain)):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "png")
        output = {"output_type": "display_data", "metadata": {}, "data": {
            "image/png": base64.b64encode(file.getvalue()).decode(), "text/plain": ["<Figure>"]}}
        found[name] = clean_output(output)["data"]
    assert found["photograph"].keys() == {"image/jpeg", "text/plain"} and "image/png" in found["drawing"]
    data = base64.b64decode(found["photograph"]["image/jpeg"])
    assert len(data) <= 100_000 and Image.open(io.BytesIO(data)).size == (600, 600)


def saved(tmp_path, *outputs):
    """What is saved of the outputs of a cell."""
    executed, source = tmp_path / "executed.ipynb", tmp_path / "source.ipynb"
    code = {"cell_type": "code", "id": "a", "metadata": {}, "source": ["1"], "execution_count": None, "outputs": []}
    source.write_text(json.dumps({"cells": [code]}), encoding="utf-8")
    ran = code | {"outputs": list(outputs), "execution_count": 7}
    executed.write_text(json.dumps({"cells": [ran]}), encoding="utf-8")
    save_outputs(executed, source)
    [cell] = json.loads(source.read_text(encoding="utf-8"))["cells"]
    assert cell["execution_count"] is None and cell["id"] == "a"
    return cell["outputs"]


def test_counters_metadata_and_progress_bars_are_not_saved(tmp_path):
    result = {"output_type": "execute_result", "data": {}, "metadata": {"x": 1}, "execution_count": 7}
    bar = {"output_type": "display_data", "data": {"application/vnd.jupyter.widget-view+json": {"model_id": "x"},
                                                   "text/plain": ["presizing:   0%|          | 0/2624"]}}
    assert saved(tmp_path, bar, result) == [result | {"metadata": {}, "execution_count": None}]


def test_no_saved_output_names_the_author_s_computer(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/canary-author")
    monkeypatch.setenv("USERPROFILE", "/home/canary-author")
    monkeypatch.setattr(socket, "gethostname", lambda: "canary-host-7")
    said = f"{Path.home()}/photos on canary-host-7, {ROOT}/data\n"
    stream = {"output_type": "stream", "name": "stdout", "text": [said, "the rest\n"]}
    shown = {"output_type": "display_data", "metadata": {}, "data": {
        "text/markdown": [said], "image/png": base64.b64encode(b"/home/canary-author").decode()}}
    error = {"output_type": "error", "ename": "ValueError", "evalue": said, "traceback": [said, said]}
    first, second, third = saved(tmp_path, stream, shown, error)
    assert "canary" not in json.dumps(third) and str(ROOT) not in json.dumps(third) and len(third["traceback"]) == 2
    assert without_machine("/home/canary-author-2 is another's") == "/home/canary-author-2 is another's"
    assert first["text"] == ["~/photos on localhost, ./data\n", "the rest\n"]
    assert second["data"]["text/markdown"] == ["~/photos on localhost, ./data\n"]
    assert second["data"]["image/png"] == shown["data"]["image/png"]  # letters of a picture name nobody
    monkeypatch.setattr(socket, "gethostname", lambda: "laptop")  # a word of the course, too
    assert without_machine("the laptop profile") == "the laptop profile"


def test_the_home_page_is_run_last_and_a_home_page_that_fails_is_said(tmp_path):
    path = write_lesson(tmp_path / "nbs", "index", "print('times')")
    (tmp_path / "run").mkdir()
    record_home(path, tmp_path / "run")
    assert nbformat.read(path, as_version=4).cells[1].outputs[0].text == "times\n"
    broken = write_lesson(tmp_path / "nbs", "index", "1 / 0")
    try:
        record_home(broken, tmp_path / "run")
    except RuntimeError as error:
        assert "did not run: cell 1: ZeroDivisionError" in str(error)
    else:
        raise AssertionError("a home page that fails was saved")
    record_home(tmp_path / "nbs" / "none.ipynb", tmp_path / "run")  # there need not be one


def figure(values, dots: int, size=(5, 2.4)) -> dict:
    """An output with a plot, as a notebook shows it."""
    from matplotlib.figure import Figure

    made = Figure(figsize=size, layout="constrained")
    axes = made.subplots()
    axes.bar(range(len(values)), values)
    axes.set(xlabel="which", ylabel="how much")
    made.savefig(file := io.BytesIO(), dpi=dots, bbox_inches="tight")
    return nbformat.v4.new_output("display_data", {"image/png": base64.b64encode(file.getvalue()).decode()})


@pytest.mark.parametrize("dots", [72, 100, 144])
def test_only_pictures_that_show_the_same_get_more_dots_and_keep_their_size(tmp_path, dots):
    says = lambda text: nbformat.v4.new_output("stream", text=text)
    rng = np.random.default_rng(0)
    noise = {}
    for factor in (1, 2):
        pixels = rng.integers(0, 255, (300 * factor, 400 * factor, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file := io.BytesIO(), "png")
        data = {"image/png": base64.b64encode(file.getvalue()).decode()}
        noise[factor] = nbformat.v4.new_output("display_data", data)
    before = [[figure([1, 3, 2], dots), says("3 bars\n")], [figure([1, 3, 2], dots)],
              [figure([1, 3, 2], dots), says("a")], [figure([1, 3, 2], dots)], [noise[1]]]
    after = [[figure([1, 3, 2], 2 * dots), says("3 bars\n")], [figure([1, 2.5, 2], 2 * dots)],
             [figure([1, 3, 2], 2 * dots), says("b")], [], [noise[2]]]
    for name, outputs in (("saved", before), ("run", after)):
        cells = [nbformat.v4.new_code_cell(f"cell {k}", id=f"c{k}", outputs=some) for k, some in enumerate(outputs)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
    said = save_pictures(tmp_path / "run.ipynb", tmp_path / "saved.ipynb")
    assert ["stays" in line for line in said] == [False, True, True, True, True], said
    saved = json.loads((tmp_path / "saved.ipynb").read_text(encoding="utf-8"))["cells"]
    for cell, outputs in zip(saved[1:], before[1:], strict=True):
        assert [picture_of(one) for one in cell["outputs"]] == [picture_of(one) for one in outputs]
    old, new = picture_of(before[0][0])[1], picture_of(saved[0]["outputs"][0])[1]
    assert abs(shown_width(new) - shown_width(old)) < 1
    assert Image.open(io.BytesIO(new)).width >= 1.5 * shown_width(old) and len(new) <= 95_000
