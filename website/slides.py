"""Slides: a deck for each lesson, in `website/slides/NN.md`, for a teacher's 20 to 30 minutes.

A deck is Markdown with a heading for each slide. What it shows of the lesson it names by the id of a cell, so that a
slide shows what the lesson has, and no copy of it:

    {{figure ID}}              the cell's saved picture
    {{code ID}}                its code; {{code ID name}}: a function, class or method of it, without docstring;
                               {{code ID "first" "last"}}: from the first line with these words to the next with those
    {{table ID}}               the first table of its text or of what it shows; {{table ID 2}}: the second;
                               {{table ID 1 8}}: its first eight rows
    {{output ID}}              what it prints; {{output ID 3}}: the first three lines
    {{ask ID}}                 its question *Predict before you run*
    {{quiz 2}}                 the second question of the lesson's quiz, with the answer
    {{notes ID}}               for the speaker; without it, the text above the cell that the slide shows
    . . .                      what follows is shown on the next click

Quarto renders the decks with its own format `revealjs`; for smalldocs they are written here, as pages with reveal.js.
"""

import ast
import base64
import html
import json
import re
import shutil
import textwrap
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import yaml
from home import times
from page_tables import lesson_promise

from course_lib.teach.runner import find_lessons, lesson_title

ROOT = Path(__file__).resolve().parents[1]
DECKS = ROOT / "website" / "slides"
STATIC = ROOT / "website" / "static"
FOLDER = "slides"  # of the site
WIDTH, HEIGHT = 1280, 720
MOST_LINES = 12  # of code or of an output
SHOW = re.compile(r"\{\{(\w+) ([\w-]+)((?: [^{}]+)?)\}\}\Z")
PREDICT = re.compile(r"\*\*Predict[^*]*\*\*:?\s*(.+?)(?:\n\s*\n|\Z)", re.S)


class DeckError(ValueError):
    """A deck that names what its lesson has not, or that shows more than a slide holds."""


@dataclass
class Slide:
    """A slide: its heading, and its blocks as (kind, text); `pause` is a kind without text."""

    title: str
    blocks: list[tuple[str, str]] = field(default_factory=list)
    notes: str = ""


@dataclass
class Deck:
    """The slides of a lesson."""

    number: str
    lesson: str  # the name of its notebook, without .ipynb
    title: str
    promise: str
    slides: list[Slide]
    pictures: dict[str, bytes]

    @property
    def name(self) -> str:
        return f"{FOLDER}/{self.lesson}"


def text_of(value) -> str:
    """Text that a notebook file may keep as a list of lines."""
    return value if isinstance(value, str) else "".join(value)


# ---- What a cell has

