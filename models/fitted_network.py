"""A fitted network of `NETWORKS`: what it says of faces, and how it is kept on disk. No pickle."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from scipy.special import expit
from torch import nn
from torchvision.transforms import v2

from models.networks import NETWORKS, as_seen, empty
from models.tensors import WeightsError, load_strictly, read_tensors, sha256_of

FORMAT = 1
SCORED_TOGETHER = 64


@dataclass
class Network:
    """A fitted network.

    origin: what its training began with. px: side of what it sees. bf16: whether it was fitted, and scores, in bfloat16.
    history: per epoch `loss` (training) and, of the validation faces, `val_loss` (log loss, both classes of equal weight)
    and `val_auc`. a, b: calibration, logit = a x score + b.
    """

    name: str
    origin: str
    px: int
    bf16: bool
    net: nn.Module
    device: torch.device
    history: list[dict[str, float]] = field(default_factory=list)
    a: float = 1.0
    b: float = 0.0

    @property
    def epochs_run(self) -> int:
        return len(self.history)

    @property
    def best_epoch(self) -> int:
        """The one that was kept, from 1: the first with the lowest validation loss."""
        return 1 + min(range(len(self.history)), key=lambda epoch: self.history[epoch]["val_loss"])

    @torch.inference_mode()
    def score(self, crops: torch.Tensor) -> np.ndarray:
        """Logits before calibration, (N,) float64. crops: see `p_fake`."""
        crops, recipe, scores = at_side(crops, self.px), NETWORKS[self.name], [np.empty(0)]
        self.net.eval()
        for batch in crops.split(SCORED_TOGETHER) if len(crops) else ():
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                logits = self.net(as_seen(batch, recipe, self.device))
            scores.append(logits[:, 0].double().cpu().numpy())
        return np.concatenate(scores)

    def p_fake(self, crops: torch.Tensor) -> np.ndarray:
        """Calibrated P(fake), (N,) float64. crops: (N, 3, S, S) uint8 RGB of `crop_for`; another side than `px` is resized."""
        return expit(self.a * self.score(crops) + self.b)

    def save(self, folder: Path) -> Path:
        """Write `network.safetensors`, then `network.json`, each to a temporary name first. Returns: `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights, partial = folder / "network.safetensors", folder / "network.partial"
        save_file(
            {key: value.cpu().contiguous() for key, value in self.net.state_dict().items()}, partial
        )
        info = {"format": FORMAT, "sha256": sha256_of(partial), "history": self.history}
        info |= {key: getattr(self, key) for key in ("name", "origin", "px", "bf16", "a", "b")}
        partial.replace(weights)
        partial.write_text(json.dumps(info, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        partial.replace(folder / "network.json")
        return folder

    @classmethod
    def load(cls, folder: Path, device: str | torch.device = "cpu") -> Network:
        """What `save` wrote. Raises: FileNotFoundError where there is none; ValueError where it is damaged or another's."""
        path, weights = Path(folder) / "network.json", Path(folder) / "network.safetensors"
        for file in (path, weights):
            if not file.is_file():
                raise FileNotFoundError(f"{file}: no fitted network there; fit it again")
        try:
            info = json.loads(path.read_text(encoding="utf-8"))
            if info.pop("format") != FORMAT or info.pop("sha256") != sha256_of(weights):
                raise WeightsError(
                    f"{folder}: its two files do not belong together, or are of another version; fit it again"
                )
            net = empty(info["name"], info["px"])
            load_strictly(net, read_tensors(weights), weights)
            return cls(**info, net=placed(net, device), device=torch.device(device))
        except WeightsError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: not a fitted network of this version ({error}); fit it again"
            ) from error


def placed(net: nn.Module, device: str | torch.device) -> nn.Module:
    """The network on `device`, channels last."""
    return net.to(device, memory_format=torch.channels_last)


def side_of(crops: torch.Tensor) -> int:
    """S of (N, 3, S, S) uint8 RGB. Raises: ValueError for anything else."""
    if (
        not torch.is_tensor(crops)
        or crops.dtype != torch.uint8
        or crops.ndim != 4
        or crops.shape[1] != 3
    ):
        found = (
            f"{crops.dtype} of shape {tuple(crops.shape)}"
            if torch.is_tensor(crops)
            else type(crops).__name__
        )
        raise ValueError(f"crops are {found}; give a uint8 RGB tensor of shape (N, 3, S, S)")
    if crops.shape[2] != crops.shape[3]:
        raise ValueError(f"crops of {crops.shape[3]}x{crops.shape[2]} px; they must be square")
    return crops.shape[3]


def at_side(crops: torch.Tensor, px: int) -> torch.Tensor:
    """crops: (N, 3, S, S) uint8 RGB. Returns: (N, 3, px, px) uint8. Raises: ValueError, see `side_of`."""
    if side_of(crops) == px or not len(crops):
        return crops
    return v2.functional.resize(crops, [px, px], antialias=True)
