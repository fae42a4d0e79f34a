"""What is done to each page of HTML after either builder, and the files for those who are no reader of a page."""

import base64
import html
import io
import re
import shutil
import subprocess
from datetime import datetime, timezone
from functools import cache
from hashlib import sha256
from pathlib import Path
from urllib.parse import unquote

import yaml
from pages import LESSON, NBS, ROOT, addresses, module_notebooks, reference_page
from PIL import Image
from slides import FOLDER

CSS_DOTS = 96  # dots an inch of a browser
PICTURE = "images/first_classifier.jpg"  # what stands beside a link to the site elsewhere
ACTIVE_IN_SIGHT = (
    "<script>(function(){var s=document.getElementById('quarto-sidebar'),a=s&&s.querySelector('.active');"
    "if(!a)return;var y=a.getBoundingClientRect().top-s.getBoundingClientRect().top;"
    "if(y>s.clientHeight-40)s.scrollTop+=y-s.clientHeight/3})()</script>")


# ---- A page that a keyboard and a screen reader get through

def labelled(text: str) -> str:
    """Names and roles that the builders leave out."""
    text = re.sub(r'(<i class="bi[^"]*") role="img"', r"\1", text)
    text = re.sub(r'<i class="bi\b([^"]*)"(?! aria-hidden)', r'<i class="bi\1" aria-hidden="true"', text)
    # sections of the sidebar that fold are buttons
    text = re.sub(r'(<a class="sidebar-item-t[^>]*?data-bs-toggle="collapse"[^>]*?)role="navigation"',
                  r'\1role="button" tabindex="0"', text)
    text = re.sub(r'(<a class="sidebar-item-toggle[^>]*?)role="navigation"', r'\1role="button" tabindex="0"', text)
    text = re.sub(r"<a ([^>]*quarto-color-scheme-toggle[^>]*)>", _as_button, text)
    # what scrolls inside its box can be scrolled with the keyboard
    text = re.sub(r"<pre(?![^>]*tabindex)", '<pre tabindex="0"', text)
    text = re.sub(r'<math(?![^>]*tabindex)(?=[^>]*display="block")', '<math tabindex="0"', text)
    for which, name in (('id="quarto-sidebar"', "All pages"), ('class="quarto-secondary-nav"', "This page"),
                        ('class="page-navigation"', "Page before and page after"), ('id="TOC"', "On this page")):
        text = re.sub(rf"<nav(?![^>]*aria-label)(?=[^>]*{which})", f'<nav aria-label="{name}"', text)
    return text


def _as_button(match: re.Match) -> str:
    attributes = match[1]
    if "role=" not in attributes:
        attributes += ' role="button"'
    return f"<a {attributes}>" if "aria-label" in attributes else f'<a {attributes} aria-label="Toggle dark mode">'


def with_skip_link(text: str) -> str:
    """The first stop of the tab key leads past the sidebar to the text."""
    if not (main := re.search(r'<main\b[^>]*\bid="([^"]+)"', text)):
        return text
    link = f'<a class="skip-link" href="#{main[1]}">Skip to the text</a>'
    text = re.sub(r"(<main\b)(?![^>]*tabindex)", r'\1 tabindex="-1"', text, count=1)
    return re.sub(r"(<body\b[^>]*>)", lambda match: match[1] + link, text, count=1)


def with_readable_tables(text: str) -> str:
    """Each table in a box of its own that scrolls, and no empty cell that is announced as a heading."""
    text = re.sub(r"<th\b([^>]*)>\s*</th>", r"<td\1></td>", text)
    text = re.sub(r'<div class="sd-table">\s*(<table\b.*?</table>)\s*</div>', r"\1", text, flags=re.S)
    boxed = r'<div class="table-box" tabindex="0" role="group" aria-label="Table">\1</div>'
    return re.sub(r"(<table\b.*?</table>)", boxed, text, flags=re.S)


# ---- Figures as large as they were drawn

