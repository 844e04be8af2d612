"""The door of MLflow's server as `symile-clin ui` starts it: every request is looked at before MLflow sees it.

A page on the web can make a browser ask a server on the same machine. MLflow's own checks leave gaps that matter where
runs may be derived from patients: reading requests of other origins are answered, /health and the front page to any
name, and some of its services run jobs or ask other machines. Here a request passes only if it names this server as its
host, comes from this server's own pages or from no page, and stays below the paths that show and describe runs.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]

#: As `mlflow server --app-name` knows this app (pyproject.toml's entry point of the group mlflow.app).
APP_NAME: Final = "symile-clin"
#: Where MLflow's command line leaves its --allowed-hosts for the server's process.
ALLOWED_HOSTS_VARIABLE: Final = "MLFLOW_SERVER_ALLOWED_HOSTS"
#: Services that run programs or jobs, ask other machines, or keep secrets for that.
SWITCHED_OFF: Final = re.compile(
    r"(/(ajax-)?api/[0-9.]+)?(/mlflow)?/(assistant|demo|gateway|genai|issues|jobs|mcp-servers|"
    r"runs/create-promptlab-run|scorers?|webhooks)(/.*)?"
)
#: What makes files elsewhere readable: these name a place, which the server would then read from.
PLACES: Final = re.compile(r".*/mlflow/(experiments|model-versions)/create/*")
#: Parameters of a query that are paths inside a run's artifacts.
PATH_PARAMETERS: Final = frozenset({"path", "artifact_path", "filename"})
#: What a plain HTML form can send to any server without asking it first.
FORM_TYPES: Final = frozenset({"", "application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})
_MOST_DECODINGS: Final = 6


class Guard:
    """An ASGI app before another.

    Args:
        app: what answers the requests that may pass.
        names: hosts by which this server may be asked for, at any port, so that an SSH tunnel works.
    """

    def __init__(self, app: App, names: frozenset[str]) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403 or 400 by ourselves, or pass it on."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] == "http":
            found = refusal(
                scope["method"], scope["raw_path"], scope["query_string"], scope["headers"], names=self._names
            )
            if found is not None:
                headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"x-content-type-options", b"nosniff")]
                await send({"type": "http.response.start", "status": found[0], "headers": headers})
                await send({"type": "http.response.body", "body": f"{found[1]}\n".encode()})
                return
        await self._app(scope, receive, send)


def create_app() -> App:
    """MLflow's server behind the guard; it ends when whoever started it does, however that came about."""
    from mlflow.server.fastapi_app import app

    threading.Thread(target=_end_with_stdin, daemon=True).start()
    allowed = os.environ.get(ALLOWED_HOSTS_VARIABLE, "").split(",")
    return Guard(app, frozenset(host for host in allowed if host and "*" not in host))


def _end_with_stdin() -> None:
    """`ui` holds the other end of the pipe that is our standard input: it closes with that process, killed or not."""
    while sys.stdin.buffer.read(1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def refusal(
    method: str, raw_path: bytes, query: bytes, headers: Headers, *, names: frozenset[str]
) -> tuple[int, str] | None:
    """Why a request is not passed on: its status, and a sentence; None if it may pass.

    Args:
        raw_path: as it stands in the request line, before any decoding.
        names: hosts by which the server may be asked for.
    """
    fields = _fields(headers)
    hosts, origins = fields.get("host", []), fields.get("origin", [])
    if len(hosts) != 1 or _name(hosts[0]) not in names:
        return 403, "This server is not asked for by that host name."
    if not raw_path.startswith(b"/"):  # a proxy's form, whose host is another than the header's
        return 400, "The request line holds no path."
    if len(origins) > 1 or (origins and origins[0] != f"http://{hosts[0]}"):
        return 403, "Requests of other origins are not answered."
    sites = fields.get("sec-fetch-site", [])
    if any(site not in ("same-origin", "none") for site in sites) and not _opens_the_page(method, raw_path, fields):
        return 403, "Requests of other sites are not answered."
    if method == "POST" and not origins and _media_type(fields) in FORM_TYPES:
        return 403, "A form of another page may have sent this: say where it comes from, or send JSON."
    return _of_path(_decoded(raw_path), query)


def _of_path(path: str | None, query: bytes) -> tuple[int, str] | None:
    parameters = parse_qsl(query.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    paths = [_decoded(value.encode("latin-1")) for key, value in parameters if key in PATH_PARAMETERS]
    if path is None or _leaves(path) or any(one is None or one.startswith("/") or _leaves(one) for one in paths):
        return 400, "The path leaves its folder."
    if SWITCHED_OFF.fullmatch(path):
        return 403, "This service is switched off here."
    if PLACES.fullmatch(path):
        return 403, "This server reads no other places than its own store."
    return None


def _fields(headers: Headers) -> Mapping[str, list[str]]:
    """Values by name, lower case: hosts and origins are compared so."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip().lower())
    return found


def _name(host: str) -> str | None:
    """The name in `name:port`."""
    found = re.fullmatch(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(:[0-9]{1,5})?", host)
    return found[1] if found else None


def _opens_the_page(method: str, raw_path: bytes, fields: Mapping[str, list[str]]) -> bool:
    """A link to the front page that somebody clicks elsewhere: nobody but that person sees the answer."""
    told = [fields.get(name) for name in ("sec-fetch-mode", "sec-fetch-dest")]
    return method == "GET" and raw_path == b"/" and told == [["navigate"], ["document"]]


def _media_type(fields: Mapping[str, list[str]]) -> str:
    return fields.get("content-type", [""])[0].partition(";")[0].strip()


def _decoded(raw: bytes) -> str | None:
    """A path with every layer of percent encoding taken off; None if there is no end to them."""
    text = raw.decode("latin-1")
    for _ in range(_MOST_DECODINGS):
        plain = unquote(text, encoding="latin-1")
        if plain == text:
            return text
        text = plain
    return None


def _leaves(path: str) -> bool:
    """Whether it steps up, or holds what only some systems take for a step, a separator or an end."""
    odd = "\\" in path or "//" in path or any(ord(letter) < 32 for letter in path)
    return odd or any(segment.startswith("..") for segment in path.split("/"))
