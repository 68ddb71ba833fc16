"""Removes the rules of the records one by one and sees a test fail each time: `python -m tests.runs.mutations`.

With words, only the rules that have one of them are removed.
"""

from __future__ import annotations

from tests.runs.mutations import claims, ends, requests

MUTATIONS = [*claims.RULES, *ends.RULES, *requests.RULES]
