"""Prompt templates: what is filled in, what stays, and which slips are refused instead of being sent."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_gemini_batch.api.errors import ConfigurationError, InputError
from airflow_provider_gemini_batch.api.requests.request import NO_DEFAULTS
from airflow_provider_gemini_batch.api.states import Service
from airflow_provider_gemini_batch.rows.input_spec import InputSpec
from airflow_provider_gemini_batch.rows.prompt import Template, as_text
from airflow_provider_gemini_batch.rows.templates import Shaper

ROW = {"text": "Hi", "price": 2.5, "Produkt-Name": "Bär", "empty": None, "user": {"name": "Ada"}}


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("Say {text}", "Say Hi"),
        ("{price} {Produkt-Name}", "2.5 Bär"),
        ("{text}{empty}.", "Hi."),
        ("{text} {user}", 'Hi {"name":"Ada"}'),
        ("{{text}} is {text}", "{text} is Hi"),
        ("{{{text}}}", "{Hi}"),
        ('{text}: {"a": 1}', 'Hi: {"a": 1}'),
        ('{text}: {"a": {"b": 1}}', 'Hi: {"a": {"b": 1}}'),
        ('{"a": {"b": {"c": "{text}"}}}', '{"a": {"b": {"c": "Hi"}}}'),
        ('{\n  "a": {text},\n  "b": {}\n}', '{\n  "a": Hi,\n  "b": {}\n}'),
        ('{{"a": {{"b": "{text}"}}}}', '{"a": {"b": "Hi"}}'),
        ('{"a": {"b": {text}}} and {{text}}', '{"a": {"b": Hi}} and {text}'),
        ("{text} {{}} {{0}}", "Hi {} {0}"),
        ("Write {{{{ name }}}} or {{{{{text}}}}}, {{% if x %}}", "Write {{ name }} or {{Hi}}, {% if x %}"),
    ],
)
def test_columns_are_filled_in_and_literal_braces_stay(template: str, filled: str) -> None:
    made = Template(template)
    made.check(list(ROW))
    assert made.fill(ROW) == filled


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{price:.2f}", "'price' is: write {price}; formats, blanks and members"),
        ("{price!r}", "'price' is: write {price}"),
        ("{ price }", "'price' is: write {price}"),
        ("{user.name}", "'user' is: write {user}"),
        ("{user[name]}", "'user' is: write {user}"),
        ("{Produkt Name}", "there is no column 'Produkt Name'; there are text, price, Produkt-Name"),
        ("{Produkt Name}", "is 'Produkt-Name' meant?"),
        ("{Text}", "is 'text' meant?"),
        ("{txt}", "is 'text' meant?"),
        ("{produkt-name }", "is 'Produkt-Name' meant?"),
        ("{}", "names no column; there are text"),
        ("{0}", "names no column; there are text"),
        ("{text} {color: red}", "there is no column 'color: red'"),
        ("{{text}}", "write {text} for the column's value"),
    ],
)
def test_what_looks_like_a_column_and_is_not_is_refused_with_the_columns_there_are(template: str, words: str) -> None:
    with pytest.raises(InputError) as refused:
        Template(template).check(list(ROW))
    assert words in str(refused.value)
    if "{{text}}" not in template:
        with pytest.raises(InputError, match="prompt_template"):
            Template(template).fill(ROW)


@pytest.mark.parametrize("template", ["{text", "text}", "a { b", 'x {"a": {text}', "{text}}", "{te{xt}"])
def test_a_brace_without_a_partner_is_refused(template: str) -> None:
    with pytest.raises(ConfigurationError, match="has no partner; for braces that are meant write"):
        Template(template)


@pytest.mark.parametrize(
    "template",
    [
        *("{{ text }}", "Sum {{ params.lang }} {text}", "{{ text | upper }}", "{% if x %}"),
        # What an f-string makes of the output of another task.
        "{{ task_instance.xcom_pull(task_ids='a', dag_id='d', key='return_value') }} {text}",
        *("On {{ds}}: {text}", "{{ts_nodash|lower}} {text}", "{{params['lang']}} {text}", "{{-var.value.x-}} {text}"),
    ],
)
def test_a_template_of_jinja_is_refused(template: str) -> None:
    with pytest.raises(ConfigurationError, match="not rendered by Jinja"):
        Template(template)


@pytest.mark.parametrize(
    "template", ["{{name}} {text}", "{{dsn}} {text}", "{{params}} {text}", "{{ds: 1}}", "{{{ds}}}"]
)
def test_braces_that_are_meant_are_not_taken_for_jinja(template: str) -> None:
    Template(template)


@pytest.mark.parametrize("template", ["Sum text", "Sum %(text)s", "Sum $text", "Sum <text>", "Sum [text]", ""])
def test_a_template_that_is_the_same_for_every_row_is_refused_but_for_files(template: str) -> None:
    def shaper(columns: list[str] | None, **arguments: Any) -> Shaper:
        spec = InputSpec(service=Service.GEMINI, model="m", rows=[], prompt_template=template, **arguments)
        return Shaper(spec, NO_DEFAULTS, columns, set())

    for columns in (["text"], None):
        with pytest.raises(ConfigurationError, match="every row would send the same prompt"):
            shaper(columns)
    shaper(["picture"], media_field="picture")


@pytest.mark.parametrize("missing", [None, math.nan, Decimal("NaN")])
def test_a_missing_value_is_empty_and_never_the_word_for_it(missing: Any) -> None:
    assert as_text(missing) == ""


@given(st.text(), st.text())
def test_doubled_braces_let_any_text_through(before: str, value: str) -> None:
    template = before.replace("{", "{{").replace("}", "}}").replace("{% ", "{%")
    try:
        made = Template(template + "{a}")
    except ConfigurationError as error:
        assert "Jinja" in str(error)  # noqa: PT017
        return
    made.check(["a"])
    if value.strip():
        assert made.fill({"a": value}) == before + value
