"""`python -m dl_techniques` is the command `fastvlm`."""

from __future__ import annotations

import sys

from dl_techniques.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
