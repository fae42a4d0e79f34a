"""The site: its pages are whole and say what they should, and in a browser they work, for every reader.

The tests that need no browser run everywhere that the site can be built. Those in a browser need Chromium and skip
without it; COURSE_BROWSER names one that lies elsewhere. COURSE_SITE names a site that is built already.
"""

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import suppress
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import urlopen

import pytest
from served import ADDRESS, DESK, PHONE, REPOSITORY, TOO_WIDE, canaries, findings, open_page, pages_of

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted(path.stem for path in (ROOT / "nbs").glob("[0-9][0-9]_*.ipynb"))
CAN_BUILD = bool(shutil.which("quarto")) or importlib.util.find_spec("smalldocs") is not None
sys.path.insert(0, str(ROOT / "website"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900),  # on a busy machine
              pytest.mark.skipif(not CAN_BUILD, reason="The site needs Quarto, or smalldocs, which needs Python 3.11.")]


def page_of(lesson):
    """The address of the reference of a lesson's module."""
    from pages import lesson_paths, module_of, reference_page

    return reference_page(module_of(lesson_paths()[lesson])).replace(".ipynb", ".html")


def broken_links(folder, pages):
    """Each link and each loaded file that leads nowhere: (page, target)."""
    broken = []
    for name, page in pages.items():
        for target in page.links + page.loads:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            start = folder if parts.path.startswith("/") else (folder / name).parent  # as the server has it
            path = start / unquote(parts.path).lstrip("/") if parts.path else folder / name
            path = path / "index.html" if path.is_dir() else path
            known = pages.get(os.path.relpath(path, folder).replace(os.sep, "/"))
            if not path.is_file() or parts.fragment and known and unquote(parts.fragment) not in known.ids:
                broken.append((name, target))
    return broken


# ---- Whole pages, without a browser

def test_every_internal_link_and_anchor_resolves(site, pages):
    assert len(pages) > 30
    assert broken_links(site, pages) == []


def test_no_page_has_an_id_twice(pages):
    """A link would lead to the first of them, whichever it means."""
    assert {name: page.twice for name, page in pages.items() if page.twice} == {}


def test_a_broken_link_or_anchor_would_be_found(tmp_path):
    (tmp_path / "index.html").write_text('<h1 id="a">A</h1><a href="#a">1</a><a href="#b">2</a><a href="c.html">3</a>'
                                         '<img src="d.png"><a href="https://e.f/">4</a><a href="/index.html">5</a>')
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.html").write_text('<a href="/index.html#a">1</a><a href="/g.html">2</a>')
    assert broken_links(tmp_path, pages_of(tmp_path)) == [("in/a.html", "/g.html"), ("index.html", "#b"),
                                                          ("index.html", "c.html"), ("index.html", "d.png")]


def test_no_page_and_no_stylesheet_names_a_file_on_another_host(site, pages):
    assert [(name, target) for name, page in pages.items() for target in page.loads if "//" in target
            and not target.startswith("data:")] == []
    for path in site.rglob("*.css"):
        assert re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//[^)\"']*", path.read_text(encoding="utf-8")) == []


def test_web_fonts_are_taken_out_and_local_imports_stay():
    from build import without_web_fonts

    css = '@import url(https://fonts.example/a;b);@import "//fonts.example";@import url(own.css);a{color:red}'
    assert without_web_fonts(css) == "@import url(own.css);a{color:red}"


def test_only_rules_that_nothing_uses_are_left_out():
    from build import only_used

    css = ".a{x:1}.b,.a .c{x:2}.d{x:3}@media print{.d{x:4}.a:not(.b,.d){x:5}}@import url(a;b);main{x:6}"
    assert only_used(css, {"a", "c"}) == ".a{x:1}.a .c{x:2}@import url(a;b);main{x:6}"


def test_pages_are_small(site, pages):
    """Whole files, as a server without compression sends them; search.json comes only with a search."""
    def weight(name):
        local = {(site / name).parent / unquote(urlsplit(each).path) for each in pages[name].loads
                 if not each.startswith("data:")}
        return (site / name).stat().st_size + sum(path.stat().st_size for path in local)

    fonts = sum(path.stat().st_size for path in site.rglob("*.woff*"))
    assert weight("index.html") + fonts < 400_000
    for lesson in LESSONS:
        assert weight(f"{lesson}.html") + fonts < 2_000_000, lesson


def test_the_site_is_built_in_a_minute(site):
    """Of a processor's time, because other tests run beside it."""
    if not (site.parent / "seconds").is_file():
        pytest.skip("COURSE_SITE names a site that is built already.")
    assert float((site.parent / "seconds").read_text()) < 60


