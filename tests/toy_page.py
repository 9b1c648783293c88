"""A running page for tests, as strangers meet it."""

from __future__ import annotations

import io
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

import app
from data.images import ImageError
from data.reader import Reader
from features.reference import CONSISTENT, PATTERNS
from features.regions import REGIONS
from inference.person import Person, Photograph
from inference.reference import Likeness, Reference
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


class Alike:
    """Compares as if every face fitted. In a black photograph there is none."""

    crops = ()

    def person(self, photographs: Sequence[Path], name: str, reader: Reader) -> Person:
        found = []
        for path in photographs:
            try:
                black = not reader.image(path).any()
            except ImageError as error:
                found.append(Photograph(str(path), left_out=error.reason))
                continue
            views = np.full((5, 128, 128, 3), 99, np.uint8)  # of all faces in it
            left_out = "no face found" if black else ""
            found.append(Photograph(str(path), left_out, view=None if black else views[0]))
        if all(each.left_out for each in found):
            told = "; ".join(f"{each.name}: {each.left_out}" for each in found)
            raise ImageError(photographs[0], f"no photograph of {name} can be used ({told})")
        return Person(name, tuple(found), {})

    def compare(self, crops: Sequence, person: Person) -> list[Reference]:
        return [reference(person) for _ in range(len(crops))]

    def over(self, frames: Sequence[Reference]) -> Reference:
        return frames[0]


def reference(person: Person, pattern: str = CONSISTENT, p_conflict: float = 0.12) -> Reference:
    regions = [Likeness(name, 0.6, 0.7, 0.02, 0.4, 0.8, -0.1, 0.2) for name in REGIONS]
    views = np.full((8, 128, 128, 3), 150, np.uint8)  # of all faces of a picture
    known = dict(zip(PATTERNS, (1 - p_conflict, p_conflict, 0.0, 0.0), strict=True))
    return Reference(person, p_conflict, pattern, known, regions, 0.8, 0.05, [], views[0])


def comparing(detector: Any) -> Any:
    other = copy(detector)
    other.comparer = Alike()
    return other


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

    def predict(self, item: object, route: str = "call/predict", *others: object) -> str:
        """What comes of the inputs, by the way of programs or by that of the page."""
        asked = {"data": [item, *others]}
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
