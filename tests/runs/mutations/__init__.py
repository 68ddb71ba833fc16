"""Mutations of the code that keeps run records: `python -m tests.runs.mutations [WORD ...]`.

With words, only the rules that contain one of them are tried.
"""

from __future__ import annotations

from tests.runs.mutations import claims, deliveries, ends, requests, ticks

MUTATIONS = [*claims.RULES, *deliveries.RULES, *ends.RULES, *requests.RULES, *ticks.RULES]
