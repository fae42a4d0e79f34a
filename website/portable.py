"""Staged pages that Quarto and smalldocs read alike, and that ask no other host for anything.

Quarto splits a notebook's text into lines only where the file holds a list of lines; it shows a widget rather than the
HTML beside it; and for each notebook with an output that is HTML or a widget it loads scripts from two other hosts
(`src/core/jupyter/widgets.ts` of quarto-cli; there is no option against it). So outputs that are HTML are written as
Markdown that holds HTML, which both builders pass through.
"""

import re

FENCE = re.compile(r"^(?P<indent>[ \t>]*)(?P<marks>`{3,}|~{3,})(?P<language>[^\n]*)$")
TAG = re.compile(r"(<(script|style|pre|code)\b.*?</\2>|<!--.*?-->|<[^>]+>)", re.S | re.I)


def text_of(value) -> str:
    """Text that a notebook file may keep as a list of lines."""
    return value if isinstance(value, str) else "".join(value)


def lines_of(value) -> list[str]:
    """Text as a notebook file keeps it."""
    return text_of(value).splitlines(keepends=True)


def named_fences(text: str) -> str:
    """Markdown whose code blocks all name a language: without one Quarto gives them no box and no button to copy."""
    lines, opened = text.split("\n"), ""
    for place, line in enumerate(lines):
        if not (match := FENCE.match(line)):
            continue
        if not opened:
            opened = match["marks"]
            lines[place] = line if match["language"].strip() else f"{line.rstrip()}default"
        elif match["marks"].startswith(opened) and not match["language"].strip():
            opened = ""
    return "\n".join(lines)


def code_in_text(page: str) -> str:
    """HTML whose text has `words` between backticks as code; tags, scripts and what is code already stay."""
    parts = TAG.split(page)  # text, then what is to stay and the name in it, then text again
    for place in range(0, len(parts), 3):
        parts[place] = re.sub(r"`([^`\n]+)`", r"<code>\1</code>", parts[place])
    return "".join(part or "" for place, part in enumerate(parts) if place % 3 != 2)


def raw_block(page: str) -> str:
    """HTML as Markdown that passes it through."""
    longest = max((len(run) for run in re.findall(r"`+", page)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{{=html}}\n{page.strip()}\n{fence}"


def merged_streams(outputs: list) -> list:
    """Outputs with what was printed in one go as one output: a training's log is one box, not one for each epoch."""
    merged: list = []
    for output in outputs:
        before = merged[-1] if merged else {}
        if output["output_type"] == "stream" == before.get("output_type") and output["name"] == before["name"]:
            before["text"] = text_of(before["text"]) + text_of(output["text"])
        else:
            merged.append(output)
    return merged


def portable_output(output: dict) -> None:
    """HTML as Markdown, no widget, and all text as lists of lines."""
    if "text" in output:
        output["text"] = lines_of(output["text"])
    data = output.get("data")
    if data is None:
        return
    if "text/html" in data:
        made = raw_block(code_in_text(text_of(data["text/html"])))
        data.clear()
        data["text/markdown"] = made
    for kind in list(data):
        if "widget" in kind or kind == "application/javascript":
            del data[kind]
        elif kind.startswith("text/"):
            data[kind] = lines_of(data[kind])


def portable(notebook: dict) -> dict:
    """The same notebook, changed so that both builders show all of it."""
    for cell in notebook["cells"]:
        text = text_of(cell["source"])
        cell["source"] = lines_of(named_fences(text) if cell["cell_type"] == "markdown" else text)
        if cell.get("outputs"):
            cell["outputs"] = merged_streams(cell["outputs"])
            for output in cell["outputs"]:
                portable_output(output)
                data = output.get("data", {})
                if "text/markdown" in data:
                    data["text/markdown"] = lines_of(named_fences(text_of(data["text/markdown"])))
    return notebook
