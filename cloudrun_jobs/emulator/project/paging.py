"""Return one page of a list in a response without a message class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudrun_jobs.emulator.engine.store import MAX_PAGE_SIZE, paginate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def page(
    field: str, found: Sequence[dict[str, Any]], request: Mapping[str, Any], maximum: int = MAX_PAGE_SIZE
) -> dict[str, Any]:
    """Return the page that the request asks for, and the token of the next one."""
    items, next_token = paginate(found, request.get("pageSize", 0), request.get("pageToken", ""), maximum)
    return {field: items, **({"nextPageToken": next_token} if next_token else {})}
