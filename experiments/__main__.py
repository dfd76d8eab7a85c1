"""Entry of `python -m experiments`."""

import signal
import sys

from experiments.cli import main

if __name__ == "__main__":
    # Ctrl-C ends the process at once, also in the middle of a compilation; while training, `interrupt` is in between.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # terminals that know ASCII alone
    sys.exit(main())
