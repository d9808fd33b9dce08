"""The names that jobs get, and what can be read from them again."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_gemini_batch.api.models import BatchJob, JobState, Service
from airflow_provider_gemini_batch.batch.tag import (
    LABEL_KEY,
    MAX_DISPLAY_NAME,
    MAX_TAG,
    Tag,
    TaskIdentity,
    display_name,
    from_label,
    label_value,
    tag_of,
)

numbers = st.integers(min_value=0, max_value=99_999)
identities = st.builds(
    TaskIdentity,
    deployment=st.text(),
    dag_id=st.text(),
    task_id=st.text(),
    run_id=st.text(),
    part=st.integers(min_value=-1) | st.text(min_size=1),
)
tags = st.builds(
    Tag,
    identity=st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=10, max_size=10),
    clear_count=numbers,
    shard=numbers,
    round=numbers,
    submission=numbers,
    fingerprint=st.text("0123456789abcdef", min_size=12, max_size=12),
    wrapped=st.booleans(),
)


@given(tags, st.none() | st.text())
def test_a_tag_is_read_back_from_any_display_name_that_carries_it(tag: Tag, author: str | None) -> None:
    name = display_name(author, tag)
    found = Tag.parse(name)
    assert found == tag
    assert found is not None
    assert found.wrapped is tag.wrapped
    assert len(name) <= MAX_DISPLAY_NAME
    assert name.endswith(tag.text)
    assert name.isprintable()


@given(tags)
def test_a_tag_has_at_most_sixty_characters_that_every_service_takes(tag: Tag) -> None:
    assert len(tag.text) <= MAX_TAG
    assert re.fullmatch(r"[a-z0-9.-]+", tag.text)


@given(tags)
def test_whose_keys_a_job_has_is_in_its_name_and_makes_no_other_tag(tag: Tag) -> None:
    other = replace(tag, wrapped=not tag.wrapped)
    assert (other, str(other), hash(other)) == (tag, str(tag), hash(tag))
    assert other.text != tag.text


@given(tags)
def test_a_tag_survives_a_vertex_label(tag: Tag) -> None:
    value = label_value(tag)
    assert re.fullmatch(r"[a-z0-9_-]{1,63}", value)
    found = from_label(value)
    assert found == tag
    assert found is not None
    assert found.wrapped is tag.wrapped
    assert re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", LABEL_KEY)


@given(tags, tags)
def test_a_tag_that_an_author_writes_is_not_believed(tag: Tag, forged: Tag) -> None:
    assert Tag.parse(display_name(str(forged), tag)) == tag


@given(st.text() | st.from_regex(r"gb1s?-[a-z0-9]{9,11}-[0-9.]+-[0-9]+\.[0-9]+\.[0-9]+-[0-9a-f]{11,13}"))
def test_what_is_read_as_a_tag_is_written_the_same_way(text: str) -> None:
    tag = Tag.parse(text)
    assert tag is None or text.endswith(tag.text)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "nightly",
        "gb1-abcdefghij-0-0.0.0-0123456789ab ",
        "gb1-abcdefghij-0-0.0.0-0123456789ab\n",
        "gb1-abcdefghij-0-0.0.0-0123456789ab-copy",
        "xgb1-abcdefghij-0-0.0.0-0123456789ab",
        "gb1t-abcdefghij-0-0.0.0-0123456789ab",
        "gb2-abcdefghij-0-0.0.0-0123456789ab",
        "gb1-abcdefghij-00-0.0.0-0123456789ab",
        "gb1-abcdefghij-0-0.0-0123456789ab",
        "gb1-ABCDEFGHIJ-0-0.0.0-0123456789ab",
        "gb1-abcdefghij-٣-0.0.0-0123456789ab",
        "gb1-abcdefghij-" + "9" * 40 + "-0.0.0-0123456789ab",
    ],
)
def test_names_that_only_look_similar_carry_no_tag(name: str) -> None:
    assert Tag.parse(name) is None


@pytest.mark.parametrize(
    "parts",
    [
        ("abc", 0, 0, 0, 0, "0123456789ab"),
        ("abcdefghij", -1, 0, 0, 0, "0123456789ab"),
        ("abcdefghij", 0, 0, 0, 0, "0123"),
        ("abcdefghij", 10**30, 0, 0, 0, "0123456789ab"),
    ],
)
def test_a_tag_that_could_not_be_read_back_is_not_made(parts: tuple[str, int, int, int, int, str]) -> None:
    with pytest.raises(ValueError, match="Not a tag"):
        Tag(*parts)


@given(identities, identities)
def test_different_tasks_have_different_names(one: TaskIdentity, two: TaskIdentity) -> None:
    assert (one.digest == two.digest) == (one == two)
    assert re.fullmatch("[a-z2-7]{10}", one.digest)


def test_borders_between_the_parts_of_an_identity_count() -> None:
    assert TaskIdentity("d", "a", "bc", "r").digest != TaskIdentity("d", "ab", "c", "r").digest


def test_an_identity_never_changes_its_name_between_versions() -> None:
    assert TaskIdentity("https://airflow.example", "dag", "task", "manual__1", 3).digest == "pcze6mgjri"


def test_two_airflows_that_share_a_key_have_different_names() -> None:
    assert TaskIdentity("a", "dag", "task", "run").digest != TaskIdentity("b", "dag", "task", "run").digest


def test_mapped_tasks_have_different_names() -> None:
    assert len({TaskIdentity("a", "dag", "task", "run", index).digest for index in range(-1, 50)}) == 51


def test_the_authors_part_is_cut_not_the_tag() -> None:
    tag = Tag("abcdefghij", 1, 2, 0, 0, "0123456789ab")
    name = display_name("x" * 500, tag)
    assert len(name) == MAX_DISPLAY_NAME
    assert name.startswith("xxx")
    assert Tag.parse(name) == tag


def test_a_job_whose_display_name_was_changed_is_known_by_its_label() -> None:
    tag = Tag("abcdefghij", 0, 0, 0, 0, "0123456789ab")
    renamed = BatchJob(
        name="projects/p/locations/l/batchPredictionJobs/1",
        service=Service.VERTEX,
        state=JobState.RUNNING,
        display_name="renamed by hand",
        labels={LABEL_KEY: label_value(tag)},
    )
    assert tag_of(renamed) == tag
    assert tag_of(renamed.model_copy(update={"labels": {LABEL_KEY: "something"}})) is None
