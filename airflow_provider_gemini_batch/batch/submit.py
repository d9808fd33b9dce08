"""One create call, made safe: written down before, looked for after, never repeated blindly, and never without end.

A create call is not idempotent and costs money. Before it is sent, it is recorded as pending and counted; a clear
answer removes that record. Without an answer, the job may exist: it is looked for by its tag, at growing pauses, until
``lookup_timeout`` seconds after the service could last have acted on the call. Only then is the call sent again, at
growing pauses, until the fuse of :mod:`.state` blows.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from airflow_provider_gemini_batch.api.errors import (
    GeminiBatchError,
    QuotaExceeded,
    ServiceUnavailable,
)
from airflow_provider_gemini_batch.batch.ports import TaskFailed
from airflow_provider_gemini_batch.batch.state import UNRECORDED, JobRecord
from airflow_provider_gemini_batch.batch.tag import Tag
from airflow_provider_gemini_batch.batch.verdict import SentTooOften, judge
from airflow_provider_gemini_batch.polling.policy import next_lookup
from airflow_provider_gemini_batch.polling.turns import TurnRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_gemini_batch.batch.ports import Plan, TaskTry
    from airflow_provider_gemini_batch.batch.state import BatchState

log = logging.getLogger(__name__)

# A running task may pause this long; longer waits are deferred, so that no worker is held.
LONGEST_PAUSE: Final = 30.0
# For a 429 without Retry-After: the quota of enqueued tokens frees up when other jobs end, which takes minutes.
_QUOTA_PAUSES: Final = (60.0, 120.0, 300.0, 600.0)
# By the number of create calls in a row whose job never appeared: the service may be down for a while.
_RESEND_PAUSES: Final = (0.0, 60.0, 300.0, 1200.0)
# An upload lives 48 hours, within which the job must have read it: one older than this is uploaded again.
_KEPT_FOR: Final = 24 * 3600.0
# With these statuses, in its own form, Google itself gives the call up. A gateway's page does not say what happened
# behind it, whatever its status.
_FINAL_STATUS: Final = frozenset({HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.SERVICE_UNAVAILABLE})


class Postponed(Exception):
    """Nothing can be done before ``until`` (seconds since the epoch), or before the task's turn has come."""

    def __init__(self, until: float, reason: str, turn: TurnRequest | None = None) -> None:
        super().__init__(reason)
        self.until = until
        self.reason = reason
        self.turn = turn


