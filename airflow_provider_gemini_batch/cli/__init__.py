"""The command line: ``airflow gemini-batch ...`` and ``gemini-batch ...``, the same commands.

Airflow calls :func:`airflow_commands` whenever it builds its parser, for every ``airflow`` command. So this module
imports only what it needs to describe the commands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.cli.cli_config import CLICommand


def airflow_commands() -> list[CLICommand]:
    """Return the group ``gemini-batch`` for Airflow's own parser."""
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand, lazy_load_command

    from airflow_provider_gemini_batch.cli.parser import COMMANDS

    commands = [
        ActionCommand(
            name=command.name,
            help=command.help,
            func=lazy_load_command("airflow_provider_gemini_batch.cli.commands.run_in_airflow"),
            args=[Arg(flags=flags, **settings) for flags, settings in command.options],  # type: ignore[no-untyped-call]
        )
        for command in COMMANDS
    ]
    return [GroupCommand(name="gemini-batch", help="Gemini batch jobs", subcommands=commands)]
