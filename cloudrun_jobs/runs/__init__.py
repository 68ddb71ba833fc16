"""The record's side of a run: dispatch, reservations, reconciliation and pruning."""

from __future__ import annotations
