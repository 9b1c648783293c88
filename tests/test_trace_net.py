"""The trace network: its outputs and its files. Training: test_training.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from features.regions import REGIONS
from models.tensors import write_half
from models.trace_net import TraceExpert, TraceNet, as_seen, load_trace_net, region_shares


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    write_half(TraceNet(), path, {"trained": "not at all"})
    return path


def pictures(count: int = 2) -> torch.Tensor:
    found = np.random.default_rng(0).integers(0, 256, (count, 4, 160, 160), dtype=np.uint8)
    found[:, 3] = 255
    return torch.from_numpy(found)


def test_outputs_for_every_region(weights: Path) -> None:
    outputs = TraceExpert(weights).frozen("cpu")(pictures())
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "source": (2, len(REGIONS), 32),
        "altered": (2, len(REGIONS), 1),
    }
    assert torch.allclose(outputs["source"].norm(dim=-1), torch.ones(2, len(REGIONS)), atol=1e-5)
    net, seen = load_trace_net(weights).eval(), pictures()[:, :3]
    with torch.inference_mode():
        whole = torch.stack(
            [net(as_seen(images))["whole"] for images in (seen, seen.flip(-1))]
        ).mean(0)
    assert torch.allclose(
        outputs["altered"][:, 0, 0], whole, atol=1e-5
    )  # of the whole face, what is outputs of it as such
    black = pictures(1)
    black[:, 3] = 0  # all of it outside the photograph: nothing of it is seen
    grey = black.clone()
    grey[:, :3] = 7
    expert = TraceExpert(weights).frozen("cpu")
    assert torch.equal(expert(black)["altered"], expert(grey)["altered"])


def test_mirror_images_exchange_left_and_right(weights: Path) -> None:
    expert, images = TraceExpert(weights).frozen("cpu"), pictures()
    left, right, full = (REGIONS.index(name) for name in ("left", "right", "full"))
    for name, outputs in expert(images).items():
        mirrored = expert(images.flip(-1))[name]
        assert torch.allclose(outputs[:, left], mirrored[:, right], atol=1e-4)
        assert torch.allclose(outputs[:, full], mirrored[:, full], atol=1e-4)
        assert not torch.allclose(outputs[:, left], outputs[:, right], atol=1e-4)


def test_batch_size_does_not_matter_and_bfloat16_little(weights: Path) -> None:
    images = pictures(5)
    together = TraceExpert(weights).frozen("cpu")(images)
    alone = [TraceExpert(weights).frozen("cpu")(images[i : i + 1]) for i in range(5)]
    rough = TraceExpert(weights, bf16=True).frozen("cpu")(images)
    for name, value in together.items():
        assert value.dtype == rough[name].dtype == torch.float32 and value.isfinite().all()
        assert torch.allclose(torch.cat([one[name] for one in alone]), value, atol=1e-4)
        assert torch.allclose(rough[name], value, atol=0.05) and not torch.equal(rough[name], value)


def test_region_shares() -> None:
    shares = region_shares()
    assert torch.allclose(shares.sum((1, 2)), torch.ones(len(REGIONS)))

    def centre(region: str) -> torch.Tensor:  # x, y
        share, cells = shares[REGIONS.index(region)], torch.arange(20)
        return torch.stack([(share.sum(axis) * cells).sum() for axis in (0, 1)])

    assert centre("upper")[1] + 5 < centre("lower")[1]
    assert centre("left")[0] + 5 < centre("right")[0]
    assert (shares[REGIONS.index("inner")] * shares[REGIONS.index("outer")]).sum() < 1e-3


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_trace_net(tmp_path / "none.safetensors")
    (tmp_path / "odd.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"odd\.safetensors: damaged"):
        load_trace_net(tmp_path / "odd.safetensors")
