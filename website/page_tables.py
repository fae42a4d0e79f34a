"""Tables that only pages show, made from what is recorded: lessons, ways to teach them, the course beside its peers."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from course_lib.core.text import format_value
from course_lib.teach.practice import exam_tasks, find_exercise
from course_lib.teach.results import read_record, recorded_lessons
from course_lib.teach.runner import find_lessons, lesson_title

PEERS = ("fastai", "timm", "torchvision", "lightning")
PEER_QUESTIONS = {  # question -> what its ratios are called in the file, and in the table
    "import": {"beyond torch": "importing, beyond PyTorch", "with torch": "importing, PyTorch included",
               "first step": "from starting Python to a first training step"},
    "size": {"megabytes": "size on disk, beyond PyTorch"},
    "pipeline": {"cold": "from files to batches, first pass", "warm": "from files to batches, later passes"},
    "finder": {"frozen": "learning-rate finder, body frozen", "unfrozen": "learning-rate finder, nothing frozen"},
    "frozen": {"first": "training a head, first epoch",
               "later": "training a head, later epochs: features kept, without augmentation, against passes with it"},
    "step": {"images/s": "training step, nothing frozen"},
    "tune": {"seconds": "fine-tuning to an error of 15 %"},
    "inference": {"images/s": "naming the files of a folder"},
}


def lesson_promise(notebook: dict) -> str:
    """The quoted sentence under a notebook's title."""
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown" and (match := re.search(r"^# .+\n+((?:> ?.*\n?)+)", text, re.M)):
            return " ".join(line.lstrip("> ").strip() for line in match[1].splitlines()).strip()
    return ""


def lessons_table(folder: str | Path | None = None) -> str:
    """The lessons as a Markdown table: title with a link, promise, the reader's time and the computer's."""
    recorded = recorded_lessons().get("lessons", {})
    lines = ["| lesson | what you will find | you | the computer |", "|---|---|---|---|"]
    for number, path in find_lessons(folder).items():
        notebook = json.loads(path.read_text(encoding="utf-8"))
        seconds, minutes = (recorded.get(number, {}).get(key) for key in ("seconds", "reading_minutes"))
        took = format_value(seconds, "seconds") if seconds else "not recorded yet"
        practice = recorded.get(number, {}).get("exercise_minutes")
        yours = f"about {minutes} min" if minutes else "not counted yet"
        yours += f", {practice} of them exercises" if minutes and practice else ""
        lines.append(f"| [{lesson_title(notebook)}]({path.name}) | {lesson_promise(notebook)} | {yours} | {took} |")
    return "\n".join(lines)


@dataclass(frozen=True)
class Meeting:
    """A part of a syllabus: lessons to read, the exercises of them, and what else there is, with its minutes."""

    when: str
    lessons: tuple[str, ...] = ()
    exercises: tuple[str, ...] | None = None  # their ids; None: all of the lessons'
    exam: tuple[str, ...] = ()  # lessons whose exam is written
    other: tuple[tuple[str, int], ...] = ()

    def minutes(self) -> tuple[int, int, int]:
        """For reading and running, for exercises, and for all else."""
        recorded = recorded_lessons().get("lessons", {})
        times = [(recorded[lesson]["reading_minutes"], recorded[lesson]["exercise_minutes"]) for lesson in self.lessons]
        doing = sum(practice for _, practice in times) if self.exercises is None else \
            sum(find_exercise(id).minutes for id in self.exercises)
        exam = sum(task.minutes for lesson in self.exam for task in exam_tasks(lesson))
        return sum(both - practice for both, practice in times), doing, exam + sum(more for _, more in self.other)

    def contents(self) -> str:
        """What is done, in words."""
        parts = [f"lesson{'s' * (len(self.lessons) > 1)} {', '.join(str(int(one)) for one in self.lessons)}"]
        parts += ["all exercises"] if self.exercises is None else \
            [f"exercise{'s' * (len(self.exercises) > 1)} {', '.join(f'`{id}`' for id in self.exercises)}"]
        exams = [f"exam tasks of lessons {', '.join(str(int(one)) for one in self.exam)}"] if self.exam else []
        kept = parts[:1] * bool(self.lessons) + parts[1:] * bool(self.lessons and self.exercises != ()) + exams
        return "; ".join([*kept, *(words for words, _ in self.other)])


