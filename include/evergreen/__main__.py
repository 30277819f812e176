"""`python -m evergreen` is `evergreen`."""

import sys

from evergreen.cli import main

sys.exit(main())