def drawn_width(data: bytes) -> tuple[int, int] | None:
    """The size on a page of a figure with more dots an inch than a page has; none for other pictures."""
    with Image.open(io.BytesIO(data)) as picture:
        dots = float(picture.info.get("dpi", (CSS_DOTS,))[0])
        if dots <= CSS_DOTS + 1:
            return None
        return tuple(round(side * CSS_DOTS / dots) for side in picture.size)


def with_sizes(text: str, folder: Path) -> str:
    """Figures with more dots than a page needs, in the size that they were drawn in: fine screens use all dots."""
    def sized(match: re.Match) -> str:
        tag = match[0]
        source = re.search(r'\ssrc="([^"]+)"', tag)
        if not source or re.search(r"\swidth=", tag) or re.match(r"data:image/(?!png|jpe?g)|https?:", source[1]):
            return tag
        if source[1].startswith("data:"):
            data = base64.b64decode(source[1].partition(",")[2])
        else:
            path = folder / unquote(source[1])
            if path.suffix not in (".png", ".jpg", ".jpeg") or not path.is_file():
                return tag
            data = path.read_bytes()
        size = drawn_width(data)
        return tag.replace("<img", f'<img width="{size[0]}" height="{size[1]}"', 1) if size else tag

    return re.sub(r"<img\b[^>]*>", sized, text)


# ---- For other sites, for search engines and for feed readers

@cache
def site_words() -> tuple[str, str]:
    """The site's title and description, from _quarto.yml."""
    website = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))["website"]
    return website["title"], website["description"]


def words_of(text: str) -> str:
    """The text of some HTML."""
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", text).split()))


def with_card(text: str, name: str) -> str:
    """What others show beside a link to this page (Open Graph), and its one address, where the site has one."""
    title, description = site_words()
    _, site = addresses()
    own = re.search(r"<title>(.*?)</title>", text, re.S)
    said = re.search(r'<meta name="description" content="([^"]*)"', text)
    card = {"og:title": words_of(own[1]).removesuffix(f" – {title}") if own else title, "og:site_name": title,
            "og:type": "website" if name == "index.html" else "article",
            "og:description": html.unescape(said[1]) if said else description}
    head = ""
    if site:
        address = f"{site}/{'' if name == 'index.html' else name}"
        card |= {"og:url": address, "og:image": f"{site}/{PICTURE}", "twitter:card": "summary_large_image"}
        head = (f'<link rel="canonical" href="{html.escape(address)}">'
                f'<link rel="alternate" type="application/atom+xml" title="{html.escape(title)}" '
                f'href="{site}/feed.xml">')
    head += "".join(f'<meta {"name" if key.startswith("twitter") else "property"}="{key}" '
                    f'content="{html.escape(value)}">' for key, value in card.items())
    return text.replace("</head>", head + "</head>", 1)


def source_of(name: str) -> str:
    """Where the source of a staged page lies in the repository: `api/learner.loop.ipynb` is made from lesson 3."""
    made = {reference_page(module): path for module, path in module_notebooks().items() if LESSON.fullmatch(path.name)}
    path = made.get(name, NBS / name)
    return (path if path.is_file() else ROOT / name).relative_to(ROOT).as_posix()


def with_own_sources(text: str) -> str:
    """Links to the repository lead to the notebook that a page is made from, also where that has another name."""
    repository, _ = addresses()
    if not repository:
        return text
    address = re.escape(repository)
    return re.sub(rf"({address}/(?:blob|edit)/\w+/)nbs/([\w./-]+)", lambda match: match[1] + source_of(match[2]), text)


def finished(text: str, path: Path, site: Path) -> str:
    """A page of the site at `path`, finished. A page that only leads on stays as it is."""
    if 'http-equiv="refresh"' in text:
        return text
    name = path.relative_to(site).as_posix()
    if name.startswith(f"{FOLDER}/"):  # a deck fits its window by itself
        return with_card(with_readable_tables(text), name)
    text = with_readable_tables(text.replace(' data-href="', ' href="'))
    text = with_sizes(with_skip_link(labelled(text)), path.parent)
    text = with_own_sources(with_card(text, name))
    return text.replace("</body>", ACTIVE_IN_SIGHT + "</body>", 1)


