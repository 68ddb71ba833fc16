"""The recipes for LOGGING, as docs/logging.md prints them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "logging.md"


def recipe(name: str) -> dict[str, Any]:
    found = re.search(
        rf"<!-- recipe: {name} -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL
    )
    assert found, f"no recipe {name!r}"
    values: dict[str, Any] = {}
    exec(found[1], values)
    logging: dict[str, Any] = values["LOGGING"]
    return logging
