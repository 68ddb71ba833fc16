"""The plan: what differs, whatever it is about, and nothing once it was applied."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from threading import Event, Timer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs.deploy.plan import (
    RESERVATION,
    Change,
    Desired,
    Existing,
    OwnershipLabel,
    Plan,
    Redacted,
    apply,
    as_data,
    as_lines,
    plan,
)
from cloudrun_jobs.exceptions import CloudRunJobsError, ServiceError

ENVIRONMENT = "production"


@dataclass
class Memory:
    """A store that keeps fields."""

    found: dict[str, Existing]
    calls: list[str] = field(default_factory=list)

    def listed(self) -> list[Existing]:
        return list(self.found.values())

    def create(self, change: Change) -> str:
        assert change.id not in self.found
        return self._write(change, {})

    def update(self, change: Change) -> str:
        return self._write(change, dict(self.found[change.id].fields))

    def delete(self, change: Change) -> str:
        self.calls.append(change.id)
        del self.found[change.id]
        return ""

    def _write(self, change: Change, fields: dict[str, Any]) -> str:
        self.calls.append(change.id)
        fields |= {each.name: each.new for each in change.fields if each.name != "mark"}
        assert change.declared is not None
        old = self.found.get(change.id) or Existing(id=change.id, fields={})
        self.found[change.id] = replace(old, fields=fields, mark=change.declared.mark)
        return ""


IDS = st.sampled_from(["a", "b", "c", "d", "e"])
FIELDS = st.dictionaries(st.sampled_from(["x", "y", "z"]), st.integers(0, 2) | st.text(max_size=2))
MARKS = st.builds(
    OwnershipLabel,
    environment=st.sampled_from([ENVIRONMENT, "staging"]),
    command=IDS,
    kind=st.sampled_from(["sync", RESERVATION]),
    fields=st.lists(st.sampled_from(["x", "y", "z"]), unique=True).map(tuple),
)


@st.composite
def declared_things(draw: st.DrawFn) -> list[Desired]:
    ids = draw(st.lists(IDS, unique=True))
    wanted = {id_: draw(FIELDS) for id_ in ids}
    marks = {
        id_: OwnershipLabel(environment=ENVIRONMENT, command=id_, fields=tuple(sorted(wanted[id_]))) for id_ in ids
    }
    return [Desired(id=id_, label=id_, mark=marks[id_], fields=wanted[id_]) for id_ in ids]


@st.composite
def found_things(draw: st.DrawFn) -> list[Existing]:
    ids = draw(st.lists(IDS, unique=True))
    ours = MARKS.map(lambda mark: replace(mark, environment=ENVIRONMENT))
    return [
        Existing(id=id_, fields=draw(FIELDS), mark=draw(st.none() | ours), paused=draw(st.booleans()))
        for id_ in ids
    ]


def ignore(*told: object) -> None:
    """Report nothing."""


@given(declared_things(), found_things())
def test_nothing_is_left_to_do_once_a_plan_was_applied(declared: list[Desired], found: list[Existing]) -> None:
    """Planning again after a pruning apply finds no drift, each change was one call, and pauses stay."""
    store = Memory({item.id: item for item in found})
    todo = plan(declared, found, environment=ENVIRONMENT, prune=True)

    assert apply(todo.to_apply, store, ignore) == 0

    assert sorted(store.calls) == sorted(change.id for change in todo.to_apply)
    assert not plan(declared, store.listed(), environment=ENVIRONMENT).has_drift
    paused = {item.id for item in found if item.paused}
    assert {item.id for item in store.listed() if item.paused} == paused & set(store.found)


@given(declared_things(), found_things())
def test_what_is_not_declared_stays(declared: list[Desired], found: list[Existing]) -> None:
    """No field is written but those declared now or before, and nothing of others is deleted."""
    store = Memory({item.id: item for item in found})

    apply(plan(declared, found, environment=ENVIRONMENT, prune=True).to_apply, store, ignore)

    wanted = {item.id: item.fields for item in declared}
    for item in found:
        mine = set(wanted.get(item.id, ())) | set(item.mark.fields if item.mark else ())
        foreign = {name: value for name, value in item.fields.items() if name not in mine}
        if item.id in wanted or item.mark is None or item.mark.kind == RESERVATION:
            assert foreign.items() <= store.found[item.id].fields.items()


@given(declared_things(), found_things())
def test_a_plan_can_always_be_told(declared: list[Desired], found: list[Existing]) -> None:
    """Each change is a line, and all of it is JSON."""
    todo = plan(declared, found, environment=ENVIRONMENT)

    assert len(list(as_lines(todo))) == len(todo.changes) + len(todo.orphans)
    assert json.dumps(as_data(todo))


@given(MARKS)
def test_a_mark_is_read_as_it_was_written(mark: OwnershipLabel) -> None:
    """It survives being a text, which fits a description."""
    assert OwnershipLabel.read(str(mark)) == mark


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "Managed by cloudrun_jobs: ",
        "Managed by cloudrun_jobs: {}",
        "Managed by cloudrun_jobs: []",
        'Managed by cloudrun_jobs: {"environment": "production", "command": "x", "kind": "sync", "fields": 1}',
    ],
)
def test_what_somebody_else_wrote_is_no_mark(text: str) -> None:
    """A description of another's is not taken for ours, and breaks nothing."""
    assert OwnershipLabel.read(text) is None


