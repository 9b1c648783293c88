"""Weights files: found, downloaded whole or not at all, checked, and read without running anything that is in them."""

import hashlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from models import weights
from models.tensors import MissingWeightsError, WeightsError, read_tensors, sha256_of
from models.weights import WEIGHTS, Weights, locate
from tests.test_tensors import HTML, TENSORS, refused

BODY = np.random.default_rng(0).bytes(300_000)  # several pieces
DIGEST = hashlib.sha256(BODY).hexdigest()
MINE = Weights(
    "mine",
    "mine.bin",
    "https://example.org/x",
    "https://example.org/page",
    "research only",
    "no",
    "faces",
)


class Handler(BaseHTTPRequestHandler):
    """The first part of the path says what is particular about a source."""

    def do_GET(self):  # noqa: N802 (its base's name)
        kind, asked = self.path.split("/")[1], self.headers.get("Range")
        self.server.asked.append((kind, asked))
        start = int(asked[6:-1]) + (kind == "elsewhere") if asked and kind != "deaf" else 0
        time.sleep(0.3 * (kind == "slow"))
        if kind in ("hub", "liar", "cut"):
            tag = f'"{"0" * 64 if kind == "liar" else DIGEST}"'
            to = "/brief/x" if kind == "cut" else "/file/x"
            self.prediction(
                302, b"", {"Location": to, "X-Linked-ETag": tag, "X-Linked-Size": len(BODY)}
            )
        elif kind in ("nothing", "page", "disguised"):
            page = {"Content-Type": "text/html; charset=utf-8"} if kind == "page" else {}
            self.prediction(
                404 if kind == "nothing" else 200, HTML if kind == "disguised" else BODY, page
            )
        elif start == 0 or start >= len(BODY):
            body = BODY[:1000] if kind == "brief" else BODY
            self.prediction(
                416 if start else 200, body, sent=len(BODY) // (2 if kind == "breaks" else 1)
            )
        else:
            headers = {"Content-Range": f"bytes {start}-299999/300000"}
            self.prediction(206, BODY[start:], headers, 0 if kind == "dies" else None)

    def prediction(self, status, body, headers=(), sent=None):
        self.send_response(status)
        for key, value in {
            "Content-Type": "binary/octet-stream",
            "Content-Length": len(body),
            **dict(headers),
        }.items():
            self.send_header(key, str(value))
        self.end_headers()
        self.wfile.write(body[:sent])

    log_message = staticmethod(lambda *_: None)


