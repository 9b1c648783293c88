"""CUDA kernels for what PyTorch does in several passes over memory, or slowly: in bfloat16, with
channels last, computing in float32.

NVRTC, which comes with PyTorch, compiles them when they are first asked for. Each function returns
None where its kernel cannot be used; callers then use PyTorch's own functions.

What they win, in ms for 256 faces of `full` on an H200, by PyTorch's profiler; all in all 349 where
PyTorch's own functions took 510. `Patches` of gpu_layers.py won some of it, and a kernel for depthwise
convolutions 1% (it is gone):

    scale_and_shift  147 -> 51     at 3.9 TB/s, near the card's 4.8
    normalised        60 -> 23     at 1.4 TB/s
    largest           12 -> < 5    at 1.5 TB/s or more
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from unittest.mock import patch

import torch

THREADS = 256  # of a block
MOST = 2**31 - THREADS  # threads, counted in int
WIDEST = 1024  # channels that `normalised` keeps in registers
RELU, SLOPE, OTHER = 1, 2, 4
failed: set[str] = set()  # kernels that could not be started
log = logging.getLogger("masc")

SOURCE = r"""
struct alignas(8) Four { unsigned pair[2]; };
struct alignas(16) Eight { unsigned pair[4]; };

__device__ float low(unsigned pair) { return __uint_as_float(pair << 16); }
__device__ float high(unsigned pair) { return __uint_as_float(pair & 0xffff0000u); }
__device__ unsigned packed(float low, float high) {
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

__device__ void unpack(const float* from, float* to) {
    const float4 a = ((const float4*)from)[0], b = ((const float4*)from)[1];
    to[0] = a.x; to[1] = a.y; to[2] = a.z; to[3] = a.w;
    to[4] = b.x; to[5] = b.y; to[6] = b.z; to[7] = b.w;
}

// A thread for eight channels of four rows, `apart` vectors apart, which is whole rows. A row of
// scales is for `rows` rows of x.
extern "C" __global__ void scale_and_shift(
    const Eight* x, const float* scale, const float* shift, const float* slope, const Eight* other,
    Eight* out, int count, int eights, int apart, int rows, int flags)
{
    int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= apart) return;
    int row = at / eights, first = (at - row * eights) * 8, further = apart / eights;
    float plus[8], times[8], below[8];
    unpack(shift + first, plus);
    if (flags & 2) unpack(slope + first, below);
    #pragma unroll
    for (int n = 0; n < 4; n++, row += further) {
        long long here = at + (long long)n * apart;
        if (here >= count) return;
        unpack(scale + (size_t)(row / rows) * eights * 8 + first, times);
        Eight in = x[here], more = in, y;
        if (flags & 4) more = other[here];
        #pragma unroll
        for (int k = 0; k < 8; k += 2) {
            float one = low(in.pair[k / 2]) * times[k] + plus[k];
            float two = high(in.pair[k / 2]) * times[k + 1] + plus[k + 1];
            if (flags & 4) { one += low(more.pair[k / 2]); two += high(more.pair[k / 2]); }
            if (flags & 1) { one = one < 0 ? 0.f : one; two = two < 0 ? 0.f : two; }
            if (flags & 2) {
                one = one < 0 ? one * below[k] : one;
                two = two < 0 ? two * below[k + 1] : two;
            }
            y.pair[k / 2] = packed(one, two);
        }
        out[here] = y;
    }
}

