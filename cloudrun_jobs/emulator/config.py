"""The options of an emulator: frozen values, validated on creation."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudrun_jobs.emulator import closed_world

if TYPE_CHECKING:
    from collections.abc import Mapping

# Free on a machine with the emulators of gcloud, Firebase and other projects, which use 8080 to 8087 and 8123.
DEFAULT_PORT = 8490
DEFAULT_GRPC_PORT = 8491
API_NAME = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)*\.googleapis\.com")


class InvalidConfiguration(ValueError):
    """An option of the emulator is invalid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The options of an emulator, shared by `Emulator` and the command line. Paths may be given as text."""

    port: int = 0  # HTTP port; 0 chooses a free port.
    grpc_port: int = 0
    directory: Path = field(default_factory=Path.cwd)  # Working directory of images without an entry in `images`.
    images: Mapping[str, Path] = field(default_factory=dict)
    no_entrypoint: tuple[str, ...] = ()  # Names of `images` without an entry point: the arguments are the command.
    grace: float = 10.0  # Seconds between SIGTERM and SIGKILL.
    max_parallelism: int = max(4, 2 * (os.cpu_count() or 1))  # Used for jobs with parallelism 0.
    enforce_memory: bool = False
    pass_env: tuple[str, ...] = ()  # Names of variables passed from the emulator's environment to tasks.
    allow_hosts: tuple[str, ...] = ()  # Hosts, other than this machine, that tasks may call over HTTP.
    services: Mapping[str, str] = field(default_factory=dict)  # Local URLs that stand in for services, by name.
    retention: int = 1000  # Finished executions kept per job.
    state: Path | None = None
    secrets: Mapping[str, Any] = field(default_factory=dict, repr=False)  # Values, or lists of versions, by id.
    iam: Mapping[str, Any] | None = None
    disabled_apis: tuple[str, ...] = ()  # APIs that are disabled at the start, such as run.googleapis.com.
    registry: tuple[str, ...] | None = None  # Images that exist in Artifact Registry; None: every image exists.

    def __post_init__(self) -> None:
        self._convert()
        if self.grace < 0:
            raise InvalidConfiguration(f"expected a grace of 0 s or more, got {self.grace}")
        if self.max_parallelism < 1:
            raise InvalidConfiguration(f"expected a max_parallelism of 1 or more, got {self.max_parallelism}")
        self._check_images()
        self._check_project()
        self._check_closed_world()
        for name, url in self.services.items():
            if not closed_world.is_local_url(url):
                raise InvalidConfiguration(f"expected a URL of this machine for the service {name!r}, got {url!r}")

    def _convert(self) -> None:
        """Make paths of texts, and reject a text in place of several."""
        for name in ("no_entrypoint", "pass_env", "allow_hosts", "disabled_apis", "registry"):
            if isinstance(value := getattr(self, name), str):
                raise InvalidConfiguration(f"expected a list of texts for {name}, got {value!r}")
        object.__setattr__(self, "directory", Path(self.directory))
        object.__setattr__(self, "images", {name: Path(path) for name, path in self.images.items()})
        object.__setattr__(self, "state", None if self.state is None else Path(self.state))

    def _check_images(self) -> None:
        for name, directory in {"directory": self.directory, **self.images}.items():
            if not directory.is_dir():
                raise InvalidConfiguration(f"expected a directory for {name!r}, got {str(directory)!r}")
        for name in self.no_entrypoint:
            if name not in self.images:
                known = ", ".join(self.images) or "no images"
                raise InvalidConfiguration(f"expected an image for no_entrypoint, one of {known}, got {name!r}")

    def _check_project(self) -> None:
        for name in self.disabled_apis:
            if not API_NAME.fullmatch(name):
                raise InvalidConfiguration(f"expected an API such as run.googleapis.com, got {name!r}")
        for image in self.registry or ():
            if not isinstance(image, str) or not image:
                raise InvalidConfiguration(f"expected a list of names of container images, got {image!r}")

    def _check_closed_world(self) -> None:
        for name in self.pass_env:
            if closed_world.is_closed(name):
                raise InvalidConfiguration(
                    f"expected no variable to pass that the emulator sets or removes, got {name}"
                )
        for host in self.allow_hosts:
            if not closed_world.HOST.fullmatch(host) or closed_world.is_google(host):
                raise InvalidConfiguration(
                    f"expected a host other than Google's to allow, such as api.example.com, got {host!r}"
                )

    def directory_of(self, image: str) -> Path:
        """Return the directory for a container image, looked up with and without the image's tag."""
        return self.images.get(self._name_of(image), self.directory)

    def has_entrypoint(self, image: str) -> bool:
        return self._name_of(image) not in self.no_entrypoint

    def _name_of(self, image: str) -> str:
        if image in self.images:
            return image
        without_digest = image.partition("@")[0]
        head, colon, tag = without_digest.rpartition(":")
        return head if colon and "/" not in tag else without_digest


def bin_directory(directory: Path) -> Path:
    """Return the directory of the image's ``python``: its own virtual environment, or the emulator's."""
    own = directory / ".venv" / "bin"
    return own if (own / "python").exists() else Path(sys.executable).parent


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidConfiguration(f"expected a readable JSON file at {str(path)!r}: {error}") from error
