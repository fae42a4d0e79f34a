"""What the home page shows beside its text: a question with photographs, cards for the lessons, what is different.

The notebook and README.md, which is made from it, show Markdown; the page shows the same words as HTML with pictures,
which are parts of the lessons' own saved figures, so that they cannot become stale.
"""

import base64
import html
import io
import json
import re
from functools import cache
from pathlib import Path

from page_tables import lesson_promise
from PIL import Image

from course_lib.core.text import format_value
from course_lib.teach.results import recorded_lessons
from course_lib.teach.runner import find_lessons, lesson_title

try:
    import tomllib
except ImportError:  # Python 3.10; nbdev brings this one
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "nbs" / "images"
CARD = 432, 243  # a picture's dots; a page shows it smaller
WHICH = "Which of these four solar cells is cracked?"


@cache
def home() -> dict:
    """The file home.toml."""
    return tomllib.loads((ROOT / "website" / "home.toml").read_text(encoding="utf-8"))


# ---- The question

def cell_file(letter: str) -> str:
    """The photograph of the question with this letter."""
    return f"cell_{letter.lower()}.jpg"


def cell_photographs() -> dict[str, bytes]:
    """The photographs of the question as files, from the data set that comes with the course."""
    import elpv_dataset

    folder = Path(elpv_dataset.__file__).parent / "data"
    lines = (folder / "labels.csv").read_text(encoding="utf-8").splitlines()
    made = {}
    for letter, cell in zip("ABCD", home()["cell"], strict=True):
        name, probability, _ = lines[cell["number"] - 1].split()
        if float(probability) != cell["cracked"]:
            raise ValueError(f"website/home.toml: the experts say otherwise of photograph {cell['number']}.")
        file = io.BytesIO()
        with Image.open(folder / name) as picture:  # its pixels alone, without what else its file says
            Image.frombytes(picture.mode, picture.size, picture.tobytes()).save(file, "JPEG", quality=72)
        made[cell_file(letter)] = file.getvalue()
    return made


def alt_text(letter: str, cell: dict) -> str:
    """What is seen on a photograph of the question, without its answer."""
    return f"Solar cell {letter}: {cell['seen']}."


def question() -> str:
    """The question as HTML: four photographs, each of which unfolds its answer; no script is needed."""
    cells = []
    for letter, cell in zip("ABCD", home()["cell"], strict=True):
        verdict = "Yes, cracked." if cell["cracked"] else "No, functional."
        kind = "which-yes" if cell["cracked"] else "which-no"
        cells.append(
            f'<details name="which" class="{kind}"><summary>'
            f'<img src="images/{cell_file(letter)}" width="300" height="300" '
            f'alt="{html.escape(alt_text(letter, cell))}"><span>{letter}</span></summary>'
            f"<p><strong>{verdict}</strong> {html.escape(cell['says'])}</p></details>")
    return (f'<div class="which" role="group" aria-label="{WHICH}"><p class="which-question">{WHICH} '
            f'<small>Click on it.</small></p><div class="which-cells">{"".join(cells)}</div></div>')


def question_markdown() -> str:
    """The question as Markdown, for places that show neither boxes nor colours."""
    cells = home()["cell"]
    pictures = "\n".join(f'<img src="images/{cell_file(letter)}" width="23%" '
                         f'alt="{html.escape(alt_text(letter, cell))}">'
                         for letter, cell in zip("ABCD", cells, strict=True))
    letter, cell = next(pair for pair in zip("ABCD", cells, strict=True) if pair[1]["cracked"])
    return (f"**{WHICH}** From left to right A, B, C and D.\n\n{pictures}\n\n"
            f"<details><summary>Answer</summary>\n\n**{letter}.** {cell['says']}\n\n</details>")


# ---- Pictures out of lessons

def lesson_picture(number: str, cell_id: str, box: tuple) -> bytes:
    """A part of a lesson's saved figure, as a small WebP; of its first figure if it has no cell of this name."""
    path = find_lessons(ROOT / "nbs")[number]
    found = {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            for kind, data in output.get("data", {}).items():
                if kind in ("image/png", "image/jpeg"):
                    found.setdefault(cell["id"], "".join(data))
    if not found:
        raise ValueError(f"{path.name} has no saved picture for its card: python website/record.py {number}")
    data = found.get(cell_id) or next(iter(found.values()))
    picture = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    left, top, right, bottom = (share * side for share, side in zip(box, picture.size * 2, strict=True))
    picture = picture.crop((round(left), round(top), round(right), round(bottom)))
    picture.thumbnail((CARD[0], CARD[0]))
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=32, method=6)
    return file.getvalue()


