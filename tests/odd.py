"""Values that nobody should hand over, and what to expect of a function that gets one."""

import io
import math
import operator
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

few = settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
numbers = st.one_of(st.integers(-3, 9), st.just(10**400), st.floats(), st.booleans(),
                    st.sampled_from([np.int64(2), np.float32(0.5), torch.tensor(2), torch.tensor(True), math.nan]))
words = st.one_of(st.text(max_size=6), st.sampled_from(["a/b", "\0", "$x^_$", "_a", "error_rate", "ß\u0301"]))
odd = st.one_of(st.none(), numbers, words, st.binary(max_size=3), st.lists(numbers, max_size=3),
                st.lists(words, max_size=3), st.tuples(words, words),
                st.dictionaries(words, numbers, max_size=2), st.lists(st.just({}), max_size=2),
                st.dictionaries(st.integers(0, 3), st.floats(), max_size=3),
                st.sampled_from([object(), len, slice(1), Path("x"), [[1, 2], [3]], np.zeros(3), np.zeros((2, 2)),
                                 torch.zeros(2), torch.zeros(2, 2, dtype=torch.complex64)]))


def told(call, *names):
    """What `call` gives, or None where a ValueError or TypeError refuses it and has one of `names` in its message."""
    try:
        return call()
    except (ValueError, TypeError) as error:
        said = str(error)
        assert any(name in said for name in names), f"{type(error).__name__} names none of {names}: {said}"
        assert len(said) < 900
        return None
    finally:
        plt.close("all")


def drawn(ax):
    """`ax`, after all that is on it was drawn."""
    (ax.flat[0] if isinstance(ax, np.ndarray) else ax).figure.savefig(io.BytesIO(), dpi=20)
    return ax


def heard(names, call):
    """What `call` gives, or None where it is refused by one of `names`, a text with blanks between them, as a word."""
    try:
        return call()
    except (ValueError, TypeError) as error:
        assert re.search(rf"\b({names.replace(' ', '|')})\b", str(error)), f"{type(error).__name__} names none: {error}"
        return None


def count_of(value, least=1):
    """`value` as a count, or None: by its type, not by what the library says."""
    if isinstance(value, (bool, np.bool_)) or getattr(value, "shape", ()) != () or str(
            getattr(value, "dtype", "")).endswith("bool"):
        return None
    try:
        found = operator.index(value)
    except TypeError:
        return None
    return found if least <= found < 2**63 else None
