"""The limits of Cloud Run and Linux for arguments and environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cloudrun_jobs.exceptions import InvalidArguments

MAX_ARGUMENTS = 1000  # https://cloud.google.com/run/quotas: arguments per container.
MAX_STRING_BYTES = 128 * 1024 - 1  # execve(2): MAX_ARG_STRLEN, less the closing NUL.
MAX_TOTAL_BYTES = 1024 * 1024  # Half of execve(2)'s ARG_MAX: the image's own environment counts too.
POINTER_BYTES = 8


def check_limits(argv: Sequence[str], environment: Mapping[str, str]) -> None:
    """Raise `InvalidArguments` if no container could start with these."""
    if len(argv) > MAX_ARGUMENTS:
        hint = "Pass a query or a file's name instead of the items."
        raise InvalidArguments(f"Expected at most {MAX_ARGUMENTS} arguments, got {len(argv)}.", hint=hint)
    strings = [*argv, *(f"{name}={value}" for name, value in environment.items())]
    sizes = [len(string.encode()) for string in strings]
    hint = "Store the data where the job can fetch it, and pass its name."
    if max(sizes, default=0) > MAX_STRING_BYTES:
        message = f"Expected arguments of at most {MAX_STRING_BYTES} bytes, got one of {max(sizes)}."
        raise InvalidArguments(message, hint=hint)
    if (total := sum(sizes) + (1 + POINTER_BYTES) * len(sizes)) > MAX_TOTAL_BYTES:
        message = f"Expected arguments and environment of at most {MAX_TOTAL_BYTES} bytes, got {total}."
        raise InvalidArguments(message, hint=hint)
