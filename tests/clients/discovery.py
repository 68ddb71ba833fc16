"""google-api-python-client: every method of the discovery documents that the emulator serves, called once.

A method that the emulator does not serve is refused as Google's frontends refuse an unknown URL. A method that it
serves and that no step here calls fails the program, so that a new method gets its step.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from tests.clients.emulator import (
    PARENT,
    PROJECT,
    REGION,
    anonymous,
    emulator,
    eventually,
    fails_with,
    google_hosts,
    home,
    step,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCATIONS = f"projects/{PROJECT}/locations"
UNIMPLEMENTED = 501
NAMESPACE = f"namespaces/{PROJECT}"
ACCOUNT = f"projects/{PROJECT}/serviceAccounts/runner@{PROJECT}.iam.gserviceaccount.com"
POLICY = {"policy": {"bindings": [{"role": "roles/run.invoker", "members": ["user:ada@example.com"]}]}}


class Api:
    """A client of one API, which counts the methods that were called."""

    def __init__(self, name: str, version: str, host: str = "") -> None:
        from googleapiclient import discovery

        self.name, self.called = f"{name}.{version}", set[str]()
        endpoint = {"api_endpoint": f"http://{host or name}.googleapis.com"}
        self._client = discovery.build(
            name, version, credentials=anonymous(), client_options=endpoint, static_discovery=True
        )

    def __call__(self, method: str, **arguments: Any) -> Any:
        self.called.add(method)
        *resources, verb = method.split(".")
        resource = self._client
        for part in resources:
            resource = getattr(resource, part)()
        return getattr(resource, verb)(**arguments).execute()

    def methods(self) -> dict[str, Any]:
        return dict(_methods(self._client._rootDesc))

    def is_served(self, method: str) -> bool:
        """Call a method on a resource that does not exist, and return True unless its URL is unknown."""
        from googleapiclient.errors import HttpError

        names = {
            name.replace(".", "_"): _example(parameter.get("pattern", "projects/none"))
            for name, parameter in self.methods()[method].get("parameters", {}).items()
            if parameter.get("required") and parameter["type"] == "string"
        }
        body: dict[str, Any] = {"body": {}} if "request" in self.methods()[method] else {}
        called = set(self.called)
        try:
            self(method, **names, **body)
        except HttpError as error:
            return "The requested URL" not in str(error) and error.status_code != UNIMPLEMENTED
        finally:
            self.called = called
        return True

    def check(self, besides: tuple[str, ...] = ()) -> None:
        """Expect that every method is called here or not served, besides those that begin with these words."""
        left = [
            method for method in self.methods() if method not in self.called and not method.startswith(besides)
        ]
        served = [method for method in left if self.is_served(method)]
        assert not served, f"{self.name} is served, but not called here: {', '.join(served)}"
        step(f"{self.name}: called {len(self.called)} methods, of {len(self.methods())}")


def _methods(resource: dict[str, Any], *path: str) -> Iterator[tuple[str, Any]]:
    for name, method in resource.get("methods", {}).items():
        yield ".".join((*path, name)), method
    for name, nested in resource.get("resources", {}).items():
        yield from _methods(nested, *path, name)


def _example(pattern: str) -> str:
    """Return a name that matches a parameter's pattern, such as `^projects/[^/]+$`."""
    pattern = pattern.strip("^$")
    return pattern.replace("[^/]+/[^/]+/", "projects/none/", int(pattern.startswith("["))).replace("[^/]+", "none")


