"""Which jobs are adopted, counted in part, cancelled or left, and when a new one is made."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from batch.made_up_jobs import INPUT, NOON, OTHER_INPUT, TASK, job, place
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from random import Random

from airflow_provider_gemini_batch.api.models import BatchJob, CompletionStats, JobState
from airflow_provider_gemini_batch.batch.adoption import (
    Adopt,
    Decision,
    Submit,
    Tidying,
    decide,
    leftovers,
    rows_beside,
)
from airflow_provider_gemini_batch.batch.tag import LABEL_KEY, Tag, TaskIdentity, label_value

ACTIVE = [
    JobState.QUEUED,
    JobState.PENDING,
    JobState.RUNNING,
    JobState.UPDATING,
    JobState.PAUSED,
    JobState.UNKNOWN,
]
PARTIAL = [JobState.EXPIRED, JobState.CANCELLED]


def adopted(decision: Decision) -> str | None:
    return decision.job.name if isinstance(decision, Adopt) else None


def submission(decision: Decision) -> int | None:
    return decision.submission if isinstance(decision, Submit) else None


def always(_name: str) -> bool:
    return True


# -- one job


def test_without_any_job_the_first_one_is_made() -> None:
    assert submission(decide([], place())) == 0


@pytest.mark.parametrize("state", ACTIVE)
@pytest.mark.parametrize("made_in", [0, 1, 2])
def test_an_active_job_is_adopted_on_a_retry_and_after_a_clear(state: JobState, made_in: int) -> None:
    running = job(state, generation=made_in)
    assert adopted(decide([running], place(generation=1), delivered=always)) == running.name


def test_a_job_that_succeeded_is_adopted_on_a_retry_even_if_it_was_delivered() -> None:
    done = job(JobState.SUCCEEDED, generation=1)
    assert adopted(decide([done], place(generation=1))) == done.name
    assert adopted(decide([done], place(generation=1), delivered=always)) == done.name


def test_after_a_clear_a_job_that_succeeded_is_adopted_only_if_it_was_never_delivered() -> None:
    done = job(JobState.SUCCEEDED, generation=0, submission=3)
    assert adopted(decide([done], place(generation=1))) == done.name
    assert submission(decide([done], place(generation=1), delivered=always)) == 4


@pytest.mark.parametrize("generation", [0, 1])
@pytest.mark.parametrize("can_resend", [True, False])
def test_a_failed_job_is_followed_by_the_next_submission(generation: int, *, can_resend: bool) -> None:
    decision = decide([job(JobState.FAILED, finished=5)], place(generation=generation), can_resend=can_resend)
    assert submission(decision) == 1
    assert decision.rows_from == ()


@pytest.mark.parametrize("state", PARTIAL)
@pytest.mark.parametrize("generation", [0, 1])
def test_finished_rows_count_and_the_others_are_sent_again(state: JobState, generation: int) -> None:
    partly = job(state, finished=4)
    decision = decide([partly], place(generation=generation), can_resend=True)
    assert submission(decision) == 1
    assert decision.rows_from == (partly,)


@pytest.mark.parametrize("state", PARTIAL)
def test_finished_rows_that_were_delivered_before_a_clear_do_not_count(state: JobState) -> None:
    partly = job(state, finished=4)
    assert decide([partly], place(generation=1), can_resend=True, delivered=always).rows_from == ()
    assert decide([partly], place(generation=0), can_resend=True, delivered=always).rows_from == (partly,)


@pytest.mark.parametrize("state", [JobState.EXPIRED, JobState.CANCELLED])
def test_where_rows_cannot_be_sent_again_everything_is(state: JobState) -> None:
    decision = decide([job(state, finished=4)], place(), can_resend=False)
    assert (submission(decision), decision.rows_from) == (1, ())


@pytest.mark.parametrize("state", PARTIAL)
def test_an_ended_job_whose_requests_are_all_pending_counts_for_nothing(state: JobState) -> None:
    untouched = CompletionStats(total=10, pending=10)
    decision = decide([job(state).model_copy(update={"completion_stats": untouched})], place(), can_resend=True)
    assert (submission(decision), decision.rows_from) == (1, ())


@pytest.mark.parametrize("state", PARTIAL)
def test_an_ended_job_that_tells_no_counts_is_read(state: JobState) -> None:
    silent = job(state)
    assert decide([silent], place(), can_resend=True).rows_from == (silent,)


@pytest.mark.parametrize("can_resend", [True, False])
def test_a_partially_succeeded_job_is_used_like_one_that_succeeded(*, can_resend: bool) -> None:
    partly = job(JobState.PARTIALLY_SUCCEEDED, finished=9)
    assert adopted(decide([partly], place(), can_resend=can_resend)) == partly.name
    assert adopted(decide([partly], place(generation=1), can_resend=can_resend)) == partly.name
    assert submission(decide([partly], place(generation=1), can_resend=can_resend, delivered=always)) == 1


def test_a_job_that_a_person_cancelled_is_judged_on_a_retry_and_replaced_after_a_clear() -> None:
    cancelled = job(JobState.CANCELLED)
    assert adopted(decide([cancelled], place(), cancelled_by_us=())) == cancelled.name
    assert submission(decide([cancelled], place(generation=1), cancelled_by_us=())) == 1


def test_a_job_that_this_task_cancelled_is_replaced_on_a_retry() -> None:
    cancelled = job(JobState.CANCELLED)
    assert submission(decide([cancelled], place(), cancelled_by_us={cancelled.name})) == 1
    assert submission(decide([cancelled], place(), cancelled_by_us=None)) == 1


def test_a_later_submission_outweighs_what_a_person_did_to_an_earlier_one() -> None:
    cancelled, failed = job(JobState.CANCELLED), job(JobState.FAILED, name="batches/two", submission=1, minute=9)
    assert submission(decide([cancelled, failed], place(), cancelled_by_us=())) == 2


@pytest.mark.parametrize("generation", [0, 1])
def test_a_job_that_is_being_cancelled_is_waited_for(generation: int) -> None:
    ending = job(JobState.CANCELLING)
    assert adopted(decide([ending], place(generation=generation))) == ending.name


@pytest.mark.parametrize("generation", [0, 1])
def test_a_job_whose_cancellation_was_asked_for_is_waited_for_beside_a_good_one(generation: int) -> None:
    ending = job(JobState.RUNNING)
    where = place(generation=generation)
    assert adopted(decide([ending], where, cancelled_by_us={ending.name})) == ending.name
    good = job(JobState.RUNNING, name="batches/two", submission=1)
    decision = decide([ending, good], where, cancelled_by_us={ending.name})
    assert adopted(decision) == good.name
    assert decision.tidying.duplicates == (ending,)


# -- several jobs


def test_of_several_good_jobs_the_oldest_is_used_and_the_others_are_cancelled() -> None:
    first, second, third = (
        job(JobState.RUNNING, name="batches/z", minute=0),
        job(JobState.PENDING, name="batches/y", minute=1),
        job(JobState.SUCCEEDED, name="batches/x", minute=2),
    )
    decision = decide([third, first, second], place())
    assert adopted(decision) == first.name
    assert decision.tidying.duplicates == (second,)


def test_a_good_job_is_used_whatever_became_of_older_ones() -> None:
    failed = job(JobState.FAILED, name="batches/1", minute=0)
    running = job(JobState.RUNNING, name="batches/2", submission=1, minute=5)
    assert adopted(decide([failed, running], place())) == running.name


def test_the_finished_rows_of_an_expired_job_count_beside_the_job_that_completes_it() -> None:
    expired = job(JobState.EXPIRED, name="batches/1", finished=6)
    rest = job(JobState.SUCCEEDED, name="batches/2", submission=1, minute=5)
    decision = decide([rest, expired], place(), can_resend=True)
    assert adopted(decision) == rest.name
    assert decision.rows_from == (expired,)


def test_the_rows_of_a_cancelled_duplicate_are_not_read() -> None:
    used = job(JobState.SUCCEEDED, name="batches/1")
    duplicate = job(JobState.CANCELLED, name="batches/2", minute=1, finished=3)
    assert decide([used, duplicate], place(), can_resend=True).rows_from == ()


def test_rows_of_several_ended_jobs_count_oldest_first() -> None:
    first = job(JobState.EXPIRED, name="batches/1", finished=2)
    second = job(JobState.EXPIRED, name="batches/2", submission=1, minute=9, finished=2)
    decision = decide([second, first], place(), can_resend=True)
    assert (submission(decision), decision.rows_from) == (2, (first, second))


def test_a_job_that_the_list_shows_twice_counts_once_and_its_end_stays() -> None:
    running, done = job(JobState.RUNNING), job(JobState.SUCCEEDED)
    for found in ([running, done], [done, running]):
        decision = decide(found, place())
        assert isinstance(decision, Adopt)
        assert decision.job.state is JobState.SUCCEEDED
        assert decision.tidying.duplicates == ()


# -- other input, other tasks


def test_a_job_from_other_input_is_cancelled_only_if_this_task_made_it() -> None:
    stale = job(JobState.RUNNING, fingerprint=OTHER_INPUT)
    ours = decide([stale], place(), made_by_us={stale.name})
    assert (submission(ours), ours.tidying.stale, ours.tidying.warnings) == (1, (stale,), ())
    left = decide([stale], place())
    assert (submission(left), left.tidying.stale, left.tidying.strangers) == (1, (), (stale,))
    assert stale.name in left.tidying.warnings[0]


def test_a_job_of_an_older_generation_from_other_input_is_cancelled_if_this_task_made_it() -> None:
    stale = job(JobState.RUNNING, fingerprint=OTHER_INPUT, generation=0)
    assert decide([stale], place(generation=1), made_by_us={stale.name}).tidying.stale == (stale,)


@pytest.mark.parametrize("state", [state for state in JobState if state.is_terminal or state is JobState.CANCELLING])
def test_a_job_from_other_input_that_has_ended_is_nobodys_concern(state: JobState) -> None:
    decision = decide([job(state, fingerprint=OTHER_INPUT, finished=3)], place(), can_resend=True)
    assert (submission(decision), decision.rows_from, decision.tidying) == (1, (), Tidying())


@pytest.mark.parametrize(
    "identity",
    [
        TaskIdentity("there", "dag", "task", "run"),
        TaskIdentity("here", "dag", "task", "run_2"),
        TaskIdentity("here", "dag", "task", "run", 0),
        TaskIdentity("here", "dag", "task_2", "run"),
    ],
)
def test_the_job_of_another_airflow_run_or_mapped_task_is_passed_over(identity: TaskIdentity) -> None:
    tag = Tag(identity.digest, 0, 0, 0, 0, INPUT)
    other = job(JobState.RUNNING).model_copy(update={"display_name": str(tag)})
    assert decide([other], place()) == Submit(0, "no job was made for this task yet")


@pytest.mark.parametrize(
    "name", ["", "nightly", "gb1-looks-like-one-of-ours", f"gb1-{TASK.digest}-0-0.0.0-{INPUT} copy"]
)
def test_jobs_with_similar_names_are_passed_over(name: str) -> None:
    other = job(JobState.RUNNING).model_copy(update={"display_name": name})
    assert decide([other], place()).tidying == Tidying()
    assert submission(decide([other], place())) == 0


def test_each_shard_and_round_is_decided_alone() -> None:
    elsewhere = [job(JobState.RUNNING, at=place(shard=1)), job(JobState.SUCCEEDED, name="batches/2", at=place(round=1))]
    assert decide(elsewhere, place()) == Submit(0, "no job was made for this task yet")


def test_a_renamed_job_is_known_by_its_label() -> None:
    labels = {LABEL_KEY: label_value(place().tag(0))}
    renamed = job(JobState.RUNNING).model_copy(update={"display_name": "renamed", "labels": labels})
    assert adopted(decide([renamed], place())) == renamed.name


def test_a_run_that_was_deleted_and_made_again_does_not_inherit() -> None:
    inherited = job(JobState.SUCCEEDED, minute=0)
    assert submission(decide([inherited], place(), not_before=NOON + timedelta(minutes=1))) == 0
    assert adopted(decide([inherited], place(), not_before=NOON)) == inherited.name


def test_shards_that_no_longer_exist_are_cancelled_if_this_task_made_them() -> None:
    made = job(JobState.RUNNING, name="batches/1", at=place(shard=3, fingerprint=OTHER_INPUT))
    left = job(JobState.RUNNING, name="batches/2", at=place(shard=4, fingerprint=OTHER_INPUT))
    kept = job(JobState.RUNNING, name="batches/3", at=place(shard=1, fingerprint=OTHER_INPUT))
    done = job(JobState.SUCCEEDED, name="batches/4", at=place(shard=3, fingerprint=OTHER_INPUT))
    tidying = leftovers([made, left, kept, done], TASK.digest, shards=2, made_by_us={made.name})
    assert (tidying.stale, tidying.strangers) == ((made,), (left,))
    assert len(tidying.warnings) == 1


# -- without reattaching, without input


@pytest.mark.parametrize("state", JobState)
def test_without_reattaching_nothing_is_adopted_and_nothing_cancelled(state: JobState) -> None:
    found = [job(state), job(state, name="batches/2", fingerprint=OTHER_INPUT, submission=1)]
    decision = decide(found, place(), reattach=False, made_by_us={"batches/one", "batches/2"}, can_resend=True)
    assert submission(decision) == 2
    assert (decision.rows_from, decision.tidying.duplicates, decision.tidying.stale) == ((), (), ())


def test_without_reattaching_the_jobs_of_this_very_try_are_still_used() -> None:
    earlier, answer = job(JobState.RUNNING), job(JobState.RUNNING, name="batches/2", submission=1)
    decision = decide([earlier, answer], place(), reattach=False, own=[answer.name])
    assert adopted(decision) == answer.name
    assert decision.tidying.strangers == (earlier,)
    assert decision.tidying.duplicates == ()


def test_the_finished_rows_beside_a_job_in_use_are_found_again() -> None:
    expired = job(JobState.EXPIRED, name="batches/1", finished=6)
    rest = job(JobState.RUNNING, name="batches/2", submission=1, minute=5)
    later = job(JobState.EXPIRED, name="batches/3", submission=2, minute=9, finished=6)
    found = [later, rest, expired]
    assert rows_beside(found, place(), rest, delivered=lambda _name: False) == (expired,)
    assert rows_beside(found, place(), job(JobState.RUNNING, name="batches/9"), delivered=always) == ()


def test_a_job_is_adopted_with_a_warning_when_its_input_cannot_be_read_any_more() -> None:
    older = job(JobState.SUCCEEDED, name="batches/1", fingerprint=OTHER_INPUT)
    newer = job(JobState.RUNNING, name="batches/2", submission=1, minute=5)
    decision = decide([older, newer], place(fingerprint=None))
    assert adopted(decision) == newer.name
    assert "could not be checked" in decision.tidying.warnings[-1]


def test_what_cannot_be_read_cannot_be_named() -> None:
    assert isinstance(decide([], place(fingerprint=None)), Submit)
    with pytest.raises(ValueError, match="cannot be read"):
        place(fingerprint=None).tag(0)


# -- what holds always

jobs = st.builds(
    job,
    state=st.sampled_from(JobState),
    name=st.integers(0, 9).map(lambda number: f"batches/{number}"),
    submission=st.integers(0, 3),
    generation=st.integers(0, 2),
    fingerprint=st.sampled_from([INPUT, OTHER_INPUT]),
    minute=st.integers(0, 5),
    finished=st.integers(0, 2),
)
lists = st.lists(jobs, max_size=8, unique_by=lambda one: one.name)
names = st.frozensets(st.integers(0, 9).map(lambda number: f"batches/{number}"))
options = st.fixed_dictionaries(
    {
        "reattach": st.booleans(),
        "can_resend": st.booleans(),
        "delivered": names.map(lambda some: some.__contains__),
        "made_by_us": names,
        "cancelled_by_us": st.none() | names,
        "own": names,
    }
)


@given(lists, st.integers(0, 2), options, st.randoms())
def test_the_order_of_the_list_does_not_matter(
    found: list[BatchJob], generation: int, options: dict[str, Any], random: Random
) -> None:
    decision = decide(found, place(generation=generation), **options)
    shuffled = list(found)
    random.shuffle(shuffled)
    assert decide(shuffled, place(generation=generation), **options) == decision


@given(lists, st.integers(0, 2), options)
def test_a_new_job_has_a_name_that_no_job_had(found: list[BatchJob], generation: int, options: dict[str, Any]) -> None:
    where = place(generation=generation)
    decision = decide(found, where, **options)
    if isinstance(decision, Submit):
        tags = [Tag.parse(one.display_name) for one in found]
        assert all(tag is not None and tag.submission < decision.submission for tag in tags)
        assert where.tag(decision.submission) not in tags


@given(lists, st.integers(0, 2), options)
def test_nothing_runs_on_unused_unless_it_is_cancelled_or_named(
    found: list[BatchJob], generation: int, options: dict[str, Any]
) -> None:
    decision = decide(found, place(generation=generation), **options)
    tidying = decision.tidying
    chosen = [decision.job] if isinstance(decision, Adopt) else []
    active = {one.name for one in found if one.state in ACTIVE}
    groups = [chosen, tidying.duplicates, tidying.stale, tidying.strangers]
    handled = [one.name for group in groups for one in group]
    assert active <= set(handled)
    assert len(handled) == len(set(handled))
    warned = " ".join(tidying.warnings)
    assert all(one.name in warned for one in tidying.strangers)


@given(lists, st.integers(0, 2), options)
def test_only_active_jobs_that_are_ours_are_ever_cancelled(
    found: list[BatchJob], generation: int, options: dict[str, Any]
) -> None:
    decision = decide(found, place(generation=generation), **options)
    for one in (*decision.tidying.duplicates, *decision.tidying.stale):
        assert options["reattach"] or one.name in options["own"]
        assert one.state in ACTIVE
    assert all(one.display_name.endswith(INPUT) for one in decision.tidying.duplicates)
    assert all(one.name in options["made_by_us"] for one in decision.tidying.stale)


@given(lists, st.integers(0, 2), options)
def test_nothing_is_bought_while_paid_work_for_the_same_rows_goes_on(
    found: list[BatchJob], generation: int, options: dict[str, Any]
) -> None:
    decision = decide(found, place(generation=generation), **{**options, "reattach": True})
    doomed = options["cancelled_by_us"] or ()
    running = [
        one for one in found if one.display_name.endswith(INPUT) and one.state in ACTIVE and one.name not in doomed
    ]
    if running:
        assert isinstance(decision, Adopt)
    if isinstance(decision, Adopt):
        assert decision.job.display_name.endswith(INPUT)
        assert decision.job.state is not JobState.FAILED


@given(lists, st.integers(0, 2), st.booleans())
def test_carrying_out_a_decision_leads_to_a_decision_that_changes_nothing(
    found: list[BatchJob],
    generation: int,
    can_resend: bool,  # noqa: FBT001
) -> None:
    where = place(generation=generation)
    decision = decide(found, where, can_resend=can_resend, cancelled_by_us=None)
    cancelled = {one.name for one in (*decision.tidying.duplicates, *decision.tidying.stale)}
    after = [one.model_copy(update={"state": JobState.CANCELLED}) if one.name in cancelled else one for one in found]
    if isinstance(decision, Submit):
        made = job(JobState.PENDING, name="batches/new", submission=decision.submission, minute=60, at=where)
        after.append(made)
        expected = made.name
    else:
        expected = decision.job.name
    again = decide(after, where, can_resend=can_resend, cancelled_by_us=None)
    assert adopted(again) == expected
    assert again.tidying.duplicates == ()
    assert again.tidying.stale == ()
