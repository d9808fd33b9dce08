"""Names that callers give, checked before anything is sent: models, jobs, files, gs:// and bq:// addresses, labels.

A name becomes part of a URL's path, so characters that could end the path or leave it are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow_provider_gemini_batch.api.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_gemini_batch.api.models import BatchJob

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}\Z")
_TUNED_VERTEX = re.compile(r"projects/[a-z0-9.:-]+/locations/[a-z0-9-]+/(models|endpoints)/[A-Za-z0-9_@.-]+\Z")
_GEMINI_JOB = re.compile(r"batches/[A-Za-z0-9_-]{1,128}\Z")
_VERTEX_JOB = re.compile(r"projects/([a-z0-9.:-]+)/locations/([a-z0-9-]+)/batchPredictionJobs/([0-9]{1,40})\Z")
_FILE = re.compile(r"files/[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\Z")
# What the service itself calls an output.
_OUTPUT = re.compile(r"files/[A-Za-z0-9][\w.~-]{0,200}\Z", re.ASCII)
# Longer ids are those of batch outputs: these can be downloaded, but not looked up or deleted.
_LONGEST_FILE_ID = 40
_GCS = re.compile(r"gs://[a-z0-9][a-z0-9._-]{0,220}(?:/[^\r\n]*)?\Z")
_BIGQUERY = re.compile(r"bq://[A-Za-z0-9.:_-]+\Z")
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}\Z")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}\Z")
_MOST_LABELS = 64


# What a name may look like in a message. Anything else may be a prompt or a response that was handed over by mistake.
_SHOWABLE = re.compile(r"[\w./:@+%~?=*-]{0,120}\Z|(?:/|[a-z0-9]{2,12}://)[^\r\n]{0,200}\Z")


def in_words(value: object) -> str:
    """Return a value for a message if it can be a name, else its type: a text or a dict may hold a row."""
    if isinstance(value, str):
        return repr(value) if _SHOWABLE.match(value) else f"a text of {len(value)} characters"
    hint = ""
    if isinstance(value, Mapping):
        of_task = ': task.output["job_name"]' if "job_name" in value or "name" not in value else ', its "name"'
        hint = f" (of a task, take the member you need{of_task})"
    elif isinstance(getattr(value, "name", None), str):
        hint = " (give its name)"
    return f"a value of type {type(value).__name__}{hint}"


def a_few(names: Iterable[str], most: int = 5) -> str:
    """Return names for a message: the first of them, and how many more there are."""
    listed = list(names)
    shown = ", ".join(listed[:most])
    return f"{shown} and {len(listed) - most} more" if len(listed) > most else shown


def name_of_job(job: BatchJob | str) -> str:
    """Return the name of a job that is given itself or by its name."""
    if not isinstance(name := getattr(job, "name", job), str):
        raise ConfigurationError(f"Invalid job {in_words(job)}: expected a job, or its name.")
    return name


def gemini_model(model: str) -> str:
    """Return ``models/x`` or ``tunedModels/x`` for a model named with or without that prefix."""
    collection, bare = "models", model
    for known in ("models", "tunedModels"):
        if isinstance(model, str) and model.startswith(f"{known}/"):
            collection, bare = known, model[len(known) + 1 :]
    if not isinstance(bare, str) or not _MODEL.match(bare) or ".." in bare:
        raise ConfigurationError(f"Invalid model name {in_words(model)}: expected a name such as 'gemini-2.5-flash'.")
    return f"{collection}/{bare}"


def vertex_model(model: str) -> str:
    """Return ``publishers/google/models/x`` for a model of Google, or a tuned model's full name."""
    if isinstance(model, str) and _TUNED_VERTEX.match(model) and ".." not in model:
        return model
    bare = model
    for prefix in ("publishers/google/models/", "models/"):
        bare = bare.removeprefix(prefix) if isinstance(bare, str) else bare
    if not isinstance(bare, str) or not _MODEL.match(bare) or ".." in bare:
        raise ConfigurationError(
            f"Invalid model name {in_words(model)}: Vertex AI expects a name such as 'gemini-2.5-flash' or "
            "'projects/p/locations/l/models/123'."
        )
    return f"publishers/google/models/{bare}"


