"""Update masks: what is replaced, cleared, kept and refused, however deep."""

from __future__ import annotations

import pytest
from google.cloud import run_v2, scheduler_v1, secretmanager_v1
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs.emulator import field_masks, messages
from cloudrun_jobs.emulator.errors import ServiceError
from cloudrun_jobs.emulator.json_reader import is_map, is_repeated
from tests.emulator.cloud import PLACE
from tests.emulator.rest import Rest

OLD = {
    "description": "old",
    "labels": {"a": "1", "b.c/d": "2"},
    "template": {
        "timeout": "5s",
        "scaling": {"minInstanceCount": 3},
        "containers": [{"image": "old"}],
        "sandboxes": {"templates": [{"name": "box"}]},
    },
}
TEMPLATE = OLD["template"]
RESOURCES = (run_v2.Service, run_v2.WorkerPool, scheduler_v1.Job, secretmanager_v1.Secret)


def _template(**changes):
    """Return the old service with other fields of its template; None drops one."""
    template = {name: value for name, value in {**TEMPLATE, **changes}.items() if value is not None}
    return {**OLD, "template": template}


def _without(name):
    return {key: value for key, value in OLD.items() if key != name}


@pytest.mark.parametrize(
    ("paths", "given", "expected"),
    [
        (["template.scaling.min_instance_count"], {}, _template(scaling={})),
        (["template.scaling"], {}, _template(scaling=None)),
        (["template.timeout"], {"template": {"timeout": "9s"}}, _template(timeout="9s")),
        (
            ["template.containers"],
            {"template": {"containers": [{"image": "new"}]}},
            _template(containers=[{"image": "new"}]),
        ),
        (["template.containers"], {}, _template(containers=None)),
        (["template.sandboxes"], {}, _template(sandboxes=None)),
        (
            ["template.vpc_access.connector"],
            {"template": {"vpcAccess": {"connector": "c"}}},
            _template(vpcAccess={"connector": "c"}),
        ),
        (["template.vpc_access.connector"], {}, OLD),
        (["template"], {}, _without("template")),
        (
            ["description", "template.timeout"],
            {"labels": {"x": "y"}},
            {**_without("description"), "template": {k: v for k, v in TEMPLATE.items() if k != "timeout"}},
        ),
        (["labels"], {}, _without("labels")),
        (["labels"], {"labels": {"new": "3"}}, {**OLD, "labels": {"new": "3"}}),
        (["labels.a"], {"labels": {"new": "3"}}, {**OLD, "labels": {"b.c/d": "2"}}),
        (["labels.`b.c/d`"], {"labels": {"b.c/d": "9"}}, {**OLD, "labels": {"a": "1", "b.c/d": "9"}}),
        (["*"], {"description": "new"}, {"description": "new"}),
        ([], {"description": "new"}, {"description": "new"}),
    ],
)
def test_mask_replaces_and_clears_what_it_names(paths, given, expected):
    """Fields in the mask get the given value, or are cleared if the body or its parent lacks them."""
    old, new = (messages.from_json(run_v2.Service, content) for content in (OLD, given))

    assert messages.to_json(field_masks.updated(old, new, paths)) == expected


@pytest.mark.parametrize(
    "path",
    [
        "colour",
        "template.colour",
        "template.containers.image",
        "labels.a.b",
        "timeout.x",
        "",
        "a..b",
        "labels.",
        "*.x",
    ],
)
def test_path_without_a_field_is_refused(path):
    """A path that leads to no field is refused: an unknown name, or a field of a list, a text or a map's value."""
    service = messages.from_json(run_v2.Service, OLD)

    with pytest.raises(ServiceError, match="Invalid update_mask"):
        field_masks.updated(service, service, [path])


def _paths(descriptor, depth=3):
    for field in descriptor.fields:
        yield field.name
        if field.message_type is not None and depth and not is_map(field) and not is_repeated(field):
            yield from (f"{field.name}.{path}" for path in _paths(field.message_type, depth - 1))


EVERY_PATH = [
    (resource, path) for resource in RESOURCES for path in _paths(messages.extended_class(resource).DESCRIPTOR)
]


@given(st.sampled_from(EVERY_PATH))
def test_every_path_of_the_descriptors_is_cleared(pair):
    """Each field of each resource with a mask is set through the mask, and cleared by an empty body."""
    resource, path = pair
    filled = messages.extended_class(resource)()
    parent = filled
    *parents, last = path.split(".")
    for name in parents:
        parent = getattr(parent, name)
    _set_something(parent, last)
    new = messages.reduce(filled, resource)
    updated = field_masks.updated(resource(), new, [path])
    cleared = messages.extend(field_masks.updated(updated, resource(), [path]))
    for name in parents:
        cleared = getattr(cleared, name)

    assert messages.to_json(updated) == messages.to_json(new)
    assert last not in [field.name for field, _ in cleared.ListFields()]


def _set_something(message, name):
    field = message.DESCRIPTOR.fields_by_name[name]
    if is_map(field):
        value = field.message_type.fields_by_name["value"]
        getattr(message, name)["key"] = 1 if value.cpp_type != value.CPPTYPE_STRING else "x"
    elif is_repeated(field):
        items = getattr(message, name)
        items.add() if field.message_type is not None else items.append(_scalar(field))
    elif field.message_type is not None:
        getattr(message, name).SetInParent()
    else:
        setattr(message, name, _scalar(field))


def _scalar(field):
    if field.cpp_type == field.CPPTYPE_STRING:
        return b"x" if field.type == field.TYPE_BYTES else "x"
    return 1


def test_masks_clear_over_rest(emulator):
    """Over REST, each resource with a mask is cleared where the mask says so, in camelCase and in snake_case."""
    rest = Rest(emulator)
    containers = [{"image": "app"}]
    template = {
        "containers": containers,
        "vpcAccess": {"connector": "c"},
        "serviceAccount": "a@x.iam.gserviceaccount.com",
    }
    rest("POST", f"v2/{PLACE}/services?serviceId=web", template=template, labels={"a": "1", "b": "2"})
    rest("POST", f"v2/{PLACE}/workerPools?workerPoolId=pool", template=template, labels={"a": "1"})
    service = f"v2/{PLACE}/services/web"
    pool = f"v2/{PLACE}/workerPools/pool"
    rest("PATCH", f"{service}?updateMask=template.vpcAccess,labels.a", template={})
    rest("PATCH", f"{pool}?updateMask=template.vpc_access.connector,labels", labels=None)

    assert rest("GET", service)["labels"] == {"b": "2"}
    assert "vpcAccess" not in rest("GET", service)["template"]
    assert rest("GET", pool)["template"]["vpcAccess"] == {}
    assert "labels" not in rest("GET", pool)


def test_mask_of_a_custom_role(emulator):
    """The mask of a custom role clears a description that the body lacks, and refuses an unknown field."""
    rest = Rest(emulator)
    role = {"title": "Runner", "description": "x", "includedPermissions": ["run.jobs.run"]}
    rest("POST", "v1/projects/acme/roles", roleId="runner", role=role)
    updated = rest("PATCH", "v1/projects/acme/roles/runner?updateMask=description,title", title="New")
    error = rest.error("PATCH", "v1/projects/acme/roles/runner?updateMask=colour", title="New")

    assert updated["title"] == "New"
    assert updated["includedPermissions"] == ["run.jobs.run"]
    assert "description" not in updated
    assert error["status"] == "INVALID_ARGUMENT"
