"""The web page: its predictions over HTTP, and in a real browser what people see."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import av
import numpy as np
import pytest
import requests
from PIL import Image

import app
from data.images import ImageError
from data.reader import Reader
from tests.conftest import ROOT
from tests.toy_page import NoFaces, comparing, free_port, serving
from training.examples import examples as made
from web.page import Page
from web.uploads import Uploads

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SHOTS = ROOT / "outputs" / "screenshots"
TIMEOUT = 60_000  # ms
NAMES = ("photograph", "blended", "swapped", "two_people")


def browser() -> str:
    """A Chromium, installed from Debian's packages if possible; skips where there is none."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        command = "apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium"
        subprocess.run(command, shell=True, capture_output=True, timeout=300, check=False)
        found = shutil.which("chromium")
    if found is None:
        pytest.skip("no Chromium here, and it could not be installed (apt-get install chromium)")
    return found


@pytest.fixture(scope="module")
def examples() -> dict[str, np.ndarray]:
    return dict(zip(NAMES, made().values(), strict=True))


@pytest.fixture(scope="module")
def served(tmp_path_factory, detector) -> Iterator[tuple[str, Path]]:
    """The address of a running page, and the folder of its files."""
    with serving(tmp_path_factory.mktemp("served"), comparing(detector)) as running:
        yield running.address, running.kept


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, examples) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("uploads")
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    for name, image in {**examples, "noise": noise}.items():
        Image.fromarray(image).save(folder / f"{name}.png")
    (folder / "text.jpg").write_text("not a picture")
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def clip(tmp_path_factory, examples) -> Path:
    """Two seconds of a photograph."""
    path, image = tmp_path_factory.mktemp("clip") / "still.mp4", examples["photograph"]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=12)
        stream.width, stream.height, stream.pix_fmt = *image.shape[1::-1], "yuv420p"
        for _ in range(24):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def uploads(kept: Path) -> list[Path]:
    """Uploaded files that are still there."""
    return [
        path for folder in kept.glob("masc-app-*") for path in folder.rglob("*") if path.is_file()
    ]


def upload(address: str, path: Path) -> str:
    """What the page calls the file from then on."""
    files = {"files": (path.name, path.read_bytes())}
    (sent,) = requests.post(f"{address}/gradio_api/upload", files=files, timeout=60).json()
    return sent


def predict_over_http(address: str, *paths: str) -> list[str]:
    """The events of one request for each path; all requests are sent first."""
    url, events = f"{address}/gradio_api/call/predict", []
    for path in paths:
        data = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}]}
        events.append(requests.post(url, json=data, timeout=60).json()["event_id"])
    return [requests.get(f"{url}/{event}", timeout=60).text for event in events]


def test_programs_get_the_same_json_and_nothing_stays(served, pictures):
    from gradio_client import Client, handle_file

    address, kept = served
    client = Client(address, verbose=False)

    def send(name):
        return client.predict(handle_file(pictures[name]), api_name="/predict")

    (face,) = send("photograph")
    assert 0 < face["p_fake"] < 1 and face["verdict"] and len(face["regions"]) == 8
    assert face["picture"] == "photograph.png" and len(send("two_people")) == 2
    messages = {"text": "text.jpg: not an image", "noise": "noise.png: no face found"}
    for name, message in messages.items():
        with pytest.raises(Exception, match=message):
            send(name)
    assert uploads(kept) == []


@pytest.mark.parametrize("name", ["predict", "judge"])
def test_no_file_of_the_page_is_named_at_any_depth(served, clip, name):
    """A client of gradio would fetch it, and be refused."""
    from gradio_client import Client, handle_file

    def keys(value):
        if isinstance(value, dict):
            yield from value
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, dict | list):
                yield from keys(item)

    address, kept = served
    faces = Client(address, verbose=False).predict(handle_file(clip), api_name=f"/{name}")
    assert faces[0]["picture"] == faces[0]["worst_frame"]["picture"] == "still.mp4"
    assert "path" not in keys(faces) and str(kept) not in json.dumps(faces)
    assert uploads(kept) == []


def test_files_of_this_machine_are_neither_read_nor_deleted(served, pictures):
    path = pictures["photograph"]  # never uploaded by this name
    (events,) = predict_over_http(served[0], str(path))
    assert "event: error" in events and "p_fake" not in events and path.is_file()


