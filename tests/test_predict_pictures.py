"""Which picture of a file, which way up, and which files of a folder are predicted."""

import json
from contextlib import closing

import av
import numpy as np
import pytest
from PIL import Image
from skimage import data

from data.isolated import IsolatedReader
from data.reader import Reader
from inference.files import predict_files, write_explanation
from tests.miniatures import write_video
from tests.test_predict import predict_py
from training.examples import examples


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_the_first_frame_with_a_face_is_taken_and_named(detector, astronaut, tmp_path, name):
    frames = [
        Image.new("RGB", astronaut.shape[1::-1]),
        Image.new("RGB", astronaut.shape[1::-1], "red"),
    ]
    frames += [Image.fromarray(astronaut), Image.fromarray(astronaut)]
    options = {"lossless": True} if name == "a.webp" else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    verdict = detector.predict(tmp_path / name)
    assert verdict.frame == 2 and verdict.notes[0].startswith("frame 3 of ")
    (row,) = predict_files(detector, [tmp_path / name], 3, Reader())
    assert row.p_fake == verdict.p_fake and row.to_json()["notes"] == verdict.notes
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "inference.card.write_card", lambda verdict, image, *rest: shown.append(image)
        )
        write_explanation(row, tmp_path, 1, Reader())
    assert (shown[0] == Reader().image(tmp_path / name, 2)).all()


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.avif", "a.tif", "a.mpo"])
def test_a_note_says_that_only_the_first_picture_of_a_file_was_judged(detector, tmp_path, name):
    face = Image.fromarray(data.astronaut()[:256, 100:356])
    further = [face.rotate(3), Image.new("RGB", face.size, "red")]
    face.save(tmp_path / name, save_all=True, append_images=further)
    note = "only the first of 3 pictures (frames or pages) in the file was judged"
    assert detector.predict(tmp_path / name).notes == [note]
    for reader in (Reader(), IsolatedReader()):
        with closing(reader):
            (row,) = predict_files(detector, [tmp_path / name], 3, reader)
        assert row.to_csv()["notes"] == note and f"Note: {note}" in row.to_text()
    face.save(tmp_path / name)
    assert detector.predict(tmp_path / name).notes == []


def test_a_note_says_that_the_first_page_shows_nobody(detector, tmp_path, astronaut):
    page = Image.new("RGB", (99, 99))
    page.save(tmp_path / "a.tif", save_all=True, append_images=[Image.fromarray(astronaut)])
    (row,) = predict_files(detector, [tmp_path / "a.tif"], 3, Reader())
    assert row.error == "no face found"
    assert row.to_json()["notes"][0].startswith("only the first of 2 pictures")


def test_a_note_says_that_only_the_first_stream_was_judged(detector, tmp_path, astronaut):
    for count in (1, 2):
        with av.open(str(tmp_path / "a.mkv"), "w") as file:
            streams = [file.add_stream("mpeg4", rate=25) for _ in range(count)]
            for stream in streams:
                stream.height, stream.width = astronaut.shape[:2]
            for stream in streams:
                image = av.VideoFrame.from_ndarray(astronaut, format="rgb24")
                file.mux([*stream.encode(image), *stream.encode()])
        (row,) = predict_files(detector, [tmp_path / "a.mkv"], 3, Reader(), frames=1)
        note = "only the first of 2 video streams in the file was judged"
        assert row.notes == [note] * (count - 1)


def test_an_animation_without_a_face_has_none(detector, tmp_path):
    frames = [Image.new("RGB", (99, 99), colour) for colour in ("black", "red")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert detector.predict(tmp_path / "a.gif").error == "no face found"


def test_isolated_predictions_are_the_same(astronaut, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(astronaut).save(pictures / "a.png")
    (pictures / "text.jpg").write_text("not a picture")
    for number, option in enumerate(((), ("--isolate",))):
        assert predict_py(pictures, "--json", tmp_path / f"{number}.json", *option) == 3
    assert (tmp_path / "0.json").read_bytes() == (tmp_path / "1.json").read_bytes()


def test_cards_are_not_judged(tmp_path, astronaut):
    folder = tmp_path / "folder"
    folder.mkdir()
    Image.fromarray(astronaut).save(folder / "a.png")
    for _ in range(2):
        assert predict_py(folder, "--explain", folder / "cards", "--json", tmp_path / "v.json") == 0
        (row,) = json.loads((tmp_path / "v.json").read_text())
        assert row["path"] == str(folder / "a.png")


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_picture_on_its_side_gets_the_verdict_of_the_upright_one(detector, turns):
    """Upright faces are "found" in some of these, with a lower score than the real ones."""
    picture = examples()["a photograph"]
    expected = detector.predict(picture)
    found = detector.predict(np.ascontiguousarray(np.rot90(picture, turns)))
    assert found.p_fake == pytest.approx(expected.p_fake, abs=0.02)
    assert bool(found.notes) == bool(found.turn) == bool(turns)


def test_content_tells_pictures_and_videos(detector, astronaut, tmp_path):
    Image.fromarray(astronaut).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.mp4")
    write_video(tmp_path / "b.mp4", [astronaut[:480, :480]] * 2)
    (tmp_path / "b.mp4").rename(tmp_path / "b.jpg")
    first, second = predict_files(detector, [tmp_path], 3, Reader(), 2)
    assert not first.clip and second.clip and first.p_fake and second.p_fake
