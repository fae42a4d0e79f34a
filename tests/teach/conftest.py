"""What tests of exercises share."""

import ctypes
from contextlib import suppress

import pytest

import course_lib.teach.verdict as checker


@pytest.fixture(autouse=True, scope="module")
def small_before_it_is_copied():
    """Answers run in copies of this process, which take the longer the more memory it keeps from other tests."""
    with suppress(OSError, AttributeError, TypeError):  # a C library without it
        ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture
def known_answers_run_once(monkeypatch, ran={}, run_answer=checker.run_answer):  # noqa: B006
    """The reference and the known mistakes do the same each time: they are run once for all other answers."""
    def run(exercise, answer, index, seed=0):
        if answer not in (exercise.answer, *(mistake.answer for mistake in exercise.mistakes)):
            return run_answer(exercise, answer, index, seed)
        if (key := (exercise.id, answer, index, seed)) not in ran:
            ran[key] = run_answer(exercise, answer, index, seed)
        return ran[key]

    monkeypatch.setattr(checker, "run_answer", run)
