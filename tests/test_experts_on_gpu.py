"""The form of the experts that a GPU gets: the same function, and in 16 bits nearly the same
numbers. A CPU computes it too; where there is a GPU, that is asked as well.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.flops import flops_per_face
from data.faces import FaceCutter
from features.regions import ALIGNED, REGIONS
from models import BUNDLED, CLIP_MODEL, PROFILES, gpu_kernels
from models.base import Expert
from models.ensemble import Ensemble, arithmetic, expert_class, find_weights
from models.gpu_layers import Affine, Conv, Largest, Norm, Patches
from models.trace_net import CROP
from tests.test_experts import agree

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
USUAL = sorted({name for names in PROFILES.values() for name in names})
DEVICES = ["cpu", pytest.param("cuda", marks=GPU)]
Built = Callable[..., Expert]


@pytest.fixture(scope="module")
def built(official_weights) -> Built:
    def build(name: str, bf16: bool, device: str = "cpu", for_gpu: bool | None = None) -> Expert:
        file = find_weights([name], official_weights, CLIP_MODEL)[name]
        return expert_class(name)(file, bf16).frozen(device, for_gpu)

    return build


@pytest.fixture(scope="module")
def faces(views, astronaut, hopper) -> dict[str, torch.Tensor]:
    """Two real faces as each expert sees them."""
    pictures = [astronaut, np.ascontiguousarray(hopper[..., ::-1]) // 2]
    cut = FaceCutter(crops=[ALIGNED, CROP])(pictures).views
    return {name: view[:2] for name, view in views.items()} | {
        "lite": cut[ALIGNED],
        "traces": cut[CROP],
    }


@pytest.fixture(scope="module")
def exact(built, faces) -> dict[str, dict[str, torch.Tensor]]:
    """The outputs in float32 on a CPU."""
    return {name: built(name, False)(view) for name, view in faces.items()}


def seen(expert: Expert, faces: torch.Tensor, device: str, tf32: bool = False) -> dict:
    with arithmetic(torch.device(device), tf32, benchmark=False):
        return {key: value.cpu() for key, value in expert(faces.to(device)).items()}


@pytest.mark.parametrize("name", USUAL)
def test_it_is_the_same_function(built, faces, exact, name):
    expert = built(name, True, for_gpu=False)
    expert.rewrite(torch.float32)
    expert.bf16 = False
    agree(expert, expert(faces[name]), exact[name])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", USUAL)
def test_16_bits_are_nearly_float32(built, faces, exact, name, device):
    expert = built(name, True, device, for_gpu=True)
    assert expert.dtype == (torch.float16 if name in BUNDLED else torch.bfloat16)
    found = seen(expert, faces[name], device)
    agree(expert, found, exact[name], "bf16")
    for key, value in found.items():
        assert value.dtype == torch.float32 and value.isfinite().all()
        assert not torch.equal(value, exact[name][key])


@GPU
@pytest.mark.parametrize("name", USUAL)
def test_a_gpu_computes_what_a_cpu_does(built, faces, exact, name):
    expert = built(name, False, "cuda")
    agree(expert, seen(expert, faces[name], "cuda"), exact[name])
    agree(expert, seen(expert, faces[name], "cuda", tf32=True), exact[name], "tf32")


@GPU
def test_a_gpu_is_not_waited_for(official_weights, faces):
    ensemble = Ensemble(("lite", "traces"), "cuda")
    views = {ALIGNED: faces["lite"], CROP: faces["traces"].cuda()}
    expected = ensemble(views)
    torch.cuda.set_sync_debug_mode("error")
    try:
        pending = ensemble.start(views)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    found = pending.result()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_float32_expert_stays_as_it_is(built):
    before, after = built("fairface", False), built("fairface", False, for_gpu=True)
    assert str(before.net) == str(after.net) and after.dtype == torch.float32


def test_network_input_in_16_bits(built, views):
    for name in ("fairface", "pyfeat"):  # at its size, and resized
        plain, half = built(name, True), built(name, True, for_gpu=True)
        found, expected = (e.network_input(views[name][:1]) for e in (half, plain))
        assert found.dtype == torch.bfloat16 and torch.allclose(found.float(), expected, atol=0.01)
        assert found.is_contiguous(memory_format=torch.channels_last)


def test_a_bias_is_a_bias():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, 3, stride=2, padding=1).eval()
    images = torch.randn(2, 3, 9, 9)
    expected = conv(images)
    assert torch.allclose(Conv(conv).eval()(images), expected, atol=1e-5)


def randoms(*shape: int) -> torch.Tensor:
    """Channels last, in bfloat16."""
    return torch.randn(*shape).bfloat16().contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("after", ["nothing", "relu", "prelu"])
@pytest.mark.parametrize("shape", [(3, 96, 7, 5), (1, 8, 1, 1), (2, 200, 9, 9)])
def test_one_pass_over_memory(shape, after, device):
    torch.manual_seed(0)
    x, other, scale, shift, slope = (
        *(randoms(*shape) for _ in range(2)),
        *torch.randn(3, shape[1]),
    )
    layer = Affine(scale, shift, after == "relu", slope if after == "prelu" else None).to(device)
    column = (slice(None), None, None)
    for more in (None, other):
        expected = x.float() * scale[column] + shift[column]
        expected = expected if more is None else expected + more.float()
        if after != "nothing":
            below = slope[column] if after == "prelu" else 0
            expected = torch.where(expected < 0, expected * below, expected)
        found = layer(x.to(device), None if more is None else more.to(device))
        assert found.dtype == torch.bfloat16
        assert torch.allclose(found.cpu().float(), expected, atol=0.05, rtol=0.02)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels", [8, 96, 768, 1024])
def test_layer_normalisation(channels, device):
    torch.manual_seed(0)
    x, bias, norm = randoms(3, channels, 5, 3), torch.randn(channels), nn.LayerNorm(channels)
    norm.weight.data, norm.bias.data = torch.randn(2, channels)
    layer, add = Norm(norm, first=True).to(device), Affine.of_bias(bias).to(device)
    for more in (None, add):
        rows = x.float().permute(0, 2, 3, 1) + (0 if more is None else bias)
        found = layer(x.to(device), more)
        assert found.dtype == torch.bfloat16
        expected = norm(rows).permute(0, 3, 1, 2)
        assert torch.allclose(found.cpu().float(), expected, atol=0.05, rtol=0.02)


@pytest.mark.parametrize("bias", [False, True])
def test_patches(bias):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 10, 4, stride=4, bias=bias)
    images = torch.randn(2, 3, 12, 8)
    expected = conv(images)
    for x in (images, images.contiguous(memory_format=torch.channels_last)):
        found = Patches(conv)(x)
        assert found.is_contiguous(memory_format=torch.channels_last)
        assert torch.allclose(found, expected, atol=1e-5)
    with pytest.raises(ValueError, match="overlap"):
        Patches(nn.Conv2d(3, 10, 4, stride=2))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("shape", [(2, 8, 7, 7), (1, 96, 5, 14), (3, 16, 12, 3)])
def test_the_largest_of_pixels(shape, padding, device):
    torch.manual_seed(0)
    x, pool = randoms(*shape), nn.MaxPool2d(3, 2, padding)
    x[0, 1, 1, 1] = torch.nan
    found = Largest(pool).to(device)(x.to(device)).cpu()
    assert torch.equal(found.nan_to_num(9), pool(x).nan_to_num(9))


@GPU
def test_the_kernels_are_used():
    x = randoms(2, 16, 3, 3).permute(0, 2, 3, 1).cuda()
    numbers = torch.randn(16, device="cuda")
    assert gpu_kernels.scale_and_shift(x, numbers, numbers) is not None
    assert gpu_kernels.normalised(x, numbers, numbers, numbers, 1e-6) is not None
    assert gpu_kernels.largest(x, 1) is not None
    each = torch.randn(2, 16, device="cuda")
    found = gpu_kernels.scale_and_shift(x, each, numbers)
    expected = x.float() * each[:, None, None] + numbers
    assert torch.allclose(found.float(), expected, atol=0.05, rtol=0.02)


def test_arithmetic_per_face(built):
    """resnet34: 3.67 thousand million multiplications of a picture of 224 px."""
    assert flops_per_face(built("fairface", False)) == pytest.approx(
        len(REGIONS) * 2 * 3.664e9, rel=0.01
    )
