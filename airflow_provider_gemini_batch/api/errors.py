"""The exception tree of the provider, drawn.

::

    GeminiBatchError                        retryable: may the same call work later?
    ├── ConfigurationError                  nothing was sent: fix the connection or the arguments
    │   └── InputError                      nothing was sent: fix the input (names lines or keys)
    │       ├── EmptyInput                  there are no rows
    │       └── InputUnavailable            rows to be sent again cannot be read, or are others than before
    ├── TransportError          (retryable) no usable response: DNS, reset, time-out; .sent: may the service have acted?
    ├── ApiError                            the service said no: http_status, status, reason
    │   ├── AccessDenied                    401, 403, and 400 for a refused API key or region
    │   ├── NotFound                        404 (and 403 for a file)
    │   ├── QuotaExceeded       (retryable) 429; .retry_after in seconds, or None
    │   └── ServiceUnavailable  (retryable) 5xx
    ├── FileNotReady            (retryable) the service is still processing an uploaded file; no job was made with it
    ├── FileFailed                          the service cannot use an uploaded file; carries its words
    ├── UnexpectedResponse                  the service answered in a shape that we do not know
    │   ├── ResponseTooLarge                larger than anything that the service has to say
    │   └── UnknownOutput                   the job wrote objects that we cannot read: kept, for a later version to read
    ├── ResultsGone                         the service has deleted the job's results
    └── JobError                            carries the BatchJob as .job
        ├── JobFailed                       ended badly
        ├── JobTimedOut         (retryable) our own deadline
        └── JobGone             (retryable) the service does not know the job any more

Errors carry facts as attributes; their messages say what happened and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from airflow_provider_gemini_batch.api.models import BatchJob


NEVER_READABLE: Final = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
"""Errors that another try would meet again; any other ``OSError`` (a time-out, a reset) may pass."""


class GeminiBatchError(Exception):
    """The base of all errors of this provider."""

    retryable: ClassVar[bool] = False

    @property
    def may_have_acted(self) -> bool:
        """Whether the service may have carried out the call although no good response arrived."""
        return False


class ConfigurationError(GeminiBatchError, ValueError):
    """The connection or the arguments cannot work; nothing has been sent."""


class InputError(ConfigurationError):
    """The rows cannot be sent; the message names lines or keys. Nothing has been sent."""


class EmptyInput(InputError):
    """The input has no rows."""


class InputUnavailable(InputError):
    """Rows that must be sent (again) can no longer be read, or have changed since they were checked."""


class TransportError(GeminiBatchError):
    """No usable response arrived: DNS, refused connection, TLS, reset, time-out."""

    retryable = True

    def __init__(self, message: str, *, sent: bool) -> None:
        """Keep whether the request may have reached the service."""
        super().__init__(message)
        self.sent = sent

    @property
    def may_have_acted(self) -> bool:
        """True unless it is certain that no request left."""
        return self.sent


class ApiError(GeminiBatchError):
    """The service refused a call."""

    def __init__(self, message: str, *, http_status: int, status: str = "", reason: str = "") -> None:
        """Keep the HTTP status, the canonical status (``NOT_FOUND``) and the reason (``API_KEY_INVALID``)."""
        super().__init__(message)
        self.http_status = http_status
        self.status = status
        self.reason = reason

    @property
    def is_vague(self) -> bool:
        """Whether it is not in the service's form: a gateway may have refused the call, and that may pass."""
        return not (self.status or self.reason)


class AccessDenied(ApiError):
    """The key was refused, a permission is missing, or the region is not supported."""


class NotFound(ApiError):
    """The service does not know the name, or not with these credentials."""


class QuotaExceeded(ApiError):
    """429. After a create call this means that no job was created."""

    retryable = True

    def __init__(
        self, message: str, *, http_status: int, status: str = "", reason: str = "", retry_after: float | None = None
    ) -> None:
        """Keep how long the service asks to wait, in seconds."""
        super().__init__(message, http_status=http_status, status=status, reason=reason)
        self.retry_after = retry_after


class ServiceUnavailable(ApiError):
    """5xx: the service may still have carried out the call."""

    retryable = True

    @property
    def may_have_acted(self) -> bool:
        """Always: a 5xx says nothing about what was done."""
        return True


class FileNotReady(GeminiBatchError):
    """The service is still processing an uploaded file; a create call with this error created no job."""

    retryable = True


class FileFailed(GeminiBatchError):
    """The service processed an uploaded file and cannot use it."""


class UnexpectedResponse(GeminiBatchError):
    """A 2xx that cannot be read, or a shape that we do not know."""

    @property
    def may_have_acted(self) -> bool:
        """Always: the service did respond."""
        return True


class ResponseTooLarge(UnexpectedResponse):
    """A response, a line or a value is larger than the service has reason to send; it was not read."""


class UnknownOutput(UnexpectedResponse):
    """A job's output is incomplete, or has names that this version does not know. It is kept as it is."""


class ResultsGone(GeminiBatchError):
    """The job ended well, but the service has deleted its results."""


class JobError(GeminiBatchError):
    """Something is wrong with a job as a whole."""

    def __init__(self, message: str, *, job: BatchJob | None = None) -> None:
        """Keep the last known state of the job."""
        super().__init__(message)
        self.job = job


class JobFailed(JobError):
    """The job ended badly."""


class JobTimedOut(JobError):
    """Our own deadline passed before the job ended."""

    retryable = True


class JobGone(JobError):
    """The service no longer knows the job."""

    retryable = True
