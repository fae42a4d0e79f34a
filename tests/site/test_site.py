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
import threading
import time
from collections import defaultdict
from contextlib import suppress
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted(path.stem for path in (ROOT / "nbs").glob("[0-9][0-9]_*.ipynb"))
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
PHONE, DESK = {"width": 375, "height": 740}, {"width": 1280, "height": 900}
CAN_BUILD = bool(shutil.which("quarto")) or importlib.util.find_spec("smalldocs") is not None
sys.path.insert(0, str(ROOT / "website"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900),  # on a busy machine
              pytest.mark.skipif(not CAN_BUILD, reason="The site needs Quarto, or smalldocs, which needs Python 3.11.")]


def canaries(folder):
    """Variables that say whose computer this is, with values that may stand in nothing that is published."""
    home = folder / "canary-home"
    home.mkdir(parents=True, exist_ok=True)
    return {"HOME": str(home), "USERPROFILE": str(home), "USER": "canary-user", "LOGNAME": "canary-user",
            "USERNAME": "canary-user", "HOSTNAME": "canary-host", "COURSELIB_CANARY": "canary-value"}


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The site, built once for all processes that run tests, by somebody whose variables are `canaries`."""
    from filelock import FileLock

    if "COURSE_SITE" in os.environ:
        return Path(os.environ["COURSE_SITE"]).resolve()
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "site"
    with FileLock(f"{shared}.lock"):
        if not (shared / "seconds").is_file():
            started = os.times()
            ran = subprocess.run([sys.executable, ROOT / "website" / "build.py", "--output", shared / "docs"],
                                 capture_output=True, text=True, timeout=800,
                                 env={"MPLCONFIGDIR": str(Path.home() / ".config" / "matplotlib"), **os.environ,
                                      **canaries(shared)})
            assert ran.returncode == 0, ran.stdout + ran.stderr
            now = os.times()
            (shared / "seconds").write_text(str(now.children_user + now.children_system - started.children_user
                                                - started.children_system))
    return shared / "docs"


class Page(HTMLParser):
    """What a test asks of a page: ids, links, what it loads, its pictures, its text."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.twice, self.links, self.loads, self.pictures = set(), set(), [], [], []
        self.words, self.dates = [], []
        self.skip = 0
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.skip += tag in ("script", "style")
        self.twice |= self.ids & {given.get("id")}
        self.ids |= {given[key] for key in ("id", "name") if given.get(key)}
        if tag == "a" and given.get("href") is not None:
            self.links.append(given["href"])
        if tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload"):
            self.loads.append(given["href"])
        self.loads += [given["src"]] if given.get("src") else []
        if tag == "img":
            self.pictures.append(given.get("alt"))

    def handle_endtag(self, tag):
        self.skip -= tag in ("script", "style")

    def handle_data(self, data):
        if not self.skip:
            self.words.append(data)


def pages_of(folder):
    return {path.relative_to(folder).as_posix(): Page(path) for path in sorted(folder.rglob("*.html"))}


@pytest.fixture(scope="session")
def pages(site):
    return pages_of(site)


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
            path = (folder / name).parent / unquote(parts.path) if parts.path else folder / name
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
                                         '<img src="d.png"><a href="https://e.f/">4</a>')
    assert broken_links(tmp_path, pages_of(tmp_path)) == [("index.html", "#b"), ("index.html", "c.html"),
                                                          ("index.html", "d.png")]


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
    assert weight("index.html") + fonts < 500_000
    for lesson in LESSONS:
        assert weight(f"{lesson}.html") + fonts < 2_500_000, lesson


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


def test_the_library_stands_in_the_sidebar_by_rooms(pages):
    from pages import module_notebooks, reference_page, room_sections

    sections = room_sections()
    rooms = {section["section"]: section["contents"] for section in sections if isinstance(section, dict)}
    assert rooms.keys() == {f"course_lib.{module.rpartition('.')[0]}" for module in module_notebooks() if "." in module}
    listed = [one for one in sections if isinstance(one, str)] + [page for room in rooms.values() for page in room]
    assert sorted(listed) == sorted(map(reference_page, module_notebooks()))
    assert "library/core/files.ipynb" in rooms["course_lib.core"] and "library/settings.ipynb" in sections
    assert {page.replace(".ipynb", ".html") for page in listed} <= set(pages["index.html"].links)


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
    assert "90.13" not in " ".join(pages[name].text for name in ("index.html", "pages/reported.html"))


def test_the_page_of_the_peers_has_a_plot_and_a_table_a_question(site):
    text = (site / "pages" / "peers.html").read_text(encoding="utf-8")
    recorded = sorted(path.name for path in (ROOT / "course_lib" / "results").glob("peers_*.json"))
    shown = re.findall(r'href="[^"]*/(peers_\w+\.json)"', text)
    assert sorted(shown) == recorded and len(recorded) == 12
    assert sum("growth" in name for name in recorded) == 4  # these share a plot and a table
    assert text.count("<img") == 9 and text.count("<table") == 1 + 9
    assert "Not measured yet" not in text and not re.search(r"\bnan\b", text)


