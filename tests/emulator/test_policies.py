"""IAM policies of single resources, and permission to act as a service account."""

from __future__ import annotations

import pytest
from google.api_core import exceptions
from google.cloud import scheduler_v1

from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.emulator.config import InvalidConfiguration
from tests.emulator.cloud import PLACE, eventually
from tests.emulator.rest import Rest

OWNER, CALLER = "owner@example.com", "caller@acme.iam.gserviceaccount.com"
RUNTIME = "runtime@acme.iam.gserviceaccount.com"
POLICY = {
    "bindings": [
        {"role": "roles/owner", "members": [f"user:{OWNER}"]},
        {"role": "roles/pubsub.publisher", "members": [f"serviceAccount:{CALLER}", f"serviceAccount:{RUNTIME}"]},
    ]
}
JOB = f"{PLACE}/jobs/work"
SECRET = "projects/acme/secrets/token"
REPOSITORY = f"{PLACE}/repositories/images"
ACCOUNT = f"projects/acme/serviceAccounts/{RUNTIME}"
# The resource, a permission on it, and a role that grants it.
RESOURCES = {
    "project": ("v1/projects/acme", "serviceusage.services.list", "roles/serviceusage.serviceUsageViewer"),
    "project v3": ("v3/projects/acme", "run.jobs.list", "roles/run.viewer"),
    "job v1": (f"v1/{JOB}", "run.jobs.run", "roles/run.invoker"),
    "job v2": (f"v2/{JOB}", "run.jobs.runWithOverrides", "roles/run.jobsExecutorWithOverrides"),
    "worker pool v1": (f"v1/{PLACE}/workerpools/pool", "run.workerpools.get", "roles/run.viewer"),
    "worker pool v2": (f"v2/{PLACE}/workerPools/pool", "run.workerpools.update", "roles/run.developer"),
    "account": (f"v1/{ACCOUNT}", "iam.serviceAccounts.actAs", "roles/iam.serviceAccountUser"),
    "account without project": (
        f"v1/projects/-/serviceAccounts/{RUNTIME}",
        "iam.serviceAccounts.getAccessToken",
        "roles/iam.serviceAccountTokenCreator",
    ),
    "secret": (f"v1/{SECRET}", "secretmanager.versions.access", "roles/secretmanager.secretAccessor"),
    "repository": (f"v1/{REPOSITORY}", "artifactregistry.tags.get", "roles/artifactregistry.reader"),
}


@pytest.fixture
def cloudrun_emulator_options():
    return {"grace": 1.0, "iam": POLICY, "secrets": {"token": "s"}, "registry": [_image("app:1")]}


def _image(name):
    return f"europe-west4-docker.pkg.dev/acme/images/{name}"


@pytest.fixture
def owner(emulator):
    rest = Rest(emulator, OWNER)
    body = {"template": {"template": {"containers": [{"image": "app"}]}}}
    assert "error" not in rest("POST", f"v2/{PLACE}/jobs?jobId=work", **body)
    assert "error" not in rest("POST", f"v2/{PLACE}/workerPools?workerPoolId=pool", **body["template"])
    return rest


@pytest.fixture
def caller(emulator):
    return Rest(emulator, CALLER)


@pytest.mark.parametrize(("path", "permission", "role"), RESOURCES.values(), ids=RESOURCES)
def test_policy_of_a_resource_grants_its_role(owner, caller, path, permission, role):
    """A binding in the policy of a resource grants its role on that resource, and can be read again."""
    before = caller.held(path, permission)
    changed = owner.bind(path, role, f"serviceAccount:{CALLER}")

    assert before == []
    assert caller.held(path, permission) == [permission]
    assert owner.policy(path) == changed


