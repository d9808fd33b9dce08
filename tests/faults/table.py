"""For each row of `docs/never-pays-twice.md` a fault in the code, and the test that must fail with it.

``row`` is what stands in the last column there: the name of a case of `python -m tests.chaos`, which breaks a real
Airflow and takes minutes, or a test. The tests named here guard the same promise within seconds.
"""

from __future__ import annotations

from typing import NamedTuple

_GUARANTEES = "tests/batch/test_guarantees.py::"
_ADOPTION = "tests/batch/test_adoption.py::"
_RUN = "tests/batch/test_run.py::"
_FUSE = "tests/batch/test_fuse.py::"
_TRIGGER = "tests/runtime/test_trigger.py::"
_KILL = "tests/runtime/test_kill.py::"
_READ_ONCE = "tests/runtime/test_input_read_once.py::"
_RESUMED = "tests/vertex/test_resumed_jobs.py::"
_LOST = f"{_GUARANTEES}test_a_job_whose_answer_was_lost_is_found_and_used"


class Fault(NamedTuple):
    """``old`` stands once in ``file`` of the package; with ``new`` in its place, ``test`` must fail."""

    row: str
    file: str
    old: str
    new: str
    test: str


_UNLESS_SENT = '        """True unless it is certain that no request left."""\n        return self.sent'
_ALWAYS = '        """Always: a 5xx says nothing about what was done."""\n        return True'
_DID_ANSWER = '        """Always: the service did respond."""\n        return True'
_KEEPS_RECORDS = "replace(record.after(event), missing_since=None) for name, record in self.records.items()"
_ENDED_BY = '{"failed", "success", "skipped", "removed", "upstream_failed"}'

