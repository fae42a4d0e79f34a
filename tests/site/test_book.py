"""The whole course as a book: what is staged for Quarto holds together."""

import json
import os
import re
import sys

import pytest
import yaml
from served import ADDRESS, REPOSITORY, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
LESSONS = sorted(path.stem for path in (ROOT / "nbs").glob("[0-9][0-9]_*.ipynb"))


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """The folder that Quarto would make into an EPUB."""
    from book import stage_book

    folder = tmp_path_factory.mktemp("book") / "epub"
    stage_book(folder, "epub")
    return folder


@pytest.fixture(scope="module")
def texts(book):
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(book.glob("*.qmd"))}


def without_code(text):
    return re.sub(r"^ *(`{3,})[^\n]*\n.*?^ *\1$|`[^`\n]+`", "", text, flags=re.M | re.S)


def test_the_chapters_are_the_lessons_in_their_order_between_a_preface_and_what_is_looked_up(book, texts):
    config = yaml.safe_load((book / "_quarto.yml").read_text(encoding="utf-8"))
    listed = config["book"]["chapters"] + config["book"]["appendices"]
    assert config["project"]["type"] == "book" and list(config["format"]) == ["epub"]
    lessons = [f"{lesson}.qmd" for lesson in LESSONS]
    assert listed == ["index.qmd", *lessons, "glossary.qmd", "reported.qmd", "licences.qmd"]
    assert sorted(texts) == sorted(listed)
    for name, text in texts.items():
        assert len(re.findall(r"^# .+ \{#[\w-]+\}$", without_code(text), re.M)) == 1, name  # one title
        assert len(text) > 1500, name


def test_every_link_and_every_anchor_is_in_the_book_or_on_the_web(texts):
    anchors = {name: re.findall(r"^#{1,6} .*\{#([\w.-]+)\}$", without_code(text), re.M) for name, text in texts.items()}
    everywhere = [one for found in anchors.values() for one in found]
    assert len(set(everywhere)) == len(everywhere) > 200  # in one file of an EPUB an anchor is there once
    counted = 0
    for name, text in texts.items():
        for target in re.findall(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)", without_code(text)):
            if not target.startswith("https://"):
                path, _, anchor = target.partition("#")
                assert anchor in anchors[path or name], (name, target)
                counted += 1
    assert counted > 250
    assert not re.search(r"\]\([^)]*\.ipynb", "\n".join(map(without_code, texts.values())))


def test_every_figure_of_a_lesson_is_there_with_its_words(book, texts):
    for lesson in LESSONS:
        shown = re.findall(r"!\[\]\((figures/[^)]+)\)\{(?:width=\S+ )?fig-alt=\"([^\"]+)\"\}", texts[f"{lesson}.qmd"])
        assert all((book / path).stat().st_size > 500 for path, _ in shown) and all(words for _, words in shown)
        kept = json.loads((ROOT / "nbs" / f"{lesson}.ipynb").read_text(encoding="utf-8"))
        pictures = sum("".join(data).count("<img") if kind == "text/html" else kind.startswith("image/")
                       for cell in kept["cells"] for output in cell.get("outputs", [])
                       for kind, data in output.get("data", {}).items())
        assert len(shown) == pictures, lesson


def test_a_book_has_no_widget_no_script_and_no_box_that_only_answers_on_a_page(texts):
    for name, text in texts.items():
        prose = without_code(text)
        assert not re.search(r"<script|<button|<div|<details|widget-view|data-explorer|\{=html\}", prose), name
        assert not re.search(r"^#\|", text, re.M) and "default_exp" not in text, name
        assert ": not yet." not in text, name  # what an exercise says that nobody has solved


@pytest.mark.parametrize("lesson", LESSONS[1:])
def test_questions_and_their_answers_stand_apart(lesson, texts):
    from course_lib.teach import quiz

    asked, _, told = texts[f"{lesson}.qmd"].partition("\n## Answers to the questions {#")
    for number, question in enumerate(quiz(lesson[:2]).questions, start=1):
        first, right = (" ".join(text.split()) for text in (question.text, question.choices[question.right][1]))
        assert f"\n{number}. {first}\n" in asked and right not in asked
        assert f"\n{number}. **{'abcd'[question.right]}.** {right}" in told
    assert "The lab: **" in told


def test_links_out_of_the_book_lead_to_the_site_where_it_has_an_address(monkeypatch):
    import book
    import pages

    text = ("[`a`](library/core/text.ipynb#x) [b](pages/glossary.ipynb#loss) [c](#recap) [d](01_data_prep.ipynb) "
            "`[e](f.g)`")
    monkeypatch.setattr(book, "addresses", lambda: ("", ""))
    made = "`a` [b](glossary.qmd#glossary-loss) [c](#lesson-03-recap) [d](01_data_prep.qmd#lesson-01) `[e](f.g)`"
    assert book.Text("03_training_loop.ipynb", "lesson-03", "epub").finished(text) == made
    monkeypatch.setattr(book, "addresses", lambda: (REPOSITORY, ADDRESS))
    site = f"[`a`]({ADDRESS}/library/core/text.html#x)"
    assert book.Text("03_training_loop.ipynb", "lesson-03", "epub").finished(text) == made.replace("`a`", site, 1)
    assert pages.lesson_paths()["03"].name in book.chapters()


def test_a_pdf_leaves_out_what_tex_has_no_letters_for():
    from book import Text

    text = "### loss\n损失（值）. A number."
    assert Text("pages/glossary.ipynb", "glossary", "pdf").finished(text) == "### loss {#glossary-loss}\nA number."
    assert "损失" in Text("pages/glossary.ipynb", "glossary", "epub").finished(text)


def test_without_quarto_it_is_said_and_with_quarto_one_file_is_left(tmp_path, monkeypatch):
    import book

    monkeypatch.setattr(book, "stage_book", lambda folder, kind: folder.mkdir())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="needs Quarto .*--format html"):
        book.build_book("epub", tmp_path / "docs")
    if os.name == "nt":
        return
    program = tmp_path / "quarto"
    program.write_text(f'#!{sys.executable}\nimport sys, pathlib\npathlib.Path("_book").mkdir()\n'
                       'pathlib.Path("_book/x.epub").write_text(" ".join(sys.argv[1:]))\n', encoding="utf-8")
    program.chmod(0o755)
    (tmp_path / "docs").mkdir()
    made = book.build_book("epub", tmp_path / "docs")
    assert made.name == "course.epub" and made.read_text() == f"render {tmp_path / '_book_proc'} --to epub"