class Submitter:
    """Creates the jobs of one try and finds those whose creation was not answered."""

    def __init__(self, task: TaskTry, state: BatchState) -> None:
        self._task = task
        self._state = state

    def submit(self, tag: Tag, rows: Sequence[int] | None, *, reuse: bool, completes: Sequence[str] = ()) -> JobRecord:
        """Return the job of ``tag``, created now or by a call without an answer; see :meth:`JobService.prepare`.

        :raises Postponed: the quota is used up, or the look-up has to wait longer than a worker should.
        :raises TaskFailed: the fuse has blown.
        :raises GeminiBatchError: the service refuses the job, so that none exists.
        """
        self._check_fuse(tag)
        self._check_pause()
        prepared = self._kept(tag) or self._task.service.prepare(tag, rows, reuse=reuse, completes=completes)
        while True:
            found = self._send(prepared, tag) or self.look_up(str(tag))
            if found is not None:
                return found
            self._check_fuse(tag)
            self._check_pause()
            log.info("No job %s in the service's list: sending the create call again.", tag)

    def keep(self, tag: Tag, rows: Sequence[int] | None, *, reuse: bool, completes: Sequence[str] = ()) -> None:
        """Bring the input of a job to the service before its turn has come, so that it is not read again then."""
        if self._kept(tag) is None:
            self._keep(self._task.service.prepare(tag, rows, reuse=reuse, completes=completes), tag)

    def discard_kept(self) -> None:
        """Remove input that was kept for jobs that will not be created."""
        while self._state.kept:
            written, (name, _) = self._state.kept.popitem()
            tag = Tag.parse(written)
            prepared = self._task.service.kept(name, tag) if tag is not None else None
            if prepared is not None:
                self._task.service.discard(prepared)

    def _keep(self, prepared: object, tag: Tag) -> None:
        name = self._task.service.keep(prepared, tag)
        if name is not None:
            self._state.kept[str(tag)] = [name, self._task.clock.now()]

    def _kept(self, tag: Tag) -> object | None:
        name, since = self._state.kept.get(str(tag), (None, 0.0))
        is_young = 0 <= self._task.clock.now() - since < _KEPT_FOR
        return self._task.service.kept(name, tag) if name is not None and is_young else None

    def look_up(self, wanted: str, plan: Plan | None = None) -> JobRecord | None:
        """Return the job of a pending create, searched for until it can no longer appear; then None.

        :param wanted: a tag's text, or :data:`UNRECORDED`, which stands for all jobs of this clear count and
            fingerprint.
        :param plan: decides for :data:`UNRECORDED` whether the jobs found are all that there can be.
        :raises Postponed: the next search is further away than a worker should sleep.
        """
        state, clock = self._state, self._task.clock
        pending = state.pending[wanted]
        # Also for an unrecorded call: a try that died may have sent it in its last moment.
        in_flight = 0.0 if pending.answered else self._task.policy.request_timeout
        while True:
            began = clock.now()
            state.record_listed(self._task.service.find(self._task.identity), self._task.identity, clock.now())
            listed_at = self._task.service.listed_at
            pending = pending.resumed(began, listed_at)
            found = possible_jobs(wanted, state, plan)
            for record in found:
                if record.job is not None:
                    state.record_created(record.job, clock.now())
                    log.info("Found %s: a create call whose response was lost had created it.", record.name)
            pause = next_lookup(pending.waited, lookup_timeout=self._task.policy.lookup_timeout, in_flight=in_flight)
            if found or pause is None:
                break
            now = clock.now()
            state.pending[wanted] = replace(pending, looked_at=now, listed_at=listed_at, pause=pause)
            if pause > LONGEST_PAUSE:
                raise Postponed(now + pause, "the job of a create call without response may still show up in the list")
            clock.sleep(pause)
            pending = replace(pending, waited=pending.waited + pause)
        state.pending.pop(wanted, None)
        if not found and wanted != UNRECORDED:
            pause = _RESEND_PAUSES[min(state.unanswered, len(_RESEND_PAUSES) - 1)]
            state.unanswered += 1
            state.resend_at = clock.now() + pause
        self._task.save(self._state)
        return state.records[found[0].name] if found else None

    def _send(self, prepared: object, tag: Tag) -> JobRecord | None:
        """Send the call; return the job, or None when there is no readable answer."""
        state, clock = self._state, self._task.clock
        state.record_send(tag, clock.now())
        self._task.save(self._state)
        began = clock.monotonic()
        try:
            job = self._task.service.create(prepared, tag)
        except GeminiBatchError as error:
            if not error.may_have_acted:
                self._refused(tag, error, prepared)
                if not error.retryable:
                    self._task.service.discard(prepared)
                raise
            log.warning(
                "The create call for %s has no readable response (%s): looking for the job in the service's list.",
                tag,
                error,
            )
            answered = _is_answer(error)
            waited = 0.0 if answered else clock.monotonic() - began
            state.pending[str(tag)] = replace(state.pending[str(tag)], answered=answered, waited=waited)
            return None
        state.kept.pop(str(tag), None)
        record = state.record_created(job, clock.now())
        self._task.save(self._state)
        return record

    def _check_fuse(self, tag: Tag) -> None:
        state, policy = self._state, self._task.policy
        if state.may_send(tag, try_number=self._task.try_number, resubmits=policy.resubmits):
            return
        raise TaskFailed(
            judge(
                SentTooOften(
                    tag.slot,
                    this_try=state.sends_this_try.get(tag.slot, 0),
                    in_all=state.sent(tag),
                    job_names=tuple(state.jobs_of(tag)),
                )
            )
        )

    def _check_pause(self) -> None:
        now = self._task.clock.now()
        left = min(self._state.resend_at - now, _RESEND_PAUSES[-1])
        if left > 0:
            raise Postponed(now + left, "create calls had no response, and no job showed up: the service may be down")

    def _refused(self, tag: Tag, error: GeminiBatchError, prepared: object) -> None:
        state, now = self._state, self._task.clock.now()
        state.take_back_send(tag)
        if isinstance(error, QuotaExceeded):
            state.quota_refusals += 1
            state.turn_since = now if state.turn_since is None else state.turn_since
        self._task.save(self._state)
        if isinstance(error, QuotaExceeded):
            try:
                self._keep(prepared, tag)
            except GeminiBatchError as failure:
                log.warning("The input could not be kept at the service, and will be read again: %s", failure)
            usual = _QUOTA_PAUSES[min(state.quota_refusals, len(_QUOTA_PAUSES)) - 1]
            wait = error.retry_after if error.retry_after is not None else usual
            longer = _spread(self._task.identity, state.quota_refusals)
            until = now + max(wait, 1.0) * (1.0 + longer)
            turn = TurnRequest(None, state.turn_since or now)
            raise Postponed(until, f"the service's quota is used up ({error})", turn) from error


def _spread(identity: str, refusals: int) -> float:
    """Return the share, below a half, by which a task pauses longer than the service asked for.

    Otherwise tasks that were refused together would come back together, and all but one would be refused again. It is
    derived from the task's identity, so that it is the same in each process.
    """
    digest = hashlib.sha256(f"{identity}:{refusals}".encode()).digest()
    return int.from_bytes(digest[:2], "big") / (1 << 17)


def possible_jobs(wanted: str, state: BatchState, plan: Plan | None = None) -> list[JobRecord]:
    """Return the jobs seen so far that a pending create may have made."""
    if wanted != UNRECORDED:
        return [record for record in state.seen() if str(record.tag) == wanted]
    current = (state.clear_count, state.fingerprint)
    made = [r for r in state.seen() if r.tag is not None and (r.tag.clear_count, r.tag.fingerprint) == current]
    return made if plan is None or _are_all(made, state, plan) else []


def _are_all(records: Sequence[JobRecord], state: BatchState, plan: Plan) -> bool:
    """Return whether earlier tries can have made no other jobs, since no step was due that makes one."""
    tags = {record.name: record.tag for record in records if record.tag is not None}
    newest = max((tag.round for tag in tags.values()), default=0)
    usable = [
        record
        for record in records
        if tags[record.name].round == newest and record.job is not None and (not record.is_done or record.job.succeeded)
    ]
    shards = {tags[record.name].shard for record in usable}
    whole = newest > 0 or len(shards) >= (state.shards_seen() if plan.fingerprint is None else plan.shards)
    # A repair comes after all jobs of the round before it have ended.
    return whole and (any(not record.is_done for record in usable) or not plan.can_resend)


def _is_answer(error: GeminiBatchError) -> bool:
    """Return whether the service itself answered, so that it can no longer act on the call."""
    return isinstance(error, ServiceUnavailable) and error.http_status in _FINAL_STATUS and not error.is_vague
