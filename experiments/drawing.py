"""Pictures of a run, drawn beside its training."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
from jax import numpy as jnp

from experiments import folder, sources
from experiments.evaluation import Restored

REST = 20.0  # times what the last pictures took, before the next: a core that draws is one that does not train


class Drawing:
    """While entered, `show` draws what a model makes in a thread of its own, at some of the evaluations.

    Training never waits for it, and loses a twentieth of its time at most.
    """

    def __init__(self, restored: Restored) -> None:
        """`restored` without its runs."""
        self.restored = restored
        self.last: Future[None] | None = None
        self.rested = 0.0  # when the next pictures may begin, by the clock

    def __enter__(self) -> "Drawing":
        self.executor = ThreadPoolExecutor(1)
        return self

    def __exit__(self, *_: object) -> None:
        self.executor.shutdown()

    def show(self, runs: Any) -> None:
        """Draw `runs`, which may be donated at once; nothing of a learner in an environment or before an evaluation."""
        of_data = isinstance(self.restored.experiment.source, sources.Data)
        ready = (self.last is None or self.last.done()) and time.monotonic() >= self.rested
        if of_data and ready and (self.restored.path / folder.METRICS).stat().st_size:
            kept = jax.tree.map(lambda leaf: jnp.copy(leaf[:1]), runs)
            self.last = self.executor.submit(self._draw, self.restored._replace(runs=kept))

    def _draw(self, restored: Restored) -> None:
        begin = time.monotonic()
        draw(restored)
        end = time.monotonic()
        self.rested = end + REST * (end - begin)


def draw(restored: Restored) -> list[Path]:
    """Write the pictures of a run into its folder: its curve, and what the first seed's model makes."""
    from experiments import plots  # slow to import: matplotlib

    curve = restored.path / "curve.png"
    plots.curves([restored.path], curve)
    return [curve, *plots.examples(restored)]
