"""The life of a run: requested, sent, claimed, kept alive, ended; and looked after, when somebody died meanwhile."""

from __future__ import annotations
