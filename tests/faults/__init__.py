"""Senders and containers that die, at every step: real processes, a real server for each part."""

from __future__ import annotations
