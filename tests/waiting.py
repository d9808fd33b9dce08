"""Waiting for what happens in another thread or process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Found = TypeVar("Found")


def wait_for(
    look: Callable[[], Found],
    what: str | Callable[[], str],
    *,
    enough: Callable[[Found], object] = bool,
    seconds: float = 60.0,
    pause: float = 0.01,
) -> Found:
    """Return what ``look`` finds as soon as that is enough.

    :param what: what is waited for, in words; a function when that is costly to say.
    :raises TimeoutError: it was not enough within ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while not enough(found := look()):
        if time.monotonic() >= deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what if isinstance(what, str) else what()}")
        time.sleep(pause)
    return found