class Lesson:
    """A lesson's cells by id, and what a slide may show of them."""

    def __init__(self, number: str, path: Path):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        self.number, self.path, self.title = number, path, lesson_title(notebook)
        self.promise = lesson_promise(notebook)
        self.cells = {cell["id"]: cell for cell in notebook["cells"]}
        self.order = list(self.cells)

    def source(self, id: str) -> str:
        return text_of(self.cells[id]["source"])

    def data(self, id: str) -> list[dict]:
        return [output.get("data", {}) for output in self.cells[id].get("outputs", [])]

    def figure(self, id: str) -> tuple[str, bytes]:
        """The cell's picture: the name of its file, and the bytes."""
        for data in self.data(id):
            for kind, ending in (("image/png", "png"), ("image/jpeg", "jpg")):
                if kind in data:
                    return f"{self.number}_{id}.{ending}", base64.b64decode(text_of(data[kind]))
        raise DeckError("it has no saved picture")

    def code(self, id: str, part: str) -> str:
        source = "\n".join(line for line in self.source(id).split("\n") if not re.match(r"#\s*\|", line))
        quoted = re.findall(r'"([^"]+)"', part)
        if quoted:
            return textwrap.dedent("\n".join(between(source.split("\n"), *quoted)))
        return named(source, part.strip()) if part.strip() else source.strip("\n")

    def table(self, id: str, part: str) -> str:
        texts = [self.source(id)] if self.cells[id]["cell_type"] == "markdown" else [
            text_of(data["text/markdown"]) for data in self.data(id) if "text/markdown" in data]
        tables = re.findall(r"(?:^\|.*\n?)+", "\n\n".join(texts), re.M)
        which, rows = (*map(int, part.split()), *(1, None)[len(part.split()):])
        if which > len(tables):
            raise DeckError(f"it has {len(tables)} tables")
        lines = tables[which - 1].strip().split("\n")
        shown = without_links("\n".join(lines if rows is None else lines[:rows + 2]))  # below the head and its rule
        return re.sub(r"(?<=\d) %", "\u00a0%", shown.replace(" ± ", "\u00a0±\u00a0"))  # figures stay in one line

    def output(self, id: str, part: str) -> str:
        outputs = self.cells[id].get("outputs", [])
        printed = "".join(text_of(one["text"]) for one in outputs if "text" in one)
        shown = printed or "\n".join(text_of(data["text/plain"]) for data in self.data(id) if "text/plain" in data)
        if not shown.strip():
            raise DeckError("it prints nothing")
        return "\n".join(shown.rstrip("\n").split("\n")[:int(part) if part.strip() else None])

    def ask(self, id: str) -> str:
        if not (match := PREDICT.search(self.source(id))):
            raise DeckError("it asks for no prediction")
        return without_links(" ".join(match[1].split()))

    def notes(self, *ids: str) -> str:
        """The prose of these cells, as a speaker reads it: no headings, tables, code or links."""
        text = "\n\n".join(self.source(id) for id in ids)
        text = re.sub(r"^```.*?^```[^\n]*$|^[#|>:][^\n]*$|\$\$.*?\$\$", "", text, flags=re.M | re.S)
        return re.sub(r"\n{3,}", "\n\n", without_links(text)).strip()

    def above(self, id: str) -> list[str]:
        """The cell itself if it is prose, else the prose above it."""
        for place in range(self.order.index(id), -1, -1):
            if self.cells[self.order[place]]["cell_type"] == "markdown":
                return [self.order[place]]
        return []


def without_links(text: str) -> str:
    """Markdown with the words of each link, and not its target."""
    return re.sub(r"\[((?:[^\]`]|`[^`]*`)*)\]\([^)]*\)", r"\1", text)


def between(lines: list[str], first: str, last: str | None = None) -> list[str]:
    """From the first line that contains `first` to the next that contains `last`."""
    begin = next((i for i, line in enumerate(lines) if first in line), None)
    if begin is None:
        raise DeckError(f"no line of it has {first!r}")
    end = begin if last is None else next((i for i in range(begin, len(lines)) if last in lines[i]), None)
    if end is None:
        raise DeckError(f"no line from {first!r} on has {last!r}")
    return lines[begin:end + 1]


def named(source: str, name: str) -> str:
    """A function, class or method (`Class.method`) as it is written, without its docstring."""
    body, found = ast.parse(source).body, None
    for part in name.split("."):
        found = next((node for node in body if getattr(node, "name", "") == part), None)
        if found is None:
            raise DeckError(f"it defines no {name}")
        body = found.body
    lines = source.split("\n")
    first = min([found.lineno, *(one.lineno for one in found.decorator_list)])
    kept = dict(zip(range(first, found.end_lineno + 1), lines[first - 1:found.end_lineno], strict=True))
    docs = found.body[0]
    if isinstance(docs, ast.Expr) and isinstance(getattr(docs.value, "value", None), str):
        last = docs.end_lineno + (not lines[docs.end_lineno].strip())  # and the empty line below it
        kept = {k: line for k, line in kept.items() if not docs.lineno <= k <= last}
    return textwrap.dedent("\n".join(kept.values())).strip("\n")


# ---- From Markdown to slides

