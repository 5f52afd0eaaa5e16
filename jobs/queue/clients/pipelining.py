"""A Redis client that sends the commands of concurrent callers together."""

import asyncio
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import Redis

# Pipelines under way at once; further commands are gathered for the next one. More than one, so that a large answer
# does not hold up the others.
PIPELINES = 2
LARGEST_PIPELINE = 64


@dataclass(frozen=True)
class _Command:
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    answer: asyncio.Future[Any]


class PipeliningRedis(Redis):
    """Sends every command but the blocking ones in a pipeline, at once: a command alone is a pipeline of one.

    Each caller gets its own answer or error. When the connection breaks, the commands of a pipeline fail, or are tried
    again, as a single command would.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._gathered: list[_Command] = []
        self._senders: set[asyncio.Task[None]] = set()

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        if "BLOCK" in args or b"BLOCK" in args:
            return await super().execute_command(*args, **options)
        command = _Command(args, options, asyncio.get_running_loop().create_future())
        self._gathered.append(command)
        if len(self._senders) < PIPELINES:
            self._senders.add(asyncio.create_task(self._send()))
        return await command.answer

    async def _send(self) -> None:
        try:
            while self._gathered:
                commands, self._gathered = self._gathered[:LARGEST_PIPELINE], self._gathered[LARGEST_PIPELINE:]
                commands = [command for command in commands if not command.answer.done()]
                if commands:
                    await self._send_together(commands)
        finally:
            # Not by a done callback, which the loop calls later: a command gathered in between would never be sent.
            self._senders.discard(cast(asyncio.Task[None], asyncio.current_task()))

    async def _send_together(self, commands: list[_Command]) -> None:
        pipeline = self.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command.arguments, **command.options)
        try:
            answers = await pipeline.execute(raise_on_error=False)
        except Exception as error:
            answers = [error] * len(commands)
        for command, answer in zip(commands, answers, strict=True):
            _settle(command.answer, answer)


def _settle(future: asyncio.Future[Any], answer: Any) -> None:
    if future.done():  # its caller was cancelled
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