def run_v2() -> None:
    from googleapiclient.errors import HttpError

    api = Api("run", "v2")
    container = {"image": "app", "command": ["/bin/sh", "-c", 'exec sleep "$0"'], "args": ["0"]}
    job = {"template": {"template": {"containers": [container], "maxRetries": 0}}}
    jobs, name = "projects.locations.jobs", f"{PARENT}/jobs/v2"

    def finish(operation: dict[str, Any]) -> Any:
        done = api("projects.locations.operations.wait", name=operation["name"], body={"timeout": "30s"})
        assert done["done"], done
        assert "error" not in done, done
        return done["response"]

    created = finish(api(f"{jobs}.create", parent=PARENT, jobId="v2", body=job))
    assert created["name"] == name
    assert api(f"{jobs}.get", name=name)["template"]["template"]["maxRetries"] == 0
    assert [one["name"] for one in api(f"{jobs}.list", parent=PARENT)["jobs"]] == [name]
    labelled = finish(api(f"{jobs}.patch", name=name, body={**job, "labels": {"team": "a"}}))
    assert labelled["labels"] == {"team": "a"}
    assert labelled["template"] == created["template"]

    operation = api(f"{jobs}.run", name=name, body={"overrides": {"taskCount": 2}})
    execution = finish(operation)
    assert execution["succeededCount"] == 2
    assert api("projects.locations.operations.get", name=operation["name"])["done"]
    listed = api("projects.locations.operations.list", name=PARENT)["operations"]
    assert operation["name"] in {one["name"] for one in listed}
    api("projects.locations.operations.delete", name=operation["name"])

    long = api(f"{jobs}.run", name=name, body={"overrides": {"containerOverrides": [{"args": ["60"]}]}})
    running = long["metadata"]["name"]
    eventually(lambda: api(f"{jobs}.executions.get", name=running).get("runningCount") == 1)
    assert finish(api(f"{jobs}.executions.cancel", name=running, body={}))["cancelledCount"] == 1
    assert len(api(f"{jobs}.executions.list", parent=name)["executions"]) == 2
    tasks = api(f"{jobs}.executions.tasks.list", parent=execution["name"])["tasks"]
    assert api(f"{jobs}.executions.tasks.get", name=tasks[0]["name"])["uid"] == tasks[0]["uid"]
    finish(api(f"{jobs}.executions.delete", name=running))
    policies(api, jobs, name)
    finish(api(f"{jobs}.delete", name=name))

    services, name = "projects.locations.services", f"{PARENT}/services/v2"
    service = {"template": {"containers": [{"image": "app"}]}}
    finish(api(f"{services}.create", parent=PARENT, serviceId="v2", body=service))
    assert api(f"{services}.get", name=name)["latestReadyRevision"]
    assert len(api(f"{services}.list", parent=PARENT)["services"]) == 1
    finish(api(f"{services}.patch", name=name, body={"template": {"containers": [{"image": "app:2"}]}}))
    revisions = api(f"{services}.revisions.list", parent=name)["revisions"]
    assert api(f"{services}.revisions.get", name=revisions[0]["name"])["containers"][0]["image"] == "app:2"
    policies(api, services, name)
    finish(api(f"{services}.delete", name=name))

    pools, name = "projects.locations.workerPools", f"{PARENT}/workerPools/v2"
    finish(api(f"{pools}.create", parent=PARENT, workerPoolId="v2", body=service))
    assert api(f"{pools}.get", name=name)["template"]["containers"][0]["image"] == "app"
    assert len(api(f"{pools}.list", parent=PARENT)["workerPools"]) == 1
    finish(api(f"{pools}.patch", name=name, body={"template": {"containers": [{"image": "app:2"}]}}))
    policies(api, pools, name)
    assert not api(f"{pools}.revisions.list", parent=name).get("revisions")
    with fails_with("404", HttpError):
        api(f"{pools}.revisions.get", name=f"{name}/revisions/none")
    finish(api(f"{pools}.delete", name=name))
    api.check()


def policies(api: Api, collection: str, name: str) -> None:
    """Set and read the IAM policy of a resource."""
    api(f"{collection}.setIamPolicy", resource=name, body=POLICY)
    assert api(f"{collection}.getIamPolicy", resource=name)["bindings"] == POLICY["policy"]["bindings"]
    permissions = {"permissions": ["run.jobs.run"]}
    assert api(f"{collection}.testIamPermissions", resource=name, body=permissions) == permissions


