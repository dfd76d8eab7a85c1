"""How the harness and a contestant's process talk: a line of JSON each way. Standard library alone.

A contestant is started with its task as JSON, says when it is compiled, and then trains one round for each line it is
sent. It imports this file by its name, not through a package, since it runs in an environment of its own.
"""

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
    score: float | None  # mean over seeds and episodes; None where there is none yet


def serve(start: Callable[[dict[str, Any]], tuple[Callable[[int], Round], float]]) -> None:
    """Answer the harness. `start(task)` returns the function that trains round i, and its seconds to compile."""
    play, compile_seconds = start(json.loads(sys.argv[1]))
    _say({"compile_seconds": compile_seconds})
    for line in sys.stdin:
        done = play(int(line))
        # Kilobytes on Linux, bytes on a Mac.
        unit = 1 if sys.platform == "darwin" else 1024
        _say({**done._asdict(), "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit})


def _say(message: dict[str, Any]) -> None:
    print(MARK + json.dumps(message), flush=True)
