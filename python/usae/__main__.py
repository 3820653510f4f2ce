"""``python -m usae``: the command ``usae``."""

import sys

from usae.cli import main

sys.exit(main())
