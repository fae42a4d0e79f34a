"""Bring the exercise cells of the lessons up to date, after an exercise in nbs/practice/ has changed.

    python website/author.py          all lessons
    python website/author.py 04 07    these
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from course_lib.teach.pack import lesson_notebook, with_practice, write_notebook
from course_lib.teach.practice import exercise_lessons

NBS = Path(__file__).resolve().parents[1] / "nbs"


def update_lessons(folder: Path, lessons: Sequence[str] | None = None) -> list[Path]:
    """Make the exercise cells of the lessons in `folder` anew; gives the notebooks that changed."""
    changed = []
    for lesson in lessons or exercise_lessons():
        path = lesson_notebook(lesson, folder)
        notebook = json.loads(path.read_text(encoding="utf-8"))
        cells = with_practice(notebook["cells"], lesson)
        if cells != notebook["cells"]:
            changed.append(write_notebook({**notebook, "cells": cells}, path))
    return changed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lesson", nargs="*", help="lesson numbers such as 04 (default: all that have exercises)")
    try:
        changed = update_lessons(NBS, parser.parse_args().lesson)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    print("\n".join(f"{path} was brought up to date." for path in changed) or "The lessons are up to date.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
