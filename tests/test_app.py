"""The web page: its answers over HTTP, and in a real browser what people see."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import requests
from PIL import Image

from app import Page
from data.images import ImageError
from tests.conftest import ROOT
from training.examples import NAMES, examples

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SHOTS = ROOT / "outputs" / "screenshots"
ANSWERS = 60_000  # ms


def browser() -> str:
    """A Chromium, installed from Debian's packages where this may be done. Skips where there is none."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        command = "apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium"
        subprocess.run(command, shell=True, capture_output=True, timeout=300, check=False)
        found = shutil.which("chromium")
    if found is None:
        pytest.skip("no Chromium here, and it could not be installed (apt-get install chromium)")
    return found


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """The address of a running page, and the folder that it keeps its files in."""
    kept = tmp_path_factory.mktemp("served")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "TMPDIR": str(kept), "no_proxy": "127.0.0.1"}
    with (kept / "log").open("w") as log:
        running = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(240):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert running.poll() is None, (kept / "log").read_text()
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}", kept
    finally:
        running.terminate()
        running.wait(20)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("uploads")
    for title, image in examples().items():
        Image.fromarray(image).save(folder / f"{NAMES[title]}.png")
    (folder / "text.jpg").write_text("not a picture")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)).save(
        folder / "noise.png"
    )
    return {path.stem: path for path in folder.iterdir()}


def left(kept: Path) -> list[Path]:
    """Files of uploads that are still there."""
    return [
        path for folder in kept.glob("masc-app-*") for path in folder.rglob("*") if path.is_file()
    ]


def test_programs_get_the_same_json_and_nothing_stays(served, pictures):
    from gradio_client import Client, handle_file

    address, kept = served
    client = Client(address, verbose=False)
    (face,) = client.predict(handle_file(pictures["photograph"]), api_name="/judge")
    assert 0 < face["p_fake"] < 1 and face["verdict"] and len(face["regions"]) == 8
    assert len(client.predict(handle_file(pictures["two_people"]), api_name="/judge")) == 2
    for name, message in (
        ("text", "text.jpg: not an image"),
        ("noise", "noise.png: no face found"),
    ):
        with pytest.raises(Exception, match=message):
            client.predict(handle_file(pictures[name]), api_name="/judge")
    assert left(kept) == []


def test_files_of_this_machine_are_neither_read_nor_deleted(served, pictures):
    address, _ = served
    path = pictures["photograph"]  # it was never uploaded by this name
    data = {"data": [{"path": str(path), "meta": {"_type": "gradio.FileData"}}]}
    event = requests.post(f"{address}/gradio_api/call/judge", json=data, timeout=60).json()[
        "event_id"
    ]
    told = requests.get(f"{address}/gradio_api/call/judge/{event}", timeout=60).text
    assert "event: error" in told and "p_fake" not in told and path.is_file()


@pytest.mark.parametrize(
    "name", ["beside.png", "uploads-of-others/a.png", "uploads/../beside.png", "uploads/link/a.png"]
)
def test_only_uploads_are_opened(tmp_path, monkeypatch, name):
    """Whatever gradio lets through."""
    for folder in ("uploads", "uploads-of-others"):
        (tmp_path / folder).mkdir()
    (tmp_path / "uploads/link").symlink_to(tmp_path / "uploads-of-others")
    (tmp_path / name).write_text("not for visitors")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    for wrong in (str(tmp_path / name), "", None):
        with pytest.raises(ImageError, match="choose one first"):
            Page(None).of_file(wrong)
    assert (tmp_path / name).is_file()


def test_a_picture_sent_twice_at_once_is_asked_for_again(served, pictures):
    """Gradio keeps equal files once; what the first answer has deleted is not there for the second."""
    address, kept = served
    for _ in range(2):
        with pictures["photograph"].open("rb") as file:
            (path,) = requests.post(
                f"{address}/gradio_api/upload", files={"files": file}, timeout=60
            ).json()
    data = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}]}
    events = [
        requests.post(f"{address}/gradio_api/call/judge", json=data, timeout=60).json()
        for _ in range(2)
    ]
    told = [
        requests.get(f"{address}/gradio_api/call/judge/{e['event_id']}", timeout=60).text
        for e in events
    ]
    assert "event: complete" in told[0] and "send it again" in told[1] and str(kept) not in told[1]
    assert left(kept) == []


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Two seconds of a photograph."""
    path = tmp_path_factory.mktemp("clip") / "still.mp4"
    image = next(iter(examples().values()))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=12)
        stream.width, stream.height, stream.pix_fmt = *image.shape[1::-1], "yuv420p"
        for _ in range(24):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_people_see_the_answer_in_a_browser(served, pictures, clip):
    from playwright.sync_api import expect, sync_playwright

    address, kept = served
    SHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1200, "height": 1400})
        page.goto(address)
        told, card = page.locator("#told"), page.locator("#card img")

        def send(place: int, path: Path) -> None:
            with page.expect_response(
                lambda response: "/upload" in response.url and response.ok, timeout=ANSWERS
            ):
                page.locator("input[type=file]").nth(place).set_input_files(path)
            page.wait_for_timeout(500)  # the page takes notice

        def judge(name: str) -> None:
            send(0, pictures[name])
            page.get_by_role("button", name="Judge", exact=True).click()

        judge("photograph")
        expect(told).to_contain_text(re.compile(r"(REAL|CANNOT TELL)"), timeout=ANSWERS)
        expect(card).to_be_visible()
        assert card.evaluate("image => image.naturalWidth") == 1200
        with page.expect_download() as saved:
            page.get_by_text("Save the JSON").click()
        real = json.loads(Path(saved.value.path()).read_text(encoding="utf-8"))
        assert real["path"] == "photograph.png" and len(real["regions"]) == 8
        page.screenshot(path=SHOTS / "real.png", full_page=True)
        judge("blended")
        expect(told).to_contain_text("FAKE", timeout=ANSWERS)
        page.screenshot(path=SHOTS / "blended.png", full_page=True)
        judge("text")
        expect(told).to_contain_text("text.jpg: not an image", timeout=ANSWERS)
        expect(card).to_have_count(0)
        judge("two_people")
        expect(page.get_by_text("Several faces were found")).to_be_visible(timeout=ANSWERS)
        first = told.inner_text()
        page.get_by_label("face 2").click()
        expect(told).not_to_have_text(first, timeout=ANSWERS)
        page.screenshot(path=SHOTS / "two.png", full_page=True)
        send(1, clip)
        page.get_by_role("button", name="Judge the video").click()
        expect(told).to_contain_text("Person 1, in 12 of 12 frames", timeout=ANSWERS)
        expect(page.get_by_alt_text("Scores over time")).to_be_visible()
        page.screenshot(path=SHOTS / "video.png", full_page=True)
        page.get_by_role("button", name="a photograph").click()
        expect(told).to_contain_text(f"p_fake {real['p_fake']:.2f}", timeout=ANSWERS)
        expect(page.get_by_text("What it cannot do")).to_be_visible()
        chromium.close()
    assert left(kept) == []
