"""A detector on disk: its description as JSON, its numbers as safetensors. No pickle, no code.

`checkpoint.json` carries the SHA-256 of `arrays.safetensors` and is written last: where it is
present and matches, the checkpoint is whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from data.files import replacing

FORMAT = 2
CHECKPOINTS = Path("checkpoints")  # <name>/checkpoint.json below it
INFO, ARRAYS = "checkpoint.json", "arrays.safetensors"


@dataclass
class Checkpoint:
    """info: JSON-ready description; arrays: name -> numbers of any numpy type."""

    info: dict
    arrays: dict[str, np.ndarray]

    def save(self, folder: Path) -> Path:
        """Write both files into `folder`; others there stay."""
        folder = Path(folder)
        numbers = save({name: np.asarray(value, order="C") for name, value in self.arrays.items()})
        info = {"format": FORMAT, **self.info, "arrays_sha256": hashlib.sha256(numbers).hexdigest()}
        text = json.dumps(info, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in ((ARRAYS, numbers), (INFO, text.encode())):
            with replacing(folder / name) as file:
                file.write(content)
        return folder

    @classmethod
    def load(cls, folder: Path) -> Checkpoint:
        """Read what `save` wrote. Raises: FileNotFoundError; ValueError: damaged."""
        folder = Path(folder)
        path = folder / ARRAYS
        if not (folder / INFO).is_file():
            raise FileNotFoundError(f"{folder}: no {INFO} there; make one with train.py")
        try:
            info = json.loads((folder / INFO).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{folder / INFO}: not JSON ({error}); train again") from error
        found = info.get("format") if isinstance(info, dict) else None
        if found != FORMAT:
            raise ValueError(f"{folder}: of format {found}, not {FORMAT}; train again")
        if not path.is_file():
            raise FileNotFoundError(f"{path}: missing, though {INFO} is present; train again")
        numbers = path.read_bytes()
        if hashlib.sha256(numbers).hexdigest() != info.pop("arrays_sha256", None):
            raise ValueError(f"{folder}: {ARRAYS} does not belong to {INFO}; train again")
        return cls(info, load(numbers))

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


def newest_checkpoint(root: Path = CHECKPOINTS) -> Path:
    """The checkpoint below `root` that was written last. Raises: FileNotFoundError."""
    written = list(Path(root).glob(f"*/{INFO}"))
    if not written:
        raise FileNotFoundError(f"{root}: no checkpoint there; make one with: python train.py")
    return max(written, key=lambda info: info.stat().st_mtime_ns).parent
