import numpy as np
import pytest
import torch

from features.regions import REGIONS, region_masks
from models.base import Output
from models.region_net import (
    AGE_BINS,
    RegionExpert,
    RegionNet,
    load_region_net,
    masked_input,
    save_region_net,
)

OUTPUTS = {
    "identity": Output("embedding", 16),
    "age": Output("distribution", 9),
    "age_years": Output("scalar", 1),
    "gender": Output("distribution", 2, ("Male", "Female")),
    "blendshapes": Output("vector", 5),
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    net = RegionNet(OUTPUTS, widths=(8, 8, 16), depths=(1, 1, 1)).eval()
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    save_region_net(net, path, {})
    return path


@pytest.fixture(scope="module")
def faces():
    faces = np.random.default_rng(0).integers(0, 256, (3, 4, 112, 112), dtype=np.uint8)
    faces[:, 3] = 255
    return torch.from_numpy(faces)


def test_outputs_keep_their_kinds(weights, faces):
    predictions = RegionExpert(weights).frozen("cpu")(faces)
    assert {name: tuple(value.shape) for name, value in predictions.items()} == {
        name: (3, len(REGIONS), output.size) for name, output in OUTPUTS.items()
    }
    for name in ("age", "gender"):
        assert torch.allclose(predictions[name].sum(-1), torch.ones(3, len(REGIONS)), atol=1e-5)
    assert torch.allclose(
        predictions["identity"].norm(dim=-1), torch.ones(3, len(REGIONS)), atol=1e-5
    )
    assert (predictions["blendshapes"] >= 0).all() and (predictions["blendshapes"] <= 1).all()
    assert (predictions["age_years"] >= 0).all() and (predictions["age_years"] <= 100).all()


def test_a_region_does_not_depend_on_the_rest(weights, faces):
    expert = RegionExpert(weights).frozen("cpu")
    before = expert(faces)["identity"]
    changed = faces.clone()
    changed[:, :3, 64:] = 255 - changed[:, :3, 64:]  # below the upper region
    after = expert(changed)["identity"]
    upper, lower = REGIONS.index("upper"), REGIONS.index("lower")
    assert torch.equal(before[:, upper], after[:, upper])
    assert not torch.allclose(before[:, lower], after[:, lower], atol=1e-3)


def test_pixels_outside_the_photograph_are_not_seen(weights, faces):
    expert = RegionExpert(weights).frozen("cpu")
    torn = faces.clone()
    torn[:, 3, :, :20] = 0
    painted = torn.clone()
    painted[:, :3, :, :20] = 99
    assert torch.equal(expert(torn)["identity"], expert(painted)["identity"])
    assert not torch.allclose(
        expert(torn)["identity"][:, 0], expert(faces)["identity"][:, 0], atol=1e-3
    )


def test_batch_size_does_not_matter(weights, faces):
    expert = RegionExpert(weights).frozen("cpu")
    whole = expert(faces)
    single = [expert(face[None]) for face in faces]
    for name, value in whole.items():
        assert torch.allclose(
            value,
            torch.cat([one[name] for one in single]),
            atol=2e-4 if name != "age_years" else 0.02,
        ), name


def test_masked_input_range_and_mask(faces):
    mask = torch.from_numpy(region_masks(regions=("left",))[0])
    for px in (112, 80):
        images = masked_input(faces, mask, px)
        assert images.shape == (3, 4, px, px) and images[:, :3].abs().max() <= 1
        assert (images[:, :, :, px // 2 :] == 0).all() and (images[:, 3, :, : px // 2] == 1).all()


def test_shrinking_averages_only_what_is_left(faces):
    white = torch.full_like(faces, 255)
    mask = torch.from_numpy(region_masks(regions=("upper",))[0])
    white[:, :3, ~mask] = 0
    assert (masked_input(white, mask, 80)[:, :3].amax((2, 3)) == 1).all()
    left = masked_input(white, mask, 80)
    assert ((left[:, 0] == 1) == (left[:, 3] == 1)).all()  # no grey seam at the border


def test_age_bins_are_fairfaces():
    assert [first for first, _ in AGE_BINS] == [0, 3, 10, 20, 30, 40, 50, 60, 70]
    net = RegionNet(OUTPUTS, widths=(8, 8, 16), depths=(1, 1, 1))
    logits = torch.full((1, 101), -50.0)
    logits[0, 34] = 50.0
    predictions = net.predictions({"age": logits})
    assert predictions["age"].argmax() == 4 and torch.allclose(
        predictions["age_years"], torch.tensor([[34.0]])
    )


def test_rebuilt_from_its_file_alone(weights, faces):
    first, second = (RegionExpert(weights).frozen("cpu")(faces) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert load_region_net(weights).outputs == OUTPUTS


def test_wrong_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="train a network with"):
        load_region_net(tmp_path / "none.safetensors")
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(b"not weights at all")
    with pytest.raises(ValueError, match="wrong.safetensors"):
        load_region_net(wrong)
