"""How the checks judge the students' answers that are kept: `python tests/teach/measure_student.py [seeds] [lessons]`.

A right answer should pass, a wrong one be told its cause: a known mistake, what its numbers have to do with the right
ones, the line that raised, what sort of thing came back. A cause is wrong when it is not the one that is kept with the
answer.
"""

import importlib
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import student

from course_lib.teach.practice import exercise_lessons, find_exercise
from course_lib.teach.verdict import examine


def judged(place: tuple[str, int, int]) -> tuple[str, str, str, str]:
    """Right or wrong, the id, the name of the answer, and what the check made of it."""
    kind, number, seed = place
    id, answer, *says = (student.RIGHT if kind == "right" else student.WRONG)[number]
    verdict = examine(find_exercise(id), answer, seed)
    if verdict.passed or kind == "right":
        outcome = "accepted" if verdict.passed else f"refused: {verdict}"
    elif verdict.generic:
        outcome = "no cause named"
    elif says[0] in " ".join(str(verdict).split()):
        outcome = "cause named"
    else:
        outcome = f"wrong cause: {verdict}"
    return kind, id, answer.__name__, outcome


def main(seeds: int = 1, *lessons: str) -> None:
    chosen = lessons or exercise_lessons()
    for lesson in exercise_lessons():
        importlib.import_module(f"student.lesson{lesson}")
    places = [(kind, number, seed) for seed in range(seeds) for kind in ("right", "wrong")
              for number, (id, *_) in enumerate(student.RIGHT if kind == "right" else student.WRONG)
              if id[:2] in chosen]
    counts = Counter()
    with ProcessPoolExecutor(1) as pool:
        for kind, id, name, outcome in pool.map(judged, places):
            counts[kind, outcome.split(":")[0]] += 1
            if outcome not in ("cause named", "accepted" if kind == "right" else ""):
                print(kind, id, name, outcome, flush=True)
    for (kind, outcome), count in sorted(counts.items()):
        print(f"{kind}: {count} of {sum(n for (k, _), n in counts.items() if k == kind)} {outcome}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *sys.argv[2:])
