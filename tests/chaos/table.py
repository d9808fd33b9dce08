"""The table: every case that is executed in the real Airflow, as data."""

from __future__ import annotations

from chaos.case import Case

#: The service makes the job, and the answer never comes.
LOST = {"operation": "create", "times": 1, "when": "after"}
#: The call is there, the service takes its time; then it acts, whoever still listens.
LATE = {"operation": "create", "times": 1, "when": "before"}
#: Time enough to find the process and kill it while a call is out.
KILLED = 15.0
HELD = {"hold_running": True}

CREATING = (
    Case(
        name="reply_lost_before",
        done="connection reset before the service has acted on the create call",
        faults={"reset": {**LATE}},
    ),
    Case(
        name="reply_lost_after",
        done="connection reset after the service has made the job",
        faults={"reset": LOST},
        said="looking for the job",
    ),
    Case(
        name="no_answer_in_time",
        done="the job is made, the answer takes longer than the request's time-out",
        faults={"slow": {**LOST, "seconds": 10}},
        said="looking for the job",
    ),
    Case(
        name="acted_after_time_out",
        done="the service makes the job after the request has timed out",
        faults={"slow": {**LATE, "seconds": 9}},
        said="looking for the job",
    ),
    Case(
        name="error_500_job_made",
        done="500 for a create call that made the job",
        faults={"http": {**LOST, "status": 500, "after_effect": True}},
        said="looking for the job",
    ),
    Case(
        name="error_503_nothing_made",
        done="503 for a create call, nothing made",
        faults={"http": {"operation": "create", "times": 1, "status": 503}},
    ),
    Case(
        name="bad_gateway_job_made",
        done="a proxy's 502 page for a create call that made the job",
        faults={"http": {**LOST, "status": 502, "after_effect": True}},
        said="looking for the job",
    ),
    Case(
        name="quota_with_retry_info",
        done="429 with RetryInfo of 4 s, twice",
        faults={"http": {"operation": "create", "times": 2, "status": 429, "retry_info": "4s"}},
        said="quota is used up",
    ),
    Case(
        name="unreadable_answer",
        done="the job is made, the 200 holds garbage",
        faults={"garbage": {"operation": "create", "times": 1}},
        said="looking for the job",
    ),
    Case(
        name="list_lags_behind",
        done="reply lost, and the job shows up in the list 5 s later",
        faults={"reset": LOST, "list_lag": 5},
        said="looking for the job",
    ),
    Case(
        name="lookup_meets_errors",
        done="reply lost, and the list answers 500 three times",
        faults={"reset": LOST, "http": {"operation": "list", "times": 3, "status": 500}},
        said="looking for the job",
    ),
    Case(
        name="second_page",
        request_timeout=KILLED,
        done="worker killed after the job was made; 120 newer jobs of others with similar names",
        faults={"slow": {**LOST, "seconds": 60}, "hold_pending": {"times": 1, "value": True}},
        steps=(
            ("until_created", 1),
            ("crowd", 120),
            ("kill", "SIGKILL"),
            ("until", "deferred", 2),
            ("release",),
        ),
        said="Found batches/",
    ),
    Case(
        name="mapped_replies_lost",
        done="three mapped tasks lose the answers of their create calls",
        mapped=3,
        faults={"reset": {**LOST, "times": 3}},
        created=3,
        deliveries=3,
        said="looking for the job",
    ),
)

