"""Tries them; see the package."""

from __future__ import annotations

import sys

from tests.mutating import main

from . import MUTATIONS

sys.exit(main(MUTATIONS, sys.argv[1:]))
