"""`make release`: everything of a release but the tag and the upload, and a table of what was done.

The wheel is tried as users get it: installed without constraint files into empty environments, once with the newest
Airflow and once with the oldest that is promised; there it runs the Dag of the quickstart against the emulator.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "constraints")]

from resolve import AIRFLOWS  # type: ignore[import-not-found]  # noqa: E402

from airflow_provider_gemini_batch import __version__  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

NAME = "airflow-provider-gemini-batch"
DIST = ROOT / "dist"
OLDEST = min(AIRFLOWS)
# `airflow dags test first_batch`. Airflow 3.2 may call its own API server before that has started, so it is
# started and waited for here.
RUN_DAG = """
import sys, time
from functools import cache
from airflow.__main__ import main
from airflow.sdk.execution_time import supervisor
if not hasattr(supervisor.in_process_api_server, "cache_clear"):
    supervisor.in_process_api_server = cache(supervisor.in_process_api_server)
    api = supervisor.in_process_api_server()
    assert api.transport
    for _ in range(600):
        if hasattr(api.app.state, "svcs_registry"):
            break
        time.sleep(0.1)
sys.argv = ["airflow", "dags", "test", "first_batch"]
main()
"""
UV = str(Path(sys.executable).with_name("uv"))


class ReleaseError(Exception):
    """A step that did not do what it must; the message is its line of the table."""


def run(*command: str | Path, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> str:
    """Run a program and return what it prints; ReleaseError with its last lines when it fails."""
    done = subprocess.run(
        command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-15:])
        raise ReleaseError(f"{Path(command[0]).name} {command[1]} failed:\n{tail}")
    return done.stdout


def check_tree() -> str:
    """Check that what is built is what is committed."""
    if changed := run("git", "status", "--porcelain").split("\n")[0]:
        raise ReleaseError(f"the working tree has changes that are not committed, such as {changed.strip()}")
    return f"clean, at {run('git', 'rev-parse', '--short', 'HEAD').strip()}"


def check_changelog() -> str:
    """Check that the changelog has a dated entry of this version, and nothing that is not in it."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    dated = re.search(rf"^## \[{re.escape(__version__)}\] - (\d{{4}}-\d\d-\d\d)$", text, re.MULTILINE)
    if dated is None:
        raise ReleaseError(f"CHANGELOG.md has no line '## [{__version__}] - YYYY-MM-DD'")
    waiting = re.search(r"^## \[Unreleased\]\s*(.*?)\s*^## ", text, re.MULTILINE | re.DOTALL)
    if waiting and waiting[1]:
        raise ReleaseError(f"CHANGELOG.md has Unreleased changes: set the next version (now {__version__}), date them")
    return f"{__version__} of {dated[1]}"


def build() -> str:
    """Build the wheel and the sdist into dist/, and the sdist's own wheel: it must be the same, byte for byte."""
    for old in packages():
        old.unlink()
    run(UV, "build", "--quiet", "--python", sys.executable, "--sdist", "--wheel", "--out-dir", DIST)
    (sdist,) = DIST.glob("*.tar.gz")
    wheel = built_wheel()
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        source = Path(folder) / sdist.name.removesuffix(".tar.gz")
        run(UV, "build", "--quiet", "--python", sys.executable, "--wheel", "--out-dir", folder, source)
        again = (Path(folder) / wheel.name).read_bytes()
    if again != wheel.read_bytes():
        raise ReleaseError(f"{sdist.name} builds another {wheel.name}")
    return (
        f"{wheel.name} ({wheel.stat().st_size // 1024} KiB, sha256 {hashlib.sha256(again).hexdigest()[:12]}), sdist too"
    )


def packages() -> list[Path]:
    """Return the wheel and the sdist in dist/."""
    return [*DIST.glob("*.whl"), *DIST.glob("*.tar.gz")]


def built_wheel() -> Path:
    """Return the wheel in dist/."""
    (wheel,) = DIST.glob("*.whl")
    return wheel


