"""Photographs of the person beside a picture: the page takes a few, tells of each, and keeps none."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import requests
from PIL import Image

from data.reader import Reader
from features.reference import CONSISTENT, OTHER_FACE
from inference.card import BLUE, ORANGE
from inference.person import Person, Photograph
from tests.toy_page import NoFaces, Served, comparing, png, reference, serving
from training.examples import examples
from web import gate, page, uploads
from web.answer import Answer, compared_as_html

FILE = {"_type": "gradio.FileData"}
GOOD = Photograph("good.png", view=np.full((128, 128, 3), 99, np.uint8))
BAD = Photograph("<b>\x1b.png", left_out="no <i> found")
PERSON = Person("<Ann>", (GOOD, BAD), {})


@pytest.fixture(scope="module")
def served(tmp_path_factory, detector) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served"), comparing(detector)) as running:
        yield running


@pytest.fixture(scope="module")
def picture() -> bytes:
    """With a face."""
    file = io.BytesIO()
    Image.fromarray(next(iter(examples().values()))).save(file, "PNG")
    return file.getvalue()


def send(served: Served, *files: tuple[str, bytes], **options) -> requests.Response:
    """All in one request, as a browser does."""
    form = [("files", file) for file in files]
    return requests.post(f"{served.api}/upload", files=form, timeout=60, **options)


def items(addresses: list[str]) -> list[dict]:
    return [{"path": address, "meta": FILE} for address in addresses]


def rows(events: str) -> list[dict]:
    assert "event: complete" in events, events
    return json.loads(events.split("event: complete\ndata: ")[1])[0]


def test_the_second_part_of_an_answer():
    conflict = compared_as_html(reference(PERSON, OTHER_FACE, 0.93))
    assert f'<h2 style="color:{ORANGE};margin:1em 0 0">{OTHER_FACE}</h2>' in conflict
    assert "p_conflict 0.93; 5% of genuine pictures reach 0.80" in conflict
    assert (
        "<li>Hair, ears, jaw and neck fit &lt;Ann&gt; better than the inner face does.</li>"
        in conflict
    )
    assert "<p>&lt;b&gt;\\x1b.png: left out: no &lt;i&gt; found.</p>" in conflict
    for wrong in ("<b>", "<i>", "<Ann>", "\x1b", "good.png: "):
        assert wrong not in conflict
    assert f"color:{BLUE};" in compared_as_html(reference(PERSON))
    unknown = compared_as_html(reference(PERSON, p_conflict=float("nan")))
    assert "Against one genuine photograph of &lt;Ann&gt;." in unknown and "nan" not in unknown


def test_the_second_card_and_what_is_kept(detector):
    images = [page.examples()["two people"]]
    found = detector.for_all_faces().predict_images(images, ["a.png"])
    plain = Answer.of(found, images * 2)
    compared = [replace(verdict, reference=reference(PERSON)) for verdict in found]
    answer = Answer.of(compared, images * 2)
    assert answer.first == plain.first == 0
    assert "consistent</h2>" in answer.text(1) and "consistent" not in plain.text(1)
    first, second = plain.card(0), answer.card(0)
    assert (first.count("<img"), second.count("<img")) == (1, 2)
    assert "Save the comparison (PNG)" in second and "Save the comparison" not in first
    assert second.index("of this face") < second.index("The comparison with the photographs")
    assert answer.rows()[0]["reference"]["pattern"] == CONSISTENT
    compared[1].reference.regions[0] = replace(compared[1].reference.regions[0], similarity=0.7)
    assert Answer.of(compared, images * 2).first == 1
    for verdict in answer.verdicts:
        view = verdict.reference.view
        assert view.base is None and view.shape == (128, 128, 3)


def test_one_person_of_a_video_is_compared(detector):
    images = [page.examples()["two people"]]
    found = detector.for_all_faces().predict_images(images, ["a.png"])
    found[1].reference = reference(PERSON)
    answer = Answer.of(found, images * 2)
    assert answer.first == 1 and "consistent" in answer.text(1)
    assert "Face 2 is most like the photographs" in answer.text(0)
    assert "Face 2 is" not in answer.text(1) and answer.card(0).count("<img") == 1


def test_programs_send_a_picture_and_photographs(served, picture):
    names = ("ann.png", "black.png", "text.jpg", "<b>.png")
    contents = (picture, png(), b"no picture", picture)
    sent = send(served, *zip(names, contents, strict=True)).json()
    assert [address.split("/")[1] for address in sent] == list(names) and len(served.left()) == 4
    first, alone = (served.send(picture, "a.png").json()[0] for _ in range(2))
    events = served.predict(*items([first]), "call/predict", items(sent))
    (face,) = rows(events)
    assert face["picture"] == "a.png" and face["reference"]["photographs"] == ["ann.png", "<b>.png"]
    reasons = face["reference"]["photographs_left_out"]
    assert reasons[0] == "black.png: left out: no face found"
    assert reasons[1].startswith("text.jpg: left out: not an image")
    assert str(served.kept) not in events and len(served.left()) == 1
    for more in ((), (None,), ([],)):  # as before there were photographs
        (face,) = rows(served.predict(*items([alone]), "call/predict", *more))
        assert "reference" not in face and face["picture"] == "a.png"
        alone = served.send(picture, "a.png").json()[0]
    (face,) = rows(served.predict(*items([alone]), "call/judge"))
    assert served.left() == []


def test_the_client_of_gradio_needs_no_photographs(served, tmp_path, picture):
    from gradio_client import Client, handle_file

    (tmp_path / "a.png").write_bytes(picture)
    client, file = Client(served.address, verbose=False), handle_file(tmp_path / "a.png")
    (plain,) = client.predict(file, api_name="/predict")
    (face,) = client.predict(file, photographs=[file, file], api_name="/predict")
    assert "reference" not in plain and face["reference"]["photographs"] == ["a.png", "a.png"]
    assert served.left() == []


def test_photographs_none_of_which_can_be_used(served, picture):
    sent = send(served, ("a.png", png()), ("b.jpg", b"no")).json()
    events = served.predict(*items([served.send(picture).json()[0]]), "call/predict", items(sent))
    message = "photographs: no photograph of the person can be used (a.png: no face found; b.jpg: "
    assert "event: error" in events and message in events and str(served.kept) not in events
    assert served.left() == []
    events = served.predict(*items([served.send(picture).json()[0]]), "call/predict", items(sent))
    assert "photographs: are not here any more; send them again" in events and not served.left()
    (sent,) = send(served, ("a.png", picture)).json()
    events = served.predict(None, "call/predict", items([sent]))
    assert "choose one first" in events and served.left() == []


def test_photographs_that_are_gone_are_told(served, picture):
    sent = send(served, *[(f"{n}.png", picture) for n in range(2)]).json()
    gone = next(path for path in served.left() if path.name == "1.png")
    gone.unlink()
    first = served.send(picture).json()[0]
    (face,) = rows(served.predict(*items([first]), "call/predict", items(sent)))
    assert face["reference"]["photographs_left_out"] == [
        "1.png: left out: not here any more; send it again"
    ]
    assert served.left() == []


@pytest.mark.parametrize("route", ["call/predict", "queue/join"])
def test_what_are_no_photographs(served, route):
    sent = send(served, *[(f"{n}.png", png()) for n in range(2)]).json()
    before = served.left()
    many = items(sent) * gate.PHOTOGRAPHS
    assert "at most 8 photographs" in served.predict(None, route, many)
    wrong = ("a.png", items(sent)[0], 5, True, [None], ["a.png"], [sent], [{"url": sent[0]}])
    places = ("/etc/passwd", "http://127.0.0.1/a.png", str(before[0]), f"{sent[0]}/..", ["a"])
    for photographs in (*wrong, *(items(sent) + items([place]) for place in places)):
        answer = served.predict(None, route, photographs)
        assert "not a request of this page" in answer, (photographs, answer)
    assert served.left() == before  # swept later
    for path in before:
        path.unlink()
        path.parent.rmdir()


def test_several_files_in_one_upload(served, monkeypatch):
    files = [(f"{n}.png", png()) for n in range(gate.PHOTOGRAPHS + 1)]
    answer = send(served, *files)
    assert answer.status_code == 400 and "Too many files" in answer.text and not served.left()
    large = ("large.png", bytes(gate.MAX_BYTES + 1))
    assert send(served, files[0], large).status_code == 413
    third = [(f"{n}.png", bytes(gate.MAX_BYTES * 2 // 3)) for n in range(4)]
    assert send(served, *third).text == "more than 42 MB"
    text = [("files", ("a.png", png())), ("files", (None, "text"))]
    answer = requests.post(f"{served.api}/upload", files=text, timeout=60)
    assert answer.status_code == 400 and not served.left()
    monkeypatch.setattr(uploads, "MOST", 2)
    assert send(served, *files[:3]).status_code == 503 and not served.left()
    monkeypatch.setattr(gate, "MOST", 1)  # a large request takes the room of two
    assert send(served, *third[:2]).status_code == 503 and not served.left()
    monkeypatch.undo()
    assert send(served, *third[:3]).ok and len(served.left()) == 3
    for path in served.left():
        path.unlink()
        path.parent.rmdir()


def test_each_file_counts_against_a_visitors_limit(served):
    headers = {"X-Forwarded-For": "203.0.113.77"}
    files = [(f"{n}.png", b"a") for n in range(gate.PHOTOGRAPHS)]
    codes = [send(served, *files, headers=headers).status_code for _ in range(16)]
    assert 429 in codes and codes.count(200) <= 14  # a minute may end in between
    for path in served.left():
        path.unlink()
        path.parent.rmdir()


def test_a_disk_that_is_full_keeps_none_of_them(served, monkeypatch):
    copied = []

    def full(content, file):
        copied.append(file)
        if len(copied) > 1:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(uploads.shutil, "copyfileobj", full)
    assert send(served, ("a.png", b"a"), ("b.png", b"b")).status_code == 507
    assert len(copied) == 2 and served.left() == []


def test_only_uploads_are_read_as_photographs(tmp_path, monkeypatch):
    """Whatever gets past the gate."""
    monkeypatch.setattr(uploads.tempfile, "tempdir", str(tmp_path))
    kept = uploads.Uploads()
    (beside := tmp_path / "beside.png").write_bytes(png())
    made = page.Page(comparing(NoFaces()), kept, Reader())
    own = [kept.find(kept.add(f"{n}.png", io.BytesIO(png()))) for n in range(9)]
    for wrong in ([str(beside)], [str(own[0]), str(beside)], [str(path) for path in own]):
        with pytest.raises(page.ImageError, match="at most 8, and only uploaded files"):
            made.read_person(wrong)
    assert beside.is_file()
    kept.close()


def test_views_of_photographs_are_kept_alone(detector, tmp_path, monkeypatch, picture):
    monkeypatch.setattr(uploads.tempfile, "tempdir", str(tmp_path))
    kept = uploads.Uploads()
    made = page.Page(comparing(detector), kept, Reader())
    own = kept.find(kept.add("a.png", io.BytesIO(picture)))
    (found,) = made.read_person([str(own)]).photographs
    assert found.name == "a.png" and found.view.base is None and not own.exists()
    kept.close()


class Session:
    """A browser's, without one."""

    def __init__(self, served: Served) -> None:
        self.served, self.name = served, str(np.random.default_rng().integers(1 << 60))
        labels = {n: [x.label for x in each.inputs] for n, each in served.blocks.fns.items()}
        wanted = ["A picture", page.PERSON, page.AGAIN]
        self.number = next(n for n, found in labels.items() if found[:3] == wanted)

    def predict(self, picture: bytes, photographs: list[str], again: bool = False) -> list:
        """The new values of the page: no answer, faces, text, card, no person, again and so on."""
        (file,) = items([self.served.send(picture, "a.png").json()[0]])
        data = [file, items(photographs), again, None]
        asked = {"data": data, "fn_index": self.number, "session_hash": self.name}
        api = self.served.api
        assert requests.post(f"{api}/queue/join", json=asked, timeout=60).ok
        events = requests.get(f"{api}/queue/data?session_hash={self.name}", timeout=60).text
        messages = [json.loads(line[6:]) for line in events.splitlines() if line[:6] == "data: "]
        (done,) = (each for each in messages if each["msg"] == "process_completed")
        assert self.served.left() == []
        return done["output"]["data"]


