"""Run the lessons and save their outputs in the notebooks, their times and figures in course_lib/results/lessons.json.

    python website/record.py          all lessons; what `make notebooks` runs
    python website/record.py 04 07    these
    python website/record.py --count  run nothing: count anew how long reading and doing each lesson takes

The outputs that the site shows are from a real run, without its noise: counters, widget state, progress bars. The
settings are those of settings.ini and the COURSE_* variables, as for `course run`.
"""

import argparse
import base64
import io
import json
import re
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from course_lib.core.device import describe_machine
from course_lib.core.files import write_text
from course_lib.core.text import without_home
from course_lib.settings import CourseSettings, load_settings
from course_lib.teach.pack import write_notebook
from course_lib.teach.results import (
    TIMES_FILE,
    exercise_minutes,
    lesson_cost,
    read_results,
    reading_minutes,
    recorded_file,
)
from course_lib.teach.runner import LessonRun, find_lessons, run_course, run_lesson, select_lessons

ROOT = Path(__file__).resolve().parents[1]
LARGE = 95_000  # bytes: a figure in a saved notebook has at most 100 KB
QUIET = {"TQDM_DISABLE": "1"}  # no progress bars in saved outputs


# ---- One notebook

def is_progress_bar(output: dict) -> bool:
    """Whether an output of a notebook cell is a progress bar, which means nothing once the work is done."""
    text = "".join(output.get("data", {}).get("text/plain", ""))
    return "application/vnd.jupyter.widget-view+json" in output.get("data", {}) and ("%|" in text or "it [" in text)


def dots_of(picture) -> dict:
    """The dots an inch that a figure was drawn with, to save it with: the site shows it in the size that it had."""
    return {"dpi": picture.info["dpi"]} if "dpi" in picture.info else {}


def smaller_png(picture: str, limit: int = 50_000) -> str:
    """A PNG in base64, with a palette if it has more than `limit` bytes: of 256 colours, or of 64 where all is grey."""
    from PIL import Image

    data = base64.b64decode(picture)
    if len(data) > limit:
        file = io.BytesIO()
        drawn = Image.open(io.BytesIO(data))
        image = drawn.convert("RGB")
        saturation = image.convert("HSV").getchannel("S").getextrema()
        image.quantize(64 if saturation[1] < 32 else 256).save(file, "png", optimize=True, **dots_of(drawn))
        data = min(data, file.getvalue(), key=len)
    return base64.b64encode(data).decode()


def as_jpeg(picture: str, limit: int = LARGE) -> str | None:
    """A PNG in base64 as a JPEG of at most `limit` bytes, for photographs, of which no small PNG can be made.

    `None` where the PNG is small enough.
    """
    from PIL import Image

    data = base64.b64decode(picture)
    if len(data) <= limit:
        return None
    drawn = Image.open(io.BytesIO(data))
    image, smallest = drawn.convert("RGBA"), b""
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image)
    for quality in range(90, 20, -5):
        file = io.BytesIO()
        white.convert("RGB").save(file, "jpeg", quality=quality, optimize=True, **dots_of(drawn))
        smallest = file.getvalue()
        if len(smallest) <= limit:
            break
    return base64.b64encode(smallest).decode()


def without_machine(text: str, folder: Path = ROOT) -> str:
    """`text` without what names the author's computer: the course's folder, the home folder, the host."""
    text, host = without_home(text.replace(f"{folder}", ".")), socket.gethostname()
    if not host or host.isalpha():  # a word such as "laptop", which names nobody and may stand in any sentence
        return text
    return re.sub(rf"\b{re.escape(host)}\b", "localhost", text)


def clean_output(output: dict) -> dict:
    """An output as it is saved: no counter, no metadata, no name of the computer, pictures not too large."""
    output = output | {key: value for key, value in (("metadata", {}), ("execution_count", None)) if key in output}
    for key in output.keys() & {"evalue", "traceback"}:  # of an error that a lesson shows
        said = output[key]
        output[key] = [*map(without_machine, said)] if isinstance(said, list) else without_machine(said)
    if "text" in output:
        output["text"] = without_machine("".join(output["text"])).splitlines(keepends=True)
    data = dict(output.get("data", {}))
    if "image/png" in data:
        drawn = "".join(data.pop("image/png"))
        small = smaller_png(drawn)
        photograph = as_jpeg(drawn) if len(small) * 3 / 4 > LARGE else None
        data["image/jpeg" if photograph else "image/png"] = photograph or small
    for kind, value in data.items():
        if kind.startswith("text/"):
            data[kind] = without_machine("".join(value)).splitlines(keepends=True)
    return output | ({"data": data} if data else {})


