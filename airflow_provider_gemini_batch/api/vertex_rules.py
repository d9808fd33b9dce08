"""Documented rules of Vertex AI's batches that it checks late: model, place and source of a job; members of a row.

The service refuses a job in the wrong place, or accepts it and fails it when it starts; a row that cannot be imported
fails the whole job. Each error here says what to do instead. Sources: Vertex AI's pages on batch inference (Gemini and
embeddings) and on Gemini Embedding 2; the problems of the import are from users' reports.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from airflow_provider_gemini_batch.api.errors import ConfigurationError, InputError
from airflow_provider_gemini_batch.api.legacy import is_legacy
from airflow_provider_gemini_batch.api.requests.fields import either, snake, tools_of

#: Multi-regions; every other location is one region.
MULTI_REGIONS: Final = frozenset({"us", "eu"})
_NO_REGION = MULTI_REGIONS | {"global"}
_OLDER_PLACES = ("us-central1", "us-east1", "us-east4", "us-west1", "us-west4", "europe-west1", "europe-west4")
_DEEPEST = 15
# What to do instead of giving an empty tool: the import cannot store an empty object.
_FILLED = {
    "googleSearch": 'give it a member, such as {"excludeDomains": ["example.com"]}, or use the Gemini API',
    "urlContext": "use the Gemini API, which takes it as it is",
    "codeExecution": "use the Gemini API, which takes it as it is",
    "googleMaps": "give it a member, or use the Gemini API",
    "enterpriseWebSearch": 'give it a member, such as {"excludeDomains": ["example.com"]}',
    "googleSearchRetrieval": 'give it a member, such as {"dynamicRetrievalConfig": {"mode": "MODE_DYNAMIC"}}',
}
_LARGE_IMAGES = frozenset({"2K", "4K"})
_FACTS = ("contents", "content")
_OF_GEMINI_API = ("https://generativelanguage.googleapis.com/", "files/")


def check_job(model: str, location: str, *, source_table: bool, response_table: bool) -> None:
    """Refuse a combination of model, location and source that Vertex AI does not support.

    :param source_table: the rows are in BigQuery. :param response_table: the responses go to BigQuery.
    :raises ConfigurationError: says what works.
    """
    bare = model.rpartition("/")[2]
    tables = source_table or response_table
    if tables and bare.startswith("gemini-embedding"):
        raise ConfigurationError(
            f"model: {bare} works on Cloud Storage only, not on BigQuery: give gcs_uri or rows of your own, and a "
            "gs:// destination; text-embedding-005 takes tables"
        )
    if tables and location == "global":
        which = "bigquery_uri" if source_table else "destination"
        raise ConfigurationError(
            f"location: global takes no BigQuery tables ({which}): set location to a region, such as us-central1, on "
            "the operator or the connection"
        )
    if bare == "gemini-embedding-001" and location in _NO_REGION:
        raise ConfigurationError(
            f"location: gemini-embedding-001 is not served in {location}: set location to one of "
            f"{', '.join(_OLDER_PLACES)}"
        )
    if takes_instructions_in_text(model) and location not in _NO_REGION:
        raise ConfigurationError(
            f"location: {bare} is served in global, us and eu only, not in {location}: set location to one of these"
        )
    if is_legacy(model) and location in _NO_REGION:
        raise ConfigurationError(
            f"location: {bare} is served in regions, not in {location}: set location to a region, such as us-central1"
        )
    if model.startswith("projects/") and "/publishers/" not in model and location == "global":
        raise ConfigurationError(
            "location: global serves no tuned models: set location to the region that the model is in"
        )


def check_request(request: Mapping[str, Any]) -> None:
    """Refuse a row that would fail the import of a whole job, or needs what Vertex AI's batches do not support.

    :param request: one row in REST form.
    :raises InputError: names the member, never a value.
    """
    for name, value in request.items():
        if name not in _FACTS:
            _check(value, name, 2)
        elif isinstance(value, list):
            for turn in value:
                _check_content(turn)
        else:
            _check_content(value)
    _check_supported(request)


def _check_supported(request: Mapping[str, Any]) -> None:
    if "cachedContent" in request:
        raise InputError("cachedContent: batches of Vertex AI take no explicit caches; put its content into the rows")
    if "store" in request:
        raise InputError("store: only the Gemini API takes it: leave it out")
    for tool in tools_of(request):
        if either(tool, "fileSearch") is not None:
            raise InputError("tools.fileSearch: only the Gemini API has stores of files to search")
        if either(either(tool, "retrieval"), "vertexRagStore") is not None:
            raise InputError("tools.retrieval: batches of Vertex AI do no retrieval from a RAG store")
    size = either(either(request.get("generationConfig"), "imageConfig"), "imageSize")
    if isinstance(size, str) and size.upper() in _LARGE_IMAGES:
        raise InputError("generationConfig.imageConfig.imageSize: batches of Vertex AI make images of 1K only")


def _check_content(content: Any) -> None:
    parts = content.get("parts") if isinstance(content, Mapping) else None
    for part in parts if isinstance(parts, list) else ():
        # Nearly all parts consist of one text; skip these quickly.
        if isinstance(part, Mapping) and not (len(part) == 1 and "text" in part):
            _check(part, "parts", 4)
            uri = either(either(part, "fileData"), "fileUri")
            if isinstance(uri, str) and uri.startswith(_OF_GEMINI_API):
                raise InputError("parts.fileData: Vertex AI reads no files of the Gemini API: give a gs:// address")


def _check(value: Any, path: str, depth: int) -> None:
    """Refuse what a table cannot store: the service imports the rows into one."""
    if isinstance(value, Mapping):
        if depth > _DEEPEST:
            raise InputError(f"{path}: Vertex AI's import takes no more than {_DEEPEST} levels")
        if not value:
            last = path.rpartition(".")[2]
            remedy = next((words for name, words in _FILLED.items() if last in {name, snake(name)}), "leave it out")
            raise InputError(f"{path} is empty, which fails Vertex AI's import of the whole job: {remedy}")
        for name, member in value.items():
            if not isinstance(name, str) or not name or name.startswith("$") or " " in name:
                raise InputError(
                    f"{path} has a member whose name Vertex AI's import cannot store, such as $defs or one with a "
                    "blank: rename it, or write it out where it is used"
                )
            _check(member, f"{path}.{name[:60]}", depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, path, depth)


def takes_instructions_in_text(model: str) -> bool:
    """Return whether an embedding model reads task and title from the text, and ignores them as members."""
    return model.rpartition("/")[2].startswith("gemini-embedding-2")


_TASKS = {
    "RETRIEVAL_QUERY": "search result",
    "QUESTION_ANSWERING": "question answering",
    "FACT_VERIFICATION": "fact checking",
    "CODE_RETRIEVAL_QUERY": "code retrieval",
    "CLASSIFICATION": "classification",
    "CLUSTERING": "clustering",
    "SEMANTIC_SIMILARITY": "sentence similarity",
}


def with_instructions(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an embedding request whose task and title have moved into its text, as Gemini Embedding 2 reads them.

    Documents become ``title: T | text: ...`` and everything else ``task: ... | query: ...``. Source:
    https://ai.google.dev/gemini-api/docs/embeddings. A request of files only cannot have either.

    :raises InputError: the task is unknown, or there is a title although the task is that of a query.
    """
    task, title = request.get("taskType"), request.get("title")
    if task is None and title is None:
        return request
    for name, value in (("taskType", task), ("title", title)):
        if not isinstance(value, str | None):
            raise InputError(f"'{name}' must be a text")
    rest = {name: value for name, value in request.items() if name not in {"taskType", "title"}}
    if task in {None, "RETRIEVAL_DOCUMENT"}:
        before = f"title: {title or 'none'} | text: "
    elif task == "TASK_TYPE_UNSPECIFIED":
        return rest
    elif title:
        raise InputError(f"title: a text with the task {str(task)[:40]} has none; titles are for RETRIEVAL_DOCUMENT")
    elif task in _TASKS:
        before = f"task: {_TASKS[task]} | query: "
    else:
        raise InputError(f"task_type: one of RETRIEVAL_DOCUMENT, {', '.join(_TASKS)}")
    content = rest["content"]
    parts = list(content["parts"])
    for index, part in enumerate(parts):
        if isinstance(part.get("text"), str):
            parts[index] = {**part, "text": f"{before}{part['text']}"}
            break
    return {**rest, "content": {**content, "parts": parts}}