def alt_text(lesson: Lesson, id: str, title: str) -> str:
    """The words for a figure: those of figures.toml, else the slide's heading."""
    from pages import described

    return described().get(lesson.number, {}).get(id) or f"A figure of the lesson: {title}"


def dense(table: str) -> bool:
    """Does a table need small letters?"""
    lines = table.split("\n")
    widest = max(len(line) for line in lines if not re.match(r"\|\s*:?-", line))
    columns = lines[0].count("|") - 1
    return len(lines) > 7 or widest > 100 or columns > 7 or len(lines) > 5 and (widest > 75 or columns > 5)


def limited(text: str) -> str:
    """Code or an output, if a slide holds it."""
    if (count := text.count("\n") + 1) > MOST_LINES:
        raise DeckError(f"it is {count} lines; a slide holds {MOST_LINES}")
    return text


def make_block(lesson: Lesson, deck: Deck, slide: Slide, kind: str, id: str, part: str) -> None:
    """Add what `{{kind id part}}` stands for to a slide."""
    if kind == "figure":
        name, picture = lesson.figure(id)
        deck.pictures[name] = picture
        answers = any(one == "ask" for one, _ in slide.blocks)  # then it comes on the click after the question
        slide.blocks.append(("answer" if answers else kind, f"{name}\n{alt_text(lesson, id, slide.title)}"))
    elif kind in ("code", "output"):
        slide.blocks.append((kind, limited(getattr(lesson, kind)(id, part))))
    elif kind == "table":
        slide.blocks.append((kind, lesson.table(id, part.strip())))
    elif kind == "ask":
        slide.blocks.append((kind, lesson.ask(id)))
    elif kind == "notes":
        slide.notes = lesson.notes(id, *part.split())
        return
    else:
        raise DeckError(f"{kind!r} is nothing that a slide shows")
    slide.notes = slide.notes or lesson.notes(*lesson.above(id))


def make_question(lesson: Lesson, slide: Slide, place: int) -> None:
    """A question of the quiz, and its answer for the next click."""
    from course_lib.teach import quiz

    question = quiz(lesson.number).questions[place - 1]
    slide.blocks.append(("markdown", question.text))
    choices = [f"{chr(65 + k)}. {' '.join(text.split())}" for k, (text, _) in enumerate(question.choices)]
    slide.blocks.append(("choices", "\n".join(choices)))
    _, why = question.choices[question.right]
    slide.blocks += [("pause", ""), ("markdown", f"**{chr(65 + question.right)}.** {' '.join(why.split())}")]
    slide.notes = "\n\n".join(f"{chr(65 + k)}: {' '.join(why.split())}"
                              for k, (_, why) in enumerate(question.choices))


def read_slide(lesson: Lesson, deck: Deck, text: str) -> Slide:
    """One slide out of its Markdown."""
    title, _, body = text.partition("\n")
    slide = Slide(title.strip())
    for part in re.split(r"\n\s*\n|\n(?=\{\{)|(?<=\}\})\n", body.strip()):
        part = part.strip()
        match = SHOW.match(part)
        if part == ". . .":
            slide.blocks.append(("pause", ""))
        elif match and match[1] == "quiz":
            make_question(lesson, slide, int(match[2]))
        elif match and match[2] not in lesson.cells:
            raise DeckError(f"{part}: {lesson.path.name} has no cell {match[2]}")
        elif match:
            try:
                make_block(lesson, deck, slide, match[1], match[2], match[3])
            except DeckError as error:
                raise DeckError(f"{part}: {error}") from None
        elif part:
            slide.blocks.append(("markdown", part))
    return slide


@cache
def deck(number: str) -> Deck:
    """The deck of a lesson. Raises: `DeckError` with the deck, the slide and what does not fit."""
    path = find_lessons(ROOT / "nbs")[number]
    lesson = Lesson(number, path)
    made = Deck(number, path.stem, lesson.title, lesson.promise, [], {})
    text = (DECKS / f"{number}.md").read_text(encoding="utf-8")
    for part in re.split(r"^## ", text, flags=re.M)[1:]:
        try:
            made.slides.append(read_slide(lesson, made, part))
        except DeckError as error:
            raise DeckError(f"website/slides/{number}.md, slide {part.splitlines()[0]!r}: {error}") from None
    return made


