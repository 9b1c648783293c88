"""Frames of video files, each with a name, so that a dataset of clips is a list of pictures.

`clip.mp4@3of32` is the fourth of 32 evenly spaced frames: number floor((3 + .5) * T / 32) of the T
frames of the video, in the order shown. The packets are listed first, without decoding; then each
frame is decoded from the nearest key packet before it.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from itertools import chain, groupby
from math import inf
from pathlib import Path
from typing import TypeVar

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import Type
from av.stream import Disposition
from av.video.stream import VideoStream

from data.images import MAX_PIXELS, SUFFIXES, ImageError, check_file, check_size, suffix_of
from data.missing import lateness, missing_times
from data.mp4_tables import check_tables

VIDEO_SUFFIXES = frozenset(
    [".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".avi", ".mkv", ".webm", ".mpg", ".mpeg"]
    + [".ts", ".mts", ".m2ts", ".wmv", ".flv"]
)
# The containers that are read, by FFmpeg's names. It knows more: some are playlists of other files.
FORMATS = ("mov", "matroska", "avi", "mpeg", "mpegts", "asf", "flv")
TIMED = ("mov", "matroska")  # those whose packets have the times of their frames
# Frames that are decoded on the way from a key frame to one that is wanted: at least so many, and
# more of small ones. Real videos have a key frame every ten seconds or less.
ON_THE_WAY, PIXELS_ON_THE_WAY = 1000, 8_000_000_000
WIDEST = 4  # ratio of the sides of a pixel, above which a header is not believed
RUN = (8, 3)  # frames before and after one that are compressed together with it

NAME = re.compile(r"(.+)@(\d+)of(\d+)", re.DOTALL)

T = TypeVar("T")
Numbered = Iterator[tuple[int, np.ndarray]]  # frames (H, W, 3) uint8 RGB with their numbers


def frame_names(video: str, count: int) -> list[str]:
    """The names of `count` evenly spaced frames of a video."""
    if count < 1:
        raise ValueError(f"--frames {count}: at least one frame of each video is needed")
    return [f"{video}@{i}of{count}" for i in range(count)]


def split_frame(path: str | Path) -> tuple[Path, int, int] | None:
    """The video, i and n of a frame's name; None for any other path."""
    match = NAME.fullmatch(str(path))
    if match is None or Path(match[1]).suffix.lower() not in VIDEO_SUFFIXES:
        return None
    i, n = int(match[2]), int(match[3])
    return (Path(match[1]), i, n) if i < n else None


def file_of(path: str | Path) -> Path:
    """The file that a picture or a frame is in."""
    return (split_frame(path) or [Path(path)])[0]


def read_frames(
    video: Path, wanted: Sequence[tuple[int, int]], max_pixels: int = MAX_PIXELS
) -> list[np.ndarray | ImageError]:
    """The frames (i, n) of a video, upright as its display matrix says. See `read_clip`."""
    return read_clip(video, wanted, max_pixels)[0]


def read_clip(
    video: Path,
    wanted: Sequence[tuple[int, int]],
    max_pixels: int = MAX_PIXELS,
    crf: float | None = None,
) -> tuple[list[np.ndarray | ImageError], int]:
    """The frames (i, n) of a video or why there is none, and the bytes of its stream per frame.

    crf: compress with H.264 at this constant rate factor first; each frame together with the few
    around it (`RUN`), as compressing all of a long clip would take minutes.
    """
    video = Path(video)
    paths = [Path(f"{video}@{i}of{n}") for i, n in wanted]
    try:
        packets = _list_packets(video, max_pixels)
    except ImageError as error:
        return [ImageError(path, error.reason) for path in paths], 0
    places = [_place(i, n, packets.count) for i, n in wanted]
    lost = f"damaged or cut short: this one of its {packets.count} frames cannot be decoded"
    repeated = f"the video has only {packets.count} frames: this one would repeat an earlier one"
    found = {}
    try:
        found.update(_decoded(video, packets, sorted({*places} - {None}), max_pixels, crf))
    except ImageError as error:  # those before it are kept
        lost = error.reason
    frames = [
        ImageError(path, repeated, repeated=True)
        if place is None
        else found.get(place, ImageError(path, lost))
        for path, place in zip(paths, places, strict=True)
    ]
    return frames, packets.frame_bytes


def seconds_of(video: Path) -> float | None:
    """The duration by the file's header; None unknown."""
    return _told(video, lambda file: file.duration / av.time_base if file.duration else None)


