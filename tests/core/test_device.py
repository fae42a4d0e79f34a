"""What is said about the machine, and what is done to its memory."""

import subprocess
import sys

import psutil
import pytest
import torch

from course_lib.core import device

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


def test_a_container_s_share_of_memory_is_what_is_left_of_it(monkeypatch, tmp_path):
    monkeypatch.setattr(device, "CONTAINER", tmp_path)
    cpu = torch.device("cpu")
    alone = device.available_memory(cpu)  # no container
    assert 0 < alone <= psutil.virtual_memory().total
    for name, text in (("memory.max", f"{2**20}\n"), ("memory.current", f"{2**19}\n"),
                       ("memory.stat", "anon 5\nfile 70000\ninactive_file 65536\n")):
        (tmp_path / name).write_text(text)
    assert device.available_memory(cpu) == 2**20 - 2**19 + 65536
    (tmp_path / "memory.current").write_text(str(2**21))
    assert device.available_memory(cpu) == 0
    (tmp_path / "memory.max").write_text("max\n")  # a container that may have all
    assert device.available_memory(cpu) > 2**24
