"""What the package promises: every name has a home, and modules are loaded when one of their names is asked for."""
from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from course_lib import data


def test_every_name_is_where_the_table_says():
    for name, home in data._HOME_OF.items():
        assert getattr(data, name) is getattr(importlib.import_module(home), name), name
    assert set(data.__all__) <= set(data._HOME_OF) == set(dir(data))
    with pytest.raises(AttributeError, match="has no attribute 'get_item'"):
        data.get_item  # noqa: B018
    assert not hasattr(data, "loader")


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(data.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    assert sorted(alias.name for line in block.body for alias in line.names) == sorted(data._HOME_OF)


def test_the_names_of_students_are_public_where_they_live():
    for name in data.__all__:
        assert name in importlib.import_module(data._HOME_OF[name]).__all__, name


def test_importing_the_package_loads_none_of_its_modules():
    code = "import sys, course_lib.data; print([name for name in sys.modules if name.startswith('course_lib.data.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
