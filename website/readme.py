"""README.md is nbs/index.ipynb, written as Markdown: `make readme` writes it, its picture, and those of the question.

A text cell that begins with ONLY is not on the home page; what a cell makes here, the page shows with pictures. A test
says when the two differ.
"""

import base64
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "website")]
PICTURE = ROOT / "nbs" / "images" / "first_classifier.jpg"  # lesson 0's own output, so that it cannot become stale
ONLY = "<!-- README only -->"
SITE = "These are pages of the course's site. `make docs-preview` builds it and serves it on your computer."
NOTE = "<!-- Made from nbs/index.ipynb by `make readme`: edit that notebook, not this file. -->"


def first_picture() -> bytes:
    """What the first classifier answers for twelve photographs, as lesson 0 shows it: the bytes of a JPEG."""
    for cell in json.loads((ROOT / "nbs" / "00_first_classifier.ipynb").read_text(encoding="utf-8"))["cells"]:
        if "show_images(photographs[twelve]" in "".join(cell["source"]):
            for output in cell["outputs"]:
                if picture := output.get("data", {}).get("image/jpeg"):
                    return base64.b64decode("".join(picture))
    raise ValueError("Lesson 0 has no saved picture of its twelve answers: python website/record.py 00")


def readme() -> str:
    """What README.md has to say: the home page's text, its tables from what is recorded, links from here."""
    from home import differences_markdown, extras_markdown, question_markdown
    from page_tables import lessons_table

    made = {"question_markdown()": question_markdown, "lessons_table()": lambda: lessons_table(ROOT / "nbs"),
            "differences_markdown()": differences_markdown,
            "extras_markdown()": lambda: f"{extras_markdown(linked=False)}\n\n{SITE}"}
    parts = []
    for cell in json.loads((ROOT / "nbs" / "index.ipynb").read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text.removeprefix(ONLY).strip())
        elif found := [make().strip() for name, make in made.items() if f"Markdown({name})" in text]:
            parts += found
        else:
            raise ValueError(f"The README does not know what to do with this cell of index.ipynb:\n{text}")
    return NOTE + "\n\n" + re.sub(r'(\]\(|src=")(?=[\w/]+\.(?:ipynb|jpg))', r"\1nbs/", "\n\n".join(parts)) + "\n"


if __name__ == "__main__":
    from home import IMAGES, cell_photographs

    target = ROOT / "README.md"
    if "--check" in sys.argv:
        sys.exit(target.read_text(encoding="utf-8") != readme() or PICTURE.read_bytes() != first_picture())
    IMAGES.mkdir(exist_ok=True)
    PICTURE.write_bytes(first_picture())
    for name, data in cell_photographs().items():
        (IMAGES / name).write_bytes(data)
    target.write_text(readme(), encoding="utf-8")