TALK = ("questions", 15)
SYLLABI = {
    "a day": (
        Meeting("morning", ("00", "01"), ("01.to_network", "01.hold_out_groups"), other=(("break", 15),)),
        Meeting("to lunch", ("02",), ("02.loss_by_hand",), other=(TALK,)),
        Meeting("afternoon", ("03",), ("03.train_epoch",), other=(TALK, ("break", 15))),
        Meeting("to the end", ("06",), ("06.count_confusions", "06.class_numbers"),
                other=(("what would you decide?", 15),))),
    "a week": (
        Meeting("Monday", ("00", "01", "02"), other=(TALK,)),
        Meeting("Tuesday", ("03", "04"), other=(TALK, ("the learning rate of your own photographs", 30))),
        Meeting("Wednesday", ("05", "06"), other=(TALK, ("choose projects", 30))),
        Meeting("Thursday", ("07",), exam=("01", "02", "03", "04", "05", "06"), other=(TALK,)),
        Meeting("Friday", ("11",), (), other=(("projects", 190), ("each group shows one claim", 75)))),
    "twelve weeks": (
        Meeting("1", ("00", "01"), other=(TALK,)),
        *(Meeting(str(week), (f"0{week}",), other=(TALK,)) for week in range(2, 7)),
        Meeting("7", exam=("01", "02", "03")),
        Meeting("8", ("07",), other=(("choose projects", 30),)),
        Meeting("9", ("08",), other=(TALK,)),
        Meeting("10", ("11",), other=(TALK, ("one trick of lesson 10, which the class chooses", 30))),
        Meeting("11", exam=("04", "05", "06"), other=(("questions about projects", 15),)),
        Meeting("12", other=(("each group shows one claim", 90),))),
}


def syllabus_table(name: str) -> str:
    """A syllabus as a Markdown table, with its sum; the minutes come from what lessons and exercises state."""
    meetings = SYLLABI[name]
    lines = ["| when | what | reading | exercises | else | together |", "|---|---|---:|---:|---:|---:|"]
    times = [meeting.minutes() for meeting in meetings]
    lines += [f"| {meeting.when} | {meeting.contents()} | {' | '.join(map(str, minutes))} | {sum(minutes)} |"
              for meeting, minutes in zip(meetings, times, strict=True)]
    total: Sequence[int] = [sum(column) for column in zip(*times, strict=True)]
    return "\n".join([*lines, f"| all | | {' | '.join(map(str, total))} | {sum(total)} |"])


def format_ratio(ratio: float) -> str:
    """A ratio with as many digits as mean something: 0.86, 1.63, 2.6, 99."""
    return f"{ratio:,.{0 if ratio >= 10 else 1 if ratio >= 2 else 2}f}"


def _ratio_cell(ratio: float | None, least: float | None) -> str:
    if ratio is None:
        return "" if least is None else f"> {_ratio_cell(least, None)}"
    return f"**{format_ratio(ratio)}**" if ratio < 0.95 else format_ratio(ratio)


def peers_table() -> str:
    """As Markdown: how many times as good the course is as each peer, for each recorded question, memory last.

    **Bold** where the peer wins by more than 5 %; > where it had not reached the goal yet when it was stopped.
    """
    lines: list[tuple[str, dict, dict]] = []
    memory: list[tuple[str, dict, dict]] = []
    for question, names in PEER_QUESTIONS.items():
        record = read_record(f"peers_{question}.json")
        ratios, least = record.get("ratios", {}), record.get("at_least", {})
        lines += [(shown, ratios[name], least.get(name, {})) for name, shown in names.items()
                  if name in ratios]
        what = list(names.values())[0].split(",")[0]
        memory += [(f"peak memory: {what}", ratios["peak_gb"], {})] if "peak_gb" in ratios else []
    if not lines:
        return "Not measured yet: `make bench`."
    rows = [f"| {shown} | " + " | ".join(_ratio_cell(ratios.get(peer), least.get(peer)) for peer in PEERS) + " |"
            for shown, ratios, least in lines + memory]
    return "\n".join(["| times as good as | " + " | ".join(PEERS) + " |", "|---" * (1 + len(PEERS)) + "|", *rows])


def start_tables() -> list[str]:
    """As Markdown: what one waits for before anything happens, a table each: commands, a training, an installation."""
    record = read_record("start.json")
    seconds = {f"`{name}`": value for name, value in record.get("command", {}).get("seconds", {}).items()}
    seconds |= {f"a lesson: {name}": value for name, value in record.get("lesson", {}).get("seconds", {}).items()}
    if "lab" in record:
        seconds["`course lab`, until it answers"] = record["lab"]["seconds"]
    rows = [f"| {name} | {value:.2f} |" for name, value in seconds.items()]
    tables = ["\n".join(["| what | seconds |", "|---|---|", *rows])] if rows else []
    if training := record.get("training"):
        names = dict.fromkeys([*training["first"], *training["again"]])
        rows = [f"| {name} | {training['first'].get(name, 0):.1f} | {training['again'].get(name, 0):.1f} |"
                for name in names if name != "all"]
        rows.append(f"| **until the first step** | **{training['first']['all']:.1f}** | "
                    f"**{training['again']['all']:.1f}** |")
        tables.append("\n".join(["| `course train`, solar cells: seconds | the first time | again |", "|---|---|---|",
                                 *rows]))
    if installation := record.get("installation"):
        rows = []
        for name, found in installation.items():
            gpu = sum(found["largest"].get(package, 0) for package in ("nvidia", "torch", "triton"))
            rows.append(f"| {name} | {found['seconds from the network']:.0f} | {found['seconds from the cache']:.0f} | "
                        f"{found['megabytes']:,} | {gpu:,} |")
        tables.append("\n".join(["| installing for | seconds, from the network | again, from uv's cache | megabytes | "
                                 "of these PyTorch and NVIDIA's libraries |", "|---|---|---|---|---|", *rows]))
    return tables