def test_policy_of_a_job_is_not_that_of_another(owner, caller):
    """A binding in the policy of a job allows calls on this job only."""
    owner.bind(f"v1/{JOB}", "roles/run.viewer", f"serviceAccount:{CALLER}")

    assert caller("GET", f"v2/{JOB}")["name"] == JOB
    assert caller.error("GET", f"v2/{JOB}2")["status"] == "PERMISSION_DENIED"
    assert caller.error("GET", f"v2/{PLACE}/jobs")["status"] == "PERMISSION_DENIED"


@pytest.mark.parametrize(
    ("member", "is_granted"),
    [
        (f"serviceAccount:{CALLER}", True),
        (f"serviceAccount:{CALLER.upper()}", True),
        (f"user:{CALLER}", True),
        ("allUsers", True),
        ("allAuthenticatedUsers", True),
        (f"user:{OWNER}", False),
        ("group:everyone@example.com", False),
    ],
)
def test_members(owner, caller, member, is_granted):
    """A binding grants its role to the members that it names."""
    owner.bind(f"v1/{JOB}", "roles/run.invoker", member)

    assert caller.held(f"v1/{JOB}", "run.jobs.run") == (["run.jobs.run"] if is_granted else [])


def test_conditions_are_for_callers_that_know_them(owner):
    """Below version 3, the role of a binding with a condition is replaced, and the condition left out."""
    condition = {"title": "office hours", "expression": "request.time.getHours() > 7"}
    binding = {"role": "roles/run.invoker", "members": ["allUsers"], "condition": condition}
    owner("POST", f"v2/{JOB}:setIamPolicy", policy={"version": 3, "bindings": [binding]})
    (hidden,) = owner("GET", f"v2/{JOB}:getIamPolicy")["bindings"]
    (shown,) = owner("GET", f"v2/{JOB}:getIamPolicy?options.requestedPolicyVersion=3")["bindings"]

    assert hidden["role"].startswith("roles/run.invoker_withcond_")
    assert "condition" not in hidden
    assert shown == binding


AUDIT = [{"service": "run.googleapis.com", "auditLogConfigs": [{"logType": "DATA_READ"}]}]
OPEN = [{"role": "roles/run.invoker", "members": ["allUsers"]}]


@pytest.mark.parametrize(
    ("mask", "sent", "kept"),
    [
        ("", {"bindings": OPEN}, {"bindings": OPEN, "auditConfigs": AUDIT}),
        ("", {}, {"auditConfigs": AUDIT}),
        ("bindings,etag", {"bindings": OPEN}, {"bindings": OPEN, "auditConfigs": AUDIT}),
        ("auditConfigs", {"bindings": []}, {"bindings": OPEN}),
        ("bindings,auditConfigs", {}, {}),
    ],
)
def test_update_mask_limits_the_change_of_a_policy(owner, mask, sent, kept):
    """Only the fields in the mask change; without a mask, the bindings."""
    path = f"v2/{JOB}"
    owner("POST", f"{path}:setIamPolicy", policy={"bindings": OPEN, "auditConfigs": AUDIT}, updateMask="*")

    policy = owner("POST", f"{path}:setIamPolicy", policy=sent, updateMask=mask)

    assert {name: policy[name] for name in ("bindings", "auditConfigs") if name in policy} == kept


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"policy": {}, "updateMask": "nope"}, "Invalid update_mask: nope."),
        ({"policy": {"version": 2}}, "Invalid policy version 2"),
        (
            {"policy": {"version": 1, "bindings": [{**OPEN[0], "condition": {"expression": "true"}}]}},
            "has no conditions",
        ),
    ],
)
def test_invalid_policy_changes_nothing(owner, body, message):
    """A policy of an invalid version, or with an unknown field in its mask, is rejected."""
    owner.bind(f"v1/{JOB}", "roles/run.invoker", "allUsers")

    error = owner.error("POST", f"v2/{JOB}:setIamPolicy", **body)

    assert (error["status"], message in error["message"]) == ("INVALID_ARGUMENT", True)
    assert owner.policy(f"v1/{JOB}")["bindings"] == OPEN


