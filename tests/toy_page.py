"""A running page for tests, as strangers meet it."""

from __future__ import annotations

import io
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

import app
from inference.verdict import Verdict

ENVIRONMENT = ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "GRADIO_ANALYTICS_MAX_EVENTS")


class NoFaces:
    """A detector that finds none."""

    cutter = SimpleNamespace(find=None)
    record = SimpleNamespace(lines=["Nothing is known of it."])

    def for_all_faces(self):
        return self

    def look_again(self, faces, path, reader):
        return faces

    def predict_images(self, images, paths):
        return [Verdict(path, error="no face found") for path in paths]


@dataclass
class Served:
    """kept: the folder that its files are in."""

    port: int
    kept: Path
    blocks: Any

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def api(self) -> str:
        return f"{self.address}/gradio_api"

    def send(self, content: bytes, name: str = "a.png", **options) -> requests.Response:
        files = {"files": (name, content)}
        return requests.post(f"{self.api}/upload", files=files, timeout=60, **options)

    def predict(self, item: object, route: str = "call/predict") -> str:
        """What comes of one input, by the way of programs or by that of the page."""
        asked = {"data": [item]}
        if route == "queue/join":
            functions = self.blocks.fns.items()
            number = next(number for number, each in functions if each.api_name == "predict")
            asked |= {"fn_index": number, "session_hash": "stranger"}
        answer = requests.post(f"{self.api}/{route}", json=asked, timeout=60)
        if not answer.ok:
            return answer.text
        where = f"call/predict/{answer.json()['event_id']}"
        where = "queue/data?session_hash=stranger" if route == "queue/join" else where
        return requests.get(f"{self.api}/{where}", timeout=60).text

    def left(self) -> list[Path]:
        """Uploaded files that are still there."""
        return [path for path in self.kept.rglob("*") if path.is_file()]


@contextmanager
def serving(kept: Path, detector: Any, host: str = "127.0.0.1") -> Iterator[Served]:
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(kept))
        patch.setenv("no_proxy", "*")
        for name in ENVIRONMENT:
            patch.setenv(name, "")  # restored afterwards
        with app.serve(detector, host, port) as blocks:
            yield Served(port, kept, blocks)
    assert not list(kept.iterdir())


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()