def test_quarto_is_taken_where_it_is_installed(tmp_path, monkeypatch):
    """What is on the PATH decides; a stand-in writes down how it was called and leaves a page."""
    from build import choose_builder, render

    program = tmp_path / "bin" / ("quarto.bat" if os.name == "nt" else "quarto")
    program.parent.mkdir()
    program.write_text("mkdir _docs\necho %* > _docs\\called\n" if os.name == "nt"
                       else '#!/bin/sh\nmkdir _docs && echo "$@" > _docs/called\n', encoding="utf-8")
    program.chmod(0o755)
    assert choose_builder() == ("quarto" if shutil.which("quarto") else "smalldocs")
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    assert choose_builder() == "quarto" and choose_builder("smalldocs") == "smalldocs"
    stage = tmp_path / "staged"
    stage.mkdir()
    render(stage, "quarto", tmp_path / "site")
    assert (tmp_path / "site" / "called").read_text(encoding="utf-8").split() == ["render", str(stage), "--no-execute"]
    program.write_text("exit 3\n" if os.name == "nt" else "#!/bin/sh\nexit 3\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="quarto could not build the site"):
        render(stage, "quarto", tmp_path / "site")
    assert (tmp_path / "site" / "called").is_file()  # the site that was there stays


def test_smalldocs_ignores_nothing(site):
    """The build is strict: it stops at options that are ignored. This is the same of the pages as they lie in nbs/."""
    pytest.importorskip("smalldocs", reason="smalldocs needs Python 3.11")
    ran = subprocess.run([sys.executable, "-m", "smalldocs.cli", "check", ROOT], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout
    from smalldocs.check import scan

    assert scan((ROOT / "CHANGELOG.md").read_text(encoding="utf-8")) == []


def test_every_notebook_has_a_place_in_the_sidebar(pages):
    from pages import page_notebooks

    missing = [path.relative_to(ROOT / "nbs").with_suffix(".html").as_posix() for path in page_notebooks()]
    missing = [name for name in missing if name not in pages["index.html"].links and name != "index.html"]
    assert missing == [], "add the notebook to _quarto.yml"


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_says_its_time_can_be_taken_away_and_has_figures_with_words(lesson, site, pages):
    from course_lib.teach.results import lesson_cost

    page = pages[f"{lesson}.html"]
    assert f"Time and hardware. {lesson_cost(lesson[:2])}" in page.text
    assert f"notebooks/{lesson}.ipynb" in page.links
    notebook = json.loads((site / "notebooks" / f"{lesson}.ipynb").read_text(encoding="utf-8"))
    assert notebook["cells"][0]["cell_type"] == "markdown" and notebook["nbformat"] == 4
    kept = json.loads((ROOT / "nbs" / f"{lesson}.ipynb").read_text(encoding="utf-8"))
    figures = sum("".join(data).count("<img") if kind == "text/html" else kind.startswith("image/")
                  for cell in kept["cells"] for output in cell.get("outputs", [])
                  for kind, data in output.get("data", {}).items())
    assert len(page.pictures) == figures and all(page.pictures)
    assert not re.search(r"default_exp|#\|", page.text)  # nbdev's marks are for authors


def test_lessons_whose_figures_have_no_words_of_their_own():
    from pages import described, has_picture, read_nb

    lacking = [f"lesson {path.name[:2]}, cell {cell.id}" for path in sorted((ROOT / "nbs").glob("[0-9][0-9]_*.ipynb"))
               for cell in read_nb(path).cells if cell.cell_type == "code" and has_picture(cell)
               and cell.id not in described().get(path.name[:2], {})]
    if lacking:
        pytest.skip(f"website/figures.toml has no words for: {'; '.join(lacking)}. The page names the section instead.")


@pytest.mark.parametrize("lesson", LESSONS)
def test_each_term_that_a_lesson_uses_is_linked_to_the_glossary(lesson, pages):
    from pages import glossary, link_terms, read_nb

    linked = {link.partition("#")[2] for link in pages[f"{lesson}.html"].links if "glossary.html#" in link}
    cells = read_nb(ROOT / "nbs" / f"{lesson}.ipynb").cells
    used = {glossary()[term] for term in link_terms(cells)}
    assert len(linked) > 5 and used <= linked


def test_terms_are_linked_once_in_prose_and_never_in_code_links_or_headings():
    from fastcore.nbio import mk_cell
    from pages import link_terms

    text = "# The loss\n\n`loss` and [the loss](a.md), then\nlearning rates, a loss, a loss; learning-rate finder."
    cells = [mk_cell(text, "markdown"), mk_cell("loss = 1", "code")]
    assert link_terms(cells) == {"learning rate finder": "learning-rate finder", "learning rate": "learning rates",
                                 "loss": "loss"}
    assert cells[0].source == (
        "# The loss\n\n`loss` and [the loss](a.md), then\n[learning rates](pages/glossary.ipynb#learning-rate), "
        "a [loss](pages/glossary.ipynb#loss), a loss; [learning-rate finder]"
        "(pages/glossary.ipynb#learning-rate-finder).")


def test_the_glossary_has_the_chinese_beside_the_english(pages):
    from pages import glossary

    page = pages["pages/glossary.html"]
    assert len(glossary()) > 60 and set(glossary().values()) <= page.ids
    assert re.search(r"learning rate\s+学习率\s*\.", page.text)


def test_every_public_name_has_its_reference(pages):
    from pages import anchor, module_notebooks, offers, public_names, reference_page, references

    missing = [f"{module}.{name}" for module in module_notebooks() for name in public_names(module)
               if anchor(name) not in pages[reference_page(module).replace(".ipynb", ".html")].ids]
    assert missing == []
    offered = [f"course_lib.{place}.{name}" for place, names in offers().items() for name in names]
    assert len(offered) > 100 and [name for name in offered if name not in references()] == []
    learner = pages[page_of("03")]
    assert "train_loader : Iterable" in learner.text.replace(" :", ":").replace(":", " : ").replace("  ", " ")
    assert "lib-Learner.fit" in learner.ids and "from course_lib.learner import" in learner.text
    assert f"{page_of('03')}#lib-Learner" in pages["03_training_loop.html"].links  # lessons lead there


def test_a_page_of_the_library_says_what_it_documents_and_has_the_names_for_other_modules_too(pages):
    page = pages["library/teach/sandbox.html"]
    assert "This page documents the module course_lib.teach.sandbox" in page.text and "lib-run_answer" in page.ids
    assert "to use it: from course_lib.teach import ..." in pages["library/teach/practice.html"].text
    assert "lib-run_answer" not in " ".join(pages["library/teach/practice.html"].links)  # prose links public names


def test_names_are_linked_as_nbdev_does_but_not_inside_links():
    from pages import Links

    links, page = Links("../"), page_of("03").replace(".html", ".ipynb")
    line = "`Learner` and `Learner.fit()`, [`Learner`](x.ipynb), `nothing_of_ours`"
    assert links.linkify(line) == (f"[`Learner`](../{page}#lib-Learner) and [`Learner.fit()`]"
                                   f"(../{page}#lib-Learner.fit), [`Learner`](x.ipynb), `nothing_of_ours`")
    assert links.linkify("```\n`Learner`\n```\n## `Learner`") == "```\n`Learner`\n```\n## `Learner`"
    assert links.linkify("`course_lib.learner.Learner`").endswith(f"(../{page}#lib-Learner)")  # by package, too
    assert links.linkify("`number`, `lock`") == "`number`, `lock`"  # words of every lesson, and names in core


def test_the_reference_is_ordered_by_what_a_reader_does_and_begins_with_the_learner(pages):
    from pages import module_notebooks, public_names, reference_page, reference_sections

    sections = reference_sections()
    assert sections[0]["contents"][0] == "api/learner.loop.ipynb"
    listed = [page for section in sections for page in section["contents"]]
    assert sorted(listed) == sorted(map(reference_page, module_notebooks()))  # each once
    assert {page.replace(".ipynb", ".html") for page in listed} <= set(pages["index.html"].links)
    inside = sections[-1]["contents"]
    assert "library/core/files.ipynb" in inside and not any(page.startswith("api/") for page in inside)
    overview = pages["pages/api.html"]
    heads = [section["section"] for section in sections]
    places = [overview.text.rindex(head) for head in heads if head in overview.text]
    assert places == sorted(places) and len(places) >= 7
    for module in module_notebooks():
        target = "../" + reference_page(module).replace(".ipynb", ".html")
        assert {f"{target}#lib-{name}" for name in public_names(module)} <= set(overview.links), module
    learner = pages["api/learner.loop.html"]
    assert [link for link in learner.links if link.startswith("#lib-")][0] == "#lib-Learner"


def test_a_module_that_no_group_names_joins_and_a_name_of_nothing_is_said(monkeypatch):
    import reference

    modules = ["core.a", "learner.b", "new.c"]
    plan = {"group": [{"title": "T", "says": "S", "modules": ["learner"]},
                      {"title": "U", "says": "", "modules": ["core"]}], "first": {"learner.b": ["Z"]}}
    monkeypatch.setattr(reference, "order", lambda: plan)
    assert [group.modules for group in reference.groups(modules)] == [["learner.b"], ["core.a", "new.c"]]
    assert reference.readers_order("learner.b", ["A", "Z", "B"]) == ["Z", "A", "B"]
    with pytest.raises(ValueError, match="'learner', which is no module"):
        reference.groups(["core.a"])
    with pytest.raises(ValueError, match="puts \\['Z'\\] first: not in course_lib.learner.b"):
        reference.readers_order("learner.b", ["A"])


# ---- Old addresses

PUBLISHED = {  # each page that the site ever had
    *(f"{lesson}.html" for lesson in (
        "01_data_prep", "02_model", "03_training_loop", "04_lr_finder", "05_transfer_learning", "06_interpretation",
        "07_tuning", "08_deeper_backbones", "09_fine_grained", "10_tricks", "index", "CHANGELOG")),
    *(f"api/{module}.html" for module in (
        "backbones", "data", "interpret", "learner", "lr_finder", "models", "pooling", "transfer", "tricks", "tuning")),
    *(f"reference/{page}.html" for page in (
        "api", "bench", "command_line", "distributed", "doctor", "download", "faults", "features", "glossary",
        "licences", "pack", "peers", "practice", "precision", "reported", "results", "runner", "settings", "teaching",
        "training")),
}


def test_every_address_that_was_published_leads_to_a_page(site, pages):
    from pages import redirects

    assert PUBLISHED - pages.keys() == set()
    moved = redirects()
    assert {old for old in pages if old.startswith("reference/")} <= moved.keys()  # nothing else lies there
    for old, new in moved.items():
        assert old in PUBLISHED and new in pages and new not in moved, old
        text = (site / old).read_text(encoding="utf-8")
        target = os.path.relpath(new, Path(old).parent).replace(os.sep, "/")
        assert pages[old].links == [target] and f"0; url={target}" in text and f'"{target}" + location.hash' in text
    assert pages["reference/practice.html"].links == ["../library/teach/practice.html"]
    assert pages[moved["api/learner.html"]].ids >= {"lib-Learner"}


def test_an_old_address_without_a_new_one_is_said(tmp_path, monkeypatch):
    import pages as making

    (tmp_path / "website").mkdir()
    (tmp_path / "website" / "redirects.toml").write_text('"api/data.html" = "nowhere"\n', encoding="utf-8")
    monkeypatch.setattr(making, "ROOT", tmp_path)
    with pytest.raises(ValueError, match="sends api/data.html to 'nowhere'.*no module and no page"):
        making.redirects()


# ---- Nothing of the computer on which it was built

def test_no_file_of_the_site_names_the_computer_that_built_it(site):
    if not (site.parent / "seconds").is_file():
        pytest.skip("COURSE_SITE names a site that is built already.")
    words = {*canaries(site.parent).values(), "canary-", str(ROOT), "COURSELIB_CANARY"}
    found = [(path.relative_to(site).as_posix(), word) for path in sorted(site.rglob("*")) if path.is_file()
             for word in words if word.encode() in path.read_bytes()]
    assert found == [] and len(list(site.rglob("*"))) > 100


def test_no_notebook_and_no_record_names_somebody_s_home():
    homes = r"/home/[a-z]|/Users/[A-Za-z]|(^|[^a-z])/root\b|[A-Z]:\\\\?Users"
    named = subprocess.run(["git", "grep", "-nIE", homes, "--", "nbs", "course_lib/results", "README.md", "website"],
                           cwd=ROOT, capture_output=True, text=True)
    assert named.stdout == ""


@pytest.mark.filterwarnings("ignore:docments unavailable")  # nbdev's, where no source is found
def test_a_default_is_shown_as_it_is_written_where_it_could_tell_of_the_computer(tmp_path, monkeypatch):
    from pages import Entry

    monkeypatch.setenv("HOME", "/home/canary")
    monkeypatch.setenv("USERPROFILE", "/home/canary")
    (tmp_path / "planted.py").write_text("""
import os
from dataclasses import dataclass
from pathlib import Path

HOME = str(Path.home())


def launched(environ=os.environ, *, where: Path = Path.home() / "x", name=HOME, size: int = 3, how=len, word="a"):
    "Words."


@dataclass
class Settings:
    "Words."
    data: Path = Path("data")
    count: int = 3


made = eval("lambda environ=os.environ: None")
made.__doc__ = "Words."
""", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    import planted

    shown = Entry(planted.launched)._repr_markdown_()
    for words in ("=os.environ", "=Path.home() / 'x'", "=HOME", "=3", "=len", "='a'"):
        assert words in shown.replace(" = ", "="), words
    assert "Path('data')" in Entry(planted.Settings)._repr_markdown_()
    assert "(...)" in Entry(planted.made)._repr_markdown_()  # where no source is found no signature is shown
    assert "canary" not in shown + Entry(planted.Settings)._repr_markdown_() + Entry(planted.made)._repr_markdown_()


def test_every_row_of_the_results_leads_to_its_recorded_file(site):
    text = (site / "pages" / "reported.html").read_text(encoding="utf-8")
    rows = re.findall(r"<tr>(.*?)</tr>", text, re.S)
    body = [row for row in rows if "<td" in row]
    recorded = json.loads((ROOT / "course_lib" / "results" / "lessons.json").read_text(encoding="utf-8"))["lessons"]
    reported = json.loads((ROOT / "benchmarks" / "reported.json").read_text(encoding="utf-8"))
    assert len(body) == len(reported) + sum(1 + len(lesson["results"]) for lesson in recorded.values())
    for row in body:
        link = re.search(r'href="\.\./results/([\w.]+)"', row)
        assert link, row
        copied, original = site / "results" / link[1], ROOT / "course_lib" / "results" / link[1]
        assert copied.read_bytes() == original.read_bytes()
    assert "not recorded yet" not in "".join(body)


def test_both_divisions_are_explained_and_the_lists_can_be_taken_away(site, pages):
    from course_lib.teach import read_record

    page = pages["pages/reported.html"]
    for part in ("test", "train", "valid"):
        assert f"../splits/elpv-{part}.csv" in page.links
        copied, original = (folder / "splits" / f"elpv-{part}.csv" for folder in (site, ROOT / "course_lib" / "data"))
        assert copied.read_bytes() == original.read_bytes()
    said = "always the commonest class: " if read_record("test_part.json") else "has not been recorded yet"
    assert "published protocol" in page.text and said in page.text
    tuned = read_record("test_part.json")["tuned"]
    assert f"the recipe of the profile tuned : {tuned['error']:.1%} ± {tuned['std']:.1%}" in page.text
    assert f"{len(tuned['errors'])} seeds): the two differ by more than chance" in page.text
    assert "90.13" not in " ".join(pages[name].text for name in ("index.html", "pages/reported.html"))


def test_the_page_of_the_peers_has_a_plot_and_a_table_a_question(site):
    text = (site / "pages" / "peers.html").read_text(encoding="utf-8")
    recorded = sorted(path.name for path in (ROOT / "course_lib" / "results").glob("peers_*.json"))
    shown = re.findall(r'href="[^"]*/(peers_\w+\.json)"', text)
    assert sorted(shown) == recorded and len(recorded) == 12
    assert sum("growth" in name for name in recorded) == 4  # these share a plot and a table
    assert text.count("<img") == 9 and text.count("<table") == 1 + 9 + 3  # three of what one waits for
    assert "Not measured yet" not in text and not re.search(r"\bnan\b", text)


def test_the_readme_is_the_home_page_and_times_are_those_recorded(pages):
    from readme import PICTURE, first_picture, readme

    assert (ROOT / "README.md").read_text(encoding="utf-8") == readme(), "run: make readme"
    assert PICTURE.read_bytes() == first_picture(), "run: make readme"
    assert readme().index("](nbs/images/first_classifier.jpg)") < readme().index("## ")
    assert len(first_picture()) < 100_000
    assert pages["index.html"].pictures[0].startswith("Solar cell A:") and "Solar cell A:" in readme()
    recorded = json.loads((ROOT / "course_lib" / "results" / "lessons.json").read_text(encoding="utf-8"))["lessons"]
    from course_lib.core.text import format_value

    for number, lesson in recorded.items():
        took = format_value(lesson["seconds"], "seconds")
        assert took in readme() and took in pages["index.html"].text and took in pages["pages/reported.html"].text
        assert took in next(page.text for name, page in pages.items() if name.startswith(number))


def test_formulas_are_mathml_made_with_the_page(pages, site):
    from pages import mathml

    made = mathml("a $x_i^*$ costs \\$5 and $6, `$y$`\n```\n$z$\n```\n$$\\frac{1}{2}$$")
    assert made.count("<math") == 2 and "&#42;" in made and "_i" not in made.split("costs")[0]
    assert "costs \\$5 and $6, `$y$`\n```\n$z$\n```\n" in made
    text = (site / "09_fine_grained.html").read_text(encoding="utf-8")
    assert text.count("<math") > 15 and "katex" not in text.lower() and "mathjax" not in text.lower()


def test_links_to_the_repository_come_from_one_place_and_are_left_out_while_it_is_empty(monkeypatch, tmp_path, pages):
    import pages as making

    lesson = ROOT / "nbs" / "09_fine_grained.ipynb"
    monkeypatch.setattr(making, "addresses", lambda: ("", ""))
    making.process(lesson, tmp_path / "without.ipynb")
    making.take_away(lesson, tmp_path / "taken.ipynb")
    staged = (tmp_path / "without.ipynb").read_text(encoding="utf-8").lower()
    assert not re.search(r"colab|kaggle|binder", staged)
    assert json.loads((tmp_path / "taken.ipynb").read_text("utf-8")) == json.loads(lesson.read_text("utf-8"))
    monkeypatch.setattr(making, "addresses", lambda: ("https://gitlab.com/some/course", ADDRESS))
    assert making.elsewhere(lesson.name) == {}  # the three services take notebooks from GitHub
    monkeypatch.setattr(making, "addresses", lambda: (REPOSITORY, ADDRESS))
    making.take_away(lesson, tmp_path / "taken.ipynb")
    first, second, *others = json.loads((tmp_path / "taken.ipynb").read_text("utf-8"))["cells"]
    assert f"git+{REPOSITORY}" in first["source"] and first["cell_type"] == "code"
    exec(compile(first["source"], "first cell", "exec"), {})  # here, which is neither Colab nor Kaggle, it does nothing
    cells = [second, *others]
    prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    assert f"]({ADDRESS}/07_tuning.html" in prose and not re.search(r"\]\((?!http)[^)]*\.ipynb", prose)
    named = subprocess.run(["git", "grep", "-lE", r"github\.com/(OWNER|some)/"], cwd=ROOT, capture_output=True,
                           text=True)
    assert named.returncode > 1 or set(named.stdout.split()) <= {"pyproject.toml", "tests/site/served.py"}


def test_with_an_address_every_page_has_its_buttons_its_source_and_its_one_address(addressed):
    import xml.etree.ElementTree as xml

    from pages import redirects

    pages = pages_of(addressed)
    for lesson in LESSONS:
        notebook = f"some/course/blob/gh-pages/notebooks/{lesson}.ipynb"
        assert {f"https://colab.research.google.com/github/{notebook}",
                f"https://www.kaggle.com/kernels/welcome?src=https://github.com/{notebook}",
                f"https://mybinder.org/v2/gh/some/course/main?labpath=nbs/{lesson}.ipynb"} <= set(
                    pages[f"{lesson}.html"].links)
    sources = {name: [link.partition("/blob/main/")[2] for link in page.links if f"{REPOSITORY}/blob/main/" in link]
               for name, page in pages.items()}
    assert sources["api/learner.loop.html"] == ["nbs/03_training_loop.ipynb"]
    assert sources["CHANGELOG.html"] == ["CHANGELOG.md"]
    for name in pages.keys() - redirects().keys() - {"404.html"}:
        if name.startswith("slides/"):  # a deck leads to its lesson, which leads to its source
            assert f"../{Path(name).name}" in pages[name].links
        else:
            assert len(sources[name]) == 1 and (ROOT / sources[name][0]).is_file(), (name, sources[name])
            assert f"{REPOSITORY}/issues/new" in pages[name].links
        text = (addressed / name).read_text(encoding="utf-8")
        address = f"{ADDRESS}/{'' if name == 'index.html' else name}"
        assert text.count('rel="canonical"') == 1 and f'<link rel="canonical" href="{address}">' in text, name
        for wanted in (f'property="og:url" content="{address}"', 'property="og:title" content="',
                       'property="og:description" content="', f'property="og:image" content="{ADDRESS}/images/'):
            assert text.count(wanted) == 1, (name, wanted)
    picture = re.search(rf'og:image" content="{ADDRESS}/([^"]+)"', (addressed / "index.html").read_text("utf-8"))[1]
    assert (addressed / picture).is_file()
    place = "{http://www.sitemaps.org/schemas/sitemap/0.9}loc"
    listed = {one.text.removeprefix(f"{ADDRESS}/") for one in xml.parse(addressed / "sitemap.xml").iter(place)}
    assert pages.keys() - redirects().keys() - listed == {"404.html"}
    atom = "{http://www.w3.org/2005/Atom}"
    feed = xml.parse(addressed / "feed.xml").getroot()
    entries = feed.findall(f"{atom}entry")
    assert len({entry.find(f"{atom}id").text for entry in entries}) == len(entries) >= 10
    assert all(entry.find(f"{atom}link").get("href") == f"{ADDRESS}/CHANGELOG.html" for entry in entries)
    assert all(entry.find(f"{atom}title").text and entry.find(f"{atom}updated").text for entry in entries)
    lost = pages["404.html"]
    assert len(lost.links) == 4 and all(link.startswith(f"{ADDRESS}/") for link in lost.links)
    assert {link.removeprefix(f"{ADDRESS}/") for link in lost.links} <= pages.keys()


def test_without_an_address_a_page_still_says_what_it_is(site, pages):
    text = (site / "04_lr_finder.html").read_text(encoding="utf-8")
    assert 'property="og:title" content="4 · The learning rate"' in text and "og:url" not in text
    assert "canonical" not in text and not (site / "feed.xml").exists()
    assert pages["404.html"].links[0] == "/index.html"


def test_a_widget_says_what_a_running_kernel_adds_beside_its_picture(pages):
    text = pages["04_lr_finder.html"].text
    assert re.search(r"Live with a running kernel.{0,160}A slider over the rates", text)


# ---- What is in the HTML

def test_no_page_names_a_widget_or_a_library_for_widgets(site):
    """Quarto's pages had both: scripts from two hosts, and a widget's number where the quiz should be."""
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"cdnjs|unpkg|require\.min\.js|<script[^>]*vnd\.jupyter", text), path.name


def test_every_quiz_has_its_questions(pages):
    asked = {}
    for lesson in LESSONS:
        kept = json.loads((ROOT / "nbs" / f"{lesson}.ipynb").read_text(encoding="utf-8"))
        saved = "".join("".join(output.get("data", {}).get("text/html", "")) for cell in kept["cells"]
                        for output in cell.get("outputs", []) if cell["source"][:1] == [f'quiz("{lesson[:2]}")'])
        asked[lesson] = re.findall(r"<b>\d+\.</b></a> ([^<`]{20,60})", saved)
        shown = pages[f"{lesson}.html"].text
        assert [words for words in asked[lesson] if " ".join(unescape(words).split()) not in shown] == []
    assert sum(map(len, asked.values())) > 40


def test_a_training_log_is_one_box(site):
    for lesson in LESSONS:
        text = (site / f"{lesson}.html").read_text(encoding="utf-8")
        box = r'<div class="cell-output cell-output-stdout">(?:(?!</div>).)*</div>\s*'
        assert not re.search(f"{box}<div class=\"cell-output cell-output-stdout\">", text, re.S), lesson


def test_tables_have_no_empty_headings_and_stand_in_boxes(site):
    boxes = 0
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"<th\b[^>]*>\s*</th>", text), path.name
        boxes += text.count('<div class="table-box" tabindex="0"')
        assert text.count("<table") == text.count('<div class="table-box" tabindex="0"'), path.name
    assert boxes > 150


def test_headings_of_tables_that_say_nothing_and_boxes_of_the_builder_are_replaced():
    from finishing import with_readable_tables

    given = '<div class="sd-table">\n<table class="t"><tr><th></th><th scope="x"> </th><th>a</th></tr></table>\n</div>'
    assert with_readable_tables(given) == ('<div class="table-box" tabindex="0" role="group" aria-label="Table"><table '
                                           'class="t"><tr><td></td><td scope="x"></td><th>a</th></tr></table></div>')


def test_figures_with_many_dots_are_shown_in_the_size_that_they_were_drawn_in(site, tmp_path):
    import base64
    import io

    from finishing import with_sizes
    from PIL import Image

    def picture(dots, kind="PNG"):
        file = io.BytesIO()
        Image.new("RGB", (300, 150)).save(file, kind, dpi=(dots, dots))
        return file.getvalue()

    def shown(data):
        return with_sizes(f'<img src="data:image/png;base64,{base64.b64encode(data).decode()}">', tmp_path)[:35]

    assert shown(picture(144)).startswith('<img width="200" height="100" src="') and "width" not in shown(picture(72))
    assert shown(picture(192, "JPEG")).startswith('<img width="150" height="75" ')
    (tmp_path / "a.png").write_bytes(picture(144))  # Quarto writes figures beside the page
    assert with_sizes('<img src="a.png" alt="b">', tmp_path) == '<img width="200" height="100" src="a.png" alt="b">'
    for kept in ('<img width="5" src="a.png">', '<img src="no.png">', '<img src="https://a.b/c.png">'):
        assert with_sizes(kept, tmp_path) == kept
    fine = 0
    for lesson in LESSONS:
        text = (site / f"{lesson}.html").read_text(encoding="utf-8")
        for tag in re.findall(r'<img\b[^>]*src="data:image/(?:png|jpeg);[^>]*>', text):
            data = base64.b64decode(re.search(r'base64,([^"]+)"', tag)[1])
            dots = Image.open(io.BytesIO(data)).info.get("dpi", (72,))[0]
            assert (dots > 97) <= ("width=" in tag), (lesson, dots)
            fine += dots > 97
    assert fine > 20


def test_the_home_page_has_one_title_a_question_cards_and_one_button(site, pages):
    text = (site / "index.html").read_text(encoding="utf-8")
    main = text[text.index("<main"):text.index("</main>")]
    assert main.count("<h1") == 1 and main.count("Image classification, hands on") == 1
    assert main.index("Which of these four") < main.index("begin-button") < main.index("The lessons")
    assert main.count("<details name=") == 4 and main.count("Yes, cracked.") == 1 and main.count("No, functional.") == 3
    cards = re.findall(r'<a class="card-link" href="([^"]+)"><img src="([^"]+)"', main)
    assert [target for target, _ in cards] == [f"{lesson}.html" for lesson in LESSONS]
    pictures = [source for _, source in cards] + re.findall(r'src="(images/home/different[^"]+)"', main)
    assert len(pictures) == len(LESSONS) + 4 and all((site / one).stat().st_size > 1000 for one in pictures)
    assert main.count("begin-button") == 1 and main.count("<table") == 0
    extras = re.findall(r'<a class="extra-link" href="([^"]+)"', main)
    assert extras == [f"pages/{name}.html" for name in ("try", "explorers", "review", "slides")]
    assert set(extras) <= pages.keys() and all(main.index(one) < main.index("What is different") for one in extras)
    assert all(pages["05_transfer_learning.html"].links.count(one) for one in extras)  # the sidebar, on every page
    for head in ("For teachers", "For your own photographs", "Sources"):
        assert head in pages["index.html"].text
    assert "README only" not in text and "On the command line" not in pages["index.html"].text
    assert "times as good as" in pages["pages/peers.html"].text
    assert "times as good as" not in pages["index.html"].text + (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_photographs_of_the_question_are_what_experts_say():
    import io

    import numpy as np
    from home import IMAGES, cell_photographs, home
    from PIL import Image
    from readme import readme

    for name, data in cell_photographs().items():
        made, kept = (np.asarray(Image.open(file)).astype(float) for file in (io.BytesIO(data), IMAGES / name))
        assert np.abs(made - kept).mean() < 2 and f"nbs/images/{name}" in readme(), "run: make readme"
    assert [cell["cracked"] for cell in home()["cell"]].count(True) == 1
    home()["cell"][0]["cracked"] = True
    try:
        with pytest.raises(ValueError, match="experts say otherwise of photograph 1726"):
            cell_photographs()
    finally:
        home()["cell"][0]["cracked"] = False


def test_every_card_shows_the_figure_that_was_chosen_for_it():
    from home import home

    chosen = list(home()["card"].items()) + [(one["picture"][0], one["picture"][1:]) for one in home()["different"]]
    for number, (cell_id, *_) in chosen:
        path = next((ROOT / "nbs").glob(f"{number}_*.ipynb"))
        cells = {cell["id"]: cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]}
        kinds = [kind for output in cells[cell_id]["outputs"] for kind in output.get("data", {})]
        assert {"image/png", "image/jpeg"} & set(kinds), (number, cell_id)
    assert sorted(home()["card"]) == [lesson[:2] for lesson in LESSONS]


# ---- What runs where the repository is kept

def test_workflows_run_what_can_be_run_by_hand():
    import yaml

    rules = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    files = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
             for path in (ROOT / ".github" / "workflows").glob("*.yml")}
    assert set(files) == {"test", "site", "weekly"}
    for workflow in files.values():
        runs = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
        called = [re.match(r"make ([\w-]+)", run) for run in runs]
        assert any(called) and all(match[1] in rules for match in called if match)
    matrix = files["test"]["jobs"]["test"]["strategy"]["matrix"]
    assert len(matrix["os"]) == 3 and re.search(r'requires-python = ">=([\d.]+)"', project)[1] == matrix["python"][0]
    assert "schedule" in files["weekly"][True]  # YAML reads the key `on` as true
    assert "CONSTRAINTS=" in str(files["weekly"]) and "quarto" in str(files["site"])


