"""Build the command lines that fix findings."""

from __future__ import annotations

import shlex

SCHEDULER_AGENT = "service-{}@gcp-sa-cloudscheduler.iam.gserviceaccount.com"
COMPUTE_DOMAIN = "developer.gserviceaccount.com"  # The domain of each project's default account.
DEFAULT_ACCOUNT = f"{{}}-compute@{COMPUTE_DOMAIN}"


def gcloud(*words: str, **flags: str) -> str:
    """Return a command line: `gcloud("services", "enable", "run.googleapis.com", project="acme")`."""
    options = (f"--{name.replace('_', '-')}={value}" for name, value in flags.items())
    return shlex.join(("gcloud", *words, *options))


def manage(*words: str) -> str:
    """Return a command line of `manage.py`."""
    return shlex.join(("manage.py", *words))


def member(account: str) -> str:
    """Return an account as IAM policies name it."""
    kind = "serviceAccount" if account.endswith(".gserviceaccount.com") else "user"
    return f"{kind}:{account}"


def project_of(account: str, default: str) -> str:
    """Return the project of a service account."""
    name, _, domain = account.partition("@")
    if domain == "appspot.gserviceaccount.com":
        return name
    own, suffix, _ = domain.partition(".iam.gserviceaccount.com")
    return own if suffix else default
