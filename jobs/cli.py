"""Shared by all commands: reading the settings, and errors that end a command in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeVar

import typer
from pydantic import ValidationError

from jobs.settings import Settings, explain

AnySettings = TypeVar("AnySettings", bound=Settings)


def read_settings(kind: type[AnySettings]) -> AnySettings:
    """Read the settings from the environment; end the command when they are wrong."""
    try:
        return kind()
    except ValidationError as error:
        fail(explain(error))


def fail(reason: str, code: int = 1, command: str = "fourstep") -> NoReturn:
    """End `command` with one line on standard error."""
    typer.echo(f"{command}: {reason}", err=True)
    raise typer.Exit(code)


@contextmanager
def errors_as_lines(*kinds: type[Exception], extra: str, code: int = 1, command: str = "fourstep") -> Iterator[None]:
    """End `command` in one line for errors of `kinds`, and for a missing module, which the extra `extra` installs.

    What is imported within says nothing of other devices.
    """
    from jobs.structured_logging import quiet_imports

    quiet_imports()
    try:
        yield
    except ModuleNotFoundError as error:
        fail(f"{error}; install the extra: pip install '.[{extra}]' in a checkout", code, command)
    except kinds as error:
        fail(str(error), code, command)
