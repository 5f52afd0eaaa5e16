"""Errors as RFC 9457 ``application/problem+json``, each with a stable ``type``."""

import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from jobs.image_store import ImageStoreError
from jobs.queue.connection import UNWRITABLE

MEDIA_TYPE = "application/problem+json"
# Bounds of Retry-After in seconds; estimates beyond a minute are unreliable.
SHORTEST_RETRY_S, LONGEST_RETRY_S = 1, 60
# Client errors that pass by themselves, unlike all others, and server errors after work that a repetition does again.
TEMPORARY = ("queue-full", "store-full", "rate-limited", "too-many-streams", "idempotency-key-in-use")
REPEATING_THE_WORK = ("deadline-expired", "generation-error")
# Room for the longest prompt with every character escaped, and 64 seeds. Pictures come on top of it.
MAX_BODY_BYTES = 64 * 1024
# Bounds of what an answer repeats of a request: errors, and characters of a field's name.
MOST_ERRORS, LONGEST_NAME = 20, 100

log = logging.getLogger(__name__)


class FieldError(BaseModel):
    """The error of one field; ``limit`` is its bound or its allowed values, if there are any."""

    field: str
    message: str
    limit: Any = None


class OpenAIError(BaseModel):
    """The part of an error that OpenAI's clients read."""

    message: str
    type: str
    param: str | None = None
    code: str


class ProblemDetails(BaseModel):
    """The body of every error; ``error`` is set under ``/v1`` only."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldError] | None = None
    error: OpenAIError | None = None


class BodyTooLargeError(HTTPException):
    """The body has more than `most` bytes, or with `beside_pictures` of what is no picture.

    The framework passes on this kind of exception alone while it reads a body.
    """

    def __init__(self, most: int, beside_pictures: bool = False) -> None:
        super().__init__(413)
        self.problem = body_too_large(most, " beside its pictures" if beside_pictures else "")


class ClientGoneError(Exception):
    """The client closed its connection before the answer."""


class NothingMoreError(Exception):
    """The client has everything already: 204, without a body."""


class Problem(Exception):
    """An error to be answered as problem details; `name` ends the stable type ``urn:fourstep:problem:<name>``."""

    def __init__(
        self,
        status: int,
        name: str,
        title: str,
        detail: str,
        errors: list[FieldError] | None = None,
        headers: Mapping[str, str] | None = None,
        limit: str | None = None,  # one of jobs.metrics.LIMITS, which refuses the call
    ) -> None:
        super().__init__(detail)
        self.limit = limit
        self.headers = headers
        self.details = ProblemDetails(
            type=f"urn:fourstep:problem:{name}", title=title, status=status, detail=detail, errors=errors
        )

    def response(self, path: str) -> JSONResponse:
        """The answer to a request for `path`."""
        body = self.details.model_dump(exclude_none=True)
        if path.startswith("/v1/"):
            body["error"] = self.for_openai().model_dump()
        headers = dict(self.headers or {})
        if self.details.status == 503:
            headers.setdefault("Retry-After", str(SHORTEST_RETRY_S))
        if not self.worth_repeating:
            headers["X-Should-Retry"] = "false"
        return JSONResponse(body, self.details.status, headers=headers, media_type=MEDIA_TYPE)

    @property
    def worth_repeating(self) -> bool:
        """Return whether the same call may succeed later, and its repetition does not do the same work again.

        OpenAI's clients repeat 408, 409, 429 and 5xx unless the header ``X-Should-Retry`` says false.
        """
        name = self.details.type.rpartition(":")[2]
        return name in TEMPORARY or (self.details.status >= 500 and name not in REPEATING_THE_WORK)

    def for_openai(self) -> OpenAIError:
        """The same error in OpenAI's form."""
        details = self.details
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        return OpenAIError(
            message=details.detail,
            type=kinds.get(details.status, "invalid_request_error" if details.status < 500 else "server_error"),
            param=details.errors[0].field if details.errors else None,
            code=details.type.rpartition(":")[2].replace("-", "_"),
        )


class InvalidFieldsError(Problem):
    """422 problem: `errors` has one entry for each wrong field of the request."""

    def __init__(self, errors: list[FieldError], limit: str | None = None) -> None:
        detail = "; ".join(f"{error.field}: {error.message}" for error in errors)
        super().__init__(422, "invalid-request", "The request does not fit the contract", detail, errors, limit=limit)
        self.errors = errors


class UnknownModelError(InvalidFieldsError):
    """422 problem: no worker has announced the model; 404 ``model-not-found`` under ``/v1``."""

    def as_not_found(self) -> Problem:
        return Problem(404, "model-not-found", "No such model", self.details.detail, self.errors)


class DeadlineExpiredError(Problem):
    """504 problem: the call's timeout passed before its images were ready."""

    def __init__(self) -> None:
        detail = "The images were not ready within the call's timeout; try again."
        super().__init__(504, "deadline-expired", "Not ready in time", detail)


def overloaded(name: str, detail: str, limit: str, wait_s: float = 0.0) -> Problem:
    """429 problem of a `limit`; room is expected in `wait_s` seconds."""
    retry_after_s = min(max(math.ceil(wait_s), SHORTEST_RETRY_S), LONGEST_RETRY_S)
    return Problem(429, name, "Too busy", detail, headers={"Retry-After": str(retry_after_s)}, limit=limit)


def job_lost() -> Problem:
    return Problem(503, "job-lost", "The job is gone", "Redis no longer holds this job's images; send the call again.")