def test_a_container_and_binder_install_what_constraints_txt_says():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    python = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    oldest = tuple(map(int, re.search(r'requires-python = ">=([\d.]+)"', python)[1].split(".")))
    for named in (container["image"].rpartition(":")[2],
                  (ROOT / "binder" / "runtime.txt").read_text(encoding="utf-8").removeprefix("python-")):
        assert tuple(map(int, named.strip().split("."))) >= oldest
    if shutil.which("make"):
        does = subprocess.run([*container["postCreateCommand"].replace("make", "make -n -B").split()], cwd=ROOT,
                              capture_output=True, text=True)
        assert does.returncode == 0 and "--constraint constraints.txt --editable" in does.stdout
        interpreter = container["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
        assert f"--python {interpreter.partition('}/')[2]}" in does.stdout
    binder = (ROOT / "binder" / "postBuild").read_text(encoding="utf-8")
    assert os.name == "nt" or os.access(ROOT / "binder" / "postBuild", os.X_OK)
    version = re.search(r"\$\(sed -n '(s/.*?/p)' Makefile\)", binder)[1]
    assert re.search("^" + version.split("/")[1].lstrip("^") + r"[\d.]+$", (ROOT / "Makefile").read_text(), re.M)
    assert "--constraint constraints.txt --editable ." in " ".join(binder.replace("\\\n", "").split())


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_make_test_installs_what_it_tests_where_the_environment_was_made_without(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    (tmp_path / ".venv").mkdir()

    def does(target):
        return subprocess.run(["make", "-n", target, "TORCH="], cwd=tmp_path, capture_output=True, text=True,
                              check=True).stdout

    everything = '--editable ".[dev,teach,export,heic]"'
    assert does("test").count(everything) == 2  # when it is made, too
    assert does("run").count("--editable") == 1 and everything not in does("run")
    (tmp_path / ".venv" / "ready").touch()  # as `make run` leaves it
    assert "--editable" not in does("run") and does("test").count(everything) == 1
    (tmp_path / ".venv" / "extras").touch()
    assert "--editable" not in does("test") and "tests/run_all.py" in does("test")


# ---- In a browser

def test_every_page_loads_without_an_error_a_stranger_or_sideways_scrolling(browser, address, pages):
    """At a desk and on a phone; pages of the reference, which all have the same scripts, are loaded once for both."""
    page, told = open_page(browser), defaultdict(list)
    page.on("console", lambda message: message.type == "error" and told[page.url].append(message.text))
    page.on("pageerror", lambda error: told[page.url].append(str(error)))
    page.on("request", lambda request: None if request.url.startswith((address, "data:"))
            else told[page.url].append(f"asked {request.url}"))
    from pages import redirects

    for name in pages.keys() - redirects().keys():  # from an old address the browser is on its way
        for size in (DESK, PHONE):
            page.set_viewport_size(size)
            if size == DESK or not name.startswith(("library/", "api/")):
                page.goto(address + name)
            told[page.url] += page.evaluate(TOO_WIDE)
    page.context.close()
    assert {where: what for where, what in told.items() if what} == {}


def test_code_scrolls_inside_its_box_on_a_phone(browser, address):
    page = open_page(browser, viewport=PHONE)
    page.goto(address + page_of("03"))
    scrolling = page.evaluate("[...document.querySelectorAll('pre')].filter(e => e.scrollWidth > e.clientWidth"
                              " || e.parentElement.scrollWidth > e.parentElement.clientWidth).length")
    assert scrolling > 3
    right = page.evaluate("Math.max(...[...document.querySelectorAll('main pre')].map(e => e.getBoundingClientRect()"
                          ".right))")
    assert right <= PHONE["width"]
    page.context.close()


def test_an_old_address_leads_to_the_same_place_on_the_new_page(browser, address):
    page = open_page(browser, viewport=DESK)
    for old, new in (("reference/glossary.html#loss", "pages/glossary.html#loss"),
                     ("api/learner.html#lib-Learner", f"{page_of('03')}#lib-Learner")):
        page.goto(address + old)
        page.wait_for_url(address + new)
    page.context.close()


def test_search_finds_the_learning_rate_and_leads_there(browser, address):
    page = open_page(browser, viewport=DESK)
    page.goto(address)
    page.locator("input[type=search]").first.fill("learning rate")
    found = page.locator("a.search-result, .aa-Item a")
    found.first.wait_for()
    assert any("learning rate" in text.lower() for text in found.all_inner_texts()[:3])
    found.first.click()
    page.wait_for_load_state()
    assert "learning" in page.inner_text("main").lower() and page.url != address
    page.context.close()


def test_the_dark_switch_works_and_is_remembered(browser, address):
    page = open_page(browser, viewport=DESK, color_scheme="light")
    page.goto(address)

    def brightness():
        page.wait_for_timeout(200)
        return sum(map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3]))

    before = brightness()
    page.locator(".quarto-color-scheme-toggle").first.click()
    assert before > 600 > 200 > brightness()
    page.goto(address + "pages/glossary.html")
    assert brightness() < 200
    page.locator(".quarto-color-scheme-toggle").first.click()
    assert brightness() == before
    page.context.close()


