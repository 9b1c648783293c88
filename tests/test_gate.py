"""What strangers try at the page: other doors of Gradio, addresses, floods, and leaving files."""

from __future__ import annotations

import json
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
import requests

import app
from tests.toy_page import NoFaces, Served, png, serving
from web import gate, page, uploads


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served"), NoFaces()) as running:
        yield running


@pytest.fixture(autouse=True)
def quiet(capfd) -> Iterator[None]:
    """Strangers write no traceback into the log."""
    yield
    assert "Traceback" not in "".join(capfd.readouterr())


ASKED: list[list] = []  # what `asked` collects: an audit hook cannot be removed


@sys.addaudithook
def _connections(event: str, arguments: tuple) -> None:
    if ASKED and event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.connect"):
        address = arguments[1] if event == "socket.connect" else arguments
        ASKED[-1].append(address[0] if isinstance(address, tuple) else address)


def test_no_other_machine_is_asked(tmp_path):
    """Neither when the page starts (versions, use, fonts) nor when it answers."""
    ASKED.append(asked := [])
    try:
        with serving(tmp_path, NoFaces()) as running:
            sent = running.send(png()).json()[0]
            assert "no face found" in running.predict({"path": sent})
            for thread in threading.enumerate():  # what Gradio tells goes out in threads
                if type(thread) is threading.Thread and thread.daemon:
                    thread.join(0.2)
    finally:
        ASKED.remove(asked)
    assert set(asked) == {"127.0.0.1"}


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/monitoring",
            "/monitoring/summary",
            "/docs",
            "/openapi.json",
            "/gradio_api/openapi.json",
        ),
        *(
            "/gradio_api/deep_link?session_hash=a",
            "/gradio_api/queue/status",
            "/dev/reload",
            "/login",
        ),
        *("/gradio_api/dev/reload", "/gradio_api/vibe-code", "/gradio_api/runs", "/gradio_api/mcp"),
        *("/gradio_api/stream/a/b/c/playlist.m3u8", "/gradio_api/queue/data?session_hash=nobody"),
        *("/gradio_api/queue/data", "/gradio_api/call/predict/unknown", "/gradio_api/call/x/y"),
        *(
            "/gradio_api/file=/etc/passwd",
            "/gradio_api/file=http://127.0.0.1/",
            "/gradio_api/file/a",
        ),
        *("/gradio_api/file=../app.py", f"/gradio_api/file={'0' * 32}/..", "/gradio_api/token"),
        *("/gradio_api/proxy=http://127.0.0.1/", "/custom_component/a", "/nothing", "//"),
    ],
)
def test_doors_that_the_page_does_not_need_are_closed(served, path):
    assert requests.get(served.address + path, timeout=60).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        *("/assets/../../../../etc/passwd", "/static/..%2f..%2f..%2fetc%2fpasswd", "/assets/%00"),
        *(f"/gradio_api/file={'0' * 32}/{name}" for name in ("%00", "a" * 300, "%ed%a0%80", "..")),
        *("/static/%2e%2e/%2e%2e/routes.py", "/gradio_api/file=%2fetc%2fpasswd", "/svelte/../x"),
    ],
)
def test_paths_as_no_browser_sends_them(served, path):
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        assert connection.recv(4096).split()[1] in (b"404", b"403", b"400")


def test_it_speaks_no_other_protocol(served):
    wanted = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    wanted += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        connection.sendall(f"GET /config HTTP/1.1\r\nHost: evil.org\r\n{wanted}".encode())
        assert connection.recv(4096).split()[1] in (b"400", b"403")


def test_errors_of_the_page_itself_tell_no_place(served, monkeypatch, capfd):
    def fail(*arguments):
        raise RuntimeError(f"cannot read {served.kept}/weights")

    monkeypatch.setattr(NoFaces, "predict_images", fail)
    events = served.predict({"path": served.send(png()).json()[0]})
    assert "event: error" in events and str(served.kept) not in events
    assert "weights" in capfd.readouterr().err  # in the log


@pytest.mark.parametrize(
    "path",
    [
        *("run/predict", "api/predict", "call/nothing", "call/v2/predict", "component_server"),
        *("cancel", "vibe-edit", "process_recording", "stream/a", "login", "queue/join/"),
    ],
)
def test_nothing_goes_past_the_queue(served, path):
    body = {"data": [None], "fn_index": 0, "session_hash": "a"}
    assert requests.post(f"{served.api}/{path}", json=body, timeout=60).status_code == 404
    assert requests.put(f"{served.api}/upload", timeout=60).status_code == 404


