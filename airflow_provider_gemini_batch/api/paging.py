"""Reads a list in pages to its end, and refuses one that has none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from airflow_provider_gemini_batch.api.errors import UnexpectedResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MOST_PAGES = 100_000
# An empty page may repeat its token, which means "ask again".
_MOST_REPEATS = 10


class Page(Protocol):
    """One page of a list."""

    @property
    def next_page_token(self) -> str | None:
        """The token for the next page; None at the end."""


P = TypeVar("P", bound=Page)


def pages_of(ask: Callable[[str | None], P]) -> Iterator[P]:
    """Yield page after page.

    :raises UnexpectedResponse: tokens are repeated too often, or there are too many pages.
    """
    seen: set[str] = set()
    repeats = 0
    token: str | None = None
    while True:
        page = ask(token)
        yield page
        token = page.next_page_token
        if not token:
            return
        repeats += token in seen
        if repeats > _MOST_REPEATS or len(seen) >= _MOST_PAGES:
            raise UnexpectedResponse("The service's list does not end: it repeats a page, or has too many pages")
        seen.add(token)