def test_every_block_of_code_has_a_button_that_copies_it(browser, address):
    page = open_page(browser, viewport=DESK, permissions=["clipboard-read", "clipboard-write"])
    page.goto(address + "02_model.html")
    blocks, buttons = page.locator("main pre.sourceCode").count(), page.locator("main .code-copy-button").count()
    assert buttons == blocks > 20
    box = page.locator("main .code-copy-outer-scaffold").filter(has_text="conv2d").first
    box.hover()
    box.locator(".code-copy-button").click()
    page.wait_for_timeout(200)
    assert page.evaluate("navigator.clipboard.readText()").split() == box.locator("pre").inner_text().split()
    page.context.close()


def test_a_page_has_contents_a_way_back_and_a_way_on(browser, address):
    page = open_page(browser, viewport=DESK)
    page.goto(address + "02_model.html")
    assert page.locator("#TOC a").count() > 5
    hrefs = [link.get_attribute("href") for link in page.locator(".page-navigation a").all()]
    assert [href.split("/")[-1] for href in hrefs] == ["01_data_prep.html", "03_training_loop.html"]
    page.context.close()


def test_no_colour_depends_on_the_width():
    """So what axe says of colours at a desk is true on a phone."""
    for path in [ROOT / "website" / "styles.css", *(ROOT / "website" / "static").glob("*.css")]:
        css = path.read_text(encoding="utf-8")
        for start in re.finditer(r"@media[^{]*width[^{]*\{", css):
            depth, end = 1, start.end()
            while depth:
                depth += {"{": 1, "}": -1}.get(css[end], 0)
                end += 1
            rules = re.sub(r"border[\w-]*:[^;}]*", "", css[start.end():end])  # a line beside a picture is no text
            assert not re.search(r"color|background|opacity|#[0-9a-f]{3}", rules), (path.name, rules)


