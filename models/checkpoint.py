"""A detector on disk: its description as JSON, its numbers as safetensors. No pickle, no code.

`checkpoint.json` names its numbers by their SHA-256 (`arrays-<12 digits>.safetensors`) and takes the
place of the former one in one step: whenever a writer dies, the old detector or the new one is
whole. It also carries the SHA-256 of its own content: a change by hand is refused.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from data.files import replacing
from models.checkpoint_schema import check

FORMAT = 3
CHECKPOINTS = Path("checkpoints")  # <name>/checkpoint.json below it
BUNDLED = Path(__file__).parent.parent / "checkpoints" / "default"
LITE = BUNDLED.with_name("lite")  # the bundled one that needs nothing but bundled weights
PRIOR = 0.5  # share of fakes that p_fake is calibrated for
INFO, METRICS, SPLITS = "checkpoint.json", "metrics.json", "splits.csv"
ARRAYS = re.compile(r"arrays(-[0-9a-f]{12})?\.safetensors(\.partial)?")  # of any format
DIGEST = re.compile(r"[0-9a-f]{64}")
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EBADF)  # of some network drives


@dataclass
class Checkpoint:
    """A detector, as models/checkpoint_schema.py wants it.

    info: JSON-ready description; arrays: name -> numbers; where: it was read, for messages.
    """

    info: dict
    arrays: dict[str, np.ndarray]
    where: str = field(default="the detector", compare=False)

    def save(self, folder: Path) -> Path:
        """Put this detector into `folder`, in place of one that is there; other files stay."""
        with self.saving(folder):
            return Path(folder)

    @contextmanager
    def saving(self, folder: Path) -> Iterator[None]:
        """As `save`; METRICS and SPLITS of the former detector are gone, and the body may write its
        own. One process at a time writes into the folder; others wait.

        Raises: ValueError: this is no detector, and nothing is written.
        """
        folder = Path(folder)
        info, numbers = self._sealed(folder / INFO)
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            current = _arrays_of(info)
            with replacing(folder / current) as file:
                file.write(numbers)
            with replacing(folder / INFO) as file:
                file.write((json.dumps(info, indent=1, ensure_ascii=False) + "\n").encode())
                file.flush()  # raises where the disk is full, and the former figures stay
                for name in (METRICS, SPLITS):
                    (folder / name).unlink(missing_ok=True)
            yield
            for old in folder.iterdir():
                if ARRAYS.fullmatch(old.name) and old.name != current:
                    old.unlink(missing_ok=True)

    def _sealed(self, where: Path) -> tuple[dict, bytes]:
        """The content of both files."""
        try:
            check(self.info, self.arrays)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        numbers = save({name: np.asarray(value, order="C") for name, value in self.arrays.items()})
        info = {"format": FORMAT, **self.info, "arrays_sha256": hashlib.sha256(numbers).hexdigest()}
        return {**info, "sha256": _digest(info)}, numbers

    @property
    def sha256(self) -> str:
        """Of everything that this detector is; METRICS repeats it."""
        return self._sealed(Path(INFO))[0]["sha256"]

    @classmethod
    def load(cls, folder: Path) -> Checkpoint:
        """Read what `save` wrote. Raises: FileNotFoundError; ValueError: damaged or changed."""
        path = Path(folder) / INFO
        if not path.is_file():
            raise FileNotFoundError(f"{folder}: no {INFO} there; make one with train.py")
        while True:
            content = path.read_bytes()
            info = _read_info(path, content)
            file = path.with_name(_arrays_of(info))
            try:
                numbers = file.read_bytes()
                break
            except FileNotFoundError as error:
                if path.read_bytes() == content:  # else another process has just replaced both
                    message = f"{file}: missing, though {INFO} is present; train again"
                    raise FileNotFoundError(message) from error
        if hashlib.sha256(numbers).hexdigest() != info.pop("arrays_sha256"):
            raise ValueError(f"{file}: damaged, or does not belong to {INFO}; train again")
        del info["format"]
        try:
            arrays = load(numbers)
            check(info, arrays)
        except (SafetensorError, LookupError) as error:  # LookupError: a type that numpy lacks
            raise ValueError(f"{file}: not arrays of numbers ({error}); train again") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}; train again") from error
        return cls(info, arrays, str(path))

    def warning_for(self, meta: Mapping, digest: str) -> str:
        """One line where a dump was made anew since this detector was trained on it, else empty.

        meta: the dump's meta.json; digest: its `data.dump.Dump.digest`.
        """
        now = (meta["dataset"], meta["profile"], meta["config"].get("degrade", ""))
        dumps = self.info.get("dumps", ())
        made = [x["digest"] for x in dumps if (x["dataset"], x["profile"], x["condition"]) == now]
        if not any(made) or digest in made:
            return ""
        return (
            f"the dump of {meta['dataset']} was made anew since this detector was trained: its test "
            "faces may be training faces, and the figures too good; train again"
        )

    def check_outputs(self, meta: Mapping, where: str) -> None:
        """Raises: ValueError where a dump has other weights or outputs than this detector.

        meta: the dump's meta.json; where: how the message begins.
        """
        for what in ("weights", "outputs"):
            wanted = self.info[what]
            if differing := [name for name in wanted if meta[what].get(name) != wanted[name]]:
                raise ValueError(
                    f"{where}: its {what} of {', '.join(differing)} are missing or not those of "
                    "the detector; preprocess the dataset again, or train again"
                )


def _arrays_of(info: Mapping) -> str:
    return f"arrays-{info['arrays_sha256'][:12]}.safetensors"


def _digest(info: Mapping) -> str:
    """SHA-256 of the content, whatever the spaces and line ends."""
    return hashlib.sha256(json.dumps(info, separators=(",", ":")).encode()).hexdigest()


def _read_info(path: Path, content: bytes) -> dict:
    """Raises: ValueError: not JSON, of another format, or changed since it was written."""
    try:
        info = json.loads(content.decode("utf-8"))
        digest = info.pop("sha256", None) if isinstance(info, dict) else None
        fits = isinstance(info, dict) and digest == _digest(info)
    except RecursionError as error:
        raise ValueError(
            f"{path}: not JSON of a detector (nested too deep); train again"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); train again") from error
    found = info.get("format") if isinstance(info, dict) else None
    if found != FORMAT or type(found) is not int:
        raise ValueError(f"{path}: of format {found!r:.40}, not {FORMAT}; train again")
    if not fits or not DIGEST.fullmatch(str(info.get("arrays_sha256"))):
        raise ValueError(
            f"{path}: changed since it was written (its sha256 does not fit its content); restore "
            "it, or train again"
        )
    return info


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Waits until no other process writes into the folder, and keeps others waiting."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield
    finally:
        os.close(handle)


def newest_checkpoint(root: Path = CHECKPOINTS) -> Path:
    """The checkpoint below `root` that train.py wrote last, else the bundled default.

    Raises: FileNotFoundError: none there.
    """
    written = {info.parent: info.stat().st_mtime_ns for info in Path(root).glob(f"*/{INFO}")}
    if not written:
        raise FileNotFoundError(f"{root}: no checkpoint there; make one with: python train.py")
    bundled = {LITE: -2, BUNDLED: -1}  # whose times are those of the checkout
    return max(written, key=lambda folder: bundled.get(folder.resolve(), written[folder]))
