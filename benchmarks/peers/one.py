"""Do one piece of work in this process, and print what came out as one line of JSON, with the peak memory.

    python benchmarks/peers/one.py fastai pipeline '{"folder": "...", "epochs": 3}'
"""

import importlib
import json
import resource
import sys

from common import Job


def peak_memory_gb() -> float:
    """The most that this process, or one of its workers, ever held. Shared pages are counted in each."""
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(peaks) / (2**30 if sys.platform == "darwin" else 2**20)


if __name__ == "__main__":
    peer, question, values = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    found = getattr(importlib.import_module(f"with_{peer}"), question)(Job.of(values))
    print()
    print(json.dumps(found | {"peak_gb": round(peak_memory_gb(), 3)}))
