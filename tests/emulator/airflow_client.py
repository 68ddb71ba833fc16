"""Run Airflow's Cloud Run hook and operator against an emulator, in a separate virtual environment.

Install ``apache-airflow-providers-google`` there, and pass the Python that has the emulator:
``python tests/emulator/airflow_client.py /path/to/python``. This is a program and not a test module, because
Airflow and Django conflict in one environment.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.api_core.client_options import ClientOptions

PROJECT, REGION = "acme", "europe-west4"
TASK = {"image": "app", "command": ["/bin/sh"], "args": ["-c", "exit 0"]}
JOB = {"template": {"template": {"containers": [TASK], "max_retries": 0}}}


@contextlib.contextmanager
def emulator(python: str) -> Iterator[str]:
    """Run an emulator in its own process; yield its HTTP address."""
    command = [python, "-m", "cloudrun_jobs.emulator", "--port", "0", "--grpc-port", "0", "--json", "--grace", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["http"]
        finally:
            process.terminate()


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """Replace only the endpoint and the credentials of Airflow's hook."""
    from airflow.providers.google.cloud.hooks.cloud_run import CloudRunHook
    from google.auth.credentials import AnonymousCredentials

    with (
        mock.patch.object(CloudRunHook, "__init__", without_connection(CloudRunHook.__init__)),
        mock.patch.object(CloudRunHook, "get_credentials", return_value=AnonymousCredentials()),
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


def failure(job_name: str, overrides: dict[str, Any]) -> str:
    """Return Airflow's error message for a failing run."""
    from airflow.providers.common.compat.sdk import AirflowException

    try:
        execute(job_name, overrides)
    except AirflowException as error:
        return f"{error} {error.__cause__}"
    raise AssertionError("expected a task that exits 3 to fail")


def report(*values: object) -> None:
    sys.stdout.write(" ".join(map(str, values)) + "\n")


def main(python: str) -> None:
    from airflow.providers.google.cloud.hooks.cloud_run import CloudRunHook

    with emulator(python) as address, connected(address):
        hook = CloudRunHook()
        created = hook.create_job(job_name="work", job=JOB, region=REGION, project_id=PROJECT)
        assert created.name == f"projects/{PROJECT}/locations/{REGION}/jobs/work"
        report("created", created.name)

        listed = [job.name for job in hook.list_jobs(region=REGION, project_id=PROJECT)]
        assert listed == [created.name]
        report("listed", len(listed))

        done = execute("work", {"container_overrides": [{"args": ["-c", "exit 0"]}], "task_count": 2})
        assert done["execution_count"] == 1
        report("executed", done["latest_created_execution"]["name"])

        message = failure("work", {"container_overrides": [{"args": ["-c", "exit 3"]}]})
        assert "exit code: 3" in message
        report("failed as expected")

        hook.delete_job(job_name="work", region=REGION, project_id=PROJECT)
        assert list(hook.list_jobs(region=REGION, project_id=PROJECT)) == []
        report("deleted")


if __name__ == "__main__":
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as home:
        os.environ["AIRFLOW_HOME"] = home
        main(sys.argv[1])
