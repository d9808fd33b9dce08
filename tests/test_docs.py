"""README and docs say what is so: names exist, links lead somewhere, no argument is left out, defaults are right."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
import sys
import types
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from messages import messages

from airflow_provider_gemini_batch import operators
from airflow_provider_gemini_batch.api.models import Usage
from airflow_provider_gemini_batch.emulator.__main__ import _parser as emulator_parser
from airflow_provider_gemini_batch.emulator.faults import JOB_SWITCHES, LIVE_SWITCHES, REQUEST_KINDS
from airflow_provider_gemini_batch.hooks import GeminiBatchHook
from airflow_provider_gemini_batch.provider_info import PROVIDER_INFO
from airflow_provider_gemini_batch.rows.result_rows import ROW_MEMBERS, RowStatus
from airflow_provider_gemini_batch.runtime.connection import ConnectionSettings
from airflow_provider_gemini_batch.sensors import GeminiBatchJobSensor

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.emulator import Emulator

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted(page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts)]
PACKAGE = "airflow_provider_gemini_batch"
#: Stands for a job in examples.
JOB = "batches/abc123"
HAS_RETRY_POLICIES = find_spec("airflow.sdk.definitions.retry_policy") is not None
#: What the pages of reference leave out, since every guide has it.
IMPORTS = """
from collections.abc import Iterator
from airflow.sdk import task
from pydantic import BaseModel, Field
from airflow_provider_gemini_batch.operators import GeminiCreateBatchJobOperator
"""
FAULTS = {*JOB_SWITCHES, *LIVE_SWITCHES, *REQUEST_KINDS}
# Airflow's own, and names that only make sense in the code.
NOT_OURS = {"self", "kwargs"}


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text_of(page), re.DOTALL)


def arguments(operator: type) -> set[str]:
    found: set[str] = set()
    for each in operator.__mro__:
        if each.__module__.startswith(PACKAGE) and "__init__" in vars(each):
            found |= set(inspect.signature(inspect.unwrap(vars(each)["__init__"])).parameters)
    return found - NOT_OURS


def anchors(page: Path) -> set[str]:
    prose = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_a_comment_in_code_is_not_a_heading(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A page\n\n```bash\n# a comment\n```\n\n## The next\n", encoding="utf-8")
    assert anchors(page) == {"a-page", "the-next"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    for target, _, heading in re.findall(r"\]\((?!https?:)([^)#]*)(#([^)]+))?\)", text_of(page)):
        found = page.parent / target if target else page
        assert found.exists(), target
        assert not heading or heading in anchors(found), f"{target}#{heading}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_a_page_can_be_parsed_and_its_imports_exist(page: Path) -> None:
    for block in python_blocks(page):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
                module = importlib.import_module(node.module or "")
                assert all(hasattr(module, alias.name) for alias in node.names)


@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(page)], ids=lambda page: page.name)
def test_python_in_a_page_runs_as_it_stands(
    page: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    is_guide = page.stem in {"README", "quickstart", "tutorial"} or page.parent.name == "how-to"
    for number, block in enumerate(python_blocks(page)):
        if re.search(r"^def (test|pytest)_", block, re.MULTILINE):
            continue  # For pytest, with its fixtures.
        if "retry_policies" in block and not HAS_RETRY_POLICIES:
            continue
        needs_job = JOB in block
        job = finished_job(request.getfixturevalue("gemini_batch_emulator"), monkeypatch) if needs_job else JOB
        module = types.ModuleType(f"block_{number}")  # Pydantic looks the names of annotations up in it.
        monkeypatch.setitem(sys.modules, module.__name__, module)
        if not is_guide:
            exec(IMPORTS, vars(module))  # noqa: S102  (above)
        code = compile(block.replace(JOB, job), f"{page.name}, block {number}", "exec", dont_inherit=True)
        exec(code, vars(module))  # noqa: S102


def finished_job(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AIRFLOW_CONN_GEMINI_BATCH_DEFAULT", emulator.connection())
    with GeminiBatchHook() as hook:
        name: str = hook.create("gemini-2.5-flash", inlined_requests=["Hello?"]).name
    emulator.control.advance(600)
    return name


def commands(page: Path, program: str) -> list[list[str]]:
    blocks = "".join(re.findall(r"```bash\n(.*?)```", text_of(page), re.DOTALL))
    return [shlex.split(line)[1:] for line in blocks.splitlines() if line.split(" ")[0] == program]


def test_the_commands_of_the_command_line_page_run_one_after_the_other(
    gemini_batch_emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from airflow_provider_gemini_batch.cli.parser import main

    job = finished_job(gemini_batch_emulator, monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews.csv").write_text("id,body\nr-1,Boils fast.\n", encoding="utf-8")
    found = commands(ROOT / "docs" / "command-line.md", "gemini-batch")
    assert len(found) >= 5
    assert [words for words in found if main([job if word == JOB else word for word in words]) != 0] == []
    assert (tmp_path / "reviews.parquet").exists()


def test_calls_of_the_emulator_in_the_docs_can_be_parsed() -> None:
    calls = [words for page in PAGES for words in commands(page, "gemini-batch-emulator")]
    assert len(calls) >= 3
    for words in calls:
        assert all(name in FAULTS for name, _ in emulator_parser().parse_args(words).fault)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_class_names_in_a_page_exist(page: Path) -> None:
    modules = [
        importlib.import_module(f"{PACKAGE}.{name}")
        for name in ("operators", "sensors", "triggers", "hooks", "datasets")
    ]
    named = set(re.findall(r"`(Gemini\w+(?:Operator|Sensor|Trigger|Hook))\b", text_of(page)))
    assert {name for name in named if not any(hasattr(module, name) for module in modules)} == set()


def test_every_argument_of_the_operators_is_in_the_page_and_no_other() -> None:
    page = text_of(ROOT / "docs" / "operators.md")
    documented = set(re.findall(r"`(\w+)`", page))
    classes = [
        each for name, each in vars(operators).items() if name.startswith("Gemini") and name.endswith("Operator")
    ]
    for each in [*classes, GeminiBatchJobSensor]:
        assert arguments(each) - documented == set()


def test_arguments_in_the_tables_belong_to_the_create_operators() -> None:
    page = text_of(ROOT / "docs" / "operators.md")
    tables = page[page.index("### Source") : page.index("A result row has")]
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+)", tables, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    ours = arguments(operators.GeminiCreateBatchJobOperator) | arguments(
        operators.GeminiCreateEmbeddingsBatchJobOperator
    )
    assert named - ours == set()


def test_the_defaults_in_the_tables_are_those_of_the_code() -> None:
    page = text_of(ROOT / "docs" / "operators.md")
    signature = inspect.signature(inspect.unwrap(vars(operators._CreateBatchJob)["__init__"])).parameters
    rows = re.findall(r"^\| `(\w+)`(?: \*t\*)? \| `?([\w.]+)`? \|", page, re.MULTILINE)
    stated = {name: value for name, value in rows if name in signature and value not in {"none", "required"}}
    assert {name: str(signature[name].default).removesuffix(".0") for name in stated} == stated
    nothing = {name for name, value in rows if name in signature and value == "none"}
    assert all(signature[name].default in {None, ()} for name in nothing)


def test_the_two_arguments_that_are_not_templated_are_named_and_no_other_is_marked() -> None:
    page = text_of(ROOT / "docs" / "operators.md")
    tables = page[page.index("### Source") : page.index("A result row has")]
    marked = set(re.findall(r"^\| `(\w+)` (?:\| )?\*t\*", tables, re.MULTILINE))
    both = (operators.GeminiCreateBatchJobOperator, operators.GeminiCreateEmbeddingsBatchJobOperator)
    templated = {
        name.removeprefix("embedding_").replace("is_dry_run", "dry_run")
        for each in both
        for name in each.template_fields
    }
    assert marked <= templated
    assert set().union(*map(arguments, both)) - templated == {"prompt_template", "output_schema"}
    assert "Every argument is templated but `prompt_template` and `output_schema`" in page


def test_every_field_of_the_connection_is_in_its_page() -> None:
    page = text_of(ROOT / "docs" / "connections.md")
    fields = set(PROVIDER_INFO["connection-types"][0]["conn-fields"])
    assert {name for name in fields if f"`{name}`" not in page} == set()
    read = set(ConnectionSettings.__dataclass_fields__) - {"conn_id", "service", "base_url", "api_key", "unsafe"}
    assert read - fields == set()
    options = PROVIDER_INFO["config"]["gemini_batch"]["options"]
    assert {name for name in options if f"| `{name}` |" not in page} == set()


def test_the_methods_of_the_hook_are_named() -> None:
    page = text_of(ROOT / "docs" / "operators.md")
    methods = {name for name, value in vars(GeminiBatchHook).items() if inspect.isfunction(value) and name[0] != "_"}
    assert {name for name in methods - {"close", "get_conn", "test_connection"} if f"`{name}`" not in page} == set()


@pytest.mark.parametrize("source", sorted((ROOT / "docs" / "diagrams").glob("*.dot")), ids=lambda source: source.stem)
def test_the_pictures_are_drawn_from_their_sources(source: Path) -> None:
    drawn = "".join(re.findall(r"<text[^>]*>([^<]*)</text>", text_of(ROOT / "docs/_static" / f"{source.stem}.svg")))
    for label in re.findall(r'label="([^"]*)"', text_of(source)):
        assert all(line in drawn for line in label.split("\\n")), f"run `make diagrams`: {label!r} is missing"


def test_every_message_stands_on_the_page_of_troubleshooting() -> None:
    page = " ".join(text_of(ROOT / "docs" / "troubleshooting.md").split())
    missing = {str(each.text) for each in messages() if " ".join(each.fixed.split()) not in page}
    assert missing == set(), "add an entry for each of these to docs/troubleshooting.md"


def test_the_tests_that_prove_a_promise_exist() -> None:
    promises = [line for line in (ROOT / "SECURITY.md").read_text(encoding="utf-8").splitlines() if ".py`" in line]
    named = [name for line in promises for name in re.findall(r"`([a-z_/]+\.py)`", line)]
    assert len(named) >= len(promises) > 0
    assert [name for name in named if not (ROOT / "tests" / name).is_file()] == []


def test_the_map_of_the_house_names_files_that_exist() -> None:
    tables = between(text_of(ROOT / "CONTRIBUTING.md"), "## The map", "## Rules")
    named = set(re.findall(r"`([\w/]+(?:\.(?:py|md|json)|/))`", tables))
    places = [ROOT, ROOT / PACKAGE, *(ROOT / PACKAGE / room for room in ("cli", "emulator"))]
    assert {name for name in named if not any((place / name).exists() for place in places)} == set()


def test_every_page_is_in_the_table_of_contents() -> None:
    folder = ROOT / "docs"
    listed = set()
    for index in folder.rglob("index.md"):
        for block in re.findall(r"```{toctree}\n(.*?)```", text_of(index), re.DOTALL):
            names = [line for line in block.splitlines() if line and not line.startswith(":")]
            listed |= {page for name in names for page in index.parent.glob(f"{name}.md")}
    assert {page for page in folder.rglob("*.md") if "_build" not in page.parts} - listed == {folder / "index.md"}


def test_the_page_of_the_command_line_names_each_command_and_each_exit_code() -> None:
    from airflow_provider_gemini_batch.cli.parser import COMMANDS, EXIT_CODES

    page = text_of(ROOT / "docs" / "command-line.md")
    assert [command.name for command in COMMANDS if f"| `{command.name}" not in page] == []
    assert re.findall(r"^  (\d+)", EXIT_CODES, re.MULTILINE) == re.findall(r"^\| (\d+) \|", page, re.MULTILINE)


def test_every_example_dag_is_on_its_page() -> None:
    page = text_of(ROOT / "docs" / "examples.md")
    files = {path.stem for path in (ROOT / "example_dags").glob("*.py")}
    assert set(re.findall(r"^\| \[(\w+)\]\(\.\./example_dags/\1\.py\) \| [^| ]", page, re.MULTILINE)) == files


def between(text: str, start: str, end: str) -> str:
    return text[text.index(start) : text.index(end)]


def test_the_columns_statuses_and_counts_of_result_rows_are_those_of_the_code() -> None:
    page = text_of(ROOT / "docs" / "rows.md")
    columns = between(page, "## What comes out", "### Pictures")
    assert re.findall(r"^\| `(\w+)`", columns, re.MULTILINE) == list(ROW_MEMBERS)
    statuses = between(page, "### Status", "## What is sent again")
    assert set(re.findall(r"^\| `(\w+)`", statuses, re.MULTILINE)) == {status.word for status in RowStatus}
    counts = between(page, "## What it costs", "[Metrics]")
    kinds = counts.replace("`..._image_...`, `..._video_...`", "`input_image_tokens`, `input_video_tokens`")
    assert set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]*)\|", kinds, re.MULTILINE)))) == set(Usage._fields)
