"""Artifact Registry: repositories of container images, and the images in them."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cloudrun_jobs.emulator.errors import ServiceError, invalid
from cloudrun_jobs.emulator.names import parent, short
from cloudrun_jobs.emulator.project.images import Image, Images
from cloudrun_jobs.emulator.project.paging import page

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudrun_jobs.emulator.clock import Clock
    from cloudrun_jobs.emulator.iam.policies import Policies
    from cloudrun_jobs.emulator.project.documents import Documents
    from cloudrun_jobs.emulator.service import Caller

REPOSITORY_ID = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
MEDIA_TYPE = "application/vnd.docker.distribution.manifest.v2+json"


class ArtifactRegistry:
    def __init__(self, documents: Documents, images: Images, policies: Policies, clock: Clock) -> None:
        self._documents = documents
        self._images = images
        self._policies = policies
        self._clock = clock
        self._operations: dict[str, dict[str, Any]] = {}

    def create(self, request: Mapping[str, Any], _: Caller) -> dict[str, Any]:
        repository_id = request.get("repositoryId", "")
        if not REPOSITORY_ID.fullmatch(repository_id):
            raise invalid(f"Invalid repository id {repository_id!r}.")
        name = f"{request['parent']}/repositories/{repository_id}"
        with self._documents.lock:
            if self._documents.get("repository", name) is not None or name in self._images.repositories():
                raise ServiceError("ALREADY_EXISTS", "the repository already exists")
            now = self._clock.now().isoformat().replace("+00:00", "Z")
            texts = {key: request[key] for key in ("description", "labels") if request.get(key)}
            given = {"format": request.get("format", "DOCKER"), "createTime": now, "updateTime": now, **texts}
            self._documents.put("repository", name, given)
        return self._operation(name, self._message(name), "Repository")

    def get(self, request: Mapping[str, Any], _: Caller) -> dict[str, Any]:
        return self._message(self.existing(request["name"]))

    def listed(self, request: Mapping[str, Any], _: Caller) -> dict[str, Any]:
        prefix = f"{request['parent']}/repositories/"
        names = {name for name in self._images.repositories() if name.startswith(prefix)}
        names |= set(self._documents.names("repository", prefix))
        return page("repositories", [self._message(name) for name in sorted(names)], request)

    def delete(self, request: Mapping[str, Any], _: Caller) -> dict[str, Any]:
        name = self.existing(request["name"])
        self._documents.remove("repository", name)
        for image in self._images.in_repository(name):
            self._documents.remove("image", image.document)
        self._policies.drop(name)
        return self._operation(name, {}, "Empty")

    def get_operation(self, request: Mapping[str, Any], _: Caller) -> dict[str, Any]:
        found = self._operations.get(request["name"])
        if found is None:
            raise ServiceError("NOT_FOUND", "Requested entity was not found.")
        return found

    def get_docker_image(self, request: Mapping[str, Any], _: Caller) -> dict[str, Any]:
        repository, _slash, last = request["name"].partition("/dockerImages/")
        package, _at, digest = last.partition("@")
        found = self._images.find_digest(repository, package, digest)
        return self._image(_found(found, "image", last))

    def list_docker_images(self, request: Mapping[str, Any], _: Caller) -> dict[str, Any]:
        repository = self.existing(request["parent"])
        found = {image.digest + image.package: image for image in self._images.in_repository(repository)}
        return page("dockerImages", [self._image(image) for image in found.values()], request)

    def get_package(self, request: Mapping[str, Any], _: Caller) -> dict[str, Any]:
        repository, package = _package(request["name"])
        if self._images.are_listed and not self._images.in_repository(repository, package):
            raise _not_found("package", package)
        return {"name": _name(repository, package)}

    def get_tag(self, request: Mapping[str, Any], _: Caller) -> dict[str, Any]:
        repository, package = _package(parent(request["name"]))
        tag = short(request["name"])
        return _tag(_found(self._images.find_tag(repository, package, tag), "tag", f"{package}:{tag}"))

    def list_tags(self, request: Mapping[str, Any], _: Caller) -> dict[str, Any]:
        tags = [_tag(image) for image in self._images.in_repository(*_package(request["parent"])) if image.tag]
        return page("tags", tags, request)

    def get_version(self, request: Mapping[str, Any], _: Caller) -> dict[str, Any]:
        repository, package = _package(parent(request["name"]))
        digest = short(request["name"])
        return self._version(_found(self._images.find_digest(repository, package, digest), "version", digest))

    def list_versions(self, request: Mapping[str, Any], _: Caller) -> dict[str, Any]:
        images = self._images.in_repository(*_package(request["parent"]))
        found = {image.digest: image for image in images}
        return page("versions", [self._version(image) for image in found.values()], request)

    def existing(self, name: str) -> str:
        """Return the name of a repository if it exists. Without a list of images, each one does."""
        created = self._documents.get("repository", name) is not None
        if not created and self._images.are_listed and name not in self._images.repositories():
            raise ServiceError("NOT_FOUND", f'Repository "{name}" not found')
        return name

    def _message(self, name: str) -> dict[str, Any]:
        return {"name": name, "format": "DOCKER", "mode": "STANDARD_REPOSITORY"} | (
            self._documents.get("repository", name) or {}
        )

    def _operation(self, name: str, response: dict[str, Any], kind: str) -> dict[str, Any]:
        place = "/".join(name.split("/")[:4])
        operation = f"{place}/operations/{uuid.uuid4()}"
        package = "google.protobuf" if kind == "Empty" else "google.devtools.artifactregistry.v1"
        typed = {"@type": f"type.googleapis.com/{package}.{kind}", **response}
        self._operations[operation] = {"name": operation, "done": True, "response": typed}
        return self._operations[operation]

    def _image(self, image: Image) -> dict[str, Any]:
        tags = [
            each.tag
            for each in self._images.in_repository(image.repository, image.package)
            if each.digest == image.digest and each.tag
        ]
        encoded = quote(image.package, safe="")
        return {
            "name": f"{image.repository}/dockerImages/{encoded}@{image.digest}",
            "uri": f"{image.uri}@{image.digest}",
            "tags": tags,
            "mediaType": MEDIA_TYPE,
            "imageSizeBytes": "0",
        }

    def _version(self, image: Image) -> dict[str, Any]:
        tags = [
            {"name": f"{_name(image.repository, image.package)}/tags/{tag}", "version": _version_name(image)}
            for tag in self._image(image)["tags"]
        ]
        return {"name": _version_name(image), "relatedTags": tags}


def no_occurrences(_: Mapping[str, Any], __: Caller) -> dict[str, Any]:
    """Return no vulnerabilities, which gcloud looks up when it describes an image."""
    return {}


def _tag(image: Image) -> dict[str, Any]:
    name = f"{_name(image.repository, image.package)}/tags/{image.tag}"
    return {"name": name, "version": _version_name(image)}


def _name(repository: str, package: str) -> str:
    return f"{repository}/packages/{quote(package, safe='')}"


def _version_name(image: Image) -> str:
    return f"{_name(image.repository, image.package)}/versions/{image.digest}"


def _package(name: str) -> tuple[str, str]:
    """Return the repository and the package, in which a slash is kept encoded in the path of a request."""
    repository, _, package = name.partition("/packages/")
    return repository, package


def _found(image: Image | None, kind: str, name: str) -> Image:
    if image is None:
        raise _not_found(kind, name)
    return image


def _not_found(kind: str, name: str) -> ServiceError:
    return ServiceError("NOT_FOUND", f"{kind.capitalize()} {name!r} not found.")
