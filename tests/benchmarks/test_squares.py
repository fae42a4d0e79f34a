"""What lesson 1 says of crop, squash and pad is what was recorded."""
import json
from pathlib import Path

import torch

from course_lib.data.presizing import RESIZE_MODES

ROOT = Path(__file__).resolve().parents[2]


def test_lesson_1_says_what_was_measured():
    ways = json.loads((ROOT / "course_lib" / "results" / "squares.json").read_text())["ways"]
    lines = (ROOT / "course_lib" / "results" / "squares.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    cells = json.loads((ROOT / "nbs" / "01_data_prep.ipynb").read_text(encoding="utf-8"))["cells"]
    [table] = [text for cell in cells if "squares.py" in (text := "".join(cell["source"]))]
    for mode, word in zip(RESIZE_MODES, ("cropped", "squashed", "padded"), strict=True):
        errors = [row["error_rate"] for row in rows if row["resize_mode"] == mode]
        assert len(errors) == 20 and abs(sum(errors) / 20 - ways[mode]["error_rate"]) < 1e-9
        row = f"| {word} | {100 * ways[mode]['error_rate']:.1f} % |"
        if mode != "crop":
            row += f" {100 * ways[mode]['difference_from_crop']:.1f} ± {100 * ways[mode]['half_interval']:.1f} "
        assert row in table


def test_the_linear_classifier_learns_what_can_be_told_apart(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import squares

    from course_lib.data import ImageItems
    labels = tuple("abc"[i % 3] for i in range(60))
    items = ImageItems(Path("x"), tuple(f"{i}.jpg" for i in range(60)), labels, ("a", "b", "c"))
    assert squares.error_of(torch.eye(3)[items.targets], items, 1) == 0
    assert squares.error_of(torch.ones(60, 3), items, 1) > 0.5  # nothing to tell them by
