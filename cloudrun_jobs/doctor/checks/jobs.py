"""Check that the Cloud Run Jobs exist, match the code and have their images."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator

from cloudrun_jobs.deploy.drift import command_of
from cloudrun_jobs.deploy.jobs import unfit_entrypoint
from cloudrun_jobs.deploy.plan import Change, Desired
from cloudrun_jobs.deploy.plan.printing import describe_field
from cloudrun_jobs.doctor.checks.check import Check
from cloudrun_jobs.doctor.commands import gcloud, manage
from cloudrun_jobs.doctor.facts import Facts
from cloudrun_jobs.doctor.findings import Finding
from cloudrun_jobs.spec import JobSpec

DEFAULT_RETRIES = 3  # Cloud Run's.
SYNC, IMAGE = "sync_cloudrun_jobs", "IMAGE"
# us-docker.pkg.dev/acme/repository/some/image:tag@sha256:0123
IMAGE_NAME = re.compile(
    r"(?P<location>[a-z0-9-]+)-docker\.pkg\.dev/(?P<project>[^/]+)/(?P<repository>[^/]+)/(?P<package>[^:@]+)"
    r"(:(?P<tag>[^@]+))?(@(?P<digest>sha256:[0-9a-f]+))?"
)


def _change(facts: Facts, spec: JobSpec) -> Change | None:
    """Return the change that a sync would make to the job."""
    changes = facts.job_drift().plan.changes
    return next((change for change in changes if command_of(change) == spec.command), None)


def _is_adopted(change: Change) -> bool:
    return change.existing is not None and change.existing.ownership is not None


def _sync(spec: JobSpec) -> str:
    return manage(SYNC, "--command", spec.command)


def command_unreadable(facts: Facts, subject: tuple[str, BaseException]) -> Iterator[Finding]:
    name, error = subject
    message = f"{name}: cannot be imported, so no sync changes anything. {type(error).__name__}: {error}"
    yield Finding("command_unreadable", name, message, manage(name, "--help"))


def job_undeployable(facts: Facts, command: str) -> Iterator[Finding]:
    error = facts.job_drift().errors[command]
    yield Finding("job_undeployable", command, error.args[0], error.hint or manage("check"))


def job_missing(facts: Facts, spec: JobSpec) -> Iterator[Finding]:
    change = _change(facts, spec)
    if change is not None and change.action == "create":
        images = () if spec.image else ("--image", _usual_image(facts) or IMAGE)
        fix = manage(SYNC, *images, "--command", spec.command)
        message = f"The Cloud Run Job {spec.name} does not exist in {facts.project}, {facts.region}."
        yield Finding("job_missing", spec.command, message, fix)


def job_not_synced(facts: Facts, spec: JobSpec) -> Iterator[Finding]:
    change = _change(facts, spec)
    if change is not None and change.action == "update" and not _is_adopted(change):
        message = f"The Cloud Run Job {spec.name} was created by other means, and never synced from this code."
        yield Finding("job_not_synced", spec.command, message, _sync(spec))


def job_fields(facts: Facts, spec: JobSpec) -> Iterator[Finding]:
    change = _change(facts, spec)
    if change is None or change.action != "update" or not _is_adopted(change):
        return
    fields = {field.name: field for field in change.fields}
    if _has_default_retries(facts, spec):
        fields.pop("max_retries", None)
    if entrypoint := fields.pop("entrypoint", None):
        message = f"{spec.name} does not start this code: {describe_field(entrypoint)}."
        yield Finding("entrypoint_differs", spec.command, message, _sync(spec))
    if fields:
        message = f"{spec.name} differs from the code: {', '.join(map(describe_field, fields.values()))}."
        yield Finding("job_drift", spec.command, message, _sync(spec))


def retries_default(facts: Facts, spec: JobSpec) -> Iterator[Finding]:
    if _has_default_retries(facts, spec):
        change = _change(facts, spec)
        is_synced = change is not None and "max_retries" in {field.name for field in change.fields}
        declare = "" if is_synced else f"In the class of {spec.command}: max_retries = 0, then "
        message = (
            f"{spec.name} retries failed tasks {DEFAULT_RETRIES} times, Cloud Run's default; the code declares no"
            " retries."
        )
        yield Finding("retries_default", spec.command, message, declare + _sync(spec))


def _has_default_retries(facts: Facts, spec: JobSpec) -> bool:
    existing = facts.existing_jobs().get(spec.name)
    if existing is None or existing.ownership is None:
        return False
    return existing.fields.get("max_retries") == DEFAULT_RETRIES and "max_retries" not in spec.declared


def entrypoint_unfit(facts: Facts, spec: JobSpec) -> Iterator[Finding]:
    """An adopted job keeps its entrypoint, which determines if the arguments begin with `manage.py`."""
    existing, desired = facts.existing_jobs().get(spec.name), _desired(facts, spec)
    if existing and desired and (entrypoint := unfit_entrypoint(desired, existing)):
        message = (
            f"{spec.name} starts {shlex.join(entrypoint)}, but the code's arguments are for another entrypoint."
        )
        fix = f"In the class of {spec.command}: entrypoint = {list(entrypoint)}"
        yield Finding("entrypoint_differs", spec.command, message, fix)


def _desired(facts: Facts, spec: JobSpec) -> Desired | None:
    return next((item for item in facts.job_drift().desired if item.id == spec.name), None)


def job_orphaned(facts: Facts, change: Change) -> Iterator[Finding]:
    words = ("--command", command) if (command := command_of(change)) in facts.commands() else ()
    message = f"The Cloud Run Job {change.id} was synced from a command that no longer declares it."
    yield Finding("job_orphaned", command, message, manage(SYNC, "--prune", *map(str, words)))


def job_not_ready(facts: Facts, spec: JobSpec) -> Iterator[Finding]:
    existing = facts.existing_jobs().get(spec.name)
    if existing and existing.trouble:
        fix = gcloud(
            *("run", "jobs", "update", spec.name),
            image=str(existing.fields.get("image")),
            region=facts.region,
            project=facts.project,
        )
        yield Finding("job_not_ready", spec.command, f"The Cloud Run Job {spec.name} is {existing.trouble}", fix)


def container_ambiguous(facts: Facts, spec: JobSpec) -> Iterator[Finding]:
    existing = facts.existing_jobs().get(spec.name)
    containers = existing.message.template.template.containers if existing else ()
    if len(containers) > 1:
        names = [container.name for container in containers[1:]]
        fix = gcloud(
            *("run", "jobs", "update", spec.name),
            remove_containers=",".join(names),
            region=facts.region,
            project=facts.project,
        )
        message = (
            f"{spec.name} has {len(containers)} containers ({', '.join(names)} beside the job's own), so Cloud Run"
            " rejects executions with arguments."
        )
        yield Finding("container_ambiguous", spec.command, message, fix)


def _image(facts: Facts, spec: JobSpec) -> str:
    existing = facts.existing_jobs().get(spec.name)
    return str(existing.fields.get("image", "")) if existing else ""


def _usual_image(facts: Facts) -> str:
    """Return the most common image of the environment's jobs; if several are, that of the job changed last.

    Jobs whose class declares an image do not count.
    """
    environment = facts.backend.settings.environment
    own = {spec.name for spec in facts.deployed() if spec.image is not None}
    found = [
        (str(item.fields.get("image", "")), item.message.update_time)
        for item in facts.existing_jobs().values()
        if item.id not in own and item.ownership is not None and item.ownership.environment == environment
    ]
    counts = Counter(image for image, _ in found)
    return max(found, key=lambda item: (counts[item[0]], item[1]), default=("", None))[0]


def image_differs(facts: Facts, spec: JobSpec) -> Iterator[Finding]:
    image, usual = _image(facts, spec), _usual_image(facts)
    if spec.image is None and image and image != usual:
        message = f"{spec.name} has the image {image}, the other jobs have {usual}."
        yield Finding(
            "image_differs", spec.command, message, manage(SYNC, "--image", usual, "--command", spec.command)
        )


def image_missing(facts: Facts, spec: JobSpec) -> Iterator[Finding]:
    image = _image(facts, spec)
    found = IMAGE_NAME.fullmatch(image)
    if found is None:
        return
    repository = f"projects/{found['project']}/locations/{found['location']}/repositories/{found['repository']}"
    version = f"versions/{found['digest']}" if found["digest"] else f"tags/{found['tag'] or 'latest'}"
    if not facts.image_exists(repository, found["package"], version):
        message = f"The image of {spec.name} does not exist: {image}."
        fix = gcloud("builds", "submit", ".", tag=image.partition("@")[0], project=found["project"])
        yield Finding("image_missing", spec.command, message, fix)


def unchecked_images(facts: Facts) -> list[str]:
    """Return the images that are not in Artifact Registry."""
    images = {_image(facts, spec) for spec in facts.deployed()} - {""}
    return sorted(image for image in images if not IMAGE_NAME.fullmatch(image))


def _orphans(facts: Facts) -> tuple[Change, ...]:
    return facts.job_drift().plan.orphans


CHECKS = (
    Check(("command_unreadable",), command_unreadable, lambda facts: facts.unreadable.items()),
    Check(("job_undeployable",), job_undeployable, lambda facts: facts.job_drift().errors),
    Check(("job_missing",), job_missing, Facts.deployed),
    Check(("job_not_synced",), job_not_synced, Facts.deployed),
    Check(("entrypoint_differs", "job_drift"), job_fields, Facts.deployed),
    Check(("retries_default",), retries_default, Facts.deployed),
    Check(("entrypoint_differs",), entrypoint_unfit, Facts.deployed),
    Check(("job_orphaned",), job_orphaned, _orphans),
    Check(("job_not_ready",), job_not_ready, Facts.deployed),
    Check(("container_ambiguous",), container_ambiguous, Facts.deployed),
    Check(("image_differs",), image_differs, Facts.deployed),
    Check(("image_missing",), image_missing, Facts.deployed),
)
