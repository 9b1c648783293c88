"""What the page shows of a picture or a video, kept small: it stays in memory for some minutes."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from data.names import for_screen
from inference.card import COLOURS, GREY, ORANGE, draw_card, draw_scores
from inference.person_card import COLOURS as PATTERN_COLOURS
from inference.person_card import draw_person_card
from inference.reference import Reference
from inference.verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWN_PX = 640  # the longer side of a picture on its card, where it is 300 px wide


@dataclass(frozen=True)
class Answer:
    """All faces of a picture, or all people of a video. Each is drawn only when it is shown."""

    verdicts: list[Verdict]
    pictures: list[tuple[bytes, float]]  # that each verdict is drawn on, as JPEG, and its scale
    curve: str = ""  # of a video, HTML

    @classmethod
    def of(cls, verdicts: Sequence[Verdict], images: Sequence[np.ndarray]) -> Answer:
        """images: (H, W, 3) uint8 RGB, the picture of each verdict, or its worst frame."""
        small = {id(image): _small(image) for image in images}
        curve = ""
        if verdicts[0].clip:
            scores = _png(draw_scores(verdicts))
            curve = f'<img alt="Scores over time" width="100%" src="{scores}">'
        kept = [_kept(verdict) for verdict in verdicts]
        return cls(kept, [small[id(image)] for image in images], curve)

    @property
    def first(self) -> int:
        """Which is shown first: the face that is most like photographs, if there are any."""
        return int(np.argmax([_likeness(verdict) for verdict in self.verdicts]))

    def text(self, number: int) -> str:
        """HTML."""
        verdict = self.verdicts[number]
        person = f"<p>P{verdict.in_frames[1:]}.</p>" if verdict.clip else ""
        other = ""
        if verdict.reference is None and self.verdicts[self.first].reference:
            other = (
                f"<p>Face {self.first + 1} is most like the photographs and compared with them.</p>"
            )
        return person + as_html(verdict) + other + self.curve

    def card(self, number: int) -> str:
        """HTML, with links to save it."""
        jpeg, scale = self.pictures[number]
        verdict = self.verdicts[number]
        drawn = verdict.worst_frame or verdict
        drawn = replace(drawn, box=tuple(scale * x for x in drawn.box))
        card = _png(draw_card(drawn, np.asarray(Image.open(io.BytesIO(jpeg)))))
        data = json.dumps(verdict.to_json(whole=True), indent=1, ensure_ascii=False)
        link = '<a download="masc.{}" href="{}" style="margin-right:1.5em">Save {}</a>'
        links = link.format("png", card, "the card (PNG)")
        text = _data_uri("application/json", data.encode("utf-8", "replace"))
        links += link.format("json", text, "the JSON")
        picture = f'<img alt="The card of this face" style="width:100%" src="{card}">'
        return f"<p>{links}</p>{picture}{_comparison(verdict)}"

    def rows(self) -> list[dict]:
        """For programs. A client of gradio would fetch a `path`, at any depth: it is a `picture`."""
        return [_without_paths(verdict.to_json(whole=True)) for verdict in self.verdicts]


def as_html(verdict: Verdict) -> str:
    colour = COLOURS.get(verdict.verdict, GREY)
    sentences = [verdict.p_words, verdict.scale, *verdict.warnings]
    sentences += [verdict.meaning] * bool(verdict.meaning)
    lines = [f'<h2 style="color:{colour};margin:0">{verdict.words}</h2>']
    lines += [f"<p>{html.escape(text.rstrip('.'))}.</p>" for text in sentences]
    reasons = [f"<li>{html.escape(reason.sentence)}</li>" for reason in verdict.reasons]
    second = [compared_as_html(verdict.reference)] if verdict.reference else []
    return "\n".join([*lines, "<ol>", *reasons, "</ol>", *second])


def compared_as_html(found: Reference) -> str:
    """The second part: how the face fits the photographs, and which of them do not count."""
    colour = PATTERN_COLOURS.get(found.pattern, ORANGE)
    numbers = f"Against {found.of}"
    if found.conflict_words:
        numbers += f": p_conflict {found.conflict_words}; {100 * found.fpr:g}% of genuine pictures "
        numbers += f"reach {found.threshold:.2f}"
    about = [*found.person.left_out, *found.person.notes]
    lines = [f'<h2 style="color:{colour};margin:1em 0 0">{html.escape(found.pattern)}</h2>']
    lines += [f"<p>{html.escape(numbers)}.</p>"]
    lines += ["<ul>", *(f"<li>{html.escape(text)}</li>" for text in found.sentences), "</ul>"]
    lines += [f"<p>{html.escape(for_screen(text))}.</p>" for text in about]
    return "\n".join(lines)


def _comparison(verdict: Verdict) -> str:
    """HTML: its card and a link to save it."""
    if verdict.reference is None:
        return ""
    card = _png(draw_person_card(verdict.reference, verdict.path))
    link = f'<a download="masc-comparison.png" href="{card}">Save the comparison (PNG)</a>'
    picture = '<img alt="The comparison with the photographs" style="width:100%"'
    return f'<p>{link}</p>{picture} src="{card}">'


def _likeness(verdict: Verdict) -> float:
    """Of the whole face to the photographs; less where nothing is known."""
    found = verdict.reference and verdict.reference.likeness("full")
    return -2.0 if found is None or np.isnan(found.similarity) else found.similarity


def _kept(verdict: Verdict) -> Verdict:
    """With the view of its own face only, not those of all faces that were compared with it."""
    found = verdict.reference
    if found is None or found.view is None:
        return verdict
    found = replace(found, view=found.view.copy())
    worst = verdict.worst_frame and replace(verdict.worst_frame, reference=found)
    return replace(verdict, reference=found, worst_frame=worst)


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        named = {"picture" if key == "path" else key: item for key, item in value.items()}
        return {key: _without_paths(item) for key, item in named.items()}
    return [_without_paths(item) for item in value] if isinstance(value, list) else value


def _small(image: np.ndarray) -> tuple[bytes, float]:
    """JPEG, and how much smaller it is."""
    picture, file = Image.fromarray(image), io.BytesIO()
    picture.thumbnail((DRAWN_PX, DRAWN_PX))
    picture.save(file, "JPEG", quality=95)
    return file.getvalue(), picture.width / image.shape[1]


def _png(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return _data_uri("image/png", file.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
