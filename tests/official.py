"""Weight files in the published formats, with random values: right names, shapes and headers, and nothing learned.

    python -m tests.official FOLDER        # all that the `full` profile asks for, about 800 MB

What an answer of such an expert is, or how fast it comes, can be tested with them; never what it means. The names and
shapes are data, in official_formats.json: those that the libraries' own networks have (torchvision,
facenet-pytorch, py-feat,
timm, open_clip), with what their authors' files are known to lack or to add.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from models.weights import UNUSUAL, WEIGHTS

FORMATS: dict[str, dict] = json.loads(
    (Path(__file__).parent / "official_formats.json").read_text(encoding="utf-8")
)


def tensors(name: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tensors under the published names. The scale of an input is about that of the output, layer by layer."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for key, (kind, shape) in FORMATS[name]["tensors"].items():
        if kind == "int64":
            made[key] = torch.ones(shape, dtype=torch.int64)
        elif len(shape) >= 2:
            fan_in = math.prod(shape[1:])
            made[key] = torch.randn(shape, generator=generator) / math.sqrt(fan_in)
        else:
            around = 1.0 if key.endswith(("weight", "running_var", "gamma")) else 0.0
            made[key] = around + 0.1 * torch.rand(shape, generator=generator)
    return made


def write(name: str, folder: Path, seed: int = 0) -> Path:
    """The file of one row of `WEIGHTS`, as its authors publish it."""
    path = Path(folder) / WEIGHTS[name].file
    if path.suffix == ".safetensors":
        save_file(tensors(name, seed), path, metadata=FORMATS[name].get("metadata"))
    else:  # both are from before torch 1.6, or may be
        torch.save(tensors(name, seed), path, _use_new_zipfile_serialization=name != "fairface")
    return path


def write_all(folder: Path) -> Path:
    """All files that the `full` profile asks for unless told otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in WEIGHTS:
        if name not in UNUSUAL:
            write(name, folder)
    return folder


if __name__ == "__main__":
    print(write_all(Path(sys.argv[1])))
