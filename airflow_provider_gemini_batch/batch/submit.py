"""One create call, made safe: written down before, looked for after, never repeated blindly.

A create call is not idempotent and costs money. Before it is sent, an *intent* (tag and time) is kept; after a clear
answer it is struck out. When the answer is lost, the job may exist: it is looked for by its tag, at growing pauses,
until `lookup_timeout` seconds after the call could last have been acted on. Only then is the call made again.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.api.errors import GeminiBatchError, QuotaExceeded
from airflow_provider_gemini_batch.batch.tag import tag_of
from airflow_provider_gemini_batch.polling.policy import next_look

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_provider_gemini_batch.api.models import BatchJob
    from airflow_provider_gemini_batch.batch.ports import Clock, JobService, Policy, Store
    from airflow_provider_gemini_batch.batch.state import Ledger
    from airflow_provider_gemini_batch.batch.tag import Tag

log = logging.getLogger(__name__)

# A task that is alive may pause this long; longer waits are deferred, so that no worker is held.
LONGEST_PAUSE = 30.0
_SENDS_PER_TRY = 3
# 429 without a word on how long: the quota of enqueued tokens frees when other jobs end, which is a matter of minutes.
_QUOTA_PAUSES = (60.0, 120.0, 300.0, 600.0)
#: Stands in the intents for "an earlier try may have sent something, and nobody wrote down what".
UNRECORDED = "?"


class Postponed(Exception):
    """Nothing can be done before ``until`` (seconds since the epoch)."""

    def __init__(self, until: float, reason: str) -> None:
        """Keep when to go on, and why not now."""
        super().__init__(reason)
        self.until = until
        self.reason = reason


class Submitter:
    """Creates jobs for one run and finds those whose creation was not answered."""

    def __init__(
        self, *, identity: str, service: JobService, store: Store, clock: Clock, policy: Policy, ledger: Ledger
    ) -> None:
        """Take the ports of the run and the ledger that it shares."""
        self._identity = identity
        self._service = service
        self._store = store
        self._clock = clock
        self._policy = policy
        self._ledger = ledger
        #: All jobs of this task that a look-up has shown, by name.
        self.seen: dict[str, BatchJob] = {}
        #: Whether the jobs found so far leave no doubt that an earlier try made others that do not show up yet.
        self.are_all: Callable[[Sequence[BatchJob]], bool] = bool

    def save(self) -> None:
        """Keep the ledger."""
        self._store.save(self._ledger.to_json())

    def submit(self, tag: Tag, rows: Sequence[int] | None, *, reuse: bool) -> BatchJob:
        """Create the job of ``tag``, or give the one that an unanswered call made.

        :raises Postponed: the quota is used up, or the look-up has to wait longer than a worker should.
        :raises GeminiBatchError: the service refuses the job; nothing exists then.
        """
        prepared = self._service.prepare(tag, rows, reuse=reuse)
        for _ in range(_SENDS_PER_TRY):
            self._note_intent(tag)
            try:
                job = self._service.create(prepared, tag)
            except GeminiBatchError as error:
                if not error.maybe_acted:
                    self._refused(tag, error)
                    if not error.retryable:
                        self._service.discard(prepared)
                    raise
                log.warning("The create call for %s has no readable answer (%s): looking for the job.", tag, error)
                lost = error
            else:
                self.answered(tag, job, made=True)
                return job
            found = self.look_up(str(tag))
            if found is not None:
                return found
            log.info("No job %s in the list after %g s: sending the call again.", tag, self._policy.lookup_timeout)
        raise lost

    def look_up(self, wanted: str) -> BatchJob | None:
        """Look for the job of an open intent until it is found or can no longer appear.

        ``wanted`` is a tag's text or :data:`UNRECORDED`, which jobs of this generation and fingerprint answer.

        :raises Postponed: the next look is further away than a worker should sleep.
        """
        intent = self._ledger.intents[wanted]
        # Also where nothing is written down: a try that died may have sent its call in its last moment.
        in_flight = self._policy.request_timeout
        while True:
            now = self._clock.now()
            found = self._find(wanted)
            for job in found:
                self._strike(job)
            pause = next_look(now - intent, lookup_timeout=self._policy.lookup_timeout, in_flight=in_flight)
            if found or pause is None:
                self._ledger.intents.pop(wanted, None)
                self.save()
                return found[0] if found else None
            if pause > LONGEST_PAUSE:
                raise Postponed(now + pause, "a create call without an answer may still show up in the list")
            self._clock.sleep(pause)

    def answered(self, tag: Tag, job: BatchJob, *, made: bool) -> None:
        """Strike out an intent: its job is known."""
        self._ledger.intents.pop(str(tag), None)
        self._ledger.quota_refusals = 0
        self._ledger.note_job(job.name, made=made)
        self.save()

    def _note_intent(self, tag: Tag) -> None:
        self._ledger.intents[str(tag)] = self._clock.now()
        self.save()

    def _refused(self, tag: Tag, error: GeminiBatchError) -> None:
        self._ledger.intents.pop(str(tag), None)
        if isinstance(error, QuotaExceeded):
            self._ledger.quota_refusals += 1
        self.save()
        if isinstance(error, QuotaExceeded):
            pauses = min(self._ledger.quota_refusals, len(_QUOTA_PAUSES))
            wait = error.retry_after if error.retry_after is not None else _QUOTA_PAUSES[pauses - 1]
            raise Postponed(self._clock.now() + max(wait, 1.0), f"the service's quota is used up ({error})") from error

    def suspects(self) -> list[BatchJob]:
        """Give the jobs seen so far that an open intent may have made."""
        return [job for wanted in self._ledger.intents for job in self._answers(wanted)]

    def _find(self, wanted: str) -> list[BatchJob]:
        self.seen.update((job.name, job) for job in self._service.find(self._identity))
        found = self._answers(wanted)
        return found if wanted != UNRECORDED or self.are_all(found) else []

    def _answers(self, wanted: str) -> list[BatchJob]:
        tags = [(job, tag) for job in self.seen.values() if (tag := tag_of(job)) is not None]
        if wanted != UNRECORDED:
            return [job for job, tag in tags if str(tag) == wanted]
        current = (self._ledger.generation, self._ledger.fingerprint)
        return [job for job, tag in tags if (tag.generation, tag.fingerprint) == current]

    def _strike(self, job: BatchJob) -> None:
        tag = tag_of(job)
        if tag is not None:
            self.answered(tag, job, made=True)
