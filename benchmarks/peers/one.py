"""Do one piece of work in this process, and print what came out as one line of JSON, with the peak memory.

    python benchmarks/peers/one.py fastai pipeline '{"folder": "...", "epochs": 3}'
"""

import importlib
import json
import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

import psutil
from common import Job


def peak_memory_gb() -> float:
    """The most that this process, or one of its workers, ever held. Shared pages are counted in each."""
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(peaks) / (2**30 if sys.platform == "darwin" else 2**20)


@contextmanager
def watch_own_memory(most: list[float], every: float = 0.2) -> Iterator[None]:
    """Within it `most[0]` grows to the most gigabytes that this process and its workers hold, without files.

    What is mapped or shared is left out, where the system tells it apart; sampled, so a short peak may be missed.
    """
    over, here = threading.Event(), psutil.Process()

    def held() -> Iterator[int]:
        for process in (here, *here.children(recursive=True)):
            with suppress(psutil.Error):  # a worker that has just ended
                memory = process.memory_info()
                yield memory.rss - getattr(memory, "shared", 0)

    def watch() -> None:
        while not over.wait(every):
            most[0] = max(most[0], sum(held()) / 2**30)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


if __name__ == "__main__":
    peer, question, values = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    own, watched = [0.0], values.pop("watched", False)
    with watch_own_memory(own) if watched else nullcontext():
        found = getattr(importlib.import_module(f"with_{peer}"), question)(Job.of(values))
    found |= {"peak_gb": round(peak_memory_gb(), 3)} | ({"own_gb": round(own[0], 3)} if watched else {})
    print()
    print(json.dumps(found))
