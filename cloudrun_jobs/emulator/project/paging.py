"""Return one page of a list in a response without a message class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudrun_jobs.emulator.engine.store import MAX_PAGE_SIZE, paginate
from cloudrun_jobs.emulator.errors import invalid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def page(
    field: str, found: Sequence[dict[str, Any]], request: Mapping[str, Any], maximum: int = MAX_PAGE_SIZE
) -> dict[str, Any]:
    """Return the page that the request asks for, and the token of the next one."""
    size, token = str(request.get("pageSize", 0)), request.get("pageToken", "")
    if not (size.isdecimal() and isinstance(token, str)):
        raise invalid(f"Invalid value at 'page_size' or 'page_token': {size!r}, {token!r}.")
    items, next_token = paginate(found, int(size), token, maximum)
    return {field: items, **({"nextPageToken": next_token} if next_token else {})}
