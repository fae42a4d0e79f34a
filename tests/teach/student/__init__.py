"""What students answer: right answers in another style than ours, and wrong ones with what the check must say."""

from collections.abc import Callable

RIGHT: list[tuple[str, Callable]] = []
WRONG: list[tuple[str, Callable, str]] = []


def right(id: str) -> Callable[[Callable], Callable]:
    """An answer that a fair teacher accepts."""
    def note(answer: Callable) -> Callable:
        RIGHT.append((id, answer))
        return answer
    return note


def wrong(id: str, says: str) -> Callable[[Callable], Callable]:
    """A wrong answer, and words that must stand in what the check prints."""
    def note(answer: Callable) -> Callable:
        WRONG.append((id, answer, says))
        return answer
    return note
