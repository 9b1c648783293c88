"""The page itself: pictures and clips in, answers out, and how that looks."""

from __future__ import annotations

import asyncio
import html
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data.images import ImageError
from data.names import for_screen
from data.reader import Reader
from inference.clips import predict_clip
from inference.detector import Detector
from inference.files import shows_video
from inference.person import Person
from training.examples import examples
from web.answer import Answer
from web.gate import NAMES
from web.uploads import PHOTOGRAPHS, Uploads

log = logging.getLogger("masc")
TITLE = "MASC: was this face manipulated?"
MAX_PIXELS = 40_000_000
FRAMES = 12  # of a video
FACES = 8  # of a picture or a frame, and people of a video
QUEUE = 20  # visitors who wait; more are asked to come back
SESSIONS = 60  # answers that are kept
FORGET = timedelta(minutes=10)  # an answer nobody asked about
INTRODUCTION = """# Was this face manipulated?

Drop, paste or choose a picture with a face, or a short video. Neural networks look at the whole
face and at its regions. The score rises where regions disagree about identity, age or expression,
show traces of a forgery or, to a detector with CLIP, look made rather than photographed. It never
says that a face is real: at most that nothing was found. With genuine photographs of the person whom
the face claims to show, it also tells whether inner face and head fit them."""
LIMITS = f"""**Limits.** The result is a hint, never a proof. A fully generated face can be consistent;
a detector without CLIP looks for swapped or altered faces only. MASC ignores sound, text and the rest of
the picture; of many faces it looks at the {FACES} most central large ones. Predicted age or gender is no
statement about a person. Files are deleted before the answer comes, and the answer some minutes later."""
PERSON = f"Genuine photographs of the person it claims to show (optional, up to {PHOTOGRAPHS})"
AGAIN = "Compare with the same photographs again"
GONE = "not here any more; send {} again"
SEVERAL = f"Several faces were found (at most {FACES} are looked at); show"


class Page:
    """reader: opens what visitors send."""

    def __init__(self, detector: Detector, uploads: Uploads, reader: Reader) -> None:
        self.detector, self.uploads, self.reader = detector.for_all_faces(), uploads, reader
        self.detector.cutter.max_faces = FACES
        self.examples = examples()

    def predict_picture(self, image: np.ndarray, name: str) -> Answer:
        """Raises: ImageError where there is no face."""
        found = self.detector.predict_images([image], [name])
        if found[0].error:
            raise ImageError(Path(name), found[0].error)
        return Answer.of(found, [image] * len(found))

    def predict_file(self, path: Path, person: Person | None = None) -> Answer:
        """Raises: ImageError where there is no face in the picture."""
        image, detector = self.reader.image(path), self.compared_with(person)
        found = detector.predict_images([image], [path.name])
        found = detector.look_again(found, path, self.reader)
        if found[0].error:
            raise ImageError(path, found[0].error)
        if found[0].frame:
            image = self.reader.image(path, found[0].frame)
        return Answer.of(found, [image] * len(found))

    def predict_video(self, path: Path, person: Person | None = None) -> Answer:
        """Raises: ImageError where there is no face."""
        people = predict_clip(self.compared_with(person), path, FRAMES, self.reader)[:FACES]
        if people[0].error:
            raise ImageError(path, people[0].error)
        worst = [person.clip["worst"] for person in people]
        frames = self.reader.frames(path, [(each["frame"], each["of"]) for each in worst])
        for frame in frames:
            if isinstance(frame, ImageError):
                raise frame
        for found in people:
            found.path = found.worst_frame.path = path.name
        return Answer.of(people, frames)

    def compared_with(self, person: Person | None) -> Detector:
        return self.detector if person is None else self.detector.compared_with(person)

    def predict_upload(self, upload: str | None, person: Person | None = None) -> Answer:
        """Of an upload, which is deleted. Raises: ImageError for the sender."""
        if not upload or not self.uploads.holds(upload):
            raise ImageError(Path("picture"), "choose one first; only uploaded files are taken")
        path = Path(upload)
        with self.deleting([upload]):
            try:
                if not path.is_file():
                    raise ImageError(path, f"is {GONE.format('it')}")
                if shows_video(path):
                    return self.predict_video(path, person)
                return self.predict_file(path, person)
            except ImageError as error:
                reason = for_screen(self.uploads.without_places(error.reason))
                raise ImageError(Path(path.name), reason) from None

    def read_person(self, photographs: Sequence[str]) -> Person:
        """The person in uploads, which are deleted. Raises: ImageError for the sender."""
        if len(photographs) > PHOTOGRAPHS or not all(map(self.uploads.holds, photographs)):
            reason = f"at most {PHOTOGRAPHS}, and only uploaded files are taken"
            raise ImageError(Path("photographs"), reason)
        named = self.uploads.without_places
        gone = [not Path(each).is_file() for each in photographs]
        if all(gone):
            raise ImageError(Path("photographs"), f"are {GONE.format('them')}")
        with self.deleting(photographs):
            try:
                found = self.detector.read_person(list(map(Path, photographs)), reader=self.reader)
            except ImageError as error:
                raise ImageError(Path("photographs"), for_screen(named(error.reason))) from None
        shown = [
            replace(
                each,
                name=named(each.name),
                left_out=GONE.format("it") if lost else named(each.left_out),
                view=None if each.view is None else each.view.copy(),  # not all faces of it
            )
            for each, lost in zip(found.photographs, gone, strict=True)
        ]
        return replace(found, photographs=tuple(shown))

    @contextmanager
    def deleting(self, uploads: Sequence[str | None]) -> Iterator[None]:
        """Uploads that are gone afterwards."""
        try:
            yield
        finally:
            for upload in uploads:
                if upload and self.uploads.holds(upload):
                    self.uploads.delete(Path(upload))