__device__ float over_warp(float value) {
    for (int step = 16; step; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
    return value;
}

// A warp for a row of at most 1024 channels.
extern "C" __global__ void normalised(
    const Four* x, const float4* bias, const float4* weight, const float4* shift, Four* out,
    int rows, int fours, double eps)
{
    int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    x += (size_t)row * fours;
    out += (size_t)row * fours;
    float4 kept[8];
    float sum = 0, squares = 0;
    #pragma unroll
    for (int i = 0; i < 8; i++) {
        int at = 32 * i + lane;
        if (at < fours) {
            Four in = x[at];
            float4 b = bias[at];
            kept[i] = {low(in.pair[0]) + b.x, high(in.pair[0]) + b.y,
                       low(in.pair[1]) + b.z, high(in.pair[1]) + b.w};
            sum += (kept[i].x + kept[i].y) + (kept[i].z + kept[i].w);
        }
    }
    float mean = over_warp(sum) / (4 * fours);
    #pragma unroll
    for (int i = 0; i < 8; i++) {
        if (32 * i + lane < fours) {
            float4& k = kept[i];
            k.x -= mean; k.y -= mean; k.z -= mean; k.w -= mean;
            squares += (k.x * k.x + k.y * k.y) + (k.z * k.z + k.w * k.w);
        }
    }
    float times = rsqrtf(over_warp(squares) / (4 * fours) + (float)eps);
    #pragma unroll
    for (int i = 0; i < 8; i++) {
        int at = 32 * i + lane;
        if (at < fours) {
            float4 k = kept[i], w = weight[at], s = shift[at];
            Four y;
            y.pair[0] = packed(k.x * times * w.x + s.x, k.y * times * w.y + s.y);
            y.pair[1] = packed(k.z * times * w.z + s.z, k.w * times * w.w + s.w);
            out[at] = y;
        }
    }
}

// The largest of 3 x 3 pixels, two apart: a thread for eight channels.
extern "C" __global__ void largest(
    const Eight* x, Eight* out, int count, int eights, int height, int width, int rows, int columns,
    int padding)
{
    int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count) return;
    int eight = at % eights, cell = at / eights;
    int left = cell % columns * 2 - padding, top = cell / columns % rows * 2 - padding;
    x += (size_t)(cell / columns / rows) * height * width * eights + eight;
    float most[8];
    #pragma unroll
    for (int k = 0; k < 8; k++) most[k] = __uint_as_float(0xff800000u);
    #pragma unroll
    for (int i = 0; i < 9; i++) {
        int row = top + i / 3, column = left + i % 3;
        if (row < 0 || row >= height || column < 0 || column >= width) continue;
        Eight in = x[(row * width + column) * eights];
        #pragma unroll
        for (int k = 0; k < 8; k++) {
            float y = k % 2 ? high(in.pair[k / 2]) : low(in.pair[k / 2]);
            if (y > most[k] || y != y) most[k] = y;
        }
    }
    Eight y;
    #pragma unroll
    for (int k = 0; k < 4; k++) y.pair[k] = packed(most[2 * k], most[2 * k + 1]);
    out[at] = y;
}
"""


@cache
def kernel(name: str, device: int) -> Callable | None:
    """Compiled for the current device, whose number is `device`; None, with a warning, where that fails."""
    try:
        from torch.utils import cpp_extension

        # No header is needed, and so no toolkit.
        with patch.object(cpp_extension, "CUDA_HOME", cpp_extension.CUDA_HOME or "/usr"):
            return torch.cuda._compile_kernel(SOURCE, name)
    except Exception as error:  # of a private function, about drivers and libraries
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        log.warning(f"{name}: no kernel of our own, which is slower ({reason})")
        return None


def launched(name: str, threads: int, x: torch.Tensor, *arguments: object) -> bool:
    """Start a kernel of x and others on so many threads or a few more. False where that fails."""
    run = kernel(name, x.device.index)
    if run is None or name in failed:
        return False
    try:
        run((-(-threads // THREADS), 1, 1), (THREADS, 1, 1), [x, *arguments])
    except (RuntimeError, TypeError, ValueError) as error:
        log.warning(f"{name}: no kernel of our own, which is slower ({error})")
        failed.add(name)
    return name not in failed


def usable(x: torch.Tensor, *others: torch.Tensor) -> bool:
    """Contiguous bfloat16 on a GPU, whole vectors of 16 bytes, and not being compiled."""
    if torch.compiler.is_compiling() or not x.is_cuda:
        return False
    fits = x.shape[-1] % 8 == 0 and 0 < x.numel() // 4 < MOST // 2
    same = (y.dtype == torch.bfloat16 and y.shape == x.shape for y in (x, *others))
    return fits and all(same) and all(map(_aligned, (x, *others)))


def _aligned(x: torch.Tensor) -> bool:
    return x.is_contiguous() and x.data_ptr() % 16 == 0


def scale_and_shift(
    x: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
    relu: bool = False,
    slope: torch.Tensor | None = None,
    other: torch.Tensor | None = None,
) -> torch.Tensor | None:
    """x scale + shift + other, then ReLU, or PReLU where `slope` is given.

    x, other: (N, ..., C) bfloat16; scale: (C,) or, for each image, (N, C) float32; shift, slope:
    (C,) float32.
    """
    if not usable(x, *([] if other is None else [other])):
        return None
    out, channels = torch.empty_like(x), x.shape[-1]
    eights, count = channels // 8, x.numel() // 8
    rows = count // eights  # all
    apart = -(-rows // 4) * eights
    rows_alike = rows if scale.ndim == 1 else rows // len(x)
    flags = RELU * relu + SLOPE * (slope is not None) + OTHER * (other is not None)
    scale = scale.contiguous()
    inputs = (x, scale, shift, scale if slope is None else slope, x if other is None else other)
    numbers = (count, eights, apart, rows_alike, flags)
    return out if launched("scale_and_shift", apart, *inputs, out, *numbers) else None


def normalised(
    x: torch.Tensor, bias: torch.Tensor, weight: torch.Tensor, shift: torch.Tensor, eps: float
) -> torch.Tensor | None:
    """Layer normalisation over C of x + bias. x: (..., C) bfloat16; the others: (C,) float32."""
    if x.shape[-1] > WIDEST or not usable(x):
        return None
    out, channels = torch.empty_like(x), x.shape[-1]
    rows = x.numel() // channels
    inputs = (x, bias, weight, shift, out)
    told = launched("normalised", 32 * rows, *inputs, rows, channels // 4, float(eps))
    return out if told else None


def largest(x: torch.Tensor, padding: int) -> torch.Tensor | None:
    """The largest of 3 x 3 pixels, two apart. x: (N, H, W, C) bfloat16; padding: 0 or 1."""
    if not usable(x) or min(x.shape[1:3]) < 3:
        return None
    many, height, width, channels = x.shape
    rows, columns = ((side + 2 * padding - 3) // 2 + 1 for side in (height, width))
    out = x.new_empty(many, rows, columns, channels)
    count = out.numel() // 8
    numbers = (count, channels // 8, height, width, rows, columns, padding)
    return out if launched("largest", count, x, out, *numbers) else None
