"""Access tokens: the OAuth token endpoint of service-account keys, the token exchange of federation, and impersonation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_gemini_batch.emulator.wire import ApiError

if TYPE_CHECKING:
    from starlette.responses import Response

    from airflow_provider_gemini_batch.emulator.call import Call
    from airflow_provider_gemini_batch.emulator.world import World


class Tokens:
    """The tokens and accounts of one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.issued = 0

    def revoke(self) -> None:
        """Make all issued tokens invalid."""

    def forget(self) -> None:
        """Forget tokens and counts."""


async def token(call: Call) -> Response:
    raise ApiError(501, "Not yet.")


async def exchange(call: Call) -> Response:
    raise ApiError(501, "Not yet.")


async def impersonate(call: Call) -> Response:
    raise ApiError(501, "Not yet.")
