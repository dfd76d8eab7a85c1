"""Pictures of a run, drawn beside its training."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
from jax import numpy as jnp

from experiments import folder, sources
from experiments.evaluation import Restored


class Drawing:
    """While entered, `show` draws what a model makes in a thread of its own, unless that is still at the last picture.

    So training never waits, and of evaluations that follow each other faster than pictures do some are left out.
    """

    def __init__(self, restored: Restored) -> None:
        """`restored` without its runs."""
        self.restored = restored
        self.last: Future[list[Path]] | None = None

    def __enter__(self) -> "Drawing":
        self.executor = ThreadPoolExecutor(1)
        return self

    def __exit__(self, *_: object) -> None:
        self.executor.shutdown()

    def show(self, runs: Any) -> None:
        """Draw `runs`, which may be donated at once; nothing of a learner in an environment or before an evaluation."""
        of_data = isinstance(self.restored.experiment.source, sources.Data)
        busy = self.last is not None and not self.last.done()
        if of_data and not busy and (self.restored.path / folder.METRICS).stat().st_size:
            kept = jax.tree.map(lambda leaf: jnp.copy(leaf[:1]), runs)
            self.last = self.executor.submit(draw, self.restored._replace(runs=kept))


def draw(restored: Restored) -> list[Path]:
    """Write the pictures of a run into its folder: its curve, and what the first seed's model makes."""
    from experiments import plots  # slow to import: matplotlib

    curve = restored.path / "curve.png"
    plots.curves([restored.path], curve)
    return [curve, *plots.examples(restored)]
