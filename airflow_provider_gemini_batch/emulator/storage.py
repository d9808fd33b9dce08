"""Cloud Storage's JSON API, as far as a batch job needs it: list, read and write objects, all streaming."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx

from airflow_provider_gemini_batch.emulator.media import HEAD_BYTES, Sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from typing_extensions import Self

#: Resumable uploads take multiples of 256 KiB.
CHUNK = 8 * 1024 * 1024


class NoBucket(Exception):
    """The bucket does not exist."""


class NoObject(Exception):
    """The object does not exist."""


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and object name of a ``gs://`` URI."""
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    return bucket, name


class Storage:
    """A connection to one Cloud Storage endpoint.

    :param endpoint: base URL, for instance of an emulator on loopback.
    """

    def __init__(self, endpoint: str) -> None:
        self._base = endpoint.rstrip("/")
        self._http = httpx.Client(timeout=60.0, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def check_bucket(self, bucket: str) -> None:
        """Raise NoBucket when the bucket does not exist."""
        if self._http.get(f"{self._base}/storage/v1/b/{bucket}").status_code == 404:  # noqa: PLR2004 - not found
            raise NoBucket(bucket)

    def expand(self, uri: str) -> list[str]:
        """Return the objects that a URI names: itself, or those that match its ``*``; NoObject for none."""
        bucket, name = split_uri(uri)
        self.check_bucket(bucket)
        if "*" not in name:
            return [uri]
        found = [item for item in self._names(bucket, name.partition("*")[0]) if fnmatch.fnmatchcase(item, name)]
        if not found:
            raise NoObject(uri)
        return [f"gs://{bucket}/{item}" for item in sorted(found)]

    def _names(self, bucket: str, prefix: str) -> Iterator[str]:
        params = {"prefix": prefix}
        while True:
            page = self._http.get(f"{self._base}/storage/v1/b/{bucket}/o", params=params).raise_for_status().json()
            yield from (item["name"] for item in page.get("items") or [])
            if not page.get("nextPageToken"):
                return
            params["pageToken"] = page["nextPageToken"]

    def read(self, uri: str) -> Iterator[bytes]:
        """Yield the bytes of an object in chunks; NoObject when it does not exist."""
        bucket, name = split_uri(uri)
        url = f"{self._base}/storage/v1/b/{bucket}/o/{quote(name, safe='')}"
        with self._http.stream("GET", url, params={"alt": "media"}) as answer:
            if answer.status_code == 404:  # noqa: PLR2004 - not found
                raise NoObject(uri)
            answer.raise_for_status()
            yield from answer.iter_raw(1 << 20)

    def sample(self, uri: str) -> Sample | None:
        """Return size and first bytes of an object, None when it cannot be read."""
        if not uri.startswith("gs://"):
            return None
        bucket, name = split_uri(uri)
        url = f"{self._base}/storage/v1/b/{bucket}/o/{quote(name, safe='')}"
        try:
            size = int(self._http.get(url).raise_for_status().json()["size"])
            with self._http.stream("GET", url, params={"alt": "media"}) as answer:
                head = next(answer.iter_raw(HEAD_BYTES), b"")
        except (httpx.HTTPError, KeyError, ValueError):
            return None
        return Sample(size, head)

    def write(self, uri: str, pieces: Iterable[bytes]) -> None:
        """Write an object through a resumable upload; it appears when the last byte is there."""
        bucket, name = split_uri(uri)
        start = self._http.post(
            f"{self._base}/upload/storage/v1/b/{bucket}/o",
            params={"uploadType": "resumable", "name": name},
            json={"name": name, "contentType": "application/octet-stream"},
        )
        session = start.raise_for_status().headers["location"]
        sent, held = 0, bytearray()
        for piece in pieces:
            held += piece
            while len(held) > CHUNK:
                self._put(session, bytes(held[:CHUNK]), sent, None)
                sent += CHUNK
                del held[:CHUNK]
        self._put(session, bytes(held), sent, sent + len(held))

    def _put(self, session: str, chunk: bytes, start: int, total: int | None) -> None:
        size = "*" if total is None else str(total)
        span = f"{start}-{start + len(chunk) - 1}" if chunk else "*"
        answer = self._http.put(session, content=chunk, headers={"content-range": f"bytes {span}/{size}"})
        if answer.status_code != 308:  # noqa: PLR2004 - resume incomplete: what a chunk in the middle is answered
            answer.raise_for_status()