def stream_count(video: Path) -> int:
    """Videos in a file, of which the first is read; covers of music do not count. 0: unreadable."""
    return _told(video, lambda file: len(_streams(file))) or 0


def _told(video: Path, what: Callable[[InputContainer], T]) -> T | None:
    """None where the file cannot be opened."""
    try:
        with _container(Path(video)) as container:
            return what(container)
    except (av.FFmpegError, OSError, ValueError):
        return None


def _streams(container: InputContainer) -> list[VideoStream]:
    picture = Disposition.attached_pic
    return [each for each in container.streams.video if not each.disposition & picture]


def _container(video: Path) -> InputContainer:
    """The opened file. Raises: ImageError, FFmpegError."""
    check_file(video)
    with video.open("rb") as file:
        kind = suffix_of(file.read(16))
    if kind in SUFFIXES:
        raise ImageError(video, f"a picture, not a video; name it {kind}")
    check_tables(video)
    options = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"}
    # With its protocol, a name that holds a colon is a name.
    return av.open(f"file:{video}", container_options=options, metadata_errors="ignore")


def _place(i: int, n: int, count: int) -> int | None:
    """Which of `count` frames the i-th of n is; None where the one before it is the same."""
    before, place = ((2 * k + 1) * count // (2 * n) for k in (i - 1, i))
    return None if before == place else place


@dataclass(frozen=True)
class _Packets:
    """The packets of a video stream."""

    count: int  # of frames
    frame_bytes: int  # average size of a frame
    times: list[int] | None  # of each frame, ascending, in the stream's units; None unreliable
    keys: list[int]  # those of the times that decoding can begin at
    holes: list[tuple[int, int]]  # from which time frames may lack one, which lacks; up to a key


@contextmanager
def _opened(video: Path, max_pixels: int) -> Iterator[VideoStream]:
    """Raises: ImageError where there is no video, and for all errors of FFmpeg inside."""
    try:
        with _container(video) as container:
            streams = _streams(container)
            if not streams:
                raise ImageError(video, "no video in it, only sound or other data")
            codec = streams[0].codec_context
            if codec is None:
                raise ImageError(video, "compressed in a way that cannot be read")
            check_size(video, codec.width, codec.height, max_pixels)
            codec.thread_count = 1  # several files are read at once
            yield streams[0]
    except av.FFmpegError as error:
        raise ImageError(video, f"not a video, or damaged ({error.strerror})") from error
    except MemoryError as error:
        raise ImageError(video, "takes more memory to decode than there is") from error


def _list_packets(video: Path, max_pixels: int) -> _Packets:
    with _opened(video, max_pixels) as stream:
        # The last packet is empty: it flushes the decoder.
        packets = (packet for packet in stream.container.demux(stream) if packet.size)
        listed = [(p.pts, p.is_keyframe, p.size, p.is_discard, p.dts) for p in packets]
        shown = [(time, key, order) for time, key, _, discard, order in listed if not discard]
        if not shown:
            raise ImageError(video, "damaged or cut short: no frames in it")
        kind = stream.container.format.name
        timed = kind.startswith(TIMED) and all(time is not None for time, *_ in shown)
        times = sorted({time if timed else order for time, _, order in shown} - {None})
        # The index of an MP4 file lists also what was cut off at its end.
        lost = max(0, stream.frames - len(listed)) if kind.startswith("mov") else 0
        gone = [] if lost or not times else missing_times(video, stream, times)
        count = (len(times) if timed else len(shown)) + lost + len(gone)
    keys = sorted({time for time, key, _ in shown if key}) if timed else []
    frame_bytes = round(sum(size for _, _, size, _, _ in listed) / len(listed))
    if not timed:
        return _Packets(count, frame_bytes, None, [], [])
    late = lateness([time for time, *_ in shown])
    holes = [(times[max(0, bisect_left(times, t) - late)], t) for t in gone if t < times[-1]]
    return _Packets(count, frame_bytes, sorted(times + gone), keys, holes)


def _decoded(
    video: Path, packets: _Packets, numbers: Sequence[int], max_pixels: int, crf: float | None
) -> Numbered:
    """Those of the frames `numbers` (ascending) that can be decoded."""
    with _opened(video, max_pixels) as stream:
        shape = stream.sample_aspect_ratio

        def images(numbers: Sequence[int]) -> Numbered:
            read = (
                _by_time(stream, packets, numbers) if packets.times else _by_count(stream, numbers)
            )
            for number, frame in read:
                check_size(video, _width(frame, shape), frame.height, max_pixels)
                yield number, _upright(_square(frame, shape), frame)

        if crf is None:
            yield from images(numbers)
        else:
            yield from _compressed(images, numbers, packets.count, crf)


def _by_time(
    stream: VideoStream, packets: _Packets, numbers: Iterable[int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Frames by the time shown, decoded from each key packet that some of them depend on."""
    times, container = packets.times, stream.container
    number_at = {time: number for number, time in enumerate(times)}
    present = (number for number in numbers if number < len(times))
    for begin, group in groupby(present, key=lambda n: bisect_right(packets.keys, times[n])):
        key = packets.keys[begin - 1] if begin else times[0]
        hole = next((begin for begin, time in packets.holes if time > key), inf)
        wanted = {number for number in group if times[number] < hole}
        if not wanted:
            continue
        container.seek(key, stream=stream)
        most = max(ON_THE_WAY, PIXELS_ON_THE_WAY // max(1, stream.width * stream.height))
        passed = 0
        for frame, sound in _frames(container.demux(stream)):
            number, passed = number_at.get(frame.pts), passed + 1
            if passed > most:
                raise ImageError(
                    Path(stream.container.name), f"no key frame in {most} frames before this one"
                )
            if number in wanted and sound:
                passed = 0
                yield number, frame
            if frame.pts is None or frame.pts >= times[max(wanted)]:
                break


def _by_count(stream: VideoStream, numbers: Iterable[int]) -> Iterator[tuple[int, av.VideoFrame]]:
    """Frames by counting from the first one, up to a lost one."""
    wanted = set(numbers)
    for number, (frame, sound) in enumerate(_frames(stream.container.demux(stream))):
        if not sound or number > max(wanted, default=-1):
            break
        if number in wanted:
            yield number, frame


def _frames(packets: Iterable[av.Packet]) -> Iterator[tuple[av.VideoFrame, bool]]:
    """Frames in the order shown, and whether each is sound: none after damage until a key frame."""
    spoilt = False
    for packet in packets:
        try:
            frames = packet.decode()
        except av.FFmpegError:
            spoilt = True
            continue
        for frame in frames:
            spoilt = (spoilt and not frame.key_frame) or frame.is_corrupt
            yield frame, not spoilt


def _width(frame: av.VideoFrame, shape: Fraction | None) -> int:
    """As it is shown: pixels need not be square. shape: of one, wide to high."""
    if not shape or not 1 / WIDEST <= shape <= WIDEST:
        return frame.width
    return max(1, round(frame.width * shape))


def _square(frame: av.VideoFrame, shape: Fraction | None) -> np.ndarray:
    """The picture with square pixels; scaled as players do, in width."""
    image, width = frame.to_ndarray(format="rgb24"), _width(frame, shape)
    if width == frame.width:
        return image
    method = cv2.INTER_AREA if width < frame.width else cv2.INTER_CUBIC
    return cv2.resize(image, (width, frame.height), interpolation=method)


def _upright(image: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Turned and mirrored by the display matrix a, b, u, c, d, v, x, y, w (ISO/IEC 14496-12,
    6.2.2): a point (p, q) goes to (a p + c q, b p + d q).
    """
    data = frame.side_data.get(Type.DISPLAYMATRIX)
    if data is None:
        return image
    a, b, _, c, d, *_ = struct.unpack("9i", bytes(data))
    if abs(b) > abs(a):
        image, a, d = image.swapaxes(0, 1), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _compressed(
    images: Callable[[Sequence[int]], Numbered], numbers: Sequence[int], count: int, crf: float
) -> Numbered:
    """The frames, each compressed in a run around it. images: reads frames by ascending numbers."""
    before, after = RUN
    runs = {n: range(max(0, n - before), min(count, n + after + 1)) for n in numbers}
    reader = images(sorted(set(chain.from_iterable(runs.values()))))
    held = {}
    for number, run in runs.items():
        while max(held, default=-1) < run[-1] and (following := next(reader, None)) is not None:
            held |= [following]
        held = {key: image for key, image in held.items() if key >= run[0]}
        if number in held:
            keys = [key for key in run if key in held]
            yield number, h264([held[key] for key in keys], crf)[keys.index(number)]


def h264(images: Sequence[np.ndarray], crf: float) -> list[np.ndarray]:
    """Consecutive (H, W, 3) uint8 RGB frames after compression by x264 (preset medium)."""
    height, width = images[0].shape[:2]
    file = BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": str(crf), "threads": "1"})
        stream.width, stream.height = width, height
        # Halved colour needs even sides.
        stream.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
        for image in images:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