@pytest.fixture(autouse=True)
def _here(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("MASC_WEIGHTS", raising=False)
    monkeypatch.setattr(weights, "WAITS", (0, 0, 0))


@pytest.fixture
def source():
    """A source of files on this machine; `asked` lists the kind and the Range header of each request."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def at(source, kind, **other):
    return replace(MINE, url=f"http://127.0.0.1:{source.server_port}/{kind}/x", **other)


def cached(name="mine.bin", content=None):
    path = weights.cache_folder() / name
    if content is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return path


def visible():
    return {path.name for path in weights.cache_folder().glob("[!.]*")}


def test_every_row_says_whence_and_on_which_terms(monkeypatch):
    assert list(weights.WEIGHTS) == [
        "fairface",
        "arcface",
        "facenet",
        "pyfeat",
        "clip-vit-b-32",
        "clip-vit-l-14",
    ]
    for name, entry in weights.WEIGHTS.items():
        assert entry.name == name and entry.licence and entry.commercial and entry.trained_on
        assert (
            entry.url.startswith("https://")
            and entry.page.startswith("https://")
            and "/" not in entry.file
        )
    assert len({entry.file for entry in weights.WEIGHTS.values()}) == 6
    for endpoint, host in (
        ("", "https://huggingface.co"),
        ("https://mirror.example/", "https://mirror.example"),
    ):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        assert weights.huggingface("a/b", "c.bin") == f"{host}/a/b/resolve/main/c.bin"


@pytest.mark.parametrize("kind", ["hub", "file"])
def test_a_download_is_checked_named_and_noted_and_continued(source, kind):
    for part, asked in ((b"", None), (BODY[:123_456], "bytes=123456-")):
        cached("mine.bin.partial", part)
        path = locate(at(source, kind))
        assert (
            path == cached()
            and path.read_bytes() == BODY
            and visible() == {"mine.bin", "mine.bin.sha256"}
        )
        assert cached("mine.bin.sha256").read_text() == f"{DIGEST}  mine.bin\n"
        assert source.asked[-1] == ("file", asked)
        count = len(source.asked)
        assert locate(at(source, kind)) == path and len(source.asked) == count, "it was there"
        path.unlink()


def test_a_wrong_file_is_refused(source):
    begins = f"{cached()}: from "
    wrong = (
        begins,
        f"/x came something else: SHA-256 is {DIGEST}, expected {'0' * 64} ",
        "discarded; fetch it again",
    )
    refused(WeightsError, wrong, locate, at(source, "liar"))
    refused(WeightsError, wrong, locate, at(source, "file", sha256="0" * 64))
    refused(
        WeightsError,
        (begins, "300000 bytes, expected 7;", "discarded"),
        locate,
        at(source, "file", size=7),
    )
    assert visible() == set()
    cached("mine.bin.partial", bytes(1000))
    refused(
        WeightsError,
        (begins, f"expected {DIGEST}", "so was the part that an"),
        locate,
        at(source, "hub"),
    )
    assert visible() == set() and locate(at(source, "hub")).read_bytes() == BODY


def test_a_part_that_cannot_be_continued(source):
    for kind, part, ranges in (
        ("deaf", BODY[:1000], ["bytes=1000-"]),  # answers 200 with the whole file
        ("elsewhere", BODY[:1000], ["bytes=1000-", None]),  # answers 206 with another part
        ("file", BODY + b"more", ["bytes=300004-", None]),  # answers 416
        ("file", BODY, ["bytes=300000-", None]),
    ):
        source.asked.clear()
        cached().unlink(missing_ok=True)
        cached("mine.bin.partial", part)
        assert locate(at(source, kind)).read_bytes() == BODY
        assert source.asked == [(kind, asked) for asked in ranges]


def test_a_connection_that_breaks_is_resumed(source):
    assert locate(at(source, "breaks")).read_bytes() == BODY
    assert (
        source.asked[0] == ("breaks", None) and 0 < int(source.asked[1][1][6:-1]) <= len(BODY) // 2
    )
    cached().unlink()
    cached("mine.bin.partial", BODY[:1000])
    refused(
        MissingWeightsError, ("", "it broke (", "1000 bytes are kept"), locate, at(source, "dies")
    )
    assert source.asked[2:] == [("dies", "bytes=1000-")] * 4
    assert not cached().exists() and cached("mine.bin.partial").read_bytes() == BODY[:1000]
    assert locate(at(source, "cut", file="b")).read_bytes() == BODY and source.asked[-1] == (
        "brief",
        "bytes=1000-",
    )


def test_one_message_says_all_where_a_file_cannot_be_had(source):
    for entry, reason in (
        (replace(MINE, url="http://127.0.0.1:1/x"), "no connection"),  # nobody listens there
        (at(source, "nothing"), "HTTP 404 Not Found"),
        (at(source, "page"), "a web page came"),
        (at(source, "disguised"), "a web page came"),
    ):
        terms = (
            "research only",
            f"into {cached().parent} as mine.bin",
            "--weights-dir or MASC_WEIGHTS",
        )
        refused(
            MissingWeightsError,
            (f"{cached()}: ", reason, entry.url, entry.page, *terms),
            locate,
            entry,
        )
        assert visible() == set()
    assert source.asked == [(kind, None) for kind in ("nothing", "page", "disguised")], (
        "asked once only"
    )
    cached("mine.bin.partial", BODY[:1000])
    for kind in ("page", "disguised", "nothing"):
        refused(MissingWeightsError, [f"{cached()}: "], locate, at(source, kind))
        assert cached("mine.bin.partial").read_bytes() == BODY[:1000], (
            "this must not cost what came before"
        )


def test_disks_that_are_full_or_in_the_way(source):
    cached("mine.bin.partial", b"").unlink()
    cached("mine.bin.partial").symlink_to("/dev/full")
    refused(MissingWeightsError, ("", "No space left on device"), locate, at(source, "file"))
    cached().parent.rename(cached().parent.with_name("other"))
    cached().parent.write_text("a file")
    refused(MissingWeightsError, ("", "File exists"), locate, at(source, "file"))


def test_two_at_once_download_once(source):
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(locate, [at(source, "slow")] * 2)) == [cached()] * 2
    assert cached().read_bytes() == BODY and source.asked == [("slow", None)], (
        "the second waited and found it"
    )


def test_a_named_folder_is_the_only_place(tmp_path, monkeypatch):
    monkeypatch.setattr("requests.get", None)  # a TypeError for whoever asks
    cached(content=b"cached")
    mine, other, nowhere = (tmp_path / name for name in ("mine", "other", "nowhere"))
    mine.mkdir()
    other.mkdir()
    told = (
        f"{mine}/mine.bin: ",
        "nothing is downloaded",
        MINE.url,
        "research only",
        f"into {mine} as mine.bin",
    )
    refused(MissingWeightsError, told, locate, MINE, mine)
    (mine / "mine.bin").write_bytes(b"mine")
    (other / "mine.bin").write_bytes(b"other")
    assert locate(MINE) == cached()
    monkeypatch.setenv("MASC_WEIGHTS", str(other))
    assert locate(MINE) == other / "mine.bin"
    assert locate(MINE, mine) == mine / "mine.bin", "the argument comes first"
    refused(
        FileNotFoundError,
        [f"{nowhere}: named by --weights-dir, but no such"],
        locate,
        MINE,
        nowhere,
    )
    monkeypatch.setenv("MASC_WEIGHTS", str(nowhere))
    refused(FileNotFoundError, [f"{nowhere}: named by MASC_WEIGHTS, but no such"], locate, MINE)
    monkeypatch.delenv("MASC_WEIGHTS")
    refused(
        TypeError, ["'NoneType' object is not callable"], locate, replace(MINE, file="absent")
    )  # it does notice


def test_later_damage_is_noticed(tmp_path):
    path, note = tmp_path / "mine.bin", tmp_path / "mine.bin.sha256"
    path.write_bytes(BODY)
    note.write_text(f"{DIGEST} *mine.bin\n")
    assert locate(replace(MINE, size=len(BODY), sha256=DIGEST), tmp_path) == path
    path.write_bytes(BODY[:-1] + b"!")
    told = (
        f"{path}: SHA-256 is {sha256_of(path)}, expected {DIGEST} (mine.bin.sha256); delete it",
        MINE.page,
    )
    refused(WeightsError, told, locate, MINE, tmp_path)
    for text in ("", "not a hash  mine.bin"):
        note.write_text(text)
        refused(WeightsError, [f"{note}: expected a line as sha256sum"], locate, MINE, tmp_path)
    note.unlink()
    assert locate(MINE, tmp_path) == path, "nothing to compare with"
    refused(
        WeightsError, ("", f"{DIGEST} (published)"), locate, replace(MINE, sha256=DIGEST), tmp_path
    )
    refused(
        WeightsError, [f"{path}: 300000 bytes, expected 9"], locate, replace(MINE, size=9), tmp_path
    )


@pytest.fixture
def run(monkeypatch, source, capsys):
    """Runs a command line over a table of two, of which one cannot be had: exit code, stdout, stderr."""
    rows = [at(source, kind, name=kind, file=f"{kind}.pt") for kind in ("nothing", "hub")]
    monkeypatch.setattr(weights, "WEIGHTS", {entry.name: entry for entry in rows})
    return lambda *arguments: (
        weights.main([str(argument) for argument in arguments]),
        *capsys.readouterr(),
    )


def test_list_and_fetch(run, tmp_path):
    code, out, err = run("fetch")
    assert (
        code == 1
        and out == f"hub            {cached('hub.pt')}\n"
        and cached("hub.pt").read_bytes() == BODY
    )
    assert "HTTP 404" in err and err.endswith("1 missing or wrong: nothing\n"), (
        "goes on where one fails"
    )
    assert run("fetch", "hub")[0] == 0
    code, out, _ = run("list")
    assert code == 0 and f"hub            there: {cached('hub.pt')}\n" in out
    assert f"nothing        missing: {cached('nothing.pt')}\n" in out
    assert out.count("research only") == out.count(MINE.page) == out.count("commercial  no") == 2
    assert f"missing: {tmp_path / 'hub.pt'}\n" in run("list", "hub", "--weights-dir", tmp_path)[1]


def test_verify_reads_what_is_there(run, tmp_path, monkeypatch):
    monkeypatch.setattr("requests.get", None)
    monkeypatch.setattr(
        weights, "expert_class", lambda name: read_tensors if name == "hub" else None
    )
    path = tmp_path / "hub.pt"
    torch.save(TENSORS, path)
    code, out, _ = run("verify", "hub", "--weights-dir", tmp_path)
    assert code == 0 and sha256_of(path) in out
    code, _, err = run("verify", "--weights-dir", tmp_path)
    assert code == 1 and err.endswith("1 missing or wrong: nothing\n")
    path.write_bytes(BODY)
    for note, told in ((DIGEST, "damaged"), ("0" * 64, f"expected {'0' * 64}")):
        (tmp_path / "hub.pt.sha256").write_text(f"{note}  hub.pt\n")
        code, _, err = run("verify", "hub", "--weights-dir", tmp_path)
        assert code == 1 and told in err
    assert run("verify", "hub")[0] == 1, "nothing is downloaded"


def test_the_readme_names_every_file_and_what_may_be_done_with_it():
    lines = (
        (Path(weights.__file__).parents[1] / "README.md").read_text(encoding="utf-8").splitlines()
    )
    for name, entry in WEIGHTS.items():
        if name not in weights.UNUSUAL:
            row = next(line for line in lines if line.startswith("|") and entry.file in line)
            assert entry.commercial.split()[0].rstrip(",") in row.split("|")[-2], name


def test_usage(run, capsys):
    for arguments, code, told in (
        (["--help"], 0, "python -m models.weights fetch clip-vit-l-14"),
        (["list", "nobody"], 2, "unknown name nobody; the names are nothing, hub"),
        (
            ["list", "--weights-dir", "/nowhere"],
            2,
            "/nowhere: named by --weights-dir, but no such folder",
        ),
    ):
        with pytest.raises(SystemExit) as stopped:
            run(*arguments)
        assert stopped.value.code == code and told in "".join(capsys.readouterr())
