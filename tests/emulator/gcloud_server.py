"""Load gcloud once and fork for each call: gcloud's own start takes a second of CPU, and a fork a tenth of it.

Run by gcloud's Python: `python -S gcloud_server.py LIB SOCKET`, until standard input is closed.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from typing import Any, NoReturn

# Commands whose modules are loaded before the first call.
COMMANDS = (
    "run deploy",
    "run jobs add-iam-policy-binding",
    "run jobs deploy",
    "run jobs execute",
    "run jobs list",
    "run jobs replace",
    "run jobs update",
    "run services describe",
    "run services update-traffic",
    "scheduler jobs create http",
    "scheduler jobs list",
    "secrets create",
    "secrets add-iam-policy-binding",
    "projects add-iam-policy-binding",
    "iam service-accounts create",
    "iam service-accounts add-iam-policy-binding",
    "services enable",
    "artifacts repositories create",
    "monitoring policies create",
)
CLIENTS = {
    "run": ("v1", "v2"),
    "cloudscheduler": ("v1",),
    "secretmanager": ("v1",),
    "iam": ("v1",),
    "cloudresourcemanager": ("v1",),
    "serviceusage": ("v1",),
}


def load() -> Any:
    """Return gcloud's command tree, with what most calls import."""
    cli = importlib.import_module("googlecloudsdk.gcloud_main").CreateCLI([])
    apis = importlib.import_module("googlecloudsdk.api_lib.util.apis")
    for command in COMMANDS:
        cli._TopElement().LoadSubElementByPath(command.replace("-", "_").split())
    for api, versions in CLIENTS.items():
        for version in versions:
            apis.GetMessagesModule(api, version)
            apis.GetClientClass(api, version)
    return cli


def serve(cli: Any, listener: socket.socket) -> None:
    """Answer each connection in a process of its own, until standard input is closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    number = listener.fileno()
    while True:
        readable, _, _ = select.select([number, 0], [], [])
        if 0 in readable:
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            answer(cli, connection)
        connection.close()


def answer(cli: Any, connection: socket.socket) -> NoReturn:
    """Send the exit code of the client's call, and end this process."""
    code = 70
    try:
        code = call(cli, connection)
    except Exception:  # noqa: BLE001  (an error of gcloud, which the client prints)
        traceback.print_exc()
    finally:
        connection.sendall(bytes([code]))
        os._exit(0)


def call(cli: Any, connection: socket.socket) -> int:
    """Run gcloud with the arguments, environment and files of the client; return its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    text = b"".join(iter(lambda: connection.recv(65536), b""))
    arguments, directory, environment = json.loads(text)
    sys.argv[1:] = arguments
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    named_configs = importlib.import_module("googlecloudsdk.core.configurations.named_configs")
    named_configs.ActivePropertiesFile.Invalidate()
    try:
        importlib.import_module("googlecloudsdk.gcloud_main").main(cli)
        code: Any = 0
    except SystemExit as error:
        code = error.code
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else 0 if code is None else 1


if __name__ == "__main__":
    library, address = sys.argv[1:]
    sys.path[:0] = [f"{library}/third_party", library]
    sys.argv = [f"{library}/gcloud.py"]
    tree = load()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(16)
        os.write(1, b"ready\n")
        serve(tree, listening)
