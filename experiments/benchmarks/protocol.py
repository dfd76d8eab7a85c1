"""How the harness and a contestant's process talk: a line of JSON each way. Standard library alone.

A contestant is started with its task as JSON, says what it is once it has compiled, and then trains one round for each
line it is sent. It imports this file by its name, not through a package, since it runs in an environment of its own.
"""

import importlib.metadata
import json
import resource
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

MARK = "@contest "  # before every line meant for the harness; libraries print lines of their own


class Round(NamedTuple):
    """What one round was."""

    steps: int  # all seeds together
    seconds: float
    score: float | None  # mean over seeds and episodes or images; None where there is none
    steps_scored: int = 0  # behind the score, of each seed: of all rounds so far if they are parts of one training


class Ready(NamedTuple):
    """A contestant that has compiled."""

    play: Callable[[int], Round]  # trains round i
    compile_seconds: float
    device: str  # on which it trains
    packages: tuple[str, ...]  # whose versions count


def serve(start: Callable[[dict[str, Any]], Ready]) -> None:
    """Answer the harness for the contestant that `start(task)` makes ready."""
    ready = start(json.loads(sys.argv[1]))
    versions = {name: importlib.metadata.version(name) for name in ready.packages}
    _say({"compile_seconds": ready.compile_seconds, "device": ready.device, "versions": versions})
    for line in sys.stdin:
        done = ready.play(int(line))
        # Kilobytes on Linux, bytes on a Mac.
        unit = 1 if sys.platform == "darwin" else 1024
        _say({**done._asdict(), "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit})


def _say(message: dict[str, Any]) -> None:
    print(MARK + json.dumps(message), flush=True)
