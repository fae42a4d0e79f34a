"""What holds for all tests."""

import gc
import os
import signal
import sys

import pytest
from hypothesis import settings

# Started in the background of a script (`make test &`), a process ignores Ctrl-C and so would all that the tests
# start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run, so that a change and not chance decides. HYPOTHESIS_PROFILE=default draws new ones.
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def pytest_collection_finish():
    """What is there before the first test stays to the end, so the collector of garbage need not look at it each time.

    A collection takes most of a second otherwise, and whatever runs out of memory, or fails in a trial, asks for one.
    """
    import torch._dynamo  # noqa: F401  # the first optimiser would load it, and it is as large as all the rest

    gc.collect()
    gc.freeze()


def pytest_unconfigure():
    gc.unfreeze()  # libraries look whether all of theirs is gone at the end


@pytest.fixture(autouse=True)
def close_figures():
    """What a test left open would count in a later one, which of 20 open figures gets a warning: an error here."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")
