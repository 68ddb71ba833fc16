"""The container images that exist in Artifact Registry. No image is stored, only names."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from google.cloud import run_v2

    from cloudrun_jobs.emulator.project.documents import Documents

REFERENCE = re.compile(
    r"(?P<location>[a-z0-9-]+)-docker\.pkg\.dev/(?P<project>[^/]+)/(?P<repository>[^/:@]+)/(?P<package>[^:@]+)"
    r"(?::(?P<tag>[\w.-]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
PUBLIC_PROJECTS = ("cloudrun",)  # Google's samples.


@dataclass(frozen=True, slots=True)
class Image:
    """The name of an image in Artifact Registry, with a tag or a digest."""

    repository: str  # projects/P/locations/L/repositories/R
    package: str
    tag: str
    digest: str

    @classmethod
    def parse(cls, reference: str) -> Image | None:
        """Return the parts of an image's name; None for an image of another registry."""
        match = REFERENCE.fullmatch(reference)
        if match is None:
            return None
        place = f"projects/{match['project']}/locations/{match['location']}"
        tag = match["tag"] or ("" if match["digest"] else "latest")
        return cls(f"{place}/repositories/{match['repository']}", match["package"], tag, match["digest"] or "")

    @property
    def uri(self) -> str:
        _, project, _, location, _, repository = self.repository.split("/")
        return f"{location}-docker.pkg.dev/{project}/{repository}/{self.package}"

    @property
    def document(self) -> str:
        return f"{self.uri}:{self.tag}" if self.tag else f"{self.uri}@{self.digest}"


class Images:
    """The images by name. Without a list of them, each image exists."""

    def __init__(self, documents: Documents, listed: Iterable[str] | None) -> None:
        self._documents = documents
        self.are_listed = listed is not None
        for reference in listed or ():
            self._add(reference, save=False)

    def push(self, reference: str) -> None:
        """Add an image, as ``docker push`` does."""
        self._add(reference, save=True)

    def exists(self, reference: str) -> bool:
        """Return True if Cloud Run can pull this image. Images of other registries always exist."""
        image = Image.parse(reference)
        if image is None or not self.are_listed or image.repository.split("/")[1] in PUBLIC_PROJECTS:
            return True
        found = self.in_repository(image.repository, image.package)
        return any(each.digest == image.digest or (image.tag and each.tag == image.tag) for each in found)

    def missing(self, template: run_v2.TaskTemplate | run_v2.RevisionTemplate) -> str | None:
        """Return the first image of a task or a revision that does not exist."""
        images = [container.image for container in template.containers]
        return next((image for image in images if not self.exists(image)), None)

    def find_tag(self, repository: str, package: str, tag: str) -> Image | None:
        if not self.are_listed:
            image = Image(repository, package, tag, "")
            return Image(repository, package, tag, _digest(image.document))
        return next((each for each in self.in_repository(repository, package) if each.tag == tag), None)

    def find_digest(self, repository: str, package: str, digest: str) -> Image | None:
        found = [each for each in self.in_repository(repository, package) if each.digest == digest]
        if not found and not self.are_listed:
            return Image(repository, package, "", digest)
        return found[0] if found else None

    def in_repository(self, repository: str, package: str = "") -> list[Image]:
        """Return the images of a repository, or only those of one package."""
        return [each for each in self._all() if each.repository == repository and package in ("", each.package)]

    def repositories(self) -> set[str]:
        return {image.repository for image in self._all()}

    def _all(self) -> Iterator[Image]:
        for name in self._documents.names("image"):
            image = Image.parse(name)
            if image is not None:
                yield dataclasses.replace(image, digest=self._documents.get("image", name))

    def _add(self, reference: str, *, save: bool) -> None:
        image = Image.parse(reference)
        if image is None:
            return
        add = self._documents.put if save else self._documents.restore
        add("image", image.document, image.digest or _digest(image.document))


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
