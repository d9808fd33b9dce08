"""The rules of the house: layers, public names, file sizes, light imports, nothing of one machine in any file."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema
import pytest

import airflow_provider_gemini_batch as package

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
NAME = "airflow_provider_gemini_batch"
PACKAGE = ROOT / NAME

# What a room may import of the others, itself included. A room that is not here has no layer yet.
_API = {"api"}
_ROWS = _API | {"rows"}
_POLLING = _API | {"polling"}
_BATCH = _POLLING | {"batch"}
_STAGING = _ROWS | _BATCH | {"staging"}
# What people import by name is thin: it loads a room below when something runs.
_NAMES = {"hooks", "operators", "sensors", "triggers", "links", "decorators", "datasets"}
_RUNTIME = _STAGING | {"runtime"}
_PUBLIC = _STAGING | {"runtime"} | _NAMES
LAYERS: dict[str, set[str]] = {
    "provider_info": set(),
    "__init__": {"provider_info"},
    "api": _API,
    "rows": _ROWS,
    "polling": _POLLING,
    "batch": _BATCH,
    "staging": _STAGING,
    "runtime": _RUNTIME,
    "hooks": _PUBLIC,
    "operators": _PUBLIC,
    "sensors": _PUBLIC,
    "triggers": _PUBLIC,
    "ui": _BATCH | {"ui"},
    "plugin": {"ui"},
    "links": _PUBLIC | {"ui"},
    "decorators": _PUBLIC,
    "retry_policies": _PUBLIC,
    "datasets": _PUBLIC,
    "cli": _PUBLIC | {"cli"},
    "common_ai": _ROWS,
    "emulator": {"emulator"},
    "pytest_plugin": {"emulator"},
}
# A client can wait for a job by the rules of all waits, and imports them when it does. There is no circle: those who
# wait know the client's values alone, and how any list is read to its end.
UPWARDS = {(f"{NAME}.api.client", "polling")}
VALUES = {f"{NAME}.api.{values}" for values in ("errors", "models", "paging", "states")}
WITHOUT_AIRFLOW = {"provider_info", "__init__", "api", "rows", "polling", "batch", "staging", "emulator"}

# The names that an author of Dags may rely on. Taking one away is a breaking change.
PUBLIC: dict[str, set[str]] = {
    "": {"__version__", "get_provider_info"},
    "operators": {
        "GeminiCancelBatchJobOperator",
        "GeminiCreateBatchJobOperator",
        "GeminiCreateEmbeddingsBatchJobOperator",
        "GeminiDeleteBatchJobOperator",
        "GeminiGetBatchJobOperator",
        "GeminiGetBatchResponsesOperator",
        "GeminiListBatchJobsOperator",
        "GeminiUploadFileOperator",
    },
    "sensors": {"GeminiBatchJobSensor"},
    "triggers": {"GeminiBatchJobEventTrigger", "GeminiBatchJobTrigger"},
    "links": {"GeminiBatchJobLink", "GeminiBatchLink", "GeminiBatchOutputLink"},
    "decorators": {"gemini_batch_task"},
    "retry_policies": {"GeminiBatchRetryPolicy"},
    "datasets": {"GeminiBatchDataset", "GeminiCommitPartsOperator", "GeminiPlanPartsOperator"},
    "hooks": {"GeminiBatchHook", "airflow_errors"},
    "emulator": {"Emulator"},
    "api.client": {"BatchClient"},
}

# What costs a Dag file time, and is needed by a running task only.
HEAVY = ("requests", "urllib3", "google", "pyarrow", "gcsfs", "numpy", "pandas", "uvicorn", "starlette", "genai_prices")

MOST_LINES = 700
TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".json", ".cfg", ".sh", ""}
# Written in pieces, so that this file is not a finding itself.
FOREIGN = {
    "a path of one machine": re.compile(r"(?<![\w.])/(?:ro{2}t|wor[k]|op[t]/wheels|tmp/pla[n])/"),
    "a package registry": re.compile(
        r"py[p]i\.org|pythonhoste[d]|npmj[s]\.|artifactor[y]|index[-_]ur[l]\s*=|/simpl[e]/"
    ),
    "notes of how this was made": re.compile(r"\b(?:contrac[t]|desig[n]|peer[s]|groun[d])\.md\b"),
}


def tracked_files() -> list[Path]:
    """All files under version control; all of the source tree when this is not a checkout."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        found = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        found = [path for folder in (PACKAGE, ROOT / "tests", ROOT / "example_dags") for path in folder.rglob("*.py")]
    return sorted(path for path in found if path.suffix in TEXT and path.is_file())


def package_modules() -> list[tuple[str, str, Path]]:
    """(part, full name, file) of each module of the package."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found.append((parts[0], ".".join((NAME, *parts)), path))
    return found


def imports_of(path: Path) -> Iterator[str]:
    """Yield full names of all modules that a file imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides where it points"
            assert node.module is not None
            # ``from package import part`` names the part; ``from package.part import name`` has it already.
            if node.module == NAME:
                yield from (f"{NAME}.{alias.name}" for alias in node.names)
            else:
                yield node.module


def test_imports_point_downwards_only() -> None:
    wrong = []
    for part, module, path in package_modules():
        assert part in LAYERS, f"{module} has no layer: give it one in LAYERS"
        for imported in imports_of(path):
            if not imported.startswith(f"{NAME}."):
                continue
            target = imported.split(".")[1]
            if (module, target) in UPWARDS:
                continue
            if target not in LAYERS[part] and target != "__version__":
                wrong.append(f"{module} imports {imported}")
    assert not wrong, "\n".join(wrong)


