"""What `run()` returned, in the form in which it is kept."""

from __future__ import annotations

import json
import re
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder

from ..exceptions import InvalidResult

MAX_RESULT = 2**20  # Bytes.

# PostgreSQL keeps no NUL: an odd number of backslashes before "u0000" is one, an even number is text.
NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def in_json(command: str, result: Any) -> Any:
    """Return what the result becomes on its way through JSON. Raises `InvalidResult`."""
    try:
        text = json.dumps(result, cls=DjangoJSONEncoder, allow_nan=False)
        size = len(json.dumps(json.loads(text), ensure_ascii=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidResult(
            f"{command}: run() returned what JSON cannot say: {error}.",
            hint="Return None, text, numbers, dates, or lists and dictionaries of them.",
        ) from error
    if NUL.search(text):
        hint = "Remove it: databases keep text without NUL."
        raise InvalidResult(f"{command}: run() returned text with a NUL character.", hint=hint)
    if size > MAX_RESULT:
        hint = "Store the data where it belongs, and return its name."
        raise InvalidResult(f"{command}: expected a result of at most {MAX_RESULT} bytes, got {size}.", hint=hint)
    return json.loads(text)
