"""Slides: each deck shows what its lesson has, fits its slides, and works in a browser and for Quarto."""

import importlib.util
import json
import re
import shutil

import pytest
import yaml
from served import ROOT, open_page

import slides as making  # isort: skip

LESSONS = sorted(path.stem for path in (ROOT / "nbs").glob("[0-9][0-9]_*.ipynb"))
CAN_BUILD = bool(shutil.which("quarto")) or importlib.util.find_spec("smalldocs") is not None
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900),
              pytest.mark.skipif(not CAN_BUILD, reason="The site needs Quarto, or smalldocs, which needs Python 3.11.")]
SHOWN = ("figure", "answer", "code", "table", "output")


def own_words(slide):
    """What the deck itself says on a slide, and not the lesson or its quiz."""
    kinds = [kind for kind, _ in slide.blocks]
    return "" if "choices" in kinds else "\n".join(text for kind, text in slide.blocks if kind == "markdown")


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_deck_is_for_half_an_hour_and_a_slide_for_one_idea(lesson):
    deck = making.deck(lesson[:2])
    assert deck.lesson == lesson and 12 <= len(deck.slides) + 1 <= 25
    assert len({slide.title for slide in deck.slides}) == len(deck.slides)
    kinds = [kind for slide in deck.slides for kind, _ in slide.blocks]
    assert kinds.count("ask") >= (1 if lesson.startswith("00") else 5) and len(deck.pictures) >= 2
    assert ("choices" in kinds) == (not lesson.startswith("00"))
    for slide in deck.slides:
        assert slide.notes and slide.blocks, slide.title
        words = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", own_words(slide))
        assert len(words.split()) <= 65, (slide.title, len(words.split()))
        assert sum(kind in ("figure", "answer") for kind, _ in slide.blocks) <= 1, slide.title
        assert sum(kind in SHOWN for kind, _ in slide.blocks) <= 2, slide.title
        for kind, text in slide.blocks:
            assert kind not in ("code", "output") or text.count("\n") < 12, slide.title


@pytest.mark.parametrize("lesson", LESSONS)
def test_every_number_of_a_deck_s_own_words_stands_in_its_lesson(lesson):
    """A lesson that is recorded anew has other figures; a slide must not keep the old ones."""
    notebook = json.loads((ROOT / "nbs" / f"{lesson}.ipynb").read_text(encoding="utf-8"))
    said = "\n".join(making.text_of(cell["source"]) for cell in notebook["cells"])
    for output in (output for cell in notebook["cells"] for output in cell.get("outputs", [])):
        said += making.text_of(output.get("text", ""))
        shown = output.get("data", {})
        said += "".join(making.text_of(shown[kind]) for kind in shown if kind.startswith("text/"))
    number = re.compile(r"\d+(?:[.,]\d+)*")
    known = set(number.findall(said))
    missing = [(slide.title, found) for slide in making.deck(lesson[:2]).slides
               for found in number.findall(f"{slide.title}\n{own_words(slide)}") if found not in known]
    assert missing == []


def lesson_with(tmp_path, *cells):
    path = tmp_path / "07_x.ipynb"
    top = {"cell_type": "markdown", "id": "top", "source": "# 7 · X\n\n> Y."}
    path.write_text(json.dumps({"cells": [top, *cells]}), encoding="utf-8")
    return making.Lesson("07", path), making.Deck("07", "07_x", "7 · X", "Y.", [], {})


CODE = {"cell_type": "code", "id": "c1", "outputs": [
    {"output_type": "stream", "name": "stdout", "text": ["1\n", "2\n"]},
    {"output_type": "display_data", "data": {"text/markdown": "| a | b |\n|---|---|\n| 1 ± 2 % | x |\n| 3 | y |\n"}}],
    "source": '#| export\nclass A:\n    """Words."""\n\n    def b(self):\n        "Words."\n\n        return 1\n\n\n'
              "x = 2\ny = 3"}
PROSE = {"cell_type": "markdown", "id": "p1", "source":
         "## A heading\n\nSome [words](a.md).\n\n**Predict before you run.** Which\none?\n\nMore."}


def test_a_slide_shows_what_the_cell_has_now(tmp_path):
    lesson, deck = lesson_with(tmp_path, PROSE, CODE)

    def blocks(text):
        return making.read_slide(lesson, deck, f"Title\n\n{text}").blocks

    assert blocks("One.\n\n{{code c1 A.b}}\n\nTwo.") == [
        ("markdown", "One."), ("code", "def b(self):\n    return 1"), ("markdown", "Two.")]
    assert blocks('{{code c1 "x =" "y ="}}') == [("code", "x = 2\ny = 3")]
    assert blocks("{{output c1 1}}\n\n. . .\n\nB") == [("output", "1"), ("pause", ""), ("markdown", "B")]
    assert blocks("{{table c1 1 1}}") == [("table", "| a | b |\n|---|---|\n| 1\u00a0±\u00a02\u00a0% | x |")]
    assert blocks("{{ask p1}}") == [("ask", "Which one?")]
    slide = making.read_slide(lesson, deck, "T\n\n{{output c1}}")
    assert "Some words." in slide.notes and "heading" not in slide.notes  # the text above the cell
    assert making.read_slide(lesson, deck, "T\n\n{{notes top p1}}").notes.startswith("Some words.")


@pytest.mark.parametrize(("text", "says"), [
    ("{{code c9}}", "has no cell c9"), ("{{figure c1}}", "no saved picture"), ("{{code c1 Z}}", "defines no Z"),
    ('{{code c1 "z ="}}', "no line of it has 'z ='"), ("{{table c1 2}}", "it has 1 tables"),
    ("{{ask c1}}", "no prediction"),
    ("{{output p1}}", "prints nothing"), ("{{picture c1}}", "'picture' is nothing that a slide shows")])
