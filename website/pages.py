"""The pages of the site: nbdev's processing of the notebooks, and what only the site has.

`stage` writes everything into one folder (`_proc/`), where Quarto and smalldocs find the same pages and the same
`_quarto.yml`.
"""

import ast
import html
import importlib
import inspect
import json
import os
import re
import shutil
import textwrap
from enum import Enum
from functools import cache
from pathlib import Path

import nbdev.processors
import yaml
from answers import answer_back, due_box, stage_static
from explorers import explore, stage_scripts
from fastcore.nbio import mk_cell, nb2dict, read_nb
from home import PAGE, write_pictures
from nbdev.config import get_config
from nbdev.doclinks import NbdevLookup
from nbdev.process import NBProcessor, Processor
from nbdev.processors import (
    clean_magics,
    exec_show_docs,
    filter_stream_,
    hide_,
    hide_line,
    populate_language,
    rm_export,
    rm_header_dash,
    strip_ansi,
    strip_hidden_metadata,
)
from nbdev.showdoc import BasicMarkdownRenderer
from portable import named_fences, portable
from readme import ONLY
from reference import groups, readers_order
from slides import FOLDER, deck_address, stage_decks
from tryit import stage_network

try:
    import tomllib
except ImportError:  # Python 3.10; nbdev brings this one
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
NBS = ROOT / "nbs"
RECORDS = ROOT / "course_lib" / "results"
LESSON = re.compile(r"(\d\d)_\w+\.ipynb")
GITHUB = "https://github.com/"
PAGES_BRANCH = "gh-pages"  # where `make docs-publish` puts the site, with the notebooks that Colab and Kaggle open


# ---- The repository's address: pyproject.toml names it, and nothing else does

def addresses() -> tuple[str, str]:
    """The repository's address and the site's, from `[project.urls]` of pyproject.toml; empty where none is set."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"].get("urls", {})
    return urls.get("Repository", "").rstrip("/"), urls.get("Documentation", "").rstrip("/")


def elsewhere(name: str) -> dict[str, str]:
    """Where a lesson runs without installing anything, by service; nothing for a repository that is not on GitHub."""
    repository, _ = addresses()
    if not repository.startswith(GITHUB):
        return {}
    place = repository.removeprefix(GITHUB)
    notebook = f"{place}/blob/{PAGES_BRANCH}/notebooks/{name}"
    return {"Colab": f"https://colab.research.google.com/github/{notebook}",
            "Kaggle": f"https://www.kaggle.com/kernels/welcome?src={GITHUB}{notebook}",
            "Binder": f"https://mybinder.org/v2/gh/{place}/main?labpath=nbs/{name}"}


def colab_cell(repository: str) -> str:
    """The first cell of a lesson that runs on Colab or Kaggle: it installs the course there, and only there."""
    return textwrap.dedent(f"""\
        # On Colab and Kaggle this installs the course (minutes, once a session). Anywhere else it does nothing.
        import importlib.util
        import os
        import subprocess
        import sys

        hosted = "google.colab" in sys.modules or "KAGGLE_KERNEL_RUN_TYPE" in os.environ
        if hosted and importlib.util.find_spec("course_lib") is None:
            subprocess.run([sys.executable, "-m", "pip", "install", "--quiet",
                            "course-lib @ git+{repository}"], check=True)""")


# ---- What there is

def lesson_paths() -> dict[str, Path]:
    """The lessons by number; a new notebook joins by lying there."""
    return {path.name[:2]: path for path in sorted(NBS.glob("[0-9][0-9]_*.ipynb"))}


def page_notebooks() -> list[Path]:
    """The notebooks that are pages. Those of nbs/practice/ are not: the answers to the exercises stand there."""
    found = [*NBS.glob("*.ipynb"), *NBS.glob("library/**/*.ipynb"), *NBS.glob("pages/*.ipynb")]
    return sorted(path for path in found if ".ipynb_checkpoints" not in path.parts)


@cache
def module_notebooks() -> dict[str, Path]:
    """The notebook that each module of the library is exported from: `settings`, `data.download`, ..."""
    found = {}
    for path in page_notebooks():
        if name := default_exp(json.loads(path.read_text(encoding="utf-8"))):
            found[name] = path
    return found


def default_exp(notebook: dict) -> str | None:
    """The module that a notebook is exported to."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code" and (match := re.search(r"^#\s*\|\s*default_exp\s+(\S+)", source(cell), re.M)):
            return match[1]
    return None


def module_of(path: Path) -> str | None:
    """The module that the notebook at `path` is exported to."""
    return next((name for name, notebook in module_notebooks().items() if notebook == Path(path)), None)


def source(cell: dict) -> str:
    """A cell's text, which a notebook file keeps as a list of lines."""
    return "".join(cell["source"]) if isinstance(cell["source"], list) else cell["source"]


