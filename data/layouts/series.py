"""Which pictures side by side in one folder belong together, by their names alone.

Names are alike where only their numbers differ. One of the numbers that differ is that of the frame:
the one behind the word frame, else the last but for numbers of faces; what is before it is the clip.
What goes up to the first number that differs is the source: 071 of 071_054_0012, clip0 of
clip0_00_01_20 (hours, minutes and seconds), where it is safer to keep too much together.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from data.layouts import names

# What cameras and phones call a photograph; frames of their clips have one more number.
CAMERA = re.compile(
    r"_?(IMG|DSC[NF]?|DCIM|SAM|GOPR|DJI)[_-]?\d{3,6}([~_ -]?\(?(\d|[a-z]|edited|HDR)\)?)?"
    r"|(IMG|PXL|MVIMG|WP|DJI)[_-]?(19|20)\d{6}.*|P1\d{6}|(Screenshot|WhatsApp).*|\d{8}_\d{6}.*"
)
FILM = re.compile(r"(video|clip|vid|movie|film|scene|shot|seq)", re.IGNORECASE)
FRAME = re.compile(r"frames?|frm|fr|f", re.IGNORECASE)
FACE = re.compile(r"faces?|crop|aligned|person|subj", re.IGNORECASE)
CLIP = re.compile(FILM.pattern + "|id", re.IGNORECASE)  # words before the number of a clip
DIGITS = 8  # of the number of a frame
ENDS = "_-. ()#@"
SHORT = 6  # letters, of a word that is no name where more numbers follow: easy_12_1011
PEOPLE = 3  # names without a number, from which on pictures called by one are a group


@dataclass(frozen=True)
class Called:
    """What a name says. clip: "" of a single picture; source: the clips of one source share it."""

    clip: str = ""
    source: str = ""


@dataclass(frozen=True)
class _Number:
    """A number in a name, with the word before it, and its place there."""

    text: str
    word: str
    start: int
    end: int

    @property
    def value(self) -> int:
        return int(self.text)


def called(stems: Iterable[str]) -> dict[str, Called]:
    """Name of a picture, without suffix -> what it says beside the others."""
    alike = defaultdict(list)
    for stem in dict.fromkeys(stems):
        numbers = _numbers(stem)
        pattern = stem
        for number in reversed(numbers):
            pattern = f"{pattern[: number.start]}0{pattern[number.end :]}"
        alike[pattern].append((stem, numbers))
    found = {}
    for some in alike.values():
        found |= _of_alike(some)
    return found


def sources(folders: Iterable[str]) -> dict[str, str]:
    """Name of a clip's folder -> what it shares with others of the same source: 071 of 071_faces."""
    found = {}
    alike = defaultdict(list)
    for name in folders:
        alike[re.sub(r"\d+", "0", name)].append((name, _numbers(name)))
    for some in alike.values():
        first = min(_varying([numbers for _, numbers in some]), default=None)
        for name, numbers in some:
            rest = name[numbers[first].end :] if first is not None else ""
            found[name] = _unlabelled(name.removesuffix(re.sub(r"^[^\W_]+", "", rest)))
    return found


def _unlabelled(name: str) -> str:
    """obama of obama_fake and of real_obama."""
    return re.sub(r"^(real|fake)[_-](?=.)|(?<=.)[_-](real|fake)$", "", name, flags=re.IGNORECASE)


def _numbers(stem: str) -> list[_Number]:
    """Its numbers; parts such as a8f03c, 0ADCRFPGE7 and 06yMcBgkvFE, drawn at random, are words."""
    found, word = [], ""
    for part in re.finditer(r"[^\W_]+", stem):
        pieces = [*re.finditer(r"[0-9]+|[^0-9]+", part[0])]
        random = len(pieces) > 3 or re.match(r"\d+([^\W\d_]+\d|[^\W\d_]{5})", part[0])
        if random and not re.search(r"\dframe\d", part[0], re.IGNORECASE):
            word = part[0]
            continue
        for piece in pieces:
            if piece[0][0] in "0123456789":
                start = part.start() + piece.start()
                found.append(_Number(piece[0], word, start, start + len(piece[0])))
                word = ""
            else:
                word = piece[0]
    return found


def _varying(rows: Sequence[Sequence[_Number]]) -> list[int]:
    """Which of the numbers differ between names that are alike; of a single name, all."""
    columns = range(len(rows[0]))
    return [c for c in columns if len(rows) == 1 or len({row[c].value for row in rows}) > 1]


def _says(clip: str, source: str) -> Called:
    return Called(clip, _unlabelled(source))


def _of_alike(some: list[tuple[str, list[_Number]]]) -> dict[str, Called]:
    rows = [numbers for _, numbers in some]
    varying = _varying(rows)
    if not varying or CAMERA.fullmatch(some[0][0]):
        return {stem: Called() for stem, _ in some}
    marked = [c for c in varying if FRAME.fullmatch(rows[0][c].word)]
    if marked or _frame_first(some[0][0], rows, varying):
        frame = marked[-1] if marked else varying[0]
        return {stem: _around(stem, row, frame, varying) for stem, row in some}
    if any(len(row[c].text) > DIGITS for row in rows for c in varying[-1:]):
        return {stem: Called() for stem, _ in some}
    faces = _without_faces(rows, varying)
    # clip_12_0.998: hardly any first number twice, so what follows is about one frame.
    once = len({row[faces[0]].value for row in rows}) > 0.8 * len(rows)
    if len(faces) == 1 or once:
        return {stem: _one_number(stem, row, faces[0], varying) for stem, row in some}
    depth = _depth(rows, faces)
    return {
        stem: _says(_cut(stem[: row[faces[depth]].start]), stem[: row[faces[0]].end])
        for stem, row in some
    }


