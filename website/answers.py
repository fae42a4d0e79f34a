"""What answers the reader on a page without a kernel: quizzes and labs, and the page on which they come back.

Everything here is HTML that can be read without its script, which stands beside it in `website/static/`. What is asked
and what is said to a choice come from where the notebook has them: `quiz("04")` and the labs.
"""

import re
from pathlib import Path

from fastcore.nbio import mk_cell
from nbdev.process import Processor

ROOT = Path(__file__).resolve().parents[1]
STATIC = ROOT / "website" / "static"
SHOWN = re.compile(r"^(quiz|show_lab|predict_number)\(\"(\d\d)(?:\.lab)?\"\);?\s*\Z", re.M)  # a cell's last line
PUZZLES = range(1, 6)  # of curves; a page draws no new ones


def raw(html: str) -> str:
    """HTML that both builders put into a page untouched. (An output of text/html makes Quarto ask other hosts.)"""
    return f"```{{=html}}\n{html}\n```"


def assets(up: str, *names: str) -> str:
    """The stylesheet of all pages that answer, and the scripts of `website/static/` that this one needs."""
    scripts = "".join(f'<script src="{up}website/static/{name}" defer></script>' for name in names)
    return f'<link rel="stylesheet" href="{up}website/static/answers.css">{scripts}'


def markdown_output(text: str):
    """A saved output that is Markdown."""
    from fastcore.xtras import dict2obj

    return dict2obj({"data": {"text/markdown": text}, "metadata": {}, "output_type": "display_data"})


def markdown_cell(text: str):
    """A cell of Markdown, as nbdev's processors expect one."""
    cell = mk_cell(text, "markdown")
    cell.directives_ = {}
    return cell


# ---- Quizzes and labs

def quiz_html(lesson: str) -> str:
    """The questions of a lesson."""
    from course_lib.teach import quiz

    return quiz(lesson).text(f"quiz-{lesson}")


def lab_html(lesson: str) -> str:
    """The question of a lesson's lab: which of four causes do the curves show?"""
    from course_lib.teach.lab import lab_question
    from course_lib.teach.practice import load_labs

    [lab] = load_labs(lesson)
    return f"<div class='quiz'>{lab_question(lab).html(f'lab-{lesson}')}</div>"


def predictions_html(lesson: str, opened: bool = False) -> str:
    """The figures of a lesson to predict, each of them folded, and by default the whole."""
    from course_lib.teach import predict_number

    return predict_number(lesson).text(opened)


def curves_page() -> str:
    """A few puzzles of curves, each with its number: what pages/curves.ipynb shows."""
    from course_lib.teach import read_curves

    puzzles = "\n\n".join(f"### Puzzle {seed}\n\n{raw(read_curves(seed).text())}" for seed in PUZZLES)
    return f"{puzzles}\n\n{raw(assets('../', 'answers.js'))}"


def predictions_page() -> str:
    """The figures of all lessons to predict: what the second half of pages/curves.ipynb shows."""
    from course_lib.teach.predict import FIGURES

    lessons = sorted({one.id[:2] for one in FIGURES})
    return "\n\n".join(f"### Lesson {int(one)}\n\n{raw(predictions_html(one, opened=True))}" for one in lessons)


class answer_back(Processor):
    """In a lesson: its quiz in place of the saved one, and below the curves of its lab the question."""

    def begin(self) -> None:
        found = False
        for cell in self.nb.cells:
            match = cell.cell_type == "code" and SHOWN.search(cell.source or "")
            if match and match[1] == "quiz":
                cell.outputs = [markdown_output(raw(quiz_html(match[2])))]
            elif match and match[1] == "predict_number":
                cell.outputs = [*cell.outputs[:-1], markdown_output(raw(predictions_html(match[2])))]
            elif match:
                cell.outputs = [*cell.outputs, markdown_output(raw(lab_html(match[2])))]
            found = found or bool(match)
        if found:
            self.nb.cells.append(markdown_cell(raw(assets("", "answers.js"))))


class due_box(Processor):
    """On the home page, below its title: how many questions of earlier lessons wait, once there are any."""

    def begin(self) -> None:
        box = '<p class="course-due" hidden><a href="pages/review.html"></a></p>'
        title = next(i for i, cell in enumerate(self.nb.cells) if cell.cell_type == "raw")
        self.nb.cells.insert(title + 1, markdown_cell(raw(box + assets("", "answers.js"))))


def review_page() -> str:
    """All questions of all lessons: what pages/review.ipynb shows."""
    import json

    from course_lib.teach import quiz
    from course_lib.teach.practice import exercise_lessons
    from course_lib.teach.runner import find_lessons, lesson_title

    titles = {number: (path.stem, lesson_title(json.loads(path.read_text(encoding="utf-8"))))
              for number, path in find_lessons(ROOT / "nbs").items()}
    parts = ['<p class="review-says" role="status"></p>']
    for lesson in exercise_lessons():
        page, title = titles[lesson]
        asked = "".join(question.html(f"quiz-{lesson}-{number}", number)
                        for number, question in enumerate(quiz(lesson).questions, start=1))
        parts.append(f'<section class="quiz review" aria-label="{title}"><p class="review-lesson">'
                     f'<a href="../{page}.html">{title}</a></p>{asked}</section>')
    return raw("".join(parts) + assets("../", "answers.js"))


# ---- Scripts

def bundle(*names: str, data: str = "") -> str:
    """Scripts of `website/static/` one after the other, after their data, as one that leaves no name behind."""
    parts = [(STATIC / name).read_text(encoding="utf-8") for name in names]
    return "\n".join(["(() => {", '"use strict";', *([f"const DATA = {data};"] if data else []), *parts, "})();\n"])


def stage_static(folder: Path) -> None:
    """Put the stylesheet and the script of the quizzes where the staged pages look for them."""
    target = folder / "website" / "static"
    target.mkdir(parents=True, exist_ok=True)
    for name in ("answers.css", "answers.js"):
        (target / name).write_bytes((STATIC / name).read_bytes())
