"""The course as a book: chapters in Markdown with their figures, which Quarto makes into an EPUB or a PDF.

A book answers nobody: it has no widgets, explorers or buttons, the answers of a chapter's quiz and lab stand at its
end, and a link leads to a place in the book, to the site if it has an address, or nowhere.
"""

import base64
import os
import posixpath
import re
import shutil
import subprocess
from pathlib import Path

import yaml
from fastcore.nbio import read_nb
from nbdev.process import NBProcessor
from pages import (
    COMMON,
    NBS,
    addresses,
    alt_texts,
    fresh_cost,
    home_pictures,
    lesson_paths,
    outside_code,
    source,
)
from portable import text_of

PREFACE = ("c842023b", "0h0me005")  # of the home page: what stands in the preface, too
APPENDICES = ("glossary", "reported", "licences")
DROPPED = re.compile(r"^check\(|^\s*Markdown\(typical_table", re.M)  # what only a notebook needs
SHOWN = re.compile(r"^(quiz|show_lab)\(\"(\d\d)(?:\.lab)?\"\);?\s*\Z", re.M)
HEADING = re.compile(r"^(#{1,6}) (.+?)(?: *\{#([\w.-]+)\})?$", re.M)
CODE = r"^ *(?P<fence>`{3,})[^\n]*\n.*?^ *(?P=fence)$|`[^`\n]+`"
LINK = re.compile(rf"(?<!!)\[((?:[^\]`]|`[^`]*`)*)\]\(([^)\s]+)\)|{CODE}", re.M | re.S)  # a link may hold code
CHINESE = re.compile(r"^[\u3400-\u9fff（）]+\.\s*", re.M)


def chapters() -> dict[str, tuple[Path, str]]:
    """The book's files in order, by the notebook that each is made from: (name, what its anchors begin with)."""
    found = {"index.ipynb": (NBS / "index.ipynb", "preface")}
    found |= {path.name: (path, f"lesson-{number}") for number, path in lesson_paths().items()}
    return found | {f"pages/{name}.ipynb": (NBS / "pages" / f"{name}.ipynb", name) for name in APPENDICES}


def file_of(name: str) -> str:
    """The chapter that is made from the notebook `name`: pages/glossary.ipynb becomes glossary.qmd."""
    return f"{Path(name).stem}.qmd"


def slug(heading: str) -> str:
    """The anchor that Quarto gives a heading."""
    words = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"^[^a-z]+", "", re.sub(r"\s+", "-", re.sub(r"[^\w\s.-]", "", words)))


# ---- Text

class Text:
    """The Markdown of one notebook as that of a chapter: anchors that no other has, links that lead somewhere."""

    def __init__(self, name: str, prefix: str, kind: str):
        self.name, self.prefix, self.kind, self.seen = name, prefix, kind, set()

    def finished(self, text: str) -> str:
        if self.kind == "pdf":  # TeX needs a font of its own for these
            text = CHINESE.sub("", text)
        return outside_code(LINK.sub(self.link, text), lambda part: HEADING.sub(self.heading, part))

    def heading(self, match: re.Match) -> str:
        marks, words, own = match.groups()
        name = self.prefix if len(marks) == 1 else f"{self.prefix}-{own or slug(words)}"
        while name in self.seen:
            name += "-again"
        self.seen.add(name)
        return f"{marks} {words} {{#{name}}}"

    def link(self, match: re.Match) -> str:
        words, target = match[1], match[2]
        if target is None or re.match(r"https?:|mailto:", target):  # code, or elsewhere
            return match[0]
        path, _, anchor = target.partition("#")
        page = posixpath.normpath(posixpath.join(posixpath.dirname(self.name), path)) if path else self.name
        if page in chapters():
            prefix = chapters()[page][1]
            return f"[{words}]({'' if not path else file_of(page)}#{prefix}{f'-{anchor}' if anchor else ''})"
        site = addresses()[1]
        if site and page.endswith(".ipynb"):
            return f"[{words}]({site}/{page.removesuffix('.ipynb')}.html{f'#{anchor}' if anchor else ''})"
        return words


# ---- Cells

