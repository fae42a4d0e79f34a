"""Run the lessons with five seeds, so that `is_normal` knows how much their figures differ by chance: normal.jsonl.

    python benchmarks/normal.py          every lesson
    python benchmarks/normal.py 03 05    these

In the laptop profile, in kernels of their own, as `course run` does it. What is recorded already is not run again, and
a run that was stopped goes on with the next lesson. The seeds lie far apart, because some lessons use several from the
one that they are given. Half an hour for each seed on two cores. Only fractions are kept (errors, accuracies): seconds
and images per second are a machine's, and no other machine is normal by them. So two of these may run side by side,
each with lessons of its own.
"""

import json
import sys
import tempfile
from pathlib import Path

from course_lib.settings import load_settings
from course_lib.teach.results import NORMAL_FILE, read_results
from course_lib.teach.runner import find_lessons, run_course

SEEDS = (42, 1042, 2042, 3042, 4042)
ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "benchmarks" / "results" / NORMAL_FILE


def main() -> None:
    lessons = find_lessons(ROOT / "nbs")
    wanted = [number.zfill(2) for number in sys.argv[1:]] or list(lessons)
    if unknown := [number for number in wanted if number not in lessons]:
        sys.exit(f"{__doc__}\nUnknown: {', '.join(unknown)}. There are: {', '.join(lessons)}.")
    for seed in SEEDS:
        settings = load_settings(profile="laptop", seed=seed)
        environ = {"COURSE_PROFILE": settings.profile_name, "COURSE_SEED": str(seed)}  # for the kernels
        for number in wanted:
            if any(row["lesson"] == number and row.get("seed") == seed for row in read_results(RECORD)):
                continue
            with tempfile.TemporaryDirectory() as folder:
                [lesson], run_folder = run_course(settings, [lessons[number]], folder, environ)
                rows = [row for row in read_results(run_folder / "results.jsonl") if row["lesson"] == number]
            if lesson.error:
                sys.exit(f"Lesson {number} with seed {seed} did not run to its end: {lesson.error}")
            if any((row["seed"], row["profile"]) != (seed, settings.profile_name) for row in rows):
                sys.exit(f"Lesson {number} did not run with seed {seed} in the profile {settings.profile_name}.")
            with RECORD.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows if row["unit"] == "fraction")


if __name__ == "__main__":
    main()
