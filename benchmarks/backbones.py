"""Run the long experiments of lesson 08, and keep every finished trial in benchmarks/results/.

    python benchmarks/backbones.py            both
    python benchmarks/backbones.py lighter    VGG-16 and its lighter versions, from scratch on elpv: lighter.jsonl
    python benchmarks/backbones.py depth      EfficientNet-Lite 0, 1, 2 by `course train`: depth.jsonl

What is measured is the lesson's own code: its cells are run up to the experiment, with measuring switched on. Trials
that are in the file are not run again. `depth` measures the pets too when COURSELIB_SAMPLE_PETS names a folder in the
layout of the Oxford-IIIT Pets. Hours on two cores.
"""

import json
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
LESSON = HERE.parent / "nbs" / "08_deeper_backbones.ipynb"
MARKS = {  # a piece of each cell that a question needs
    "lighter": ("settings = load_settings()", "def train_light", "light = run_experiment"),
    "depth": ("settings = load_settings()", "def train_light", "import split_items", "def train_depth"),
}


def cells(question: str) -> list[str]:
    """The code that the question needs; what is exported comes from the module instead."""
    sources = ["".join(cell["source"]) for cell in json.loads(LESSON.read_text(encoding="utf-8"))["cells"]
               if cell["cell_type"] == "code"]
    imports = next(source for source in sources if "from __future__" in source)
    own = [source for source in sources if not source.startswith("#|")]
    found = [imports, *(next(source for source in own if mark in source) for mark in MARKS[question])]
    if question == "depth":  # of the probes only the imports
        found[3] = found[3].split("\n\nimages = ")[0]
    return found


def main() -> None:
    questions = sys.argv[1:] or ["lighter", "depth"]
    if unknown := [question for question in questions if question not in MARKS]:
        sys.exit(f"{__doc__}\nUnknown: {', '.join(unknown)}")
    os.environ.update(COURSELIB_MEASURE="1", COURSE_PROFILE="laptop")
    os.chdir(LESSON.parent)
    for question in questions:
        names: dict = {"__name__": "__main__"}
        exec("from course_lib.backbones import *", names)
        for source in cells(question):
            exec(compile(source, str(LESSON), "exec"), names)
        print(names["experiment_table"](names["light" if question == "lighter" else "depth"]))


if __name__ == "__main__":
    main()
