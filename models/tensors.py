"""Weight files: read without running code from them, loaded strictly."""

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
from safetensors.torch import load_file, save
from torch import nn

from data.files import replacing

# What loading a damaged file raises, depending on which byte is wrong.
DAMAGED = (
    *(SafetensorError, pickle.PickleError, struct.error, EOFError, OSError, RuntimeError),
    *(AssertionError, AttributeError, ArithmeticError, LookupError, TypeError, ValueError),
    MemoryError,
)


class WeightsError(ValueError):
    """A file that is not what it should be; the message begins with its path."""


class MissingWeightsError(FileNotFoundError):
    """A missing file; the message says where to get it, on which terms, where to put it."""


def sha256_of(path: Path, *more: Path) -> str:
    """Of one file; of several, the SHA-256 of theirs."""
    if more:
        digests = "".join(map(sha256_of, (path, *more)))
        return hashlib.sha256(digests.encode()).hexdigest()
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_page(path: Path) -> bool:
    """Whether a web page came instead of the file."""
    with path.open("rb") as file:
        return file.read(512).lstrip().lower().startswith((b"<!doctype html", b"<html"))


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """A flat state dict on the CPU, from `.safetensors` or from what torch.save wrote.

    Raises: MissingWeightsError; WeightsError: damaged, numbers that are not finite, or a pickle that
        would run code.
    """
    if not path.is_file():
        raise MissingWeightsError(f"{path}: no such file; see python -m models.weights list")
    if is_page(path):
        raise WeightsError(f"{path}: a web page, not weights; delete it and fetch it again")
    try:
        with warnings.catch_warnings(action="ignore"):
            safe = path.suffix == ".safetensors"
            found = load_file(path) if safe else torch.load(path, "cpu", weights_only=True)
    except DAMAGED as error:
        raise WeightsError(f"{path}: {_reason(error)}") from error
    items = found.items() if isinstance(found, dict) else ()
    odd = [(k, v) for k, v in items if not isinstance(k, str) or not torch.is_tensor(v)]
    if odd or not items:
        content = ", ".join(f"{key!r}: {type(value).__name__}" for key, value in odd[:3])
        content = content or type(found).__name__
        raise WeightsError(
            f"{path}: expected a flat dict of one or more tensors by name, found {content}"
        )
    for name, value in items:
        if value.is_floating_point() and not value.float().isfinite().all():
            raise WeightsError(
                f"{path}: damaged: not every number in {name} is finite; fetch it again"
            )
    return dict(items)


def _reason(error: Exception) -> str:
    reason = str(error) or type(error).__name__
    code = re.search(r"(?:GLOBAL|function) (\S+)", reason)
    if code and isinstance(error, pickle.PickleError):
        return f"refused, because reading it would run code ({code[1]})"
    if "TorchScript archives" in reason:
        return "a TorchScript archive, which is code; use the file that models/weights.py lists"
    first = reason.split(". ")[0].splitlines()[0]
    return f"damaged, or not a file of weights ({first}); fetch it again"


def write_half(module: nn.Module, path: Path, header: dict[str, str]) -> None:
    items = module.state_dict().items()
    tensors = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in items}
    with replacing(path) as file:
        file.write(save(tensors, metadata=header))


def load_strictly(
    module: nn.Module,
    tensors: dict[str, torch.Tensor],
    path: Path,
    optional: Callable[[str], bool] = lambda key: False,
) -> None:
    """Load a state dict. Raises: WeightsError: keys, shapes or kinds of numbers differ.

    path: where it comes from. optional: keys that may be missing in either, and are then ignored.
    """
    wanted = module.state_dict()
    own = {key: tuple(value.shape) for key, value in wanted.items()}
    found = {key: tuple(value.shape) for key, value in tensors.items()}
    problems = {
        "missing": [key for key in own if key not in found and not optional(key)],
        "unexpected": [key for key in found if key not in own and not optional(key)],
        "misshapen": [
            f"{key}: {found[key]}, not {own[key]}"
            for key in own
            if found.get(key, own[key]) != own[key]
        ],
        "mistyped": [
            f"{key}: {value.dtype}, not {wanted[key].dtype}"
            for key, value in tensors.items()
            if key in own and wanted[key].is_floating_point() and not value.is_floating_point()
        ],
    }
    wrong = [
        f"{len(keys)} {what} ({', '.join(keys[:3])})" for what, keys in problems.items() if keys
    ]
    if wrong:
        name = type(module).__name__
        raise WeightsError(f"{path}: does not fit {name}: of {len(own)} keys {'; '.join(wrong)}")
    fitting = {key: value for key, value in tensors.items() if key in own}
    module.load_state_dict(fitting, strict=False)
