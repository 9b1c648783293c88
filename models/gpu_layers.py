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

from models import gpu_kernels

EPS = 1e-5  # that batch normalisation adds to a variance


def replace(net: nn.Module, kind: type, make: Callable[[nn.Module], nn.Module]) -> None:
    """Every module of that kind inside `net` becomes what `make` makes of it."""
    for parent in [*net.modules()]:
        if isinstance(parent, Conv | ConvNorm | ConvNeXtBlock | Largest):  # made already
            continue
        for name, child in [*parent.named_children()]:
            if isinstance(child, kind):
                setattr(parent, name, make(child))


def cast(net: nn.Module, dtype: torch.dtype) -> nn.Module:
    """In `dtype`, but for what normalisations and biases add and multiply, which stays float32."""
    for module in net.modules():
        if isinstance(module, _BatchNorm | Affine | Norm | Kept):
            continue
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(dtype)
    return net


class Affine(nn.Module):
    """Multiplies each channel of (N, C, H, W) by a number and adds one, in float32; then adds another
    such tensor; then ReLU, or PReLU with a slope per channel. One pass over memory where the kernel
    is there; else that of batch normalisation, which is the next fastest, does the first part.
    """

    def __init__(
        self,
        scale: torch.Tensor,
        shift: torch.Tensor,
        relu: bool = False,
        slope: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.relu = relu
        values = {"scale": scale, "shift": shift, "slope": slope}
        values |= {"mean": torch.zeros_like(shift), "variance": torch.ones_like(shift) - EPS}
        for name, value in values.items():
            value = None if value is None else value.detach().float().clone()
            self.register_buffer(name, value, persistent=False)

    @classmethod
    def of_norm(cls, norm: _BatchNorm, **after: object) -> Affine:
        """A batch normalisation that is not trained."""
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        return cls(scale, norm.bias - norm.running_mean * scale, **after)

    @classmethod
    def of_bias(cls, bias: torch.Tensor, **after: object) -> Affine:
        return cls(torch.ones_like(bias), bias, **after)

    def forward(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        last = None if other is None else other.permute(0, 2, 3, 1)
        numbers = (self.scale, self.shift, self.relu, self.slope, last)
        found = gpu_kernels.scale_and_shift(x.permute(0, 2, 3, 1), *numbers)
        if found is not None:
            return found.permute(0, 3, 1, 2)
        x = F.batch_norm(x, self.mean, self.variance, self.scale, self.shift, eps=EPS)
        x = x if other is None else x + other
        if self.slope is not None:
            return F.prelu(x, self.slope.to(x.dtype))
        return F.relu(x, inplace=True) if self.relu else x


class Norm(nn.Module):
    """Layer normalisation over the channels; of (N, C, H, W) with `first`, else they are last."""

    def __init__(self, norm: nn.LayerNorm, first: bool = False) -> None:
        super().__init__()
        self.first, self.eps = first, norm.eps
        values = {"weight": norm.weight, "shift": norm.bias, "none": torch.zeros_like(norm.bias)}
        for name, value in values.items():
            self.register_buffer(name, value.detach().float().clone(), persistent=False)

    def forward(self, x: torch.Tensor, add: Affine | None = None) -> torch.Tensor:
        """add: of (N, C, H, W), a bias that is added before, in the same pass."""
        y = x.permute(0, 2, 3, 1) if self.first else x
        bias = self.none if add is None else add.shift
        found = gpu_kernels.normalised(y, bias, self.weight, self.shift, self.eps)
        if found is None:
            y = y if add is None else add(x).permute(0, 2, 3, 1)
            weights = self.weight.to(y.dtype), self.shift.to(y.dtype)
            found = F.layer_norm(y, y.shape[-1:], *weights, self.eps)
        return found.permute(0, 3, 1, 2) if self.first else found


def without_bias(conv: nn.Conv2d) -> tuple[nn.Conv2d, torch.Tensor]:
    """The convolution, and the bias that it had. Adding it there takes as long as a copy or two."""
    bias, conv.bias = conv.bias, None
    return conv, bias


class Conv(nn.Module):
    """A convolution, then its bias."""

    def __init__(self, conv: nn.Conv2d, **after: object) -> None:
        super().__init__()
        self.conv, self.add = conv, nn.Identity()
        if conv.bias is not None:
            self.conv, bias = without_bias(conv)
            self.add = Affine.of_bias(bias, **after)

    def forward(self, x: torch.Tensor, *other: torch.Tensor) -> torch.Tensor:
        return self.add(self.conv(x), *other)


class ConvNorm(nn.Module):
    """A convolution without a bias, then a batch normalisation, and what follows it."""

    def __init__(self, conv: nn.Conv2d, norm: _BatchNorm, **after: object) -> None:
        super().__init__()
        self.conv, self.add = conv, Affine.of_norm(norm, **after)

    def forward(self, x: torch.Tensor, *other: torch.Tensor) -> torch.Tensor:
        return self.add(self.conv(x), *other)


class Kept(nn.Module):
    """Numbers that stay float32."""

    def __init__(self, numbers: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("numbers", numbers.detach().float().contiguous(), persistent=False)


class Patches(nn.Module):
    """A convolution of patches that do not overlap, as a product of matrices: those of three channels
    are slow otherwise.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        if not conv.kernel_size == conv.stride == 2 * conv.stride[:1] or any(conv.padding):
            raise ValueError("patches overlap, or are not squares")
        self.side = conv.stride[0]
        rows = conv.weight.permute(0, 2, 3, 1).flatten(1)  # (C, side * side * 3)
        self.product = nn.Linear(*reversed(rows.shape), bias=conv.bias is not None)
        self.product.weight, self.product.bias = nn.Parameter(rows), conv.bias
        self.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count, channels, height, width = x.shape
        down, across = height // self.side, width // self.side
        rows = x.permute(0, 2, 3, 1).reshape(count, down, self.side, across, self.side * channels)
        y = self.product(rows.transpose(2, 3).reshape(count * down * across, -1))
        return y.view(count, down, across, -1).permute(0, 3, 1, 2)


class Largest(nn.Module):
    """nn.MaxPool2d of 3 x 3 pixels, two apart."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        if (pool.kernel_size, pool.stride, pool.dilation, pool.ceil_mode) != (3, 2, 1, False):
            raise ValueError("not a pool of 3 x 3 pixels, two apart")
        self.pool = pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = gpu_kernels.largest(x.permute(0, 2, 3, 1), self.pool.padding)
        return self.pool(x) if found is None else found.permute(0, 3, 1, 2)


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
        self.spatial, bias = without_bias(block.conv_dw)
        self.bias, self.norm = Affine.of_bias(bias), Norm(block.norm, first=True)
        self.wide, self.narrow, self.eps = mlp.fc1, mlp.fc2, grn.eps
        self.response = grn.weight
        self.add = Affine.of_bias(mlp.fc2.bias + mlp.fc2.weight @ grn.bias)
        self.none = Kept(torch.zeros(mlp.fc2.in_features))
        self.narrow.bias = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count, channels, height, width = x.shape
        y = self.norm(self.spatial(x), self.bias).permute(0, 2, 3, 1).reshape(-1, channels)
        y = torch._addmm_activation(self.wide.bias, y, self.wide.weight.t(), use_gelu=True)
        y = y.view(count, height * width, -1)  # (N, H * W, 4 C)
        size = torch.linalg.vector_norm(y, dim=1, dtype=torch.float32)
        times = 1 + self.response.float() * size / (size.mean(-1, keepdim=True) + self.eps)
        weight = self.narrow.weight.t()  # (4 C, C)
        if channels < height * width:
            y = torch.bmm(y, (weight * times[..., None]).to(y.dtype))
        else:
            found = gpu_kernels.scale_and_shift(y, times, self.none.numbers)
            y = (y * times[:, None].to(y.dtype) if found is None else found) @ weight
        y = y.view(count, height, width, channels).permute(0, 3, 1, 2)
        return self.add(y, x)


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