def check_metadata() -> str:
    """Check the metadata and the long description with twine, as the index will, and that no link in it is relative."""
    run(UV, "tool", "run", "--quiet", "--python", sys.executable, "twine", "check", "--strict", *packages())
    with zipfile.ZipFile(built_wheel()) as wheel:
        (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        description = wheel.read(metadata).decode()
    if dead := re.findall(r"\]\((?!https?:)[^)]*\)", description):
        raise ReleaseError(f"the index would show links that lead nowhere, such as {dead[0]}")
    return "twine check --strict, no relative link"


def try_wheel(airflow: Sequence[str]) -> str:
    """Install the wheel with an Airflow into an empty environment, and run the quickstart there."""
    with tempfile.TemporaryDirectory() as folder:
        venv = Path(folder) / "venv"
        run(UV, "venv", "--quiet", "--python", sys.executable, venv)
        run(UV, "pip", "install", "--quiet", "--python", venv / "bin/python", built_wheel(), *airflow)
        run(UV, "pip", "check", "--python", venv / "bin/python")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "PYTHON"))}
        home = Path(folder) / "airflow"
        path = f"{venv / 'bin'}:{kept['PATH']}"
        env = kept | {"PATH": path, "AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
        with emulator(venv, env) as connection:
            env["AIRFLOW_CONN_GEMINI_BATCH_DEFAULT"] = connection
            return run_quickstart(venv / "bin/airflow", home, env)


@contextmanager
def emulator(venv: Path, env: Mapping[str, str]) -> Iterator[str]:
    """Run the installed emulator on a free port; yields the connection that it prints."""
    command = [str(venv / "bin/gemini-batch-emulator"), "--port", "0"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if found := re.search(r"AIRFLOW_CONN_GEMINI_BATCH_DEFAULT='(.*)'", line):
                    yield found[1]
                    return
            raise ReleaseError("gemini-batch-emulator did not start")
        finally:
            process.terminate()


def run_quickstart(airflow: Path, home: Path, env: Mapping[str, str]) -> str:
    """Ask Airflow for the provider, run the Dag of docs/quickstart.md, and count its rows."""
    version = run(airflow, "version", cwd=home.parent, env=env).split()[-1]
    run(airflow, "db", "migrate", cwd=home.parent, env=env)
    described = json.loads(run(airflow, "providers", "get", NAME, "--output", "json", cwd=home.parent, env=env))
    if described[0]["Version"] != __version__:
        raise ReleaseError(f"airflow providers get says {described}")
    page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    rows = home.parent / "rows.jsonl"
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    code, replaced = re.subn(r'output_path="[^"]*"', f'output_path="{rows}"', code)
    (home / "dags").mkdir()
    (home / "dags" / "first_batch.py").write_text(code, encoding="utf-8")
    run(airflow.with_name("python"), "-c", RUN_DAG, cwd=home.parent, env=env)
    count = sum(json.loads(line)["status"] == "ok" for line in rows.read_text(encoding="utf-8").splitlines())
    if (replaced, count) != (1, 3):
        raise ReleaseError(f"the Dag of the quickstart wrote {count} good rows of 3")
    return f"Airflow {version}: airflow providers get; the Dag of the quickstart wrote {count} rows"


STEPS: dict[str, Callable[[], str]] = {
    "working tree": check_tree,
    "changelog": check_changelog,
    "wheel and sdist": build,
    "metadata": check_metadata,
    "newest Airflow": lambda: try_wheel([]),
    "oldest Airflow": lambda: try_wheel(AIRFLOWS[OLDEST]),
}


def take(name: str, step: Callable[[], str]) -> bool:
    """Take a step and print its line of the table; returns whether it did what it must."""
    try:
        print(f"{name:16} {step()}", flush=True)
    except ReleaseError as error:
        print(f"{name:16} FAILED: {error}", flush=True)
        return False
    return True


def main() -> int:
    """Take all steps; the first that fails ends the release, in a rehearsal those of the repository do not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rehearse", action="store_true", help="go on with changes that are not committed or dated")
    rehearse = parser.parse_args().rehearse
    failed = []
    for name, step in STEPS.items():
        if not take(name, step):
            if not (rehearse and step in {check_tree, check_changelog}):
                return 1
            failed.append(name)
    if failed:
        print(f"Rehearsed. Before the release: {' and '.join(failed)}, as said above; then make release.")
    else:
        print(f"Left to do: git tag v{__version__}, and upload the files in dist/.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
