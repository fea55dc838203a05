"""Errors as OpenAI's clients read them: `{"error": {message, type, param, code}}`."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from dl_techniques.errors import DLTechniquesError, QueueFullError, StoppedError, shorten

RETRY_AFTER = {429: "1", 503: "5"}
TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}
CODES = {404: "unknown_url", 405: "method_not_allowed"}


class ErrorBody(BaseModel):
    """What is wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(BaseModel):
    """The body of every response that is no answer."""

    error: ErrorBody


STATUSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": what}
    for status, what in {
        400: "a field, a picture or the prompt cannot be used; `param` names it",
        401: "the token is missing or wrong",
        403: "the page that asks is none of those allowed",
        404: "no such model or path",
        405: "the path takes another method",
        408: "the body did not come in time",
        413: "the body is too large",
        415: "the body is not application/json",
        429: "too many questions wait",
        500: "the model failed",
        503: "the service is starting or stopping",
    }.items()
}
"""Every error status, for /openapi.json."""


def documented(*statuses: int | str) -> dict[int | str, dict[str, Any]]:
    """Some of `STATUSES`, for a path that has no others."""
    return {status: STATUSES[status] for status in STATUSES if status in statuses}


class Refusal(Exception):
    """A request is not answered.

    Args:
        status: of HTTP.
        code: for programs.
        message: for people: what came, what was expected.
        param: the field that is wrong.
    """

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param

    def body(self) -> dict[str, Any]:
        """The JSON object."""
        kind = TYPES.get(self.status, "invalid_request_error")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> JSONResponse:
        """The response; it says when to ask again where that may help."""
        wait = RETRY_AFTER.get(self.status)
        headers = {} if wait is None else {"Retry-After": wait}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body(), self.status, headers)


def refusal_of(error: Exception, param: str | None = None) -> Refusal:
    """What an error of the package means over HTTP.

    Args:
        error: any.
        param: the field it comes from.
    """
    if isinstance(error, Refusal):
        return error
    if isinstance(error, QueueFullError):
        return Refusal(429, "queue_full", str(error))
    if isinstance(error, StoppedError):
        return Refusal(503, "not_ready", str(error))
    if isinstance(error, ValueError) and isinstance(error, DLTechniquesError):
        return Refusal(400, "invalid_value", str(error), param)
    message = str(error) if isinstance(error, DLTechniquesError) else "the service failed"
    return Refusal(500, "internal_error", message)


def install_handlers(app: FastAPI) -> None:
    """Has every error of the app answered in this form."""

    async def refuse(request: Request, error: Exception) -> JSONResponse:
        return refusal_of(error).response()

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return _of_validation(error).response()

    async def plain(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        code = CODES.get(error.status_code, "invalid_request")
        message = str(error.detail)
        if error.status_code in CODES:
            what = f"{request.method} {shorten(request.url.path)}"
            message = f"{what} is not served here; POST /v1/chat/completions is"
        refusal = Refusal(error.status_code, code, message)
        response = refusal.response()
        response.headers.update(error.headers or {})
        return response

    app.add_exception_handler(Refusal, refuse)
    app.add_exception_handler(DLTechniquesError, refuse)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, plain)
    app.add_exception_handler(Exception, refuse)


def _of_validation(error: RequestValidationError) -> Refusal:
    """The first thing that is wrong with a body."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return Refusal(400, "invalid_json", f"the body is no JSON: {first['msg']}")
    param = path_of(first["loc"][1:])
    got = repr(first.get("input"))
    return Refusal(
        400, "invalid_value", f"{param or 'the body'}: {first['msg']}, got {shorten(got)}", param
    )


def path_of(location: tuple[int | str, ...]) -> str | None:
    """The name of a place in a body.

    Example:
        >>> path_of(("messages", 0, "content"))
        'messages[0].content'
    """
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return path.removeprefix(".") or None
