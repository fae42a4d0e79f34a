"""Run the lessons and save their outputs in the notebooks, their times and figures in course_lib/results/lessons.json.

    python website/record.py          all lessons; what `make notebooks` runs
    python website/record.py 04 07    these
    python website/record.py --count  run nothing: count anew how long reading and doing each lesson takes
    python website/record.py --pictures 02  run, and save nothing but the pictures, with up to twice as many dots for
                                      fine screens, where they show what the saved ones show (not the times of a run)

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
import tempfile
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


# ---- Pictures for fine screens

SHARP = (2.0, 1.75, 1.5)  # dots for one of a page, the most first
FAR = 20.0  # of 255: how far squares of two pictures may differ that show the same; see `difference`
MOST = 0.012  # and which part of them may differ more: letters are drawn otherwise
CONFIG = "c.InlineBackend.figure_formats = {'retina'}\n"  # twice as many dots as a figure asks for


def picture_of(output: dict) -> tuple[str, bytes] | None:
    """The kind and the bytes of a saved picture."""
    for kind, value in output.get("data", {}).items():
        if kind in ("image/png", "image/jpeg"):
            return kind, base64.b64decode("".join(value))
    return None


def shown_width(data: bytes) -> float:
    """How wide the site shows a picture, in dots of a page; see website/finishing.py."""
    from PIL import Image

    picture = Image.open(io.BytesIO(data))
    dots = float(picture.info.get("dpi", (96,))[0])
    return picture.width * (96 / dots if dots > 97 else 1)


def difference(one: bytes, other: bytes) -> float:
    """How far two pictures are from showing the same: the part of their squares of 4 × 4 dots that differ by `FAR`.

    A square may also be between those around it, two in each direction: with other dots, texts are as wide as letters
    allow, and all else has a little more room or less.
    """
    import numpy as np
    from numpy.lib.stride_tricks import sliding_window_view
    from PIL import Image

    pictures = [Image.open(io.BytesIO(data)).convert("RGBA") for data in (one, other)]
    size, squares = tuple(max(side // 4, 1) for side in pictures[0].size), []
    for picture in pictures:
        white = Image.new("RGBA", picture.size, "white")
        white.alpha_composite(picture)
        squares.append(np.asarray(white.convert("RGB").resize(size, Image.Resampling.BOX), float))
    around = sliding_window_view(np.pad(squares[1], ((2, 2), (2, 2), (0, 0)), mode="edge"), (5, 5), axis=(0, 1))
    outside = np.maximum(around.min((3, 4)) - squares[0], squares[0] - around.max((3, 4)))
    return float((outside.max(2) > FAR).mean())


def words_of(cell: dict) -> list[str]:
    """What a cell prints and shows, but for pictures, and for numbers that are rounding: below 1e-5."""
    outputs = [clean_output(output) for output in cell["outputs"] if not is_progress_bar(output)]
    words = [output.get("text") or [output.get("data", {}).get(kind) for kind in ("text/markdown", "text/html")]
             for output in outputs]
    return [re.sub(r"\d(\.\d+)?e-(0[6-9]|\d\d)", "0", str(text)) for text in words]


def sharper(saved: bytes, drawn: bytes, limit: int = LARGE) -> tuple[str, bytes] | None:
    """`drawn`, with twice the dots, as a picture of at most `limit` bytes that is shown in the size of `saved`.

    `None` where it would have less than 1.5 times the dots of a page, or where JPEG would show.
    """
    from PIL import Image

    width, picture = shown_width(saved), Image.open(io.BytesIO(drawn))
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture.convert("RGBA"))
    for scale in SHARP:
        wanted = round(scale * width)
        if wanted > picture.width + 2:
            continue
        small = white.convert("RGB").resize((wanted, round(picture.height * wanted / picture.width)),
                                            Image.Resampling.LANCZOS)
        dots = {"dpi": (96 * wanted / width,) * 2}
        for kind, image, options in (("png", small.quantize(256), {"optimize": True}),
                                     ("jpeg", small, {"quality": 80, "optimize": True}),
                                     ("jpeg", small, {"quality": 65, "optimize": True})):
            image.save(file := io.BytesIO(), kind, **options, **dots)
            if len(file.getvalue()) <= limit:
                return f"image/{kind}", file.getvalue()
    return None


def save_pictures(executed: Path, source: Path) -> list[str]:
    """Put the pictures of the executed copy into `source` where they show the same; gives a line for each picture."""
    cells = {cell["id"]: cell for cell in json.loads(executed.read_text(encoding="utf-8"))["cells"]}
    notebook, said = json.loads(source.read_text(encoding="utf-8")), []
    for cell in notebook["cells"]:
        old, new = ([output for output in one.get("outputs", []) if picture_of(output)]
                    for one in (cell, cells.get(cell["id"], {})))
        for number, output in enumerate(old):
            (kind, saved), words = picture_of(output), f"{cell['id']}, picture {number + 1}"
            if len(old) != len(new) or words_of(cell) != words_of(cells[cell["id"]]):
                said.append(f"{words} stays: the cell says something else now")
                continue
            drawn = picture_of(new[number])[1]
            differ, found = difference(saved, drawn), sharper(saved, drawn)
            if differ > MOST or found is None:
                said.append(f"{words} stays: " + (f"{differ:.2%} differ" if differ > MOST else "too large"))
                continue
            del output["data"][kind]
            output["data"][found[0]] = base64.b64encode(found[1]).decode()
            said.append(f"{words}: {differ:.2%} differ, {len(saved) / 1000:.0f} to {len(found[1]) / 1000:.0f} kB")
    write_notebook(notebook, source)
    return said


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
    parser.add_argument("--pictures", action="store_true", help="save nothing but the pictures, with more dots")
    arguments, settings = parser.parse_args(), load_settings()
    notebooks = select_lessons(find_lessons(), arguments.lesson, everything=not arguments.lesson)
    if arguments.count:
        count_minutes(notebooks)
        return 0
    environ = {f"COURSE_{key.upper()}": str(value) for key, value in settings.values().items()}
    if arguments.pictures:
        with tempfile.TemporaryDirectory() as place:
            (config := Path(place) / "profile_default" / "ipython_kernel_config.py").parent.mkdir()
            config.write_text(CONFIG, encoding="utf-8")
            lessons, _ = run_course(settings, notebooks, arguments.runs, environ | QUIET | {"IPYTHONDIR": place})
        for lesson, source in zip(lessons, notebooks, strict=True):
            said = save_pictures(lesson.notebook, source) if lesson.passed else [lesson.error]
            print(lesson.number, *said, sep="\n  ")
        return int(not all(lesson.passed for lesson in lessons))
    lessons, folder = run_course(settings, notebooks, arguments.runs, environ | QUIET)
    print(record_lessons(lessons, notebooks, folder, settings))
    record_home(notebooks[0].parent / "index.ipynb", folder)
    return int(not all(lesson.passed for lesson in lessons))


if __name__ == "__main__":
    sys.exit(main())
