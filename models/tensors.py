"""Reading weight files without running anything that is in them, and loading them so that nothing is left to chance."""

from __future__ import annotations

import hashlib
import pickle
import re
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

PAGE = re.compile(rb"\s*<(!doctype html|html)", re.IGNORECASE)  # how a web page begins
# What loading a damaged file raises, depending on which of its bytes is wrong.
DAMAGED = (
    SafetensorError,
    pickle.PickleError,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,
    AssertionError,
)
DAMAGED += (AttributeError, ArithmeticError, LookupError, TypeError, ValueError, MemoryError)


class WeightsError(ValueError):
    """A file that is there but is not what it should be; the message begins with its path."""


class MissingWeightsError(FileNotFoundError):
    """A file that is not there and cannot be had; the message says from where, on which terms, and where to put it."""


def sha256_of(path: Path) -> str:
    """Hex digits, read piece by piece."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a flat state dict, on the CPU, by name: `.safetensors`, or a file that torch.save wrote, old or new.

    Raises: WeightsError for anything else, damaged files, and pickles that would run code; MissingWeightsError.
    """
    if not path.is_file():
        raise MissingWeightsError(
            f"{path}: no such file; python -m models.weights list says which are known"
        )
    with path.open("rb") as file:
        if PAGE.match(file.read(512)):
            raise WeightsError(
                f"{path}: a web page, not weights; delete it and fetch the file itself"
            )
    try:
        with warnings.catch_warnings(
            action="ignore"
        ):  # torch's advice to load what it refuses in unsafe ways
            safe = path.suffix == ".safetensors"
            found = (
                load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
            )
    except DAMAGED as error:
        reason = str(error) or type(error).__name__
        code = (
            re.search(r"(?:GLOBAL|function) (\S+)", reason)
            if isinstance(error, pickle.PickleError)
            else None
        )
        if code:
            reason = f"refused, because reading it would run code ({code[1]}); take the file from its source"
        elif "TorchScript archives" in reason:
            reason = "a TorchScript archive, which is code; of CLIP use the safetensors files that models/weights.py lists"
        else:
            reason = f"damaged, or not a file of weights ({reason.split('. ')[0].splitlines()[0]}); fetch it again"
        raise WeightsError(f"{path}: {reason}") from error
    items = found.items() if isinstance(found, dict) else ()
    odd = [
        f"{key!r}: {type(it).__name__}"
        for key, it in items
        if not isinstance(key, str) or not torch.is_tensor(it)
    ]
    if odd or not items:
        told = ", ".join(odd[:3]) or type(found).__name__
        raise WeightsError(
            f"{path}: expected a flat dict of one or more tensors by name, found {told}"
        )
    return dict(items)


def write_half(module: nn.Module, path: Path, header: dict[str, str]) -> None:
    """Weights in float16 as a safetensors file, to a temporary name first."""
    tensors = {
        k: v.half().contiguous() if v.is_floating_point() else v
        for k, v in module.state_dict().items()
    }
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata=header)
    partial.replace(path)


def load_strictly(
    module: nn.Module,
    tensors: dict[str, torch.Tensor],
    path: Path,
    optional: Callable[[str], bool] = lambda key: False,
) -> None:
    """Load `tensors`, which come from `path`. Keys that are `optional` may be missing, or too many and are then ignored.

    Raises: WeightsError where other keys are missing or unexpected, or a shape differs.
    """
    own = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    fits = {key: value for key, value in tensors.items() if key in own}
    shapes = {key: tuple(value.shape) for key, value in fits.items()}
    problems = {
        "missing": [key for key in own if key not in fits and not optional(key)],
        "unexpected": [key for key in tensors if key not in fits and not optional(key)],
        "misshapen": [
            f"{key}: {shapes[key]}, not {own[key]}" for key in fits if shapes[key] != own[key]
        ],
    }
    if any(problems.values()):
        told = [
            f"{len(keys)} {what} ({', '.join(keys[:3])})" for what, keys in problems.items() if keys
        ]
        raise WeightsError(
            f"{path}: does not fit {type(module).__name__}: of {len(own)} keys {'; '.join(told)}"
        )
    module.load_state_dict(fits, strict=False)
