"""Secret Manager, through Google's client over gRPC and REST, and gcloud."""

from __future__ import annotations

import sys

import google_crc32c
import pytest
import requests
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import run_v2
from google.cloud import secretmanager_v1 as api

from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.emulator.config import InvalidConfiguration
from tests.emulator.cloud import Cloud, condition, job, script

PROJECT = "projects/acme"
TOKEN = f"{PROJECT}/secrets/token"
State = api.SecretVersion.State


@pytest.fixture(scope="module")
def shared():
    """An emulator for the tests that start no task."""
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def over_grpc(shared):
    """The client over gRPC, of a project without secrets."""
    yield shared.clients.secrets
    for secret in shared.clients.secrets.list_secrets(parent=PROJECT):
        shared.clients.secrets.delete_secret(name=secret.name)


@pytest.fixture(params=["grpc", "rest"])
def client(request, shared, over_grpc):
    if request.param == "grpc":
        return over_grpc
    options = {"api_endpoint": shared.http}
    return api.SecretManagerServiceClient(
        transport="rest", credentials=AnonymousCredentials(), client_options=options
    )


def create(client, secret_id="token", *values):
    secret = api.Secret(replication=api.Replication(automatic=api.Replication.Automatic()), labels={"team": "a"})
    created = client.create_secret(parent=PROJECT, secret_id=secret_id, secret=secret)
    for value in values:
        client.add_secret_version(parent=created.name, payload=api.SecretPayload(data=value))
    return created


def with_secret(name, version, text='echo "$TOKEN"'):
    declared = script(text)
    source = run_v2.EnvVarSource(secret_key_ref=run_v2.SecretKeySelector(secret=name, version=version))
    declared.template.template.containers[0].env = [run_v2.EnvVar(name="TOKEN", value_source=source)]
    return declared


def test_secret(client):
    """A secret is created, read, listed, updated and deleted."""
    created = create(client)
    mask = {"paths": ["labels"]}
    updated = client.update_secret(
        request={"secret": {"name": TOKEN, "labels": {"team": "b"}, "etag": created.etag}, "update_mask": mask}
    )

    assert (created.name, dict(created.labels)) == (TOKEN, {"team": "a"})
    assert "automatic" in created.replication
    assert dict(client.get_secret(name=TOKEN).labels) == dict(updated.labels) == {"team": "b"}
    assert updated.etag != created.etag
    assert [each.name for each in client.list_secrets(parent=PROJECT)] == [TOKEN]

    client.delete_secret(name=TOKEN)

    assert list(client.list_secrets(parent=PROJECT)) == []
    with pytest.raises(exceptions.NotFound, match=r"Secret \[projects/acme/secrets/token\] not found"):
        client.get_secret(name=TOKEN)


def test_versions(client):
    """Versions are numbered; "latest" is the newest, whatever its state."""
    create(client, "token", b"one", b"two\x00\xff")
    found = client.access_secret_version(name=f"{TOKEN}/versions/latest")

    assert found.name == f"{TOKEN}/versions/2"
    assert found.payload.data == b"two\x00\xff"
    assert found.payload.data_crc32c == google_crc32c.value(b"two\x00\xff")
    assert client.get_secret_version(name=f"{TOKEN}/versions/latest").state == State.ENABLED

    client.disable_secret_version(name=f"{TOKEN}/versions/2")

    with pytest.raises(exceptions.GoogleAPICallError, match=r"versions/2\] is in DISABLED state"):
        client.access_secret_version(name=f"{TOKEN}/versions/latest")
    assert client.access_secret_version(name=f"{TOKEN}/versions/1").payload.data == b"one"

    client.enable_secret_version(name=f"{TOKEN}/versions/2")
    client.destroy_secret_version(name=f"{TOKEN}/versions/1")

    assert client.access_secret_version(name=f"{TOKEN}/versions/latest").name == f"{TOKEN}/versions/2"
    with pytest.raises(exceptions.GoogleAPICallError, match=r"versions/1\] is in DESTROYED state"):
        client.enable_secret_version(name=f"{TOKEN}/versions/1")


def test_versions_are_listed_by_state_and_page(client):
    """The newest versions come first; a filter selects a state."""
    create(client, "token", b"one", b"two", b"three")
    client.disable_secret_version(name=f"{TOKEN}/versions/2")

    def numbers(**options):
        listed = client.list_secret_versions(request={"parent": TOKEN, "page_size": 1, **options})
        return [each.name.rpartition("/")[2] for each in listed]

    assert numbers() == ["3", "2", "1"]
    assert numbers(filter="state:ENABLED") == ["3", "1"]
    assert numbers(filter="state=DISABLED") == ["2"]