def test_several_pictures_against_the_same_photographs(served, picture):
    session = Session(served)
    _, _, text, card, _, again, *emptied = session.predict(picture, [])
    assert "consistent" not in text and card.count("<img") == 1 and not again["visible"]
    sent = send(served, ("ann.png", picture), ("b.png", png())).json()
    _, _, text, card, _, again, *emptied = session.predict(picture, sent)
    assert "consistent</h2>" in text and "b.png: left out: no face found" in text
    assert card.count("<img") == 2 and emptied == [None, None]
    assert again["visible"] and again["value"] and again["label"].endswith("again (1)")
    for wanted in (True, False, True):
        _, _, text, _, _, again, *_ = session.predict(picture, [], wanted)
        assert ("consistent</h2>" in text) is wanted and again["visible"]
        assert again["value"] is wanted
    _, _, text, _, _, again, *_ = session.predict(png(), [], True)
    assert "a.png: no face found" in text and again["value"]
    assert "consistent" in session.predict(picture, [], True)[2]
    sent = send(served, ("b.png", png())).json()
    _, _, text, card, _, again, *_ = session.predict(picture, sent, True)
    assert "no photograph of the person can be used" in text and not card and not again["visible"]
    _, _, text, _, _, again, *_ = session.predict(picture, [], True)
    assert "photographs: are not here any more; send them again" in text and not again["visible"]
    assert "consistent" not in session.predict(picture, [])[2]
