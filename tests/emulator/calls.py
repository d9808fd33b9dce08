"""Calls that the emulator's tests make, plain HTTP."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from airflow_provider_gemini_batch.emulator import Emulator

MODEL = "/v1beta/models/gemini-2.5-flash"


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