@pytest.mark.parametrize("was_sent", [True, False])
def test_checksum(client, was_sent):
    """The response has a flag that is true if the caller sent a checksum."""
    create(client)
    checksum = google_crc32c.value(b"one") if was_sent else None
    payload = api.SecretPayload(data=b"one", data_crc32c=checksum)

    assert client.add_secret_version(parent=TOKEN, payload=payload).client_specified_payload_checksum is was_sent


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (api.SecretPayload(data=b"x" * 65537), "larger than 65536 bytes"),
        (api.SecretPayload(), "cannot be empty"),
        (api.SecretPayload(data=b"one", data_crc32c=7), "checksum"),
    ],
    ids=["large", "empty", "damaged"],
)
def test_invalid_payload(client, payload, message):
    """A payload that Secret Manager rejects adds no version."""
    create(client)

    with pytest.raises(exceptions.BadRequest, match=message):
        client.add_secret_version(parent=TOKEN, payload=payload)
    assert list(client.list_secret_versions(parent=TOKEN)) == []


@pytest.mark.parametrize(
    ("method", "name", "error", "message"),
    [
        ("access_secret_version", "projects/acme/secrets/no/versions/1", exceptions.NotFound, "has no versions"),
        ("access_secret_version", f"{TOKEN}/versions/latest", exceptions.NotFound, "has no versions"),
        ("get_secret", "projects/acme/secrets/no", exceptions.NotFound, "not found"),
        ("delete_secret", "projects/acme/secrets/no", exceptions.NotFound, "not found"),
        ("get_secret_version", f"{TOKEN}/versions/{'1' * 5000}", exceptions.BadRequest, "resource name"),
    ],
)
def test_missing(client, method, name, error, message):
    """A missing secret or version is NOT_FOUND."""
    create(client)

    with pytest.raises(error, match=message):
        getattr(client, method)(name=name)


def test_existing_secret(client):
    """A secret cannot be created twice."""
    create(client)

    with pytest.raises(exceptions.Conflict, match=r"Secret \[projects/acme/secrets/token\] already exists"):
        create(client)


@pytest.mark.parametrize("secret_id", ["a b", "a/b", "", "x" * 256])
def test_invalid_id(over_grpc, secret_id):
    """The id of a secret has letters, digits, hyphens and underscores."""
    with pytest.raises(exceptions.InvalidArgument, match="Invalid"):
        create(over_grpc, secret_id)


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("get_secret", {"name": "projects/acme/secrets"}),
        ("access_secret_version", {"name": TOKEN}),
        ("access_secret_version", {"name": f"{TOKEN}/versions/a b"}),
        ("get_secret", {"name": "projects/acme/locations/europe-west4/secrets/token"}),
        ("list_secrets", {"parent": "acme"}),
        ("list_secrets", {"parent": PROJECT, "filter": "colour"}),
        ("list_secret_versions", {"parent": TOKEN, "filter": "colour"}),
        ("create_secret", {"parent": PROJECT, "secret_id": "new", "secret": {}}),
        ("update_secret", {"secret": {"name": TOKEN}, "update_mask": {"paths": ["colour"]}}),
        ("update_secret", {"secret": {"name": TOKEN}, "update_mask": {"paths": ["etag"]}}),
    ],
)
def test_invalid_request(over_grpc, method, request_):
    """A name, filter or mask that the service does not know is an invalid argument."""
    create(over_grpc)

    with pytest.raises(exceptions.InvalidArgument, match=r"Invalid|must be provided|cannot be updated"):
        getattr(over_grpc, method)(request=request_)


def test_update_without_a_mask_is_rejected(over_grpc):
    """An update of a secret needs a mask."""
    create(over_grpc)

    with pytest.raises(exceptions.InvalidArgument, match=r"Field \[update_mask\] is required\."):
        over_grpc.update_secret(request={"secret": {"name": TOKEN}})


@pytest.mark.parametrize(
    ("expression", "ids"),
    [
        ("name:tok", ["token"]),
        ("labels.team=a", ["other", "token"]),
        ("labels.team:*", ["other", "token"]),
        ("labels.team=b", []),
        ("labels.team=a AND name:oth", ["other"]),
    ],
)
def test_secrets_are_filtered(over_grpc, expression, ids):
    """Secrets are listed by name and label."""
    for secret_id in ("token", "other"):
        create(over_grpc, secret_id)
    found = over_grpc.list_secrets(request={"parent": PROJECT, "filter": expression})

    assert [each.name.rpartition("/")[2] for each in found] == ids


