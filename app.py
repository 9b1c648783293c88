"""A web page on this machine: drop a picture, see whether its faces agree with themselves, and why.

    python app.py                                     # http://127.0.0.1:7860, this machine only
    python app.py --port 8000 --checkpoint checkpoints/mine --device cuda

Too large files are refused before anything decodes them; what is no picture, or has too many pixels, before any network sees it.
Nothing of a picture stays on the disk once the answer is there; the answer itself is in the page. Visitors are served one
after the other, in the order in which they came. The same answer over HTTP: docs/app.md.
"""

from __future__ import annotations

import argparse
import base64
import html
import io
import json
import os
import shutil
import signal
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from data.images import ImageError, read_image
from data.samples import is_video
from data.video import read_frames
from inference.card import COLOURS, GREY, draw_card
from inference.clips import draw_scores, predict_clip
from training.examples import examples
from inference.verdict import Verdict
from predict import Detector

TITLE = "MASC: does this face agree with itself?"
MAX_BYTES = "20mb"
MAX_PIXELS = 40_000_000
FRAMES = 12  # of a video
WAITING = 20  # visitors in the queue; more are asked to come back
INTRODUCTION = """# Does this face agree with itself?

Drop, paste or choose a picture with a face, or a short video. Two small networks look at the whole face and at its parts; where
the parts disagree about who that is, how old, or where their pixels come from, the score rises."""
LIMITS = """**What it cannot do.** It is one hint among others and never proof: on pictures of a kind that it has not seen it is
right little more often than a coin. It looks for faces that were swapped or altered; a wholly generated face can agree with
itself perfectly. It says nothing about sound, text or the rest of the picture, and what it guesses of age or gender is no
statement about a person. Nothing of your picture is kept."""


@dataclass(frozen=True)
class Prediction:
    """What the page shows of one face: the sentences, the card as PNG, and the JSON of predict.py --explain."""

    told: str
    card: bytes
    data: dict


def words(verdict: Verdict) -> str:
    """A verdict as HTML: the headline, what speaks against trusting it, and the reasons."""
    colour = COLOURS.get(verdict.verdict, GREY)
    lines = [
        f'<h2 style="color:{colour};margin:0">{verdict.verdict.upper()}</h2>',
        f"<p>{verdict.score}.</p>",
    ]
    lines += [f"<p><b>Cannot tell:</b> {html.escape(doubt)}.</p>" for doubt in verdict.doubts]
    if verdict.quality.get("overall", "good") != "good":
        lines.append(f"<p><b>Careful:</b> {html.escape(str(verdict.quality['overall']))}.</p>")
    sentences = [f"<li>{html.escape(reason.sentence)}</li>" for reason in verdict.reasons]
    return "\n".join([*lines, f"<ol>{''.join(sentences)}</ol>" if sentences else ""])


def png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def shown(prediction: Prediction) -> str:
    """The card, and links that save it and the JSON. All inside the page: no file is written for it."""
    picture = data_uri("image/png", prediction.card)
    text = json.dumps(prediction.data, indent=1, ensure_ascii=False).encode("utf-8", "replace")
    link = '<a download="masc.{0}" href="{1}" style="margin-right:1.5em">Save {2}</a>'
    links = link.format("png", picture, "the card (PNG)") + link.format(
        "json", data_uri("application/json", text), "the JSON"
    )
    return f'<p>{links}</p><img alt="The card of this face" style="width:100%;max-width:1200px" src="{picture}">'


class Page:
    """What the buttons do. detector: judges all faces of a picture."""

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self.examples = examples()

    def predictions(self, image: np.ndarray, name: str) -> list[Prediction]:
        """One for every face, the most central large one first. Raises: ImageError where there is none."""
        verdicts = self.detector.predict_images([image], [name])
        judged = [verdict for verdict in verdicts if not verdict.error]
        if not judged:
            raise ImageError(Path(name), verdicts[0].error)
        return [
            Prediction(words(v), png(draw_card(v, image)), v.to_json(whole=True)) for v in judged
        ]

    def of_clip(self, path: str) -> list[Prediction]:
        """One for every person in a video, with the card of the most suspect frame. Raises: ImageError where there is nobody."""
        people = predict_clip(self.detector, Path(path), FRAMES, MAX_PIXELS)
        if people[0].error:
            raise ImageError(Path(path), people[0].error)
        curve = f'<img alt="Scores over time" style="width:100%" src="{data_uri("image/png", png(draw_scores(people)))}">'
        found = []
        for person in people:
            spot = person.clip["worst"]
            (frame,) = read_frames(Path(path), [(spot["frame"], spot["of"])], MAX_PIXELS)
            person.path = person.worst.path = Path(path).name
            seen, of = len(person.clip["frames"]), person.clip["frames_looked_at"]
            frames = f"<p>Person {person.face + 1}, in {seen} of {of} frames.</p>"
            card = png(draw_card(person.worst, frame))
            found.append(
                Prediction(frames + words(person) + curve, card, person.to_json(whole=True))
            )
        return found

    def of_file(self, path: str | None) -> list[Prediction]:
        """Of an upload, which is deleted. Raises: ImageError with a message for whoever sent it."""
        if not path or not Path(path).resolve().is_relative_to(
            Path(os.environ["GRADIO_TEMP_DIR"]).resolve()
        ):
            raise ImageError(Path("picture"), "choose one first")  # never a file of this machine
        name = Path(path).name
        if not Path(
            path
        ).is_file():  # gradio keeps equal files once, and the first answer has deleted it
            raise ImageError(
                Path(name),
                "it was sent twice at once and is deleted with the first answer; send it again",
            )
        try:
            return (
                self.of_clip(path)
                if is_video(name)
                else self.predictions(read_image(Path(path), MAX_PIXELS), name)
            )
        except ImageError as error:
            raise ImageError(Path(name), error.reason) from None
        finally:
            forget(path)

    def predict_images(self, path: str | None) -> list[dict]:
        """For programs: the JSON of every face of a picture, whose name is under `picture`: gradio's client takes every `path`
        for a file to fetch."""
        return [
            {("picture" if key == "path" else key): x for key, x in a.data.items()}
            for a in self.of_file(path)
        ]


