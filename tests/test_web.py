"""The page itself: uploads leave nothing behind, and little is drawn, looked at and kept."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import requests

import app
from command_line import run
from data.reader import Reader
from tests.toy_page import NoFaces, free_port, serving
from web import gate, page
from web.answer import Answer
from web.gate import Hosts, RefusedError, Visitors, visitor_of
from web.uploads import Uploads, safe


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_old_uploads_go_unless_they_wait(folder):
    kept = Uploads()
    places = [kept.find(kept.add(f"{number}.png", io.BytesIO(b"a"))) for number in range(3)]
    for place in places[:2]:
        os.utime(place.parent, (0, 0))
    kept.sweep([places[0]])
    assert [place.is_file() for place in places] == [True, False, True]
    kept.close()
    assert not list(folder.iterdir())


def test_the_page_sweeps_now_and_then(folder, monkeypatch):
    kept = Uploads()
    *waiting, old = (kept.find(kept.add("a.png", io.BytesIO(b"a"))) for _ in range(4))
    for place in (*waiting, old):
        os.utime(place.parent, (0, 0))
    picture, *photographs = ({"path": str(place)} for place in waiting)
    inputs = SimpleNamespace(data=[picture, photographs, None, False])
    event = SimpleNamespace(session_hash="a", data=inputs)
    queue = SimpleNamespace(
        event_ids_to_events={"a": event},
        pending_messages_per_session={},
        pending_event_ids_session={},
    )
    blocks = SimpleNamespace(_queue=queue, state_holder=SimpleNamespace(time_last_used={}))
    sweep, rounds = kept.sweep, iter([OSError("at first")])

    def at_first_not(waiting):
        for error in rounds:
            raise error
        sweep(waiting)

    monkeypatch.setattr(kept, "sweep", at_first_not)

    async def serve() -> None:
        async with page.tidying(blocks, kept, seconds=0.01)(None):
            while old.exists():
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(serve(), 30))
    assert all(place.is_file() for place in waiting)
    kept.close()


def test_what_a_killed_page_left_is_deleted_by_the_next(folder):
    script = "import sys, io, time; from web.uploads import Uploads; u = Uploads();"
    script += "u.add('a.png', io.BytesIO(b'a')); print(u.folder, flush=True); time.sleep(60)"
    options = {"cwd": Path(app.__file__).parent, "env": os.environ | {"TMPDIR": str(folder)}}
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options) as other:
        theirs = Path(other.stdout.readline().strip())
        Uploads().close()
        assert len(list(theirs.rglob("*.png"))) == 1  # it runs
        other.send_signal(signal.SIGKILL)
    (folder / "masc-app-file").write_text("no folder")
    Uploads().close()
    assert [path.name for path in folder.iterdir()] == ["masc-app-file"]


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        *(("../../etc/passwd", "passwd"), ("..", "picture"), ("", "picture"), (".png", "png")),
        *(("a\\b.png", "b.png"), ("a\nb.mp4", "a_nb.mp4"), ("a\0.png", "a_x00.png")),
        *(("\ud800.jpg", "_ud800.jpg"), ("顔" * 200 + ".jpg", "顔" * 46 + ".jpg"), ("a.", "a.")),
        *(("a" * 300, "a" * 140), ("a." + "b" * 99, "a." + "b" * 19), ("...a..b", "a..b")),
    ],
)
def test_names_on_the_disk(folder, name, stored):
    assert safe(name) == safe(stored) == stored
    kept = Uploads()
    address = kept.add(name, io.BytesIO(b"a"))
    assert (place := kept.find(address)).read_bytes() == b"a" and kept.holds(str(place))
    for wrong in ("a\0.png", "..", "a" * 300, "\ud800", "a\nb"):
        assert kept.find(f"{place.parent.name}/{wrong}") is None
    kept.close()


def test_visitors():
    visitors = Visitors(2)
    for visitor in ("", "a"):
        visitors.ask(visitor), visitors.ask(visitor)
    visitors.ask(""), visitors.ask("b")
    with pytest.raises(RefusedError, match="wait"):
        visitors.ask("a")
    for _ in range(gate.OPEN_EACH):
        visitors.enter("a")
    with pytest.raises(RefusedError, match="at once"):
        visitors.enter("a")
    for _ in range(gate.OPEN_EACH + 1):
        visitors.leave("a")
    visitors.enter("a")
    assert dict(visitors.open) == {"a": 1}
    clients = ("127.0.0.1", "::1", "2001:db8::5", "2001:db8::6", "203.0.113.5", "a socket")
    names = [visitor_of({"client": (client, 1)}) for client in clients]
    network = "2001:db8::/64"
    assert names == ["", "", network, network, "203.0.113.5/32", "unknown"]


def test_names_by_which_others_call_the_page():
    assert "masc.example.org" in Hosts("127.0.0.1", ["MASC.example.org"])
    everywhere = Hosts("0.0.0.0")
    assert "192.168.1.5:7860" in everywhere and "[fe80::1]:80" in everywhere
    assert "example.org" not in everywhere and "1.2.3.4.example.org" not in everywhere


def test_only_the_first_faces_are_looked_at(detector, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "FACES", 1)
    made = page.Page(detector, None, Reader())
    (row,) = made.predict_picture(page.examples()["two people"], "a.png").rows()
    assert row["notes"] == ["1 more faces of the picture were not scored"]
    assert "at most 8" in page.SEVERAL and "8 most" in page.LIMITS


def test_cards_are_drawn_only_when_they_are_shown(detector, monkeypatch):
    drawn, images = [], [page.examples()["two people"]]
    monkeypatch.setattr("web.answer.draw_card", lambda *arguments: drawn.append(arguments))
    monkeypatch.setattr("web.answer._png", lambda figure: "data:,")
    answer = Answer.of(detector.for_all_faces().predict_images(images, ["a.png"]), images * 2)
    assert len(answer.rows()) == 2 and not drawn
    answer.card(1)
    ((verdict, image),) = drawn
    scale = image.shape[1] / images[0].shape[1]
    assert max(image.shape) == 640
    np.testing.assert_allclose(verdict.box, np.array(answer.verdicts[1].box) * scale)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--port", "99999"], "--port 99999: give a number from 1 to 65535"),
        (["--port", "0"], "--port 0: give"),
        (["--host", "no.such.host.invalid"], "--host no.such.host.invalid: no such host"),
        (["--host", "a..b"], "--host a..b: no such host"),
        (["--host", "203.0.113.5"], "--host 203.0.113.5 --port 7860: "),
        (["--per-minute", "0"], "--per-minute must be"),
    ],
)
def test_mistakes_in_the_command(options, reason, capfd):
    assert run(app.main, app.Config, None, options, "app.py") == 2
    assert (lines := capfd.readouterr().err.splitlines()) and len(lines) == 1
    assert reason in lines[0]


@pytest.mark.parametrize("host", ["0.0.0.0", "localhost", "::1", "[::1]"])
def test_hosts(tmp_path, monkeypatch, host):
    if ":" in host and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    monkeypatch.setattr(page, "examples", dict)
    with serving(tmp_path, NoFaces(), host) as served:
        address = "[::1]" if ":" in host else "127.0.0.1"
        asked = {"url": f"http://{address}:{served.port}/config", "timeout": 60}
        for name, right in ((address, True), ("10.1.2.3", host == "0.0.0.0"), ("a.org", False)):
            assert requests.get(headers={"Host": name}, **asked).ok is right


def test_a_port_that_is_taken(capfd):
    with socket.socket() as other:
        other.bind(("127.0.0.1", port := free_port()))
        other.listen()
        assert run(app.main, app.Config, None, ["--port", str(port)], "app.py") == 2
    assert f"--port {port}: Address already in use" in capfd.readouterr().err