def declared(id_: str, **fields: Any) -> Desired:
    return Desired(id=id_, label=id_, mark=OwnershipLabel(environment=ENVIRONMENT, command=id_), fields=fields)


def found(id_: str, **fields: Any) -> Existing:
    return Existing(id=id_, mark=OwnershipLabel(environment=ENVIRONMENT, command=id_), fields=fields)


def test_hidden_values_are_compared_and_not_shown() -> None:
    """A variable's value is told to be another, in lines and in data, never what it is."""
    old, new = found("a", env=Redacted("hunter1")), declared("a", env=Redacted("hunter2"))
    todo = plan([new], [old], environment=ENVIRONMENT)

    assert next(as_lines(todo))[0] == "~ a  env: another value"
    assert "hunter" not in json.dumps(as_data(todo))
    assert not plan([new], [found("a", env=Redacted("hunter2"))], environment=ENVIRONMENT).has_drift


def test_two_declared_under_one_name_are_refused() -> None:
    """They would overwrite each other in turns."""
    one, other = declared("a"), replace(declared("a"), label="b")

    with pytest.raises(CloudRunJobsError, match="a and b would both be 'a'"):
        plan([one, other], [], environment=ENVIRONMENT)


def test_a_fault_of_our_own_is_not_swallowed() -> None:
    """Only what a service refuses is a failure to report; anything else is raised."""
    todo = plan([declared("a")], [], environment=ENVIRONMENT)
    store = Memory({"a": found("a")})  # So that creating it is a mistake.

    with pytest.raises(AssertionError):
        apply(todo.to_apply, store, ignore)


def test_what_was_not_begun_is_dropped_when_interrupted() -> None:
    """Ctrl-C ends the sync after the changes under way."""
    going_on, begun = Event(), list[str]()

    class Slow(Memory):
        def create(self, change: Change) -> str:
            begun.append(change.id)
            going_on.wait(30)
            return ""

    def interrupt(*told: object) -> None:
        Timer(0.2, going_on.set).start()
        raise KeyboardInterrupt

    todo = plan([declared(f"a{number}") for number in range(100)], [], environment=ENVIRONMENT)
    first = Quick(Slow({}), going_on)

    with pytest.raises(KeyboardInterrupt):
        apply(todo.to_apply, first, interrupt)

    assert len(begun) < 50


@dataclass
class Quick:
    """Lets the first change pass at once, and the others when it was reported."""

    slow: Memory
    going_on: Event

    def create(self, change: Change) -> str:
        return "" if change.id == "a0" else self.slow.create(change)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.slow, name)


def test_an_unknown_state_has_all_fields_written() -> None:
    """Of what the service could not update, nothing is known: every declared field is written again."""
    broken = Existing(
        id="a", fields={}, mark=OwnershipLabel(environment=ENVIRONMENT, command="a"), trouble="broken"
    )
    todo = plan([declared("a", x=1, y=2)], [broken], environment=ENVIRONMENT)

    assert [change.name for change in todo.changes[0].fields] == ["x", "y"]
    assert todo.troubles == {"a": "broken"}


def test_failures_are_counted_and_reported() -> None:
    """What the service refuses is reported with the change."""
    told: list[Any] = []

    class Refusing(Memory):
        def create(self, change: Change) -> str:
            raise ServiceError(f"{change.id}: refused.")

    todo = plan([declared("a"), declared("b")], [], environment=ENVIRONMENT)
    failed = apply(todo.to_apply, Refusing({}), lambda change, remark, error: told.append((change.id, str(error))))

    assert failed == 2
    assert sorted(told) == [("a", "a: refused."), ("b", "b: refused.")]


def test_a_plan_of_nothing_is_no_drift() -> None:
    """With nothing declared and nothing there, nothing is to be done."""
    assert plan([], [], environment=ENVIRONMENT) == Plan()