def _one_number(stem: str, row: list[_Number], frame: int, varying: list[int]) -> Called:
    before = _cut(stem[: row[frame].start])
    if len(before) < SHORT and varying != [frame]:
        before = stem[: row[frame].end]  # several faces of a picture, or pictures of a person
    return _says(before, before)


def _around(stem: str, row: list[_Number], frame: int, varying: list[int]) -> Called:
    """The number of the frame may be anywhere, as in frame12_071."""
    number = row[frame]
    word = number.word if FRAME.fullmatch(number.word) else ""
    before = _cut(stem[: number.start].rstrip(ENDS).removesuffix(word))
    if before:
        return _says(
            before, stem[: min([row[c].end for c in varying if c < frame] or [len(before)])]
        )
    rest = stem[number.end :].lstrip(ENDS)
    start = len(stem) - len(rest)
    ends = [row[c].end for c in varying if c > frame and not FACE.fullmatch(row[c].word)]
    ends = ends or [start + len(rest.rstrip(ENDS))]
    return _says(stem[start : ends[-1]], stem[start : ends[0]])


def _cut(text: str) -> str:
    """071 of 071_frame_."""
    return re.sub(r"([_\-. (#@]+(frames?|frm|fr|f|t|sec))?[_\-. (#@]*$", "", text, flags=re.I)


def _without_faces(rows: Sequence[Sequence[_Number]], varying: list[int]) -> list[int]:
    """The numbers that differ, without that of the face in a frame."""
    last = varying[-1]
    if len(varying) < 2 or max(len(row[last].text) for row in rows) > 1:
        return varying
    each = Counter(tuple(row[c].value for c in varying[:-1]) for row in rows)
    most = 3 if FACE.fullmatch(rows[0][last].word) else 2
    return varying[:-1] if len(rows) / len(each) < most else varying


def _depth(rows: Sequence[Sequence[_Number]], varying: list[int]) -> int:
    """Which of them is the frame: the first that mostly differs where all before it are equal."""
    for depth in range(1, len(varying) - 1):
        within = defaultdict(set)
        for row in rows:
            within[tuple(row[c].value for c in varying[:depth])].add(row[varying[depth]].value)
        differ = sum(len(values) > 1 for values in within.values())
        if 2 * differ >= len(within) and sum(map(len, within.values())) >= 0.4 * len(rows):
            return depth
    return len(varying) - 1


def _frame_first(stem: str, rows: Sequence[Sequence[_Number]], varying: list[int]) -> bool:
    """Whether the first number is that of the frame: 0012_clip3, 12_071_054, 00012_071."""
    first = rows[0][varying[0]]
    if first.start or len(varying) < 2 or len(rows) < 2:
        return False
    if CLIP.fullmatch(rows[0][varying[1]].word):
        return True
    if re.search(r"[^\W\d_]", stem):
        return False
    columns = [[row[c].value for row in rows] for c in varying]
    pairs = [len({*zip(*two, strict=True)}) for two in zip(columns, columns[1:], strict=False)]
    most = [len({*column}) for column in columns]
    if len(varying) == 3:  # 12_071_054: source and target go together, the frame does not
        return pairs[1] == max(most[1:]) > 1 and pairs[0] > max(most[:2])
    if len(varying) > 3 or pairs[0] < 0.7 * most[0] * most[1]:  # not the same frames of all
        return False
    step, other = (_step(column) for column in columns)
    if not step or step == 1 and min(columns[0]) > 1:
        return False
    return not other or step > 1 == other


def _step(values: Iterable[int]) -> int:
    """Of numbers that are evenly spaced, nearly; 0 of others. Of two, one has to be 0 or 1."""
    ordered = sorted({*values})
    if len(ordered) < 3 and ordered[0] > 1:
        return 0
    steps = {b - a for a, b in zip(ordered, ordered[1:], strict=False)}
    return min(steps) if steps and max(steps) - min(steps) <= (min(steps) > 1) else 0


def films_and_groups(pictures: Iterable[Called]) -> tuple[set[Called], set[Called]]:
    """Of what pictures of one folder are called: frames of films, and pictures of people."""
    count = Counter(pictures)
    long = {one for one in count if one.clip and count[one] > 1}
    numbers = {one for one in long if re.search(r"\d", one.clip)}
    films = {one for one in long if FILM.match(one.clip) or is_official(one.clip)}
    films |= numbers if len(numbers) > 1 else set()
    films |= {one for one in count if one.source in {film.source for film in films}}
    words = long - numbers - films
    return films, words if len(words) >= PEOPLE else set()


def is_official(name: str) -> bool:
    """Whether a published dataset calls a clip so, alone or not."""
    return bool(names.person(name) or names.actor(name) or len(names.sources(name)) == 2)
