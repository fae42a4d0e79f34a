"""Build the site into `_docs/`: with Quarto when it is on the PATH, with smalldocs otherwise.

    python website/build.py             what `make docs` runs
    python website/build.py --serve     and serve it, on this computer alone (`make docs-preview`)
    python website/build.py --format epub     the whole course as a book, also pdf; only with Quarto
"""

import argparse
import logging
import re
import shutil
import subprocess
import sys
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_docs"
sys.path[:0] = [str(ROOT / "website")]


def choose_builder(wanted: str | None = None) -> str:
    """Quarto where it is installed, else smalldocs; one that was asked for by name must be there."""
    smalldocs = sys.version_info >= (3, 11) and __import__("importlib.util").util.find_spec("smalldocs") is not None
    there = {"quarto": shutil.which("quarto") is not None, "smalldocs": smalldocs}
    for name in [wanted] if wanted else there:
        if there[name]:
            return name
    raise SystemExit("The site needs Quarto (https://quarto.org, any Python) or smalldocs (Python 3.11 or newer: "
                     'pip install "smalldocs>=0.5").')


def render(stage: Path, builder: str, site: Path) -> None:
    """Run the builder on the staged pages. smalldocs stops at whatever it would ignore, and at broken links."""
    command = ([shutil.which("quarto"), "render", str(stage), "--no-execute"] if builder == "quarto"
               else [sys.executable, "-m", "smalldocs.cli", "render", str(stage), "--strict"])
    if subprocess.run(command, cwd=stage).returncode:
        raise SystemExit(f"{builder} could not build the site; what it says above names the page.")
    shutil.rmtree(site, ignore_errors=True)
    shutil.move(stage / "_docs", site)


# ---- After either builder

BOOTSTRAP = "bootstrap.bundle.min.js"
WEB_FONT = re.compile(r"""@import\s*(?:url\((?:[^)]*)\)|"[^"]*"|'[^']*')[^;}]*;?""")


def without_web_fonts(css: str) -> str:
    """A stylesheet that asks no other host for its letters; the system's own are next in its list."""
    return WEB_FONT.sub(lambda match: "" if "//" in match[0] else match[0], css)


def rules(css: str):
    """The top level of a stylesheet, piece by piece: (before the brace, inside the braces or None)."""
    depth, begin, opened = 0, 0, 0
    for i, letter in enumerate(css):
        if letter == "{":
            depth += 1
            if depth == 1:
                opened = i
        elif letter == "}":
            depth -= 1
            if depth == 0:
                yield css[begin:opened], css[opened + 1:i]
                begin = i + 1
        elif letter == ";" and depth == 0:
            yield css[begin:i + 1], None
            begin = i + 1


def only_used(css: str, words: set[str]) -> str:
    """A stylesheet without the rules for classes that no page and no script of the site mentions."""
    kept = []
    css = re.sub(r"/\*.*?\*/", "", css, flags=re.S)
    for head, body in rules(css):
        if body is None:
            kept.append(head)
        elif head.lstrip().startswith(("@media", "@supports", "@layer", "@container")):
            if inner := only_used(body, words):
                kept.append(f"{head}{{{inner}}}")
        elif head.lstrip().startswith("@"):
            kept.append(f"{head}{{{body}}}")
        else:
            used = [one for one in re.split(r",(?![^(]*\))", head)
                    if {name for name in re.findall(r"\.([A-Za-z][\w-]*)", one)} <= words]
            if used:
                kept.append(f"{','.join(used)}{{{body}}}")
    return "".join(kept)


def slim(site: Path, words: set[str]) -> None:
    """Leave out of Bootstrap and its icons what the site does not use; both come whole from smalldocs."""
    libs = site / "site_libs"
    for path in [*libs.glob("themes/*.css"), *libs.glob("bootstrap-icons/*.css"), libs / "smalldocs.css"]:
        path.write_text(only_used(path.read_text(encoding="utf-8"), words), encoding="utf-8")
    icons = libs / "bootstrap-icons" / "bootstrap-icons.min.css"
    if not icons.is_file():
        return
    from fontTools import subset

    logging.getLogger("fontTools").setLevel(logging.ERROR)
    css, own = icons.read_text(encoding="utf-8"), (libs / "smalldocs.css").read_text(encoding="utf-8")
    codes = [int(code, 16) for code in re.findall(r'content: ?"\\([0-9a-f]+)"', css + own)]
    fonts = icons.parent / "fonts"
    options = subset.Options(flavor="woff", layout_features=[])
    font = subset.load_font(str(fonts / "bootstrap-icons.woff"), options)
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=codes)
    subsetter.subset(font)
    subset.save_font(font, str(fonts / "bootstrap-icons.woff"), options)
    font.close()
    (fonts / "bootstrap-icons.woff2").unlink(missing_ok=True)
    icons.write_text(re.sub(r'url\("?[^)"]*woff2[^)]*\)\s*format\("woff2"\),?', "", css), encoding="utf-8")