def bare_model(name: str) -> str:
    """Return a model's name without the service's prefix."""
    return name.removeprefix("publishers/google/").removeprefix("models/")


def gemini_job(name: str) -> str:
    """Return the name of a Gemini Developer API job after checking it."""
    if not isinstance(name, str) or not _GEMINI_JOB.match(name):
        is_vertex = isinstance(name, str) and _VERTEX_JOB.match(name)
        other = " That is a Vertex AI job: use a connection to Vertex AI." if is_vertex else ""
        raise ConfigurationError(f"Invalid Gemini job name {in_words(name)}: expected 'batches/<id>'.{other}")
    return name


def vertex_job(name: str) -> tuple[str, str]:
    """Return the name of a Vertex AI job after checking it, and its location."""
    found = _VERTEX_JOB.match(name) if isinstance(name, str) else None
    if found is None:
        is_gemini = isinstance(name, str) and _GEMINI_JOB.match(name)
        other = " That is a job of the Gemini API: use a connection with an API key." if is_gemini else ""
        shape = "projects/<p>/locations/<l>/batchPredictionJobs/<id>"
        raise ConfigurationError(f"Invalid Vertex AI job name {in_words(name)}: expected {shape!r}.{other}")
    return name, found[2]


def file_name(name: str) -> str:
    """Return a file's name after checking it; the long ids of batch outputs are also valid."""
    if not isinstance(name, str) or not _FILE.match(name):
        raise ConfigurationError(
            f"Invalid file name {in_words(name)}: expected 'files/<id>', as upload_file returns it."
        )
    return name


def any_file_name(name: str) -> str:
    """Return a file's name after checking that it cannot lead elsewhere: the service chooses those of its outputs."""
    return name if isinstance(name, str) and _OUTPUT.match(name) else file_name(name)


def is_output_file(name: str) -> bool:
    """Return whether a file is the output of a batch: these have longer ids than uploads."""
    return len(file_name(name)) - len("files/") > _LONGEST_FILE_ID


def own_file_name(name: str) -> str:
    """Return the name of an upload after checking it; outputs of batches cannot be looked up or deleted."""
    if is_output_file(name):
        raise ConfigurationError(
            f"{in_words(name)} is the output of a batch: it can be downloaded, but not looked up or deleted. "
            "It expires by itself."
        )
    return name


def gcs_uri(uri: str, argument: str) -> str:
    """Return a gs:// address after checking it."""
    if not isinstance(uri, str) or not _GCS.match(uri):
        raise ConfigurationError(f"{argument}: invalid address {in_words(uri)}: expected 'gs://bucket/object'.")
    return uri


def bigquery_uri(uri: str, argument: str) -> str:
    """Return a bq:// address after checking it."""
    if not isinstance(uri, str) or not _BIGQUERY.match(uri):
        raise ConfigurationError(f"{argument}: invalid address {in_words(uri)}: expected 'bq://project.dataset.table'.")
    return uri


def labels(given: Mapping[str, str]) -> dict[str, str]:
    """Return labels after checking them by Google Cloud's rules."""
    for key, value in given.items():
        if not isinstance(key, str) or not _LABEL_KEY.match(key):
            raise ConfigurationError(f"label {in_words(key)}: a key is a letter and up to 62 of a-z, 0-9, _ and -")
        if not isinstance(value, str) or not _LABEL_VALUE.match(value):
            raise ConfigurationError(f"label {in_words(key)}: a value is up to 63 of a-z, 0-9, _ and -")
    if len(given) > _MOST_LABELS:
        raise ConfigurationError(f"{len(given)} labels are too many: at most {_MOST_LABELS} are taken")
    return dict(given)


def job_page_url(job: BatchJob | str) -> str:
    """Return the address of Google's web page for a job.

    AI Studio has one page for all batches of a project; the Cloud console has one for each job.
    """
    name = name_of_job(job)
    found = _VERTEX_JOB.match(name)
    if found is None:
        gemini_job(name)
        return "https://aistudio.google.com/batches"
    project, location, number = found.groups()
    return (
        f"https://console.cloud.google.com/vertex-ai/locations/{location}/batch-predictions/{number}"
        f"?project={quote(project, safe='')}"
    )
