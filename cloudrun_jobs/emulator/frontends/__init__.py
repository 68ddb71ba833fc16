"""The frontends: thin protocol layers over one service."""

from __future__ import annotations
