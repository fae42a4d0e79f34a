"""The order of the reference: by what a reader does, as reference.toml says it."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

try:
    import tomllib
except ImportError:  # Python 3.10; nbdev brings this one
    import tomli as tomllib


@dataclass
class Group:
    """A part of the reference: what a reader does, and the modules that help."""

    title: str
    says: str
    modules: list[str]


@cache
def order() -> dict:
    """The file reference.toml."""
    return tomllib.loads(Path(__file__).with_name("reference.toml").read_text(encoding="utf-8"))


def groups(modules: Iterable[str]) -> list[Group]:
    """Each module in one group, in the order of reference.toml; what is new joins by itself, in the last group.

    Raises: `ValueError` for a name in reference.toml that there is not.
    """
    left = sorted(modules)
    made = []
    for group in order()["group"]:
        found = []
        for name in group["modules"]:
            taken = [module for module in left if module == name or module.startswith(f"{name}.")]
            if not taken:
                raise ValueError(f"website/reference.toml names {name!r}, which is no module or package that is left.")
            found += taken
            left = [module for module in left if module not in taken]
        made.append(Group(group["title"], group["says"], found))
    made[-1].modules += left
    return [group for group in made if group.modules]


def readers_order(module: str, names: list[str]) -> list[str]:
    """The names of a page: those that a reader comes for, then the others as their source has them."""
    first = order()["first"].get(module, [])
    if unknown := set(first) - set(names):
        raise ValueError(f"website/reference.toml puts {sorted(unknown)} first: not in course_lib.{module}.")
    return [*first, *(name for name in names if name not in first)]