def test_the_readme_is_the_home_page_and_times_are_those_recorded(pages):
    from readme import PICTURE, first_picture, readme

    assert (ROOT / "README.md").read_text(encoding="utf-8") == readme(), "run: make readme"
    assert PICTURE.read_bytes() == first_picture(), "run: make readme"
    assert readme().index("](nbs/images/first_classifier.jpg)") < readme().index("## ")
    assert len(first_picture()) < 100_000
    assert pages["index.html"].pictures[0].startswith("Twelve photographs")
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
    assert "colab" not in (tmp_path / "without.ipynb").read_text(encoding="utf-8").lower()
    assert json.loads((tmp_path / "taken.ipynb").read_text("utf-8")) == json.loads(lesson.read_text("utf-8"))
    monkeypatch.setattr(making, "addresses", lambda: ("https://github.com/some/course", "https://some.example/course"))
    making.process(lesson, tmp_path / "with.ipynb")
    making.take_away(lesson, tmp_path / "taken.ipynb")
    assert ("https://colab.research.google.com/github/some/course/blob/gh-pages/notebooks/09_fine_grained.ipynb"
            in (tmp_path / "with.ipynb").read_text(encoding="utf-8"))
    first, *others = json.loads((tmp_path / "taken.ipynb").read_text("utf-8"))["cells"]
    assert "git+https://github.com/some/course" in first["source"] and first["cell_type"] == "code"
    exec(compile(first["source"], "first cell", "exec"), {})  # here, where this is not Colab, it does nothing
    assert "https://some.example/course/07_tuning.html" in "".join("".join(cell["source"]) for cell in others)
    named = subprocess.run(["git", "grep", "-lE", r"github\.com/(OWNER|some)/"], cwd=ROOT, capture_output=True,
                           text=True)
    assert named.returncode > 1 or set(named.stdout.split()) <= {"pyproject.toml", "tests/site/test_site.py"}


def test_a_widget_says_what_a_running_kernel_adds_beside_its_picture(pages):
    text = pages["04_lr_finder.html"].text
    assert re.search(r"Live with a running kernel.{0,160}A slider over the rates", text)


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


# ---- In a browser

def find_browser():
    named = os.environ.get("COURSE_BROWSER")
    return named or next(filter(None, map(shutil.which, BROWSERS)), None)


@pytest.fixture(scope="session")
def browser():
    """Chromium, without a window."""
    reason = ("The site's tests in a browser need Chromium and playwright: apt install chromium (or name one in "
              'COURSE_BROWSER), and pip install "playwright>=1.50" axe-playwright-python.')
    if not find_browser() or importlib.util.find_spec("playwright") is None:
        pytest.skip(reason)
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        try:
            one = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        except Error as error:
            pytest.skip(f"{reason} {find_browser()} did not start: {str(error).splitlines()[0]}")
        yield one
        one.close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def address(site):
    """The site served on this computer."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


# Does the page scroll sideways, or is something cut off at its edge that has no box of its own to scroll in?
TOO_WIDE = """() => {
    const wide = document.documentElement.clientWidth, found = [];
    if (document.documentElement.scrollWidth > wide) found.push("the page scrolls sideways");
    const scrolls = e => e && e.tagName !== "MAIN" && (/auto|scroll/.test(getComputedStyle(e).overflowX)
                                                       || scrolls(e.parentElement));
    for (const e of document.querySelectorAll("main *"))
        if (e.getBoundingClientRect().right > wide + 1 && !scrolls(e.parentElement))
            found.push("too wide: " + e.outerHTML.slice(0, 80));
    return found.slice(0, 3);
}"""


def open_page(browser, **options):
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(20_000)
    return page


@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_every_page_loads_without_an_error_a_stranger_or_sideways_scrolling(size, browser, address, pages):
    page, told = open_page(browser, viewport=size), defaultdict(list)
    page.on("console", lambda message: message.type == "error" and told[page.url].append(message.text))
    page.on("pageerror", lambda error: told[page.url].append(str(error)))
    page.on("request", lambda request: None if request.url.startswith((address, "data:"))
            else told[page.url].append(f"asked {request.url}"))
    from pages import redirects

    for name in pages.keys() - redirects().keys():  # from an old address the browser is on its way
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_violation(scheme, browser, address):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
    page, found = open_page(browser, viewport=DESK, color_scheme=scheme), []
    for name in ("index.html", "09_fine_grained.html", "api/pooling.html", "library/learner/precision.html",
                 "pages/glossary.html", "pages/reported.html", "CHANGELOG.html"):
        page.goto(address + name)
        page.wait_for_timeout(100)
        for problem in axe.Axe().run(page).response["violations"]:
            if problem["impact"] in ("serious", "critical"):
                found.append((name, problem["id"], [node["html"][:120] for node in problem["nodes"][:3]]))
    page.context.close()
    assert found == []


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
