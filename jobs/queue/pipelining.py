"""A Redis client that sends together what many callers ask at about the same time."""

import asyncio
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import Redis

# While so many pipelines are under way, commands gather for the next one. More than one, so that a large answer does
# not hold up the others.
PIPELINES = 2
LARGEST_PIPELINE = 64


@dataclass(frozen=True)
class _Command:
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    answer: asyncio.Future[Any]


class PipeliningRedis(Redis):
    """Every command but the blocking ones travels in a pipeline; nobody waits for company.

    Each caller gets its own answer or error. A broken connection fails, or repeats, the commands of one pipeline as it
    would a single one.
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
            # At once, not when the loop comes round to it: a command that gathers in between would wait for nobody.
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
    if future.done():  # its caller has given up
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
