"""Callers and containers that die at every step: real processes and servers."""

from __future__ import annotations
