"""What `course pack` writes for a class: complete, runnable, without solutions where there should be none."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from course_lib.app.cli import main
from course_lib.teach.exercise import function_source
from course_lib.teach.grading import grade
from course_lib.teach.pack import exam_notebook, nbgrader_notebook, pack_course
from course_lib.teach.practice import exercise_lessons, find_exercise, load_exercises

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
        assert names == {"students", "solutions", "exam", "nbgrader"}
    for path in written:
        if path.suffix == ".ipynb":
            nbformat.validate(nbformat.read(path, as_version=4))


def test_solutions_are_in_the_solutions_and_nowhere_else_that_students_see(pack):
    folder, written = pack
    for lesson in exercise_lessons():
        texts = {kind: "".join(source(path) for path in written if path.parent.name == kind and lesson in path.name)
                 for kind in ("students", "solutions", "exam")}
        for exercise in load_exercises(lesson):
            for part in parts(exercise):
                assert part in texts["solutions"]
                assert part not in texts["students"] and part not in texts["exam"], exercise.id
        assert "solution(" not in texts["exam"] and "hint(" not in texts["exam"]


def test_the_exam_uses_other_examples():
    text = "".join("".join(cell["source"]) for cell in exam_notebook("04", 731)["cells"])
    assert text.count("seed=731)") == len(load_exercises("04"))
    exercise = find_exercise("04.lr_sweep")
    assert exercise.examples(731) != exercise.examples(0)


@pytest.mark.parametrize("lesson", exercise_lessons())
def test_the_solution_cells_of_an_assignment_pass_their_checks_and_the_released_ones_do_not(lesson):
    """In this process, for speed; the processes of the check are tried in test_grading.py and by nbgrader below."""
    sources, released, asked = [], [], []
    for cell in nbgrader_notebook(lesson, 7)["cells"]:
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
