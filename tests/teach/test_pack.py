"""What `course pack` writes for a class: complete, runnable, without solutions where there should be none."""

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import course_lib.teach.grading as grading
from course_lib.app.cli import main
from course_lib.app.pack import heading_places, pack_course
from course_lib.teach.exercise import function_source
from course_lib.teach.grading import grade
from course_lib.teach.pack import exam_cells, nbgrader_notebook
from course_lib.teach.practice import exam_tasks, exercise_lessons, load_exercises

pytestmark = pytest.mark.slow

NBS = Path(__file__).resolve().parents[2] / "nbs"
sys.path.insert(0, str(NBS.parent / "website"))


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack") / "out"
    return folder, pack_course(NBS, folder)


def source(path: Path) -> str:
    return "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"])


def parts(exercise) -> list[str]:
    return re.findall(r"### BEGIN SOLUTION\n(.*?)\n *### END SOLUTION", function_source(exercise.answer), re.S)


def test_every_notebook_is_one_and_is_where_it_should_be(pack):
    folder, written = pack
    for lesson in exercise_lessons():
        names = {path.relative_to(folder).parts[0] for path in written if lesson in path.name}
        assert names == {"students", "solutions", "nbgrader"} | ({"exam"} if exam_tasks(lesson) else set())
    assert (folder / "students" / "00_first_classifier.ipynb") in written
    for path in written:
        if path.suffix == ".ipynb":
            nbformat.validate(nbformat.read(path, as_version=4))


def test_solutions_are_in_the_solutions_and_nowhere_else_that_students_see(pack):
    folder, written = pack
    for lesson in exercise_lessons():
        texts = {kind: "".join(source(path) for path in written if path.parent.name == kind and lesson in path.name)
                 for kind in ("students", "solutions", "exam")}
        for exercise in [*load_exercises(lesson), *exam_tasks(lesson)]:
            for part in parts(exercise):
                assert part in texts["solutions"]
                assert part not in texts["students"] and part not in texts["exam"], exercise.id
        assert "solution(" not in texts["exam"] and "hint(" not in texts["exam"]


def test_the_exam_has_new_tasks_and_is_checked_on_the_examples_of_its_seed():
    for lesson in filter(exam_tasks, exercise_lessons()):
        text = "".join("".join(cell["source"]) for cell in exam_cells(lesson, 731))
        assert text.count("seed=731)") == len(exam_tasks(lesson)) >= 2
        assert not [exercise.id for exercise in load_exercises(lesson) if exercise.answer.__name__ + "(" in text]


def links_of(path: Path) -> list[str]:
    """What the Markdown of a notebook or a page links to."""
    if path.suffix == ".ipynb":
        cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
                 if cell["cell_type"] == "markdown"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells)
    else:
        text = path.read_text(encoding="utf-8")
    text = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.S)
    return re.findall(r"\]\(([^)\s]+)", text) + re.findall(r"(?:href|src)=[\"']([^\"']+)", text)


def test_no_link_of_a_pack_is_dead(pack, tmp_path):
    small = pack_course(NBS, tmp_path / "small", ["04", "06"])
    seen = 0
    for path in [*pack[1], *small]:
        for link in links_of(path) if path.suffix in (".ipynb", ".md") else ():
            name, _, place = link.partition("#")
            if "://" in link:
                continue
            seen, target = seen + 1, path.parent / name if name else path
            assert target.is_file(), f"{path}: {link}"
            known = heading_places(json.loads(target.read_text(encoding="utf-8"))) if place else {}
            assert not place or place in known.values(), f"{path}: {link}"
    assert seen > 300


def test_licences_and_a_readme_are_inside_and_the_pictures_can_be_left_out(pack, tmp_path):
    folder, _ = pack
    assert "Apache License" in (folder / "students" / "LICENSE").read_text(encoding="utf-8")
    said = (folder / "LICENCES.md").read_text(encoding="utf-8")
    assert "CC BY-NC-SA 4.0" in said and "zae-bayern" in said and "EfficientNet-Lite" in said
    assert "CC BY-NC-SA 4.0" in source(folder / "students" / "pages" / "licences.ipynb")
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert "may not be used commercially" in readme and "course grade" in readme
    outputs = lambda paths: sum(len(cell.get("outputs", ())) for path in paths if path.suffix == ".ipynb"
                                for cell in json.loads(path.read_text(encoding="utf-8"))["cells"])
    assert outputs(pack[1]) > 100
    assert main(["pack", "04", "--no-pictures", "--output", str(tmp_path / "plain")]) == 0
    plain = [path for path in (tmp_path / "plain").rglob("*") if path.is_file()]
    assert len(plain) > 8 and outputs(plain) == 0 and not any(b"image/png" in path.read_bytes() for path in plain)
    assert "holds no outputs" in (tmp_path / "plain" / "README.md").read_text(encoding="utf-8")