def fenced(text: str, language: str) -> str:
    """A block of code or of output."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    body = text.rstrip("\n")
    return f"{fence}{language}\n{body}\n{fence}"


def picture(folder: Path, name: str, data: str, words: str) -> str:
    """A saved picture as a file of the book, and the Markdown that shows it."""
    (folder / "figures").mkdir(exist_ok=True)
    (folder / "figures" / name).write_bytes(base64.b64decode(data))
    alt = words.replace('"', "'").replace("[", "(").replace("]", ")")
    return f'![](figures/{name}){{fig-alt="{alt}"}}'


def outputs(cell, folder: Path, name: str, words: str) -> list[str]:
    """What a cell shows, in print."""
    parts: list[str] = []
    printed = "".join(text_of(one["text"]) for one in cell.get("outputs", []) if "text" in one)
    if printed.strip():
        parts.append(fenced(printed, "default"))
    for place, output in enumerate(cell.get("outputs", [])):
        data = {kind: text_of(value) for kind, value in output.get("data", {}).items()}
        if "text/markdown" in data:
            parts.append(data["text/markdown"].strip())
        elif "text/html" in data:
            parts += html_in_print(data["text/html"], folder, f"{name}_{place}", words)
        elif kind := next((one for one in ("image/png", "image/jpeg") if one in data), None):
            parts.append(picture(folder, f"{name}_{place}.{kind[6:]}", data[kind], words))
        elif "text/plain" in data and not any("widget" in one for one in data):
            parts.append(fenced(data["text/plain"], "default"))
    return parts


def html_in_print(html: str, folder: Path, name: str, words: str) -> list[str]:
    """The photographs of some HTML, numbered, and its answers; its buttons are left out."""
    found = re.findall(r"data:image/(png|jpeg|webp);base64,([^\"']+)", html)
    shown = [picture(folder, f"{name}_{place}.{kind}", data, f"{words} Number {place}.").replace("{", "{width=23% ")
             for place, (kind, data) in enumerate(found, start=1)]
    answers = re.search(r"Answers</summary>(.*?)</details>", html, re.S)
    said = " ".join(re.sub(r"<[^>]+>", " ", answers[1]).split()) if answers else ""
    return [" ".join(shown)] * bool(shown) + [f"*Answers:* {said}"] * bool(said)


def questions(lesson: str) -> str:
    """A quiz in print, without its answers."""
    from course_lib.teach import quiz

    return "\n\n".join(
        f"{number}. {' '.join(one.text.split())}\n\n"
        + "\n".join(f"    {chr(97 + k)}. {' '.join(text.split())}" for k, (text, _) in enumerate(one.choices))
        for number, one in enumerate(quiz(lesson).questions, start=1))


def answers(lesson: str) -> str:
    """The answers of a quiz and of a lab, for the chapter's end."""
    from course_lib.teach import quiz
    from course_lib.teach.practice import load_labs

    lines = [f"{number}. **{chr(97 + one.right)}.** {' '.join(one.choices[one.right][1].split())}"
             for number, one in enumerate(quiz(lesson).questions, start=1)]
    for lab in load_labs(lesson):
        place, why = next((place, one.why) for place, one in enumerate(lab.causes, start=1) if one.right)
        lines.append(f"\nThe lab: **{place}.** {' '.join(why.split())}")
    return "\n".join(lines)


def chapter(name: str, folder: Path, kind: str) -> str:
    """A notebook as a chapter."""
    path, prefix = chapters()[name]
    notebook = read_nb(path)
    notebook.path_ = path
    if name == "index.ipynb":
        notebook.cells = [cell for place, cell in enumerate(notebook.cells) if not place or cell.id in PREFACE]
    in_print = [fresh_cost if one is home_pictures else one for one in COMMON]  # the question has no buttons here
    NBProcessor(nb=notebook, procs=[*in_print, alt_texts],
                rm_directives="quarto").process()
    parts, text, asked = [], Text(name, prefix, kind), ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(source(cell).strip())
            continue
        lines = source(cell).split("\n")
        marks = [line for line in lines if line.startswith("#|")]
        words = next((line.partition(":")[2].strip().strip('"') for line in marks if "fig-alt" in line), "")
        shown = "\n".join(line for line in lines if not line.startswith("#|")).strip("\n")
        match = SHOWN.search(shown)
        folded = any(re.search(r"echo:\s*false|code-fold:\s*true", line) for line in marks)
        if shown and not folded and not match:
            parts.append(fenced(shown, "python"))
        if match and match[1] == "quiz":
            asked = match[2]
            parts.append(questions(asked))
        elif not DROPPED.search(shown):
            parts += outputs(cell, folder, f"{prefix}-{cell.id}", words or "A figure.")
    if asked:
        parts.append(f"## Answers to the questions\n\n{answers(asked)}")
    return text.finished("\n\n".join(filter(None, parts))) + "\n"


# ---- The project

FORMATS = {
    "epub": {"toc": True, "toc-depth": 2, "html-math-method": "mathml", "tbl-colwidths": False},
    "pdf": {"toc": True, "toc-depth": 1, "documentclass": "scrreprt", "papersize": "a4", "fontsize": "10pt",
            "geometry": ["margin=22mm"], "code-block-bg": True, "pdf-engine": "lualatex"},
}


def build_book(kind: str, target: Path) -> Path:
    """The whole course as one file, `kind` epub or pdf, in the folder `target`. Only Quarto makes it."""
    if shutil.which("quarto") is None:
        raise SystemExit("A book needs Quarto (https://quarto.org), which is not on the PATH; for a PDF also TeX: "
                         "quarto install tinytex. The site needs neither: --format html.")
    stage = target.with_name("_book_proc")
    stage_book(stage, kind)
    if subprocess.run([shutil.which("quarto"), "render", str(stage), "--to", kind], cwd=stage).returncode:
        raise SystemExit("quarto could not make the book; what it says above names the chapter.")
    [made] = (stage / "_book").glob(f"*.{kind}")
    return Path(shutil.move(made, target / f"course.{kind}"))


def stage_book(folder: Path, kind: str) -> None:
    """Write the book's project for Quarto to `folder`: its chapters, figures and settings."""
    from finishing import site_words

    os.chdir(NBS.parent)  # nbdev looks for its settings from here
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in chapters():
        (folder / file_of(name)).write_text(chapter(name, folder, kind), encoding="utf-8")
    title, _ = site_words()
    names = [file_of(name) for name in chapters()]
    lessons = names[:-len(APPENDICES)]
    config = {"project": {"type": "book", "output-dir": "_book"}, "lang": "en", "execute": {"enabled": False},
              "number-sections": False,
              "book": {"title": title, "author": "The course authors", "chapters": lessons,
                       "appendices": names[len(lessons):]},
              "format": {kind: FORMATS[kind]}}
    (folder / "_quarto.yml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
