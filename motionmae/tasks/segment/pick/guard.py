"""Who may speak to the page's server: this machine's browser, with the token, from the page itself. None else may.

Names that somebody else has made resolve to this machine (DNS rebinding) are refused by Host, others' pages by Origin.
"""

from __future__ import annotations

import re
import secrets

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LIMIT = 1 << 20
"""Bytes of a request's body."""
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class Guard:
    """An application behind /TOKEN/, for one machine; it sees paths without the token."""

    def __init__(self, app: ASGIApp, token: str):
        self.app, self.token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or hand on."""
        if scope["type"] != "http":
            return
        request = Request(scope)
        refusal = self.refuse(request)
        if refusal is not None:
            await refusal(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *own]}
            await send(message)

        path = "/" + scope["path"].lstrip("/").partition("/")[2]
        await self.app({**scope, "path": path, "raw_path": path.encode()}, receive, answer)

    def refuse(self, request: Request) -> Response | None:
        """The answer to who may not speak, else None."""
        hosts, origins = request.headers.getlist("host"), request.headers.getlist("origin")
        if len(hosts) != 1 or not re.fullmatch(r"(127\.0\.0\.1|localhost)(:[0-9]{1,5})?", hosts[0]):
            return PlainTextResponse("refused: not an address of this machine", 421)
        if origins != [f"http://{hosts[0]}"] and (origins or request.method != "GET"):
            return PlainTextResponse("refused: another page's request", 403)
        given = request.scope["path"].lstrip("/").partition("/")
        if not secrets.compare_digest(given[0].encode(), self.token) or not given[1]:
            return PlainTextResponse("refused: open the whole address that motionmae has printed", 403)
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > LIMIT:
            return PlainTextResponse(f"refused: more than {LIMIT} bytes", 413)
        return None