@pytest.mark.parametrize("key", ["path", "url", "data", "both", "nested", "list", "text"])
@pytest.mark.parametrize("route", ["call/predict", "queue/join", "run/predict", "call/v2/predict"])
def test_the_page_fetches_nothing(served, key, route, monkeypatch):
    from gradio import processing_utils

    tried = []  # gradio itself fetches from public addresses only
    monkeypatch.setattr(processing_utils, "async_ssrf_protected_download", tried.append)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        other.setblocking(False)
        url = f"http://127.0.0.1:{other.getsockname()[1]}/a.png"
        meta = {"meta": {"_type": "gradio.FileData"}}
        file = served.send(png()).json()[0]
        item = {
            "path": {"path": url, **meta},
            "url": {"path": file, "url": url, **meta},
            "data": {"path": "data:image/png;base64,AA==", "url": "data:image/png,a", **meta},
            "both": {"path": url, "url": url, "is_stream": True, **meta},
            "nested": {"path": file, "orig_name": {"path": url, **meta}, **meta},
            "list": [{"path": url, **meta}],
            "text": url,
        }[key]
        answer = served.predict(item, route)
        for name in ("proxy", "file"):
            requests.get(f"{served.api}/{name}={url}", timeout=60)
        requests.post(f"{served.api}/upload?url={url}", data={"url": url}, timeout=60)
        with pytest.raises(BlockingIOError):
            other.accept()
    assert not tried and "p_fake" not in answer and str(served.kept) not in answer


def test_no_place_on_this_machine_is_told(served):
    address = served.send(b"no picture", "text.png").json()[0]
    events = served.predict({"path": address})
    assert "text.png: not an image" in events
    events += served.predict({"path": address}) + served.predict({"path": "/etc/passwd"})
    assert "send it again" in events and "only uploaded files are taken" in events
    pages = [requests.get(served.address + path, timeout=60).text for path in ("/", "/config")]
    pages.append(requests.get(f"{served.api}/info", timeout=60).text)
    for text in (address, events, *pages):
        assert str(served.kept) not in text and str(Path(app.__file__).parent) not in text


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:1", 200), ("LOCALHOST", 200), ("[::1]:80", 200), ("rebound.example.org", 400)]
    + [("127.0.0.1.example.org", 400), ("10.0.0.1", 400), ("", 400), ("[::1", 400), ("a@b:c", 400)],
)
def test_only_its_own_names_are_answered(served, host, status):
    answer = requests.get(served.address + "/config", headers={"Host": host}, timeout=60)
    assert answer.status_code == status


def test_other_pages_may_not_use_it(served):
    assert served.send(png(), headers={"Origin": served.address}).ok
    for origin in ("http://evil.example.org", "null", "http://[", ""):
        assert served.send(png(), headers={"Origin": origin}).status_code == 403


DEEP = '{"data": ' + "[" * 30_000
BAD = [
    *(b"", b"{", b"[]", b"null", b"\xff", DEEP.encode(), (DEEP + "]" * 30_000 + "}").encode()),
    *(b'{"data": []}', b'{"data": [null, null, null]}', b'{"data": [5]}', b'{"data": ["a.png"]}'),
    *(b'{"data": [{"path": 5}]}', b'{"data": [{"path": ["a"]}]}', b'{"data": {"path": "a"}}'),
    *(b'{"data": [null], "fn_index": %b}' % n for n in (b"9999", b"[]", b'"a"', b"-1", b"{}")),
    b'{"data": [null], "fn_index": 0, "session_hash": "%b"}' % (b"a" * 65),
    b'{"data": [null], "fn_index": 0, "session_hash": {}}',
]


@pytest.mark.parametrize("body", BAD)
def test_requests_of_the_wrong_form(served, body):
    json_ = {"Content-Type": "application/json"}
    for path in ("queue/join", "call/predict"):
        answer = requests.post(f"{served.api}/{path}", body, headers=json_, timeout=60)
        if path == "queue/join" or b"fn_index" not in body:
            assert answer.status_code == 400, answer.text


def test_large_requests_are_not_kept(served):
    before, text = served.left(), json.dumps({"data": ["a" * 15_000_000]})
    json_ = {"Content-Type": "application/json"}
    for path in ("queue/join", "call/predict"):
        answer = requests.post(f"{served.api}/{path}", text, headers=json_, timeout=60)
        assert answer.status_code == 413
    assert served.send(bytes(gate.MAX_BYTES + 1)).status_code == 413
    assert served.send(bytes(gate.MAX_BYTES + 2 * gate.MAX_JSON)).text == "more than 21 MB"
    several = [("files", (f"{n}.png", png())) for n in range(9)]
    answer = requests.post(f"{served.api}/upload", files=several, timeout=60)
    assert answer.status_code == 400 and "Too many files" in answer.text
    fields = {str(number): "a" for number in range(50)}
    answer = requests.post(f"{served.api}/upload", fields, files=several[:1], timeout=60)
    assert answer.status_code == 400
    for options in ({}, {"data": {"files": "a"}}, {"json": {}}, {"files": {"other": b"a"}}):
        assert requests.post(f"{served.api}/upload", timeout=60, **options).status_code == 400
    assert served.left() == before


