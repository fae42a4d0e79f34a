"""Explorers: small scripts that move over what lessons recorded, on pages without a kernel.

    python website/explorers.py             run the cells of the lessons that make the data, and keep it (minutes)
    python website/explorers.py lr costs    these

Each becomes one script that needs nothing else: what all of them share, its own part, and the data. The data comes
from the lessons' own cells and from the functions that the widgets of the notebooks use.
"""

import base64
import io
import json
import re
import sys
from pathlib import Path

from answers import assets, bundle, markdown_output, raw
from nbdev.process import Processor

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "website" / "recorded"
EXPLORERS = {  # name: title, the lesson, the cell below which it stands (the last one that matches)
    "lr": ("A learning rate, and the training that it gives", "04", r"^explore_lrs\("),
    "tricks": ("Tricks on a batch", "10", r"^explore_tricks\("),
    "cam": ("Where each part of the network looks", "06", r"^show_grad_cam\("),
    "costs": ("A threshold, and what its mistakes cost", "06", r"^def costs_of\("),
}
PICTURED = {"lr", "tricks"}  # the cell's picture is what the explorer shows first: one of the two is enough


# ---- Recording

def lesson_names(number: str, pattern: str) -> dict:
    """All names of a lesson after its cells up to the one that matches, as if they were run in a notebook."""
    import matplotlib

    matplotlib.use("Agg")
    [path] = (ROOT / "nbs").glob(f"{number}_*.ipynb")
    names: dict = {"__name__": "__main__"}
    cells = ["".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
             if cell["cell_type"] == "code"]
    last = max(i for i, text in enumerate(cells) if re.search(pattern, text, re.M))
    for text in cells[:last + 1]:
        exec(compile(text, f"{path.name}", "exec"), names)
    return names


def record_lr() -> dict:
    """The sweep of lesson 4's head, and the trainings at fifteen rates."""
    from course_lib.lr_finder.explorer import lr_explorer_data

    names = lesson_names(*EXPLORERS["lr"][1:])
    return lr_explorer_data(names["head_sweep"], names["head_runs"][0])


def record_tricks() -> dict:
    """Three photographs of lesson 10's batch before and after each trick."""
    from course_lib.tricks.playground import playground_data

    names = lesson_names(*EXPLORERS["tricks"][1:])
    return playground_data(names["batch_x"], names["batch_y"], names["classes"], **names["pixels"])


def record_costs() -> dict:
    """How probably defective lesson 6's network finds each validation image, and whether it is."""
    names = lesson_names(*EXPLORERS["costs"][1:])
    order = names["risk"].argsort(descending=True, stable=True)
    risk, defective = names["risk"][order].double().tolist(), names["defective"][order].int().tolist()
    return {"risk": [round(one, 5) for one in risk], "defective": defective}


def record_cam(size: int = 224, quality: int = 60) -> dict:
    """Grad-CAM of lesson 6's network at five layers, for two defective cells that it recognises and two it misses."""
    from PIL import Image

    from course_lib.models.classifier import body_blocks

    names = lesson_names(*EXPLORERS["cam"][1:])
    model, answers, valid, classes = (names[name] for name in ("model", "answers", "valid", "classes"))
    blocks = body_blocks(model.body)
    rows = names["recognised"][:2] + names["missed"][:2]
    x = answers.inputs(rows)
    maps: dict = {}
    for block in blocks:  # the last block of each resolution
        result = names["grad_cam"](model, x, answers.targets[rows], layer=block)
        maps[tuple(result.maps.shape[1:])] = result.maps
    pictures = []
    for k, row in enumerate(rows):
        file, pixels = io.BytesIO(), valid.images[valid.indices[row]]
        Image.fromarray(pixels).convert("L").resize((size, size)).save(file, "WebP", quality=quality, method=6)
        pictures.append({
            "picture": "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode(),
            "is": classes[answers.targets[row]], "said": classes[answers.predicted[row]],
            "maps": [base64.b64encode((255 * one[k] / one[k].max().clamp(min=1e-12)).round().byte().numpy().tobytes())
                     .decode() for one in maps.values()]})
    return {"layers": [{"rows": h, "columns": w} for h, w in maps], "pictures": pictures}


RECORDERS = {"lr": record_lr, "tricks": record_tricks, "cam": record_cam, "costs": record_costs}


# ---- On a page

def stage_scripts(folder: Path) -> None:
    """Put the explorers where the staged pages look for them, each one script with its data."""
    for name in EXPLORERS:
        data = (DATA / f"{name}.json").read_text(encoding="utf-8").strip()
        (folder / "website" / "static" / f"explore-{name}.js").write_text(
            bundle("explore.js", f"explore-{name}.js", data=data), encoding="utf-8")


def explorer_html(name: str, up: str = "") -> str:
    """The place of an explorer, and its script."""
    return (f'<div class="explorer" data-explorer="{name}"><noscript><p>This picture moves only with JavaScript.</p>'
            f"</noscript></div>{assets(up, f'explore-{name}.js')}")


class explore(Processor):
    """In a lesson: an explorer below the cell that shows or makes what it moves over."""

    def begin(self) -> None:
        number = Path(self.nb.path_).name[:2]
        for name, (_, lesson, pattern) in EXPLORERS.items():
            cells = [cell for cell in self.nb.cells if cell.cell_type == "code" and lesson == number
                     and re.search(pattern, cell.source or "", re.M)]
            if not cells:
                continue
            place = self.nb.cells.index(cells[-1])
            cells[-1].outputs = [*cells[-1].outputs, markdown_output(raw(explorer_html(name)))]
            above = self.nb.cells[place - 1]
            if name in PICTURED and above.cell_type == "markdown":
                above.source = above.source.replace("On this page you see what was saved.",
                                                    "On this page you move over what was recorded.")


def explorers_page() -> str:
    """All explorers below each other: what pages/explorers.ipynb shows."""
    paths = {number: next((ROOT / "nbs").glob(f"{number}_*.ipynb")).name for _, number, _ in EXPLORERS.values()}
    return "\n\n".join(f"## {title}\n\nFrom [lesson {int(number)}](../{paths[number]}).\n\n"
                       f"{raw(explorer_html(name, '../'))}" for name, (title, number, _) in EXPLORERS.items())


if __name__ == "__main__":
    DATA.mkdir(exist_ok=True)
    for chosen in sys.argv[1:] or RECORDERS:
        text = json.dumps(RECORDERS[chosen](), separators=(",", ":"), ensure_ascii=False)
        (DATA / f"{chosen}.json").write_text(text + "\n", encoding="utf-8")
        print(f"{chosen}: {len(text):,} characters", flush=True)
