"""``GET /webhooks/secret``: what the caller's webhooks are signed by."""

from fastapi import APIRouter
from pydantic import BaseModel

from service.context import Context
from service.middleware.api_keys import Caller
from service.problems import Problem, problem_responses
from service.webhooks.signing import signing_secret

router = APIRouter(tags=["webhooks"])


class WebhookSecret(BaseModel):
    """A secret in the form of the Standard Webhooks specification: ``whsec_`` and base64."""

    secret: str


@router.get("/webhooks/secret", responses=problem_responses(404))
async def get_webhook_secret(context: Context, caller: Caller) -> WebhookSecret:
    """The secret of this API key, by which its webhooks are verified."""
    if context.settings.webhook_secret is None:
        raise Problem(404, "no-webhooks", "No webhooks", "This server sends none: FOURSTEP_WEBHOOK_SECRET is not set.")
    return WebhookSecret(secret=signing_secret(context.settings.webhook_secret, caller))