def save_outputs(executed: Path, source: Path) -> None:
    """Put the outputs of the executed copy into the notebook `source`, cell by cell, by the cells' ids."""
    cells = json.loads(executed.read_text(encoding="utf-8"))["cells"]
    outputs = {cell["id"]: [clean_output(output) for output in cell["outputs"] if not is_progress_bar(output)]
               for cell in cells if cell["cell_type"] == "code"}
    notebook = json.loads(source.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = outputs[cell["id"]], None
    write_notebook(notebook, source)


def refresh_cost(source: Path, number: str) -> None:
    """Write the recorded time of a lesson into the saved output of its `lesson_cost` cell.

    While the lesson ran, that was the time of the run before.
    """
    notebook = json.loads(source.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code" and f'lesson_cost("{number}")' in "".join(cell["source"]):
            for output in cell["outputs"]:
                if "text/markdown" in output.get("data", {}):
                    output["data"]["text/markdown"] = [lesson_cost(number)]
    write_notebook(notebook, source)


# ---- A run

def count_minutes(notebooks: Sequence[Path]) -> None:
    """Keep for each recorded lesson how long reading and doing it takes, as its notebook is now."""
    file = recorded_file(TIMES_FILE)
    record = json.loads(file.read_text(encoding="utf-8"))
    for path in notebooks:
        if path.name[:2] in record["lessons"]:
            notebook = json.loads(path.read_text(encoding="utf-8"))
            record["lessons"][path.name[:2]] |= {"reading_minutes": reading_minutes(notebook),
                                                 "exercise_minutes": exercise_minutes(notebook)}
    write_text(file, json.dumps(record, indent=1, sort_keys=True) + "\n")


def record_lessons(lessons: Sequence[LessonRun], sources: Sequence[Path], run_folder: Path,
                   settings: CourseSettings) -> str:
    """Save outputs, times and results of the lessons that ran to the end; gives a sentence that says what was saved."""
    import torch

    file = recorded_file(TIMES_FILE)
    record = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"lessons": {}}
    record |= {"profile": settings.profile_name, "machine": describe_machine(), "torch": torch.__version__}
    rows = read_results(run_folder / "results.jsonl")
    passed = [(lesson, source) for lesson, source in zip(lessons, sources, strict=False) if lesson.passed]
    for lesson, source in passed:
        save_outputs(lesson.notebook, source)
        record["lessons"][lesson.number] = {"title": lesson.title, "seconds": round(lesson.seconds, 1),
                                            "results": [r for r in rows if r["lesson"] == lesson.number]}
    write_text(file, json.dumps(record, indent=1, sort_keys=True) + "\n")
    count_minutes([source for _, source in passed])
    for lesson, source in passed:
        refresh_cost(source, lesson.number)
    return f"Saved the outputs of {len(passed)} lessons, and their times and results in {TIMES_FILE}."


def record_home(source: Path, run_folder: Path) -> None:
    """Run the home page, whose table of lessons has the times just recorded, and save its outputs."""
    if source.is_file():
        home = run_lesson(source, run_folder, QUIET)
        if not home.passed:
            raise RuntimeError(f"The home page {source} did not run: {home.error}")
        save_outputs(home.notebook, source)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lesson", nargs="*", help="lesson numbers such as 04 (default: all)")
    parser.add_argument("--runs", default="runs", metavar="DIR", help="where the run's folder is made (default: runs)")
    parser.add_argument("--count", action="store_true", help="run nothing: count how long reading each lesson takes")
    arguments, settings = parser.parse_args(), load_settings()
    notebooks = select_lessons(find_lessons(), arguments.lesson, everything=not arguments.lesson)
    if arguments.count:
        count_minutes(notebooks)
        return 0
    environ = {f"COURSE_{key.upper()}": str(value) for key, value in settings.values().items()}
    lessons, folder = run_course(settings, notebooks, arguments.runs, environ | QUIET)
    print(record_lessons(lessons, notebooks, folder, settings))
    record_home(notebooks[0].parent / "index.ipynb", folder)
    return int(not all(lesson.passed for lesson in lessons))


if __name__ == "__main__":
    sys.exit(main())
