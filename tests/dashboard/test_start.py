"""Start jobs with a form made from the command's parser."""

from __future__ import annotations

import argparse
import json
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from cloudrun_jobs.models import JobRun
from tests.dashboard.start_pages import argument, job_with, post, sign_in, start_url, text_of

A_UUID = "0f5bcf9e-5f7a-4b53-9d1c-6a2d3c1d8f10"


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


# Arguments, the text of the form, and what run() receives: each kind of argument of argparse.
KINDS: dict[str, tuple[Any, Any, Any]] = {
    "positional": (argument("x"), "a b", "a b"),
    "optional-positional": (argument("x", nargs="?"), "a", "a"),
    "positional-list": (argument("x", nargs="*"), "a b\r\nc", ["a b", "c"]),
    "positional-two": (argument("x", nargs=2, type=int), "1\r\n2\r\n", [1, 2]),
    "positional-append": (argument("x", action="append"), "a", ["a"]),
    "remainder": (argument("x", nargs=argparse.REMAINDER), "a\r\nb", ["a", "b"]),
    "text": (argument("--x"), " -b c=d ", " -b c=d "),
    "text-of-a-line-break": (argument("--x"), "a\nb", "a\nb"),
    "emoji": (argument("--x"), "日本語 🙂", "日本語 🙂"),
    "secret-like": (argument("--x"), "secret:name", "secret:name"),
    "int": (argument("--x", type=int), "-7", -7),
    "float": (argument("--x", type=float), "1e-3", 0.001),
    "decimal": (argument("--x", type=Decimal), "1.10", Decimal("1.10")),
    "date": (argument("--x", type=date.fromisoformat), "2026-02-03", date(2026, 2, 3)),
    "datetime": (argument("--x", type=datetime.fromisoformat), "2026-02-03T04:05", datetime(2026, 2, 3, 4, 5)),  # noqa: DTZ001
    "time": (argument("--x", type=time.fromisoformat), "04:05:06", time(4, 5, 6)),
    "uuid": (argument("--x", type=UUID), A_UUID, UUID(A_UUID)),
    "path": (argument("--x", type=Path), "a/b", Path("a/b")),
    "json": (argument("--x", type=json.loads), '{"a": [1, null]}', {"a": [1, None]}),
    "choice": (argument("--x", choices=["s", "m"]), "m", "m"),
    "choice-of-numbers": (argument("--x", choices=[1, 2], type=int), "2", 2),
    "choice-of-many": (argument("--x", choices=range(100_000), type=int), "70000", 70000),
    "choice-of-an-enum": (argument("--x", choices=list(Size), type=Size), "l", Size.LARGE),
    "bool": (argument("--x", type=bool), "on", True),
    "store-true": (argument("--x", action="store_true"), "on", True),
    "store-false": (argument("--x", action="store_false"), "on", False),
    "const": (argument("--x", action="store_const", const="fast"), "on", "fast"),
    "yes": (argument("--x", action=argparse.BooleanOptionalAction), "yes", True),
    "no": (argument("--x", action=argparse.BooleanOptionalAction, default=True), "no", False),
    "count": (argument("-l", "--x", action="count", default=0), "3", 3),
    "count-of-nothing": (argument("--x", action="count", default=0), "0", 0),
    "append": (argument("--x", action="append"), "-a\r\n\r\nb c\r\n", ["-a", "b c"]),
    "append-to-default": (argument("--x", action="append", default=["z"]), "a", ["z", "a"]),
    "append-numbers": (argument("--x", action="append", type=int), "1\n2", [1, 2]),
    "append-choices": (argument("--x", action="append", choices=["a", "b", "c"]), ["a", "c"], ["a", "c"]),
    "append-pairs": (argument("--x", action="append", nargs=2), "a\nb\n\nc d\ne", [["a", "b"], ["c d", "e"]]),
    "append-const": (argument("--x", action="append_const", const=7), "on", [7]),
    "extend": (argument("--x", action="extend", nargs="+", type=int), "1\n-2", [1, -2]),
    "list": (argument("--x", nargs="+"), "a\nb c", ["a", "b c"]),
    "list-of-choices": (argument("--x", nargs="*", choices=[1, 2], type=int), ["2"], [2]),
    "optional-value": (argument("--x", nargs="?", const="c"), "a", "a"),
    "other-dest": (argument("--from", dest="x"), "a", "a"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_value_arrives(kind: str) -> None:
    """The value of a field is what run() receives."""
    declared, value, expected = KINDS[kind]
    with job_with(declared) as received:
        response = post(sign_in("view_jobrun", "run_job"), x=value)

    assert received == [{"x": expected}], text_of(response)
    assert response.status_code == 302
    assert response.url.endswith(f"/{JobRun.objects.get().pk}/")


OPTIONAL = [kind for kind, (declared, _, _) in KINDS.items() if "positional" not in kind]


@pytest.mark.parametrize("kind", OPTIONAL)
def test_untouched_form_sends_nothing(kind: str) -> None:
    """The page is shown, and without a value, the arguments of the run are empty."""
    with job_with(KINDS[kind][0]):
        client = sign_in("view_jobrun", "run_job")
        assert client.get(start_url()).status_code == 200
        post(client)

    assert JobRun.objects.get().argv == ["everything"]


LABELS = {
    "Dry run": argument("-n", "--dry-run", action="store_true"),
    "Send mail": argument("--send-mail", action=argparse.BooleanOptionalAction),
    "No cache": argument("--no-cache", action="store_false", dest="cache"),
    "Input file": argument("input_file"),
    "FILE": argument("input_file", metavar="FILE"),
    "X": argument("-x"),
    "名前": argument("--名前"),
}


@pytest.mark.parametrize("label", LABELS)
def test_label_is_the_name_in_words(label: str) -> None:
    """The label of a field is the longest name of its option, or the metavar of a positional."""
    with job_with(LABELS[label]):
        form = sign_in("view_jobrun", "run_job").get(start_url()).context["form"]

    assert [field.label for field in form] == [label]


HELP = {
    "A number (7)\nDefault: 3.": argument("--x", type=int, default=3, help="A number (7)"),
    "A number (3)": argument("--x", type=int, default=3, help="A number (%(default)s)"),
    "50% of %(all)s": argument("--x", help="50% of %(all)s"),
    "Default: yes.": argument("--x", action=argparse.BooleanOptionalAction, default=True),
    "One value per line.\nDefault: a, b.": argument("--x", nargs="*", default=["a", "b"]),
    "One value per line.\nThe values are added to the default: a.": argument(
        "--x", action="append", default=["a"]
    ),
    "Default: 2026-02-03.": argument("--x", type=date.fromisoformat, default=date(2026, 2, 3)),
    "": argument("--x", type=Path, default=object()),
    "No text": argument("--x", default="\0", choices=["a", ["b"]], help="No text"),
}


@pytest.mark.parametrize("text", HELP)
def test_help_has_the_default(text: str) -> None:
    """The help of the parser is followed by how to fill in the field, and the default."""
    with job_with(HELP[text]):
        form = sign_in("view_jobrun", "run_job").get(start_url()).context["form"]

    assert form["option-x"].help_text == text