KINDS = ("index.html", "09_fine_grained.html", "api/pooling.html", "library/learner/strategy.html", "404.html",
         "pages/glossary.html", "pages/reported.html", "pages/api.html", "pages/peers.html", "CHANGELOG.html",
         "slides/04_lr_finder.html")


def test_axe_finds_nothing(browser, address):
    """Each kind of page: all rules at a desk, those about colours in both themes. A phone shows the same text in the
    same colours, so there the colours of what stands beside the text are looked at, and all of the home page's."""
    found = []
    for scheme in ("light", "dark"):
        page = open_page(browser, viewport=DESK, color_scheme=scheme)
        for name in KINDS:
            for size in (DESK, PHONE):
                page.set_viewport_size(size)
                assert page.goto(address + name).ok
                page.wait_for_timeout(100)
                beside = {"exclude": [["main"]]} if size == PHONE and name != "index.html" else None
                found += [(name, scheme, size["width"], *one) for one in findings(page, "colours", beside)]
                if scheme == "light":
                    found += [(name, scheme, size["width"], *one) for one in findings(page, "others")]
        page.context.close()
    assert found == []


QUARTO_PAGE = """<!doctype html>
<html lang="en"><head><title>T</title><style>{theme}</style><style>
p code:not(.sourceCode), li code:not(.sourceCode), td code:not(.sourceCode) {{ background-color: #f8f9fa }}
.quarto-page-breadcrumbs .breadcrumb-item, .quarto-page-breadcrumbs .breadcrumb-item a {{ color: #595f64 }}
details > summary {{ color: #6c757d }}
.aa-SubmitIcon {{ color: #30363b }}
</style><style>{own}</style></head>
<body class="quarto-dark">
<nav id="quarto-sidebar" aria-label="All pages"><div id="quarto-search"><button class="aa-SubmitButton" title="Search">
<svg class="aa-SubmitIcon" width="20" height="20"><path d="M0 0h9v9z"></path></svg></button></div></nav>
<main><nav class="quarto-page-breadcrumbs" aria-label="breadcrumb"><ol class="breadcrumb">
<li class="breadcrumb-item"><a href="a">Lessons</a></li><li class="breadcrumb-item"><a href="b">The loop</a></li></ol>
</nav>
<h1>T</h1><p>A <code>chip</code> and <a href="c"><code>a_link</code></a>.</p><ul><li><code>some.name</code></li></ul>
<details open><summary>Imports</summary><p>e</p></details></main></body></html>
"""


