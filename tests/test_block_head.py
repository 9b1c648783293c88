"""The head on CLIP's blocks: the faces it is trained on, and a training of a few steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from data.dump import read_dump
from features.regions import Crop
from models import BLOCK_HEAD
from models.block_head import BLOCKS, TUNED, BlockHead, load_block_head, statistics
from models.tensors import WeightsError
from training import block_head, block_norms, views
from training.aligned_crops import real_faces
from training.pseudo_fakes import KINDS, PseudoFakes
from training.views import PLAIN, REDRAWN, RESTORED, Labelled, Views, as_sharp

CROP = Crop.of_box(1.3, 64)
PAIRS = {"pseudo": 3, "redrawn": 2, "restored": 1, "labelled": 3, "plain": 2}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def labelled(lit_dump: Path) -> Labelled:
    dump = read_dump(lit_dump)
    return Labelled.of(dump, Path(dump.meta["data_root"]))


@pytest.fixture
def lots(lit_dump: Path, labelled, monkeypatch) -> Views:
    monkeypatch.setattr(views, "PAIRS", PAIRS)
    monkeypatch.setattr(views, "restored", lambda face, rng: face // 2)  # the network is slow
    dump = read_dump(lit_dump)
    crops = real_faces([dump], [Path(dump.meta["data_root"])], 0, 1)
    x, y, side = views.FACE_WINDOW
    small = crops.images[:, y : y + side : 2, x : x + side : 2, :3]
    decoded = np.pad(small, ((0, 0), (24, 24), (24, 24), (0, 0)), "edge")
    return Views(PseudoFakes(replace(crops, reconstructed=decoded)), [labelled], CROP, 3)


def test_lots_hold_pairs_in_turn_and_are_the_same_again(lots) -> None:
    faces, kinds, sources = lots.lot(4)
    assert faces.shape == (22, 64, 64, 4) and faces.dtype == np.uint8
    name = f"{lots.labelled[0].name}: "
    assert [*map(kinds.count, (REDRAWN, RESTORED, name, PLAIN + name))] == [2, 1, 3, 2]
    assert {*kinds[:3]} <= {*KINDS}
    assert {*sources} == {lots.labelled[0].name} and len(sources) == 11
    again, *same = lots.lot(4)
    assert (again == faces).all() and same == [kinds, sources]
    assert (lots.lot(5)[0] != faces).any()
    real = replace(lots.labelled[0], fakes={})
    assert {*replace(lots, datasets=[real]).lot(4)[1]} <= {*KINDS, REDRAWN, RESTORED}


def test_labelled_pairs_are_training_faces_and_every_method_counts_alike(lit_dump) -> None:
    dump = read_dump(lit_dump)
    rows, root = dump.rows, Path(dump.meta["data_root"])
    rows["label"][-3:] = 1
    real, fake = rows["label"] == 0, rows["label"] == 1
    rows["split"][:] = "train"
    rows["split"][np.flatnonzero(real)[0]] = rows["split"][np.flatnonzero(fake)[1]] = "test"
    rows["method"] = np.array(["often" if each else "" for each in fake], object)
    rows["method"][np.flatnonzero(fake)[0]] = "seldom"
    found = Labelled.of(dump, root)
    assert found.real.tolist() == np.flatnonzero(real)[1:].tolist()
    assert {name: len(own) for name, own in found.fakes.items()} == {
        "often": fake.sum() - 2,
        "seldom": 1,
    }
    rng = np.random.default_rng(0)
    drawn = [found.draw_fake(CROP, rng) for _ in range(20)]
    assert {kind for _, kind in drawn} == {f"{found.name}: often", f"{found.name}: seldom"}
    assert found.draw_real(CROP, rng).shape == drawn[0][0].shape == (64, 64, 4)
    rows["label"][:] = 0
    found = Labelled.of(dump, root)
    assert not found.has_both
    assert found.real.tolist() == np.flatnonzero(rows["split"] == "train").tolist()


def test_both_of_a_pair_take_one_channel(lots) -> None:
    """Two equal pictures through the same window stay equal, whatever happened to them."""
    face = lots.fakes.crops.images[0, :64, :64]
    view = np.eye(3)[:2]
    for seed in range(12):
        first, second = lots._seen([face, face], [view, view], np.random.default_rng(seed))
        assert (first == second).all()


def test_a_redrawn_face_is_no_sharper_than_its_partner() -> None:
    rng = np.random.default_rng(0)
    sharp = rng.integers(0, 255, (64, 64, 3)).astype(np.uint8)
    soft = as_sharp(sharp, views.degrade.blur(sharp, 1.0))
    detail = [views.cv2.Laplacian(x, views.cv2.CV_32F).std() for x in soft]
    assert 0.5 * detail[1] < detail[0] <= 1.03 * detail[1]
    turned = as_sharp(views.degrade.blur(sharp, 1.0), sharp)
    assert (turned[1] == soft[0]).all() and (turned[0] == soft[1]).all(), "in either order"
    assert all((x == sharp).all() for x in as_sharp(sharp, sharp))


def test_statistics_of_a_region_count_its_patches_by_share() -> None:
    tokens = torch.randn(2, 1 + 9, 4)
    shares = torch.zeros(2, 1, 9)
    shares[..., 2], shares[..., 5] = 0.25, 0.75
    found = statistics([tokens], shares)[:, 0]
    first, second = tokens[:, 3], tokens[:, 6]
    mean = 0.25 * first + 0.75 * second
    spread = (0.25 * (first - mean) ** 2 + 0.75 * (second - mean) ** 2).sqrt()
    for own, wanted in zip(found.unbind(1), (tokens[:, 0], mean, spread), strict=True):
        assert torch.allclose(own, wanted, atol=1e-3)


def test_the_bundled_head_loads_and_a_damaged_one_is_named(tmp_path) -> None:
    head = load_block_head(BLOCK_HEAD)
    assert torch.isfinite(head(torch.randn(3, 36, 768))).all()
    broken = tmp_path / "block_head.safetensors"
    broken.write_bytes(BLOCK_HEAD.read_bytes()[:-9])
    with pytest.raises(WeightsError, match="block_head.safetensors"):
        load_block_head(broken)


def test_training_learns_resumes_and_leaves_a_dataset_out(lots, tmp_path, monkeypatch) -> None:
    """Of statistics in which fakes stand out, without CLIP, which is slow."""

    def seen(faces: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(len(faces))
        found = rng.normal(size=(len(faces), 36, 768)).astype(np.float16)
        found[1::2, :, :40] += 2
        return found

    monkeypatch.setattr(block_head, "seen", seen)
    made = block_head.Lots(lots, tmp_path / "lots", {"seed": 0})
    files = [made[number] for number in range(2)]
    before = files[0].read_bytes()
    monkeypatch.setattr(block_head, "seen", None)
    assert made[0].read_bytes() == before, "a lot that is there is not made again"
    with pytest.raises(ValueError, match="lots of other faces or settings"):
        block_head.Lots(lots, tmp_path / "lots", {"seed": 1})
    fakes = {lots.labelled[0].name: 4}
    options = {"features": (), "device": "cpu", "workers": 0, "pairs": 8, "ema": 0.5}
    config = block_head.Config(out=tmp_path, steps=12, interval=6, **options)
    weights = block_head.train(files, fakes, 4, config)
    rows = np.load(files[0])["statistics"].astype(np.float32)
    logits = load_block_head(weights)(torch.from_numpy(rows))
    assert (logits[1::2, None] > logits[0::2]).float().mean() > 0.9
    log = (tmp_path / "log.csv").read_text()
    assert len(log.splitlines()) == 3
    assert (
        block_head.train(files, fakes, 4, config) == weights
        and (tmp_path / "log.csv").read_text() == log
    )
    name = lots.labelled[0].name
    assert [*map(len, block_head.Pairs(files, config, fakes).pools.values())] == [1, 1, 1, 1]
    without = replace(config, without=(name,))
    with pytest.raises(ValueError, match="--without leaves no pseudo-fakes"):
        block_head.Pairs(files, without, fakes)
    content = dict(np.load(files[1])) | {"sources": np.full(11, "another")}
    np.savez(files[1], **content)
    pairs = block_head.Pairs(files, without, fakes)
    assert [*map(len, pairs.pools.values())] == [1, 1, 0, 0], "of the other lot"
    assert len(pairs.made) == 3 and len(pairs[0][0]) == 16


def test_each_dataset_is_left_out_once(lit_dump, lots, tmp_path, monkeypatch) -> None:
    """On the same lots; what the user leaves out stays out, and a head to start from is not used."""
    made, trained = (tmp_path / "weights.safetensors"), []
    made.write_bytes(b"head")
    second = replace(lots.labelled[0], name="second")
    pairs = iter([lots.labelled[0], second])
    monkeypatch.setattr(block_head, "clip", lambda: SimpleNamespace(crop=CROP))
    monkeypatch.setattr(block_head, "network", lambda: None)
    monkeypatch.setattr(block_head, "real_faces", lambda *args: lots.fakes.crops)
    monkeypatch.setattr(block_head, "with_reconstructions", lambda crops, *rest: crops)
    monkeypatch.setattr(block_head.Labelled, "of", lambda dump, root: next(pairs))

    def train(files, fakes, faces, config) -> Path:
        config.out.mkdir(parents=True, exist_ok=True)
        trained.append(config)
        return made

    monkeypatch.setattr(block_head, "train", train)
    config = block_head.Config(
        features=(lit_dump, lit_dump), out=tmp_path, device="cpu", workers=0, lots=0, start="x"
    )
    config = replace(config, left_out=True, without=("swap",))
    assert block_head.main(config) == made
    names = [lots.labelled[0].name, "second"]
    wanted = [("x", ("swap",)), *(("", ("swap", name)) for name in names)]
    assert [(each.start, each.without) for each in trained] == wanted
    assert sorted(x.name for x in (tmp_path / "left_out").glob("*.*")) == sorted(
        f"{name}.safetensors" for name in names
    )
    with pytest.raises(ValueError, match="give it without --seconds"):
        block_head.main(replace(config, seconds=1))


def test_a_method_or_a_kind_is_left_out_of_every_source(tmp_path) -> None:
    labelled = ["a: swap: x", "a: swap: y", "a: gan: z", "plain a: gan: z", "b: "]
    kinds = ["self_blend", REDRAWN, RESTORED, *labelled]
    file = tmp_path / "00000.npz"
    about = {"kinds": np.array(kinds), "sources": np.array([kind[:1] for kind in kinds])}
    np.savez(file, statistics=np.zeros((2 * len(kinds), 36, 768), np.float16), **about)

    weights = []

    def used(*without: str) -> dict[str, list[list[str]]]:
        config = block_head.Config(features=(), without=without)
        pairs = block_head.Pairs([file], config, {"a": 9, "b": 4})
        pools = pairs.pools
        weights.append(pairs.weights["labelled"])
        return {
            source: [[kinds[row] for row in pool] for pool in pools[source]] for source in pools
        }

    assert used() == {
        "redrawn": [[REDRAWN]],
        "restored": [[RESTORED]],
        "plain": [["plain a: gan: z"]],
        "labelled": [["a: swap: x", "a: swap: y", "a: gan: z"], ["b: "]],
    }
    assert weights == [[3, 2]], "the root of the number of fakes"
    assert used("gan")["plain"] == [] and used("z") == used("gan")
    assert used("swap", "b")["labelled"] == [["a: gan: z"]]
    assert used("a")["labelled"] == [["b: "]] and not used("a")["plain"]


@pytest.fixture
def tower() -> VisionTransformer:
    """Small, of random weights, as deep and wide as the real one."""
    torch.manual_seed(0)
    size = {"img_size": 64, "patch_size": 32, "embed_dim": 768, "depth": BLOCKS, "num_heads": 12}
    net = VisionTransformer(**size, num_classes=0).eval().requires_grad_(False)
    for name, parameter in net.named_parameters():
        if "norm" in name:
            parameter.data += torch.randn_like(parameter) / 5
    return net


@pytest.fixture
def clip(tower) -> SimpleNamespace:
    def network_input(faces: torch.Tensor) -> torch.Tensor:
        return faces[:, :3].float() / 255 - 0.5

    return SimpleNamespace(net=tower, bf16=False, network_input=network_input)


def test_a_head_reads_blocks_through_its_own_normalisations(tower, clip, tmp_path) -> None:
    faces = torch.randint(0, 255, (3, 4, 64, 64), dtype=torch.uint8)
    tokens, blocks = tower.patch_embed(clip.network_input(faces)), []
    tokens = tower.norm_pre(tower._pos_embed(tokens))
    for block in tower.blocks:
        tokens = block(tokens)
        blocks.append(tokens)
    plain = BlockHead()
    assert plain.read(tower, blocks) is blocks
    head = block_norms.tuned(plain, tower)
    assert block_norms.tuned(head, tower) is head
    first = block_norms.Tuned.first(clip, faces)
    same = head.read(tower, first)
    assert len(first) == BLOCKS - TUNED and len(same) == BLOCKS
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(same, blocks, strict=True))
    head.norms[5].data += 0.1  # shift of the first normalisation of the second tuned block
    other = head.read(tower, blocks)
    moved = [(a - b).abs().max().item() > 1e-3 for a, b in zip(other, blocks, strict=True)]
    assert moved == [False] * (BLOCKS - TUNED + 1) + [True] * (TUNED - 1)
    assert (tower.blocks[-5].norm1.bias != head.norms[5]).all(), "CLIP's own stay"
    block_head.write_half(head, tmp_path / "head.safetensors", {})
    again = load_block_head(tmp_path / "head.safetensors")
    assert [*again.state_dict()] == [*head.state_dict()]
    assert torch.allclose(again.norms[5], head.norms[5], atol=1e-3)
    assert not torch.allclose(again.norms[4], again.norms[6], atol=1e-3), "each has its own"


def test_tuning_moves_normalisations_and_the_head_alone(
    lots, tower, clip, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(block_norms, "ClipImage", lambda *rest: clip)
    clip.frozen = lambda *rest, **more: clip
    monkeypatch.setattr(block_norms, "find_weights", lambda *rest: {"clip": tmp_path})
    made = block_norms.Pictures(lots, tmp_path / "lots", {"seed": 0})
    files = [made[number] for number in range(2)]
    assert (np.load(files[1])["faces"] == lots.lot(1)[0]).all()
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    start = tmp_path / "start.safetensors"
    block_head.write_half(BlockHead(), start, {})
    options = {"features": (), "device": "cpu", "workers": 0, "pairs": 4, "lr": 0.6}
    config = block_norms.Config(out=tmp_path, steps=1, start=str(start), **options)
    weights = block_norms.train(files, {lots.labelled[0].name: 4}, 4, config)
    begin, head = load_block_head(start), load_block_head(weights)
    rate = block_head.Schedule(1, 1, 30, 1.0).rate(0) * config.lr
    norms = block_norms.tuned(begin, tower).norms
    moved = max((a - b).abs().max().item() for a, b in zip(head.norms, norms, strict=True))
    assert moved == pytest.approx(rate, rel=0.1)
    slower = (head.mlp[1].weight - begin.mlp[1].weight).abs().max().item()
    assert slower == pytest.approx(rate / 2, rel=0.1)
    assert all((before[name] == value).all() for name, value in tower.state_dict().items())
    own = block_head.Config(out=tmp_path / "own", start=str(weights), **options | {"lr": 1e-3})
    with pytest.raises(ValueError, match="block_norms trains it"):
        block_head.train(files, {}, 4, own)


def test_both_faces_of_a_pair_are_mirrored_or_neither(tower, clip) -> None:
    """And nothing of CLIP itself gets a gradient."""
    seen, look = [], clip.network_input
    clip.network_input = lambda faces: seen.append(faces) or look(faces)
    pairs = torch.randint(0, 255, (8, 64, 64, 4), dtype=torch.uint8).repeat_interleave(2, 0)
    task = block_norms.Tuned(block_norms.tuned(BlockHead(), tower), clip)
    torch.manual_seed(0)
    loss, _ = task(pairs)
    (faces,) = seen
    mirrored = (faces == pairs.permute(0, 3, 1, 2).flip(3)).flatten(1).all(1)
    assert (faces[0::2] == faces[1::2]).all() and 0 < mirrored.sum() < len(faces)
    assert not any(block.requires_grad for block in task.first(clip, faces))
    loss.backward()
    assert all(norm.grad is not None for norm in task.net.norms)
    assert all(parameter.grad is None for parameter in tower.parameters())


def test_each_head_is_tuned_from_the_one_that_saw_the_same(tmp_path, monkeypatch) -> None:
    names, tuned = ["a", "b"], []
    (tmp_path / "heads" / "left_out").mkdir(parents=True)
    monkeypatch.setattr(block_norms, "made_lots", lambda *rest: ([], {}, 4, names))
    monkeypatch.setattr(block_norms, "read_dump", lambda x: SimpleNamespace(meta={"dataset": x}))
    config = block_norms.Config(features=("a", "b"), out=tmp_path, heads=tmp_path / "heads")
    config = replace(config, out=tmp_path / "out", left_out=True)
    with pytest.raises(FileNotFoundError, match="block_head.safetensors"):
        block_norms.main(config)
    for name in ("block_head", "left_out/a"):
        block_head.write_half(BlockHead(), tmp_path / "heads" / f"{name}.safetensors", {})
    with pytest.raises(FileNotFoundError, match="b.safetensors"):
        block_norms.main(config)
    block_head.write_half(BlockHead(), tmp_path / "heads" / "left_out" / "b.safetensors", {})

    def train(files, fakes, faces, config) -> Path:
        config.out.mkdir(parents=True, exist_ok=True)
        tuned.append((Path(config.start).stem, config.without, config.out.name))
        return Path(config.start)

    monkeypatch.setattr(block_norms, "train", train)
    block_norms.main(config)
    assert tuned == [("block_head", (), "out"), ("a", ("a",), "a"), ("b", ("b",), "b")]
    with pytest.raises(ValueError, match="give it without --seconds"):
        block_norms.main(replace(config, seconds=1))
