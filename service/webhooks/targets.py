"""The target of a call's webhook: that of its body, or that of its API key."""

from fastapi import Request

from jobs.models import WebhookTarget
from jobs.settings import ApiSettings
from service.context import base_url
from service.middleware.api_keys import key_digest
from service.problems import FieldError, InvalidFieldsError
from service.webhooks.addresses import fault_of


def webhook_target(
    asked: str | None, caller: str, request: Request, settings: ApiSettings, *, asynchronous: bool
) -> WebhookTarget | None:
    """The target that is told about the end of the call's job, if any; InvalidFieldsError for one that may not be.

    `asked` is the body's own, `caller` the hash of its API key. A call that waits for its images has none.
    """
    if asked is not None and (fault := _fault(asked, settings, asynchronous)):
        raise InvalidFieldsError([FieldError(field="webhook", message=fault)])
    of_keys = {key_digest(key.get_secret_value()): url for key, url in settings.webhooks}
    url = asked or of_keys.get(caller)
    return WebhookTarget(url=url, caller=caller, base_url=base_url(request)) if url and asynchronous else None


def _fault(url: str, settings: ApiSettings, asynchronous: bool) -> str | None:
    if settings.webhook_secret is None:
        return "this server sends none: its operator has not set FOURSTEP_WEBHOOK_SECRET"
    if not asynchronous:
        return "only with Prefer: respond-async"
    return fault_of(url, settings.webhook_private)
