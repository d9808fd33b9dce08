"""Which jobs are adopted, counted in part, cancelled or left, and when a new one is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from batch.made_up_jobs import INPUT, OTHER_INPUT, TASK, job, record, slot
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_gemini_batch.api.models import BatchJob, CompletionStats, JobState, ServiceError
from airflow_provider_gemini_batch.batch import adoption
from airflow_provider_gemini_batch.batch.adoption import Adopt, Cleanup, Decision, Slot, Submit, standing_input
from airflow_provider_gemini_batch.batch.tag import LABEL_KEY, Tag, TaskIdentity, label_value

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

    from airflow_provider_gemini_batch.batch.state import JobRecord

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
    return decision.job_name if isinstance(decision, Adopt) else None


def submission(decision: Decision) -> int | None:
    return decision.submission if isinstance(decision, Submit) else None


class Everything:
    """A set that holds every name."""

    def __contains__(self, _name: object) -> bool:
        return True


ALWAYS = Everything()


def decide(
    found: Iterable[BatchJob],
    where: Slot,
    *,
    delivered: Any = (),
    created: Any = (),
    cancelled: Any = None,
    own: Any = (),
    **options: Any,
) -> Decision:
    """Decide about jobs. The names say what is written down of them; ``cancelled`` None: nothing is."""
    facts = {"delivered": delivered, "created": created, "cancelled": cancelled or (), "own": own}
    return adoption.decide(records(found, **facts), where, has_notes=cancelled is not None, **options)


def records(
    found: Iterable[BatchJob], *, delivered: Any = (), created: Any = (), cancelled: Any = (), own: Any = ()
) -> list[JobRecord]:
    return [
        record(
            one,
            delivered=one.name in delivered,
            created=one.name in created,
            cancelled_by_us=one.name in cancelled,
            in_use=one.name in own,
        )
        for one in found
    ]


# -- one job


def test_without_any_job_the_first_one_is_made() -> None:
    assert submission(decide([], slot())) == 0


@pytest.mark.parametrize("state", ACTIVE)
@pytest.mark.parametrize("made_in", [0, 1, 2])
def test_an_active_job_is_adopted_on_a_retry_and_after_a_clear(state: JobState, made_in: int) -> None:
    running = job(state, clear_count=made_in)
    assert adopted(decide([running], slot(clear_count=1), delivered=ALWAYS)) == running.name


def test_a_job_that_succeeded_is_adopted_on_a_retry_even_if_it_was_delivered() -> None:
    done = job(JobState.SUCCEEDED, clear_count=1)
    assert adopted(decide([done], slot(clear_count=1))) == done.name
    assert adopted(decide([done], slot(clear_count=1), delivered=ALWAYS)) == done.name


def test_after_a_clear_a_job_that_succeeded_is_adopted_only_if_it_was_never_delivered() -> None:
    done = job(JobState.SUCCEEDED, clear_count=0, submission=3)
    assert adopted(decide([done], slot(clear_count=1))) == done.name
    assert submission(decide([done], slot(clear_count=1), delivered=ALWAYS)) == 4


@pytest.mark.parametrize("clear_count", [0, 1])
@pytest.mark.parametrize("can_resend", [True, False])
def test_a_failed_job_is_followed_by_the_next_submission(clear_count: int, *, can_resend: bool) -> None:
    decision = decide([job(JobState.FAILED)], slot(clear_count=clear_count), can_resend=can_resend)
    assert submission(decision) == 1
    assert decision.rows_from == ()


@pytest.mark.parametrize("state", PARTIAL)
@pytest.mark.parametrize("clear_count", [0, 1])
def test_finished_rows_count_and_the_others_are_sent_again(state: JobState, clear_count: int) -> None:
    partly = job(state, finished=4)
    decision = decide([partly], slot(clear_count=clear_count), can_resend=True)
    assert submission(decision) == 1
    assert decision.rows_from == (partly.name,)


@pytest.mark.parametrize("state", PARTIAL)
def test_finished_rows_that_were_delivered_before_a_clear_do_not_count(state: JobState) -> None:
    partly = job(state, finished=4)
    assert decide([partly], slot(clear_count=1), can_resend=True, delivered=ALWAYS).rows_from == ()
    assert decide([partly], slot(clear_count=0), can_resend=True, delivered=ALWAYS).rows_from == (partly.name,)


@pytest.mark.parametrize("state", [JobState.EXPIRED, JobState.CANCELLED])
def test_where_rows_cannot_be_sent_again_everything_is(state: JobState) -> None:
    decision = decide([job(state, finished=4)], slot(), can_resend=False)
    assert (submission(decision), decision.rows_from) == (1, ())


@pytest.mark.parametrize("state", [JobState.FAILED, *PARTIAL])
def test_a_job_that_failed_may_have_finished_rows_too(state: JobState) -> None:
    cut_short = job(state, finished=4)
    decision = decide([cut_short], slot(), can_resend=True)
    assert isinstance(decision, Submit)
    assert decision.rows_from == decision.completes == (cut_short.name,)
    for lacking in ({"dest": None}, {"completion_stats": None}, {"completion_stats": CompletionStats(total=9)}):
        silent = job(JobState.FAILED, finished=4).model_copy(update=lacking)
        assert decide([silent], slot(), can_resend=True).rows_from == ()


def test_an_output_that_the_service_refused_as_input_is_not_given_to_it_again() -> None:
    first = job(JobState.EXPIRED, finished=4)
    refused = job(JobState.FAILED, name="batches/2", submission=1, minute=5, error=ServiceError(code=3))
    decision = decide([first, refused], slot(), can_resend=True)
    assert isinstance(decision, Submit)
    assert (decision.rows_from, decision.completes) == ((first.name,), ())
    third = job(JobState.EXPIRED, name="batches/3", submission=2, minute=9, finished=4)
    decision = decide([first, refused, third], slot(), can_resend=True)
    assert isinstance(decision, Submit)
    assert decision.completes == (third.name,)
    passing = job(JobState.FAILED, name="batches/2", submission=1, minute=5, error=ServiceError(code=13))
    decision = decide([first, passing], slot(), can_resend=True)
    assert isinstance(decision, Submit)
    assert decision.completes == (first.name,)


@pytest.mark.parametrize("state", PARTIAL)
def test_an_ended_job_whose_requests_are_all_pending_counts_for_nothing(state: JobState) -> None:
    untouched = CompletionStats(total=10, pending=10)
    decision = decide([job(state).model_copy(update={"completion_stats": untouched})], slot(), can_resend=True)
    assert (submission(decision), decision.rows_from) == (1, ())


@pytest.mark.parametrize("state", PARTIAL)
def test_an_ended_job_that_tells_no_counts_is_read(state: JobState) -> None:
    silent = job(state)
    assert decide([silent], slot(), can_resend=True).rows_from == (silent.name,)


@pytest.mark.parametrize("can_resend", [True, False])
def test_a_partially_succeeded_job_is_used_like_one_that_succeeded(*, can_resend: bool) -> None:
    partly = job(JobState.PARTIALLY_SUCCEEDED, finished=9)
    assert adopted(decide([partly], slot(), can_resend=can_resend)) == partly.name
    assert adopted(decide([partly], slot(clear_count=1), can_resend=can_resend)) == partly.name
    assert submission(decide([partly], slot(clear_count=1), can_resend=can_resend, delivered=ALWAYS)) == 1


def test_a_job_that_a_person_cancelled_is_judged_on_a_retry_and_replaced_after_a_clear() -> None:
    cancelled = job(JobState.CANCELLED)
    assert adopted(decide([cancelled], slot(), cancelled=())) == cancelled.name
    assert submission(decide([cancelled], slot(clear_count=1), cancelled=())) == 1


def test_a_job_that_this_task_cancelled_is_replaced_on_a_retry() -> None:
    cancelled = job(JobState.CANCELLED)
    assert submission(decide([cancelled], slot(), cancelled={cancelled.name})) == 1
    assert submission(decide([cancelled], slot(), cancelled=None)) == 1


def test_a_later_submission_outweighs_what_a_person_did_to_an_earlier_one() -> None:
    cancelled, failed = job(JobState.CANCELLED), job(JobState.FAILED, name="batches/two", submission=1, minute=9)
    assert submission(decide([cancelled, failed], slot(), cancelled=())) == 2


@pytest.mark.parametrize("clear_count", [0, 1])
def test_a_job_that_is_being_cancelled_is_waited_for(clear_count: int) -> None:
    ending = job(JobState.CANCELLING)
    assert adopted(decide([ending], slot(clear_count=clear_count))) == ending.name


@pytest.mark.parametrize("clear_count", [0, 1])
def test_a_job_whose_cancellation_was_asked_for_is_waited_for_beside_a_good_one(clear_count: int) -> None:
    ending = job(JobState.RUNNING)
    where = slot(clear_count=clear_count)
    assert adopted(decide([ending], where, cancelled={ending.name})) == ending.name
    good = job(JobState.RUNNING, name="batches/two", submission=1)
    decision = decide([ending, good], where, cancelled={ending.name})
    assert adopted(decision) == good.name
    assert decision.cleanup.duplicates == (ending.name,)


# -- several jobs


def test_of_several_good_jobs_the_oldest_is_used_and_the_others_are_cancelled() -> None:
    first, second, third = (
        job(JobState.RUNNING, name="batches/z", minute=0),
        job(JobState.PENDING, name="batches/y", minute=1),
        job(JobState.SUCCEEDED, name="batches/x", minute=2),
    )
    decision = decide([third, first, second], slot())
    assert adopted(decision) == first.name
    assert decision.cleanup.duplicates == (second.name,)


@pytest.mark.parametrize("state", [JobState.PENDING, JobState.RUNNING, JobState.SUCCEEDED])
@pytest.mark.parametrize("viewed_at", [0, 1, 2])
def test_a_job_from_before_a_clear_that_shows_up_late_does_not_replace_one_from_after_it(
    state: JobState, viewed_at: int
) -> None:
    late = job(state, name="batches/1", clear_count=0, minute=0)
    first, second = (
        job(JobState.SUCCEEDED, name=f"batches/{number}", clear_count=1, submission=number, minute=number)
        for number in (2, 3)
    )
    decision = decide([late, second, first], slot(clear_count=viewed_at))
    assert adopted(decision) == first.name
    assert decision.cleanup.duplicates == (() if state is JobState.SUCCEEDED else (late.name,))


def test_a_good_job_is_used_whatever_became_of_older_ones() -> None:
    failed = job(JobState.FAILED, name="batches/1", minute=0)
    running = job(JobState.RUNNING, name="batches/2", submission=1, minute=5)
    assert adopted(decide([failed, running], slot())) == running.name


def test_the_finished_rows_of_an_expired_job_count_beside_the_job_that_completes_it() -> None:
    expired = job(JobState.EXPIRED, name="batches/1", finished=6)
    rest = job(JobState.SUCCEEDED, name="batches/2", submission=1, minute=5)
    decision = decide([rest, expired], slot(), can_resend=True)
    assert adopted(decision) == rest.name
    assert decision.rows_from == (expired.name,)


def test_the_rows_of_a_cancelled_duplicate_are_not_read() -> None:
    used = job(JobState.SUCCEEDED, name="batches/1")
    duplicate = job(JobState.CANCELLED, name="batches/2", minute=1, finished=3)
    assert decide([used, duplicate], slot(), can_resend=True).rows_from == ()


def test_rows_of_several_ended_jobs_count_oldest_first() -> None:
    first = job(JobState.EXPIRED, name="batches/1", finished=2)
    second = job(JobState.EXPIRED, name="batches/2", submission=1, minute=9, finished=2)
    decision = decide([second, first], slot(), can_resend=True)
    assert (submission(decision), decision.rows_from) == (2, (first.name, second.name))


# -- other input, other tasks


def test_a_job_from_other_input_is_cancelled_only_if_this_task_made_it() -> None:
    stale = job(JobState.RUNNING, fingerprint=OTHER_INPUT)
    ours = decide([stale], slot(), created={stale.name})
    assert (submission(ours), ours.cleanup.stale, ours.cleanup.warnings) == (1, (stale.name,), ())
    left = decide([stale], slot())
    assert (submission(left), left.cleanup.stale, left.cleanup.strangers) == (1, (), (stale.name,))
    assert stale.name in left.cleanup.warnings[0]


def test_a_job_of_an_older_generation_from_other_input_is_cancelled_if_this_task_made_it() -> None:
    stale = job(JobState.RUNNING, fingerprint=OTHER_INPUT, clear_count=0)
    assert decide([stale], slot(clear_count=1), created={stale.name}).cleanup.stale == (stale.name,)


@pytest.mark.parametrize("state", [state for state in JobState if state.is_terminal or state is JobState.CANCELLING])
def test_an_ended_job_from_other_input_is_ignored(state: JobState) -> None:
    decision = decide([job(state, fingerprint=OTHER_INPUT, finished=3)], slot(), can_resend=True)
    assert (submission(decision), decision.rows_from, decision.cleanup) == (1, (), Cleanup())


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
    assert decide([other], slot()) == Submit(0, "")


@pytest.mark.parametrize(
    "name", ["", "nightly", "gb1-looks-like-one-of-ours", f"gb1-{TASK.digest}-0-0.0.0-{INPUT} copy"]
)
def test_jobs_with_similar_names_are_passed_over(name: str) -> None:
    other = job(JobState.RUNNING).model_copy(update={"display_name": name})
    assert decide([other], slot()).cleanup == Cleanup()
    assert submission(decide([other], slot())) == 0


def test_each_shard_and_round_is_decided_alone() -> None:
    elsewhere = [job(JobState.RUNNING, at=slot(shard=1)), job(JobState.SUCCEEDED, name="batches/2", at=slot(round=1))]
    assert decide(elsewhere, slot()) == Submit(0, "")


def test_a_renamed_job_is_known_by_its_label() -> None:
    labels = {LABEL_KEY: label_value(slot().tag(0))}
    renamed = job(JobState.RUNNING).model_copy(update={"display_name": "renamed", "labels": labels})
    assert adopted(decide([renamed], slot())) == renamed.name


def test_shards_that_no_longer_exist_are_cancelled_if_this_task_made_them() -> None:
    made = job(JobState.RUNNING, name="batches/1", at=slot(shard=3, fingerprint=OTHER_INPUT))
    left = job(JobState.RUNNING, name="batches/2", at=slot(shard=4, fingerprint=OTHER_INPUT))
    kept = job(JobState.RUNNING, name="batches/3", at=slot(shard=1, fingerprint=OTHER_INPUT))
    done = job(JobState.SUCCEEDED, name="batches/4", at=slot(shard=3, fingerprint=OTHER_INPUT))
    cleanup = adoption.orphaned_shards(records([made, left, kept, done], created={made.name}), TASK.digest, shards=2)
    assert (cleanup.stale, cleanup.strangers) == ((made.name,), (left.name,))
    assert len(cleanup.warnings) == 1


# -- the input reads differently on a retry


@pytest.mark.parametrize("state", [*ACTIVE, JobState.SUCCEEDED, JobState.PARTIALLY_SUCCEEDED])
def test_what_a_retry_finds_paid_for_is_used_however_the_input_reads_by_now(state: JobState) -> None:
    found = records([job(state, fingerprint=OTHER_INPUT)])
    assert standing_input(found, 0, noted=OTHER_INPUT, reads=INPUT) == OTHER_INPUT
    assert standing_input(found, 0, noted="", reads=INPUT) is None
    assert standing_input(found, 0, noted=OTHER_INPUT, reads=INPUT, reattach=False) is None


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.EXPIRED, JobState.CANCELLED, JobState.CANCELLING])
def test_input_that_has_changed_counts_where_nothing_of_the_old_can_be_used(state: JobState) -> None:
    found = records([job(state, fingerprint=OTHER_INPUT, finished=3)])
    assert standing_input(found, 0, noted=OTHER_INPUT, reads=INPUT) is None


def test_input_that_has_changed_counts_after_a_clear_or_once_jobs_were_made_from_it() -> None:
    older = records([job(JobState.SUCCEEDED, fingerprint=OTHER_INPUT)])
    assert standing_input(older, 1, noted=OTHER_INPUT, reads=INPUT) is None
    both = records([job(JobState.SUCCEEDED, fingerprint=OTHER_INPUT), job(JobState.RUNNING, name="batches/2")])
    assert standing_input(both, 0, noted=OTHER_INPUT, reads=INPUT) is None


def test_a_retry_goes_on_with_the_job_that_its_task_took_over_from_before_the_clear() -> None:
    taken_over = [record(job(JobState.RUNNING, fingerprint=OTHER_INPUT), inherited=True)]
    assert standing_input(taken_over, 1, noted=OTHER_INPUT, reads=INPUT) == OTHER_INPUT
    assert standing_input(taken_over, 1, noted=OTHER_INPUT, reads=INPUT, reattach=False) is None


# -- without reattaching, without input


@pytest.mark.parametrize("state", JobState)
def test_without_reattaching_nothing_is_adopted_and_nothing_cancelled(state: JobState) -> None:
    found = [job(state), job(state, name="batches/2", fingerprint=OTHER_INPUT, submission=1)]
    decision = decide(found, slot(), reattach=False, created={"batches/one", "batches/2"}, can_resend=True)
    assert submission(decision) == 2
    assert (decision.rows_from, decision.cleanup.duplicates, decision.cleanup.stale) == ((), (), ())


def test_without_reattaching_the_jobs_of_this_very_try_are_still_used() -> None:
    earlier, answer = job(JobState.RUNNING), job(JobState.RUNNING, name="batches/2", submission=1)
    decision = decide([earlier, answer], slot(), reattach=False, own=[answer.name])
    assert adopted(decision) == answer.name
    assert decision.cleanup.strangers == (earlier.name,)
    assert decision.cleanup.duplicates == ()


def test_the_finished_rows_beside_a_job_in_use_are_found_again() -> None:
    expired = job(JobState.EXPIRED, name="batches/1", finished=6)
    rest = job(JobState.RUNNING, name="batches/2", submission=1, minute=5)
    later = job(JobState.EXPIRED, name="batches/3", submission=2, minute=9, finished=6)
    found = [later, rest, expired]
    assert adoption.partial_results_for(records(found), slot(), rest.name) == (expired.name,)
    assert adoption.partial_results_for(records(found), slot(), "batches/9") == ()


def test_a_job_is_adopted_with_a_warning_when_its_input_cannot_be_read_any_more() -> None:
    older = job(JobState.SUCCEEDED, name="batches/1", fingerprint=OTHER_INPUT)
    newer = job(JobState.RUNNING, name="batches/2", submission=1, minute=5)
    decision = decide([older, newer], slot(fingerprint=None))
    assert adopted(decision) == newer.name
    assert "could not be checked" in decision.cleanup.warnings[-1]


def test_what_cannot_be_read_cannot_be_named() -> None:
    assert isinstance(decide([], slot(fingerprint=None)), Submit)
    with pytest.raises(ValueError, match="cannot be read"):
        slot(fingerprint=None).tag(0)


# -- what holds always

jobs = st.builds(
    job,
    state=st.sampled_from(JobState),
    name=st.integers(0, 9).map(lambda number: f"batches/{number}"),
    submission=st.integers(0, 3),
    clear_count=st.integers(0, 2),
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
        "delivered": names,
        "created": names,
        "cancelled": st.none() | names,
        "own": names,
    }
)


@given(lists, st.integers(0, 2), options, st.randoms())
def test_the_order_of_the_list_does_not_matter(
    found: list[BatchJob], clear_count: int, options: dict[str, Any], random: Random
) -> None:
    decision = decide(found, slot(clear_count=clear_count), **options)
    shuffled = list(found)
    random.shuffle(shuffled)
    assert decide(shuffled, slot(clear_count=clear_count), **options) == decision


@given(lists, st.integers(0, 2), options)
def test_a_new_job_has_a_name_that_no_job_had(found: list[BatchJob], clear_count: int, options: dict[str, Any]) -> None:
    where = slot(clear_count=clear_count)
    decision = decide(found, where, **options)
    if isinstance(decision, Submit):
        tags = [Tag.parse(one.display_name) for one in found]
        assert all(tag is not None and tag.submission < decision.submission for tag in tags)
        assert where.tag(decision.submission) not in tags


@given(lists, st.integers(0, 2), options)
def test_nothing_runs_on_unused_unless_it_is_cancelled_or_named(
    found: list[BatchJob], clear_count: int, options: dict[str, Any]
) -> None:
    decision = decide(found, slot(clear_count=clear_count), **options)
    cleanup = decision.cleanup
    chosen = (decision.job_name,) if isinstance(decision, Adopt) else ()
    active = {one.name for one in found if one.state in ACTIVE}
    groups = [chosen, cleanup.duplicates, cleanup.stale, cleanup.strangers]
    handled = [name for group in groups for name in group]
    assert active <= set(handled)
    assert len(handled) == len(set(handled))
    warned = " ".join(cleanup.warnings)
    assert all(name in warned for name in cleanup.strangers)


@given(lists, st.integers(0, 2), options)
def test_only_active_jobs_that_are_ours_are_ever_cancelled(
    found: list[BatchJob], clear_count: int, options: dict[str, Any]
) -> None:
    decision = decide(found, slot(clear_count=clear_count), **options)
    jobs = {one.name: one for one in found}
    for name in (*decision.cleanup.duplicates, *decision.cleanup.stale):
        assert options["reattach"] or name in options["own"]
        assert jobs[name].state in ACTIVE
    assert all(jobs[name].display_name.endswith(INPUT) for name in decision.cleanup.duplicates)
    assert all(name in options["created"] for name in decision.cleanup.stale)


@given(lists, st.integers(0, 2), options)
def test_nothing_is_bought_while_paid_work_for_the_same_rows_goes_on(
    found: list[BatchJob], clear_count: int, options: dict[str, Any]
) -> None:
    decision = decide(found, slot(clear_count=clear_count), **{**options, "reattach": True})
    doomed = options["cancelled"] or ()
    running = [
        one for one in found if one.display_name.endswith(INPUT) and one.state in ACTIVE and one.name not in doomed
    ]
    if running:
        assert isinstance(decision, Adopt)
    if isinstance(decision, Adopt):
        (used,) = [one for one in found if one.name == decision.job_name]
        assert used.display_name.endswith(INPUT)
        assert used.state is not JobState.FAILED


@given(lists, st.integers(0, 2), st.booleans())
def test_carrying_out_a_decision_leads_to_a_decision_that_changes_nothing(
    found: list[BatchJob],
    clear_count: int,
    can_resend: bool,  # noqa: FBT001
) -> None:
    where = slot(clear_count=clear_count)
    decision = decide(found, where, can_resend=can_resend, cancelled=None)
    cancelled = {*decision.cleanup.duplicates, *decision.cleanup.stale}
    after = [one.model_copy(update={"state": JobState.CANCELLED}) if one.name in cancelled else one for one in found]
    if isinstance(decision, Submit):
        made = job(JobState.PENDING, name="batches/new", submission=decision.submission, minute=60, at=where)
        after.append(made)
        expected = made.name
    else:
        expected = decision.job_name
    again = decide(after, where, can_resend=can_resend, cancelled=None)
    assert adopted(again) == expected
    assert again.cleanup.duplicates == ()
    assert again.cleanup.stale == ()
