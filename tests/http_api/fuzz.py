"""Run schemathesis, from an environment of its own, against the HTTP API of a live server.

`python -m tests.http_api.fuzz /path/to/schemathesis`. A program and not a test: in the environment of the tests,
its plugin would be loaded into every run of pytest.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.http_api.live import SETTINGS, VARIABLE, serve
from tests.servers import sql

PREFIX = "/cloudrun_jobs"
AUDIENCE, EMAIL = "https://web-abc.a.run.app", "caller@acme.iam.gserviceaccount.com"
SCOPES = ["read", "run", "cancel"]
TOKEN = {"name": "all", "header": "x-token", "sha256": sha256(b"the token").hexdigest(), "scopes": SCOPES}
BY_TOKEN = {"x-token": "the token"}
CSRF = "a" * 32

# A key that was used for another body is refused, although each request is valid by itself.
HOOKS = """
import uuid
import schemathesis

@schemathesis.hook
def before_call(ctx, case, kwargs):
    if case.headers and "Idempotency-Key" in case.headers and case.meta.generation.mode.is_positive:
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("schemathesis")
    parser.add_argument("--seed", help="That of an earlier run.")
    parser.add_argument("--examples", default="20", help="Test cases of an operation.")
    parser.add_argument("--only", help="The name of one credential.")
    options = parser.parse_args()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = sql.postgres()
        stack.callback(server.stop)
        databases = {"default": sql.postgres_settings(server.port)}
        session, run_id = _prepare(databases)
        issuer = stack.enter_context(_emulator())
        oidc = {"audience": AUDIENCE, "emails": [EMAIL], "scopes": SCOPES}
        oidc |= {"issuer": issuer.http, "certs_url": f"{issuer.http}/oauth2/v1/certs"}
        id_token = issuer.tokens.id_token(EMAIL, AUDIENCE, issuer.http)
        (home / "hooks.py").write_text(HOOKS)
        # Each alone, by the scheme of the schema: schemathesis would add random values of the others.
        credentials: dict[str, tuple[dict[str, Any], Mapping[str, str], str]] = {
            "token": ({"TOKENS": [TOKEN]}, BY_TOKEN, '"token_x-token" = { api_key = "the token" }'),
            "oidc": (
                {"OIDC": oidc},
                {"authorization": f"Bearer {id_token}"},
                f'oidc = {{ bearer = "{id_token}" }}',
            ),
            "session": (
                {"SESSION": True},
                {"cookie": f"session={session}"},
                f'session = {{ api_key = "{session}" }}\n[headers]\nx-csrftoken = "{CSRF}"',
            ),
            "none": ({"TOKENS": [TOKEN], "HEALTH": "public"}, BY_TOKEN, ""),
        }
        failed = []
        for name, (http, headers, auth) in credentials.items():
            if options.only not in (None, name):
                continue
            print(f"==> {name}", flush=True)
            settings = {"ENVIRONMENT": "test", "HTTP": http}
            # With CSRF_USE_SESSIONS the header of the token is enough.
            cookies = {"SESSION_COOKIE_NAME": "session", "CSRF_USE_SESSIONS": True}
            with serve(DATABASES=databases, CLOUDRUN_JOBS=settings, **cookies) as address:
                (home / "schema.json").write_bytes(_get(f"{address}{PREFIX}/schema/", headers))
                cursor = json.loads(_get(f"{address}{PREFIX}/jobs/", headers))["next"]
                (home / "schemathesis.toml").write_text(_config(run_id, cursor, auth))
                command = [options.schemathesis, "--config-file", str(home / "schemathesis.toml"), "run"]
                command += [str(home / "schema.json"), "--url", f"{address}{PREFIX}", "--continue-on-failure"]
                command += ["--checks", "all", "--max-examples", options.examples]
                command += ["--seed", options.seed] if options.seed else []
                if subprocess.run(command, cwd=home, env=_environment(home), check=False).returncode:
                    failed.append(name)
    print(f"Failed: {', '.join(failed)}." if failed else "Passed.")
    return len(failed)


def _prepare(databases: Mapping[str, Any]) -> tuple[str, str]:
    """Create the tables, a superuser's session, and runs; return the session's key, and the id of a run."""
    import django

    os.environ["DJANGO_SETTINGS_MODULE"] = SETTINGS
    os.environ[VARIABLE] = json.dumps({"DATABASES": databases})
    django.setup()
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.auth.models import User
    from django.contrib.sessions.backends.db import SessionStore
    from django.core.management import call_command
    from django.db import connections

    from cloudrun_jobs.models import JobRun

    call_command("migrate", verbosity=0)
    user, store = User.objects.create_superuser("mina"), SessionStore()
    store[SESSION_KEY], store[HASH_SESSION_KEY] = str(user.pk), user.get_session_auth_hash()
    store[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    store["_csrftoken"] = CSRF
    store.create()
    given = {"command": "echo", "argv": ["echo"], "environment": "test", "trigger": "delay"}
    for status in ("succeeded", "failed", "running", "cancelled") * 30:  # More than a page.
        run = JobRun.objects.create(**given, status=status)
    connections.close_all()
    return str(store.session_key), str(run.pk)


def _emulator() -> Any:
    from cloudrun_jobs.emulator import Emulator

    return Emulator()


def _get(url: str, headers: Mapping[str, str]) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers)), timeout=30) as answer:
        return bytes(answer.read())


def _config(run_id: str, cursor: str, auth: str) -> str:
    parameters = {"path.name": run_id, "query.cursor": cursor, "query.wait": 0.1}
    lines = ["[parameters]", *(f"{json.dumps(name)} = {json.dumps(value)}" for name, value in parameters.items())]
    # A warning says that no request of an operation succeeded.
    lines += ["[auth.openapi]", auth, "[warnings]", "fail-on = true"] if auth else []
    return "\n".join([*lines, ""])


def _environment(home: Path) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if name not in ("DJANGO_SETTINGS_MODULE", VARIABLE)}
    return {**own, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(home)}


if __name__ == "__main__":
    sys.exit(main())
