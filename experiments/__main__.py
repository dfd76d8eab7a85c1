"""Entry of `python -m experiments`."""

import os
import sys

from experiments.cli import main

if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # terminals that know ASCII alone
    try:
        code = main()
    except KeyboardInterrupt:
        # At once: the device may be in the middle of a long computation that a normal exit would wait for.
        sys.stdout.flush()
        print("\nStopped.", file=sys.stderr, flush=True)
        os._exit(130)
    sys.exit(code)