def test_alias_of_a_version(over_grpc):
    """A version can be accessed by an alias of the secret."""
    create(over_grpc, "token", b"one", b"two")
    secret = {"name": TOKEN, "version_aliases": {"stable": 1}}
    over_grpc.update_secret(request={"secret": secret, "update_mask": {"paths": ["version_aliases"]}})

    assert over_grpc.access_secret_version(name=f"{TOKEN}/versions/stable").payload.data == b"one"
    with pytest.raises(exceptions.NotFound, match=r"Secret Version \[.*versions/other\] not found"):
        over_grpc.access_secret_version(name=f"{TOKEN}/versions/other")


def test_etag(client):
    """A change with the etag of an older state is rejected; every change makes a new one."""
    create(client, "token", b"one")
    name = f"{TOKEN}/versions/1"
    etag = client.get_secret_version(name=name).etag
    client.enable_secret_version(request={"name": name, "etag": etag})

    with pytest.raises(exceptions.GoogleAPICallError, match="etag") as caught:
        client.disable_secret_version(request={"name": name, "etag": etag})
    assert caught.value.code == 400
    assert client.get_secret_version(name=name).state == State.ENABLED


def test_secrets_survive_a_restart(tmp_path):
    """Secrets, their versions and a deleted seed are saved with the state."""
    seeds = {"token": ["one", {"value": "two", "disabled": True}], "gone": "x"}
    with Emulator(state=tmp_path, secrets=seeds) as emulator:
        client = emulator.clients.secrets
        client.add_secret_version(parent=TOKEN, payload=api.SecretPayload(data=b"three\xff"))
        client.delete_secret(name=f"{PROJECT}/secrets/gone")
    with Emulator(state=tmp_path, secrets=seeds) as emulator:
        client = emulator.clients.secrets
        versions = [State(each.state).name for each in client.list_secret_versions(parent=TOKEN)]

        assert versions == ["ENABLED", "DISABLED", "ENABLED"]
        assert client.access_secret_version(name=f"{TOKEN}/versions/3").payload.data == b"three\xff"
        assert [each.name for each in client.list_secrets(parent=PROJECT)] == [TOKEN]


def test_state_is_private(tmp_path):
    """The files of the state are readable only by their owner, because they contain the values."""
    with Emulator(state=tmp_path, secrets={"token": "one"}) as emulator:
        emulator.clients.secrets.add_secret_version(parent=TOKEN, payload=api.SecretPayload(data=b"two"))

        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_console_has_no_value():
    """The console, the admin API and the repr of the emulator's options show no value."""
    with Emulator(secrets={"token": "s3cret"}) as emulator:
        cloud = Cloud(emulator)
        execution = cloud.finish(with_secret("token", "latest", "exit 3"))
        pages = [emulator.http, execution.log_uri, f"{emulator.http}/_emulator/faults"]
        shown = [requests.get(page, timeout=10).text for page in pages]

        assert "s3cret" not in "".join([*shown, repr(emulator.config), str(execution)])


def test_seeds_with_versions():
    """A value with a version is that version; a value without one is the newest version."""
    with Emulator(secrets={"token:2": "two", "token": "new"}) as emulator:
        client = emulator.clients.secrets

        assert client.access_secret_version(name=f"{TOKEN}/versions/2").payload.data == b"two"
        assert client.access_secret_version(name=f"{TOKEN}/versions/latest").name == f"{TOKEN}/versions/3"
        with pytest.raises(exceptions.FailedPrecondition, match="DESTROYED"):
            client.access_secret_version(name=f"{TOKEN}/versions/1")


@pytest.mark.parametrize(("value", "number"), [([], 1), (None, 2)])
def test_seed_without_a_value(value, number):
    """A secret exists even if it has no versions, or a destroyed version only, as in a file of the settings."""
    with Emulator(secrets={"token": value}) as emulator:
        added = emulator.clients.secrets.add_secret_version(parent=TOKEN, payload=api.SecretPayload(data=b"x"))

        assert added.name == f"{TOKEN}/versions/{number}"


@pytest.mark.parametrize(
    "value",
    [
        3,
        "",
        "s3cret" * 11000,
        [{"value": "s3cret", "colour": "red"}],
        {"value": "s3cret", "disabled": "no"},
        {"base64": "%"},
        [["s3cret"]],
    ],
)
def test_invalid_seed(value):
    """The values in the file are validated; the error shows none of them."""
    with pytest.raises(InvalidConfiguration, match="the value of the secret 'token'") as caught:
        Emulator(secrets={"token": value})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("secrets", [["s3cret"], {"a b": "x"}, {"token:0": "x"}, {"token:x": "x"}, {"": "x"}])