def run_v1() -> None:
    from googleapiclient.errors import HttpError

    api = Api("run", "v1", host=f"{REGION}-run")
    name = f"{NAMESPACE}/jobs/v1"
    task = {"containers": [{"image": "app", "command": ["/bin/sleep"], "args": ["0"]}], "maxRetries": 0}
    job = {
        "apiVersion": "run.googleapis.com/v1",
        "kind": "Job",
        "metadata": {"name": "v1", "namespace": PROJECT},
        "spec": {"template": {"spec": {"template": {"spec": task}}}},
    }
    created = api("namespaces.jobs.create", parent=NAMESPACE, body=job)
    assert created["metadata"]["name"] == "v1"
    (listed,) = api("namespaces.jobs.list", parent=NAMESPACE)["items"]
    assert listed["metadata"]["name"] == "v1"
    job["spec"]["template"]["spec"]["taskCount"] = 2  # type: ignore[index]
    api("namespaces.jobs.replaceJob", name=name, body=job)
    assert api("namespaces.jobs.get", name=name)["spec"]["template"]["spec"]["taskCount"] == 2

    def ended(execution: dict[str, Any]) -> Any:
        read = api("namespaces.executions.get", name=f"{NAMESPACE}/executions/{execution['metadata']['name']}")
        return read if read["status"].get("completionTime") else None

    execution = api("namespaces.jobs.run", name=name, body={})
    assert eventually(lambda: ended(execution))["status"]["succeededCount"] == 2
    selector = f"run.googleapis.com/execution={execution['metadata']['name']}"
    tasks = api("namespaces.tasks.list", parent=NAMESPACE, labelSelector=selector)["items"]
    assert len(tasks) == 2
    first = api("namespaces.tasks.get", name=f"{NAMESPACE}/tasks/{tasks[0]['metadata']['name']}")
    assert first["metadata"]["uid"] == tasks[0]["metadata"]["uid"]

    long = api("namespaces.jobs.run", name=name, body={"overrides": {"containerOverrides": [{"args": ["60"]}]}})
    running = f"{NAMESPACE}/executions/{long['metadata']['name']}"
    eventually(lambda: api("namespaces.executions.get", name=running)["status"].get("runningCount"))
    api("namespaces.executions.cancel", name=running, body={})
    assert eventually(lambda: ended(long))["status"]["cancelledCount"] == 2
    assert len(api("namespaces.executions.list", parent=NAMESPACE)["items"]) == 2
    api("namespaces.executions.delete", name=running)
    policies(api, "projects.locations.jobs", f"{PARENT}/jobs/v1")
    api("namespaces.jobs.delete", name=name)

    def knative(kind: str) -> dict[str, Any]:
        spec = {"template": {"spec": {"containers": [{"image": "app"}]}}}
        version = "serving.knative.dev/v1" if kind == "Service" else "run.googleapis.com/v1"
        return {
            "apiVersion": version,
            "kind": kind,
            "metadata": {"name": "v1", "namespace": PROJECT},
            "spec": spec,
        }

    name = f"{NAMESPACE}/services/v1"
    api("namespaces.services.create", parent=NAMESPACE, body=knative("Service"))
    api("namespaces.services.replaceService", name=name, body=knative("Service"))
    ready = api("namespaces.services.get", name=name)["status"]["latestReadyRevisionName"]
    for resource in ("services", "revisions", "routes", "configurations"):
        assert api(f"namespaces.{resource}.list", parent=NAMESPACE)["items"], resource
    assert api("projects.locations.services.list", parent=PARENT)["items"]
    assert api("namespaces.revisions.get", name=f"{NAMESPACE}/revisions/{ready}")["metadata"]["name"] == ready
    assert api("namespaces.routes.get", name=f"{NAMESPACE}/routes/v1")["status"]["url"]
    assert api("namespaces.configurations.get", name=f"{NAMESPACE}/configurations/v1")["kind"] == "Configuration"
    policies(api, "projects.locations.services", f"{PARENT}/services/v1")
    api("namespaces.services.delete", name=name)

    name = f"{NAMESPACE}/workerpools/v1"
    api("namespaces.workerpools.create", parent=NAMESPACE, body=knative("WorkerPool"))
    api("namespaces.workerpools.replaceWorkerPool", name=name, body=knative("WorkerPool"))
    assert api("namespaces.workerpools.get", name=name)["metadata"]["name"] == "v1"
    assert len(api("namespaces.workerpools.list", parent=NAMESPACE)["items"]) == 1
    policies(api, "projects.locations.workerpools", f"{PARENT}/workerpools/v1")
    api("namespaces.workerpools.delete", name=name)
    assert api("projects.locations.list", name=f"projects/{PROJECT}")["locations"]
    with fails_with("404", HttpError):
        api("projects.locations.operations.get", name=f"{PARENT}/operations/none")
    api.check()


