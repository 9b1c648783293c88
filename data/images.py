"""Image files: training and prediction read them by the same code."""

from __future__ import annotations

import stat
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from scipy.fft import dctn

MAX_PIXELS = 100_000_000
MIN_SIDE = 16  # px; nothing smaller can show a face
# The formats that are read. Pillow knows more: some are no pictures, one starts a program.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
SUFFIXES = frozenset([".jpg", ".jpeg", ".jfif", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff"])
# Raised by Pillow's readers on damaged files.
DAMAGE = (OSError, SyntaxError, ValueError, LookupError, TypeError, EOFError, ArithmeticError)
DAMAGE += (MemoryError, struct.error, zlib.error)
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


class ImageError(ValueError):
    """A file that cannot be used as a picture. The message begins with its path.

    repeated: nothing is wrong: a video has fewer frames than were asked for.
    """

    def __init__(self, path: Path, reason: str, repeated: bool = False) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason, self.repeated = path, reason, repeated

    def __reduce__(self) -> tuple:
        # Worker processes hand errors back.
        return type(self), (self.path, self.reason, self.repeated)


def read_image(path: Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The picture in a file, (H, W, 3) uint8 RGB: upright, the first frame of several.

    Transparent pixels are laid on white, 16-bit grey is scaled to 8 bits, colour profiles are
    ignored. The content decides the format, not the suffix. Raises only ImageError.
    """
    # Pillow has a guard of its own, at 89 million pixels; it must not be stricter than the caller.
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, max_pixels)
    path = Path(path)
    check_file(path)
    try:
        with Image.open(path, formats=FORMATS) as image:
            return pixels_of(image, path, max_pixels)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(path, f"larger than the limit of {max_pixels:,} pixels") from error
    except UnidentifiedImageError as error:
        raise ImageError(path, f"not an image ({', '.join(FORMATS)} are read)") from error
    except DAMAGE as error:
        raise ImageError(path, f"damaged or cut short ({error})") from error


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