def test_a_deck_that_names_what_the_lesson_has_not_is_refused(text, says, tmp_path):
    lesson, deck = lesson_with(tmp_path, PROSE, CODE)
    with pytest.raises(making.DeckError, match=re.escape(says)):
        making.read_slide(lesson, deck, f"Title\n\n{text}")


def test_thirteen_lines_of_code_are_refused():
    assert making.limited("x\n" * 11 + "x").count("\n") == 11
    with pytest.raises(making.DeckError, match="it is 13 lines; a slide holds 12"):
        making.limited("x\n" * 12 + "x")


# ---- For Quarto

@pytest.mark.parametrize("lesson", LESSONS)
def test_quarto_gets_each_deck_in_its_own_format(lesson, staged):
    text = (staged / "slides" / f"{lesson}.qmd").read_text(encoding="utf-8")
    front, body = text.split("---\n", 2)[1:]
    front = yaml.safe_load(front)
    assert front["title"] == making.deck(lesson[:2]).title
    assert front["format"]["revealjs"]["html-math-method"] == "mathml"
    outside = re.sub(r"^```.*?^```$", "", body, flags=re.M | re.S)
    assert len(re.findall(r"^## ", outside, re.M)) == len(making.deck(lesson[:2]).slides)
    assert not re.search(r"^#{1,6} (?<!## )", outside, re.M) and "{{" not in body
    assert outside.count("\n::: {") == len(re.findall(r"^:::$", outside, re.M))  # each box is closed
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", outside)
    assert len(pictures) >= 2 and all((staged / "slides" / one).is_file() for one in pictures)
    assert not re.search(r"https?://(?!www\.w3\.org)", outside)  # no page asks another host
    config = yaml.safe_load((staged / "_quarto.yml").read_text(encoding="utf-8"))
    assert "slides/*.qmd" in config["project"]["render"]


# ---- In a browser

ON_THE_SLIDE = """() => {
    const slide = Reveal.getCurrentSlide(), seen = e => !e.matches("aside");
    const bottom = Math.max(...[...slide.children].filter(seen).map(e => e.offsetTop + e.offsetHeight));
    const picture = slide.querySelector("img.r-stretch");
    return {bottom, picture: picture && picture.offsetHeight, title: slide.querySelector("h1, h2").textContent,
            loaded: [...slide.querySelectorAll("img")].every(e => e.naturalWidth),
            cut: [...slide.querySelectorAll("pre, .table-box")].filter(e => e.scrollWidth > e.clientWidth + 1).length,
            hidden: slide.querySelectorAll(".fragment:not(.visible)").length};
}"""


@pytest.mark.parametrize("lesson", LESSONS)
def test_no_slide_is_fuller_than_a_screen_and_no_other_host_is_asked(lesson, site, browser):
    """From the folder of the site, without a server."""
    page, told, wrong = open_page(browser, viewport={"width": making.WIDTH, "height": making.HEIGHT}), [], []
    page.on("console", lambda message: message.type == "error" and told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: request.url.startswith(("file:", "data:")) or told.append(request.url))
    page.goto((site / "slides" / f"{lesson}.html").as_uri())
    page.wait_for_function("window.Reveal && Reveal.isReady()")
    count = page.evaluate("Reveal.getTotalSlides()")
    assert count == len(making.deck(lesson[:2]).slides) + 1
    for place in range(count):
        page.evaluate("place => { Reveal.slide(place, 0, 99); Reveal.layout(); }", place)
        found = page.evaluate(ON_THE_SLIDE)
        if (found["bottom"] > making.HEIGHT or found["cut"] or found["hidden"] or not found["loaded"]
                or found["picture"] is not None and found["picture"] < 240):
            wrong.append((place + 1, found))
    page.context.close()
    assert wrong == [] and told == []


def test_a_deck_is_led_by_the_keyboard_and_keeps_its_place(browser, address):
    page = open_page(browser, viewport={"width": 1280, "height": 720})
    page.goto(f"{address}03_training_loop.html")
    page.locator(".lesson-button", has_text="Slides").click()
    page.wait_for_url("**/slides/03_training_loop.html")
    page.wait_for_function("window.Reveal && Reveal.isReady()")
    title = "Five lines train a network"
    for _ in range([slide.title for slide in making.deck("03").slides].index(title) + 1):
        page.keyboard.press("ArrowRight")
    ask = page.locator("section.present .ask")
    assert page.locator("section.present h2").inner_text() == title and ask.count() == 1
    assert "visible" not in ask.get_attribute("class")
    page.keyboard.press("ArrowRight")  # the question comes on a click
    page.wait_for_function("one => one.classList.contains('visible')", arg=ask.element_handle())
    # reveal.js writes the address when the keys have rested for a second
    page.wait_for_function("location.hash === '#/' + document.querySelector('section.present').id")
    page.reload()
    page.wait_for_function("window.Reveal && Reveal.isReady()")
    assert page.locator("section.present h2").inner_text() == title
    with page.expect_popup() as popup:  # the notes for the speaker are the lesson's own text
        page.keyboard.press("s")
    popup.value.wait_for_function("document.querySelector('.speaker-controls-notes .value')?.textContent.length > 100")
    assert "single layer" in popup.value.locator(".speaker-controls-notes .value").inner_text()
    page.context.close()


def test_the_page_of_the_slides_leads_to_every_deck(pages):
    listed = pages["pages/slides.html"]
    assert {f"../slides/{lesson}.html" for lesson in LESSONS} <= set(listed.links)
    for lesson in LESSONS:
        assert f"slides/{lesson}.html" in pages[f"{lesson}.html"].links
        assert f"../{lesson}.html" in pages[f"slides/{lesson}.html"].links