def test_concurrent_change_of_a_policy_is_rejected(owner):
    """A policy that changed since it was read is not replaced."""
    before = owner.policy(f"v1/{JOB}")
    owner.bind(f"v1/{JOB}", "roles/run.invoker", "allUsers")
    error = owner.error("POST", f"v1/{JOB}:setIamPolicy", policy=before)

    assert (error["code"], error["status"]) == (409, "ABORTED")
    assert owner.policy(f"v1/{JOB}")["bindings"] == [{"role": "roles/run.invoker", "members": ["allUsers"]}]


@pytest.mark.parametrize(
    ("role", "member", "message"),
    [
        ("roles/run.nonsense", "allUsers", "Role roles/run.nonsense is not supported"),
        ("run.jobs.run", "allUsers", "Role run.jobs.run is not supported"),
        ("roles/run.invoker", CALLER, "is of an unknown type"),
        ("roles/run.invoker", "serviceAccount:none@acme.iam.gserviceaccount.com", "does not exist"),
    ],
)
def test_invalid_binding_is_rejected(owner, role, member, message):
    """A binding with an unknown role, or with a member that cannot exist, is rejected."""
    binding = {"role": role, "members": [member]}
    error = owner.error("POST", f"v1/{JOB}:setIamPolicy", policy={"bindings": [binding]})

    assert error["status"] == "INVALID_ARGUMENT"
    assert message in error["message"]


def test_roles_of_other_services_and_custom_roles_are_kept(owner, caller):
    """Roles that grant nothing here can be bound, for a policy contains them."""
    owner.bind("v1/projects/acme", "roles/cloudsql.client", f"serviceAccount:{CALLER}")
    changed = owner.bind("v1/projects/acme", "projects/acme/roles/deployer", f"serviceAccount:{CALLER}")

    assert {"roles/cloudsql.client", "projects/acme/roles/deployer"} <= {b["role"] for b in changed["bindings"]}
    assert caller.held("v1/projects/acme", "run.jobs.get") == []


def test_custom_role_grants_its_permissions(owner, caller):
    """A custom role grants the permissions that it includes, until it is changed."""
    role = {"title": "Runner", "includedPermissions": ["run.jobs.run", "compute.disks.get"]}
    testable = owner("POST", "v1/permissions:queryTestablePermissions", pageSize=1000)["permissions"]
    created = owner("POST", "v1/projects/acme/roles", roleId="runner", role=role)
    owner.bind("v1/projects/acme", created["name"], f"serviceAccount:{CALLER}")
    before = caller.held(f"v1/{JOB}", "run.jobs.run", "run.jobs.get")
    owner("PATCH", f"v1/{created['name']}", includedPermissions=["run.jobs.get"])

    assert "run.jobs.run" in [each["name"] for each in testable]
    assert before == ["run.jobs.run"]
    assert caller.held(f"v1/{JOB}", "run.jobs.run", "run.jobs.get") == ["run.jobs.get"]
    assert owner("GET", f"v1/{created['name']}")["includedPermissions"] == ["run.jobs.get"]
    assert [each["name"] for each in owner("GET", "v1/projects/acme/roles")["roles"]] == [created["name"]]
    assert owner("DELETE", f"v1/{created['name']}")["deleted"]
    assert caller.held(f"v1/{JOB}", "run.jobs.get") == []
    assert caller("GET", "v1/roles/run.jobsExecutor")["includedPermissions"] == [
        "run.executions.cancel",
        "run.jobs.run",
    ]


def test_policy_needs_its_own_permission(owner, caller):
    """To read or to change a policy requires a permission on the resource."""
    assert "run.jobs.getIamPolicy" in caller.error("GET", f"v1/{JOB}:getIamPolicy")["message"]
    assert "run.jobs.setIamPolicy" in caller.error("POST", f"v1/{JOB}:setIamPolicy", policy={})["message"]


