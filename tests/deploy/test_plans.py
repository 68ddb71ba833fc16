"""Plans contain the differences, and none once they were applied."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import Event, Timer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs.deploy.plan import Change, Desired, Existing, Plan, Redacted, apply, plan
from cloudrun_jobs.deploy.plan.printing import as_data, as_lines
from cloudrun_jobs.exceptions import CloudRunJobsError, ServiceError
from cloudrun_jobs.spec.ownership import RESERVATION, OwnershipLabel

ENVIRONMENT = "production"


@dataclass(frozen=True, kw_only=True)
class Thing(Desired):
    x: Any = None
    y: Any = None
    z: Any = None
    env: Any = None


@dataclass
class MemoryStore:
    """Keeps fields in memory."""

    resources: dict[str, Existing]
    calls: list[str] = field(default_factory=list)

    def list(self) -> Sequence[Existing]:
        return [*self.resources.values()]

    def create(self, change: Change) -> str:
        assert change.id not in self.resources
        return self._write(change, {})

    def update(self, change: Change) -> str:
        return self._write(change, dict(self.resources[change.id].fields))

    def delete(self, change: Change) -> str:
        self.calls.append(change.id)
        del self.resources[change.id]
        return ""

    def _write(self, change: Change, fields: dict[str, Any]) -> str:
        self.calls.append(change.id)
        fields |= {each.name: each.new for each in change.fields if each.name != "ownership"}
        assert change.desired is not None
        old = self.resources.get(change.id) or Existing(id=change.id, fields={})
        self.resources[change.id] = replace(old, fields=fields, ownership=change.desired.ownership)
        return ""


IDS = st.sampled_from(["a", "b", "c", "d", "e"])
FIELDS = st.dictionaries(st.sampled_from(["x", "y", "z"]), st.integers(0, 2) | st.text(max_size=2))
LABELS = st.builds(
    OwnershipLabel,
    environment=st.sampled_from([ENVIRONMENT, "staging"]),
    command=IDS,
    kind=st.sampled_from(["sync", RESERVATION]),
    fields=st.lists(st.sampled_from(["x", "y", "z"]), unique=True).map(tuple),
)


@st.composite
def all_desired(draw: st.DrawFn) -> list[Desired]:
    fields = {id_: draw(FIELDS) for id_ in draw(st.lists(IDS, unique=True))}
    return [
        Thing(
            id=id_,
            label=id_,
            ownership=OwnershipLabel(environment=ENVIRONMENT, command=id_, fields=tuple(sorted(values))),
            **values,
        )
        for id_, values in fields.items()
    ]


@st.composite
def all_existing(draw: st.DrawFn) -> list[Existing]:
    ids = draw(st.lists(IDS, unique=True))
    ours = LABELS.map(lambda label: replace(label, environment=ENVIRONMENT))
    return [
        Existing(id=id_, fields=draw(FIELDS), ownership=draw(st.none() | ours), paused=draw(st.booleans()))
        for id_ in ids
    ]


def ignore(*report: object) -> None:
    """Report nothing."""


@given(all_desired(), all_existing())
def test_an_applied_plan_leaves_no_drift(desired: list[Desired], existing: list[Existing]) -> None:
    """After an apply with pruning, a new plan has no drift, each change was one call, and pauses stay."""
    store = MemoryStore({item.id: item for item in existing})
    todo = plan(desired, existing, environment=ENVIRONMENT, prune=True)

    apply(todo.to_apply, store, ignore)

    assert sorted(store.calls) == sorted(change.id for change in todo.to_apply)
    assert not plan(desired, store.list(), environment=ENVIRONMENT).has_drift
    paused = {item.id for item in existing if item.paused}
    assert {item.id for item in store.list() if item.paused} == paused & set(store.resources)


@given(all_desired(), all_existing())
def test_undeclared_fields_and_resources_stay(desired: list[Desired], existing: list[Existing]) -> None:
    """Only fields that are or were declared are written, and only owned resources are deleted."""
    store = MemoryStore({item.id: item for item in existing})

    apply(plan(desired, existing, environment=ENVIRONMENT, prune=True).to_apply, store, ignore)

    declared = {item.id: item.fields for item in desired}
    for item in existing:
        owned = set(declared.get(item.id, ())) | set(item.ownership.fields if item.ownership else ())
        foreign = {name: value for name, value in item.fields.items() if name not in owned}
        if item.id in declared or item.ownership is None or item.ownership.kind == RESERVATION:
            assert foreign.items() <= store.resources[item.id].fields.items()


@given(all_desired(), all_existing())
def test_every_plan_can_be_printed(desired: list[Desired], existing: list[Existing]) -> None:
    """Each change is a line, and the plan is JSON."""
    todo = plan(desired, existing, environment=ENVIRONMENT)

    assert len(list(as_lines(todo))) == len(todo.changes) + len(todo.orphans)
    assert json.dumps(as_data(todo))


@given(LABELS)
def test_ownership_label_round_trips(label: OwnershipLabel) -> None:
    """It is read from its text."""
    assert OwnershipLabel.read(str(label)) == label


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
def test_other_text_is_no_ownership_label(text: str) -> None:
    """Any other description is not a label."""
    assert OwnershipLabel.read(text) is None


def desired(id_: str, **fields: Any) -> Desired:
    label = OwnershipLabel(environment=ENVIRONMENT, command=id_)
    return Thing(id=id_, label=id_, ownership=label, **fields)


def existing(id_: str, **fields: Any) -> Existing:
    return Existing(id=id_, ownership=OwnershipLabel(environment=ENVIRONMENT, command=id_), fields=fields)


def test_redacted_values_are_compared_and_not_shown() -> None:
    """Lines and JSON say that the value changed, but contain neither value."""
    old, new = existing("a", env=Redacted("hunter1")), desired("a", env=Redacted("hunter2"))
    todo = plan([new], [old], environment=ENVIRONMENT)

    assert next(as_lines(todo))[0] == "~ a  env: another value"
    assert "hunter" not in json.dumps(as_data(todo))
    assert not plan([new], [existing("a", env=Redacted("hunter2"))], environment=ENVIRONMENT).has_drift


def test_duplicate_ids_are_rejected() -> None:
    """Two resources with one id would overwrite each other at every sync."""
    one, other = desired("a"), replace(desired("a"), label="b")

    with pytest.raises(CloudRunJobsError, match="a and b would both be 'a'"):
        plan([one, other], [], environment=ENVIRONMENT)


def test_unexpected_errors_are_raised() -> None:
    """Only errors of the service are reported as failures."""
    todo = plan([desired("a")], [], environment=ENVIRONMENT)
    store = MemoryStore({"a": existing("a")})  # Creating it again raises AssertionError.

    with pytest.raises(AssertionError):
        apply(todo.to_apply, store, ignore)


def test_interrupt_drops_pending_changes() -> None:
    """Ctrl-C ends the sync after the changes in progress."""
    released, started = Event(), list[str]()

    class Slow(MemoryStore):
        def create(self, change: Change) -> str:
            started.append(change.id)
            released.wait(30)
            return ""

    def interrupt(*report: object) -> None:
        Timer(0.2, released.set).start()
        raise KeyboardInterrupt

    todo = plan([desired(f"a{number}") for number in range(100)], [], environment=ENVIRONMENT)
    store = Quick(Slow({}))

    with pytest.raises(KeyboardInterrupt):
        apply(todo.to_apply, store, interrupt)

    assert len(started) < 50


@dataclass
class Quick:
    """Applies the first change at once, and the others after its report."""

    slow: MemoryStore

    def create(self, change: Change) -> str:
        return "" if change.id == "a0" else self.slow.create(change)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.slow, name)


def test_all_fields_are_written_after_a_failed_update() -> None:
    """The fields of a resource that the service failed to update are unknown."""
    broken = replace(existing("a"), trouble="broken")
    todo = plan([desired("a", x=1, y=2)], [broken], environment=ENVIRONMENT)

    assert [change.name for change in todo.changes[0].fields] == ["x", "y"]
    assert todo.troubles == {"a": "broken"}


def test_failures_are_reported() -> None:
    """Errors of the service are reported with their changes."""
    reports: list[Any] = []

    class FailingStore(MemoryStore):
        def create(self, change: Change) -> str:
            raise ServiceError(f"{change.id}: refused.")

    todo = plan([desired("a"), desired("b")], [], environment=ENVIRONMENT)
    store = FailingStore({})
    apply(todo.to_apply, store, lambda change, remark, error: reports.append((change.id, str(error))))

    assert sorted(reports) == [("a", "a: refused."), ("b", "b: refused.")]


def test_empty_plan_has_no_drift() -> None:
    """With nothing declared and nothing in the cloud, there is nothing to do."""
    assert plan([], [], environment=ENVIRONMENT) == Plan()
