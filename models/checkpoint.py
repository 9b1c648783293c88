"""A detector on disk: what it is, as JSON, and its numbers, as safetensors. No pickle, nothing that runs on loading.

`checkpoint.json` describes the detector and carries the SHA-256 of `arrays.safetensors`, so that the halves of two detectors
are never taken for one. It is written last: where it is and matches, the checkpoint is whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

FORMAT = 1
CHECKPOINTS = Path("checkpoints")  # <name>/checkpoint.json below it


@dataclass
class Checkpoint:
    """info: JSON-ready description; arrays: name -> numbers of any numpy type."""

    info: dict
    arrays: dict[str, np.ndarray]

    def save(self, folder: Path) -> Path:
        """Write both files into `folder`, each to a temporary name first. Other files there stay. Returns: `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        numbers = save({name: np.asarray(value, order="C") for name, value in self.arrays.items()})
        info = {"format": FORMAT, **self.info, "arrays_sha256": hashlib.sha256(numbers).hexdigest()}
        text = json.dumps(info, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
        for name, content in (("arrays.safetensors", numbers), ("checkpoint.json", text.encode())):
            partial = folder / f"{name}.partial"
            partial.write_bytes(content)
            partial.replace(folder / name)
        return folder

    @classmethod
    def load(cls, folder: Path) -> Checkpoint:
        """Read a folder that `save` wrote.

        Raises: FileNotFoundError where there is none; ValueError where it is of another format, or damaged.
        """
        folder = Path(folder)
        if not (folder / "checkpoint.json").is_file():
            raise FileNotFoundError(
                f"{folder}: no checkpoint there (no checkpoint.json); make one with train.py"
            )
        try:
            info = json.loads((folder / "checkpoint.json").read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(
                f"{folder / 'checkpoint.json'}: not JSON ({error}); train again"
            ) from error
        found = info.get("format") if isinstance(info, dict) else None
        if found != FORMAT:
            raise ValueError(
                f"{folder}: a checkpoint of format {found}; this version reads {FORMAT}; train again"
            )
        path = folder / "arrays.safetensors"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: missing, though checkpoint.json is there; train again"
            )
        numbers = path.read_bytes()
        if hashlib.sha256(numbers).hexdigest() != info.pop("arrays_sha256", None):
            raise ValueError(
                f"{folder}: arrays.safetensors does not belong to checkpoint.json; train again"
            )
        try:
            return cls(info, load(numbers))
        except SafetensorError as error:
            raise ValueError(f"{path}: damaged ({error}); train again") from error

    def check_outputs(self, meta: Mapping, where: str) -> None:
        """Are the answers that `meta` (a dump's meta.json) describes those that this detector was trained on?

        `meta` may hold more outputs and experts. Raises: ValueError that begins with `where` and says which differ.
        """
        for what in ("weights", "outputs"):
            wanted, there = self.info[what], meta[what]
            differing = [name for name in wanted if there.get(name) != wanted[name]]
            if differing:
                raise ValueError(
                    f"{where}: its {what} of {', '.join(differing)} are missing or not those of the detector; "
                    f"preprocess the dataset again{' with the same weights' if what == 'weights' else ''}, or train again"
                )


def newest_checkpoint(root: Path = CHECKPOINTS) -> Path:
    """The checkpoint below `root` that was written last.

    Raises: FileNotFoundError where there is none.
    """
    written = [
        (info.stat().st_mtime_ns, info.parent) for info in Path(root).glob("*/checkpoint.json")
    ]
    if not written:
        raise FileNotFoundError(f"{root}: no checkpoint there; make one with: python train.py")
    return max(written)[1]
