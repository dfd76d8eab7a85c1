"""A progress bar in terminals and notebooks, nothing at all in pipes and files."""

import sys
import warnings
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # a notebook without ipywidgets gets the plain bar
    from tqdm.auto import tqdm


def visible() -> bool:
    """Whether somebody is there to watch."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


class Bar:
    """Steps done of all seeds together, steps per second, time left, and the score of the moment."""

    def __init__(self, total: int, done: int, description: str, unit: str) -> None:
        self.done = done
        self.bar: Any = tqdm(
            total=total,
            initial=done,
            desc=description,
            unit=f" {unit}",
            unit_scale=True,
            dynamic_ncols=True,
            smoothing=0.1,
            disable=not visible(),
        )

    def skip(self, steps: int) -> None:
        """Count steps that were done before."""
        self.done += steps
        if not self.bar.disable:
            self.bar.initial += steps
            self.bar.n += steps

    def advance(self, steps: int, score: str) -> None:
        self.done += steps
        self.bar.set_postfix_str(score, refresh=False)
        self.bar.update(steps)

    def close(self) -> None:
        self.bar.close()