# ---- Files beside the pages

def not_here_page() -> str:
    """What a server shows for an address that there is not: it stands at any depth, so its links begin at the top."""
    title, description = site_words()
    top = f"{addresses()[1]}/" if addresses()[1] else "/"
    links = {"index.html": "the home page, with all lessons", "pages/glossary.html": "the glossary",
             "pages/api.html": "the library", "CHANGELOG.html": "what has changed"}
    items = "".join(f'<li><a href="{top}{page}">{words}</a></li>' for page, words in links.items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<link rel="icon" href="{top}website/favicon.svg">
<title>This page is not here – {html.escape(title)}</title>
<style>
:root {{ color-scheme: light dark }}
html {{ background: light-dark(#fff, #222); color: light-dark(#212529, #fff) }}
a {{ color: light-dark(#1259b0, #7ab8ff) }}
body {{ font: 1.1rem/1.6 system-ui, sans-serif; max-width: 36rem; margin: 15vh auto; padding: 0 1.2rem }}
</style>
</head>
<body><main>
<h1>This page is not here</h1>
<p>Perhaps it has another name now. From here you find it:</p>
<ul>{items}</ul>
<p>{html.escape(title)}: {html.escape(description)}.</p>
</main></body>
</html>
"""


def news() -> list[str]:
    """What CHANGELOG.md says, newest first: each item of its lists as a text."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    return [re.sub(r"\s+", " ", item).strip() for item in re.findall(r"^- (.*?)(?=^- |^#|\Z)", text, re.M | re.S)]


def changed() -> str:
    """When CHANGELOG.md last changed, as feeds write a time."""
    command = ["git", "log", "-1", "--format=%cI", "--", "CHANGELOG.md"]
    asked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout if shutil.which("git") else ""
    seconds = (ROOT / "CHANGELOG.md").stat().st_mtime
    return asked.strip() or datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


def feed(most: int = 20) -> str:
    """The newest changes, for feed readers (Atom)."""
    title, _ = site_words()
    site, when = addresses()[1], changed()
    entries = []
    for text in news()[:most]:
        plain = re.sub(r"[`*]", "", text)
        first = re.split(r"(?<=[.:;])\s", plain)[0].rstrip(".:;")
        entries.append(f"<entry><title>{html.escape(first)}</title><updated>{when}</updated>"
                       f'<link href="{site}/CHANGELOG.html"/>'
                       f"<id>{site}/CHANGELOG.html#{sha256(text.encode()).hexdigest()[:12]}</id>"
                       f"<content>{html.escape(plain)}</content></entry>")
    return ('<?xml version="1.0" encoding="utf-8"?>\n<feed xmlns="http://www.w3.org/2005/Atom">'
            f"<title>{html.escape(title)}</title><id>{site}/</id><updated>{when}</updated>"
            f'<link rel="self" href="{site}/feed.xml"/><author><name>The course authors</name></author>'
            + "\n".join(entries) + "</feed>\n")


def tell_others(site: Path) -> None:
    """The page for addresses that there are not, and, where the site has an address, a feed."""
    (site / "404.html").write_text(not_here_page(), encoding="utf-8")
    if addresses()[1]:
        (site / "feed.xml").write_text(feed(), encoding="utf-8")
        list_decks(site)


def list_decks(site: Path) -> None:
    """Decks among the addresses for search engines: smalldocs knows only the pages that it made."""
    text = (site / "sitemap.xml").read_text(encoding="utf-8")
    new = [address for path in sorted((site / FOLDER).glob("*.html"))
           if (address := f"{addresses()[1]}/{FOLDER}/{path.name}") not in text]
    rows = "".join(f"<url><loc>{address}</loc></url>\n" for address in new)
    (site / "sitemap.xml").write_text(text.replace("</urlset>", f"{rows}</urlset>"), encoding="utf-8")
