"""Build the command lines that fix findings."""

from __future__ import annotations

import shlex

SCHEDULER_AGENT = "service-{}@gcp-sa-cloudscheduler.iam.gserviceaccount.com"
COMPUTE_DOMAIN = "developer.gserviceaccount.com"  # The domain of each project's default account.
DEFAULT_ACCOUNT = f"{{}}-compute@{COMPUTE_DOMAIN}"

IMAGE = "IMAGE"  # Where no image is known.


def gcloud(*words: str, **flags: str) -> str:
    """Return a command line: `gcloud("services", "enable", "run.googleapis.com", project="acme")`."""
    options = (f"--{name.replace('_', '-')}={value}" for name, value in flags.items())
    return shlex.join(("gcloud", *words, *options))


def grant_on(kind: tuple[str, ...], name: str, account: str, role: str, **flags: str) -> str:
    """Return a command line that grants a role on a resource: `grant_on(("run", "jobs"), ...)`."""
    given = {**flags, "member": member(account), "role": role}
    condition = {"condition": "None"} if kind == ("projects",) else {}  # gcloud asks, if others have conditions.
    return gcloud(*kind, "add-iam-policy-binding", name, **given, **condition)


def manage(*words: str) -> str:
    """Return a command line of `manage.py`."""
    return shlex.join(("manage.py", *words))


def member(account: str) -> str:
    """Return an account as IAM policies name it."""
    return f"{'serviceAccount' if is_service_account(account) else 'user'}:{account}"


def is_service_account(account: str) -> bool:
    return account.endswith(".gserviceaccount.com")


def project_of(account: str, default: str) -> str:
    """Return the project of a service account."""
    name, _, domain = account.partition("@")
    if domain == "appspot.gserviceaccount.com":
        return name
    own, suffix, _ = domain.partition(".iam.gserviceaccount.com")
    id_, _, organization = own.partition(".")  # Of a project within a domain: acme.example.com.
    return (f"{organization}:{id_}" if organization else own) if suffix else default