def build(page: Page) -> Any:
    """The page, a gradio.Blocks."""
    import gradio as gr  # takes seconds

    def show(answer: Answer) -> tuple:
        names = [f"face {number + 1}" for number in range(len(answer.verdicts))]
        first = answer.first
        faces = gr.Radio(names, value=names[first], visible=len(names) > 1, label=SEVERAL)
        return answer, faces, answer.text(first), answer.card(first)

    def on_upload(
        upload: str | None, photographs: list[str], again: bool, person: Person | None
    ) -> tuple:
        """Photographs that were sent are taken, else, if that is wished, those of the last time."""
        try:
            with page.deleting([upload, *photographs]):
                if photographs:
                    again, person = True, None  # nor those of the last time, if none can be used
                    person = page.read_person(photographs)
                if again and person is None:
                    raise ImageError(Path("photographs"), f"are {GONE.format('them')}")
                shown = show(page.predict_upload(upload, person if again else None))
        except ImageError as error:
            message = f"<p><b>{html.escape(str(error))}.</b></p>"
            shown = None, gr.Radio(visible=False), message, ""
        used = len(person.used) if person else 0
        more = gr.Checkbox(value=again and used > 0, visible=used > 0, label=f"{AGAIN} ({used})")
        return *shown, person, more, None, None

    def on_example(name: str) -> tuple:
        return *show(page.predict_picture(page.examples[name], f"{name}.png")), None

    def on_face(answer: Answer | None, name: str | None) -> tuple:
        numbers = {f"face {n + 1}": n for n in range(len(answer.verdicts))} if answer else {}
        if name not in numbers:
            return "<p>This answer is not kept any more; send the picture again.</p>", ""
        return answer.text(numbers[name]), answer.card(numbers[name])

    def for_programs(upload: str | None, photographs: list[str] | None = None) -> list[dict]:
        try:
            with page.deleting([upload, *photographs]):
                person = page.read_person(photographs) if photographs else None
                return page.predict_upload(upload, person).rows()
        except ImageError as error:
            raise gr.Error(str(error), print_exception=False) from None

    one_queue = {"concurrency_limit": 1, "concurrency_id": "detector"}
    hidden = {"api_name": False, **one_queue}
    with gr.Blocks(title=TITLE, analytics_enabled=False) as blocks:
        gr.Markdown(INTRODUCTION)
        answer, person = gr.State(), gr.State()
        with gr.Row():
            with gr.Column(scale=1):
                sources = ["upload", "clipboard"]
                picture = gr.Image(label="A picture", type="filepath", sources=sources, height=320)
                several = {"file_count": "multiple", "file_types": ["image"]}
                photographs = gr.File(label=PERSON, height=170, **several)
                again = gr.Checkbox(visible=False, label=AGAIN)
                on_picture = gr.Button("Predict", variant="primary")
                video = gr.File(label="Or a short video", file_types=["video"], height=120)
                on_video = gr.Button("Predict the video")
                gr.Markdown("Or try:")
                buttons = {name: gr.Button(name, size="sm") for name in page.examples}
            with gr.Column(scale=2):
                faces = gr.Radio([], visible=False, label=SEVERAL)
                text = gr.HTML(elem_id="verdict")
        card = gr.HTML(elem_id="card")
        record = for_screen(" ".join(page.detector.record.lines))
        gr.HTML(f"<p><b>This detector.</b> {html.escape(record)}</p>", elem_id="record")
        gr.Markdown(LIMITS)
        out = [answer, faces, text, card]
        for button, chosen in ((on_picture, picture), (on_video, video)):
            given = [chosen, photographs, again, person]
            button.click(on_upload, given, [*out, person, again, photographs, chosen], **hidden)
        for name, button in buttons.items():
            button.click(partial(on_example, name), None, [*out, picture], **hidden)
        faces.input(on_face, [answer, faces], [text, card], **hidden)
        with gr.Row(visible=False):  # for programs
            sent, genuine, rows = gr.File(), gr.File(**several), gr.JSON()
            for name in NAMES:
                gr.Button().click(for_programs, [sent, genuine], rows, api_name=name, **one_queue)
    for component in (picture, video, sent):  # only the path: gradio would keep copies on the disk
        component.preprocess = lambda file: file.path if file else None
    for component in (photographs, genuine):
        component.preprocess = lambda files: [file.path for file in files.root] if files else []
    faces.preprocess = lambda name: name  # `on_face` knows which there are
    return blocks.queue(max_size=QUEUE, api_open=False)


