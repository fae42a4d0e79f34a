"""Run the recorded lessons again with the same seed, and hold every figure against the recorded one: again.json.

    python benchmarks/again.py                  every lesson
    python benchmarks/again.py 03 05            these
    python benchmarks/again.py --plain 03 05    these, as on a processor without wide instructions (x86 only)

On the machine that the record was made on, all figures must be the same to the last digit. A lesson with a figure that
is not is run a third time, and held against the second run: are those two the same, then the record is of another
machine, and the file says by how much that differs. Times are left out. What one thread in place of two makes of the
figures is in normal.jsonl, whose lessons ran on one thread each: that is taken from there, for the same seed. `--plain`
keeps PyTorch, oneDNN and MKL from using AVX, so that they add in another order, as on another machine.
"""

import json

from frame import RESULTS, Rows, arguments, run_lesson

from course_lib.core.device import describe_machine
from course_lib.core.files import json_object, write_text
from course_lib.teach.results import NORMAL_FILE

TIMES = ("seconds", "images/s", "times")
PLAIN = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}


def figures_of(rows: list[dict]) -> dict[str, float]:
    """Name -> value of all that is no time."""
    return {row["name"]: row["value"] for row in rows if row["unit"] not in TIMES}


def distance(first: dict[str, float], second: dict[str, float]) -> dict:
    """Of the figures that both have: how many there are, how many are the same, and the largest difference."""
    both = {name: abs(first[name] - second[name]) for name in first if name in second}
    return {"figures": len(both), "same": sum(not gap for gap in both.values()),
            "largest_difference": max(both.values(), default=0.0),
            "where": max(both, key=both.get) if any(both.values()) else ""}


def compare_runs(one: list[dict], other: list[dict]) -> dict:
    """How many figures there are, how many came out the same to the last digit, and those that did not."""
    first, second = figures_of(one), figures_of(other)
    if first.keys() != second.keys():
        raise ValueError(f"Other figures than in the record: {sorted(first.keys() ^ second.keys())}. Record again: "
                         "make notebooks.")
    differing = {name: [first[name], second[name]] for name in first if first[name] != second[name]}
    return {"figures": len(first), "same": len(first) - len(differing), "differing": differing}


def compare_lesson(recorded: list[dict], again: list[dict], one_thread: list[dict]) -> dict:
    """A second run beside the record, and the record beside a run on one thread."""
    return {**compare_runs(recorded, again), "one_thread": distance(figures_of(recorded), figures_of(one_thread))}


def repeat(number: str, profile: str, seed: int, recorded: list[dict], one_thread: list[dict]) -> dict:
    """Whether a lesson's figures come out the same on this machine; `elsewhere` if they do, but not as recorded."""
    again = run_lesson(number, profile, seed)
    found = compare_lesson(recorded, again, one_thread)
    if not found["differing"]:
        return found
    found |= compare_runs(again, run_lesson(number, profile, seed))
    if found["differing"]:
        return found  # not even the same here: that says nothing of another machine
    return {**found, "here": figures_of(again), "elsewhere": distance(figures_of(recorded), figures_of(again))}


def main() -> None:
    record = json.loads((RESULTS / "lessons.json").read_text(encoding="utf-8"))
    asked = arguments(__doc__, record["lessons"], noun="recorded lesson", output=RESULTS, flags={
        "plain": "keep PyTorch from using wide instructions"}, kind=lambda word: word.zfill(2))
    path = asked.output / "again.json"
    found = json_object(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for number in asked.wanted:
        rows = record["lessons"][number]["results"]
        seed = min(row["seed"] for row in rows)
        lesson = found.setdefault("lessons", {}).setdefault(number, {})
        if asked.plain:
            again = run_lesson(number, record["profile"], seed, PLAIN)
            lesson["plain"] = distance(lesson.get("here") or figures_of(rows), figures_of(again))
        else:
            single = [row for row in Rows(RESULTS / NORMAL_FILE, "lesson", "seed").read()
                      if (row["lesson"], row["seed"]) == (number, seed)]
            kept = {"plain": lesson["plain"]} if "plain" in lesson else {}
            lesson = found["lessons"][number] = repeat(number, record["profile"], seed, rows, single) | kept
        found |= {"seed": seed, "recorded_on": record["machine"], "machine": describe_machine(),
                  "lessons": dict(sorted(found["lessons"].items()))}
        write_text(path, json.dumps(found, indent=1) + "\n")
        print(number, lesson, flush=True)


if __name__ == "__main__":
    main()