def reference_page(module: str) -> str:
    """Where a module's reference stands, from the top of the site: its own notebook, or a page made for a lesson."""
    path = module_notebooks()[module]
    return f"api/{module}.ipynb" if LESSON.fullmatch(path.name) else path.relative_to(NBS).as_posix()


@cache
def loaded(module: str):
    """A module of the library, with the names that its annotations use and that only type checkers import."""
    library = importlib.import_module(f"course_lib.{module}")
    for node in ast.parse(Path(library.__file__).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            exec(compile(ast.Module(node.body, []), library.__file__, "exec"), vars(library))
    return library


def module_source(module: str) -> str:
    """The Python text of a module."""
    return Path(loaded(module).__file__).read_text(encoding="utf-8")


@cache
def documented_names(module: str) -> list[str]:
    """The names that a module defines and that a page explains, in the order of its source: all without underscore."""
    return [name for name in dict.fromkeys(defined(module_source(module))) if not name.startswith("_")]


@cache
def public_names(module: str) -> list[str]:
    """The names that a module both defines and exports, in the order of its source."""
    return [name for name in documented_names(module) if name in loaded(module).__all__]


@cache
def offers() -> dict[str, list[str]]:
    """What a reader can import, by where from: packages with a list of names of their own, and all other modules."""
    found = {}
    for module in module_notebooks():
        package = importlib.import_module(f"course_lib.{module}".rpartition(".")[0])
        whole = package.__name__ != "course_lib" and hasattr(package, "__all__")
        place = package if whole else loaded(module)
        found[place.__name__.removeprefix("course_lib.")] = list(place.__all__)
    return found


def import_place(module: str) -> str:
    """Where a reader imports the public names of a module from: its package, if that offers them all, or itself."""
    package = module.rpartition(".")[0]
    return package if package and set(public_names(module)) <= set(offers().get(package, ())) else module


def public_methods(thing: type) -> list[str]:
    """The methods of a class that are its own, public and documented."""
    return [name for name, value in vars(thing).items()
            if not name.startswith("_") and inspect.isfunction(value) and value.__doc__]


MACHINERY = "core."  # names such as `number` and `lock` are also words of every lesson: linked with their module only


@cache
def references() -> dict[str, str]:
    """Where to read about a name: `Learner` to `api/learner.loop.ipynb#lib-Learner`, `Learner.fit`,
    `course_lib.learner.Learner`, `course_lib.learner.loop.Learner`, `course_lib.learner.loop`."""
    found = {f"course_lib.{module}": reference_page(module) for module in module_notebooks()}
    for module in module_notebooks():
        page, lesson = reference_page(module), LESSON.fullmatch(module_notebooks()[module].name)
        for name in public_names(module) if lesson else documented_names(module):
            found |= {f"course_lib.{module}.{each}": f"{page}#{anchor(each)}" for each in with_methods(module, name)}
    homes = {name: module for module in module_notebooks() for name in public_names(module)}
    for place, names in offers().items():
        for name in names:
            home = place if name in public_names_of(place) else homes.get(name)
            for each in with_methods(home, name) if home else ():
                target = found[f"course_lib.{home}.{each}"]
                found.setdefault(f"course_lib.{place}.{each}", target)
                if not f"{place}.".startswith(MACHINERY):
                    found.setdefault(each, target)
    return found


def public_names_of(place: str) -> list[str]:
    """The public names of a module; none for a package, which defines nothing itself."""
    return public_names(place) if place in module_notebooks() else []


def with_methods(module: str, name: str) -> list[str]:
    """A name, and its public methods if it is a class."""
    thing = getattr(loaded(module), name)
    return [name, *(f"{name}.{method}" for method in public_methods(thing))] if isinstance(thing, type) else [name]


def anchor(name: str) -> str:
    """The id of a name's heading on its reference page: a class and a function, or a section, may have one name."""
    return f"lib-{name}"


# ---- Links from `name` to its reference

_KEEP = re.compile(r"(\[(?:[^\]`]|`[^`]*`)*\]\([^)]*\)|<a\b.*?</a>|\]\([^)]*\))", re.S)


class Links(NbdevLookup):
    """nbdev's links from a name in backticks, to this site's pages, and never inside another link or a heading."""

    def __init__(self, up: str = "", skip: str = ""):
        super().__init__()
        self.syms = {name: up + target for name, target in references().items() if target.partition("#")[0] != skip}

    def link_line(self, line: str) -> str:
        if line.startswith("#"):
            return line
        parts = _KEEP.split(line)
        return "".join(part if _KEEP.fullmatch(part) else super(Links, self).link_line(part) for part in parts)


# ---- Mathematics, as MathML, so that no page needs a script for it

_MATH = re.compile(r"(?<![\\$])\$\$(?P<block>[^$]+)\$\$|(?<![\\$\w])\$(?P<inline>[^\s$](?:[^$]*[^\s$\\])?)\$(?![\d$])")
_CODE = re.compile(r"(^ *```.*?^ *```[^\n]*$|`[^`\n]+`)", re.S | re.M)


def outside_code(text: str, change) -> str:
    """`text` with `change` applied to what is neither a code block nor code in a line."""
    return "".join(part if _CODE.fullmatch(part) else change(part) for part in _CODE.split(text))


def mathml(text: str) -> str:
    """Markdown with each $formula$ written as MathML, every letter of it safe from Markdown."""
    from latex2mathml.converter import convert

    def formula(match: re.Match) -> str:
        display = "block" if match["block"] else "inline"
        made = convert((match["block"] or match["inline"]).strip(), display=display)
        made = re.sub(r">([^<]+)<", lambda m: ">" + "".join(
            c if c.isalnum() or c.isspace() else f"&#{ord(c)};" for c in html.unescape(m[1])) + "<", made)
        return made.replace("\n", " ")

    return outside_code(text, lambda part: _MATH.sub(formula, part))


# ---- Glossary

def glossary() -> dict[str, str]:
    """The glossary's terms, each with its anchor."""
    notebook = json.loads((NBS / "pages" / "glossary.ipynb").read_text(encoding="utf-8"))
    text = "\n".join(source(cell) for cell in notebook["cells"])
    return {term: term.lower().replace(" ", "-") for term in re.findall(r"^### (.+)$", text, re.M)}


def term_pattern(term: str) -> re.Pattern:
    """What counts as a use of a term: small or large letters, the plural, a line break between its words."""
    words = [re.escape(word) for word in term.split()]
    return re.compile(r"(?<![\w-])" + r"[\s-]+".join(words) + r"(?:s|es)?(?![\w-]|\.\w)", re.I)


# headings, code blocks, code in a line, links, tags, formulas, the fences of boxes
_NOT_PROSE = re.compile(r"(^\#[^\n]*$|^[ ]*```.*?^[ ]*```[^\n]*$|`[^`\n]+`|\[(?:[^\]`]|`[^`]*`)*\]\([^)]*\)"
                        r"|<[^>\n]*>|\$[^$]+\$|^:::[^\n]*$)", re.S | re.M)


def link_terms(cells: list, up: str = "") -> dict[str, str]:
    """Link each glossary term at its first use in the prose of `cells`, unless the author has linked it somewhere.

    Gives the words that were linked. Longer terms come first, so that "learning rate finder" is not taken apart.
    """
    prose = [cell for cell in cells if cell.cell_type == "markdown"]
    already = set(re.findall(r"glossary\.ipynb#([\w-]+)", "\n".join(cell.source for cell in prose)))
    linked = {}
    for term, target in sorted(glossary().items(), key=lambda pair: -len(pair[0])):
        if target in already:
            continue
        pattern = term_pattern(term)
        for cell in prose:
            pieces = _NOT_PROSE.split(cell.source)
            found = next((i for i in range(0, len(pieces), 2) if pattern.search(pieces[i])), None)
            if found is None:
                continue
            linked[term] = pattern.search(pieces[found])[0]
            pieces[found] = pattern.sub(lambda m, target=target: f"[{m[0]}]({up}pages/glossary.ipynb#{target})",
                                        pieces[found], count=1)
            cell.source = "".join(pieces)
            break
    return linked


# ---- Reference entries

class Written:
    """Stands for a default in a signature: shown as it is written in the source, not as what it is here and now."""

    def __init__(self, text: str):
        self.text = text

    def __repr__(self) -> str:
        return self.text


def says_nothing_of_this_computer(value: object) -> bool:
    """A number, a word, a name of the library or the like; no environment, no folder, no object made at import."""
    if isinstance(value, (tuple, list, set, frozenset)):
        return all(map(says_nothing_of_this_computer, value))
    if isinstance(value, str):
        return len(Path.home().parts) < 2 or str(Path.home()) not in value
    plain = (type(None), bool, int, float, complex, bytes, Enum, type)
    return isinstance(value, plain) or inspect.isroutine(value)


def written_default(thing: object, name: str) -> str:
    """The default of a parameter, or of a dataclass's field, as the source has it; `...` where it cannot be found."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(thing))))
    except (OSError, TypeError, SyntaxError):
        return "..."
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == name and node.value is not None:
            return ast.unparse(node.value)
        if isinstance(node, ast.arguments):
            placed = [*node.posonlyargs, *node.args]
            pairs = [*zip(placed[len(placed) - len(node.defaults):], node.defaults, strict=True),
                     *zip(node.kwonlyargs, node.kw_defaults, strict=True)]
            for argument, default in pairs:
                if argument.arg == name and default is not None:
                    return ast.unparse(default)
    return "..."


def short_types(signature: str) -> str:
    """A signature as people write it: `Callable`, not `collections.abc.Callable`; `nn.Module` with its `nn`."""
    signature = re.sub(r"\btorch\.nn\.modules\.\w+\.", "nn.", signature)
    return re.sub(r"\b(?!nn\.)(?:[a-z_]\w*\.)+(?=[A-Z])", "", signature)


class Entry(BasicMarkdownRenderer):
    """What nbdev's `show_doc` shows, under a heading with a name of its own for links, without the line above it.

    A default that could tell something of the computer on which the site is built, such as `os.environ`, is shown as
    it is written in the source.
    """

    def __init__(self, thing: object):
        super().__init__(thing)
        given = getattr(self.dm, "dm", None)
        if given is None:  # no signature could be made; what stands there in its place shows values
            self.dm = f"{self.nm}(...)"
            return
        for name, parameter in given.items():
            default = parameter.get("default", inspect.Parameter.empty)
            if default is not inspect.Parameter.empty and not says_nothing_of_this_computer(default):
                parameter["default"] = Written(written_default(thing, name))

    def _repr_markdown_(self) -> str:
        shown = super()._repr_markdown_()
        signature, fence, rest = shown[shown.index("```python") + 9:].partition("```")
        return f"```python{short_types(signature)}{fence}{rest}"


def entry(module: str, name: str, level: int = 3) -> str:
    """The reference of one public name as Markdown: a signature with types and comments, the docstring, the methods."""
    thing = getattr(loaded(module), name)
    head = f"{'#' * level} {name} {{#{anchor(name)}}}\n\n"
    if not callable(thing):
        return head + constant(module_source(module), name)
    shown = [head + (Entry(thing)._repr_markdown_() if callable_with_signature(thing) else inspect.getdoc(thing) or "")]
    for method in public_methods(thing) if isinstance(thing, type) else ():
        full = f"{name}.{method}"
        shown.append(f"{'#' * (level + 1)} {full} {{#{anchor(full)}}}")
        shown.append(Entry(getattr(thing, method))._repr_markdown_())
    return "\n\n".join(shown)


def first_sentence(module: str, name: str) -> str:
    """What a name is for, in the first sentence of its docstring; nothing for a constant."""
    thing = getattr(loaded(module), name)
    words = " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split()) if callable(thing) else ""
    return re.split(r"(?<=[.:;])\s", words)[0].rstrip(".:;").replace("|", r"\|")


def names_table(module: str, page: str = "") -> str:
    """The public names of a module as a Markdown table, each with a link to its entry on `page` and what it is for."""
    rows = [f"| [`{name}`]({page}#{anchor(name)}) | {first_sentence(module, name)} |"
            for name in readers_order(module, public_names(module))]
    return "\n".join(["| name | what it is for |", "|---|---|", *rows])


def callable_with_signature(thing: object) -> bool:
    """Some classes, such as exceptions, take what their parent takes, which Python cannot tell."""
    try:
        inspect.signature(thing)
    except (ValueError, TypeError):
        return False
    return True


def constant(text: str, name: str) -> str:
    """A constant as it stands in the source, with the comment beside it; a long one is cut."""
    lines = text.splitlines()
    for node in ast.parse(text).body:
        if name in assigned(node):
            shown = lines[node.lineno - 1:node.end_lineno]
            shown = shown[:6] + ["..."] if len(shown) > 6 else shown
            return "```python\n" + "\n".join(shown) + "\n```"
    return "A value that is made when the module is imported."


# ---- Processors, beside nbdev's own

class Front(Processor):
    """Title and promise of the first cell as the page's title and description; what comes after them stays."""

    def begin(self) -> None:
        first = next((cell for cell in self.nb.cells if cell.cell_type == "markdown"), None)
        if first is None or not (match := re.match(r"\s*# (.+)\n?", first.source)):
            raise ValueError(f"{self.nb.path_}: the first text cell must begin with a title, '# ...'.")
        rest = first.source[match.end():].lstrip("\n")
        front = {"title": match[1].strip()}
        if promise := re.match(r"((?:^>.*\n?)+)", rest, re.M):
            front["description"] = " ".join(line.lstrip("> ").strip() for line in promise[1].splitlines()).strip()
            rest = rest[promise.end():].lstrip("\n")
        first.source = rest
        if self.nb.path_ == NBS / "index.ipynb":  # what the page shows stands beside each other, and needs the width
            front["toc"] = False
        text = yaml.safe_dump(front, allow_unicode=True, width=1000, sort_keys=False)
        self.nb.cells.insert(0, mk_cell(f"---\n{text}---", "raw"))


class hide_readme_only(Processor):
    """Leave out what README.md has from the home page's notebook, and the page has not."""

    def begin(self) -> None:
        for cell in [cell for cell in self.nb.cells if cell.cell_type == "markdown" and cell.source.startswith(ONLY)]:
            self.nb.cells.remove(cell)


class hide_default_exp(Processor):
    """Leave out the cell that names the module."""

    def cell(self, cell) -> None:
        if cell.cell_type == "code" and "default_exp" in cell.directives_:
            cell.source = None


def exported(cell) -> bool:
    """Is this cell part of the library, for all (`#| export`) or for its other modules (`#| exporti`)?"""
    return cell.cell_type == "code" and bool({"export", "exporti"} & cell.directives_.keys())


class show_docs(Processor):
    """On the page of a module that is no lesson: its reference in place of the exported source, as nbdev does."""

    def begin(self) -> None:
        module = module_of(self.nb.path_)
        names = set(documented_names(module)) if module else set()
        for cell in filter(exported, list(self.nb.cells)):
            entries = [mk_cell(entry(module, name), "markdown") for name in defined(cell.source) if name in names]
            for made in entries:
                made.directives_ = {}
            place = self.nb.cells.index(cell)
            self.nb.cells[place + 1:place + 1] = entries


class say_module(Processor):
    """At the end of a library page's first text: which module it is, and where its names are imported from."""

    def begin(self) -> None:
        module = module_of(self.nb.path_)
        if module is None:
            return
        words = f"*This page documents the module `course_lib.{module}`.*"
        if public_names(module):
            words = words[:-2] + f"; to use it: `from course_lib.{import_place(module)} import ...`.*"
        first = next(cell for cell in self.nb.cells if cell.cell_type == "markdown")
        first.source = f"{first.source.rstrip()}\n\n{words}\n"


class say_reference(Processor):
    """In a lesson: below a cell that is exported, a line with links to the reference of what it defines."""

    def begin(self) -> None:
        module = module_of(self.nb.path_)
        names = set(public_names(module)) if module else set()
        for cell in [cell for cell in self.nb.cells if cell.cell_type == "code" and "export" in cell.directives_]:
            found = [name for name in defined(cell.source) if name in names]
            if not found and not only_imports(cell.source):
                continue
            if not found:
                cell.source = '#| code-fold: true\n#| code-summary: "Imports"\n' + cell.source
                continue
            links = ", ".join(f"[`{name}`]({references()[f'course_lib.{module}.{name}']})" for name in found)
            self.add_after(cell, f"::: {{.exported}}\nIn the library: {links}\n:::")

    def add_after(self, cell, text: str) -> None:
        made = mk_cell(text, "markdown")
        made.directives_ = {}
        self.nb.cells.insert(self.nb.cells.index(cell) + 1, made)


def defined(text: str) -> list[str]:
    """The names that a cell's top level defines."""
    names = []
    for node in ast.parse(text).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.append(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            names += assigned(node)
    return names


def assigned(node: ast.AST) -> list[str]:
    """The names that a statement gives a value, also several at once."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    each = [one for target in targets for one in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return [one.id for one in each if isinstance(one, ast.Name)]


def only_imports(text: str) -> bool:
    """Is there nothing in this cell but imports?"""
    return all(isinstance(node, (ast.Import, ast.ImportFrom, ast.If)) for node in ast.parse(text).body)


class exec_fresh(exec_show_docs):
    """Run the cells marked `#| exec_doc`, nbdev's mark for a cell whose output is made with the page."""

    def begin(self) -> None:
        self.nb.has_docs_ = any("exec_doc" in cell.directives_ for cell in self.nb.cells)
        if self.nb.has_docs_:
            super().begin()

    def __call__(self, cell) -> None:
        if self.nb.has_docs_ and "exec_doc" in cell.directives_:
            self.k.cell(cell)
            if self.k.exc:
                raise RuntimeError(f"{self.nb.path_}: a cell marked exec_doc failed:\n{cell.source}") from self.k.exc

    def end(self) -> None:
        """No widget is shown on a static page."""


class home_pictures(Processor):
    """On the home page: cards and a question that answers, in place of the tables and lists of its notebook."""

    def cell(self, cell) -> None:
        if self.nb.path_ == NBS / "index.ipynb" and cell.cell_type == "code":
            made = [make() for call, make in PAGE.items() if f"Markdown({call})" in cell.source]
            cell.outputs = [mk_output(text, "text/html") for text in made]


class fresh_cost(Processor):
    """The sentence on a lesson's time and hardware comes from the recorded run of today, not from a saved output."""

    def cell(self, cell) -> None:
        from course_lib.teach import lesson_cost

        match = re.search(r"^Markdown\(lesson_cost\(\"(\d\d)\"\)\)\s*\Z", cell.source, re.M)
        if cell.cell_type == "code" and match:
            cell.outputs = [mk_output(lesson_cost(match[1]))]


def mk_output(text: str, kind: str = "text/markdown"):
    """A saved output that is Markdown, or of another kind."""
    from fastcore.xtras import dict2obj

    return dict2obj({"data": {kind: text}, "metadata": {}, "output_type": "display_data"})


def joined(value) -> str:
    """Text that a notebook file may keep as a list of lines."""
    return "".join(value) if isinstance(value, (list, tuple)) or hasattr(value, "attrgot") else value


class finish(Processor):
    """Links to the reference and formulas, in the prose and in outputs that are Markdown."""

    def __init__(self, nb):
        super().__init__(nb)
        here = Path(nb.path_).relative_to(NBS)
        up, module = "../" * (len(here.parts) - 1), module_of(nb.path_)
        self.links = Links(up, skip=here.as_posix())
        if module and reference_page(module) != here.as_posix():  # a name that two modules have means this one's
            own = f"course_lib.{module}."
            self.links.syms |= {name.removeprefix(own): up + page for name, page in references().items()
                                if name.startswith(own)}

    def cell(self, cell) -> None:
        if cell.cell_type == "markdown":
            cell.source = self.finished(cell.source)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "text/markdown" in data:
                data["text/markdown"] = self.finished(joined(data["text/markdown"]))

    def finished(self, text: str) -> str:
        """Recorded files and lists lie beside the pages: `results/`, `splits/`, one folder nearer than course_lib/."""
        return re.sub(r"\]\(\.\./((?:\.\./)*)course_lib/(?:data/)?(results|splits)/", r"](\1\2/",
                      mathml(self.links.linkify(text) or ""))


# ---- Figures and widgets

def described() -> dict:
    """The words for each figure: lesson number, then cell id."""
    return tomllib.loads((ROOT / "website" / "figures.toml").read_text(encoding="utf-8"))


def has_picture(cell, *others: str) -> bool:
    """Has this cell a saved picture, or an output of one of the `others`?"""
    return any(kind.startswith(("image/", *others)) for output in cell.get("outputs", [])
               for kind in output.get("data", {}))


class alt_texts(Processor):
    """Every figure has words: those of figures.toml, else the section that it stands in."""

    def begin(self) -> None:
        words, heading = described().get(Path(self.nb.path_).name[:2], {}), "the beginning"
        for cell in self.nb.cells:
            if cell.cell_type == "markdown":
                heading = (re.findall(r"^#+ (.+)$", cell.source or "", re.M) or [heading])[-1]
            elif cell.cell_type == "code" and has_picture(cell) and "fig-alt" not in cell.source.split("\n")[0]:
                text = words.get(cell.id) or (f"A figure of the section “{heading}”; the text beside it says what it "
                                              "shows.")
                cell.source = f"#| fig-alt: {json.dumps(text, ensure_ascii=False)}\n{cell.source}"


@cache
def widget_makers() -> dict[str, str]:
    """Names that make or show a widget, each with a sentence on what the widget does."""
    things = {name: getattr(loaded(module), name) for module in module_notebooks()
              for name in defined(module_source(module))}
    things = {name: thing for name, thing in things.items() if inspect.isfunction(thing) or isinstance(thing, type)}
    sources = {name: inspect.getsource(thing) for name, thing in things.items()}
    makes = {name: inspect.getdoc(things[name]).split("\n")[0] for name, text in sources.items()
             if "import ipywidgets" in text and inspect.getdoc(things[name])}
    shows = {name: says for name, thing in things.items() for maker, says in makes.items()
             if name != maker and inspect.isfunction(thing)
             and (re.search(rf"\b{maker}\(", sources[name]) or thing.__annotations__.get("return") == maker)}
    return makes | shows


class say_widgets(Processor):
    """Above a widget: what a running kernel would add to the picture that the page shows."""

    def begin(self) -> None:
        if not widget_makers():
            return
        calls = re.compile(rf"^({'|'.join(map(re.escape, widget_makers()))})\(", re.M)
        for cell in [cell for cell in self.nb.cells if cell.cell_type == "code" and has_picture(cell, "text/html")]:
            if "export" not in cell.directives_ and (match := calls.search(cell.source)):
                says = f"In JupyterLab the next cell gives more: {widget_makers()[match[1]]}"
                made = mk_cell("::: {.callout-note}\n## Live with a running kernel\n"
                               f"On this page you see what was saved. {says}\n:::", "markdown")
                made.directives_ = {}
                self.nb.cells.insert(self.nb.cells.index(cell), made)


# ---- What stands at the top of a lesson

class lesson_top(Processor):
    """Time, hardware, and the links to take the notebook away."""

    def begin(self) -> None:
        from course_lib.teach import lesson_cost

        path = Path(self.nb.path_)
        # data-href becomes href when the page is built: Quarto would warn of a link to a notebook that is no page
        buttons = [f'<a class="lesson-button" data-href="notebooks/{path.name}" download>Download the notebook</a>']
        buttons += [f'<a class="lesson-button" href="{address}">Open in {service}</a>'
                    for service, address in elsewhere(path.name).items()]
        if slides := deck_address(path.name[:2]):
            buttons.append(f'<a class="lesson-button" data-href="{slides}">Slides</a>')
        cost = lesson_cost(path.name[:2])
        cost += " No GPU is needed." if "CPU" in cost and "GPU" not in cost else ""
        text = (f"::: {{.lesson-facts}}\n**Time and hardware.** {cost}\n\n"
                "```{=html}\n<p class=\"lesson-buttons\">" + " ".join(buttons) + "</p>\n```\n:::")
        made = mk_cell(text, "markdown")
        made.directives_ = {}
        self.nb.cells.insert(1, made)


class terms(Processor):
    """Each glossary term linked at first use."""

    def begin(self) -> None:
        link_terms(self.nb.cells)


class glossary_language(Processor):
    """The terms stand below their letters; the Chinese words are marked as Chinese, for screen readers and fonts."""

    def begin(self) -> None:
        self.letter = ""

    def letter_above(self, match: re.Match) -> str:
        """A term's heading, with a heading for its letter above the first one."""
        before, self.letter = self.letter, match[1].upper()
        return match[0] if before == self.letter else f"## {self.letter}\n\n{match[0]}"

    def cell(self, cell) -> None:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"^### (\w)", self.letter_above, cell.source, flags=re.M)
            cell.source = re.sub(r"^([\u3400-\u9fff（）]+)\.", r'[\1]{lang="zh-Hans"}.', cell.source, flags=re.M)


COMMON = [populate_language, exec_fresh, home_pictures, strip_ansi, hide_line, filter_stream_, rm_header_dash,
          hide_default_exp, hide_readme_only, clean_magics, hide_, strip_hidden_metadata]


def processors(path: Path) -> list:
    """nbdev's processors and the site's, in order, for one notebook."""
    if LESSON.fullmatch(path.name):
        return [*COMMON[:1], fresh_cost, answer_back, say_widgets, explore, say_reference, *COMMON[1:], alt_texts,
                Front, terms, lesson_top, finish]
    if path.name == "glossary.ipynb":
        return [*COMMON, glossary_language, Front, finish]
    home = [due_box] if path.name == "index.ipynb" else []
    return [*COMMON[:1], show_docs, *COMMON[1:], rm_export, alt_texts, say_module, Front, *home, finish]


def process(path: Path, target: Path) -> None:
    """One notebook of nbs/, processed, written to `target`."""
    os.environ["IN_TEST"] = "1"  # as nbdev does: nothing is exported from here
    notebook = read_nb(path)
    notebook.path_ = path
    NBProcessor(nb=notebook, procs=processors(path), rm_directives="quarto").process()
    for cell in notebook.cells:
        for private in ("directives_", "idx_", "has_sd"):
            cell.pop(private, None)
    write_page(nb2dict(notebook), target)


def write_page(notebook: dict, target: Path) -> None:
    """A staged page, as both builders read it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(portable(notebook), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


# ---- Pages that no notebook holds

def api_page(module: str) -> dict:
    """The reference page of a module that a lesson is the source of."""
    path = module_notebooks()[module]
    title = re.search(r"^# (.+)$", "\n".join(source(c) for c in json.loads(path.read_text("utf-8"))["cells"]), re.M)[1]
    front = yaml.safe_dump({"title": f"course_lib.{module}",
                            "description": f"The module that is built in lesson {title}."},
                           allow_unicode=True, width=1000, sort_keys=False)
    links = Links("../", skip=f"api/{module}.ipynb")
    texts = [f"Built, explained and tested in [{title}](../{path.name}). To use it: "
             f"`from course_lib.{import_place(module)} import ...`"]
    texts.append(names_table(module))
    names = readers_order(module, public_names(module))
    texts += [links.linkify(entry(module, name, 2)) for name in names]
    cells = [{"cell_type": "raw", "metadata": {}, "source": f"---\n{front}---"}]
    cells += [{"cell_type": "markdown", "metadata": {}, "source": text} for text in texts]
    return {"cells": cells, "metadata": {"kernelspec": {"display_name": "python3", "language": "python",
                                                        "name": "python3"}}, "nbformat": 4, "nbformat_minor": 4}


def without_folder(value):
    """Settings whose paths do not begin with `nbs/`."""
    if isinstance(value, dict):
        return {key: without_folder(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_folder(one) for one in value]
    return value.removeprefix("nbs/") if isinstance(value, str) else value


def reference_sections() -> list:
    """The reference in the sidebar: a section for each thing that a reader does."""
    return [{"section": group.title, "contents": list(map(reference_page, group.modules))}
            for group in groups(module_notebooks())]


QUARTO = {  # what only Quarto reads, which smalldocs does by itself; smalldocs stops at options that it ignores
    "respect-user-color-scheme": True,
    "tbl-colwidths": False,  # else columns of equal width, as soon as a row is longer than a line
    "html-table-processing": "none",
}


def stage_config(folder: Path, builder: str) -> None:
    """The root `_quarto.yml` for the staged pages: paths without `nbs/`, and the library's pages after api.ipynb."""
    config = without_folder(yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8")))
    repository, site = addresses()
    website = config["website"]
    if repository:
        website |= {"repo-url": repository, "repo-subdir": "nbs", "repo-actions": ["source", "issue"]}
    if site:
        website["site-url"] = site
    for section in website["sidebar"]["contents"]:
        if isinstance(section, dict) and "pages/api.ipynb" in section.get("contents", ()):
            section["contents"] += reference_sections()
    if builder == "quarto":
        config["format"]["html"] |= QUARTO
        config["project"]["render"].append(f"{FOLDER}/*.qmd")
    (folder / "_quarto.yml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")


# ---- Old addresses

def redirects() -> dict[str, str]:
    """Where each old address leads now, as redirects.toml says it: from `api/data.html` to `api/data.items.html`.

    A target is a lesson's number (the reference of its module), a module, or a page. What has the same address as
    before needs no redirect. Raises: `ValueError` for a target that there is not.
    """
    found, lessons = {}, lesson_paths()
    for old, target in tomllib.loads((ROOT / "website" / "redirects.toml").read_text(encoding="utf-8")).items():
        if target in lessons:
            page = reference_page(module_of(lessons[target]))
        elif target in module_notebooks():
            page = reference_page(target)
        elif (NBS / f"{target}.ipynb").is_file():
            page = f"{target}.ipynb"
        else:
            raise ValueError(f"website/redirects.toml sends {old} to {target!r}, which is no lesson's number, no "
                             "module and no page. Say where it is now.")
        if (new := page.replace(".ipynb", ".html")) != old:
            found[old] = new
    return found


def redirect_page(old: str, new: str) -> str:
    """A small page at an old address: it leads on by itself, with a script to the same place on the page."""
    target = os.path.relpath(new, Path(old).parent).replace(os.sep, "/")
    return textwrap.dedent(f"""\
        <!doctype html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <title>This page has moved</title>
        <link rel="canonical" href="{target}">
        <script>location.replace("{target}" + location.hash)</script>
        <meta http-equiv="refresh" content="0; url={target}">
        </head>
        <body><main><p>This page has moved: <a href="{target}">{new}</a></p></main></body>
        </html>
        """)


def take_away(path: Path, target: Path) -> None:
    """A lesson to download: with a first cell for Colab and links to the site, where their addresses are set."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    repository, site = addresses()
    if site:
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = re.sub(r"\]\(([\w/.]+)\.ipynb", rf"]({site}/\1.html", source(cell))
    if repository:
        notebook["cells"].insert(0, {"cell_type": "code", "execution_count": None, "id": "colab-install",
                                     "metadata": {}, "outputs": [], "source": colab_cell(repository)})
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def stage(folder: Path, builder: str = "smalldocs") -> None:
    """Write all pages, their settings and their files to `folder`, for one of the two builders."""
    stage_pages(folder)
    stage_for(folder, builder)


def stage_for(folder: Path, builder: str) -> None:
    """What only one of the two builders reads: its settings, and for Quarto the slides."""
    stage_config(folder, builder)
    if builder == "quarto":
        stage_decks(folder)


def stage_pages(folder: Path) -> None:
    """Write all pages and their files to `folder`: the same ones for both builders."""
    os.chdir(ROOT)  # nbdev looks for its settings from here
    nbdev.processors.get_config = cache(get_config)  # read once, not once a cell: it is half of the time otherwise
    redirects()  # a module that is no longer there is said at once
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in page_notebooks():
        process(path, folder / path.relative_to(NBS))
    for module, path in module_notebooks().items():
        if LESSON.fullmatch(path.name):
            write_page(api_page(module), folder / reference_page(module))
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    changes = re.sub(r"^# (.+)\n", r'---\ntitle: "\1"\n---\n', changes, count=1)
    (folder / "CHANGELOG.md").write_text(named_fences(changes), encoding="utf-8")
    shutil.copytree(NBS / "images", folder / "images")
    write_pictures(folder / "images" / "home")
    shutil.copytree(ROOT / "course_lib" / "data" / "splits", folder / "splits")
    (folder / "results").mkdir()
    for record in filter(Path.is_file, sorted(RECORDS.glob("*.json*"))):  # beside them, a folder while one is written
        shutil.copy(record, folder / "results" / record.name)
    (folder / "website").mkdir()
    for name in ("styles.css", "favicon.svg"):
        shutil.copy(ROOT / "website" / name, folder / "website" / name)
    stage_static(folder)
    stage_scripts(folder)
    stage_network(folder)