def tidying(blocks: Any, uploads: Uploads, seconds: float = 20) -> Callable:
    """A lifespan of the server: now and then it deletes old uploads and forgets old answers."""

    async def tidy() -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                events = list(blocks._queue.event_ids_to_events.values())
                inputs = (item for event in events for item in event.data.data)
                lists = (item if isinstance(item, list) else [item] for item in inputs)
                items = (item for each in lists for item in each if isinstance(item, dict))
                uploads.sweep([Path(item["path"]) for item in items])
                forget(blocks, {event.session_hash for event in events})
            except Exception:  # whatever it is: without a next round pictures would stay
                log.exception("uploads could not be swept")

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        task = asyncio.create_task(tidy())
        yield
        task.cancel()

    return lifespan


def forget(blocks: Any, busy: set[str]) -> None:
    """Answers that are old, or were never fetched. busy: sessions that wait for one."""
    queue, sessions = blocks._queue, blocks.state_holder
    for session, used in list(sessions.time_last_used.items()):
        if session not in busy and datetime.now() - used > FORGET:
            sessions.time_last_used.pop(session, None)
            sessions.session_data.pop(session, None)
            queue.pending_messages_per_session.pop(session, None)
    known = queue.pending_messages_per_session
    for session in set(queue.pending_event_ids_session) - set(known) - busy:
        del queue.pending_event_ids_session[session]
