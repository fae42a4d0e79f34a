"""What holds for all tests."""

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


@pytest.fixture(autouse=True)
def close_figures():
    """What a test left open would count in a later one, which of 20 open figures gets a warning: an error here."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")
