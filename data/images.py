"""Image files: training and prediction read them by the same code."""

from __future__ import annotations

import ctypes
import logging
import stat
import warnings
from collections.abc import Callable
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeVar

import cv2
import numpy as np
import PIL
from PIL import Image, UnidentifiedImageError
from scipy.fft import dctn

from data.mending import DAMAGE, mended, segments

MAX_PIXELS = 100_000_000
MIN_SIDE = 16  # px; nothing smaller can show a face
# The formats that are read. Pillow knows more: some are no pictures, one starts a program.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF")
SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jfif", ".mpo", ".png", ".apng", ".gif", ".webp", ".avif", ".bmp"]
    + [".tif", ".tiff"]
)
# What looks like a picture or a video and is not read -> why, and what to do.
UNREAD = {
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIC is not read; convert it to JPEG or PNG"),
    ".jxl": "JPEG XL is not read; convert it to JPEG or PNG",
    **dict.fromkeys((".jp2", ".j2k", ".jpx"), "JPEG 2000 is not read; convert it to PNG"),
    **dict.fromkeys(
        (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".raw"),
        "raw camera data are not read; convert them to JPEG or PNG",
    ),
    **dict.fromkeys((".psd", ".xcf"), "a drawing in layers is not read; save it as PNG"),
    **dict.fromkeys((".svg", ".svgz", ".pdf", ".eps", ".ai"), "drawings are not read"),
    **dict.fromkeys(
        (".tga", ".ppm", ".pgm", ".pnm", ".exr", ".hdr", ".ico", ".pcx"),
        "this format is not read; convert it to PNG",
    ),
    **dict.fromkeys(
        (".ogv", ".ogm", ".rm", ".rmvb", ".vob", ".mxf", ".dv", ".h264", ".h265", ".hevc", ".y4m"),
        "this kind of video is not read; convert it to MP4",
    ),
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"), "an archive; unpack it first"),
}
# First bytes of a file, from a place on -> its suffix.
SIGNATURES = (
    (0, b"\xff\xd8\xff", ".jpg"),
    (0, b"\x89PNG\r\n\x1a\n", ".png"),
    (0, b"GIF8", ".gif"),
    (8, b"WEBP", ".webp"),
    (0, b"BM", ".bmp"),
    (0, b"II*\0", ".tif"),
    (0, b"MM\0*", ".tif"),
    *((4, b"ftyp" + brand, ".avif") for brand in (b"avif", b"avis")),
    *((4, b"ftyp" + brand, ".heic") for brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1")),
    (4, b"ftyp", ".mp4"),
    (0, b"\0\0\0\x0cJXL ", ".jxl"),
    (0, b"\xff\x0a", ".jxl"),
    (0, b"\0\0\0\x0cjP  ", ".jp2"),
    (0, b"\x1a\x45\xdf\xa3", ".mkv"),
    (8, b"AVI ", ".avi"),
    (0, b"\0\0\x01\xba", ".mpg"),
    (0, b"FLV\x01", ".flv"),
    (0, b"0&\xb2u\x8ef\xcf\x11", ".wmv"),
    (0, b"8BPS", ".psd"),
    (0, b"%PDF", ".pdf"),
    (0, b"PK\x03\x04", ".zip"),
)
ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")  # formats whose further frames are later, not other pages
MAX_SCANS = 64  # of a JPEG; encoders use ten or so, and each costs the time of a whole picture
COMMENTED = 1 << 20  # bytes of a GIF from which on its comments are taken out

T = TypeVar("T")
# The EXIF tag, and how its values other than 1 are undone. ImageOps.exif_transpose fails where
# other EXIF data are damaged.
ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _quiet() -> None:
    """What Pillow and libtiff say of damage and metadata; errors are raised all the same.

    For all threads, as warnings.catch_warnings is for one only.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL + 1)
    for file in Path(PIL.__path__[0]).parent.glob("pillow.libs/libtiff*"):
        library = ctypes.CDLL(str(file))
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)


_quiet()


class ImageError(ValueError):
    """A file that cannot be used as a picture. The message begins with its path.

    repeated: nothing is wrong: a video has fewer frames than were asked for.
    """

    def __init__(self, path: Path, reason: str, repeated: bool = False) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason, self.repeated = path, reason, repeated

    def __reduce__(self) -> tuple:
        return type(self), (
            self.path,
            self.reason,
            self.repeated,
        )  # worker processes hand errors back


def read_image(path: Path, max_pixels: int = MAX_PIXELS, frame: int = 0) -> np.ndarray:
    """The picture in a file, (H, W, 3) uint8 RGB, upright.

    Transparent pixels are laid on white, 16-bit grey is scaled to 8 bits, colour profiles are
    ignored. The content decides the format, not the suffix. Raises only ImageError.

    frame: of an animated picture (`frame_count`).
    """
    path = Path(path)
    return _opened(path, max_pixels, lambda image: _frame(image, path, max_pixels, frame))


def frame_count(path: Path, max_pixels: int = MAX_PIXELS) -> int:
    """Frames of an animated picture; 1 for any other. Raises only ImageError."""
    return _opened(Path(path), max_pixels, _count)


def picture_count(path: Path, max_pixels: int = MAX_PIXELS) -> int:
    """All pictures in a file: frames, pages, or others behind the first. Raises only ImageError.

    Not the gain map of a phone's photograph (MPO), which is smaller.
    """
    return _opened(Path(path), max_pixels, _count_all)


def _opened(path: Path, max_pixels: int, work: Callable[[Image.Image], T]) -> T:
    """What `work` makes of a picture. Raises only ImageError."""
    # Pillow has a guard of its own, at 89 million pixels; it must not be stricter than the caller.
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, max_pixels)
    check_file(path)
    suffix = ""
    try:
        with path.open("rb") as file:
            suffix = suffix_of(file.read(16))
            file.seek(0)
            if suffix == ".jpg":
                _check_scans(path, file)
            elif suffix == ".gif" and path.stat().st_size > COMMENTED:
                return _worked(_bare_gif(file), work)
            try:
                return _worked(file, work)
            except (ImageError, MemoryError):
                raise
            except DAMAGE as error:
                return _mended(suffix, file, work, error)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(path, f"larger than the limit of {max_pixels:,} pixels") from error
    except UnidentifiedImageError as error:
        raise ImageError(path, _unlike(suffix)) from error
    except MemoryError as error:
        raise ImageError(path, "takes more memory to decode than there is") from error
    except DAMAGE as error:
        raise ImageError(path, f"damaged or cut short ({error})") from error


def _worked(file: BinaryIO, work: Callable[[Image.Image], T]) -> T:
    file.seek(0)
    with Image.open(file, formats=FORMATS) as image:
        return work(image)


def _mended(suffix: str, file: BinaryIO, work: Callable[[Image.Image], T], error: Exception) -> T:
    """What `work` makes of it without damaged metadata. Raises: `error` where it cannot."""
    for other in mended(suffix, file):
        try:
            return _worked(other, work)
        except (ImageError, MemoryError):
            raise
        except DAMAGE:  # the first one is the one to tell
            continue
    raise error


def _unlike(suffix: str) -> str:
    """Why a file is no picture. suffix: by its first bytes."""
    if suffix in UNREAD:
        return UNREAD[suffix]
    if suffix and suffix not in SUFFIXES:
        return f"a video, not a picture; name it {suffix}"
    if suffix:
        return f"damaged or cut short (begins like {suffix[1:].upper()})"
    return f"not an image ({', '.join(FORMATS)} are read)"


def suffix_of(head: bytes) -> str:
    """What a file should be called by its first 16 bytes, such as ".jpg"; "" unknown."""
    found = (suffix for start, mark, suffix in SIGNATURES if head[start:].startswith(mark))
    return next(found, "")


def _frame(image: Image.Image, path: Path, max_pixels: int, frame: int) -> np.ndarray:
    check_size(path, *image.size, max_pixels)
    if frame:
        image.seek(frame)
    return pixels_of(image, path, max_pixels)


def _count(image: Image.Image) -> int:
    return getattr(image, "n_frames", 1) if image.format in ANIMATED else 1


def _count_all(image: Image.Image) -> int:
    count = getattr(image, "n_frames", 1)
    if image.format != "MPO":
        return count
    first, sizes = image.size, []
    for frame in range(count):
        image.seek(frame)
        sizes.append(image.size)
    return sizes.count(first)


def pixels_of(image: Image.Image, path: Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """An opened picture as `read_image` returns it. Raises also what is in `DAMAGE`."""
    check_size(path, *image.size, max_pixels)
    image.load()
    rgb = _rgb(image, path)
    try:
        turn = UPRIGHT.get(image.getexif().get(ORIENTATION))
    except DAMAGE:
        turn = None
    return np.array(rgb if turn is None else rgb.transpose(turn))


def check_size(path: Path, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageError(path, f"larger than the limit of {max_pixels:,} pixels")
    if min(width, height) < MIN_SIDE:
        raise ImageError(path, f"too small ({width}x{height} pixels)")


def check_file(path: Path) -> None:
    """Raises: ImageError where there is no file with content."""
    try:
        status = path.stat()
        regular = stat.S_ISREG(status.st_mode)
        if regular:  # opening a pipe would wait for ever
            path.open("rb").close()
    except (OSError, ValueError) as error:  # ValueError: no name of a file
        reason = getattr(error, "strerror", None) or error
        raise ImageError(path, f"cannot be opened ({reason})") from error
    if not regular:
        folder = stat.S_ISDIR(status.st_mode)
        raise ImageError(path, "a folder, not a file" if folder else "not a regular file")
    if status.st_size == 0:
        raise ImageError(path, "an empty file")


def _check_scans(path: Path, file: BinaryIO) -> None:
    """Raises: ImageError for a JPEG whose decoding would take minutes."""
    scans = (kind for kind, *_ in segments(file.read()) if kind == 0xDA)
    if next(islice(scans, MAX_SCANS, None), None):
        raise ImageError(path, f"a JPEG of more than {MAX_SCANS} scans; save it anew")


def _bare_gif(file: BinaryIO) -> BytesIO:
    """Without comments: Pillow's time is quadratic in them. As it is from damage on."""
    data = file.read()
    kept, place = [], 13 + _colours(data[10:11])
    start = 0
    while (kind := data[place : place + 1]) in (b"!", b","):
        begin, comment = place, data[place : place + 2] == b"!\xfe"
        place += 2 if kind == b"!" else 11 + _colours(data[place + 9 : place + 10])
        while place < len(data) and data[place]:
            place += data[place] + 1
        place += 1
        if comment:
            kept.append(data[start:begin])
            start = place
    return BytesIO(b"".join([*kept, data[start:]]))


def _colours(flags: bytes) -> int:
    """Bytes of a GIF's table of colours."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 128 else 0


def _rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode.startswith("I;16"):  # Pillow's own conversion clips at 255
        grey = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ImageError(path, "32 bits a pixel: which values are black and white is unknown")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")


def perceptual_hash(image: np.ndarray) -> str:
    """pHash of (H, W, 3) uint8 RGB as in the imagehash package, 16 hexadecimal digits.

    64 bits that hardly change when a picture is scaled or compressed: which of the lowest 8x8
    coefficients of its cosine transform at 32x32 grey pixels are above their median.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float64)
    low = dctn(small)[:8, :8].round(3)  # rounded: noise must not decide about flat pictures
    return np.packbits(low > np.median(low)).tobytes().hex()