def write_pictures(folder: Path) -> None:
    """The pictures of cards and of what is different, as files of the site."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (cell_id, *box) in home()["card"].items():
        (folder / f"{number}.webp").write_bytes(lesson_picture(number, cell_id, tuple(box)))
    for place, one in enumerate(home()["different"]):
        number, cell_id, *box = one["picture"]
        (folder / f"different_{place}.webp").write_bytes(lesson_picture(number, cell_id, tuple(box)))


def picture_tag(name: str) -> str:
    """A picture that repeats what the words beside it say."""
    return f'<img src="images/home/{name}.webp" width="{CARD[0]}" height="{CARD[1]}" alt="" loading="lazy">'


# ---- Cards

def as_html(text: str) -> str:
    """A sentence with *emphasis* as HTML."""
    return re.sub(r"\*([^*]+)\*", r"<em>\1</em>", html.escape(text))


def times(number: str) -> str:
    """How long a lesson takes its reader and the computer, as it is recorded."""
    one = recorded_lessons().get("lessons", {}).get(number, {})
    minutes, practice, seconds = (one.get(key) for key in ("reading_minutes", "exercise_minutes", "seconds"))
    if not minutes or not seconds:
        return "not timed yet"
    exercises = f", {practice} of them exercises" if practice else ""
    return f"You: about {minutes} min{exercises}. The computer: {format_value(seconds, 'seconds')}"


def lesson_cards() -> str:
    """The lessons as cards: a picture, the title, the promise and honest times."""
    cards = []
    for number, path in find_lessons(ROOT / "nbs").items():
        notebook = json.loads(path.read_text(encoding="utf-8"))
        cards.append(
            f'<li><a class="card-link" href="{path.stem}.html">{picture_tag(number)}'
            f'<span class="card-title">{as_html(lesson_title(notebook))}</span>'
            f'<span class="card-says">{as_html(lesson_promise(notebook))}</span>'
            f'<span class="card-times">{times(number)}</span></a></li>')
    return f'<ul class="cards">{"".join(cards)}</ul>'


def differences() -> str:
    """What makes the course different, with a picture each."""
    items = [f'<li>{picture_tag(f"different_{place}")}<p><strong>{as_html(one["title"])}.</strong> '
             f"{as_html(' '.join([one['says'], *one.get('asks', '').splitlines()]))}</p></li>"
             for place, one in enumerate(home()["different"])]
    return f'<ul class="differences">{"".join(items)}</ul>'


def differences_markdown() -> str:
    """The same as Markdown, without what is asked about a picture."""
    return "\n".join(f"- **{one['title']}.** {one['says']}" for one in home()["different"])


def begin_button() -> str:
    """The one button."""
    first = next(iter(find_lessons(ROOT / "nbs").values()))
    return f'<p><a class="begin-button" href="{first.stem}.html">Begin: your first classifier, in ten minutes</a></p>'


def extras() -> str:
    """Pages that need no installation, as cards."""
    items = [f'<li><a class="extra-link" href="{one["page"]}.html"><span class="card-title">{as_html(one["title"])}'
             f'</span><span class="card-says">{as_html(one["says"])}</span></a></li>' for one in home()["extra"]]
    return f'<ul class="cards extras">{"".join(items)}</ul>'


def extras_markdown(linked: bool = True) -> str:
    """The same as Markdown; the README has no links there, because only the site's pages do what is said."""
    return "\n".join(f"- {f'[{title}]({page}.ipynb)' if linked else f'**{title}**'}: {says}"
                     for page, title, says in ((one["page"], one["title"], one["says"]) for one in home()["extra"]))


PAGE = {"question_markdown()": lambda: question() + begin_button(), "lessons_table()": lesson_cards,
        "differences_markdown()": differences, "extras_markdown()": extras}  # what the page shows in place of Markdown
