"""Run the real gcloud, with an emulator as its HTTP proxy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REGION, PROJECT = "europe-west4", "acme"
NEEDS_GCLOUD = pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed")


@dataclass
class Gcloud:
    """Calls gcloud with a separate configuration."""

    http: str
    directory: Path
    token: str = "fake"

    def __call__(self, *args: str, succeeds: bool = True) -> Any:
        """Run gcloud and return its JSON output; if `succeeds` is false, return stderr."""
        done = subprocess.run(
            ["gcloud", *args, "--format=json"], capture_output=True, text=True, timeout=90, env=self.environment()
        )
        assert (done.returncode == 0) is succeeds, done.stderr
        if not succeeds:
            return done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None

    def environment(self) -> dict[str, str]:
        """Return the environment for gcloud."""
        port = self.http.rpartition(":")[2]
        settings = {
            "CLOUDSDK_CONFIG": str(self.directory),
            "CLOUDSDK_AUTH_ACCESS_TOKEN": self.token,
            "CLOUDSDK_CORE_PROJECT": PROJECT,
            "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "1",
            "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "1",
            "CLOUDSDK_CORE_SHOULD_PROMPT_TO_ENABLE_API": "0",
            "CLOUDSDK_RUN_REGION": REGION,
            # Regional calls prefix the host with the region, so only a proxy can receive them.
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_RUN": "http://run.googleapis.com/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDSCHEDULER": "http://cloudscheduler.googleapis.com/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_LOGGING": "http://logging.googleapis.com/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER": "http://secretmanager.googleapis.com/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_MONITORING": "http://monitoring.googleapis.com/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_SERVICEUSAGE": "http://serviceusage.googleapis.com/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDRESOURCEMANAGER": "http://cloudresourcemanager.googleapis.com/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_IAM": "http://iam.googleapis.com/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_ARTIFACTREGISTRY": "http://artifactregistry.googleapis.com/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_CONTAINERANALYSIS": "http://containeranalysis.googleapis.com/",
            "CLOUDSDK_PROXY_TYPE": "http_no_tunnel",
            "CLOUDSDK_PROXY_ADDRESS": "127.0.0.1",
            "CLOUDSDK_PROXY_PORT": port,
        }
        keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return {**keep, **settings}