def test_invalid_seeds(secrets):
    """The file must be an object of secrets by id."""
    with pytest.raises(InvalidConfiguration, match=r"expected (a JSON object|the id of a secret)"):
        Emulator(secrets=secrets)


def test_permissions():
    """The roles of Secret Manager grant the same permissions as in the cloud."""
    members = ["serviceAccount:app-jobs@acme.iam.gserviceaccount.com"]
    role = "roles/secretmanager.secretAccessor"
    policy = {"bindings": [{"role": role, "members": members}]}
    with Emulator(iam=policy, secrets={"token": "one"}) as emulator:
        token = emulator.tokens.access_token("app-jobs@acme.iam.gserviceaccount.com")
        metadata = [("authorization", f"Bearer {token}")]
        client, name = emulator.clients.secrets, f"{TOKEN}/versions/latest"

        assert client.access_secret_version(name=name, metadata=metadata).payload.data == b"one"
        with pytest.raises(exceptions.PermissionDenied, match=r"secretmanager.versions.get' denied for resource"):
            client.get_secret_version(name=name, metadata=metadata)
        with pytest.raises(exceptions.Unauthenticated):
            client.access_secret_version(name=name)


@pytest.mark.parametrize(("version", "value"), [("latest", "two"), ("1", "one")])
def test_task_gets_the_version(emulator, version, value):
    """The version of a variable is resolved when the task starts."""
    create(emulator.clients.secrets, "token", b"one", b"two")
    cloud = Cloud(emulator)
    cloud.finish(with_secret("token", version))

    assert cloud.output() == [value]


@pytest.mark.parametrize(
    ("value", "message"), [(b"two", "is in DISABLED state"), (b"\xff", "is not text"), (b"\x00", "is not text")]
)
def test_task_without_a_usable_version_does_not_start(emulator, value, message):
    """If "latest" is disabled or not text, the execution fails before a task starts."""
    client = emulator.clients.secrets
    create(client, "token", b"one", value)
    if value == b"two":
        client.disable_secret_version(name=f"{TOKEN}/versions/2")
    execution = Cloud(emulator).finish(with_secret("token", "latest"))

    assert message in condition(execution).message
    assert not execution.start_time


@pytest.mark.parametrize("version", ["2", "0", "1" * 5000])
def test_task_whose_version_does_not_exist_does_not_start(emulator, version):
    """The execution fails, whatever the number."""
    create(emulator.clients.secrets, "token", b"one")
    execution = Cloud(emulator).finish(with_secret("token", version))

    assert "was not found" in condition(execution).message


def deleted(client):
    client.delete_secret(name=TOKEN)
    create(client, "token")


def disabled(client):
    client.disable_secret_version(name=f"{TOKEN}/versions/1")


@pytest.mark.parametrize("change", [deleted, disabled])
def test_seed_that_is_gone_does_not_start_a_task(change):
    """A value without a version no longer stands for any version when it is disabled or its secret is deleted."""
    with Emulator(secrets={"token": "one"}) as emulator:
        change(emulator.clients.secrets)
        execution = Cloud(emulator).finish(with_secret("token", "7"))

        assert "was not found" in condition(execution).message


def test_task_updates_a_secret(emulator):
    """`cloudrun_jobs.secrets` in a task uses the emulator, without a setting."""
    create(emulator.clients.secrets, "token", b"one")
    code = """
from django.conf import settings
settings.configure(CLOUDRUN_JOBS={"ENVIRONMENT": "production", "PROJECT": "acme"})
from cloudrun_jobs import secrets
print(secrets.read("token"), secrets.update("token", "two", expected=1), secrets.read("token"))
"""
    cloud = Cloud(emulator)
    cloud.finish(job(sys.executable, "-c", code))

    assert cloud.output() == ["one 2 two"], cloud.output("stderr")


def test_emulator_without_the_client(monkeypatch):
    """Without the extras `secrets` and `tasks`, the emulator starts, and jobs get the secrets of its options."""
    monkeypatch.setattr("cloudrun_jobs.emulator.methods.find_spec", lambda name: None)
    with Emulator(secrets={"token": "one"}) as emulator:
        cloud = Cloud(emulator)
        cloud.finish(with_secret("token", "latest"))

        assert cloud.output() == ["one"]
        assert "SecretManagerService.AccessSecretVersion" not in emulator.faults.methods
        assert "CloudTasks.CreateTask" not in emulator.faults.methods