def decks() -> list[Deck]:
    """All decks; a lesson without one has none."""
    return [deck(number) for number in find_lessons(ROOT / "nbs") if (DECKS / f"{number}.md").is_file()]


def deck_address(number: str) -> str:
    """Where the deck of a lesson lies in the site; empty for a lesson without one."""
    return f"{deck(number).name}.html" if (DECKS / f"{number}.md").is_file() else ""


def decks_table() -> str:
    """What pages/slides.ipynb shows: the decks, as Markdown."""
    rows = [f'| <a data-href="../{one.name}.html">{one.title}</a> | {len(one.slides) + 1} | '
            f"[the lesson](../{one.lesson}.ipynb) |" for one in decks()]
    return "\n".join(["| deck | slides | |", "|---|---:|---|", *rows])


# ---- For Quarto

def quarto_block(kind: str, text: str) -> str:
    """A block as Quarto reads it."""
    from pages import mathml

    if kind == "pause":
        return ". . ."
    if kind in ("figure", "answer"):
        name, words = text.split("\n", 1)
        classes = ".r-stretch" + " .fragment" * (kind == "answer")
        return f"![](figures/{name}){{{classes} fig-alt={json.dumps(words, ensure_ascii=False)}}}"
    if kind in ("code", "output"):
        return f"```{'python' if kind == 'code' else 'default'}\n{text}\n```"
    if kind == "ask":
        return f"::: {{.ask .fragment}}\n**Predict:** {mathml(text)}\n:::"
    if kind == "table" and dense(text):
        return f"::: {{.dense}}\n{mathml(text)}\n:::"
    if kind == "choices":
        return "::: {.choices}\n" + "\n".join(f"{line}\\" for line in text.split("\n")).rstrip("\\") + "\n:::"
    return mathml(text)


def quarto_deck(deck: Deck) -> str:
    """A deck as Quarto Markdown with its own format `revealjs`."""
    options = {"width": WIDTH, "height": HEIGHT, "margin": 0.06, "slide-number": "c/t", "transition": "none",
               "auto-stretch": False, "html-math-method": "mathml", "tbl-colwidths": False,
               "css": "../website/static/slides.css"}
    front = yaml.safe_dump({"title": deck.title, "subtitle": deck.promise, "format": {"revealjs": options}},
                           allow_unicode=True, width=1000, sort_keys=False)
    parts = [f"---\n{front}---"]
    for slide in deck.slides:
        parts += [f"## {slide.title}", *(quarto_block(*block) for block in slide.blocks)]
        if slide.notes:
            parts.append(f"::: {{.notes}}\n{quarto_block('markdown', slide.notes)}\n:::")
    parts.append(f"[The lesson](../{deck.lesson}.ipynb)")  # on the last slide
    return "\n\n".join(parts) + "\n"


def stage_decks(folder: Path) -> None:
    """The decks among the pages that Quarto renders, with their pictures and their stylesheet."""
    shutil.copy(STATIC / "slides.css", folder / "website" / "static")
    for one in decks():
        write_figures(one, folder)
        (folder / f"{one.name}.qmd").write_text(quarto_deck(one), encoding="utf-8")


def write_figures(deck: Deck, folder: Path) -> None:
    """The pictures of a deck as files."""
    target = folder / FOLDER / "figures"
    target.mkdir(parents=True, exist_ok=True)
    for name, data in deck.pictures.items():
        (target / name).write_bytes(data)


# ---- Without Quarto

