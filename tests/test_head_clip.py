"""CLIP on the head around a face and on the inner face, for comparison with photographs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.numpy import save
from safetensors.torch import save_file

from data.faces import FaceCutter
from features.reference import units
from features.regions import BOXES, REGIONS
from inference.bundled import comparison_for
from inference.comparison import REFERENCE, REFERENCE_LITE, Comparison
from models import HEAD_MAPS
from models.head_clip import VIEWS, WHOLE, HeadClip, load_maps, masks, random_maps
from models.tensors import WeightsError, sha256_of
from models.weights import WEIGHTS, place
from training.head_clip import fit
from training.region_net import verification

INNER, OUTER = REGIONS.index("inner"), REGIONS.index("outer")


@pytest.fixture(scope="module")
def expert() -> HeadClip:
    pytest.importorskip("onnx", reason="needs onnx, which reads the file")
    path = place(WEIGHTS["clip-vit-b-16"])
    if not path.is_file():
        pytest.skip("needs the package that carries CLIP's weights")
    return HeadClip(path).frozen("cpu")


@pytest.fixture(scope="module")
def faces(expert, astronaut, hopper) -> torch.Tensor:
    pictures = [astronaut, hopper, np.ascontiguousarray(astronaut[:, ::-1])]
    return FaceCutter(crops=[WHOLE])(pictures).views[WHOLE]


def test_the_masks_are_the_regions_and_no_corner():
    found = masks()
    assert not (found["inner"] & found["outer"]).any()
    assert not found["outer"][:30, :30].any() and found["outer"][40, 224]  # background; hair
    rows, columns = np.nonzero(found["inner"])
    x0, y0, x1, y1 = BOXES["inner"]
    at = lambda value, start: (value - start) / WHOLE.width * WHOLE.px  # noqa: E731
    assert abs(columns.min() - at(x0, WHOLE.x0)) <= 1 and abs(rows.max() - at(y1, WHOLE.y0)) <= 1
    x, y, side = VIEWS["inner"]  # the view holds the region, and little more
    assert x <= columns.min() and columns.max() < x + side <= WHOLE.px
    assert y <= rows.min() and rows.max() < y + side


def test_each_region_sees_its_own_pixels_alone(expert, faces):
    outputs = expert(faces)["likeness"]
    assert outputs.shape == (3, len(REGIONS), expert.outputs["likeness"].size)
    others = [place for place in range(len(REGIONS)) if place not in (INNER, OUTER)]
    assert not outputs[:, others].any()
    np.testing.assert_allclose(outputs[:, [INNER, OUTER]].norm(dim=-1), 1, rtol=1e-5)
    changed = faces.clone()
    changed[:, :3, masks()["inner"]] = 90
    again = expert(changed)["likeness"]
    torch.testing.assert_close(again[:, OUTER], outputs[:, OUTER], atol=1e-5, rtol=0)
    assert (again[:, INNER] * outputs[:, INNER]).sum(-1).max() < 0.7
    # One person in the mirror, and another one.
    for region in (INNER, OUTER):
        own, other = (
            outputs[0, region] @ outputs[2, region],
            outputs[0, region] @ outputs[1, region],
        )
        assert own > other + 0.3


def test_what_is_outside_the_photograph_does_not_count(expert, faces):
    cut = faces[:1].clone()
    cut[:, :, :120] = 0  # alpha too
    noisy = cut.clone()
    noisy[:, :3, :120] = 200
    torch.testing.assert_close(expert(cut)["likeness"], expert(noisy)["likeness"])
    gone = torch.zeros_like(cut)
    assert expert(gone)["likeness"].isfinite().all()


def test_its_outputs_depend_on_the_maps_too(expert):
    assert expert.beside == (HEAD_MAPS,)
    assert sha256_of(expert.weights, *expert.beside) != sha256_of(expert.weights)


def test_damaged_maps_are_refused(tmp_path):
    path = tmp_path / "maps.safetensors"
    with pytest.raises(FileNotFoundError, match="training/head_clip"):
        load_maps(path)
    save_file({"outer.weight": torch.ones(2, 3), "outer.bias": torch.ones(2)}, path)
    with pytest.raises(WeightsError, match=r"maps\.safetensors: not written by"):
        load_maps(path)
    path.write_bytes(b"nothing")
    with pytest.raises(WeightsError):
        load_maps(path)
    assert set(load_maps(random_maps(path))) == set(VIEWS)


def test_a_map_ignores_what_differs_between_photographs_of_one_person():
    rng = np.random.default_rng(0)
    people, pictures, size = 60, 4, 32
    of = rng.normal(size=(people, size)) * np.repeat((1.0, 0.1), size // 2)[::-1]
    light = rng.normal(size=(people * pictures, size)) * np.repeat((0.1, 3.0), size // 2)[::-1]
    x = units(np.repeat(of, pictures, axis=0) + light)
    person = np.repeat(np.arange(people), pictures)
    train = person < 40
    weight, bias = fit(x[train], person[train], 0.1)
    before = verification(units(x[~train]), person[~train])
    after = verification(units(x[~train] @ weight.T + bias), person[~train])
    assert after > before + 0.1


def test_maps_are_read_as_they_were_fitted(tmp_path):
    rng = np.random.default_rng(0)
    x, person = units(rng.normal(size=(120, 40))), np.repeat(np.arange(40), 3)
    tensors, wanted = {}, {}
    for region in VIEWS:
        weight, bias = fit(x, person, 1.0)
        tensors |= {f"{region}.weight": weight, f"{region}.bias": bias}
        wanted[region] = x @ weight.T + bias
    path = tmp_path / "maps.safetensors"
    path.write_bytes(save(tensors))
    for region, linear in load_maps(path).items():
        with torch.inference_mode():
            found = linear(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(found, wanted[region], rtol=1e-4, atol=1e-4)


def test_without_the_package_the_small_comparison_is_taken(monkeypatch, caplog):
    assert "head" in Comparison.load(REFERENCE).weights
    assert "head" not in Comparison.load(REFERENCE_LITE).weights
    monkeypatch.setattr("inference.bundled.lacking", lambda row, folder: ["pip install x"])
    assert comparison_for() == REFERENCE_LITE
    assert "pip install x" in caplog.text
    monkeypatch.setattr("inference.bundled.lacking", lambda row, folder: [])
    assert comparison_for() == REFERENCE