def test_permissions_on_a_missing_resource(owner):
    """TestIamPermissions returns no permission on a resource that does not exist."""
    assert owner.held(f"v1/{JOB}2", "run.jobs.run") == []
    assert owner.error("GET", f"v1/{JOB}2:getIamPolicy")["status"] == "NOT_FOUND"


def test_unknown_permission_is_rejected(owner):
    """TestIamPermissions rejects a permission that the type of resource does not have."""
    error = owner.error("POST", f"v1/{JOB}:testIamPermissions", permissions=["run.jobs.start"])

    assert error["message"] == "Permission run.jobs.start is not valid for this resource."


def test_policy_goes_with_its_resource(owner):
    """A resource that is created again has no policy."""
    owner.bind(f"v1/{JOB}", "roles/run.invoker", "allUsers")
    owner("DELETE", f"v2/{JOB}")
    body = {"template": {"template": {"containers": [{"image": "app"}]}}}
    owner("POST", f"v2/{PLACE}/jobs?jobId=work", **body)

    assert "bindings" not in owner.policy(f"v1/{JOB}")


def test_binding_of_a_deleted_account_stays(owner):
    """A policy that mentions a deleted account can still be changed."""
    owner.bind(f"v1/{JOB}", "roles/run.invoker", f"serviceAccount:{RUNTIME}")
    owner("DELETE", f"v1/{ACCOUNT}")

    assert len(owner.bind(f"v1/{JOB}", "roles/run.viewer", "allUsers")["bindings"]) == 2


def test_job_with_an_account_needs_act_as(owner, caller):
    """A job is created only by a caller that may act as its service account."""
    owner.bind("v1/projects/acme", "roles/run.developer", f"serviceAccount:{CALLER}")
    template = {"template": {"serviceAccount": RUNTIME, "containers": [{"image": "app"}]}}
    path = f"v2/{PLACE}/jobs?jobId=other"
    error = caller.error("POST", path, template=template)
    owner.bind(f"v1/{ACCOUNT}", "roles/iam.serviceAccountUser", f"serviceAccount:{CALLER}")

    assert error["message"] == (
        f"Permission 'iam.serviceaccounts.actAs' denied on service account {RUNTIME} (or it may not exist)."
    )
    assert caller("POST", path, template=template)["done"]


def test_service_with_an_account_needs_act_as(owner, caller):
    """A service is created only by a caller that may act as its service account."""
    owner.bind("v1/projects/acme", "roles/run.developer", f"serviceAccount:{CALLER}")
    template = {"serviceAccount": RUNTIME, "containers": [{"image": "app"}]}

    assert "actAs" in caller.error("POST", f"v2/{PLACE}/services?serviceId=web", template=template)["message"]
    assert "error" not in owner("POST", f"v2/{PLACE}/services?serviceId=web", template=template)


def test_job_without_an_account_uses_the_default_one(owner, caller):
    """A job that names no account runs as the default one, which its creator must be allowed to act as."""
    owner.bind("v1/projects/acme", "roles/run.developer", f"serviceAccount:{CALLER}")
    error = caller.error("PATCH", f"v2/{JOB}", template={"template": {"containers": [{"image": "app"}]}})

    assert "-compute@developer.gserviceaccount.com (or it may not exist)" in error["message"]


def test_job_with_an_unknown_account_is_rejected(owner):
    """No caller may act as a service account that does not exist."""
    template = {"template": {"serviceAccount": "x" + RUNTIME, "containers": [{"image": "app"}]}}

    assert "actAs" in owner.error("POST", f"v2/{PLACE}/jobs?jobId=other", template=template)["message"]


def test_schedule_needs_act_as(owner, caller):
    """A Scheduler job is created only by a caller that may act as the account of its token."""
    owner.bind("v1/projects/acme", "roles/cloudscheduler.admin", f"serviceAccount:{CALLER}")
    target = {"uri": "https://run.googleapis.com/v2/x", "oauthToken": {"serviceAccountEmail": RUNTIME}}
    error = caller.error("POST", f"v1/{PLACE}/jobs", schedule="0 * * * *", httpTarget=target)

    assert error["message"] == (
        'The principal (user or service account) lacks IAM permission "iam.serviceAccounts.actAs" for the '
        f'resource "{RUNTIME}" (or the resource may not exist).'
    )