FAULTS = (
    # -- the create call
    Fault(
        "reply_lost_before",
        "batch/submit.py",
        "self._send(prepared, tag) or self.look_up(str(tag))",
        "self._send(prepared, tag)",
        f"{_GUARANTEES}test_a_call_whose_answer_is_lost_is_looked_for_before_it_is_sent_again",
    ),
    Fault(
        "reply_lost_after",
        "batch/submit.py",
        "state.record_listed(self._task.service.find(self._task.identity), ",
        "state.record_listed((), ",
        f"{_LOST}[reset]",
    ),
    Fault(
        "no_answer_in_time",
        "api/errors.py",
        _UNLESS_SENT,
        _UNLESS_SENT.replace("self.sent", "False"),
        f"{_LOST}[time_out]",
    ),
    Fault(
        "acted_after_time_out",
        "batch/submit.py",
        "in_flight = 0.0 if pending.answered else self._task.policy.request_timeout",
        "in_flight = 0.0",
        f"{_GUARANTEES}test_a_job_that_is_created_long_after_the_call_is_found[no_answer]",
    ),
    Fault("error_500_job_made", "api/errors.py", _ALWAYS, _ALWAYS.replace("True", "False"), f"{_LOST}[500]"),
    Fault(
        "error_503_nothing_made",
        "batch/submit.py",
        "            if found or pause is None:\n                break\n",
        "            if found or pause is None:\n                raise GeminiBatchError\n",
        f"{_GUARANTEES}test_a_call_that_created_nothing_is_sent_again",
    ),
    Fault(
        "bad_gateway_job_made",
        "batch/submit.py",
        " and error.http_status in _FINAL_STATUS and not error.is_vague",
        "",
        f"{_GUARANTEES}test_a_job_that_is_created_long_after_the_call_is_found[gateway]",
    ),
    Fault(
        "unreadable_answer",
        "api/errors.py",
        _DID_ANSWER,
        _DID_ANSWER.replace("True", "False"),
        f"{_LOST}[unreadable]",
    ),
    Fault(
        "quota_with_retry_info",
        "batch/submit.py",
        "wait = error.retry_after if error.retry_after is not None else usual",
        "wait = usual",
        f"{_GUARANTEES}test_a_quota_is_waited_out_for_as_long_as_the_service_says",
    ),
    Fault(
        "list_lags_behind",
        "batch/submit.py",
        "lookup_timeout=self._task.policy.lookup_timeout, in_flight",
        "lookup_timeout=0.0, in_flight",
        f"{_GUARANTEES}test_a_job_that_shows_up_in_the_list_late_is_found",
    ),
    Fault(
        "lookup_meets_errors",
        "batch/run.py",
        "            return self._wait_out(error)\n",
        "            raise\n",
        f"{_GUARANTEES}test_a_list_that_cannot_be_read_is_read_later",
    ),
    Fault(
        "second_page",
        "batch/state.py",
        "tag is not None and tag.identity == identity and (",
        "tag is not None and (",
        f"{_GUARANTEES}test_jobs_of_others_with_similar_names_are_left_alone",
    ),
    Fault(
        "mapped_replies_lost",
        "batch/tag.py",
        "self.dag_id, self.task_id, self.run_id, self.part",
        "self.dag_id, self.task_id, self.run_id",
        "tests/batch/test_tag.py::test_mapped_tasks_have_different_names",
    ),
    # -- workers that die
    Fault(
        "kill9_before_create",
        "batch/run.py",
        "        elif found.postponed is None:\n",
        "        elif found.postponed is None and self._task.is_first:\n",
        f"{_GUARANTEES}test_a_retry_sends_what_was_never_sent",
    ),
    Fault(
        "kill9_while_uploading",
        "batch/run.py",
        "return not self._task.is_first or self._is_resumed",
        "return False",
        f"{_GUARANTEES}test_a_retry_uses_an_upload_that_is_there",
    ),
    Fault(
        "kill9_during_create",
        "batch/state.py",
        "pending=dict(self.pending)",
        "pending={}",
        f"{_GUARANTEES}test_a_retry_looks_for_the_call_that_was_in_flight_when_its_worker_died",
    ),
    Fault(
        "kill9_after_create",
        "batch/state.py",
        _KEEPS_RECORDS,
        "replace(record.after(event), missing_since=None) for name, record in ()",
        f"{_GUARANTEES}test_a_retry_goes_on_with_the_job_that_is_there[by_notes]",
    ),
    Fault(
        "kill9_whole_worker",
        "batch/run.py",
        "not self._is_resumed and not task.is_first and not state.looked_up and unknown",
        "False and unknown",
        f"{_GUARANTEES}test_input_that_reads_differently_on_a_retry_buys_nothing_again[by_list]",
    ),
    Fault(
        "kill9_waiting_worker",
        "batch/run.py",
        "                began = now - age\n",
        "                began = now\n",
        f"{_GUARANTEES}test_a_retry_keeps_the_deadline",
    ),
    Fault(
        "kill9_while_landing",
        "batch/adoption.py",
        "            return not self.is_used_up and",
        "            return self.older and not self.is_used_up and",
        f"{_ADOPTION}test_a_job_that_succeeded_is_adopted_on_a_retry_even_if_it_was_delivered",
    ),
    Fault(
        "sigterm_during_create",
        "runtime/create_task.py",
        "        if self._killed:\n            raise Killed",
        "        if not self._killed:\n            raise Killed",
        f"{_KILL}test_after_a_kill_no_create_call_is_sent",
    ),
    Fault(
        "two_tries_at_once",
        "batch/adoption.py",
        "chosen = min(good, key",
        "chosen = max(good, key",
        f"{_ADOPTION}test_of_several_good_jobs_the_oldest_is_used_and_the_others_are_cancelled",
    ),
    Fault(
        "retry_after_failed_landing",
        "batch/adoption.py",
        "        if self.record.ended_well:\n",
        "        if self.record.ended_well and not self.record.created:\n",
        f"{_GUARANTEES}test_results_that_could_not_be_landed_are_landed_by_the_retry",
    ),
    Fault(
        "hosts_file",
        "runtime/own_rows.py",
        "        if note:\n",
        "        if note and not again:\n",
        f"{_READ_ONCE}test_answers_that_are_missing_are_counted_where_the_input_is_out_of_reach",
    ),
    Fault(
        "hosts_function",
        "runtime/own_rows.py",
        "        if note:\n",
        "        if note and not again:\n",
        f"{_READ_ONCE}test_rows_of_a_function_are_bought_once_although_the_second_host_has_none_of_them",
    ),
    # -- people
    Fault(
        "clear_while_deferred",
        "batch/adoption.py",
        "return (tag.identity, tag.shard, tag.round) == (self.identity, self.shard, self.round)",
        "return (tag.clear_count, tag.shard, tag.round) == (self.clear_count, self.shard, self.round)",
        f"{_GUARANTEES}test_a_job_that_runs_when_the_task_is_cleared_is_used",
    ),
    Fault(
        "clear_while_in_worker",
        "batch/adoption.py",
        "    ours = [one for one in ours if one not in foreign]\n",
        "    ours = [one for one in ours if one.older]\n",
        f"{_GUARANTEES}test_a_retry_goes_on_with_the_job_that_is_there[by_notes]",
    ),
    Fault(
        "clear_when_finished",
        "batch/results.py",
        "                state.happened(JobEvent.DELIVERED, name)\n",
        "                pass\n",
        f"{_GUARANTEES}test_a_clear_after_success_buys_a_new_job",
    ),
    Fault(
        "clear_after_failed_landing",
        "batch/adoption.py",
        "        return self.older and self.record.was_delivered",
        "        return self.older",
        f"{_GUARANTEES}test_a_clear_lands_results_that_were_never_delivered",
    ),
    Fault(
        f"{_ADOPTION}test_a_job_from_before_a_clear_that_shows_up_late_does_not_replace_one_from_after_it",
        "batch/adoption.py",
        "return (-self.tag.clear_count, *self.by_age)",
        "return (0, *self.by_age)",
        f"{_ADOPTION}test_a_job_from_before_a_clear_that_shows_up_late_does_not_replace_one_from_after_it",
    ),
    Fault(
        "mark_failed_while_deferred",
        "runtime/trigger_task.py",
        _ENDED_BY,
        _ENDED_BY.replace('"failed", ', ""),
        f"{_TRIGGER}test_a_task_that_a_person_ended_takes_its_job_with_it[failed]",
    ),
    Fault(
        f"{_TRIGGER}test_a_job_is_cancelled_though_airflow_cancels_the_trigger_again_and_again_meanwhile",
        "triggers.py",
        "await to_the_end(self._task().cancel_jobs_of_ended_task())",
        "await self._task().cancel_jobs_of_ended_task()",
        f"{_TRIGGER}test_a_job_is_cancelled_though_airflow_cancels_the_trigger_again_and_again_meanwhile",
    ),
    Fault(
        "mark_success_while_deferred",
        "runtime/trigger_task.py",
        _ENDED_BY,
        _ENDED_BY.replace('"success", ', ""),
        f"{_TRIGGER}test_a_task_that_a_person_ended_takes_its_job_with_it[success]",
    ),
    Fault(
        "mark_run_failed",
        "runtime/trigger_task.py",
        "for name in self.job_names))",
        "for name in self.job_names[:1]))",
        f"{_TRIGGER}test_all_jobs_of_a_killed_task_are_cancelled_also_when_a_call_fails_at_first",
    ),
    Fault(
        "mark_failed_in_worker",
        "runtime/create_task.py",
        "        elif may_be_retried:\n",
        "        elif not may_be_retried:\n",
        f"{_KILL}test_a_kill_of_a_task_that_waits_in_the_worker_cancels_what_nobody_else_would_adopt[0-CANCELLED]",
    ),
    Fault(
        "mark_success_in_worker",
        "runtime/create_task.py",
        "for name in sorted(self._running) if not _try_to_cancel",
        "for name in sorted(self._running)[1:] if not _try_to_cancel",
        f"{_KILL}test_a_kill_of_a_task_that_waits_in_the_worker_cancels_what_nobody_else_would_adopt[0-CANCELLED]",
    ),
    Fault(
        f"{_RUN}test_a_job_that_a_person_stopped_before_clearing_is_waited_for_and_judges_nothing",
        "batch/run.py",
        "if is_older and record.job.state is JobState.CANCELLING and",
        "if not is_older and record.job.state is JobState.CANCELLING and",
        f"{_RUN}test_a_job_that_a_person_stopped_before_clearing_is_waited_for_and_judges_nothing",
    ),
    Fault(
        "sensor_killed",
        "triggers.py",
        "        if self.cancel_on_kill:\n",
        "        if self.job_names:\n",
        f"{_TRIGGER}test_only_those_who_made_the_jobs_cancel_them",
    ),
    Fault(
        "cancelled_by_somebody",
        "batch/verdict.py",
        'return _failed(what, "Clear the task to run it again.", retry=False)',
        'return _failed(what, "Clear the task to run it again.", retry=True)',
        "tests/batch/test_verdict.py::test_a_job_that_somebody_cancelled_is_not_retried",
    ),
    Fault(
        "tests/staging/test_earlier_runs.py::test_jobs_that_were_created_before_the_run_began_are_not_found",
        "staging/job_service.py",
        "return began is not None and is_of_earlier_run(",
        "return began is None and is_of_earlier_run(",
        "tests/staging/test_earlier_runs.py::test_jobs_that_were_created_before_the_run_began_are_not_found",
    ),
    Fault(
        f"{_ADOPTION}test_a_job_from_other_input_is_cancelled_only_if_this_task_made_it",
        "batch/adoption.py",
        "stale=tuple(one.name for one in active if one.record.created)",
        "stale=tuple(one.name for one in active)",
        f"{_ADOPTION}test_a_job_from_other_input_is_cancelled_only_if_this_task_made_it",
    ),
    Fault(
        f"{_RUN}test_a_job_that_was_gone_and_comes_back_is_used_by_the_retry",
        "batch/run.py",
        "                state.pending[str(record.tag)] = PendingCreate(now, answered=True)",
        "                pass",
        f"{_RUN}test_a_job_that_was_gone_and_comes_back_is_used_by_the_retry[True]",
    ),
    Fault(
        f"{_GUARANTEES}test_input_that_reads_differently_on_a_retry_buys_nothing_again",
        "batch/adoption.py",
        "    return None if reads in usable or noted not in usable else noted",
        "    return None",
        f"{_GUARANTEES}test_input_that_reads_differently_on_a_retry_buys_nothing_again[by_list]",
    ),
    Fault(
        f"{_ADOPTION}test_without_reattaching_nothing_is_adopted_and_nothing_cancelled",
        "batch/adoption.py",
        "foreign = [] if reattach else [",
        "foreign = [] if True else [",
        f"{_ADOPTION}test_without_reattaching_nothing_is_adopted_and_nothing_cancelled",
    ),
    # -- waiting
    Fault(
        "polls_fail_for_a_while",
        "polling/job_wait.py",
        "        if isinstance(error, ApiError) and not error.retryable:\n",
        "        if isinstance(error, ApiError):\n",
        "tests/polling/test_job_wait.py::test_passing_errors_never_end_a_wait",
    ),
    Fault(
        "key_refused_then_cleared",
        "batch/run.py",
        "judge(Refused(self._report.message)), refused=True",
        "judge(Refused(self._report.message))",
        f"{_GUARANTEES}test_a_refused_key_fails_without_a_retry_and_a_clear_goes_on_with_the_job",
    ),
    Fault(
        "job_failed_inside",
        "batch/verdict.py",
        "frozenset({3, 5, 7, 9, 11, 12, 16})",
        "frozenset({3, 5, 7, 9, 11, 12, 13, 16})",
        "tests/batch/test_verdict.py::test_a_job_that_the_service_failed_for_reasons_of_its_own_is_retried[13]",
    ),
    Fault(
        "expired_with_rows",
        "batch/adoption.py",
        "        return Submit(submission, why, rows_from, cleanup, _completable(same, rows_from))\n",
        "        return Submit(submission, why, (), cleanup, _completable(same, rows_from))\n",
        f"{_ADOPTION}test_finished_rows_count_and_the_others_are_sent_again",
    ),
    Fault(
        f"{_RESUMED}test_a_retry_does_only_what_the_job_before_it_left_undone",
        "staging/job_service.py",
        "return self._what_is_left(tag, completes) if completes else self._existing(tag)",
        "return self._existing(tag)",
        f"{_RESUMED}test_a_retry_does_only_what_the_job_before_it_left_undone[expired]",
    ),
    Fault(
        f"{_RESUMED}test_a_third_try_goes_on_from_the_second_job_or_from_the_first_if_that_one_left_nothing",
        "runtime/task_rows.py",
        "        return super()._sources([chosen])\n",
        "        return super()._sources(jobs)\n",
        f"{_RESUMED}test_a_third_try_goes_on_from_the_second_job_or_from_the_first_if_that_one_left_nothing",
    ),
    Fault(
        f"{_RESUMED}test_rows_of_the_first_job_count_if_the_last_try_ends_early_without_any",
        "runtime/task_rows.py",
        "if len(jobs) > 1 and not chosen.state.ended_well:",
        "if not jobs:",
        f"{_RESUMED}test_rows_of_the_first_job_count_if_the_last_try_ends_early_without_any",
    ),
    Fault(
        f"{_RESUMED}test_a_repair_round_sends_failed_rows_again_by_going_on_from_the_output",
        "batch/run.py",
        "completes = used if slot.round else decision.completes",
        "completes = decision.completes",
        f"{_RESUMED}test_a_repair_round_sends_failed_rows_again_by_going_on_from_the_output[False]",
    ),
    Fault(
        f"{_RESUMED}test_an_output_that_lacks_rows_is_not_gone_on_from_and_none_is_missing_in_the_end",
        "api/backends/vertex.py",
        "                if found != wanted:\n",
        "                if found > wanted:\n",
        f"{_RESUMED}test_an_output_that_lacks_rows_is_not_gone_on_from_and_none_is_missing_in_the_end",
    ),
    Fault(
        "deadline_then_retry",
        "batch/timeouts.py",
        "        if self._task.policy.cancel_on_timeout:\n",
        "        if not self._task.policy.cancel_on_timeout:\n",
        f"{_GUARANTEES}test_a_deadline_cancels_the_job_and_the_retry_buys_a_new_one",
    ),
    Fault(
        f"{_RUN}test_nothing_is_submitted_when_the_time_is_over",
        "batch/run.py",
        "        elif self._timeouts.is_over():\n",
        "        elif False:\n",
        f"{_RUN}test_nothing_is_submitted_when_the_time_is_over",
    ),
    Fault(
        "stuck_in_queue",
        "batch/timeouts.py",
        "if limit is not None and _is_queued(record) and record.age(",
        "if limit is None and _is_queued(record) and record.age(",
        f"{_FUSE}test_a_job_is_stuck_in_the_queue_by_our_clock_whatever_the_trigger_makes_of_the_services",
    ),
    Fault(
        "download_cut",
        "api/google/files.py",
        'f"bytes={offset}-"',
        'f"bytes={offset + 1}-"',
        "tests/api/test_results.py::test_a_cut_in_the_middle_of_the_answers_does_not_show",
    ),
    # -- clocks, and what else could buy without end
    Fault(
        f"{_FUSE}test_a_job_that_this_try_created_is_never_older_than_the_try",
        "batch/state.py",
        "            self.records[job.name] = replace(record, submitted_at=min(pending.sent, now))\n",
        "            self.records[job.name] = replace(record, submitted_at=min(pending.sent, now) - 20 * 3600.0)\n",
        f"{_FUSE}test_a_job_that_this_try_created_is_never_older_than_the_try",
    ),
    Fault(
        f"{_FUSE}test_a_retry_behind_a_gateway_with_another_clock_goes_on_with_the_running_job",
        "batch/state.py",
        "        return self.age(now) if at_service is None else min(at_service, self.age(now))",
        "        return self.age(now) if at_service is None else at_service",
        f"{_FUSE}test_a_retry_behind_a_gateway_with_another_clock_goes_on_with_the_running_job",
    ),
    Fault(
        f"{_FUSE}test_workers_with_other_clocks_and_a_triggerer_that_is_ahead_do_not_end_the_search_early",
        "batch/state.py",
        "            passed = min(passed, listed_at - self.listed_at)\n",
        "            passed += 0.0\n",
        f"{_FUSE}test_workers_with_other_clocks_and_a_triggerer_that_is_ahead_do_not_end_the_search_early",
    ),
    Fault(
        f"{_FUSE}test_create_calls_whose_jobs_never_appear_are_sent_a_handful_of_times",
        "batch/state.py",
        "        return this_try < MOST_SENDS + resubmits and self.sent(tag) < most",
        "        return True",
        f"{_FUSE}test_create_calls_whose_jobs_never_appear_are_sent_a_handful_of_times",
    ),
    Fault(
        f"{_FUSE}test_a_call_that_was_answered_is_looked_for_until_lookup_timeout_and_no_longer",
        "batch/submit.py",
        "answered = _is_answer(error)",
        "answered = False",
        f"{_FUSE}test_a_call_that_was_answered_is_looked_for_until_lookup_timeout_and_no_longer",
    ),
    # -- Airflow itself
    Fault(
        "triggerer_sigterm",
        "triggers.py",
        "    async def on_kill(self) -> None:\n",
        "    async def cleanup(self) -> None:\n"
        "        await self._task().cancel_jobs_of_ended_task()\n"
        "\n"
        "    async def on_kill(self) -> None:\n",
        f"{_TRIGGER}test_a_stop_of_the_triggerer_cancels_nothing",
    ),
    Fault(
        "triggerer_sigkill",
        "triggers.py",
        "for name in signature(kind).parameters}",
        'for name in signature(kind).parameters if name != "memo"}',
        f"{_TRIGGER}test_a_trigger_survives_serialisation",
    ),
    Fault(
        "triggerer_frozen",
        "runtime/trigger_task.py",
        "            if state in _ENDED_BY_A_USER:\n",
        "            if state != 'never':\n",
        f"{_TRIGGER}test_a_cleared_task_or_one_taken_over_leaves_its_job_running[deferred]",
    ),
    Fault(
        "restart_of_everything",
        "triggers.py",
        "for name in signature(kind).parameters}",
        'for name in signature(kind).parameters if name != "end_time"}',
        f"{_TRIGGER}test_a_trigger_survives_serialisation",
    ),
    Fault(
        "database_locked",
        "runtime/state_store.py",
        "_PAUSES = (1.0, 5.0)",
        "_PAUSES = ()",
        "tests/runtime/test_state_store.py::test_a_store_that_is_away_for_a_moment_is_asked_again",
    ),
    Fault(
        "api_server_down_in_create",
        "runtime/state_store.py",
        "                self._sleep(pause)\n        return call()\n",
        "                self._sleep(pause)\n        return None\n",
        "tests/runtime/test_state_store.py::test_a_store_that_stays_away_is_an_error_so_that_nothing_is_sent_without_notes",
    ),
    Fault(
        "tests/runtime/test_renamed_deployment.py::test_a_deferred_task_lands_its_own_job",
        "runtime/task_setup.py",
        'noted=noted.identity if noted is not None else "")',
        'noted="")',
        "tests/runtime/test_renamed_deployment.py::test_without_notes_the_event_says_whose_the_job_is",
    ),
)
