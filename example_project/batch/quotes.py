"""The quotes of a few symbols, from a source that is busy now and then. It needs no network."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

SYMBOLS = tuple(str(code) for code in range(1301, 1401))
ATTEMPTS = 3
FIRST_DELAY = 0.01  # seconds; a real source needs longer

T = TypeVar("T")


class SourceBusy(Exception):
    """The source answers 429."""


class Source:
    """A source that refuses the first request for every tenth symbol."""

    def __init__(self) -> None:
        self._refused: set[str] = set()

    async def fetch(self, symbol: str) -> int:
        await asyncio.sleep(0)
        if symbol.endswith("0") and symbol not in self._refused:
            self._refused.add(symbol)
            raise SourceBusy(symbol)
        return int(symbol) * 3


async def with_retries(call: Callable[[], Awaitable[T]]) -> T:
    """Return the result of the call, repeated after growing delays while the source is busy."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return await call()
        except SourceBusy:
            if attempt == ATTEMPTS:
                raise
            await asyncio.sleep(FIRST_DELAY * 2**attempt)
    raise AssertionError("unreachable")