KILLING = (
    Case(
        name="kill9_before_create",
        done="kill -9 while the rows are read, before the create call",
        slow_rows=60.0,
        steps=(("until_asked",), ("kill", "SIGKILL")),
    ),
    Case(
        name="kill9_during_create",
        request_timeout=KILLED,
        done="kill -9 while the create call is out; the service acts after the death",
        faults={"slow": {**LATE, "seconds": 8}},
        steps=(("until_called", "create", 1), ("kill", "SIGKILL")),
        said="Found batches/",
    ),
    Case(
        name="kill9_after_create",
        request_timeout=KILLED,
        done="kill -9 after the job was made, before its name was known",
        faults={"slow": {**LOST, "seconds": 60}},
        steps=(("until_created", 1), ("kill", "SIGKILL")),
        said="Found batches/",
    ),
    Case(
        name="kill9_whole_worker",
        request_timeout=KILLED,
        done="kill -9 of task and supervisor after the job was made: Airflow misses the heartbeat",
        faults={"slow": {**LOST, "seconds": 60}},
        steps=(("until_created", 1), ("kill", "SIGKILL", True)),
        said="Found batches/",
    ),
    Case(
        name="kill9_while_uploading",
        request_timeout=KILLED,
        done="kill -9 in the middle of the upload of the rows",
        arguments={"input_path": "{folder}/upload.jsonl"},
        faults={"slow": {"operation": "upload_chunk", "times": 1, "seconds": 60, "when": "before"}},
        steps=(("until_called", "upload_chunk", 1), ("kill", "SIGKILL")),
    ),
    Case(
        name="kill9_while_landing",
        request_timeout=KILLED,
        done="kill -9 while the results of the ended job are read",
        arguments={"output_path": "{folder}/landed.jsonl"},
        faults=HELD,
        steps=(
            ("until", "deferred", 1),
            ("fault", "slow", {"operation": "get", "skip": 1, "times": 1, "seconds": 60, "when": "before"}),
            ("release",),
            ("until_hit", "slow"),
            ("kill", "SIGKILL"),
        ),
    ),
    Case(
        name="sigterm_during_create",
        request_timeout=KILLED,
        done="SIGTERM in the middle of the create call, retries left",
        faults={"slow": {**LOST, "seconds": 60}},
        steps=(("until_created", 1), ("kill", "SIGTERM")),
        said="Found batches/",
    ),
    Case(
        name="two_tries_at_once",
        request_timeout=KILLED,
        done="worker frozen in the create call until its heartbeat is lost; it wakes while the next try waits",
        faults={"slow": {**LOST, "seconds": 3}, **HELD},
        steps=(("until_created", 1), ("freeze",), ("until", "deferred", 2), ("thaw",), ("pause", 5), ("release",)),
        said="Found batches/",
    ),
    Case(
        name="mark_failed_while_deferred",
        done="task marked failed while deferred",
        faults=HELD,
        steps=(("until", "deferred", 1), ("until_watched",), ("mark", "failed"), ("until", "failed", 1)),
        end="failed",
        deliveries=0,
        states=("CANCELLED",),
        cancels=1,
    ),
    Case(
        name="mark_success_while_deferred",
        done="task marked success while deferred",
        faults=HELD,
        steps=(("until", "deferred", 1), ("until_watched",), ("mark", "success"), ("until", "success", 1)),
        deliveries=0,
        states=("CANCELLED",),
        cancels=1,
    ),
    Case(
        name="mark_run_failed",
        done="Dag run marked failed while its task is deferred",
        faults=HELD,
        steps=(("until", "deferred", 1), ("until_watched",), ("mark_run", "failed"), ("until_over",)),
        end="failed",
        deliveries=0,
        states=("CANCELLED",),
        cancels=1,
    ),
    Case(
        name="mark_failed_in_worker",
        done="task that waits in the worker marked failed, no retries",
        arguments={"deferrable": False},
        retries=0,
        faults=HELD,
        steps=(("until_watched",), ("mark", "failed"), ("until", "failed", 1)),
        end="failed",
        deliveries=0,
        states=("CANCELLED",),
        cancels=1,
    ),
    Case(
        name="mark_success_in_worker",
        done="task that waits in the worker marked success, no retries",
        arguments={"deferrable": False},
        retries=0,
        faults=HELD,
        steps=(("until_watched",), ("mark", "success"), ("until", "success", 1)),
        deliveries=0,
        states=("CANCELLED",),
        cancels=1,
    ),
    Case(
        name="kill9_waiting_worker",
        done="kill -9 of a task that waits in the worker",
        arguments={"deferrable": False},
        faults=HELD,
        steps=(("until_watched",), ("kill", "SIGKILL"), ("until", "running", 2), ("release",)),
        said="Adopted batches/",
    ),
    Case(
        name="sensor_killed",
        done="sensor marked failed while it waits for the job of another",
        kind="sensor",
        faults=HELD,
        steps=(("until", "deferred", 1), ("until_watched",), ("mark", "failed"), ("until", "failed", 1), ("pause", 5)),
        end="failed",
        deliveries=0,
        states=("RUNNING",),
    ),
)

