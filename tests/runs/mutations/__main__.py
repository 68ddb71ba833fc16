"""Try the mutations; see the package."""

from __future__ import annotations

import sys

from tests.mutation import main
from tests.runs.mutations import MUTATIONS

sys.exit(main(MUTATIONS, sys.argv[1:]))
