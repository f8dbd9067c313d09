"""`python -m painn_fast.cli`, where the command is not on the path."""

import sys

from painn_fast.cli import main

sys.exit(main())
