"""Check that the Cloud Run Jobs exist, match the code and have their images."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from cloudrun_jobs.deploy.cloudrun.fields import own_container
from cloudrun_jobs.deploy.drift import command_of
from cloudrun_jobs.deploy.jobs import unfit_entrypoint
from cloudrun_jobs.deploy.plan import Change, Desired
from cloudrun_jobs.deploy.plan.printing import describe_field, shown_fields
from cloudrun_jobs.doctor.checks.check import Check
from cloudrun_jobs.doctor.checks.schedules import is_unscheduled_reconcile
from cloudrun_jobs.doctor.commands import IMAGE, gcloud, manage
from cloudrun_jobs.doctor.facts import IMAGE_NAME, Facts, repository_of
from cloudrun_jobs.doctor.findings import Finding
from cloudrun_jobs.spec import JobSpec

DEFAULT_RETRIES = 3  # Cloud Run's.
SYNC = "sync_cloudrun_jobs"


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
        images = () if spec.image else ("--image", facts.usual_image() or IMAGE)
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
    fields = {field.name: field for field in shown_fields(change)}
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
        declare = "" if is_synced else f"In the class of {spec.command}: max_retries = 0, or 3 to keep them, then "
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
            image=str(existing.fields.get("image") or facts.usual_image() or IMAGE),
            region=facts.region,
            project=facts.project,
        )
        yield Finding("job_not_ready", spec.command, f"The Cloud Run Job {spec.name} is {existing.trouble}", fix)


def container_ambiguous(facts: Facts, spec: JobSpec) -> Iterator[Finding]:
    existing = facts.existing_jobs().get(spec.name)
    containers = list(existing.message.template.template.containers) if existing else []
    if len(containers) > 1:
        own = own_container(containers)
        names = [container.name for container in containers if container is not own]
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


def image_differs(facts: Facts, spec: JobSpec) -> Iterator[Finding]:
    usual = _other_image(facts, spec)
    if usual and not facts.lacks_image(_image(facts, spec)):
        message = f"{spec.name} has the image {_image(facts, spec)}, the other jobs have {usual}."
        yield Finding("image_differs", spec.command, message, _sync_image(spec, usual))


def _other_image(facts: Facts, spec: JobSpec) -> str:
    """Return the image of the other jobs; "" if this job has it, or one of its own."""
    image, usual = _image(facts, spec), facts.usual_image()
    return usual if spec.image is None and image and image != usual else ""


def _sync_image(spec: JobSpec, image: str) -> str:
    return manage(SYNC, "--image", image, "--command", spec.command)


def image_missing(facts: Facts, spec: JobSpec) -> Iterator[Finding]:
    image, usual = _image(facts, spec), _other_image(facts, spec)
    found = IMAGE_NAME.fullmatch(image)
    if found is None or facts.has_image(image):
        return
    message = f"The image of {spec.name} does not exist: {image}."
    if usual and not facts.lacks_image(usual):
        fix = _sync_image(spec, usual)
    elif facts.repository_exists(repository_of(found)):
        fix = _build(spec, found)
    else:
        message = f"{message} Nor does its repository, {found['repository']}."
        where = {"location": found["location"], "project": found["project"]}
        create = ("artifacts", "repositories", "create", found["repository"])
        fix = f"{gcloud(*create, repository_format='docker', **where)} && {_build(spec, found)}"
    yield Finding("image_missing", spec.command, message, fix)


def _build(spec: JobSpec, found: re.Match[str]) -> str:
    """Return the command that builds and pushes the image, by the working directory's Dockerfile."""
    name = found[0].partition("@")[0]
    files = sorted(path.name for path in Path().glob("Dockerfile*"))
    if not files or "Dockerfile" in files:
        build = gcloud("builds", "submit", ".", tag=name, project=found["project"])
    else:  # gcloud builds by a file of that name only.
        build = (
            f"{shlex.join(['docker', 'build', f'--file={files[0]}', f'--tag={name}', '.'])} && docker push {name}"
        )
    # No build has the digest of another one.
    return f"{build} && {_sync_image(spec, name)}" if found["digest"] else build


def unchecked_images(facts: Facts) -> list[str]:
    """Return the images that are not in Artifact Registry."""
    images = {_image(facts, spec) for spec in facts.deployed()} - {""}
    return sorted(image for image in images if not IMAGE_NAME.fullmatch(image))


def _orphans(facts: Facts) -> tuple[Change, ...]:
    orphans = facts.job_drift().plan.orphans
    return tuple(change for change in orphans if not is_unscheduled_reconcile(command_of(change)))


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
