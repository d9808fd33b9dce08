"""A stand-in for the services that costs as little as possible, in a process of its own, and counts what it is asked.

It answers gets, lists and creates of the Gemini API and gets of Anthropic's, all with jobs that run for a given time
and then have ended. ``POST /control/reset?count=&seconds=`` makes jobs; ``GET /control/books`` tells the counts.
"""

from __future__ import annotations

import asyncio
import json
import time
from email.utils import formatdate
from urllib.parse import parse_qs, urlsplit

PAGE = 100
_HOUR_AGO = 3600.0


class Books:
    """The jobs, and what has been asked."""

    def __init__(self) -> None:
        self.reset(1, 0.0)

    def reset(self, count: int, seconds: float) -> None:
        self.count = count
        self.ends_at = time.time() + seconds
        self.made = 0
        self.requests = 0
        self.connections = 0
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - _HOUR_AGO))
        self.running = [self._gemini(number, created, done=False) for number in range(count)]
        self.ended = [self._gemini(number, created, done=True) for number in range(count)]

    @staticmethod
    def _gemini(number: int, created: str, *, done: bool) -> bytes:
        state = "BATCH_STATE_SUCCEEDED" if done else "BATCH_STATE_RUNNING"
        name = f"batches/job{number:06}"
        stats = {"requestCount": "1000", "successfulRequestCount": "1000" if done else "0"}
        metadata = {
            "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
            "model": "models/gemini-2.5-flash",
            "displayName": f"nightly-summaries-{number}",
            "createTime": created,
            "updateTime": created,
            "batchStats": stats,
            "state": state,
            "name": name,
        }
        if done:
            metadata |= {"endTime": created, "output": {"responsesFile": f"files/batch-job{number:06}"}}
        answer: dict[str, object] = {"name": name, "metadata": metadata}
        if done:
            answer |= {"done": True, "response": {"@type": "x", "responsesFile": f"files/batch-job{number:06}"}}
        return json.dumps(answer).encode()

    def gemini_get(self, number: int) -> bytes:
        return (self.ended if time.time() >= self.ends_at else self.running)[number]

    def gemini_create(self) -> bytes:
        self.made += 1
        return self.gemini_get((self.made - 1) % self.count)

    def gemini_list(self, start: int, size: int) -> bytes:
        jobs = b",".join((self.ended if time.time() >= self.ends_at else self.running)[start : start + size])
        token = b',"nextPageToken":"%d"' % (start + size) if start + size < self.count else b""
        return b'{"operations":[' + jobs + b"]" + token + b"}"

    def anthropic_get(self, name: str) -> bytes:
        done = time.time() >= self.ends_at
        counts = {"processing": 0 if done else 1000, "succeeded": 1000 if done else 0}
        return json.dumps(
            {
                "id": name,
                "type": "message_batch",
                "processing_status": "ended" if done else "in_progress",
                "request_counts": {**counts, "errored": 0, "canceled": 0, "expired": 0},
                "created_at": "2026-01-01T00:00:00Z",
                "expires_at": "2026-01-02T00:00:00Z",
                "ended_at": "2026-01-01T01:00:00Z" if done else None,
                "archived_at": None,
                "cancel_initiated_at": None,
                "results_url": None,
            }
        ).encode()

    def answer(self, verb: str, target: str) -> bytes:
        url = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if url.path == "/control/reset":
            self.reset(int(query["count"]), float(query["seconds"]))
            return json.dumps({"ends_at": self.ends_at}).encode()
        if url.path == "/control/books":
            return json.dumps({"requests": self.requests, "connections": self.connections}).encode()
        self.requests += 1
        last = url.path.rpartition("/")[2]
        if url.path.startswith("/v1/messages/"):
            return self.anthropic_get(last)
        if verb == "POST":
            return self.gemini_create()
        if last == "batches":
            return self.gemini_list(int(query.get("pageToken") or 0), int(query.get("pageSize") or PAGE))
        return self.gemini_get(int(last.removeprefix("job")))


class Wire(asyncio.Protocol):
    """Just enough of HTTP/1.1 for clients that behave."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._books.connections += 1

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, rest = self._buffer.partition(b"\r\n\r\n")
            lines = head.split(b"\r\n")
            length = next((int(line[15:]) for line in lines if line[:15].lower() == b"content-length:"), 0)
            if len(rest) < length:
                return
            self._buffer = rest[length:]
            verb, target, _ = lines[0].decode().split(" ")
            body = self._books.answer(verb, target)
            date = formatdate(usegmt=True).encode()
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: %b\r\nContent-Length: %d\r\n\r\n%b"
                % (date, len(body), body)
            )


async def serve() -> None:
    books = Books()
    server = await asyncio.get_running_loop().create_server(lambda: Wire(books), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
