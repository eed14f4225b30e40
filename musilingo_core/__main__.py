"""`python -m musilingo_core` is the command `musilingo`."""

import sys

from musilingo_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
