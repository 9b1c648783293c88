"""What the page lets in. Gradio has many doors that a page like this does not need.

In front of all of Gradio: only the routes below, for the right hosts, with small bodies that name
nothing but uploaded files. Uploads are taken here, not by Gradio.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
import time
from collections import Counter
from collections.abc import Awaitable, Collection
from typing import Any, TypeVar
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from web.uploads import MAX_BYTES, MOST, PHOTOGRAPHS, Form, Uploads

MAX_UPLOAD = 2 * MAX_BYTES  # all files of an upload together
MAX_JSON = 65_536  # bytes of any other request
DRAINED = 3 * MAX_BYTES  # bytes of a request that is too large: read, so that its sender hears why
BODY_SECONDS = 120  # for the body of a request to arrive
OPEN = 400  # requests at a time, of which each visitor may have `OPEN_EACH`
OPEN_EACH = 40
PENDING = 5  # predictions of a session at a time
NAMES = ("predict", "judge")  # of the API; judge is its former name
API = "/gradio_api"
FILE = f"{API}/file="
READ = re.compile(
    r"/|/config|/(assets|static|svelte)/.+|/(favicon\.ico|robots\.txt|manifest\.json|theme\.css)"
    rf"|{API}/(info|startup-events|theme\.css|queue/data|heartbeat/[\w-]{{1,64}})"
    rf"|{API}/call/({'|'.join(NAMES)})/\w{{1,64}}"
)
CALLS = {f"{API}/call/{name}": name for name in NAMES}
JOIN, UPLOAD, RESET = f"{API}/queue/join", f"{API}/upload", f"{API}/reset"
PROGRESS = f"{API}/upload_progress"
LOCAL = ("localhost", "127.0.0.1", "::1")
ANY = ("0.0.0.0", "::")
TOO_LARGE = "more than {:.2g} MB"
BUSY = "too many visitors; come back in a minute"
T = TypeVar("T")


class RefusedError(Exception):
    """status: of HTTP; the reason is for the visitor."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Hosts:
    """The names by which this page may be called.

    A web site of a stranger can let its name point to this machine, and would be let in by a
    browser here. An address (1.2.3.4) cannot be forged in this way.
    """

    def __init__(self, host: str, others: Collection[str] = ()) -> None:
        self.names = {*LOCAL, *(name.lower() for name in (host.strip("[]"), *others))}
        self.addresses = host in ANY

    def __contains__(self, host: str) -> bool:
        """host: with or without a port."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
            return name in self.names or (self.addresses and bool(ipaddress.ip_address(name)))
        except ValueError:
            return False


class Visitors:
    """Counts what each address asks for, this machine's own (or its proxy's) excepted."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute, self.minute = per_minute, 0
        self.asked: Counter[str] = Counter()
        self.open: Counter[str] = Counter()

    def ask(self, visitor: str) -> None:
        """Raises: RefusedError: too often within a minute."""
        if self.minute != (minute := int(time.monotonic() // 60)):
            self.minute = minute
            self.asked.clear()
        self.asked[visitor] += 1
        if visitor and self.asked[visitor] > self.per_minute:
            raise RefusedError(
                429, f"more than {self.per_minute} requests within a minute; wait one"
            )

    def enter(self, visitor: str) -> None:
        """Raises: RefusedError: too many at once. Call `leave` in any case."""
        self.open[visitor] += 1
        if self.open.total() > OPEN or (visitor and self.open[visitor] > OPEN_EACH):
            raise RefusedError(503, "too many requests at once; come back later")

    def leave(self, visitor: str) -> None:
        self.open[visitor] -= 1
        if not self.open[visitor]:
            del self.open[visitor]


def visitor_of(scope: Scope) -> str:
    """An address; of IPv6 its network, which is one household; of this machine nothing."""
    try:
        address = ipaddress.ip_address((scope.get("client") or ("",))[0])
    except ValueError:  # of a proxy that hides them
        return "unknown"
    if address.is_loopback:
        return ""
    network = ipaddress.ip_network((address, 64 if address.version == 6 else 32), strict=False)
    return str(network)


class Gate:
    """ASGI middleware. blocks: the gradio.Blocks behind it; hosts: it answers to these only."""

    def __init__(
        self, app: ASGIApp, blocks: Any, uploads: Uploads, hosts: Hosts, per_minute: int
    ) -> None:
        self.app, self.blocks, self.uploads, self.hosts = app, blocks, uploads, hosts
        self.visitors, self.arriving = Visitors(per_minute), 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            visitor = visitor_of(scope)
            try:
                self.visitors.enter(visitor)
                await self._answer(scope, receive, send, visitor)
            except RefusedError as error:
                answer = PlainTextResponse(str(error), error.status)
                if scope["path"] == JOIN:  # the page shows what it finds under this name
                    answer = JSONResponse({"detail": str(error)}, error.status)
                await answer(scope, receive, send)
            except ClientDisconnect:
                pass  # nobody is there to be told
            finally:
                self.visitors.leave(visitor)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, visitor: str) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        if headers.get("host", "") not in self.hosts:
            raise RefusedError(400, "this page does not answer to that name; see --allow-host")
        if "origin" in headers and headers["origin"].partition("://")[2] not in self.hosts:
            raise RefusedError(403, "a page from elsewhere may not use this one")
        if scope["method"] == "POST" and path in (*CALLS, JOIN, UPLOAD):
            self.visitors.ask(visitor)
            if path == UPLOAD:
                await (await self._upload(scope, receive, visitor))(scope, receive, send)
            else:
                body = await in_time(Request(scope, bounded(receive, MAX_JSON)).body())
                await self.app(*with_body(scope, receive, self._asked(path, body)), send)
        elif scope["method"] == "POST" and path == RESET:  # by gradio's client, of no effect
            await JSONResponse({"success": True})(scope, receive, send)
        elif path == PROGRESS:  # of uploads, which gradio does not see
            done = PlainTextResponse('data: {"msg": "done"}\n\n', media_type="text/event-stream")
            await done(scope, receive, send)
        elif scope["method"] in ("GET", "HEAD"):
            await self.app(self._read(scope), receive, send)
        else:
            raise RefusedError(404, "there is nothing here")

    def _read(self, scope: Scope) -> Scope:
        """Raises: RefusedError: not a route of this page."""
        path, query, queue = scope["path"], b"", self.blocks._queue
        if path.startswith(FILE):
            file = self.uploads.find(path.removeprefix(FILE))
            if file is None or not file.is_file():
                raise RefusedError(404, "there is no such file")
            path = f"{FILE}{file}"
        elif not READ.fullmatch(path):
            raise RefusedError(404, "there is nothing here")
        elif path.endswith("/queue/data"):
            query = scope["query_string"]
            if Request(scope).query_params.get("session_hash") not in (
                queue.pending_messages_per_session
            ):
                raise RefusedError(404, "there is no such session")
        elif path.startswith(tuple(CALLS)):
            known = queue.event_ids_to_events, *queue.pending_event_ids_session.values()
            if not any(path.rpartition("/")[2] in events for events in known):
                raise RefusedError(404, "there is no such prediction")
        return scope | {"path": path, "raw_path": path.encode(), "query_string": query}

    def _asked(self, path: str, body: bytes) -> bytes:
        """What is asked of gradio, in its words: a known function, and uploads."""
        try:
            asked = json.loads(body)
            functions, wanted = self.blocks.fns, asked.get("fn_index")
            if path in CALLS:
                named = ((n, function.api_name) for n, function in functions.items())
                wanted = next(number for number, name in named if name == CALLS[path])
            session, trigger = asked.get("session_hash"), asked.get("trigger_id")
            inputs, data = functions[wanted].inputs, asked["data"]
            if functions[wanted].api_name in NAMES and isinstance(data, list) and len(data) == 1:
                data = [*data, None]  # no photographs
            items = [self._item(kind, item) for kind, item in zip(inputs, data, strict=True)]
            if path in CALLS:
                return json.dumps({"data": items}).encode()
            if not re.fullmatch(r"[\w-]{1,64}", session) or not isinstance(trigger, int | None):
                raise ValueError
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise RefusedError(400, "not a request of this page; see docs/app.md") from None
        if len(self.blocks._queue.pending_event_ids_session.get(session, ())) >= PENDING:
            raise RefusedError(429, "your other predictions come first; wait for them")
        names = {"session_hash": session, "fn_index": wanted, "trigger_id": trigger}
        return json.dumps({"data": items, **names}).encode()

    def _item(self, component: Any, item: Any) -> Any:
        """One input. Raises: ValueError."""
        kind = component.get_block_name()
        if item is None or kind == "state":  # it stays here
            return None
        if getattr(component, "file_count", "single") == "multiple":
            return self._photographs(item)
        if kind in ("image", "file"):
            file = self.uploads.find(item["path"])
            return file and {"path": str(file), "meta": {"_type": "gradio.FileData"}}
        if not isinstance(item, bool if kind == "checkbox" else str):
            raise ValueError
        return item

    def _photographs(self, items: Any) -> list[dict] | None:
        """Raises: ValueError: one is no upload; RefusedError: too many."""
        if not isinstance(items, list):
            raise ValueError
        if len(items) > PHOTOGRAPHS:
            raise RefusedError(400, f"at most {PHOTOGRAPHS} photographs; take some out")
        files = [self.uploads.find(item["path"]) for item in items]
        if None in files:
            raise ValueError
        meta = {"_type": "gradio.FileData"}
        return [{"path": str(file), "meta": meta} for file in files] or None

    async def _upload(self, scope: Scope, receive: Receive, visitor: str) -> JSONResponse:
        """A file, or some photographs. None has a name on the disk before all are whole."""
        headers = Headers(scope=scope)
        if not headers.get("content-type", "").startswith("multipart/form-data"):
            raise RefusedError(
                400, "send a form with one file, as -F files=@photo.jpg of curl does"
            )
        length, most, share = headers.get("content-length", ""), MAX_BYTES + MAX_JSON, 1
        if length.isdecimal() and int(length) > most:
            most, share = MAX_UPLOAD + MAX_JSON, 2  # share: as of so many files
        busy = len(queue := self.blocks._queue) >= queue.max_size
        if busy or not self.uploads.room or self.arriving + share > MOST:
            raise RefusedError(503, BUSY)
        self.arriving += share
        try:
            form = await in_time(
                Form(headers, Request(scope, bounded(receive, most)).stream()).parse()
            )
        except MultiPartException as error:  # no form, or too many files
            raise RefusedError(400, error.message) from None
        finally:
            self.arriving -= share
        try:
            return JSONResponse(await self._kept(form.getlist("files"), visitor))
        finally:
            await form.close()

    async def _kept(self, files: list[Any], visitor: str) -> list[str]:
        """Addresses of the files of a form. Raises: RefusedError: then none is kept."""
        if not files or not all(isinstance(file, UploadFile) for file in files):
            raise RefusedError(400, "there is no file in the field `files`")
        if any(file.size > MAX_BYTES for file in files):
            raise RefusedError(413, TOO_LARGE.format(MAX_BYTES / 1e6))
        for _ in files[1:]:
            self.visitors.ask(visitor)
        if len(files) > self.uploads.room:
            raise RefusedError(503, BUSY)
        kept: list[str] = []
        try:
            for file in files:
                kept.append(await run_in_threadpool(self.uploads.add, file.filename, file.file))
        except OSError as error:
            for address in kept:
                self.uploads.delete(self.uploads.find(address))
            raise RefusedError(507, f"the file cannot be kept here: {error.strerror}") from None
        return kept


def bounded(receive: Receive, most: int) -> Receive:
    """Raises: RefusedError: when more than `most` bytes came. They are not kept."""
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size <= most:
            return message
        while message.get("more_body") and size < DRAINED:
            message = await receive()
            size += len(message.get("body", b""))
        raise RefusedError(413, TOO_LARGE.format(most / 1e6))

    return counted


async def in_time(work: Awaitable[T]) -> T:
    """Raises: RefusedError: the body of a request is too slow."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await work
    except TimeoutError:
        raise RefusedError(408, "the request took too long to arrive") from None


def with_body(scope: Scope, receive: Receive, body: bytes) -> tuple[Scope, Receive]:
    """The request with another body."""
    lengths = (b"content-length", b"transfer-encoding")
    headers = [(name, value) for name, value in scope["headers"] if name not in lengths]
    headers.append((b"content-length", str(len(body)).encode()))
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return scope | {"headers": headers, "query_string": b""}, again
