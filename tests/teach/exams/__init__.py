"""What students answer in an exam: right answers in other styles than ours, and plausible wrong ones."""

from collections.abc import Callable

RIGHT: list[tuple[str, Callable]] = []
WRONG: list[tuple[str, Callable, tuple[int, ...]]] = []


def right(id: str) -> Callable[[Callable], Callable]:
    """An answer that a fair teacher gives all points."""
    def note(answer: Callable) -> Callable:
        RIGHT.append((id, answer))
        return answer
    return note


def wrong(id: str, *holds: int) -> Callable[[Callable], Callable]:
    """A wrong answer, and which of the task's properties it has all the same, by their places; none: no points."""
    def note(answer: Callable) -> Callable:
        WRONG.append((id, answer, holds))
        return answer
    return note
