"""The built site, served on this computer, and Chromium: for all tests of this folder.

The tests that need no browser run everywhere that the site can be built. Those in a browser need Chromium and skip
without it; COURSE_BROWSER names one that lies elsewhere. COURSE_SITE names a site that is built already.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "website"))
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
PHONE, DESK = {"width": 375, "height": 740}, {"width": 1280, "height": 900}


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


@pytest.fixture(scope="session")
def staged(site, tmp_path_factory):
    """The folder that Quarto would render: the pages that the site was built from, with what only Quarto reads."""
    from pages import stage_for, stage_pages

    folder, made = tmp_path_factory.mktemp("quarto") / "_proc", site.with_name("_proc")
    if made.is_dir():
        shutil.copytree(made, folder)
    else:  # COURSE_SITE names a site that is built already
        stage_pages(folder)
    stage_for(folder, "quarto")
    return folder


REPOSITORY, ADDRESS = "https://github.com/some/course", "https://some.example/course"


@pytest.fixture(scope="session")
def addressed(site, tmp_path_factory):
    """The site with a made-up repository and address; what knows of them are the lessons, and all that comes after."""
    import build
    import finishing
    import pages

    folder = tmp_path_factory.mktemp("addressed")
    stage, made = folder / "_proc", site.with_name("_proc")
    with pytest.MonkeyPatch.context() as patch:
        for module in (pages, finishing):
            patch.setattr(module, "addresses", lambda: (REPOSITORY, ADDRESS))
        if made.is_dir():
            shutil.copytree(made, stage)
            for path in pages.lesson_paths().values():
                pages.process(path, stage / path.name)
        else:
            pages.stage_pages(stage)
        builder = build.choose_builder()
        pages.stage_for(stage, builder)
        build.render(stage, builder, folder / "docs")
        build.complete(folder / "docs", builder)
    return folder / "docs"


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


COLOURS = ["color-contrast", "link-in-text-block"]  # the rules whose answer depends on the theme, and the slow ones


def findings(page, rules, where=None, least="minor"):
    """What axe finds on a page by its rules about `colours`, or by the `others`: (rule, where it is broken)."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
    impacts = ("minor", "moderate", "serious", "critical")
    chosen = ({"runOnly": COLOURS} if rules == "colours" else
              {"rules": {rule: {"enabled": False} for rule in COLOURS}})
    response = axe.Axe().run(page, where, {"resultTypes": ["violations"], **chosen}).response
    return [(one["id"], [node["html"][:120] for node in one["nodes"][:3]]) for one in response["violations"]
            if one["impact"] in impacts[impacts.index(least):]]
