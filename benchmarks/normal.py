"""Run the lessons with five seeds, so that `typical_range` knows how much their figures differ by chance: normal.jsonl.

    python benchmarks/normal.py          every lesson
    python benchmarks/normal.py 03 05    these

In the laptop profile, in kernels of their own, as `course run` does it. What is recorded already is not run again, and
a run that was stopped goes on with the next lesson. The seeds lie far apart, because some lessons use several from the
one that they are given. Half an hour for each seed on two cores. Only fractions are kept (errors, accuracies): seconds
and images per second are a machine's, and no other machine is normal by them. So two of these may run side by side,
each with lessons of its own.
"""

import sys

from frame import RESULTS, ROOT, Rows, arguments, run_lesson

from course_lib.teach.results import NORMAL_FILE
from course_lib.teach.runner import find_lessons

SEEDS, PROFILE = (42, 1042, 2042, 3042, 4042), "laptop"
RECORD = RESULTS / NORMAL_FILE


def main() -> None:
    asked = arguments(__doc__, find_lessons(ROOT / "nbs"), noun="lesson", output=RECORD.parent,
                      kind=lambda word: word.zfill(2))
    kept = Rows(asked.output / RECORD.name, "lesson", "seed")
    for seed in SEEDS:
        for number in asked.wanted:
            if kept.done(number, seed):
                continue
            rows = run_lesson(number, PROFILE, seed)
            if any((row["seed"], row["profile"]) != (seed, PROFILE) for row in rows):
                sys.exit(f"Lesson {number} did not run with seed {seed} in the profile {PROFILE}.")
            kept.add(*(row for row in rows if row["unit"] == "fraction"))


if __name__ == "__main__":
    main()
