"""Run the long experiments of lesson 08, and keep every finished trial in course_lib/results/.

    python benchmarks/backbones.py            both
    python benchmarks/backbones.py lighter    VGG-16 and its lighter versions, from scratch on elpv: lighter.jsonl
    python benchmarks/backbones.py depth      EfficientNet-Lite 0, 1, 2 by `course train`: depth.jsonl

What is measured is the lesson's own code: its cells are run up to the experiment, with measuring switched on. Trials
that are in the file are not run again. `depth` measures the pets too when COURSELIB_SAMPLE_PETS names a folder in the
layout of the Oxford-IIIT Pets. Hours on two cores.
"""

from frame import ROOT, arguments, run_cells

LESSON = ROOT / "nbs" / "08_deeper_backbones.ipynb"
NAMES = {  # what the cells define that a question needs; the last one is the experiment
    "lighter": ("settings", "train_light", "light"),
    "depth": ("settings", "train_light", "depth"),
}


def main() -> None:
    for question in arguments(__doc__, NAMES, output=None).wanted:
        names = run_cells(LESSON, NAMES[question])
        print(names["experiment_table"](names[NAMES[question][-1]]))


if __name__ == "__main__":
    main()
