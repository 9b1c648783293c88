"""A web page on this machine: choose a picture, see whether its faces are real or fake, and why.

    python app.py                                     # http://127.0.0.1:7860, this machine only
    python app.py --port 8000 --checkpoint checkpoints/mine --device cuda

Files of more than 20 MB, or of more than 40 million pixels, are refused before any network runs. No
upload stays on the disk after its prediction. Over HTTP: docs/app.md.
"""

from __future__ import annotations

import base64
import html
import io
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from command_line import run
from data.images import ImageError
from data.reader import Reader
from data.samples import is_video
from inference.card import COLOURS, GREY, draw_card, draw_scores
from inference.clips import predict_clip, read_worst_frame
from inference.detector import BUNDLED, default_device
from inference.verdict import Verdict
from predict import Detector
from training.examples import examples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "MASC: is this face real or a deepfake?"
MAX_BYTES = "20mb"
MAX_PIXELS = 40_000_000
FRAMES = 12  # of a video
QUEUE = 20  # visitors who wait; more are asked to come back
INTRODUCTION = """# Is this face real or a deepfake?

Drop, paste or choose a picture with a face, or a short video. Two small networks look at the whole
face and at its regions. The score rises where regions disagree about identity, age or expression,
or show traces of a forgery."""
LIMITS = """**Limits.** The result is a hint, never a proof: on kinds of pictures that are not in its
training data the detector is right little more often than by chance. It looks for swapped or
altered faces; a fully generated face can be consistent. It ignores sound, text and the rest of the
picture. Predicted age or gender is no statement about a person. Your picture is not kept."""
SEVERAL = "Several faces were found; show"


@dataclass(frozen=True)
class Config:
    checkpoint: Path | None = None
    """A folder that train.py wrote, instead of the bundled one."""
    device: str = field(default_factory=default_device)
    """cpu or cuda."""
    weights_dir: Path | None = None
    """Folder of local weight files (or MASC_WEIGHTS)."""
    host: str = "127.0.0.1"
    """0.0.0.0 lets other machines in."""
    port: int = 7860
    """Port of the page."""


@dataclass(frozen=True)
class Prediction:
    """One face on the page, as HTML, and its JSON."""

    text: str
    card: str
    data: dict

    @classmethod
    def of(cls, verdict: Verdict, image: np.ndarray) -> Prediction:
        """image: (H, W, 3) uint8 RGB, the picture or the worst frame. No file is written."""
        data = verdict.to_json(whole=True)
        card = _png(draw_card(verdict.worst_frame or verdict, image))
        text = json.dumps(data, indent=1, ensure_ascii=False).encode("utf-8", "replace")
        link = '<a download="masc.{}" href="{}" style="margin-right:1.5em">Save {}</a>'
        links = link.format("png", card, "the card (PNG)")
        links += link.format("json", _data_uri("application/json", text), "the JSON")
        picture = f'<img alt="The card of this face" style="width:100%" src="{card}">'
        return cls(as_html(verdict), f"<p>{links}</p>{picture}", data)


def as_html(verdict: Verdict) -> str:
    colour, sentences = COLOURS.get(verdict.verdict, GREY), [verdict.score, *verdict.warnings]
    lines = [f'<h2 style="color:{colour};margin:0">{verdict.verdict.upper()}</h2>']
    lines += [f"<p>{html.escape(text)}.</p>" for text in sentences]
    reasons = [f"<li>{html.escape(reason.sentence)}</li>" for reason in verdict.reasons]
    return "\n".join([*lines, "<ol>", *reasons, "</ol>"])