def test_our_colours_win_over_those_of_quarto_s_dark_theme(browser, tmp_path):
    """Quarto's markup with the colours that were found too faint in its pages, or white on white."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
    smalldocs = pytest.importorskip("smalldocs", reason="its copy of the theme darkly")
    from build import without_web_fonts

    vendor = Path(smalldocs.__file__).parent / "assets" / "vendor" / "bootswatch" / "darkly.min.css"
    theme = without_web_fonts(vendor.read_text(encoding="utf-8"))
    page, contrast = open_page(browser, viewport=DESK), []
    for own in ("", (ROOT / "website" / "styles.css").read_text(encoding="utf-8")):
        page.set_content(QUARTO_PAGE.format(theme=theme, own=own))
        found = axe.Axe().run(page).response["violations"]
        contrast.append(sum(len(problem["nodes"]) for problem in found if problem["id"] == "color-contrast"))
    assert contrast[0] > 3 and contrast[1] == 0  # without ours it is as bad as it was
    icon = page.evaluate("getComputedStyle(document.querySelector('.aa-SubmitIcon path')).fill")
    assert sum(map(int, re.findall(r"\d+", icon)[:3])) > 450
    page.context.close()


def test_the_question_of_the_home_page_is_answered_on_a_click(browser, address):
    page = open_page(browser, viewport=DESK)
    page.goto(address)
    assert not page.get_by_text("Yes, cracked.").is_visible()
    page.locator(".which-yes summary").click()
    assert page.get_by_text("Yes, cracked.").is_visible()
    page.locator(".which-no summary").first.focus()
    page.keyboard.press("Enter")
    assert page.get_by_text("No, functional.").first.is_visible() and not page.get_by_text("Yes, cracked.").is_visible()
    page.locator(".begin-button").click()
    page.wait_for_url(f"**/{LESSONS[0]}.html")
    page.context.close()


def test_the_first_tab_leads_past_the_sidebar(browser, address):
    page = open_page(browser, viewport=DESK)
    page.goto(address + "03_training_loop.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip-link"
    assert page.locator(".skip-link").bounding_box()["y"] >= 0
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('main').contains(document.activeElement)")
    page.context.close()


def test_what_a_search_finds_is_not_cut_off(browser, address):
    page = open_page(browser, viewport=DESK)
    page.goto(address)
    page.locator("input[type=search]").first.fill("learning rate")
    found = page.locator(".smalldocs-search-results .search-result")
    found.nth(2).wait_for()
    for place in range(3):
        box = found.nth(place).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= DESK["width"] and box["width"] > 400
        seen = page.evaluate("([x, y]) => document.elementFromPoint(x, y).closest('.search-result') !== null",
                             [box["x"] + box["width"] - 30, box["y"] + box["height"] / 2])
        assert seen, place
    page.context.close()


def test_the_page_s_own_entry_is_in_sight(browser, address):
    page = open_page(browser, viewport=DESK)
    for name in ("library/core/text.html", "library/teach/verdict.html", "02_model.html"):
        page.goto(address + name)
        box = page.locator("#quarto-sidebar a.active").first.bounding_box()
        assert 0 <= box["y"] <= DESK["height"] - 20, name
    page.context.close()


def test_a_table_that_goes_on_shows_it_on_a_phone(browser, address):
    page = open_page(browser, viewport=PHONE)
    page.goto(address + "pages/peers.html")
    wide = page.evaluate("[...document.querySelectorAll('.table-box')].filter(e => e.scrollWidth > e.clientWidth + 20)"
                         ".map(e => (getComputedStyle(e).backgroundImage.match(/linear-gradient/g) || []).length)")
    assert wide and set(wide) == {4}
    page.context.close()


def test_underscores_are_not_hidden_by_underlines(browser, address):
    """The underline of a linked name lies below the lowest dot of its underscore."""
    page = open_page(browser, viewport=DESK)
    page.goto(address + "pages/api.html")
    offsets = page.evaluate("""[...document.querySelectorAll('main td a')].filter(a => a.textContent.includes('_'))
        .map(a => parseFloat(getComputedStyle(a).textUnderlineOffset) / parseFloat(getComputedStyle(a).fontSize))""")
    assert len(offsets) > 40 and min(offsets) >= 0.35
    page.context.close()


def test_nothing_is_cut_off_in_print(browser, address):
    page = open_page(browser, viewport=DESK)
    cut = "[...document.querySelectorAll('main pre')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
    for name in (page_of("03").replace(".ipynb", ".html"), "07_tuning.html"):
        page.goto(address + name)
        on_screen = page.evaluate(cut)
        page.emulate_media(media="print")
        assert page.evaluate(cut) == 0 and not page.locator("#quarto-sidebar").is_visible()
        page.emulate_media(media="screen")
    assert on_screen > 0
    page.context.close()


EXPLORER = """
from course_lib.lr_finder import LRRun, LRSweep, explore_lrs

