"""Serve Cloud Monitoring's alert policies and uptime checks from memory. Forward other requests to an emulator.

gcloud sends fields that it does not know. So that mistakes are found, requests are compared with the messages that
Google generated for gcloud.
"""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

Resource = dict[str, Any]
MESSAGES = "lib/googlecloudsdk/generated_clients/apis/monitoring/v3/monitoring_v3_messages.py"


@cache
def messages() -> dict[str, ast.ClassDef]:
    gcloud = Path(str(shutil.which("gcloud"))).resolve()
    tree = ast.parse((gcloud.parents[1] / MESSAGES).read_text())
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def mistakes(value: Resource, name: str) -> Iterator[str]:
    """Yield the unknown fields and enum values of a message."""
    body = messages()[name].body
    fields = {ast.unparse(node.targets[0]): node.value for node in body if isinstance(node, ast.Assign)}
    enums = {node.name: ast.unparse(node) for node in body if isinstance(node, ast.ClassDef)}
    for key, item in value.items():
        if key not in fields:
            yield f"{name}: unknown field {key}"
            continue
        call = fields[key]
        assert isinstance(call, ast.Call)
        kind = ast.literal_eval(call.args[0])
        for each in item if isinstance(item, list) else [item]:
            if kind in messages() and isinstance(each, dict):
                yield from mistakes(each, kind)
            elif str(kind).endswith("Enum") and f"    {each} = " not in enums.get(kind, f"    {each} = "):
                yield f"{name}.{key}: unknown value {each}"


@dataclass
class Monitoring:
    """The resources by name, and the requests that wrote them."""

    address: str = ""
    resources: dict[str, Resource] = field(default_factory=dict)
    writes: list[tuple[str, str]] = field(default_factory=list)

    @property
    def policies(self) -> dict[str, Resource]:
        """The alert policies by display name."""
        found = (each for name, each in self.resources.items() if "/alertPolicies/" in name)
        return {each["displayName"]: each for each in found}

    def answer(self, method: str, path: str, mask: str | None, body: Resource) -> tuple[int, Resource]:
        """Respond like the API v3 to requests that list, get, create and change resources."""
        name = path.removeprefix("/v3/")
        collection = name.rpartition("/")[2]
        if method == "GET" and name in self.resources:
            return 200, self.resources[name]
        if method == "GET":
            return 200, {collection: [each for key, each in self.resources.items() if key.startswith(f"{name}/")]}
        if found := list(mistakes(body, "AlertPolicy" if "/alertPolicies" in name else "UptimeCheckConfig")):
            return 400, {"error": {"code": 400, "message": "; ".join(found)}}
        self.writes.append((method, name))
        if method == "POST":
            name = f"{name}/{1000 + len(self.resources)}"
            self.resources[name] = {"enabled": True, **body, "name": name}
        else:
            kept = self.resources[name] if mask else {"enabled": True}
            changed = {key: body.get(key) for key in mask.split(",")} if mask else body
            self.resources[name] = {**kept, **changed, "name": name}
        return 200, self.resources[name]


class Handler(BaseHTTPRequestHandler):
    monitoring: Monitoring
    emulator: str

    def answer(self) -> None:
        url, body = urlsplit(self.path), self.rfile.read(int(self.headers["Content-Length"] or 0))
        if url.hostname == "monitoring.googleapis.com":
            mask = parse_qs(url.query).get("updateMask", [None])[0]
            status, resource = self.monitoring.answer(self.command, url.path, mask, json.loads(body or "{}"))
            answer = json.dumps(resource).encode()
        else:
            connection = HTTPConnection(self.emulator.removeprefix("http://"))
            connection.request(self.command, self.path, body, dict(self.headers))
            response = connection.getresponse()
            status, answer = response.status, response.read()
            connection.close()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = do_PATCH = answer  # noqa: N815  (the names of the base class)

    def log_message(self, *args: Any) -> None:
        """Log nothing."""


@contextmanager
def serve(emulator: str) -> Iterator[Monitoring]:
    """Serve as the HTTP proxy of gcloud."""
    monitoring = Monitoring()
    handler = type("Handler", (Handler,), {"monitoring": monitoring, "emulator": emulator})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, args=(0.01,)).start()
        monitoring.address = f"127.0.0.1:{server.server_port}"
        yield monitoring
        server.shutdown()
