"""The head on CLIP's blocks: the faces it is trained on, and a training of a few steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data.dump import read_dump
from features.regions import Crop
from models import BLOCK_HEAD
from models.block_head import load_block_head, statistics
from models.tensors import WeightsError
from training import block_head, views
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
    kinds = [
        "self_blend",
        REDRAWN,
        RESTORED,
        "a: swap: x",
        "a: swap: y",
        "a: gan: z",
        "plain a: gan: z",
        "b: ",
    ]
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