#: Columns that go through, on whichever host the rows are landed.
CARRIED = {"key_field": "id", "carry": ["size"], "prompt_template": "{text}"}

HOSTS = (
    Case(
        name="hosts_file",
        done="submitted on a host whose disk has the input, resumed on another; every third answer is missing",
        arguments={"input_path": "{folder}/host-a/rows.jsonl", "output_path": "{folder}/hosts_file.jsonl", **CARRIED},
        faults={"missing_every": 3, **HELD},
        steps=(("until", "deferred", 1), ("other_host", "host-a"), ("release",)),
        succeeded=2,
    ),
    Case(
        name="hosts_function",
        done="rows of a function that gives others at each call, kept on the first host's disk, resumed on another",
        arguments={"output_path": "{folder}/host-b/hosts_function.jsonl", **CARRIED},
        slow_rows=0.0,
        faults=HELD,
        steps=(("until", "deferred", 1), ("other_host", "host-b"), ("release",)),
        calls=1,
    ),
)

CLEARING = (
    Case(
        name="clear_while_deferred",
        done="task cleared while deferred: on_kill fires, the next try goes on with the job",
        faults=HELD,
        steps=(
            ("until", "deferred", 1),
            ("until_watched",),
            ("clear",),
            ("until", "deferred", 2),
            ("pause", 5),
            ("release",),
        ),
        said="Adopted batches/",
    ),
    Case(
        name="clear_when_finished",
        done="task cleared after its results were delivered: a person wants to run it again",
        steps=(("until", "success", 1), ("until_over",), ("clear",), ("until", "success", 2)),
        created=2,
        deliveries=2,
    ),
    Case(
        name="retry_after_failed_landing",
        done="the job succeeded, the results could not be written; Airflow retries",
        arguments={"output_path": "{folder}/wall-retry/rows.jsonl"},
        faults=HELD,
        retry_delay=6.0,
        steps=(
            ("until", "deferred", 1),
            ("wall_up", "wall-retry"),
            ("release",),
            ("until", "up_for_retry", 1),
            ("wall_down", "wall-retry"),
        ),
        said="Adopted batches/",
    ),
    Case(
        name="clear_after_failed_landing",
        done="the job succeeded, the results could not be written, the task failed and is cleared",
        arguments={"output_path": "{folder}/wall-clear/rows.jsonl"},
        faults=HELD,
        retries=0,
        steps=(
            ("until", "deferred", 1),
            ("wall_up", "wall-clear"),
            ("release",),
            ("until", "failed", 1),
            ("until_over",),
            ("wall_down", "wall-clear"),
            ("clear",),
            ("until", "success", 2),
        ),
        said="Adopted batches/",
    ),
    Case(
        name="clear_while_in_worker",
        done="task cleared while it waits in the worker",
        arguments={"deferrable": False},
        faults=HELD,
        steps=(("until_watched",), ("clear",), ("until", "running", 2), ("pause", 3), ("release",)),
        said="Adopted batches/",
    ),
)

