"""The rules that no schedule may break. The checks know everything, the product only what it is told."""

from __future__ import annotations

import traceback
from collections import Counter
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowException

from airflow_provider_gemini_batch.api.models import JobState, Service
from airflow_provider_gemini_batch.batch.state import MOST_SENDS, BatchState
from airflow_provider_gemini_batch.batch.tag import Tag
from airflow_provider_gemini_batch.polling.policy import longest_wait
from airflow_provider_gemini_batch.runtime import create_task
from simulation.clockwork import START, Killed
from simulation.ports import Hiccup, Superseded
from simulation.worker import Deferred
from simulation.world import NEVER

if TYPE_CHECKING:
    from simulation.airflow import Airflow
    from simulation.worker import Worker
    from simulation.world import Job

ENDED = ("success", "failed")
EXPECTED = (create_task.Killed, AirflowException, Superseded, Hiccup, Killed, Deferred)
# What a task may need, beyond its deadline, to be told and to act: pauses of the scheduler and of calls.
_SLACK = 60.0
# Beyond the deadline, a job that may have been made is still looked for.
_LOOK_UP = 200.0
_SETTLED = 600.0


class Checks:
    """Looks on, and keeps what went against the rules."""

    def __init__(self, airflow: Airflow) -> None:
        self._airflow = airflow
        self.violations: list[str] = []
        self._delivered: set[str] = set()
        self._wait_until: float | None = None
        self._outage = 0.0
        self._ended_by_person = ""
        self._tags: dict[str, Tag] = {}
        self._ghosts: dict[str, Tag] = {}
        self._sent: Counter[tuple[int, str]] = Counter()
        self._unanswered: Counter[tuple[int, str]] = Counter()
        self._in_vain: Counter[tuple[int, str]] = Counter()
        self._ended_at = START
        self._inputs_since_clear = {airflow.inputs.fingerprint}

    def _break(self, rule: str) -> None:
        self.violations.append(f"at {self._airflow.clock.now - START:.1f}: {rule}")
        self._airflow.clock.note(f"VIOLATION: {rule}")

    # -- defects

    def is_defect(self, result: Any) -> bool:
        """Whether a process ended in a way that nothing explains."""
        return isinstance(result, BaseException) and not isinstance(result, EXPECTED)

    def broken(self, error: BaseException) -> None:
        """Keep a defect with the place where it happened."""
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__)[-6:])
        self._break(f"defect: {trace}")

    # -- money

    def made(self, job: Job, by: str) -> None:
        """Look at a job that has just been made, and ask whether it was needed."""
        tag = Tag.parse(job.display_name)
        if tag is None:
            return
        if by == "a deleted run":
            self._ghosts[job.name] = tag
            return
        self._tags[job.name] = tag
        if by == "a trigger":
            self._break(f"{job.name} was made by a trigger")
        airflow = self._airflow
        if airflow.overlapped and not airflow.setting.store:
            return  # without a store, nothing fences a try that Airflow has given up
        for name, other in self._tags.items():
            earlier = airflow.world.jobs[name]
            if earlier is job or other.fingerprint != tag.fingerprint or not self._counts(earlier, other, tag):
                continue
            if other.round and self._begun_anew_after(earlier, tag):
                continue
            if (other.shard, other.round) == (tag.shard, tag.round) and self._usable(earlier, other, tag):
                self._break(f"{job.name} was made although {name} serves the same rows: {earlier.state(self._now)}")
            self._check_rows(job, earlier, tag, other)

    def sent(self, tag: Tag, *, epoch: int, unanswered: bool, in_vain: bool) -> None:
        """Count a create call after which a job may exist: never more than a handful for the same rows.

        :param in_vain: the service never acts on it, which only we know.
        """
        airflow, resubmits = self._airflow, self._resubmits
        self._sent[epoch, tag.slot] += 1
        self._unanswered[epoch, tag.slot] += unanswered
        self._in_vain[epoch, tag.slot] += in_vain
        this_try = self._sent[epoch, tag.slot]
        in_all = sum(count for (_, slot), count in self._sent.items() if slot == tag.slot)
        if this_try > MOST_SENDS + resubmits:
            self._break(f"try {epoch} sends {tag.slot} for the {this_try}th time")
        if in_all > self._most_in_all and airflow.setting.store:
            self._break(f"{tag.slot} is sent for the {in_all}th time")
        # What was not answered aside, one job serves a slot in a try, unless it stalls, or its finished rows expire.
        kept = airflow.world.weather.retention == NEVER and not airflow.inputs.version
        if kept and this_try - self._unanswered[epoch, tag.slot] > 1 + resubmits:
            self._break(f"try {epoch} makes {this_try} jobs for {tag.slot}")

    @property
    def _resubmits(self) -> int:
        arguments = self._airflow.setting.arguments
        return arguments.max_resubmits if arguments.on_stall == "resubmit" else 0

    @property
    def _most_in_all(self) -> int:
        """How often rows may be sent over all tries."""
        return self._airflow.try_number * (1 + self._resubmits) + MOST_SENDS - 1

    def _blew_its_fuse(self) -> bool:
        """Whether the last try had to stop: on as many calls for the same rows as may be sent, no job was ever made."""
        in_all: Counter[str] = Counter()
        for (_, slot), count in self._in_vain.items():
            in_all[slot] += count
        this_try = (count for (epoch, _), count in self._in_vain.items() if epoch == self._airflow.epoch)
        most = MOST_SENDS + self._resubmits
        return max(this_try, default=0) >= most or max(in_all.values(), default=0) >= self._most_in_all

    def stopped(self, job: Job, by: str) -> None:
        """Look at a wish to cancel: a trigger may have it only when the task is over."""
        if by == "a trigger" and self._airflow.state not in ENDED:
            self._break(f"a trigger cancels {job.name} while the task is {self._airflow.state}")

    def _check_rows(self, job: Job, earlier: Job, tag: Tag, other: Tag) -> None:
        """No row that has a good answer is sent again, where single rows can be sent."""
        if not self._airflow.setting.can_resend or not earlier.state(self._now).is_terminal:
            return
        if other.clear_count != tag.clear_count or self._lost(earlier):
            return
        again = earlier.good_rows(self._now) & set(job.rows)
        if again:
            self._break(f"{job.name} buys rows {sorted(again)} again, which {earlier.name} has")

    def _begun_anew_after(self, repair: Job, tag: Tag) -> bool:
        """Whether the rows that a repair was for have been sent again as a whole since."""
        return any(
            other.round == 0
            and other.clear_count == tag.clear_count
            and self._airflow.world.jobs[name].made > repair.made
            for name, other in self._tags.items()
        )

    def _counts(self, earlier: Job, other: Tag, tag: Tag) -> bool:
        """Whether the product was to know of, and to use, an earlier job."""
        arguments = self._airflow.setting.arguments
        if not arguments.reattach:
            return False
        if (
            self._ghosts
            and not self._airflow.setting.store
            and self._airflow.max_tries != self._airflow.setting.retries
        ):
            return False  # without notes, after a clear, jobs of the deleted run are taken for those of earlier tries
        if earlier.ends == earlier.made and not earlier.rows:
            return False
        return other.clear_count <= tag.clear_count

    def _usable(self, earlier: Job, other: Tag, tag: Tag) -> bool:
        state = earlier.state(self._now)
        if self._lost(earlier) or (earlier.cancel_asked is not None and state is not JobState.SUCCEEDED):
            return False
        if not state.is_terminal:
            return True
        if state is not JobState.SUCCEEDED:
            return False
        if other.clear_count == tag.clear_count:
            return True
        airflow = self._airflow
        if earlier.name in self._delivered or self._noted(earlier.name):
            return False
        landed = any(earlier.name in one.jobs for one in airflow.output.landed)
        if not airflow.setting.store:
            # Without a store, only the output can tell what was delivered, and not how its task ended. Of two jobs for
            # the same rows, it tells of one.
            mine = (other.clear_count, other.slot)
            same = {name for name, one in self._tags.items() if (one.clear_count, one.slot) == mine}
            return airflow.output.visible and not any(same.intersection(one.jobs) for one in airflow.output.landed)
        # Failed rows that cannot be sent one by one: "clear the task to run it again".
        return airflow.setting.can_resend or not landed

    def _noted(self, name: str) -> bool:
        """Whether results were landed and noted as delivered: a kill in the very next moment cannot be told apart."""
        state = self._notes()
        landed = any(name in one.jobs for one in self._airflow.output.landed)
        return landed and state is not None and name in state.records and state.records[name].delivered

    def _notes(self) -> BatchState | None:
        """Return what the task has written down."""
        return BatchState.from_json(next(iter(self._airflow.kept.values()), None))

    def _lost(self, job: Job) -> bool:
        gone = job.state(self._now).is_terminal and self._now - job.ends > self._airflow.world.weather.retention - 60.0
        return job.deleted or gone

    @property
    def _now(self) -> float:
        return self._airflow.clock.now

    # -- waiting

    def deferred(self, arguments: dict[str, Any]) -> None:
        """Look at what a task begins to wait for."""
        names = arguments["job_name"]
        names = [names] if isinstance(names, str) else names
        jobs = [self._airflow.world.jobs[name] for name in names]
        # A job that is being stopped is waited for on the time of the next one, also if it ended by itself just before
        # the wish to cancel it arrived; one of a deleted run is taken for the job of a create call without an answer.
        known = [
            job.made
            for job in jobs
            if job.cancel_asked is None and not job.state(self._now).is_terminal and job.name not in self._ghosts
        ]
        made = min(known, default=self._now)
        timeout = self._airflow.setting.arguments.timeout
        longest = longest_wait(Service.GEMINI) if timeout is None else timeout
        off = self._airflow.setting.clocks.most_off(self._now - START + longest)
        # Behind by one worker's clock, a triggerer may not be so by that of the one that sets the next wait.
        if arguments["end_time"] < self._now - 1.0 - 2.0 * off:
            self._break(f"the wait for {names} is over before it begins")
        # How far a triggerer's clock is ahead is found by doubling.
        if arguments["end_time"] > made + longest + _SLACK + _LOOK_UP + 2.0 * off:
            self._break(f"the wait for {names} is to last until {arguments['end_time'] - START:.0f}")
        if arguments["cancel_on_kill"] != self._airflow.setting.arguments.cancel_on_kill:
            self._break("cancel_on_kill is not what the author said")
        self._wait_until = max(arguments["end_time"], self._now) + off
        self._outage = self._airflow.triggerers.outage

    def waked_at(self, at: float) -> None:
        """Look at a plain pause."""
        off = self._airflow.setting.clocks.most_off(self._now - START)
        if at < self._now - 1.0 - 2.0 * off:  # as above
            self._break("a pause is over before it begins")
        self._wait_until = max(at, self._now) + off
        self._outage = self._airflow.triggerers.outage

    def woke(self) -> None:
        """Look at the end of a wait."""
        outage = self._airflow.triggerers.outage - self._outage + 200.0 * len(self._airflow.setting.triggerer)
        if self._wait_until is not None and self._now > self._wait_until + _SLACK + outage:
            self._break(f"the wait went on beyond {self._wait_until - START:.0f}")
        self._wait_until = None

    # -- endings

    def cleared(self, *, retries: bool) -> None:
        """A person wants the task run again; while it runs, Airflow only retries it."""
        self._ended_by_person = ""
        if not retries:
            self._inputs_since_clear = {self._airflow.inputs.fingerprint}

    def edited(self) -> None:
        """A person has changed the input."""
        self._inputs_since_clear.add(self._airflow.inputs.fingerprint)

    def ended_by_person(self, state: str) -> None:
        """A person ended the task while it was in this state."""
        self._ended_by_person = state

    def task_ended(self) -> None:
        """Note when the task came to rest."""
        self._ended_at = self._now

    def succeeded(self, worker: Worker, result: dict[str, Any]) -> None:
        """Look at what a successful task delivered."""
        airflow = self._airflow
        landed = [one for one in airflow.output.landed if one.epoch == worker.epoch]
        if not landed:
            self._break("success without results")
            return
        last = landed[-1]
        again = self._delivered.intersection(last.jobs)
        if again:
            self._break(f"{sorted(again)} were delivered before the task was cleared, and are delivered again")
        self._delivered.update(last.jobs)
        self._check_origin(last.jobs)
        if tuple(result["job_names"]) != last.jobs:
            self._break(f"reported {result['job_names']}, landed {last.jobs}")
        if last is not airflow.output.landed[-1]:
            self._break("somebody else's results lie at the output")
        if last.total != airflow.inputs.rows:
            self._break(f"{last.total} rows landed of {airflow.inputs.rows}")
        failed = last.total - len(last.good)
        counts = result["counts"]
        if counts != {"total": last.total, "succeeded": len(last.good), "failed": failed}:
            self._break(f"counts {counts} for {last}")
        limit = airflow.setting.arguments.max_failed_rows
        if failed > (last.total - 1 if limit is None else limit):
            self._break(f"success with {failed} failed rows of {last.total}")
        self._check_nothing_lost(last.jobs, last.good)

    def _check_origin(self, names: tuple[str, ...]) -> None:
        """What is delivered was made by this run, from the input that is there."""
        airflow, tags = self._airflow, {**self._tags, **self._ghosts}
        ghosts = self._ghosts.keys() & set(names)
        if ghosts and airflow.setting.clocks.agree and airflow.max_tries == airflow.setting.retries:
            self._break(f"{sorted(ghosts)} are of a run that was deleted")
        # A person who clears a running task only gets a retry, which goes on with what is paid for: with all of it, so
        # also with jobs of an earlier clear count that were made from the input that was there since the last clear.
        others = [name for name in names if tags[name].fingerprint not in self._inputs_since_clear]
        if others and airflow.inputs.readable:
            self._break(f"{others} were made from other input than the one that is there")

    def _check_nothing_lost(self, used: tuple[str, ...], landed: frozenset[int]) -> None:
        """A row that was paid for and is good must be in the results, if its job serves this very batch."""
        airflow = self._airflow
        if not airflow.setting.arguments.reattach or self._ghosts.keys() & set(used):
            return  # after a clear, when the run first began is not known any more
        tags = {**self._tags, **self._ghosts}
        batch = {(tags[name].fingerprint, tags[name].clear_count) for name in used}
        for name, tag in self._tags.items():
            job = airflow.world.jobs[name]
            if (tag.fingerprint, tag.clear_count) not in batch or job.cancel_asked is not None or self._lost(job):
                continue
            if job.state(self._now) is JobState.SUCCEEDED and not job.good_rows(self._now) <= landed:
                self._break(f"{name} has good rows that were not delivered")

    def at_the_end(self) -> None:
        """Look at what is left when nothing happens any more."""
        airflow = self._airflow
        if airflow.state not in ENDED:
            self._break(f"the task never ended: {airflow.state}")
        self._check_left_running()
        must_succeed = airflow.setting.benign and airflow.losses <= airflow.setting.retries
        if airflow.state != "success" and must_succeed and not self._blew_its_fuse():
            self._break("nothing stood in the way of success")

    def _check_left_running(self) -> None:
        airflow, arguments = self._airflow, self._airflow.setting.arguments
        excused = (
            airflow.killed
            or airflow.blind
            or airflow.world.locked_out
            or not arguments.reattach
            or not arguments.cancel_on_timeout
            or not arguments.cancel_on_kill
            or (airflow.overlapped and not airflow.setting.store)
            or self._left_to_the_person()
        )
        if excused:
            return
        settled, unnamed = self._ended_at + _SETTLED, self._unnamed()
        for name, tag in self._tags.items():
            job = airflow.world.jobs[name]
            if job.ends <= settled or job.deleted or job.cancel_asked is not None:
                continue
            if tag.fingerprint != airflow.inputs.fingerprint:
                continue  # a stale job that may be somebody's: named in a warning
            if self._ended_by_person and str(tag) in unnamed:
                continue  # its create call had no response, and nobody had found it when a person ended the task
            self._break(f"{name} runs on although nobody waits for it (until {self._until(job)})")

    def _left_to_the_person(self) -> bool:
        """Where a person ended the task and nothing of ours could act: between tries, in a worker, without on_kill."""
        was = self._ended_by_person
        return bool(was) and (was != "deferred" or not self._airflow.setting.store)

    def _unnamed(self) -> frozenset[str]:
        """Return the tags of the create calls that the task still looks for, so that a trigger knows no names."""
        state = self._notes()
        return frozenset(state.pending if state is not None else ())

    @staticmethod
    def _until(job: Job) -> str:
        return "for ever" if job.ends == NEVER else f"{job.ends - START:.0f}"
