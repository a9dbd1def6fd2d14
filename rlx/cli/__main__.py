"""`python -m rlx.cli` is `rlx`."""

import sys

from rlx.cli import main

if __name__ == "__main__":
    sys.exit(main())
