"""django-cloudrun-job's command `run_remote`: a management command as a job made from a service."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

from tests.clients.emulator import PARENT, PROJECT, REGION, emulator, fails_with, grpc_clients, home, project, step

if TYPE_CHECKING:
    from pathlib import Path

ACCOUNT = f"web@{PROJECT}.iam.gserviceaccount.com"
IMAGE = "europe-docker.pkg.dev/acme/images/web:1"
SETTINGS = f"""
SECRET_KEY = "x"
INSTALLED_APPS = ["django_cloudrun_job"]
CLOUDRUN_REMOTE = {{"PROJECT_ID": "{PROJECT}", "REGION": "{REGION}", "SERVICE": "web"}}
"""
MANAGE = """
import os
import sys

from django.core.management import execute_from_command_line

os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
execute_from_command_line(sys.argv)
"""


def deploy() -> None:
    """Deploy the service that the job takes its image and its environment from."""
    from google.cloud import run_v2

    container = {
        "image": IMAGE,
        "env": [{"name": "DJANGO_SETTINGS_MODULE", "value": "settings"}],
        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
        "volume_mounts": [{"name": "cloudsql", "mount_path": "/cloudsql"}],
    }
    volume = {"name": "cloudsql", "cloud_sql_instance": {"instances": [f"{PROJECT}:{REGION}:db"]}}
    template = {"containers": [container], "volumes": [volume], "service_account": ACCOUNT}
    service = run_v2.Service({"template": template})
    run_v2.ServicesClient().create_service(parent=PARENT, service=service, service_id="web").result()


def run_remote(*arguments: str) -> list[str]:
    from django.core.management import call_command

    output = io.StringIO()
    call_command("run_remote", *arguments, stdout=output, no_color=True)
    return [line.strip() for line in output.getvalue().splitlines()]


def main(directory: Path) -> None:
    import django
    from django.core.management import CommandError
    from google.cloud import run_v2

    sys.path.insert(0, str(directory))
    os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
    django.setup()

    with fails_with("Cannot read service 'web': 404", CommandError):
        run_remote("check")
    step("refused a missing service")

    deploy()
    lines = run_remote("check")
    assert "Created job 'web-mgmt'" in lines, lines
    assert "Done. Job completed successfully." in lines, lines
    step("created the job and ran `check`")

    job = run_v2.JobsClient().get_job(name=f"{PARENT}/jobs/web-mgmt")
    task, container = job.template.template, job.template.template.containers[0]
    assert (container.image, list(container.command)) == (IMAGE, ["python", "manage.py"])
    assert container.volume_mounts[0].mount_path == "/cloudsql"
    assert task.volumes[0].cloud_sql_instance.instances == [f"{PROJECT}:{REGION}:db"]
    assert task.service_account == ACCOUNT
    assert task.timeout.total_seconds() == 86400
    step("kept the service's image, volumes, account and limits")

    lines = run_remote("--timeout", "60", "--no-wait", "diffsettings")
    assert "Updated job 'web-mgmt'" in lines, lines
    assert "/executions/web-mgmt-" in next(line for line in lines if line.startswith("Console:"))
    step("updated the job and started it without waiting")

    with fails_with("Job failed:", CommandError):
        run_remote("no_such_command")
    step("failed as expected")


if __name__ == "__main__":
    with (
        home(),
        project({"manage.py": MANAGE, "settings.py": SETTINGS}) as directory,
        emulator("--directory", str(directory)) as addresses,
        grpc_clients(addresses.grpc),
    ):
        main(directory)