WAITING = (
    Case(
        name="polls_fail_for_a_while",
        done="500 and resets for the first looks at the job",
        faults={
            "http": [{"operation": each, "status": 500, "times": 2} for each in ("get", "list")],
            "reset": [{"operation": each, "when": "before", "skip": 2, "times": 2} for each in ("get", "list")],
        },
    ),
    Case(
        name="key_refused_then_cleared",
        done="the key is refused while waiting (no retry); it is mended and the task cleared",
        faults=HELD,
        steps=(
            ("until", "deferred", 1),
            ("fault", "http", {"operation": "*", "status": 403}),
            ("until", "failed", 1),
            ("until_over",),
            ("calm",),
            ("clear",),
            ("until", "success", 2),
        ),
        said="Adopted batches/",
    ),
    Case(
        name="cancelled_by_somebody",
        done="somebody else cancels the job: a person decided, no retry",
        faults=HELD,
        steps=(("until", "deferred", 1), ("set_job", {"state": "CANCELLED"}), ("until", "failed", 1)),
        end="failed",
        deliveries=0,
        states=("CANCELLED",),
    ),
    Case(
        name="job_failed_inside",
        done="the job fails with code 13: a retry buys another",
        faults={"job_ending": {"times": 1, "state": "FAILED", "code": 13, "message": "Internal."}},
        created=2,
        states=("FAILED", "SUCCEEDED"),
    ),
    Case(
        name="expired_with_rows",
        done="the Vertex job expires with two of three rows done: the retry sends the third alone",
        service="vertex",
        faults={"expire": {"times": 1, "value": True}, "partial_rows": {"times": 1, "value": 0.67}},
        created=2,
        states=("EXPIRED", "SUCCEEDED"),
        said="1 are sent again",
    ),
    Case(
        name="deadline_then_retry",
        done="timeout of 8 s on a job that hangs: it is cancelled, and the retry buys another",
        arguments={"timeout": 8.0},
        faults={"hold_running": {"times": 1, "value": True}},
        created=2,
        states=("CANCELLED", "SUCCEEDED"),
        cancels=1,
    ),
    Case(
        name="stuck_in_queue",
        done="a job that never leaves the queue, on_stall=resubmit",
        arguments={"queue_timeout": 6.0, "on_stall": "resubmit"},
        faults={"hold_pending": {"times": 1, "value": True}},
        created=2,
        states=("CANCELLED", "SUCCEEDED"),
        cancels=1,
        said="Not moving",
    ),
    Case(
        name="download_cut",
        done="the download of the results breaks off twice",
        arguments={"input_path": "{folder}/cut.jsonl"},
        faults={"download_cut": {"times": 2, "value": 200}},
    ),
)

SHAKING = (
    Case(
        name="triggerer_sigterm",
        done="triggerer stopped politely and started again",
        faults=HELD,
        steps=(
            ("until", "deferred", 1),
            ("until_watched",),
            ("restart_triggerer", "SIGTERM"),
            ("until_watched",),
            ("release",),
        ),
        alone=True,
    ),
    Case(
        name="triggerer_sigkill",
        done="triggerer killed; another takes over",
        faults=HELD,
        steps=(
            ("until", "deferred", 1),
            ("until_watched",),
            ("second_triggerer",),
            ("stop_triggerer", "SIGKILL"),
            ("until_watched",),
            ("release",),
        ),
        alone=True,
    ),
    Case(
        name="triggerer_frozen",
        done="triggerer stopped with SIGSTOP until another takes over; it wakes, and on_kill fires",
        faults=HELD,
        steps=(
            ("until", "deferred", 1),
            ("until_watched",),
            ("second_triggerer",),
            ("freeze_triggerer",),
            ("until_taken_over",),
            ("thaw_triggerer",),
            # Heard now: a triggerer's next trigger of the same try writes over this file.
            ("until_said", "Left running"),
            ("release",),
        ),
        alone=True,
    ),
    Case(
        name="restart_of_everything",
        done="all parts of Airflow stopped and started while the task is deferred",
        faults=HELD,
        steps=(("until", "deferred", 1), ("restart_everything",), ("until_watched",), ("release",)),
        alone=True,
    ),
    Case(
        name="database_locked",
        done="the metadata database takes no writes for 12 s while the task is deferred and its job ends",
        faults=HELD,
        steps=(("until", "deferred", 1), ("until_watched",), ("lock_database", 12.0)),
        alone=True,
    ),
    Case(
        name="api_server_down_in_create",
        done="Airflow's api-server stopped and started while the create call is out",
        faults={"slow": {**LOST, "seconds": 3}},
        # Without an api-server no task can start: tries fail until it is back.
        retries=3,
        retry_delay=20.0,
        steps=(("until_created", 1), ("restart", "api-server")),
        alone=True,
    ),
)

TABLE = (*CREATING, *KILLING, *HOSTS, *CLEARING, *WAITING, *SHAKING)
#: Few, quick and of every kind: what runs with all other tests.
REPRESENTATIVES = ("reply_lost_after", "kill9_after_create", "clear_while_deferred", "mark_failed_while_deferred")