def test_times_add_up_and_misconceptions_take_a_page_a_lesson(pack):
    folder, _ = pack
    rows = [line.strip("| ").split(" | ") for line in (folder / "timing.md").read_text(encoding="utf-8").splitlines()
            if re.match(r"\| (\d\d|all) ", line)]
    assert [row[0] for row in rows] == ["00", *exercise_lessons(), "all"]
    for row in rows:
        assert float(row[1]) + float(row[2]) == float(row[3])
    for column in (1, 2, 3, 5):
        assert sum(float(row[column]) for row in rows[:-1]) == float(rows[-1][column])
    assert [int(row[2]) for row in rows[1:-1]] == [sum(exercise.minutes for exercise in load_exercises(lesson))
                                                   for lesson in exercise_lessons()]
    assert all(int(row[5]) == sum(task.minutes for task in exam_tasks(row[0])) for row in rows[:-1])
    pages = (folder / "misconceptions.md").read_text(encoding="utf-8").split("## Lesson ")[1:]
    assert len(pages) == len(exercise_lessons()) and max(len(page.splitlines()) for page in pages) <= 55
    assert all(len(line) <= 100 for page in pages for line in page.splitlines())
    assert all(exercise.id in page for lesson, page in zip(exercise_lessons(), pages, strict=True)
               for exercise in load_exercises(lesson))


@pytest.mark.parametrize("lesson", exercise_lessons())
def test_the_solution_cells_of_an_assignment_pass_their_checks_and_the_released_ones_do_not(lesson, monkeypatch):
    """In this process, for speed; the processes of the check are tried in test_grading.py and by nbgrader below."""
    ran = functools.cache(grading.run_notebook)  # once for all answers of a notebook
    monkeypatch.setattr(grading, "run_notebook", lambda cells: ran(tuple(cells)))
    sources, released, asked = [], [], []
    for cell in nbgrader_notebook(lesson, load_exercises(lesson), 7)["cells"]:
        code = "".join(cell["source"])
        if cell["metadata"]["nbgrader"]["grade"]:
            assert 'ask["seed"] = 7\n### END HIDDEN TESTS' in code
            asked += re.findall('"id": "(.*?)", "seed": 0', code)
        elif cell["cell_type"] == "code":
            sources.append(code)
            released.append(re.sub(r"( *)### BEGIN SOLUTION.*?### END SOLUTION", r"\1raise NotImplementedError()", code,
                                   flags=re.S))
    assert asked == [exercise.id for exercise in load_exercises(lesson)]
    for id in asked:
        assert grade(id, sources, 7).passed, id
        verdict = grade(id, released, 7)
        assert not verdict.passed and "NotImplementedError" in verdict.message


def nbgrader(folder, *words):
    """nbgrader as a teacher runs it, in the folder of the pack."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    activated = {"JUPYTER_PREFER_ENV_PATH": "1", "PATH": path}
    done = subprocess.run([sys.executable, "-m", "nbgrader", *words], cwd=folder, capture_output=True, text=True,
                          env={**os.environ, **activated})
    return done.returncode, done.stdout + done.stderr


def test_nbgrader_validates_the_source_and_releases_it_without_solutions(tmp_path):
    pytest.importorskip("nbgrader", reason="nbgrader needs Python 3.11")
    folder = tmp_path / "pack"
    pack_course(NBS, folder, ["04"])
    code, said = nbgrader(folder / "nbgrader", "validate", "source/lesson04/lesson04.ipynb")
    assert code == 0 and "Success! Your notebook passes all the tests." in said, said
    code, said = nbgrader(folder / "nbgrader", "generate_assignment", "lesson04")
    released = folder / "nbgrader" / "release" / "lesson04" / "lesson04.ipynb"
    assert code == 0 and released.is_file(), said
    text = source(released)
    assert "HIDDEN" not in text and text.count('"seed": 0') == len(load_exercises("04"))
    for exercise in load_exercises("04"):
        assert not any(part in text for part in parts(exercise)), exercise.id


def test_the_command_writes_a_pack_and_refuses_a_folder_that_holds_anything(tmp_path, capsys):
    assert main(["pack", "04", "--output", str(tmp_path / "new"), "--exam-seed", "5"]) == 0
    assert "misconceptions.md" in capsys.readouterr().out
    assert "equal *amounts*" in (tmp_path / "new" / "misconceptions.md").read_text(encoding="utf-8")
    assert main(["pack", "04", "--output", str(tmp_path / "new")]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert main(["pack", "66", "--output", str(tmp_path / "other")]) == 2 and not (tmp_path / "other").exists()


def test_the_lessons_are_up_to_date(tmp_path):
    from author import update_lessons

    for lesson in exercise_lessons():
        [path] = NBS.glob(f"{lesson}_*.ipynb")
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert update_lessons(tmp_path) == []
    [path] = tmp_path.glob("04_*.ipynb")
    path.write_text(path.read_text(encoding="utf-8").replace("The rates of a sweep", "Other words"), encoding="utf-8")
    assert update_lessons(tmp_path) == [path] and update_lessons(tmp_path) == []


def test_a_pack_does_not_say_whose_computer_it_was(tmp_path, monkeypatch):
    for name in ("HOME", "USERPROFILE", "USER", "LOGNAME", "USERNAME", "HOSTNAME", "COURSELIB_CANARY"):
        monkeypatch.setenv(name, str(tmp_path / "canary"))
    for path in pack_course(NBS, tmp_path / "out", ["04"]):
        text = path.read_text(encoding="utf-8")
        assert "canary" not in text and str(NBS.parent) not in text, path
