"""One module per management command."""

from __future__ import annotations