def test_waiting_knows_of_the_client_its_values_alone() -> None:
    wrong = [
        f"{module} imports {imported}"
        for part, module, path in package_modules()
        if part == "polling"
        for imported in imports_of(path)
        if imported.startswith(f"{NAME}.api") and imported not in VALUES
    ]
    assert not wrong, "\n".join(wrong)


def test_what_decides_reads_and_sends_knows_no_airflow() -> None:
    wrong = [
        f"{module} imports {imported}"
        for part, module, path in package_modules()
        if part in WITHOUT_AIRFLOW
        for imported in imports_of(path)
        if imported.split(".")[0] == "airflow"
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_in_the_package_uses_the_official_sdk() -> None:
    wrong = [
        f"{module} imports {imported}"
        for _, module, path in package_modules()
        for imported in imports_of(path)
        if imported.startswith("google.genai")
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("part", PUBLIC)
def test_the_public_names_are_there(part: str) -> None:
    name = f"{NAME}.{part}" if part else NAME
    module = importlib.import_module(name)
    assert PUBLIC[part] <= set(dir(module))


@pytest.mark.parametrize("part", ["operators", "sensors", "triggers", "links"])
def test_what_a_dag_author_finds_in_a_module_is_what_is_promised(part: str) -> None:
    path = PACKAGE / f"{part}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")}
    module = importlib.import_module(f"{NAME}.{part}")
    assert classes | set(getattr(module, "__all__", ())) == PUBLIC[part]


def test_every_module_of_the_package_says_in_its_first_line_what_it_is_for() -> None:
    silent = [
        module for _, module, path in package_modules() if not ast.get_docstring(ast.parse(path.read_text("utf-8")))
    ]
    assert not silent, "\n".join(silent)


def test_what_docstrings_refer_to_exists() -> None:
    known = {NAME}
    for _, module, path in package_modules():
        known |= set(module.split("."))
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                known.add(node.name)
            elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
                known.add(node.id if isinstance(node, ast.Name) else node.attr)
    reference = re.compile(r":(?:mod|class|func|meth|data|attr):`~?\.*((?!argparse)[\w.]+)`")
    missing = [
        f"{module}: {name}"
        for _, module, path in package_modules()
        for name in reference.findall(path.read_text("utf-8"))
        if not known.issuperset(name.split("."))
    ]
    assert not missing, "\n".join(missing)


def test_no_file_is_too_long_to_read() -> None:
    long = {
        path.relative_to(ROOT): lines
        for path in tracked_files()
        if path.suffix in {".py", ".md"} and (lines := len(path.read_text("utf-8").splitlines())) > MOST_LINES
    }
    assert not long, long


@pytest.mark.parametrize("what", FOREIGN)
def test_no_file_holds(what: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in tracked_files()
        for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), start=1)
        if FOREIGN[what].search(line)
    ]
    assert not found, "\n".join(found)


def test_dags_shown_in_the_readme_are_files_that_are_tested() -> None:
    examples = [path.read_text("utf-8") for path in (ROOT / "example_dags").glob("*.py")]
    shown = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)
    for block in shown:
        if "@dag" in block or "DAG(" in block:
            assert any(block.strip() in example for example in examples), f"in no file of example_dags:\n{block}"


def loaded_after(statement: str) -> set[str]:
    """Names of top-level modules that a fresh interpreter holds after a statement."""
    script = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_asking_for_the_provider_info_imports_nothing_else() -> None:
    base = loaded_after("import typing")
    loaded = loaded_after(f"import {NAME}; {NAME}.get_provider_info()") - base
    assert {name for name in loaded if not name.startswith("_")} <= {NAME, f"{NAME}.provider_info", "__future__"}


@pytest.mark.slow
def test_a_dag_file_pays_for_nothing_that_only_a_running_task_needs() -> None:
    base = loaded_after("import airflow.sdk, airflow.triggers.base")
    parts = ("operators", "sensors", "triggers", "links", "decorators", "datasets", "hooks")
    loaded = loaded_after("import " + ", ".join(f"{NAME}.{part}" for part in parts)) - base
    assert not sorted(name for name in loaded if name.split(".")[0] in HEAVY)


def test_the_version_is_said_once() -> None:
    metadata = (ROOT / "pyproject.toml").read_text("utf-8")
    assert re.findall(r"^version = |^dynamic = .*", metadata, re.MULTILINE) == ['dynamic = ["version", "readme"]']
    assert package.get_provider_info()["versions"] == [package.__version__]
    places = [path for path in (ROOT / NAME).rglob("*.py") if f'"{package.__version__}"' in path.read_text("utf-8")]
    assert [path.name for path in places if path.name != "provider_info.py"] == ["__init__.py"]


def test_the_version_has_its_entry_in_the_changelog() -> None:
    entry = rf"^## \[{re.escape(package.__version__)}\]"
    assert re.search(entry, (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)


def test_airflow_accepts_the_provider_info() -> None:
    spec = find_spec("airflow")
    assert spec is not None
    assert spec.submodule_search_locations
    schema = Path(spec.submodule_search_locations[0]) / "provider_info.schema.json"
    jsonschema.validate(package.get_provider_info(), json.loads(schema.read_text("utf-8")))


def test_every_module_and_class_in_the_provider_info_exists() -> None:
    info = package.get_provider_info()
    modules = [
        name
        for kind in ("hooks", "operators", "sensors", "triggers")
        for each in info[kind]
        for name in each["python-modules"]
    ]
    objects = [
        *info["extra-links"],
        *(each["hook-class-name"] for each in info["connection-types"]),
        *(each["class-name"] for each in info["task-decorators"]),
    ]
    for path in objects:
        module, _, name = path.rpartition(".")
        modules.append(module)
        assert hasattr(importlib.import_module(module), name), path
    assert not [name for name in modules if find_spec(name) is None]
