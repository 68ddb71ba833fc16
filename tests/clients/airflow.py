"""Airflow's Cloud Run hook and operator."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any
from unittest import mock

from tests.clients.emulator import PROJECT, REGION, anonymous, emulator, fails_with, home, step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.api_core.client_options import ClientOptions

TASK = {"image": "app", "command": ["/bin/sh"], "args": ["-c", "exit 0"]}
JOB = {"template": {"template": {"containers": [TASK], "max_retries": 0}}}


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """Replace only the endpoint and the credentials of Airflow's hook."""
    from airflow.providers.google.cloud.hooks.cloud_run import CloudRunHook

    with (
        mock.patch.object(CloudRunHook, "__init__", without_connection(CloudRunHook.__init__)),
        mock.patch.object(CloudRunHook, "get_credentials", return_value=anonymous()),
        mock.patch.object(CloudRunHook, "is_default_universe", return_value=True),
        mock.patch.object(CloudRunHook, "_get_api_endpoint", return_value=address),
        mock.patch.object(CloudRunHook, "get_client_options", client_options),
    ):
        yield


def without_connection(original: Callable[..., None]) -> Callable[..., None]:
    """Return a hook constructor that skips the connection in Airflow's database and uses REST."""

    def init(
        self: Any,
        gcp_conn_id: str = "google_cloud_default",
        impersonation_chain: object = None,
        transport: str | None = None,
        **kwargs: Any,
    ) -> None:
        with mock.patch("airflow.providers.google.common.hooks.base_google.GoogleBaseHook.get_connection"):
            original(self, gcp_conn_id=gcp_conn_id, impersonation_chain=None, transport="rest", **kwargs)

    return init


def client_options(_: Any, api_endpoint_override: str | None = None, **__: Any) -> ClientOptions:
    from google.api_core.client_options import ClientOptions

    return ClientOptions(api_endpoint=api_endpoint_override)


def execute(job_name: str, overrides: dict[str, Any] | None = None) -> Any:
    from airflow.providers.google.cloud.operators.cloud_run import CloudRunExecuteJobOperator

    operator = CloudRunExecuteJobOperator(
        task_id="run", project_id=PROJECT, region=REGION, job_name=job_name, overrides=overrides, deferrable=False
    )
    return operator.execute({"ti": mock.MagicMock(), "task_instance": mock.MagicMock()})


def main() -> None:
    from airflow.providers.common.compat.sdk import AirflowException
    from airflow.providers.google.cloud.hooks.cloud_run import CloudRunHook

    with emulator() as addresses, connected(addresses.http):
        hook = CloudRunHook()
        created = hook.create_job(job_name="work", job=JOB, region=REGION, project_id=PROJECT)
        assert created.name == f"projects/{PROJECT}/locations/{REGION}/jobs/work"
        step("created", created.name)

        listed = [job.name for job in hook.list_jobs(region=REGION, project_id=PROJECT)]
        assert listed == [created.name]
        step("listed", len(listed))

        done = execute("work", {"container_overrides": [{"args": ["-c", "exit 0"]}], "task_count": 2})
        assert done["execution_count"] == 1
        step("executed", done["latest_created_execution"]["name"])

        with fails_with("exit code: 3", AirflowException):
            execute("work", {"container_overrides": [{"args": ["-c", "exit 3"]}]})
        step("failed as expected")

        hook.delete_job(job_name="work", region=REGION, project_id=PROJECT)
        assert list(hook.list_jobs(region=REGION, project_id=PROJECT)) == []
        step("deleted")


if __name__ == "__main__":
    with home():
        os.environ["AIRFLOW_HOME"] = os.environ["HOME"]
        main()
