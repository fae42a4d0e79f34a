"""What is said about the machine, and what is done to its memory."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

PAGES = """
import resource
import torch
from course_lib.core.device import disable_malloc_trim

def pages_asked_for():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(50_000_000, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(pages_asked_for(), disable_malloc_trim(), pages_asked_for() and pages_asked_for())
"""


def test_memory_that_is_kept_is_not_asked_for_again():
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-c", PAGES], capture_output=True, text=True, check=True)
    before, possible, after = done.stdout.split()
    if possible == "False":
        pytest.skip("this C library cannot be told to keep memory")
    assert int(after) < int(before) / 3, done.stdout