def store_full() -> Problem:
    return overloaded("store-full", "Redis has no memory left for another job.", "store")


def redis_away() -> Problem:
    return Problem(
        503, "redis-unavailable", "The queue does not answer", "Redis cannot be reached; nothing was lost, try again."
    )


def store_away() -> Problem:
    detail = "The store of images does not answer; they are kept, try again."
    return Problem(503, "image-store-unavailable", "The images cannot be read", detail)


def store_unwritable() -> Problem:
    detail = "Redis answers, but takes no writes: its disk is full, or it lacks a replica that it needs; try again."
    return Problem(503, "store-unwritable", "The queue takes nothing", detail)


def server_stopping() -> Problem:
    return Problem(
        503,
        "server-stopping",
        "The server stops",
        "It stopped before the answer was there. Send the call again; its Idempotency-Key gets the same images.",
    )


def install_problem_handlers(app: FastAPI) -> None:
    """Make every error of `app`, the framework's own included, a problem document."""
    for kind in (Problem, RequestValidationError, HTTPException, RedisError, ImageStoreError, Exception):
        app.add_exception_handler(kind, _answer)
    app.add_exception_handler(ClientGoneError, _answer_nobody)
    app.add_exception_handler(NothingMoreError, _answer_nothing)


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI description of the errors a route answers."""
    schema = {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}
    return {
        status: {"description": HTTPStatus(status).phrase, "model": ProblemDetails, "content": {MEDIA_TYPE: schema}}
        for status in statuses
    }


def answer_counted(request: Request, problem: Problem) -> JSONResponse:
    """The answer to `request`, which the metrics count when a limit refuses it."""
    if problem.limit:
        request.app.state.context.metrics.refusals.labels(problem.limit).inc()
    return problem.response(request.url.path)


async def _answer(request: Request, error: Exception) -> JSONResponse:
    return answer_counted(request, _problem_of(request, error))


async def _answer_nobody(request: Request, error: Exception) -> Response:
    # The client is gone: the status, which nginx uses for this too, is for the metrics and the log.
    return Response(status_code=499)


async def _answer_nothing(request: Request, error: Exception) -> Response:
    return Response(status_code=204)


def _problem_of(request: Request, error: Exception) -> Problem:
    match error:
        case Problem():
            return error
        case RequestValidationError():
            return _invalid_request(request, error.errors())
        case HTTPException():
            return _refused_by_framework(request, error)
        case OutOfMemoryError():
            return store_full()
        case ImageStoreError():
            log.error("the store of images does not answer", extra={"error": str(error)})
            return store_away()
        case ResponseError() if str(error).startswith(UNWRITABLE):
            log.error("redis cannot write", extra={"error": str(error)})
            return store_unwritable()
        case RedisError():
            log.error("redis does not answer", extra={"error": str(error)})
            return redis_away()
    return Problem(500, "internal-error", "Internal error", "The server failed; the log says why.")


def _invalid_request(request: Request, found: Sequence[Any]) -> Problem:
    if found[0]["type"] == "json_invalid":
        return _malformed_json(f"not JSON at character {found[0]['loc'][-1]}: {found[0]['ctx']['error']}")
    content_type = request.headers.get("content-type", "")
    if found[0]["type"] == "model_attributes_type" and "json" not in content_type:
        detail = f"Send Content-Type: application/json, not {content_type or 'none'}."
        return Problem(415, "unsupported-media-type", "The body must be JSON", detail)
    return InvalidFieldsError([_field_error(one) for one in found[:MOST_ERRORS]])


def _malformed_json(reason: str) -> Problem:
    return Problem(400, "malformed-json", "The body is not JSON", reason, [FieldError(field="body", message=reason)])


def _field_error(found: dict[str, Any]) -> FieldError:
    path = [str(part) for part in found["loc"] if part not in ("body", "path", "query")]
    context = found.get("ctx", {})
    limits = ("le", "lt", "ge", "gt", "max_length", "min_length", "expected", "pattern")
    limit = next((context[name] for name in limits if name in context), None)
    message = "Unknown field" if found["type"] == "extra_forbidden" else found["msg"]
    name = ".".join(path) or "body"
    shown = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…"
    return FieldError(field=shown, message=message, limit=limit)


def _refused_by_framework(request: Request, error: HTTPException) -> Problem:
    if isinstance(error, BodyTooLargeError):
        return error.problem
    if error.status_code == 400:
        return _malformed_json("the body is not JSON in UTF-8")
    phrase = HTTPStatus(error.status_code).phrase
    headers = {"Allow": ", ".join(_allowed_methods(request))} if error.status_code == 405 else error.headers
    return Problem(error.status_code, phrase.lower().replace(" ", "-"), phrase, str(error.detail), headers=headers)


def _allowed_methods(request: Request) -> list[str]:
    """All methods of the path; the framework's own answer names only those of the first route that matches."""
    routes = request.app.router.routes
    scopes = [{**request.scope, "method": method} for method in ("DELETE", "GET", "HEAD", "POST")]
    return [scope["method"] for scope in scopes if any(route.matches(scope)[0] is Match.FULL for route in routes)]


def body_too_large(most: int, of_what: str = "") -> Problem:
    error = FieldError(field="body", message=f"at most {most} bytes{of_what}", limit=most)
    return Problem(413, "body-too-large", "The body is too large", f"body: {error.message}", [error], limit="body")
