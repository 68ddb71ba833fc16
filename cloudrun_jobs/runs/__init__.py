"""The life of a run: requested, sent, claimed, kept alive, ended; looked after, when somebody died."""

from __future__ import annotations
