"""README.md is nbs/index.ipynb, written as Markdown: `make readme` writes it, and a test says when the two differ."""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "website")]
NOTE = "<!-- Made from nbs/index.ipynb by `make readme`: edit that notebook, not this file. -->"


def readme() -> str:
    """What README.md has to say: the home page's text, its tables from what is recorded, links from here."""
    from page_tables import lessons_table, peers_table

    tables = {"lessons_table()": lambda: lessons_table(ROOT / "nbs"), "peers_table()": peers_table}
    parts = []
    for cell in json.loads((ROOT / "nbs" / "index.ipynb").read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text.strip())
        elif made := [table().strip() for name, table in tables.items() if name in text]:
            parts += made
        else:
            raise ValueError(f"The README does not know what to do with this cell of index.ipynb:\n{text}")
    return NOTE + "\n\n" + re.sub(r"\]\((?=[\w/]+\.ipynb)", "](nbs/", "\n\n".join(parts)) + "\n"


if __name__ == "__main__":
    target = ROOT / "README.md"
    if "--check" in sys.argv:
        sys.exit(target.read_text(encoding="utf-8") != readme())
    target.write_text(readme(), encoding="utf-8")
