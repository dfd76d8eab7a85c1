"""Entry of `python -m experiments`."""

import os
import sys

from experiments.cli import main

if __name__ == "__main__":
    try:
        code = main()
    except KeyboardInterrupt:
        # At once: the device may be in the middle of a long computation that a normal exit would wait for.
        sys.stdout.flush()
        print("\nStopped.", file=sys.stderr, flush=True)
        os._exit(130)
    sys.exit(code)