explore_lrs(LRSweep(tuple(toy_rates), tuple(toy_losses), tuple(toy_losses), 100),
              [LRRun(1e-3, (2.0, 1.9, 1.8), {}), LRRun(1.0, (2.0, 1.0, 0.5), {})], 1e-3)
"""


@pytest.fixture
def lab(tmp_path, browser):
    """JupyterLab with first cells of lesson 4 in a notebook (no training), and after them its explorer on a sweep."""
    lesson = json.loads((ROOT / "nbs" / "04_lr_finder.ipynb").read_text(encoding="utf-8"))
    first = next(i for i, cell in enumerate(lesson["cells"]) if "naive_find(make_net()" in "".join(cell["source"]))
    trains = re.compile(r"\b(make_learner|trained)\b")
    lesson["cells"] = [cell | ({"outputs": [], "execution_count": None} if cell["cell_type"] == "code" else {})
                       for cell in lesson["cells"][:first + 1]
                       if cell["cell_type"] == "markdown" or not trains.search("".join(cell["source"]))]
    lesson["cells"].append({"cell_type": "code", "id": "explorer", "metadata": {}, "outputs": [],
                            "execution_count": None, "source": EXPLORER})
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "lesson.ipynb").write_text(json.dumps(lesson), encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {name: str(tmp_path / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR",
                                                           "JUPYTER_RUNTIME_DIR")}
    with open(tmp_path / "lab.log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.port={port}",
             "--ServerApp.port_retries=0", "--IdentityProvider.token=", f"--ServerApp.root_dir={tmp_path / 'work'}"],
            env={**os.environ, **own, "JUPYTER_PREFER_ENV_PATH": "1", "COURSE_PROFILE": "test"}, stdout=log, stderr=log)
    where = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(1500):  # five minutes, for a busy machine
            with suppress(OSError):
                urlopen(where + "api", timeout=10).close()
                break
            assert process.poll() is None, (tmp_path / "lab.log").read_text()
            time.sleep(0.2)
        else:
            pytest.fail("JupyterLab did not start:\n" + (tmp_path / "lab.log").read_text())
        yield where
    finally:
        process.terminate()
        process.wait(20)


def test_a_lesson_runs_in_jupyterlab_and_its_widget_answers_a_slider(lab, browser):
    page = open_page(browser, viewport={"width": 1280, "height": 1600})
    page.set_default_timeout(120_000)
    page.goto(lab + "lab/tree/lesson.ipynb?reset")
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    page.locator("#jp-bottom-panel, .jp-StatusBar-Widget").get_by_text("| Idle").first.wait_for()  # the kernel is there
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    handle = page.locator(".widget-slider .noUi-handle, .jupyter-widgets .noUi-handle").first
    handle.wait_for()
    assert page.locator(".jp-OutputArea-output img").count() >= 1  # the lesson's own figure, and no error above it
    assert page.locator("[data-mime-type='application/vnd.jupyter.stderr'], .jp-RenderedText .ansi-red-fg").count() == 0
    picture = page.locator("img.widget-image, .widget-image img, img.jupyter-widgets").first
    before = picture.get_attribute("src")
    handle.focus()
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("([image, old]) => image.src !== old", arg=[picture.element_handle(), before])
    page.context.close()
