"""Which input of a task counts: the one that earlier tries paid for, else the current one; or none can be read."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.api.errors import ConfigurationError
from airflow_provider_gemini_batch.batch import adoption

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.api.errors import InputUnavailable
    from airflow_provider_gemini_batch.batch.ports import Plan, TaskTry
    from airflow_provider_gemini_batch.batch.state import BatchState

log = logging.getLogger(__name__)


class InputChanged(Exception):
    """The input has changed since it was checked, and no job has been paid for what it was then."""


class InputChoice:
    """The input of one try. ``unreadable``: why it cannot be read, or single rows of it cannot be sent; else None."""

    def __init__(self, task: TaskTry, state: BatchState) -> None:
        self._task = task
        self._state = state
        self._is_read_anew = False
        self.unreadable: ConfigurationError | None = None

    def read(self) -> Plan:
        """Return the plan for the input as it is now; without it, only jobs that were made before can be used.

        :raises ConfigurationError: it cannot be read, and no try has sent it.
        """
        state = self._state
        try:
            plan = self._task.rows.plan(again=state.input_settled, note=state.input)
        except ConfigurationError as error:
            if self._task.is_first and not state.fingerprint:
                raise
            log.warning("The input cannot be read (%s): only jobs that were made before can be used.", error)
            self.unreadable = error
            return self._task.rows.forget_input()
        for warning in plan.warnings:
            log.warning("%s", warning)
        return plan

    def settle(self, plan: Plan) -> Plan:
        """Return the plan for the input that counts, once the jobs of earlier tries are known.

        It is decided once in a try.
        """
        state = self._state
        if plan.fingerprint is None:
            return plan
        if state.input_settled:
            earlier = state.fingerprint if plan.fingerprint != state.fingerprint else None
        else:
            earlier = adoption.standing_input(
                state.seen(),
                state.clear_count,
                noted=state.fingerprint or state.newest_fingerprint(state.clear_count),
                reads=plan.fingerprint,
                reattach=self._task.policy.reattach,
            )
        state.input_settled = True
        if earlier:
            log.warning(
                "The input has changed since its job was submitted. The job's results are used; whether every row has "
                "its response, and their order, could not be checked against the input. Clear the task for the new "
                "input."
            )
            state.fingerprint = earlier
            return self._task.rows.forget_input()
        state.fingerprint, state.shards, state.input = plan.fingerprint, plan.shards, dict(plan.note)
        return plan

    def note_lost_rows(self, fingerprint: str, error: InputUnavailable) -> None:
        """Record that rows cannot be sent. Jobs that were paid for the same input are used and never bought again.

        :param fingerprint: of the input that the rows belong to.
        :raises InputChanged: no such jobs exist, so the input can be read again.
        """
        paid = any(
            record.tag is not None
            and record.tag.fingerprint == fingerprint
            and (not record.is_done or record.has_finished_rows)
            for record in self._state.seen()
        )
        if not paid and not self._is_read_anew:
            raise InputChanged(str(error)) from error
        log.warning("%s", error)
        self.unreadable = error

    def forget(self) -> None:
        """Forget what was read, so that the input is read again, once in a try."""
        state = self._state
        self._is_read_anew = True
        state.input, state.fingerprint, state.input_settled = {}, "", False
