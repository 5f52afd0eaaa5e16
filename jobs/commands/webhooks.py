"""`fourstep webhooks`: list and send again the webhooks that were given up."""

from typing import Annotated

import typer
from redis.asyncio import Redis

from jobs.commands.dead_letters import Model, run_on_model
from jobs.queue.webhook_stream import WebhookStream

app = typer.Typer(no_args_is_help=True, help="List or send again webhooks that were given up.")


@app.command("list")
def list_webhooks(model: Model = None) -> None:
    """Show every webhook that was given up: the time, the job, the reason, and the address.

    Example: `fourstep webhooks list`
    """
    run_on_model(_list, model)


@app.command()
def replay(
    jobs: Annotated[list[str] | None, typer.Argument(help="Jobs as listed. All of the model's when absent.")] = None,
    model: Model = None,
) -> None:
    """Send webhooks again that were given up, for jobs whose results are still kept.

    Example: `fourstep webhooks replay`
    """

    async def again(redis: Redis, model: str) -> None:
        stream = WebhookStream(redis, model)
        for webhook, _ in await stream.given_up():
            if jobs is None or webhook.job_id in jobs:
                await stream.send_again(webhook)
                typer.echo(webhook.job_id)

    run_on_model(again, model)


async def _list(redis: Redis, model: str) -> None:
    for webhook, reason in await WebhookStream(redis, model).given_up():
        url = webhook.target.url if webhook.target else "unreadable"
        typer.echo(f"{webhook.ended.isoformat(timespec='seconds')}  {webhook.job_id}  {reason}  {url!r}")