@pytest.mark.parametrize("name", ["beside.png", "other/a.png", "other/../beside.png", "link/a.png"])
def test_only_uploads_are_opened(tmp_path, monkeypatch, name):
    """Whatever gets past the gate."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    uploads = Uploads()
    (tmp_path / "elsewhere").mkdir()
    (uploads.folder / "other").mkdir()
    (uploads.folder / "link").symlink_to(tmp_path / "elsewhere")
    path = uploads.folder / name
    path.resolve().write_text("not for visitors")
    page = Page(NoFaces(), uploads, Reader())
    for wrong in (str(path), "", None, str(uploads.folder), "http://127.0.0.1/a.png"):
        with pytest.raises(ImageError, match="choose one first"):
            page.predict_upload(wrong)
    assert path.is_file()
    with pytest.raises(ImageError, match="send it again"):
        page.predict_upload(str(uploads.folder / ("0" * 32) / "gone.png"))
    uploads.close()


def test_the_same_picture_may_be_sent_twice_at_once(served, pictures):
    address, kept = served
    sent = [upload(address, pictures["photograph"]) for _ in range(2)]
    for events in predict_over_http(address, *sent):
        assert "event: complete" in events
    (again,) = predict_over_http(address, sent[0])
    assert "send it again" in again and str(kept) not in again
    assert uploads(kept) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_the_script_serves_until_it_is_stopped_and_leaves_no_uploads(
    detector, tmp_path, monkeypatch, number, code
):
    """As a service manager would, or by Ctrl-C."""

    @contextmanager
    def serve(*arguments):
        uploads = Uploads()
        try:
            os.kill(os.getpid(), number)
            yield
        finally:
            uploads.close()

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(app, "Detector", lambda *arguments: detector)
    monkeypatch.setattr(app, "serve", serve)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert app.main(app.Config(port=free_port())) == code
    except SystemExit as stopped:
        assert stopped.code == code
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not list(tmp_path.iterdir())


def test_people_see_the_prediction_in_a_browser(served, pictures, clip):
    from playwright.sync_api import expect, sync_playwright

    address, kept = served
    SHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1200, "height": 1400})
        page.set_default_timeout(TIMEOUT)
        expect.set_options(timeout=TIMEOUT)
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        verdict, card = page.locator("#verdict"), page.locator("#card img")

        def choose(place: int, *paths: Path) -> None:
            with page.expect_response(lambda reply: "/upload" in reply.url and reply.ok):
                page.locator("input[type=file]").nth(place).set_input_files(paths)
            page.wait_for_timeout(500)  # until the page knows of it

        def send(place: int, path: Path, button: str) -> None:
            choose(place, path)
            page.get_by_role("button", name=button, exact=True).click()

        send(0, pictures["photograph"], "Predict")
        expect(verdict.locator("h2")).to_have_text(re.compile(r"(nothing found|cannot tell)"))
        expect(card).to_be_visible()
        assert card.evaluate("image => image.naturalWidth") == 1200
        with page.expect_download() as saved:
            page.get_by_text("Save the JSON").click()
        real = json.loads(Path(saved.value.path()).read_text(encoding="utf-8"))
        assert real["path"] == "photograph.png" and len(real["regions"]) == 8
        page.screenshot(path=SHOTS / "real.png", full_page=True)
        send(0, pictures["blended"], "Predict")
        expect(verdict.locator("h2")).to_have_text("looks manipulated")
        page.screenshot(path=SHOTS / "blended.png", full_page=True)
        send(0, pictures["text"], "Predict")
        expect(verdict).to_contain_text("text.jpg: not an image")
        expect(card).to_have_count(0)
        send(0, pictures["two_people"], "Predict")
        expect(page.get_by_text("Several faces were found")).to_be_visible()
        first = verdict.inner_text()
        page.get_by_label("face 2").click()
        expect(verdict).not_to_have_text(first)
        page.screenshot(path=SHOTS / "two.png", full_page=True)
        choose(1, pictures["photograph"], pictures["text"])
        send(0, pictures["blended"], "Predict")
        expect(verdict.locator("h2")).to_have_text(["looks manipulated", "consistent"])
        expect(verdict).to_contain_text("text.jpg: left out: not an image")
        expect(card).to_have_count(2)
        expect(page.get_by_text("Save the comparison (PNG)")).to_be_visible()
        page.screenshot(path=SHOTS / "compared.png", full_page=True)
        again = page.get_by_label("Compare with the same photographs again (1)")
        expect(again).to_be_checked()
        send(0, pictures["photograph"], "Predict")
        expect(verdict.locator("h2").first).to_have_text(re.compile("(nothing|cannot)"))
        expect(card).to_have_count(2)
        send(2, clip, "Predict the video")
        expect(verdict).to_contain_text("Person 1, in 12 of 12 frames")
        expect(page.get_by_alt_text("Scores over time")).to_be_visible()
        expect(verdict.locator("h2")).to_have_count(2)
        page.screenshot(path=SHOTS / "video.png", full_page=True)
        page.get_by_role("button", name="a photograph").click()
        expect(verdict).to_contain_text(f"p_fake {real['p_fake']:.2f}")
        expect(page.get_by_text("Limits.")).to_be_visible()
        chromium.close()
    assert {urlsplit(url).netloc for url in asked} - {urlsplit(address).netloc, ""} == set()
    assert uploads(kept) == []