def complete(site: Path, builder: str) -> None:
    """What both builders leave to do: notebooks to take away, old addresses, own fonts, a page for every reader."""
    from finishing import finished, site_words, tell_others
    from pages import RECORDS, lesson_paths, redirect_page, redirects, take_away
    from slides import write_decks

    for path in lesson_paths().values():
        take_away(path, site / "notebooks" / path.name)
    shutil.copytree(site.with_name("_proc") / "images", site / "images", dirs_exist_ok=True)
    (site / "results").mkdir(exist_ok=True)
    for record in filter(Path.is_file, sorted(RECORDS.glob("*.json*"))):  # beside them, a folder while one is written
        shutil.copy(record, site / "results" / record.name)
    for old, new in redirects().items():
        (site / old).parent.mkdir(parents=True, exist_ok=True)
        (site / old).write_text(redirect_page(old, new), encoding="utf-8")
    if builder != "quarto":
        write_decks(site, site_words()[0])
    pages = sorted(site.rglob("*.html"))
    words: set[str] = set()
    for page in pages:
        text = finished(page.read_text(encoding="utf-8"), page, site)
        page.write_text(text, encoding="utf-8")
        words |= {name for names in re.findall(r'class="([^"]*)"', text) for name in names.split()}
    toggled = {name for page in pages for name in re.findall(r'data-bs-toggle="(\w+)"', page.read_text("utf-8"))}
    for script in set(site.rglob("*.js")) - set(site.glob("website/static/reveal/*")):  # decks have their own styles
        if script.name != BOOTSTRAP or toggled - {"collapse"}:  # most of its classes are of what no page toggles
            words |= set(re.findall(r"[A-Za-z][\w-]+", script.read_text(encoding="utf-8")))
    words |= {"collapse", "collapsing", "collapsed", "collapse-horizontal", "show"}
    for path in site.rglob("*.css"):
        path.write_text(without_web_fonts(path.read_text(encoding="utf-8")), encoding="utf-8")
    if builder == "smalldocs":
        slim(site, words)
    tell_others(site)
    (site / ".nojekyll").touch()


def build(builder: str | None = None, site: Path = SITE) -> Path:
    """Stage the pages beside the site's folder, render and complete them; gives the site's folder."""
    from pages import stage

    builder, started, staged = choose_builder(builder), time.perf_counter(), site.with_name("_proc")
    stage(staged, builder)
    print(f"pages ready in {time.perf_counter() - started:.0f} s; rendering with {builder}", flush=True)
    render(staged, builder, site)
    complete(site, builder)
    print(f"The site is in {site}, built in {time.perf_counter() - started:.0f} s.")
    return site


def serve(folder: Path, port: int) -> None:
    """Serve a folder on this computer alone until Ctrl-C."""
    with ThreadingHTTPServer(("127.0.0.1", port), partial(SimpleHTTPRequestHandler, directory=str(folder))) as server:
        print(f"http://127.0.0.1:{server.server_port}/ (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--builder", choices=("quarto", "smalldocs"), help="default: quarto if it is there")
    parser.add_argument("--format", choices=("html", "epub", "pdf"), default="html", help="default: html, the site")
    parser.add_argument("--output", type=Path, default=SITE, metavar="DIR", help="default: _docs")
    parser.add_argument("--serve", action="store_true", help="serve the site afterwards")
    parser.add_argument("--port", type=int, default=4200)
    arguments = parser.parse_args()
    if arguments.format != "html":
        from book import build_book

        target = arguments.output.resolve()
        target.mkdir(parents=True, exist_ok=True)
        print(f"The book is {build_book(arguments.format, target)}.")
        return 0
    site = build(arguments.builder, arguments.output.resolve())
    if arguments.serve:
        serve(site, arguments.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