def forget(path: str) -> None:
    """Delete an upload and the folder that was made for it."""
    Path(path).unlink(missing_ok=True)
    with suppress(OSError):  # it holds something else, or is gone
        Path(path).parent.rmdir()


def as_sent(upload: Any) -> str | None:
    """The path of an upload (gradio's FileData, or None), instead of gradio's own copies of it, which stay on the disk."""
    return upload.path if upload else None


def build(page: Page) -> Any:
    """The page, gradio.Blocks. Its own function, since gradio takes seconds to import."""
    import gradio as gr

    def told(predictions: list[Prediction]) -> tuple:
        names = [f"face {number + 1}" for number in range(len(predictions))]
        several = gr.Radio(
            names, value=names[0], visible=len(names) > 1, label="Several faces were found; show"
        )
        return predictions, several, predictions[0].told, shown(predictions[0])

    def nothing(message: str) -> tuple:
        return [], gr.Radio(visible=False), f"<p><b>{html.escape(message)}</b></p>", ""

    def on_file(path: str | None) -> tuple:
        try:
            return (*told(page.of_file(path)), None)
        except ImageError as error:
            return (*nothing(f"{error.path}: {error.reason}."), None)

    def on_example(name: str) -> tuple:
        return (*told(page.predictions(page.examples[name], f"{name}.png")), None)

    def on_face(predictions: list[Prediction], name: str) -> tuple:
        place = int(name.rpartition(" ")[2]) - 1 if name else 0
        return (
            (predictions[place].told, shown(predictions[place]))
            if place < len(predictions)
            else ("", "")
        )

    def for_programs(path: str) -> list[dict]:
        try:
            return page.predict_images(path)
        except ImageError as error:
            raise gr.Error(f"{error.path}: {error.reason}", print_exception=False) from None

    alone = {"concurrency_limit": 1, "concurrency_id": "detector"}  # one queue for all that ask it
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(60, 60)) as blocks:
        gr.Markdown(INTRODUCTION)
        kept = gr.State([], time_to_live=1800)
        with gr.Row():
            with gr.Column(scale=1):
                picture = gr.Image(
                    label="A picture", type="filepath", sources=["upload", "clipboard"], height=320
                )
                picture.preprocess = as_sent
                ask = gr.Button("Judge", variant="primary")
                clip = gr.File(
                    label="Or a short video", type="filepath", file_types=["video"], height=120
                )
                clip.preprocess = as_sent
                ask_clip = gr.Button("Judge the video")
                gr.Markdown("Or try:")
                tries = {name: gr.Button(name, size="sm") for name in page.examples}
            with gr.Column(scale=2):
                several = gr.Radio([], visible=False, label="Several faces were found; show")
                sentences = gr.HTML(elem_id="told")
        card = gr.HTML(elem_id="card")
        gr.Markdown(LIMITS)
        out = [kept, several, sentences, card, picture]
        ask.click(on_file, picture, out, api_name=False, **alone)
        ask_clip.click(on_file, clip, [*out[:-1], clip], api_name=False, **alone)
        for name, button in tries.items():
            button.click(lambda name=name: on_example(name), None, out, api_name=False, **alone)
        several.input(on_face, [kept, several], [sentences, card], api_name=False)
        with gr.Row(visible=False):  # /judge, for programs
            sent, prediction = gr.File(type="filepath"), gr.JSON()
            sent.preprocess = as_sent
            gr.Button().click(for_programs, sent, prediction, api_name="judge", **alone)
    return blocks.queue(max_size=WAITING)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--checkpoint", type=Path, help="a folder that train.py wrote (default: the bundled one)"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--weights-dir", type=Path, metavar="DIR", help="local weight files (or MASC_WEIGHTS)"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="0.0.0.0 lets other machines in (default %(default)s)"
    )
    parser.add_argument("--port", type=int, default=7860)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that what follows is cleaned up
    uploads = tempfile.mkdtemp(prefix="masc-app-")
    os.environ |= {"GRADIO_TEMP_DIR": uploads, "GRADIO_ANALYTICS_ENABLED": "False"}
    try:
        where = {"checkpoint": args.checkpoint} if args.checkpoint else {}
        detector = Detector(**where, device=args.device, faces="all", weights_dir=args.weights_dir)
        page = build(Page(detector))
        page.launch(
            server_name=args.host, server_port=args.port, max_file_size=MAX_BYTES, show_error=True
        )
    except (OSError, ValueError) as error:
        print(f"app.py: {error}", file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(uploads, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
