"""The command line: a client of the service, run within the process where there is none."""

from __future__ import annotations

import io
import sys
import traceback

import click

from nodedev.cli.app import app
from nodedev.cli.output import plain
from nodedev.errors import NodedevError, NotFoundError, UnavailableError

REFUSED, UNREACHABLE, NOT_FOUND = 1, 3, 4
INTERRUPTED = 130  # as a shell shows SIGINT


def main() -> None:
    """Runs the command line and exits: 0 ok, 1 refused, 2 usage, 3 cannot connect, 4 not found."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs one command; what goes wrong is one line on stderr."""
    try:
        return int(app.main(arguments, prog_name="nodedev", standalone_mode=False) or 0)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.ClickException as error:
        path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "nodedev"
        _complain(f"{error.format_message()} ({path} --help tells more)")
        return error.exit_code
    except Exception as error:  # noqa: BLE001  the last line of defence, told with --debug
        _explain(error, debug="--debug" in arguments)
        return _exit_code(error)


def _explain(error: Exception, *, debug: bool) -> None:
    """One line for the error, and its details if asked for."""
    match error:
        case NodedevError():
            _complain(f"{error.message} ({error.reason})")
            for violation in error.violations:
                if violation.message != error.message:
                    _complain(f"{violation.field}: {violation.message}".removeprefix(": "))
            for obstacle in error.obstacles:
                _complain(f"{obstacle.device}: {obstacle.message}".removeprefix(": "))
        case OSError():
            place = f"{error.filename}: " if error.filename else ""
            _complain(f"{place}{error.strerror or error}")
        case _:
            _complain(f"unexpected {type(error).__name__}: {error}; --debug tells more")
    if debug:
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
        for key, value in error.metadata.items() if isinstance(error, NodedevError) else ():
            _complain(f"{key}: {value}")


def _exit_code(error: Exception) -> int:
    if isinstance(error, NotFoundError):
        return NOT_FOUND
    return UNREACHABLE if isinstance(error, UnavailableError) else REFUSED


def _complain(message: str) -> None:
    click.echo(f"nodedev: {plain(message)}", err=True)