def scheduler() -> None:
    from googleapiclient.errors import HttpError

    api, jobs, name = Api("cloudscheduler", "v1"), "projects.locations.jobs", f"{PARENT}/jobs/daily"
    target = {"uri": "http://127.0.0.1:9/", "httpMethod": "POST"}
    job = {"name": name, "schedule": "0 3 * * *", "timeZone": "Asia/Tokyo", "httpTarget": target}
    assert api(f"{jobs}.create", parent=PARENT, body=job)["state"] == "ENABLED"
    assert api(f"{jobs}.list", parent=PARENT)["jobs"][0]["name"] == name
    changed = api(f"{jobs}.patch", name=name, updateMask="schedule", body={"schedule": "0 4 * * *"})
    assert (changed["schedule"], changed["timeZone"]) == ("0 4 * * *", "Asia/Tokyo")
    assert api(f"{jobs}.pause", name=name, body={})["state"] == "PAUSED"
    assert api(f"{jobs}.resume", name=name, body={})["state"] == "ENABLED"
    api(f"{jobs}.run", name=name, body={})
    assert eventually(lambda: api(f"{jobs}.get", name=name).get("status", {}).get("code"))
    api(f"{jobs}.delete", name=name)
    assert api("projects.locations.get", name=PARENT)["locationId"] == REGION
    assert api("projects.locations.list", name=f"projects/{PROJECT}")["locations"]
    with fails_with("404", HttpError):
        api("projects.locations.operations.get", name=f"{PARENT}/operations/none")
    api.check()


def cloud_tasks() -> None:
    api, queues, name = Api("cloudtasks", "v2"), "projects.locations.queues", f"{PARENT}/queues/mail"
    assert api(f"{queues}.create", parent=PARENT, body={"name": name})["state"] == "RUNNING"
    assert api(f"{queues}.list", parent=PARENT)["queues"][0]["name"] == name
    changed = api(
        f"{queues}.patch",
        name=name,
        updateMask="retryConfig.maxAttempts",
        body={"retryConfig": {"maxAttempts": 3}},
    )
    assert changed["retryConfig"]["maxAttempts"] == 3
    assert api(f"{queues}.pause", name=name, body={})["state"] == "PAUSED"
    tasks, request = f"{queues}.tasks", {"url": "http://127.0.0.1:9/", "httpMethod": "POST"}
    for task in ("first", "second"):
        body = {"task": {"name": f"{name}/tasks/{task}", "httpRequest": request}}
        assert api(f"{tasks}.create", parent=name, body=body)["name"] == f"{name}/tasks/{task}"
    assert len(api(f"{tasks}.list", parent=name)["tasks"]) == 2
    assert api(f"{tasks}.run", name=f"{name}/tasks/first", body={})["name"] == f"{name}/tasks/first"
    assert eventually(lambda: api(f"{tasks}.get", name=f"{name}/tasks/first").get("dispatchCount"))
    api(f"{tasks}.delete", name=f"{name}/tasks/second")
    assert api(f"{queues}.purge", name=name, body={})["name"] == name
    assert api(f"{queues}.resume", name=name, body={})["state"] == "RUNNING"
    assert api(f"{queues}.get", name=name)["state"] == "RUNNING"
    policies(api, queues, name)
    api(f"{queues}.delete", name=name)
    assert api("projects.locations.get", name=PARENT)["locationId"] == REGION
    assert api("projects.locations.list", name=f"projects/{PROJECT}")["locations"]
    api.check(besides=("projects.locations.operations.",))  # Those of Cloud Run.


def logging() -> None:
    from googleapiclient.errors import HttpError

    api, log = Api("logging", "v2"), f"projects/{PROJECT}/logs/app"
    entries = [{"textPayload": "hello", "severity": "ERROR", "resource": {"type": "global"}}]
    api("entries.write", body={"logName": log, "entries": entries})
    query = {"resourceNames": [f"projects/{PROJECT}"], "filter": f'logName="{log}" AND severity>=WARNING'}
    assert [entry["textPayload"] for entry in api("entries.list", body=query)["entries"]] == ["hello"]
    assert log in api("projects.logs.list", parent=f"projects/{PROJECT}")["logNames"]
    api("projects.logs.delete", logName=log)
    with fails_with("404", HttpError):
        api("logs.delete", logName=log)
    assert api("entries.list", body=query).get("entries", []) == []
    assert api("monitoredResourceDescriptors.list")["resourceDescriptors"]
    for locations in ("projects.locations", "locations"):
        assert api(f"{locations}.get", name=PARENT)["locationId"] == REGION
    assert api("projects.locations.list", name=f"projects/{PROJECT}")["locations"]
    # The emulator has projects alone, and its operations are those of Cloud Run.
    operations = ("projects.locations.operations.", "locations.operations.")
    api.check(besides=("billingAccounts.", "folders.", "organizations.", *operations))


