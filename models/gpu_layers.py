"""Networks in the form that a GPU computes fastest: fewer passes over memory, the same numbers but
for rounding.

On such a device the layers between products cost more than the products: what counts is how often
a large tensor is read and written, and whether the kernel that does it is a fast one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

EPS = 1e-5  # that batch normalisation adds to a variance


def replace(net: nn.Module, kind: type, make: Callable[[nn.Module], nn.Module]) -> None:
    """Every module of that kind inside `net` becomes what `make` makes of it."""
    for parent in [*net.modules()]:
        if isinstance(parent, Conv):
            continue
        for name, child in [*parent.named_children()]:
            if isinstance(child, kind):
                setattr(parent, name, make(child))


def cast(net: nn.Module, dtype: torch.dtype) -> nn.Module:
    """In `dtype`, but for what batch normalisation adds and multiplies, which stays float32."""
    net.to(dtype)
    for module in net.modules():
        if isinstance(module, _BatchNorm | Bias):
            module.float()
    return net


class Bias(nn.Module):
    """Adds a number per channel, (N, C, H, W), in float32: by the kernel of batch normalisation,
    which runs at the speed of memory. Adding a bias to a convolution takes three times as long.
    """

    def __init__(self, bias: torch.Tensor) -> None:
        super().__init__()
        one = torch.ones_like(bias)
        values = {"bias": bias, "mean": 0 * one, "variance": one - EPS, "one": one}
        for name, value in values.items():
            self.register_buffer(name, value.detach().clone(), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(x, self.mean, self.variance, self.one, self.bias, eps=EPS)


class Conv(nn.Module):
    """A convolution, then its bias."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv, self.add = conv, nn.Identity() if conv.bias is None else Bias(conv.bias)
        conv.bias = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.add(self.conv(x))


class ConvNeXtBlock(nn.Module):
    """timm's block of ConvNeXt V2 (Woo et al., CVPR 2023): depthwise convolution, normalisation,
    two products with a GELU and a response normalisation between them, sum with the input.

    The GELU is part of the first product (on a GPU by its tanh formula). The response
    normalisation multiplies each channel of an image by a number: its weights take that over,
    where they are smaller than the image.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        if block.gamma is not None or block.use_conv_mlp or block.conv_dw.stride != (1, 1):
            raise ValueError("not a block of ConvNeXt V2")
        mlp, grn = block.mlp, block.mlp.grn
        self.spatial, self.norm = Conv(block.conv_dw), block.norm
        self.wide, self.narrow, self.eps = mlp.fc1, mlp.fc2, grn.eps
        self.response = grn.weight
        self.add = Bias(mlp.fc2.bias + mlp.fc2.weight @ grn.bias)
        self.narrow.bias = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count, channels, height, width = x.shape
        y = self.norm(self.spatial(x).permute(0, 2, 3, 1)).reshape(-1, channels)
        y = torch._addmm_activation(self.wide.bias, y, self.wide.weight.t(), use_gelu=True)
        y = y.view(count, height * width, -1)  # (N, H * W, 4 C)
        size = torch.linalg.vector_norm(y, dim=1, dtype=torch.float32)
        times = 1 + self.response.float() * size / (size.mean(-1, keepdim=True) + self.eps)
        weight = self.narrow.weight.t()  # (4 C, C)
        if channels < height * width:
            y = torch.bmm(y, (weight * times[..., None]).to(y.dtype))
        else:
            y = (y * times[:, None].to(y.dtype)) @ weight
        y = y.view(count, height, width, channels).permute(0, 3, 1, 2)
        return self.add(y) + x


def silu_for_quick_gelu(net: nn.Module, quick: type) -> None:
    """x sigmoid(1.702 x) = silu(1.702 x) / 1.702: one pass over memory in place of three. The
    products before and after (`fc1` and `fc2` of timm's) take over the factors.
    """
    for module in net.modules():
        if isinstance(getattr(module, "act", None), quick):
            with torch.no_grad():
                module.fc1.weight *= 1.702
                module.fc1.bias *= 1.702
                module.fc2.weight /= 1.702
            module.act = nn.SiLU(inplace=True)
