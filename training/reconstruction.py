"""Faces reconstructed by a small autoencoder, for pseudo-fakes with the traces of a decoder.

Decoders lose detail and leave upsampling patterns (Zhang et al., WIFS 2019). It sees real faces
only, and is thrown away after use.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from models.base import native_bf16
from training.aligned_crops import FACE_WINDOW, AlignedCrops

SIDE = 128  # px of the pictures
CODES = 4  # channels of the code, at a quarter of the side: a twelfth of a picture's numbers
BATCH = 32


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    padding = 0 if stride > 1 else kernel // 2
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        last = nn.Conv2d(64, 64, 3, padding=1)
        self.body = nn.Sequential(_conv(64, 64), last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.body(x))


class Autoencoder(nn.Module):
    """Pictures (N, 3, S, S) in [-1, 1] to the same. noise: of the code, in standard deviations."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(_conv(3, 64, 4, 4), Residual(), nn.Conv2d(64, CODES, 1))
        up = (nn.Upsample(scale_factor=2), _conv(64, 32), nn.Upsample(scale_factor=2))
        last = nn.Conv2d(32, 3, 3, padding=1)
        self.decoder = nn.Sequential(_conv(CODES, 64, 1), Residual(), Residual(), *up, last)

    def forward(self, images: torch.Tensor, noise: float = 0.0) -> torch.Tensor:
        code = self.encoder(images)
        return self.decoder(code + noise * torch.randn_like(code) * code.std())


def reconstruct(
    pictures: np.ndarray, steps: int, seed: int = 0, device: str | torch.device = "cpu"
) -> np.ndarray:
    """Reconstructions of pictures (N, 128, 128, 3) uint8 RGB, by an autoencoder fitted to them."""
    device, rng = torch.device(device), np.random.default_rng(seed)
    torch.manual_seed(seed)
    net = Autoencoder().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, max(2, steps), pct_start=0.1)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=native_bf16(device))

    faces = torch.from_numpy(pictures).to(device)
    # Drawn and copied once, so that no step waits for the device.
    drawn = torch.from_numpy(rng.integers(len(pictures), size=(steps, BATCH))).to(device)

    def batch(rows: torch.Tensor | slice) -> torch.Tensor:
        images = faces[rows].permute(0, 3, 1, 2)
        return (images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)

    for rows in tqdm(drawn, desc="autoencoder", unit=" steps", disable=None):
        images = batch(rows)
        with autocast:
            decoded = net(images, noise=0.05)
        error = decoded.float() - images  # of colours, and of their gradients
        loss = error.abs().mean() + 1.5 * sum(error.diff(dim=axis).abs().mean() for axis in (2, 3))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    net.eval()
    out = np.empty_like(pictures)
    with torch.inference_mode(), autocast:
        for start in range(0, len(out), 64):
            rows = slice(start, start + 64)
            decoded = ((net(batch(rows)).float() + 1) * 127.5).round().clamp(0, 255).byte()
            out[rows] = decoded.permute(0, 2, 3, 1).cpu().numpy()
    return out


def with_reconstructions(
    crops: AlignedCrops, steps: int, seed: int, device: torch.device
) -> AlignedCrops:
    x, y, side = FACE_WINDOW
    faces = crops.images[:, y : y + side, x : x + side, :3]
    small = [cv2.resize(face, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for face in faces]
    return replace(crops, reconstructed=reconstruct(np.stack(small), steps, seed, device))