def secret_manager() -> None:
    api, secrets, name = Api("secretmanager", "v1"), "projects.secrets", f"projects/{PROJECT}/secrets/password"
    body: dict[str, Any] = {"replication": {"automatic": {}}}
    api(f"{secrets}.create", parent=f"projects/{PROJECT}", secretId="password", body=body)
    payload = {"payload": {"data": base64.b64encode(b"hush").decode()}}
    version = api(f"{secrets}.addVersion", parent=name, body=payload)["name"]
    latest = api(f"{secrets}.versions.access", name=f"{name}/versions/latest")
    assert latest["payload"]["data"] == payload["payload"]["data"]
    assert api(f"{secrets}.versions.disable", name=version, body={})["state"] == "DISABLED"
    assert api(f"{secrets}.versions.enable", name=version, body={})["state"] == "ENABLED"
    assert api(f"{secrets}.versions.get", name=version)["state"] == "ENABLED"
    assert len(api(f"{secrets}.versions.list", parent=name)["versions"]) == 1
    assert api(f"{secrets}.versions.destroy", name=version, body={})["state"] == "DESTROYED"
    labelled = api(f"{secrets}.patch", name=name, updateMask="labels", body={"labels": {"team": "a"}})
    assert labelled["labels"] == api(f"{secrets}.get", name=name)["labels"] == {"team": "a"}
    assert len(api(f"{secrets}.list", parent=f"projects/{PROJECT}")["secrets"]) == 1
    policies(api, secrets, name)
    api(f"{secrets}.delete", name=name)
    assert api("projects.locations.get", name=PARENT)["locationId"] == REGION
    assert api("projects.locations.list", name=f"projects/{PROJECT}")["locations"]
    api.check(besides=("projects.locations.secrets.",))  # Regional secrets are refused.


def iam() -> None:
    api, accounts, project = Api("iam", "v1"), "projects.serviceAccounts", f"projects/{PROJECT}"
    assert api(f"{accounts}.create", name=project, body={"accountId": "runner"})["name"] == ACCOUNT
    assert api(f"{accounts}.get", name=ACCOUNT)["projectId"] == PROJECT
    assert len(api(f"{accounts}.list", name=project)["accounts"]) == 1
    policies(api, accounts, ACCOUNT)
    api(f"{accounts}.delete", name=ACCOUNT)

    roles, name = "projects.roles", f"{project}/roles/runner"
    role = {"title": "Runner", "includedPermissions": ["run.jobs.run"]}
    api(f"{roles}.create", parent=project, body={"roleId": "runner", "role": role})
    api(f"{roles}.patch", name=name, updateMask="title", body={"title": "Job runner"})
    assert api(f"{roles}.get", name=name)["title"] == "Job runner"
    assert len(api(f"{roles}.list", parent=project)["roles"]) == 1
    assert api(f"{roles}.delete", name=name)["deleted"]
    assert api("roles.get", name="roles/run.invoker")["includedPermissions"]
    assert api("permissions.queryTestablePermissions", body={"fullResourceName": f"//run.googleapis.com/{PARENT}"})
    api.check()


def resource_manager() -> None:
    from googleapiclient.errors import HttpError

    for version, name in (("v1", PROJECT), ("v3", f"projects/{PROJECT}")):
        api, key = Api("cloudresourcemanager", version), "projectId" if version == "v1" else "name"
        assert api("projects.get", **{key: name})["projectId"] == PROJECT
        body: dict[str, Any] = {"body": {}} if "request" in api.methods()["projects.getIamPolicy"] else {}
        policy = api("projects.getIamPolicy", resource=name, **body)
        api("projects.setIamPolicy", resource=name, body={"policy": policy})
        permissions = {"permissions": ["run.jobs.run"]}
        assert api("projects.testIamPermissions", resource=name, body=permissions) == permissions
        if version == "v1":
            with fails_with("404", HttpError):
                api("operations.get", name="operations/none")
        api.check()


def service_usage() -> None:
    api, name = Api("serviceusage", "v1"), f"projects/{PROJECT}/services/run.googleapis.com"
    for verb, state in (("disable", "DISABLED"), ("enable", "ENABLED")):
        operation = api(f"services.{verb}", name=name, body={})
        assert api("operations.get", name=operation["name"])["done"]
        assert api("services.get", name=name)["state"] == state
    listed = api("services.list", parent=f"projects/{PROJECT}")["services"]
    assert "run.googleapis.com" in {service["config"]["name"] for service in listed}, listed
    api.check()


def main() -> None:
    for part in (
        run_v2,
        run_v1,
        scheduler,
        cloud_tasks,
        logging,
        secret_manager,
        iam,
        resource_manager,
        service_usage,
    ):
        part()


if __name__ == "__main__":
    with home(), emulator() as addresses, google_hosts(addresses.http):
        main()
