"""Calls that the emulator's tests make, plain HTTP."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from airflow_provider_gemini_batch.emulator import Emulator

MODEL = "/v1beta/models/gemini-2.5-flash"
PUBLISHER_MODEL = "publishers/google/models/gemini-2.5-flash"
PARENT = "/v1/projects/demo-project/locations/us-central1/batchPredictionJobs"


class Gemini:
    """A bare client of the Developer API's dialect."""

    def __init__(self, emulator: Emulator, key: str = "project:key") -> None:
        self.emulator = emulator
        self.http = httpx.Client(base_url=emulator.url, headers={"x-goog-api-key": key}, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()

    def create(self, rows: int = 3, display_name: str = "job") -> str:
        """Create an inline job and return its name."""
        items = [
            {"request": {"contents": [{"parts": [{"text": f"Row {n}."}]}]}, "metadata": {"key": f"k{n}"}}
            for n in range(1, rows + 1)
        ]
        body = {"batch": {"displayName": display_name, "inputConfig": {"requests": {"requests": items}}}}
        answer = self.http.post(f"{MODEL}:batchGenerateContent", json=body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["name"])

    def get(self, name: str, **params: str) -> dict[str, Any]:
        """Return a job's operation."""
        answer = self.http.get(f"/v1beta/{name}", params=params)
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def state(self, name: str) -> str:
        """Return a job's state without its prefix."""
        return str(self.get(name)["metadata"]["state"]).removeprefix("BATCH_STATE_")

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return the inline answers of an ended job."""
        items: list[dict[str, Any]] = self.get(name)["response"]["inlinedResponses"]["inlinedResponses"]
        return items

    def start_upload(self, size: int | None, **file: Any) -> httpx.Response:
        """Open an upload session."""
        headers = {"X-Goog-Upload-Protocol": "resumable", "X-Goog-Upload-Command": "start"}
        headers["X-Goog-Upload-Header-Content-Type"] = "application/jsonl"
        if size is not None:
            headers["X-Goog-Upload-Header-Content-Length"] = str(size)
        return self.http.post("/upload/v1beta/files", headers=headers, json={"file": file})

    def send(self, url: str, command: str, offset: int = 0, content: bytes = b"") -> httpx.Response:
        """Send a command to a session, without a key."""
        headers = {"X-Goog-Upload-Command": command, "X-Goog-Upload-Offset": str(offset)}
        return httpx.post(url, headers=headers, content=content, trust_env=False)

    def upload(self, content: bytes) -> str:
        """Upload a file in one go and return its name."""
        url = self.start_upload(len(content)).headers["x-goog-upload-url"]
        return str(self.send(url, "upload, finalize", 0, content).json()["file"]["name"])

    def create_from_file(self, rows: int) -> str:
        """Upload rows and create a job of them."""
        lines = (
            json.dumps({"key": f"k{n}", "request": {"contents": [{"parts": [{"text": f"Row {n}."}]}]}})
            for n in range(1, rows + 1)
        )
        body = {"batch": {"input_config": {"file_name": self.upload("\n".join(lines).encode())}}}
        answer = self.http.post(f"{MODEL}:batchGenerateContent", json=body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["name"])


def vertex_row(text: str = "Hi.", **beside: Any) -> dict[str, Any]:
    """Return an input row of Vertex."""
    return {"request": {"contents": [{"role": "user", "parts": [{"text": text}]}]}, **beside}


class Vertex:
    """A bare client of the Vertex dialect and of the storage beside it."""

    def __init__(self, emulator: Emulator, storage: str = "") -> None:
        self.emulator = emulator
        self.storage = storage
        token, _ = emulator._parts.tokens.issue("tester")
        self.http = httpx.Client(base_url=emulator.url, headers={"authorization": f"Bearer {token}"}, trust_env=False)

    def body(self, uri: str = "gs://in/x.jsonl", model: str = PUBLISHER_MODEL, **more: Any) -> dict[str, Any]:
        """Return the body of a create call."""
        return {
            "displayName": "job",
            "model": model,
            "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": [uri]}},
            "outputConfig": {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": "gs://out/run"}},
            **more,
        }

    def run(self, **body: Any) -> dict[str, Any]:
        """Create a job, let it end and return it."""
        created = self.http.post(PARENT, json=self.body(**body))
        assert created.status_code == 200, created.text
        self.emulator.control.advance(60)
        document: dict[str, Any] = self.http.get(f"/v1/{created.json()['name']}").json()
        return document

    def put(self, name: str, *rows: Any) -> None:
        """Write an object of the input bucket."""
        lines = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
        url = f"{self.storage}/upload/storage/v1/b/in/o"
        self.http.post(url, params={"uploadType": "media", "name": name}, content=lines).raise_for_status()

    def objects(self, job: dict[str, Any]) -> dict[str, str]:
        """Return the objects of a job's folder: short name to content."""
        prefix = job["outputInfo"]["gcsOutputDirectory"].removeprefix("gs://out/") + "/"
        listed = self.http.get(f"{self.storage}/storage/v1/b/out/o", params={"prefix": prefix}).json()
        found = {}
        for item in listed.get("items") or []:
            url = f"{self.storage}/storage/v1/b/out/o/{quote(item['name'], safe='')}"
            found[item["name"].removeprefix(prefix)] = self.http.get(url, params={"alt": "media"}).text
        return found

    def predictions(self, job: dict[str, Any], name: str = "predictions.jsonl") -> list[dict[str, Any]]:
        """Return the rows of one object that a job has written."""
        return [json.loads(line) for line in self.objects(job)[name].splitlines()]