def test_account_of_a_job_needs_access_to_its_secrets(cloud, owner):
    """An execution starts only if the account of its job may read the secrets of its variables."""
    source = {"secretKeyRef": {"secret": "token", "version": "latest"}}
    container = {"image": "app", "command": ["true"], "env": [{"name": "TOKEN", "valueSource": source}]}
    template = {"maxRetries": 0, "serviceAccount": RUNTIME, "containers": [container]}
    owner("PATCH", f"v2/{JOB}", template={"template": template})
    request = {"name": JOB}
    metadata = [("authorization", f"Bearer {cloud.emulator.tokens.access_token(OWNER)}")]

    def execution():
        name = cloud.emulator.clients.jobs.run_job(request, metadata=metadata).metadata.name
        return eventually(lambda: (found := owner("GET", f"v2/{name}")).get("completionTime") and found)

    denied = execution()
    owner.bind(f"v1/{SECRET}", "roles/secretmanager.secretAccessor", f"serviceAccount:{RUNTIME}")

    message = denied["conditions"][-1]["message"]
    assert message.startswith(
        "spec.template.spec.containers[0].env[0].value_from.secret_key_ref.name: Permission "
    )
    assert f"/secrets/token/versions/latest for Revision service account {RUNTIME}." in message
    assert execution()["succeededCount"] == 1


def test_policies_survive_a_restart(tmp_path):
    """With --state, policies and accounts are kept."""
    with Emulator(state=tmp_path) as emulator:
        rest = Rest(emulator, OWNER)
        rest("POST", "v1/projects/acme/serviceAccounts", accountId="runtime")
        before = rest.bind("v1/projects/acme", "roles/run.viewer", f"serviceAccount:{RUNTIME}")
    with Emulator(state=tmp_path) as emulator:
        rest = Rest(emulator, OWNER)

        assert rest.policy("v1/projects/acme") == before
        assert [each["email"] for each in rest("GET", "v1/projects/acme/serviceAccounts")["accounts"]] == [RUNTIME]


def test_without_checks_everything_is_allowed():
    """Without a policy, every permission is granted, and the policy of a project contains this grant."""
    with Emulator(port=0) as emulator:
        rest = Rest(emulator, CALLER)

        assert rest.held("v1/projects/acme", "run.jobs.run", "compute.disks.get") == [
            "run.jobs.run",
            "compute.disks.get",
        ]
        assert rest.held(f"v1/{JOB}", "run.jobs.run") == ["run.jobs.run"]
        assert {"role": "roles/owner", "members": ["allUsers"]} in rest.policy("v1/projects/acme")["bindings"]


def test_scheduler_client_gets_the_error(emulator, owner):
    """The gRPC client of Cloud Scheduler gets the message about a missing permission."""
    request = scheduler_v1.ListJobsRequest(parent=PLACE)
    metadata = [("authorization", f"Bearer {emulator.tokens.access_token(CALLER)}")]
    with pytest.raises(exceptions.PermissionDenied, match=r'lacks IAM permission "cloudscheduler.jobs.list"'):
        emulator.clients.scheduler.list_jobs(request, metadata=metadata)


@pytest.mark.parametrize(
    "policy",
    [
        [],
        {"bindings": 1},
        {"bindings": ["x"]},
        {"bindings": [{"role": "run.nonsense", "members": []}]},
        {"version": "x"},
        {"roles": {}},
    ],
)
def test_file_without_a_policy_is_rejected(policy):
    """A file that contains no policy is rejected in one line."""
    with pytest.raises(InvalidConfiguration, match="expected"):
        Emulator(iam=policy)
