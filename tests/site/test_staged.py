"""What is staged for Quarto: its pages, settings and outputs are such that Quarto shows all of them, and asks nobody.

Quarto itself is not needed: these tests hold what its source and its output have shown to matter.
"""

import json
import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted(path.stem for path in (ROOT / "nbs").glob("[0-9][0-9]_*.ipynb"))
sys.path.insert(0, str(ROOT / "website"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# With one of these, Quarto loads require.js and jQuery from cdnjs, and for a widget its manager from unpkg; a widget
# wins over the HTML beside it, and then nothing is shown.
LOADS_SCRIPTS = re.compile(r"text/html|javascript|widget")


@pytest.fixture(scope="module")
def notebooks(staged):
    found = {path.relative_to(staged).as_posix(): json.loads(path.read_text(encoding="utf-8"))
             for path in sorted(staged.rglob("*.ipynb"))}
    assert len(found) > 60 and "api/learner.loop.ipynb" in found
    return found


def text_of(value):
    return value if isinstance(value, str) else "".join(value)


def outputs_of(notebook):
    return [output for cell in notebook["cells"] for output in cell.get("outputs", [])]


def markdown_of(notebook):
    """All that is read as Markdown: text cells, and outputs."""
    texts = [text_of(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    return texts + [text_of(output["data"]["text/markdown"]) for output in outputs_of(notebook)
                    if "text/markdown" in output.get("data", {})]


def lines_are_whole(value):
    """A list of lines, of which all but the last end as lines do."""
    return isinstance(value, list) and all(line.endswith("\n") and line.count("\n") == 1 for line in value[:-1])


def test_all_text_is_a_list_of_lines(notebooks):
    """Quarto splits one string into single lines without their ends: headings, tables and lists run together."""
    for name, notebook in notebooks.items():
        assert all(lines_are_whole(cell["source"]) for cell in notebook["cells"]), name
        for output in outputs_of(notebook):
            given = [output["text"]] if "text" in output else []
            given += [value for kind, value in output.get("data", {}).items() if kind.startswith("text/")]
            assert all(map(lines_are_whole, given)), name


def test_no_output_makes_quarto_load_scripts_from_other_hosts(notebooks):
    kinds = {(name, kind) for name, notebook in notebooks.items() for output in outputs_of(notebook)
             for kind in output.get("data", {})}
    assert len(kinds) > 50 and [pair for pair in kinds if LOADS_SCRIPTS.search(pair[1])] == []
    assert all("widgets" not in notebook["metadata"] for notebook in notebooks.values())


def test_html_is_still_shown_and_its_text_has_code_instead_of_backticks(notebooks):
    """Each output that is HTML in a lesson stands in a block that both builders pass through."""
    counted = 0
    for lesson in LESSONS:
        kept = json.loads((ROOT / "nbs" / f"{lesson}.ipynb").read_text(encoding="utf-8"))
        shown = "\n".join(markdown_of(notebooks[f"{lesson}.ipynb"]))
        blocks = re.findall(r"^(`{3,})\{=html\}\n(.*?)^\1$", shown, re.M | re.S)
        text = re.sub(r"<(script|style|pre)\b.*?</\1>|<[^>]+>", "", "".join(block for _, block in blocks), flags=re.S)
        assert "`" not in text, lesson
        for output in outputs_of(kept):
            saved = text_of(output.get("data", {}).get("text/html", ""))
            for question in re.findall(r"<b>\d+\.</b></a> (.*?)</p>", saved) if "Answers</summary>" in saved else ():
                counted += 1
                assert re.sub("[`]", "", question.split("<")[0])[:60] in text, (lesson, question)
    assert counted > 40


def test_what_one_cell_prints_is_one_output_with_all_of_its_text(notebooks):
    for lesson in LESSONS:
        kept = json.loads((ROOT / "nbs" / f"{lesson}.ipynb").read_text(encoding="utf-8"))
        printed = [text_of(output["text"]) for output in outputs_of(kept) if output["output_type"] == "stream"]
        staged = [cell.get("outputs", []) for cell in notebooks[f"{lesson}.ipynb"]["cells"]]
        for outputs in staged:
            kinds = [output.get("name", "shown") for output in outputs]
            assert not any(a == b != "shown" for a, b in zip(kinds, kinds[1:], strict=False))
        now = [text_of(output["text"]) for outputs in staged for output in outputs if output["output_type"] == "stream"]
        assert "".join(now) == "".join(printed), lesson
        assert len(now) <= len(printed)
    boxes = [output for output in outputs_of(notebooks["03_training_loop.ipynb"]) if output["output_type"] == "stream"]
    assert any(text_of(output["text"]).count("\n") > 20 for output in boxes)  # twenty epochs, one box


def test_every_block_of_code_names_a_language(notebooks, staged):
    texts = [(name, text) for name, notebook in notebooks.items() for text in markdown_of(notebook)]
    texts.append(("CHANGELOG.md", (staged / "CHANGELOG.md").read_text(encoding="utf-8")))
    counted = 0
    for name, text in texts:
        opened = ""
        for marks, language in re.findall(r"^[ \t>]*(`{3,}|~{3,})([^\n]*)$", text, re.M):
            if not opened:
                assert language.strip(), (name, text[:200])
                opened, counted = marks, counted + 1
            elif marks.startswith(opened) and not language.strip():
                opened = ""
    assert counted > 300


def test_links_to_notebooks_lead_to_staged_pages(notebooks, staged):
    """Quarto warns of every other link to a notebook; those to download become links after it has run."""
    wrong, counted = [], 0
    for name, notebook in notebooks.items():
        for text in markdown_of(notebook):
            links = re.findall(r"\]\(([^)\s]+?\.ipynb)(?:#[^)\s]*)?\)", text)
            links += re.findall(r'(?<!data-)\bhref="([^"#]+\.ipynb)', text)
            counted += len(links)
            wrong += [(name, link) for link in links if "//" not in link
                      and os.path.relpath((staged / name).parent / link, staged).replace(os.sep, "/") not in notebooks]
    assert wrong == [] and counted > 300
    top = "\n".join(markdown_of(notebooks["03_training_loop.ipynb"]))
    assert 'data-href="notebooks/03_training_loop.ipynb"' in top


def test_quarto_heeds_the_colours_of_the_system_and_leaves_columns_alone(staged, tmp_path):
    import yaml
    from pages import QUARTO, stage_config

    options = yaml.safe_load((staged / "_quarto.yml").read_text(encoding="utf-8"))["format"]["html"]
    assert options["respect-user-color-scheme"] is True and options["tbl-colwidths"] is False
    stage_config(tmp_path, "smalldocs")  # does both by itself, and stops at what it does not read
    options = yaml.safe_load((tmp_path / "_quarto.yml").read_text(encoding="utf-8"))["format"]["html"]
    assert options.keys() & QUARTO.keys() == set()


# ---- Pieces

def test_code_blocks_get_a_language_only_where_they_have_none():
    from portable import named_fences

    given = "```\na\n```\n\n  ```python\n  ```\n\n~~~~\n```\n~~~~\n> ```\n> a\n> ```\n````{=html}\n```\n````"
    assert named_fences(given) == ("```default\na\n```\n\n  ```python\n  ```\n\n~~~~default\n```\n~~~~\n"
                                   "> ```default\n> a\n> ```\n````{=html}\n```\n````")


def test_backticks_in_html_become_code_outside_of_tags_scripts_and_code():
    from portable import code_in_text, raw_block

    given = "<p title='`a`'>`b` <code>`c`</code> it`s</p><script>`${d}`</script><pre>`e`</pre>`f`"
    assert code_in_text(given) == ("<p title='`a`'><code>b</code> <code>`c`</code> it`s</p><script>`${d}`</script>"
                                   "<pre>`e`</pre><code>f</code>")
    assert raw_block("a\n```\nb\n") == "````{=html}\na\n```\nb\n````"


def test_streams_of_two_kinds_stay_apart():
    from portable import portable

    def stream(name, text):
        return {"output_type": "stream", "name": name, "text": text}

    other = {"output_type": "display_data", "data": {"image/png": "x"}, "metadata": {}}
    cell = {"cell_type": "code", "source": "a\nb", "outputs": [
        stream("stdout", "1\n"), stream("stdout", ["2\n", "3\n"]), stream("stderr", "4\n"), other,
        stream("stdout", "5")]}
    made = portable({"cells": [cell]})["cells"][0]
    assert made["source"] == ["a\n", "b"]
    assert [output.get("text") for output in made["outputs"]] == [["1\n", "2\n", "3\n"], ["4\n"], None, ["5"]]