def test_what_is_broken_off_leaves_nothing(served):
    before = served.left()
    head = (
        f"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 9000000\r\n\r\n"
        '--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    )
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", served.port)) as connection:
            connection.sendall(head.encode() + bytes(3_000_000))
    assert served.send(png()).ok and len(served.left()) == len(before) + 1


@pytest.mark.parametrize("name", ["a.html", "a.svg"])
def test_a_browser_runs_no_upload(served, name):
    sent = served.send(b"<script>alert(1)</script>", name).json()[0]
    answer = requests.get(f"{served.api}/file={sent}", timeout=60)
    assert answer.ok and answer.headers["Content-Disposition"].startswith("attachment")


def test_slow_requests_end(served, monkeypatch):
    monkeypatch.setattr(gate, "BODY_SECONDS", 0.1)
    for path in ("upload", "queue/join"):
        with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
            head = f"POST /gradio_api/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
            form = "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
            connection.sendall((head + form).encode())
            assert b" 408 " in connection.recv(4096)


def test_many_uploads_wait_for_others(served, monkeypatch):
    monkeypatch.setattr(gate, "MOST", 0)
    assert served.send(png()).status_code == 503


def test_a_full_disk_is_told(served, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device", "/a/place")

    monkeypatch.setattr(uploads.shutil, "copyfileobj", full)
    answer = served.send(png())
    assert answer.status_code == 507 and "No space" in answer.text and "/a/" not in answer.text
    monkeypatch.undo()


@pytest.mark.parametrize("visitor", ["203.0.113.5", "2001:db8::1"])
def test_one_visitor_may_not_ask_all_the_time(served, visitor):
    """The address is told by a proxy on this machine."""
    headers = {"X-Forwarded-For": visitor}
    codes = [
        requests.post(f"{served.api}/upload", headers=headers, timeout=60).status_code
        for _ in range(app.Config.per_minute + 1)
    ]
    assert set(codes[:-1]) == {400} and codes[-1] in (400, 429)  # a minute may end in between
    assert codes[-1] == 429 or codes.count(400) > 60
    assert served.send(png()).ok  # this machine itself


def test_a_session_waits_for_its_own_predictions(served, monkeypatch):
    queue = served.blocks._queue
    monkeypatch.setitem(queue.pending_event_ids_session, "stranger", set("abcde"))
    assert "wait for them" in served.predict(None, "queue/join")


def test_answers_of_others_cannot_be_brought_along(served):
    """Nor numbers of faces that there are not."""
    wanted, functions = [None, page.SEVERAL], served.blocks.fns.items()
    number = next(n for n, each in functions if [x.label for x in each.inputs] == wanted)
    for state, face in ((None, None), ({"verdicts": [{}]}, "face 1"), ([1], "face -1")):
        asked = {"data": [state, face], "fn_index": number, "session_hash": "b"}
        assert requests.post(f"{served.api}/queue/join", json=asked, timeout=60).ok
        events = requests.get(f"{served.api}/queue/data?session_hash=b", timeout=60).text
        assert "not kept any more" in events


def test_many_visitors_at_once(served):
    """Each is answered, or asked to come back; asking again ends well."""

    def visit(number: int) -> str:
        while not (sent := served.send(png())).ok:
            assert sent.status_code == 503 and "come back" in sent.text
            time.sleep(0.05)
        while "Queue is full" in (answer := served.predict({"path": sent.json()[0]})):
            time.sleep(0.05)
        return answer

    for path in served.left():  # of other tests
        shutil.rmtree(path.parent)
    before = len(served.blocks.state_holder.session_data)
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(visit, range(50)))
    assert all("no face found" in answer for answer in answers) and served.left() == []
    assert len(served.blocks.state_holder.session_data) <= max(before, page.SESSIONS)


def test_answers_are_forgotten(served, monkeypatch):
    blocks = served.blocks
    queue, sessions = blocks._queue, blocks.state_holder
    answer = requests.post(f"{served.api}/call/predict", json={"data": [None]}, timeout=60)
    event = answer.json()["event_id"]  # and never fetched
    while event in queue.event_ids_to_events:
        time.sleep(0.01)
    page.forget(blocks, set())
    assert event in sessions.session_data and event in queue.pending_messages_per_session
    monkeypatch.setitem(sessions.time_last_used, event, datetime(2020, 1, 1))
    page.forget(blocks, {event})
    assert event in sessions.session_data
    page.forget(blocks, set())
    kept = sessions.session_data, sessions.time_last_used, queue.pending_messages_per_session
    assert not any(event in each for each in (*kept, queue.pending_event_ids_session))
    assert sessions.capacity == page.SESSIONS
    assert queue.pending_messages_per_session.max_size == app.UNFETCHED