def _png(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return _data_uri("image/png", file.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


class Page:
    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self.reader = Reader(MAX_PIXELS)
        self.examples = examples()

    def predict_picture(self, image: np.ndarray, name: str) -> list[Prediction]:
        """One for every face. Raises: ImageError where there is none."""
        verdicts = self.detector.predict_images([image], [name])
        found = [Prediction.of(verdict, image) for verdict in verdicts if not verdict.error]
        if not found:
            raise ImageError(Path(name), verdicts[0].error)
        return found

    def predict_video(self, path: Path) -> list[Prediction]:
        """One for every person. Raises: ImageError where there is none."""
        people, found = predict_clip(self.detector, path, FRAMES, self.reader), []
        if people[0].error:
            raise ImageError(path, people[0].error)
        curve = f'<img alt="Scores over time" width="100%" src="{_png(draw_scores(people))}">'
        for person in people:
            frame = read_worst_frame(path, person, self.reader)
            person.path = person.worst_frame.path = path.name
            face = Prediction.of(person, frame)
            text = f"<p>P{person.in_frames[1:]}.</p>{face.text}{curve}"
            found.append(replace(face, text=text))
        return found

    def predict_upload(self, upload: str | None) -> list[Prediction]:
        """Of an upload, which is deleted. Raises: ImageError for the sender."""
        folder = Path(os.environ["GRADIO_TEMP_DIR"]).resolve()
        if not upload or not Path(upload).resolve().is_relative_to(folder):
            raise ImageError(Path("picture"), "choose one first")  # never another file
        path = Path(upload)
        if not path.is_file():  # gradio keeps equal files once, and they are deleted after use
            raise ImageError(Path(path.name), "was sent twice at the same time; send it again")
        try:
            if is_video(path.name):
                return self.predict_video(path)
            return self.predict_picture(self.reader.image(path), path.name)
        except ImageError as error:
            raise ImageError(Path(path.name), error.reason) from None
        finally:
            path.unlink(missing_ok=True)
            with suppress(OSError):  # its folder holds something else, or is gone
                path.parent.rmdir()


def build(page: Page) -> Any:
    """The page, a gradio.Blocks."""
    import gradio as gr  # takes seconds

    def show(predictions: list[Prediction]) -> tuple:
        names = [f"face {number + 1}" for number in range(len(predictions))]
        faces = gr.Radio(names, value=names[0], visible=len(names) > 1, label=SEVERAL)
        return predictions, faces, predictions[0].text, predictions[0].card, None

    def on_upload(upload: str | None) -> tuple:
        try:
            return show(page.predict_upload(upload))
        except ImageError as error:
            message = f"<p><b>{html.escape(str(error))}.</b></p>"
            return [], gr.Radio(visible=False), message, "", None

    def on_example(name: str) -> tuple:
        return show(page.predict_picture(page.examples[name], f"{name}.png"))

    def on_face(predictions: list[Prediction], name: str) -> tuple:
        if not name or not predictions:
            return "", ""
        face = predictions[int(name.removeprefix("face ")) - 1]
        return face.text, face.card

    def for_programs(upload: str) -> list[dict]:
        """`path` becomes `picture`: gradio's client would fetch a `path`."""
        try:
            rows = [prediction.data for prediction in page.predict_upload(upload)]
        except ImageError as error:
            raise gr.Error(str(error), print_exception=False) from None
        return [{"picture": row.pop("path"), **row} for row in rows]

    one_queue = {"concurrency_limit": 1, "concurrency_id": "detector"}
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(60, 60)) as blocks:
        gr.Markdown(INTRODUCTION)
        predictions = gr.State([], time_to_live=1800)
        with gr.Row():
            with gr.Column(scale=1):
                sources = ["upload", "clipboard"]
                picture = gr.Image(label="A picture", type="filepath", sources=sources, height=320)
                on_picture = gr.Button("Predict", variant="primary")
                video = gr.File(label="Or a short video", file_types=["video"], height=120)
                on_video = gr.Button("Predict the video")
                gr.Markdown("Or try:")
                buttons = {name: gr.Button(name, size="sm") for name in page.examples}
            with gr.Column(scale=2):
                faces = gr.Radio([], visible=False, label=SEVERAL)
                text = gr.HTML(elem_id="verdict")
        card = gr.HTML(elem_id="card")
        gr.Markdown(LIMITS)
        out = [predictions, faces, text, card]
        on_picture.click(on_upload, picture, [*out, picture], api_name=False, **one_queue)
        on_video.click(on_upload, video, [*out, video], api_name=False, **one_queue)
        for name, button in buttons.items():
            button.click(
                partial(on_example, name), None, [*out, picture], api_name=False, **one_queue
            )
        faces.input(on_face, [predictions, faces], [text, card], api_name=False)
        with gr.Row(visible=False):  # /predict, for programs
            sent, rows = gr.File(), gr.JSON()
            gr.Button().click(for_programs, sent, rows, api_name="predict", **one_queue)
    for component in (picture, video, sent):  # only the path: gradio would keep copies on the disk
        component.preprocess = lambda file: file.path if file else None
    return blocks.queue(max_size=QUEUE)


@contextmanager
def serve(detector: Detector, host: str, port: int) -> Iterator[Any]:
    """The running page (a gradio.Blocks); afterwards its folder of uploads is gone."""
    uploads = tempfile.mkdtemp(prefix="masc-app-")
    os.environ |= {"GRADIO_TEMP_DIR": uploads, "GRADIO_ANALYTICS_ENABLED": "False"}
    try:
        blocks = build(Page(detector))
        options = {"max_file_size": MAX_BYTES, "show_error": True, "prevent_thread_lock": True}
        blocks.launch(server_name=host, server_port=port, **options)
        yield blocks
        blocks.close(verbose=False)
    finally:
        shutil.rmtree(uploads, ignore_errors=True)


def main(config: Config) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that uploads are deleted
    detector = Detector(config.checkpoint or BUNDLED, config.device, "all", config.weights_dir)
    with serve(detector, config.host, config.port) as blocks:
        blocks.block_thread()


if __name__ == "__main__":
    sys.exit(run(main, Config, __doc__))
