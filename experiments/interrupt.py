"""Ctrl-C and SIGTERM as a wish to stop at the next good moment."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any


class Interrupt:
    """While entered, the first SIGINT or SIGTERM only sets `number`; a second one does what it did before."""

    number: int | None = None

    def __enter__(self) -> "Interrupt":
        self.before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._first)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _first(self, number: int, _: FrameType | None) -> None:
        self.number = number
        self._restore()
        # Not print: the signal may have come in the middle of one.
        os.write(2, b"\nStopping after the updates in progress, then saving. Once more: stop at once, unsaved.\n")


class Background:
    """Runs one call at a time in another thread, so that this one hears signals while a device works."""

    def __enter__(self) -> "Background":
        self.executor = ThreadPoolExecutor(1)
        return self

    def __exit__(self, *_: object) -> None:
        self.executor.shutdown(wait=False)

    def __call__(self, function: Any, *args: Any) -> Any:
        return self.executor.submit(function, *args).result()
