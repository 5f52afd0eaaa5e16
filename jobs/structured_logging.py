"""Log lines of every process: JSON, or short coloured text on a terminal, with a line of progress under it. Prompts and
keys are never logged.

Every module logs by ``logging.getLogger(__name__)``; fields beside the message are passed as ``extra``.
"""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import TextIO

from structlog import dev, processors
from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_log_level, add_logger_name
from structlog.typing import EventDict, Processor

OWN_LOGGERS = {"jobs", "service", "worker", "distill"}
# Other fields of `extra` are left out, and so are all fields of libraries, which may pass anything.
CALL_FIELDS = {"method", "endpoint", "status", "seconds", "job_id"}
IMAGE_FIELDS = {"job_id", "index", "entry", "outcome"}
FAULT_FIELDS = {"error", "policy", "model", "gpu", "code", "pause_s"}
_FIELDS = ExtraAdder(allow=CALL_FIELDS | IMAGE_FIELDS | FAULT_FIELDS)


def _own_fields(logger: logging.Logger, method: str, event: EventDict) -> EventDict:
    own = event["_record"].name.partition(".")[0] in OWN_LOGGERS
    return _FIELDS(logger, method, event) if own else event


def fresh_line(stream: TextIO) -> str:
    """Return what wipes a line of progress, which any process of the tree may have left on a terminal; else nothing."""
    return "\r\x1b[K" if stream.isatty() else ""


@contextmanager
def progress(doing: str, parts: int | None = None) -> Iterator[Callable[[str], None]]:
    """Show at the foot of a terminal what is being done and for how long, until the context ends; nothing elsewhere.

    The function that it gives is called with the name of each of the `parts` before that begins. Not to be nested.
    """
    if not sys.stderr.isatty():
        yield lambda part: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    shown = Progress(
        *(SpinnerColumn(), text, TimeElapsedColumn()),
        console=Console(stderr=True),
        transient=True,
        refresh_per_second=2,  # by a thread beside what is measured
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with shown:
        shown.console.show_cursor(True)  # whoever is killed cannot bring it back
        task, number = shown.add_task(doing, total=None), count(1)
        yield lambda part: shown.update(task, description=f"{doing}: {part}, {next(number)} of {parts}", refresh=True)


def configure_logging(level: str) -> None:
    """Send all log records from `level` ("info", ...) upwards to stderr, each as one line.

    Libraries say nothing below info: what they tell for debugging may quote anything, prompts among it.
    """
    if sys.stderr.isatty():
        origin: list[Processor] = [processors.TimeStamper(fmt="%H:%M:%S", utc=False)]
        # A plain traceback: rich's shows the values of variables, prompts among them.
        renderers: list[Processor] = [dev.ConsoleRenderer(pad_event_to=0, exception_formatter=dev.plain_traceback)]
        renderers.append(lambda logger, method, line: fresh_line(sys.stderr) + str(line))
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # a person wants the address, and once
    else:
        origin = [add_logger_name, processors.TimeStamper(fmt="iso", utc=True)]
        renderers = [processors.format_exc_info, processors.JSONRenderer()]
    formatter = ProcessorFormatter(
        foreign_pre_chain=[add_log_level, *origin, processors.StackInfoRenderer(), _own_fields],
        processors=[ProcessorFormatter.remove_processors_meta, *renderers],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    own = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(handlers=[handler], level=max(own, logging.INFO), force=True)
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel(own)
    for client in ("httpx", "httpcore"):
        logging.getLogger(client).setLevel(logging.WARNING)  # they report every request they make
    quiet_imports()


def quiet_imports() -> None:
    """Silence what is logged when torchao is imported: that it has kernels for other devices, and how it registers its
    types with PyTorch. To be called before that."""
    for importer in ("torchao", "torch.utils._pytree", "diffusers.quantizers"):
        logging.getLogger(importer).setLevel(logging.ERROR)
