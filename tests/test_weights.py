"""Weight files: located, downloaded whole or not at all, and checked. No test leaves this machine."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gdown
import numpy as np
import pytest
import torch
from gdown.exceptions import FileURLRetrievalError

import command_line
from models import download, weights
from models.tensors import MissingWeightsError, WeightsError, read_tensors, sha256_of
from models.weights import WEIGHTS, Weights, locate
from tests.test_tensors import HTML, TENSORS, refused

BODY = np.random.default_rng(0).bytes(300_000)
DIGEST = hashlib.sha256(BODY).hexdigest()
MINE = Weights(
    "mine",
    "mine.bin",
    "http://127.0.0.1:1/x",
    "https://example.org",
    "research only",
    "no",
    "faces",
)


class Handler(BaseHTTPRequestHandler):
    """The first part of the path names the behaviour. Below resolve/main it answers as the hub does."""

    def do_HEAD(self):  # noqa: N802 (its base's name)
        digest = "0" * 64 if "liar" in self.path else DIGEST
        self.start(404 if "absent" in self.path else 200, len(BODY), digest)

    def do_GET(self):  # noqa: N802
        kind, asked = self.path.split("/")[1], self.headers.get("Range")
        self.server.requests.append((kind, asked))
        first = int(asked[6:].split("-")[0]) if asked else 0
        body = HTML if kind == "page" else BODY[first:]
        if kind == "endless":
            self.send_response(200)
            self.end_headers()
            with suppress(ConnectionError):
                while True:
                    self.wfile.write(BODY)
            return
        if kind == "drip":
            self.start(200, len(BODY), DIGEST)
            with suppress(ConnectionError):
                while not threading.Event().wait(0.01):
                    self.wfile.write(b"x")
            return
        self.start(404 if kind == "absent" else 206 if asked else 200, len(body), DIGEST)
        breaks = kind == "breaks" and not asked
        self.wfile.write(body[: 100_000 if breaks else None])

    def start(self, status, length, digest):
        self.send_response(status)
        for key, value in {
            "Content-Length": length,
            "ETag": f'"{digest}"',
            "X-Repo-Commit": "a" * 40,
        }.items():
            self.send_header(key, str(value))
        self.end_headers()

    log_message = staticmethod(lambda *_: None)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("MASC_WEIGHTS", raising=False)
    monkeypatch.setattr("time.sleep", lambda _: None)  # between retries


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def source(server):
    """The address of a local server; `requests` lists behaviour and Range of each GET."""
    server.requests = []
    return server


def hub(source, kind, **other):
    url = f"http://127.0.0.1:{source.server_port}/{kind}/repo/resolve/main/model.bin"
    return replace(MINE, url=url, **other)


def direct(source, kind, **other):
    return replace(MINE, url=f"http://127.0.0.1:{source.server_port}/{kind}/x", **other)


def cached(name="mine.bin", content=None):
    path = weights.cache_folder() / name
    if content is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return path


def visible():
    return {path.name for path in weights.cache_folder().glob("[!.]*")}


def test_every_row_states_source_and_terms(monkeypatch):
    assert len({entry.file for entry in WEIGHTS.values()}) == len(WEIGHTS)
    for name, entry in WEIGHTS.items():
        assert entry.name == name and entry.licence and entry.commercial and entry.trained_on
        assert entry.url.startswith("https://") and entry.page.startswith("https://")
        assert "/" not in entry.file
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/hub/")
    url = weights.huggingface("a/b", "c/d.bin")
    assert url == "https://mirror.example/hub/a/b/resolve/main/c/d.bin"
    found = weights.HUB_URL.fullmatch(url)
    assert found.groups() == ("https://mirror.example/hub", "a/b", "c/d.bin")


@pytest.mark.parametrize("where", [hub, direct])
def test_a_download_is_checked_renamed_and_noted(source, where):
    path = locate(where(source, "good"))
    assert path == cached() and path.read_bytes() == BODY
    assert visible() == {"mine.bin", "mine.bin.sha256"}
    assert cached("mine.bin.sha256").read_text() == f"{DIGEST}  mine.bin\n"
    assert locate(where(source, "good")) == path and len(source.requests) == 1


@pytest.mark.parametrize("where", [hub, direct])
def test_a_download_goes_on_where_the_connection_breaks(source, where):
    assert locate(where(source, "breaks")).read_bytes() == BODY
    assert [asked for _, asked in source.requests] == [None, "bytes=100000-"]


def test_a_killed_download_goes_on_where_its_sha256_is_known(source):
    folder = cached("mine.bin.incomplete")
    for entry, begun, asked in (
        (hub(source, "good"), DIGEST, "bytes=70000-"),
        (direct(source, "good", sha256=DIGEST), DIGEST, "bytes=70000-"),
        (direct(source, "good"), "mine.bin", None),
    ):
        source.requests.clear()
        folder.mkdir(parents=True)
        (folder / begun).write_bytes(BODY[:70_000])
        assert locate(entry).read_bytes() == BODY and visible() == {"mine.bin", "mine.bin.sha256"}
        assert [x for _, x in source.requests] == [asked]
        cached().unlink()
    folder.mkdir()
    (folder / DIGEST).write_bytes(b"damaged" * 100)
    refused(WeightsError, ("", "fetch it again"), locate, hub(source, "good"))
    assert not folder.exists() and locate(hub(source, "good")).read_bytes() == BODY


def test_a_source_may_send_only_so_much_for_so_long(source, monkeypatch):
    """More than was announced, than the table says, or than any file has; or without an end."""
    for entry in (direct(source, "good", size=299_999), direct(source, "endless", size=400_000)):
        told = (f"{cached()}: ", f"the source sends more than {entry.size} bytes")
        refused(MissingWeightsError, told, locate, entry)
    monkeypatch.setattr(download, "LARGEST", 500_000)
    told = ("", "the source sends more than 500000 bytes")
    refused(MissingWeightsError, told, locate, direct(source, "endless"))
    monkeypatch.setattr(download, "HOURS", 0)
    refused(MissingWeightsError, ("", "not done after 0 hours"), locate, hub(source, "good"))
    monkeypatch.setattr(download, "HOURS", 0.3 / 3600)
    refused(MissingWeightsError, ("", "not done after 8.3"), locate, direct(source, "drip"))
    assert visible() <= {"mine.bin.incomplete"} and not cached().exists()


@pytest.mark.parametrize("target", ["http://x.org/a", "HTTP://x.org/a", "ftp://x.org/a"])
def test_an_encrypted_address_leads_to_no_other(target):
    request = download.Request("https://huggingface.co/a")
    redirect = download._StaysEncrypted().redirect_request
    with pytest.raises(OSError, match="leads to .*, which is not encrypted"):
        redirect(request, None, 302, "Found", {}, target)
    assert redirect(request, None, 302, "Found", {}, "https://cdn.org/a").full_url


def test_drive_is_left_to_gdown(monkeypatch):
    entry, calls = replace(WEIGHTS["fairface"], file="mine.bin"), []

    def fetch(url, output, **options):
        calls.append((url, options))
        if len(calls) == 1:
            raise FileURLRetrievalError("too many users have viewed this file")
        Path(output).write_bytes(BODY)

    monkeypatch.setattr(gdown, "download", fetch)
    refused(MissingWeightsError, (f"{cached()}: ", "too many users", entry.page), locate, entry)
    assert locate(entry).read_bytes() == BODY
    for url, options in calls:
        assert url == entry.url and options["resume"] and options["timeout"] == download.STALLED
        options["progress"](1000, 2000)
        with pytest.raises(OSError, match="more than"):
            options["progress"](1000, download.LARGEST + 1)


def test_a_wrong_file_is_refused_and_discarded(source):
    wrong = (f"{cached()}: ", f"SHA-256 is {DIGEST}, expected {'0' * 64} ", "fetch it again")
    refused(WeightsError, wrong, locate, hub(source, "liar"))
    refused(WeightsError, wrong, locate, direct(source, "good", sha256="0" * 64))
    too_short = direct(source, "good", size=300_001)
    refused(WeightsError, ("", "300000 bytes, expected 300001;"), locate, too_short)
    assert visible() == set() and locate(hub(source, "good")).read_bytes() == BODY


def test_the_hash_in_an_address_is_compared(source):
    url = direct(source, "good").url
    assert locate(replace(MINE, url=f"{url}-{DIGEST[:8]}.pth")) == cached()
    other = replace(MINE, url=f"{url}-{'0' * 8}.pth", file="other.bin")
    refused(MissingWeightsError, ("", "invalid hash value"), locate, other)


@pytest.mark.parametrize("where", [hub, direct])
def test_one_message_tells_all_where_a_file_cannot_be_had(source, where):
    unreachable = replace(
        where(source, "x"), url=where(source, "x").url.replace("127.0.0.1", "[::1]")
    )
    for entry in (unreachable, where(source, "absent"), direct(source, "page")):
        told = (
            f"{cached()}: ",
            entry.url,
            entry.page,
            "research only",
            f"into {cached().parent} as mine.bin",
            "--weights-dir or MASC_WEIGHTS",
        )
        refused(MissingWeightsError, told, locate, entry)
        assert not cached().exists()


def test_a_cache_that_cannot_be_written(source):
    cached().parent.parent.mkdir(parents=True)
    cached().parent.write_text("a file")
    refused(MissingWeightsError, ("", "File exists"), locate, direct(source, "good"))


def test_two_at_once_download_once(source):
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(locate, [direct(source, "good")] * 2)) == [cached()] * 2
    assert cached().read_bytes() == BODY and len(source.requests) == 1


def test_a_named_folder_is_the_only_place(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_receive", lambda *_: pytest.fail("downloaded"))
    cached(content=b"cached")
    mine, other, nowhere = (tmp_path / name for name in ("mine", "other", "nowhere"))
    mine.mkdir()
    other.mkdir()
    told = (f"{mine}/mine.bin: ", MINE.url, "research only", f"into {mine} as mine.bin")
    refused(MissingWeightsError, told, locate, MINE, mine)
    (mine / "mine.bin").write_bytes(b"mine")
    (other / "mine.bin").write_bytes(b"other")
    assert locate(MINE) == cached()
    monkeypatch.setenv("MASC_WEIGHTS", str(other))
    assert locate(MINE) == other / "mine.bin"
    assert locate(MINE, mine) == mine / "mine.bin", "the argument comes first"
    refused(FileNotFoundError, [f"{nowhere}: named by --weights-dir"], locate, MINE, nowhere)
    monkeypatch.setenv("MASC_WEIGHTS", str(nowhere))
    refused(FileNotFoundError, [f"{nowhere}: named by MASC_WEIGHTS"], locate, MINE)


def test_later_damage_is_noticed(tmp_path):
    path, note = tmp_path / "mine.bin", tmp_path / "mine.bin.sha256"
    path.write_bytes(BODY)
    note.write_text(f"{DIGEST} *mine.bin\n")
    assert locate(replace(MINE, size=len(BODY), sha256=DIGEST), tmp_path) == path
    path.write_bytes(BODY[:-1] + b"!")
    told = f"{path}: SHA-256 is {sha256_of(path)}, expected {DIGEST} (mine.bin.sha256); delete it"
    refused(WeightsError, (told, MINE.page), locate, MINE, tmp_path)
    for text in ("", "not a hash  mine.bin"):
        note.write_text(text)
        refused(WeightsError, [f"{note}: expected a line as sha256sum"], locate, MINE, tmp_path)
    note.unlink()
    assert locate(MINE, tmp_path) == path, "nothing to compare with"
    published = replace(MINE, sha256=DIGEST)
    refused(WeightsError, ("", f"{DIGEST} (published)"), locate, published, tmp_path)
    refused(WeightsError, [f"{path}: 300000 bytes, "], locate, replace(MINE, size=9), tmp_path)


@pytest.fixture
def run(monkeypatch, source, capsys):
    """Runs a command line over a table of two files, one of them absent: exit code, stdout, stderr."""
    rows = [direct(source, kind, name=kind, file=f"{kind}.pt") for kind in ("absent", "good")]
    monkeypatch.setattr(weights, "WEIGHTS", {entry.name: entry for entry in rows})
    return lambda *arguments: (
        command_line.run(weights.main, weights.Config, weights.__doc__, list(map(str, arguments))),
        *capsys.readouterr(),
    )


def test_list_and_fetch(run, tmp_path):
    code, out, err = run("fetch")
    assert code == 1 and out == f"good           {cached('good.pt')}\n"
    assert cached("good.pt").read_bytes() == BODY, "goes on where one fails"
    assert "HTTP Error 404" in err and err.endswith("1 missing or wrong: absent\n")
    assert run("fetch", "good")[0] == 0
    code, out, _ = run("list")
    assert code == 0 and f"good           present: {cached('good.pt')}\n" in out
    assert f"absent         missing: {cached('absent.pt')}\n" in out
    assert out.count("research only") == out.count(MINE.page) == out.count("commercial  no") == 2
    assert f"missing: {tmp_path / 'good.pt'}\n" in run("list", "good", "--weights-dir", tmp_path)[1]


def test_verify_reads_what_is_there(run, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_receive", lambda *_: pytest.fail("downloaded"))
    monkeypatch.setattr(weights, "expert_class", lambda name: read_tensors)
    path = tmp_path / "good.pt"
    torch.save(TENSORS, path)
    code, out, _ = run("verify", "good", "--weights-dir", tmp_path)
    assert code == 0 and sha256_of(path) in out
    code, _, err = run("verify", "--weights-dir", tmp_path)
    assert code == 1 and err.endswith("1 missing or wrong: absent\n")
    path.write_bytes(BODY)
    for digest, told in ((DIGEST, "damaged"), ("0" * 64, f"expected {'0' * 64}")):
        (tmp_path / "good.pt.sha256").write_text(f"{digest}  good.pt\n")
        code, _, err = run("verify", "good", "--weights-dir", tmp_path)
        assert code == 1 and told in err


def test_bad_usage(run, capsys):
    assert "the names are absent, good" in run("list", "nobody")[2]
    assert run("list", "nobody")[0] == run("list", "--weights-dir", "/nowhere")[0] == 2
    with pytest.raises(SystemExit):
        run("forget")


def test_the_documentation_states_every_file_and_its_terms():
    readme = Path(weights.__file__).parents[1] / "docs/full_profile.md"
    lines = readme.read_text(encoding="utf-8").splitlines()
    for name, entry in WEIGHTS.items():
        if name not in weights.UNUSUAL:
            row = next(line for line in lines if line.startswith("|") and entry.file in line)
            assert entry.commercial.split()[0].rstrip(",") in row.split("|")[-2], name
