"""An autoencoder that redraws faces, so that forgeries for training hold what neural networks leave in what they draw.

Deepfakes are drawn by decoders, and those leave traces of their own: lost detail, upsampling patterns (Zhang et al., WIFS
2019, who also imitate them by an autoencoder). This one is small, sees real faces only and is thrown away after training.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from models.base import native_bf16

SIDE = 128  # px of what it redraws
CODES = 4  # channels of the code, at a quarter of the side: a twelfth of the numbers in a picture
BATCH = 32


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    padding = 0 if stride > 1 else kernel // 2
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(channels, channels), nn.Conv2d(channels, channels, 3, padding=1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.body(x))


class Autoencoder(nn.Module):
    """Pictures (N, 3, S, S) in [-1, 1] to the same; noise: how much of its own spread is added to the code."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(_conv(3, 64, 4, 4), Residual(64), nn.Conv2d(64, CODES, 1))
        self.decoder = nn.Sequential(
            *(_conv(CODES, 64, 1), Residual(64), Residual(64)),
            *(
                nn.Upsample(scale_factor=2),
                _conv(64, 32),
                nn.Upsample(scale_factor=2),
                nn.Conv2d(32, 3, 3, padding=1),
            ),
        )

    def forward(self, images: torch.Tensor, noise: float = 0.0) -> torch.Tensor:
        code = self.encoder(images)
        return self.decoder(code + noise * torch.randn_like(code) * code.std())


def _as_seen(pictures: torch.Tensor) -> torch.Tensor:
    return (pictures.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(
        memory_format=torch.channels_last
    )


def reconstruct(
    pictures: np.ndarray, steps: int, seed: int = 0, device: str | torch.device = "cpu"
) -> np.ndarray:
    """Fit an autoencoder to these pictures for so many steps of 32, then let it draw them all.

    pictures: (N, 128, 128, 3) uint8 RGB. The loss is the mean absolute error of colours and of their gradients. Returns:
    the same shape.
    """
    device, rng = torch.device(device), np.random.default_rng(seed)
    torch.manual_seed(seed)
    net = Autoencoder().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 2e-3, total_steps=max(2, steps), pct_start=0.1
    )
    everything = torch.from_numpy(pictures)
    for _ in tqdm(range(steps), desc="autoencoder", unit=" steps", disable=None):
        images = _as_seen(everything[rng.integers(len(pictures), size=BATCH)]).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=native_bf16(device)):
            drawn = net(images, noise=0.05)
        drawn, images = drawn.float(), images.float()
        loss = (drawn - images).abs().mean()
        for axis in (2, 3):
            loss = loss + 1.5 * (drawn.diff(dim=axis) - images.diff(dim=axis)).abs().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    net.eval()
    out = np.empty_like(pictures)
    with (
        torch.inference_mode(),
        torch.autocast(device.type, torch.bfloat16, enabled=native_bf16(device)),
    ):
        for start in range(0, len(pictures), 64):
            drawn = net(_as_seen(everything[start : start + 64]).to(device)).float()
            out[start : start + 64] = (
                ((drawn + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu()
            )
    return out