def highlighted(code: str, language: str = "python") -> str:
    """Code as HTML with classes for its parts."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name

    return highlight(code, get_lexer_by_name(language), HtmlFormatter(nowrap=True)).rstrip("\n")


@cache
def markdown():
    """Markdown to HTML, with tables."""
    import mistune

    return mistune.create_markdown(escape=False, plugins=["table"])


def to_html(text: str) -> str:
    """Markdown with formulas as HTML."""
    from pages import mathml

    return markdown()(mathml(text)).strip()


def html_block(kind: str, text: str) -> str:
    """A block as HTML."""
    if kind in ("figure", "answer"):
        name, words = text.split("\n", 1)
        classes = "r-stretch" + " fragment" * (kind == "answer")
        return f'<img class="{classes}" src="figures/{name}" alt="{html.escape(words)}">'
    if kind in ("code", "output"):
        shown = highlighted(text) if kind == "code" else html.escape(text)
        return f'<pre class="{kind}" tabindex="0"><code>{shown}</code></pre>'
    if kind == "ask":
        return f'<div class="ask fragment">{to_html(f"**Predict:** {text}")}</div>'
    if kind == "table" and dense(text):
        return f'<div class="dense">{to_html(text)}</div>'
    if kind == "choices":
        return '<div class="choices">' + "".join(map(to_html, text.split("\n"))) + "</div>"
    return to_html(text)


def html_slide(slide: Slide, place: int) -> str:
    """A slide as a section of reveal.js."""
    shown, paused = "", 0
    for kind, text in slide.blocks:
        if kind == "pause":
            shown, paused = shown + '<div class="fragment">', paused + 1
        else:
            shown += html_block(kind, text)
    notes = f'<aside class="notes">{to_html(slide.notes)}</aside>' if slide.notes else ""
    return f'<section id="slide-{place}"><h2>{heading(slide.title)}</h2>{shown}{"</div>" * paused}{notes}</section>'


def heading(text: str) -> str:
    """A heading's Markdown, as HTML without a paragraph."""
    return re.sub(r"\A<p>(.*)</p>\Z", r"\1", to_html(text), flags=re.S)


def html_deck(deck: Deck, site_title: str) -> str:
    """A deck as a page with reveal.js, which lies beside it: no other host is asked."""
    slides = "\n".join(html_slide(slide, place) for place, slide in enumerate(deck.slides, start=2))
    static = "../website/static"
    return f"""<!doctype html>
<html lang="en" class="deck">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="description" content="Slides: {html.escape(deck.promise)}">
<title>Slides: {html.escape(deck.title)} – {html.escape(site_title)}</title>
<link rel="icon" href="../website/favicon.svg">
<link rel="stylesheet" href="{static}/reveal/reveal.css">
<link rel="stylesheet" href="{static}/slides.css">
</head>
<body>
<main><div class="reveal"><div class="slides">
<section id="slide-1" class="title-slide"><h1>{heading(deck.title)}</h1>{to_html(deck.promise)}
<p class="quiet">{html.escape(times(deck.number))}. <a href="../{deck.lesson}.html">The lesson</a></p>
<p class="quiet">Arrow keys: next and back. S: notes for the speaker. O: all slides. F: full screen.</p></section>
{slides}
</div></div></main>
<script src="{static}/reveal/reveal.js"></script>
<script src="{static}/reveal/notes.js"></script>
<script>Reveal.initialize({{width: {WIDTH}, height: {HEIGHT}, margin: 0.06, center: false, hash: true,
fragmentInURL: false, transition: "none", slideNumber: "c/t", plugins: [RevealNotes]}});</script>
</body>
</html>
"""


def write_decks(site: Path, site_title: str) -> None:
    """The decks as pages of the built site, and reveal.js for them."""
    shutil.copy(STATIC / "slides.css", site / "website" / "static")
    shutil.copytree(STATIC / "reveal", site / "website" / "static" / "reveal", dirs_exist_ok=True)
    for one in decks():
        write_figures(one, site)
        (site / f"{one.name}.html").write_text(html_deck(one, site_title), encoding="utf-8")
