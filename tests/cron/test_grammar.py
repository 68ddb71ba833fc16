"""The package's parser against the grammar of docs/schedules.md."""

from __future__ import annotations

import pytest
from google.cloud import scheduler_v1
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from cloudrun_jobs import cron
from cloudrun_jobs.cron.english import is_english
from cloudrun_jobs.emulator.errors import ServiceError
from cloudrun_jobs.emulator.scheduler.validation import schedule_of
from cloudrun_jobs.exceptions import InvalidJob, InvalidSchedule
from cloudrun_jobs.spec import Schedule, declare
from tests.cron import grammar


def cases(table: dict[str, list[str]]) -> list[object]:
    return [pytest.param(text, id=f"{rule}: {text}") for rule, texts in table.items() for text in texts]


@pytest.mark.parametrize("expression", cases(grammar.ACCEPTED))
def test_examples_are_accepted(expression: str) -> None:
    """Every accepted example of a rule is valid."""
    cron.validate(expression)


@pytest.mark.parametrize("expression", cases(grammar.REFUSED))
def test_counterexamples_are_refused(expression: str) -> None:
    """Every counterexample of a rule is invalid."""
    with pytest.raises(InvalidSchedule):
        cron.validate(expression)


@pytest.mark.parametrize("expression", sorted(grammar.DOUBTFUL))
def test_doubtful_expressions_are_refused(expression: str) -> None:
    """The hint is the alternative of the documentation."""
    with pytest.raises(InvalidSchedule) as refusal:
        cron.validate(expression)

    assert refusal.value.hint == f"Write {grammar.DOUBTFUL[expression]!r}."


@given(grammar.cron_expressions())
def test_derived_cron_expressions_are_accepted(expression: str) -> None:
    """The package accepts what the grammar derives."""
    cron.validate(expression)


@given(grammar.english_expressions())
def test_derived_sentences_are_accepted(expression: str) -> None:
    """The package accepts what the grammar derives."""
    cron.validate(expression)


@given(grammar.english_expressions())
def test_other_spelling_is_refused_with_the_fix(expression: str) -> None:
    """Capital letters and spaces are in no example."""
    with pytest.raises(InvalidSchedule) as refusal:
        cron.validate(f" {expression.upper().replace(',', ', ')}")

    assert refusal.value.hint == f"Write {expression!r}." or expression.startswith("every 1 min")


@pytest.mark.parametrize(
    ("expression", "fix"),
    [
        ("*/60 * * * *", "Write '0'."),
        ("0 */24 * * *", "Write '0'."),
        ("*/90 * * * *", "Write '0', or the schedule 'every 90 minutes'."),
        ("0 */36 * * *", "Write '0', or the schedule 'every 36 hours'."),
        ("5-50/60 * * * *", "Write '5'."),
        ("0 0 */32 * *", "Write '1'."),
        ("0 0 1 */13 *", "Write '1'."),
        ("0 0 * * */8", "Write '0'."),
        ("*/0 * * * *", ""),
    ],
)
def test_step_beyond_the_field_has_a_fix(expression: str, fix: str) -> None:
    """Such a step leaves one value, and may mean an interval."""
    with pytest.raises(InvalidSchedule) as refusal:
        cron.validate(expression)

    assert refusal.value.hint == fix


@pytest.mark.parametrize("name", grammar.TIME_ZONES)
def test_time_zones_are_accepted(name: str) -> None:
    """A job and a schedule may have the zone, and its times are computed."""
    spec = declare("x", {"schedule": ["0 1 * * *", Schedule("0 2 * * *", time_zone=name)], "time_zone": name})

    assert {schedule.time_zone for schedule in spec.schedules} == {"UTC" if name == "utc" else name}


@pytest.mark.parametrize("name", grammar.REFUSED_TIME_ZONES)
def test_other_time_zones_are_refused(name: str) -> None:
    """Abbreviations, offsets, cities and paths are no zones."""
    with pytest.raises(InvalidJob, match="expected a time zone"):
        declare("x", {"time_zone": name})


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("JST", "Did you mean 'Asia/Tokyo'?"),
        ("kst", "Did you mean 'Asia/Seoul'?"),
        ("UTC+9", "Did you mean 'Etc/GMT-9'? Its sign is the opposite: it is 9 hours ahead of UTC."),
        ("GMT+09:00", "Did you mean 'Etc/GMT-9'? Its sign is the opposite: it is 9 hours ahead of UTC."),
        ("-03", "Did you mean 'Etc/GMT+3'? Its sign is the opposite: it is 3 hours behind UTC."),
        ("UTC-0", "Did you mean 'Etc/UTC'?"),
        ("+05:30", ""),
        ("UTC+15", ""),
        ("UTC-13", ""),
        ("Tokyo", "Did you mean 'Asia/Tokyo'?"),
        ("buenos aires", "Did you mean 'America/Argentina/Buenos_Aires'?"),
        ("asia/tokyo", "Did you mean 'Asia/Tokyo'?"),
        ("Asia/Tokio", "Did you mean 'Asia/Tokyo'?"),
        ("utc ", "Did you mean 'UTC'?"),
        *((name, "") for name in ("IST", "BST", "PST", "CEST", "EDT", "AEST", "Z", "JST-9", "msk")),
    ],
)
def test_hint_for_a_time_zone(name: str, hint: str) -> None:
    """An abbreviation or an offset has the zone of that name as hint, or none."""
    with pytest.raises(InvalidJob) as refusal:
        declare("x", {"time_zone": name})

    assert refusal.value.problems[0].hint == hint


WORDS = (
    "every of day month quarter from to on synchronized minutes hours 1 31 30 2nd first mon feb,apr 9:00 * 5 */7"
)


@st.composite
def mutated(draw: DrawFn) -> str:
    """Derive a sentence and replace, insert or remove a word."""
    words = draw(grammar.english_expressions() | grammar.cron_expressions()).split(" ")
    position = draw(st.integers(0, len(words) - 1))
    new = draw(st.sampled_from([[], *([word] for word in WORDS.split())]))
    words[position : position + draw(st.integers(0, 1))] = new
    return " ".join(words)


def is_accepted_by_package(expression: str) -> bool:
    try:
        cron.validate(expression)
    except InvalidSchedule as error:
        # The emulator accepts a cron expression that is never due.
        return "It never runs" in str(error) and not is_english(expression)
    return True


def is_accepted_by_emulator(expression: str) -> bool:
    try:
        schedule_of(scheduler_v1.Job(schedule=expression, time_zone="Etc/UTC"))
    except ServiceError:
        return False
    return True


@given(mutated())
def test_both_parsers_agree_on_sentences_beside_the_grammar(expression: str) -> None:
    """The package and the emulator share no code, and accept the same."""
    assert is_accepted_by_package(expression) == is_accepted_by_emulator(expression)
