"""``GeminiBatchRetryPolicy``: when Airflow tries a failed batch task again, depending on the error.

Airflow 3.3 asks a task's ``retry_policy``. Airflow 3.2 has no such argument, and there a policy raises RuntimeError.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

try:
    from airflow.sdk import RetryDecision, RetryPolicy
except ImportError:  # Airflow 3.2
    _HAS_POLICIES = False

    class RetryPolicy:  # type: ignore[no-redef]
        """A stand-in for Airflow's class, so that this module can be imported."""
else:
    _HAS_POLICIES = True

if TYPE_CHECKING:
    from airflow.sdk import Context

# Airflow reads a pause of zero as no pause given.
_AT_ONCE = timedelta(seconds=1)


class GeminiBatchRetryPolicy(RetryPolicy):
    """Retry after the delay that the service asks for, at once where waiting changes nothing, else as the task says.

    ========================================  ======================================================================
    the try failed because                    the next one begins
    ========================================  ======================================================================
    the quota is used up                      when the service says so, at the latest after ``longest_delay``
    the job ran into the service's time       at once: its finished rows are kept, only the others are sent again
    limit
    anything else that may pass               after the task's ``retry_delay``
    ========================================  ======================================================================

    What would fail again is not retried, with or without a policy. The number of tries stays the task's ``retries``.

    :param longest_delay: the longest pause that the service may ask for, in seconds or as a timedelta.
    :raises RuntimeError: this Airflow has no retry policies (they came with 3.3).
    """

    def __init__(self, *, longest_delay: float | timedelta = 3600.0) -> None:
        if not _HAS_POLICIES:
            raise RuntimeError("GeminiBatchRetryPolicy needs Airflow 3.3 or later; leave retry_policy out on this one")
        seconds = longest_delay.total_seconds() if isinstance(longest_delay, timedelta) else float(longest_delay)
        self.longest_delay = timedelta(seconds=seconds)

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002  (Airflow counts tries)
        max_tries: int,  # noqa: ARG002
        context: Context | None = None,  # noqa: ARG002
    ) -> RetryDecision:
        """Return when to retry, by the error that the provider raised or by its cause."""
        from airflow_provider_gemini_batch.api.errors import QuotaExceeded
        from airflow_provider_gemini_batch.runtime.failures import RetryAtOnce

        error: BaseException | None = exception
        while error is not None:
            if isinstance(error, RetryAtOnce):
                return RetryDecision.retry(_AT_ONCE, "waiting would change nothing")
            if isinstance(error, QuotaExceeded) and error.retry_after is not None:
                asked = timedelta(seconds=max(error.retry_after, 0.0))
                return RetryDecision.retry(max(min(asked, self.longest_delay), _AT_ONCE), "the service named the delay")
            error = error.__cause__ or error.__context__
        return RetryDecision.default()

    def serialize(self) -> dict[str, Any]:
        """Return plain values, for Airflow to keep with the Dag."""
        return {"longest_delay": self.longest_delay.total_seconds()}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> GeminiBatchRetryPolicy:
        """Return the policy that :meth:`serialize` was called on."""
        return cls(longest_delay=data["longest_delay"])
