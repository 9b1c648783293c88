"""Training of the bundled networks: loop, teachers, losses, and runs of a few steps."""

from __future__ import annotations

import csv
import zipfile
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from command_line import BAD_INPUT, run
from data.dump import landmarks_of, read_dump
from data.faces import align
from data.images import read_image
from features.regions import REGIONS
from models.lite0 import lite0_weights
from models.region_net import RegionExpert, RegionNet, load_region_net
from models.tensors import WeightsError, write_half
from models.trace_net import TraceExpert, TraceNet, as_seen, load_trace_net, region_shares
from preprocessing_pipeline import Config as PreprocessConfig
from preprocessing_pipeline import main as preprocess
from training import loop, reconstruction, region_net, region_net_card, trace_net
from training.aligned_crops import WIDE_CROP, real_faces
from training.loop import Options, Schedule, fit
from training.pseudo_fakes import PseudoFakes
from training.teachers import RACES, load_teachers, missing_pixels, teachers_from_dump

pytestmark = pytest.mark.usefixtures("one_thread")
COUNT = 48  # faces of the teachers' folder


class Toy(nn.Module):
    """A task of the loop's interface: a small network with dropout and batch statistics."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 1))
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, dict]:
        loss = (self.scale * self.net(x)[:, 0] - y).square().mean()
        return loss, {"loss": loss.detach()}


class ToyBatches(torch.utils.data.Dataset):
    """`stop`: the step at which the user presses Ctrl-C."""

    def __init__(self, stop: int | None = None) -> None:
        self.stop = stop

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        if step == self.stop:
            raise KeyboardInterrupt
        x = torch.from_numpy(np.random.default_rng((0, step)).normal(size=(6, 4))).float()
        return x, x.sum(1)


def run_toy(out: Path, stop: int | None = None, workers: int = 0, lr: float = 0.01) -> Toy:
    def write(average: nn.Module, progress: str) -> dict[str, float]:
        torch.save(average.state_dict(), out / "weights.pt")
        return {"bias": average[-1].bias.item()}

    task, schedule = Toy(), Schedule(11, 4, warm_up=3, clip=1.0)
    options = Options(out=out, workers=workers, lr=lr, weight_decay=0.1, ema=0.9, seed=3)
    fit(task, ToyBatches(stop), write, options, schedule, faces=6)
    return task


def test_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = run_toy(tmp_path / "whole", workers=2)
    with pytest.raises(SystemExit):
        run_toy(tmp_path / "broken", stop=6)
    assert torch.load(tmp_path / "broken/state.pt", weights_only=True)["step"] == 4
    resumed = run_toy(tmp_path / "broken")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    weights = [torch.load(tmp_path / name / "weights.pt") for name in ("whole", "broken")]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    logs = [pd.read_csv(tmp_path / name / "log.csv") for name in ("whole", "broken")]
    assert logs[0]["step"].tolist() == [4, 8, 11] and {"loss", "bias"} < set(logs[0])
    pd.testing.assert_frame_equal(*(log.drop(columns="seconds") for log in logs))
    assert not list(tmp_path.rglob("*.partial"))


def test_other_settings_and_damaged_states_are_refused(tmp_path: Path) -> None:
    run_toy(tmp_path)
    with pytest.raises(ValueError, match=r"lr 0.01, not 0.5\); choose another --out"):
        run_toy(tmp_path, lr=0.5)
    (tmp_path / "state.pt").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"state\.pt: not the state of a run"):
        run_toy(tmp_path)


def test_learning_rate_rises_holds_and_falls() -> None:
    schedule = Schedule(1000, 100, warm_up=100, clip=1.0, constant=0.55)
    rates = [schedule.rate(step) for step in (0, 99, 300, 549, 775, 999)]
    assert rates == pytest.approx([0.01, 1, 1, 1, 0.5, loop.LOWEST], abs=1e-3)


def test_average_follows_the_network() -> None:
    net = nn.BatchNorm1d(1)
    average = loop.moving_average(net, 0.9)
    for step in range(60):
        with torch.no_grad():
            net.weight.fill_(float(step))
            net.running_mean.fill_(float(step))
        average.update_parameters(net)
    assert 45 < average.module.weight.item() < 55
    assert average.module.running_mean.item() == pytest.approx(average.module.weight.item())


# The region network and its teachers


@pytest.fixture(scope="module")
def folder(tmp_path_factory, astronaut: np.ndarray) -> Path:
    """A teachers' folder: a face, and the same upside down with another age, gender and race."""
    folder = tmp_path_factory.mktemp("teachers")
    face = cv2.resize(astronaut[60:190, 160:290], (112, 112))
    rng, second = np.random.default_rng(0), np.arange(COUNT) % 2
    with zipfile.ZipFile(folder / "aligned112.zip", "w") as archive:
        for index, other in enumerate(second):
            picture = ((face[::-1] if other else face) * rng.uniform(0.8, 1.0)).astype(np.uint8)
            encoded = cv2.imencode(".webp", picture[..., ::-1])[1].tobytes()
            archive.writestr(f"{index:05}.webp", encoded)
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["aligned", "source", "image", "identity", "age", "gender", "race", "fold"])
        for index, other in enumerate(second):
            fold = "test" if index >= COUNT - 8 else "train"
            person = f"person {index % 4}" if index >= COUNT - 8 else ""
            labels = (20 + 40 * other, other, other) if index != 30 else ("", "", "")
            writer.writerow((f"{index:05}.webp", "made", "", person, *labels, fold))
    np.save(folder / "identity.npy", rng.normal(size=(2, 512))[second].astype(np.float16))
    np.save(folder / "appearance.npy", rng.normal(size=(2, 128))[second].astype(np.float16))
    ages = np.stack([20 + 40 * second, 1 - second, second], 1)
    np.save(folder / "age_gender.npy", ages.astype(np.float32))
    np.save(folder / "expression.npy", np.eye(7, dtype=np.float32)[second])
    shapes = 0.1 + 0.5 * second[:, None] * np.ones(3)
    np.save(folder / "blendshapes.npy", shapes.astype(np.float16))
    (folder / "blendshapes.txt").write_text("browInnerUp jawOpen mouthClose")
    return folder


@pytest.fixture(scope="module")
def teachers(folder: Path):
    return load_teachers(folder)


@pytest.fixture
def small_net(monkeypatch) -> None:
    small = partial(RegionNet, widths=(8, 16, 32), depths=(1, 1, 1))
    monkeypatch.setattr(region_net, "RegionNet", small)


def test_labels_replace_the_teacher(teachers) -> None:
    assert teachers.faces.shape == (COUNT, 4, 112, 112)
    assert (teachers.faces[:, 3] == 255).mean() > 0.9
    age = teachers.targets["age"]
    assert age[:2].argmax(1).tolist() == [20, 60] and np.allclose(age.sum(1), 1, atol=1e-5)
    assert (teachers.targets["race"][1] == np.eye(len(RACES))[1]).all()
    assert np.isnan(teachers.targets["race"][30]).all()  # no label, and no teacher for it
    assert teachers.targets["gender"][30].tolist() == [1, 0] and teachers.labels["age"][30] == -1
    assert set(teachers.fold) == {"train", "val", "test"} and (teachers.fold == "test").sum() == 8
    assert teachers.person.tolist() == [-1] * (COUNT - 8) + [0, 1, 2, 3] * 2


def test_missing_teachers_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected aligned112\.zip"):
        load_teachers(tmp_path)


def test_black_corners_are_missing_and_black_eyes_are_not() -> None:
    picture = np.full((112, 112, 3), 120, np.uint8)
    picture[:20, :20], picture[50:60, 50:60] = 2, 0
    missing = missing_pixels(picture)
    assert missing[:20, :20].all() and missing.sum() == 400


def test_views_repeat_and_differ_between_epochs(teachers) -> None:
    rows = np.arange(8, 20)
    views = region_net.Views(teachers.faces, rows, region_net.Config(batch_size=4, px=80))
    (faces, masks, seen), again, later = views[1], views[1], views[1 + views.per_epoch]
    assert faces.shape == (4, 4, 80, 80) and faces.dtype == torch.uint8
    assert masks.shape == (4, 80, 80) and masks.any((1, 2)).all()
    assert all(torch.equal(*pair) for pair in zip((faces, masks, seen), again, strict=True))
    assert not torch.equal(faces, later[0])
    for epoch in range(2):  # each face once
        batches = [views[epoch * 3 + step][2] for step in range(3)]
        assert sorted(torch.cat(batches).tolist()) == rows.tolist()


def test_verification_auc() -> None:
    person = np.array([0, 0, 1, 1, 2, 2])
    assert region_net.verification(np.eye(3)[person], person) == 1.0
    worst = np.array([[1, 0], [-1, 0], [1, 0], [-1, 0.0]])
    assert region_net.verification(worst, np.array([0, 0, 1, 1])) < 0.5


@pytest.mark.usefixtures("small_net")
def test_region_network_learns_and_resumes(teachers, folder, tmp_path: Path, monkeypatch) -> None:
    config = region_net.Config(
        epochs=8, px=48, batch_size=8, lr=4e-3, device="cpu", workers=0, out=tmp_path / "whole"
    )
    net = load_region_net(region_net.train(teachers, config))
    test = teachers.fold == "test"
    cpu = torch.device("cpu")
    predictions = region_net.predict_all(net, teachers.faces[test], "full", cpu)
    second = np.flatnonzero(test) % 2
    assert (predictions["gender"].argmax(1) == second).mean() >= 0.75
    years = predictions["age_years"][:, 0]
    assert years[second == 1].mean() - years[second == 0].mean() > 5
    log = pd.read_csv(tmp_path / "whole/log.csv")
    assert len(log) == 8 and log["identity"].iloc[-1] < log["identity"].iloc[0]
    assert {"relations", "blendshapes", "full age MAE", "upper gender"} < set(log)

    view, calls = region_net.Views.__getitem__, []

    def interrupted(self, step):
        calls.append(step)
        if len(calls) > 25:
            raise KeyboardInterrupt
        return view(self, step)

    config.out = tmp_path / "broken"
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(region_net.Views, "__getitem__", interrupted)
        region_net.train(teachers, config)
    resumed = load_region_net(region_net.train(teachers, config))
    for name, value in net.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    config.epochs = 9
    with pytest.raises(ValueError, match="epochs 8, not 9"):
        region_net.train(teachers, config)

    monkeypatch.setattr(region_net_card, "REPETITIONS", 8)
    card = tmp_path / "card.md"
    weights = tmp_path / "whole/region_net.safetensors"
    region_net_card.main(region_net_card.Config(folder, weights, card))
    text = card.read_text()
    assert all(f"| {region} |" in text for region in REGIONS) and "4 same-person pairs" in text
    assert card.with_suffix(".json").is_file()


def test_region_command_line_needs_one_source(capsys) -> None:
    assert run(region_net.main, region_net.Config, None, []) == BAD_INPUT
    assert "either --teachers or --dump" in capsys.readouterr().err


@pytest.fixture(scope="module")
def dump(tmp_path_factory, astronaut: np.ndarray) -> Path:
    """A dump of three real faces and a fake that train, and of a real one that tests."""
    root = tmp_path_factory.mktemp("dump") / "faces"
    root.mkdir()
    rows = [*["real,train"] * 3, "fake,train", "real,test"]
    for i in range(len(rows)):
        crop = cv2.convertScaleAbs(astronaut[:300, 60:360], alpha=1 - 0.1 * i)
        cv2.imwrite(str(root / f"{i}.png"), crop[..., ::-1])
    lines = ["path,label,split", *(f"{i}.png,{row}" for i, row in enumerate(rows))]
    (root / "index.csv").write_text("\n".join(lines))
    out = root.parent / "dump"
    return preprocess(PreprocessConfig(root, out=out, experts=("lite",), device="cpu"))


@pytest.mark.usefixtures("small_net")
def test_experts_of_a_dump_can_teach(dump: Path, tmp_path: Path) -> None:
    teachers, known = teachers_from_dump(dump), read_dump(dump)
    assert teachers.faces.shape == (4, 4, 112, 112)
    assert sorted(teachers.fold) == ["test", "train", "train", "train"]
    rows = np.flatnonzero(known.rows["label"] == 0)
    identity = known.arrays["lite.identity"][rows, 0]
    assert np.allclose(teachers.targets["identity"], identity, atol=1e-3)
    again = RegionExpert().frozen("cpu")(torch.from_numpy(teachers.faces))
    assert np.allclose(again["age"][:, 0], known.arrays["lite.age"][rows, 0], atol=2e-2)
    config = region_net.Config(out=tmp_path, epochs=1, px=48, batch_size=2, device="cpu", workers=0)
    net = load_region_net(region_net.train(teachers, config))
    assert {f"lite.{name}" for name in net.outputs} == set(known.meta["outputs"])
    config.batch_size = 64
    with pytest.raises(ValueError, match="do not fill one batch"):
        region_net.train(teachers, config)
    assert len(teachers_from_dump(dump, limit=1).faces) == 1


# The trace network


def small(**options) -> trace_net.Config:
    return trace_net.Config(features=(), pairs=1, device="cpu", workers=0, **options)


def test_real_training_faces_only(dump: Path, tmp_path: Path, caplog) -> None:
    """No fake and no test face may enter the training."""
    known = read_dump(dump)
    source = Path(known.meta["data_root"])
    for name in ("0.png", "2.png"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    (tmp_path / "1.png").write_bytes(b"no longer a picture")
    with caplog.at_level("WARNING", "masc"):
        crops = real_faces([known], [tmp_path], 0, 1)
    assert len(crops) == 2 and "1 pictures left out" in caplog.text and "1.png" in caplog.text
    row = known.rows["path"].tolist().index("0.png")
    landmarks = landmarks_of(known.rows)[[row]]
    cut = align([read_image(source / "0.png")], np.array([0]), landmarks, WIDE_CROP)[0]
    assert (crops.images[0] == cut.permute(1, 2, 0).numpy()).all()
    known.rows["label"][:], known.rows["split"][:] = 0, ""  # all of a dataset without fakes
    assert len(real_faces([known, known], [source, source], 0, 1)) == 10
    assert len(real_faces([known, known], [source, source], 2, 1)) == 4


def test_trace_command_line(dump: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(trace_net, "initial", lambda path="": load_trace_net(path) if path else NET)
    for options, message in (
        (["--features", str(tmp_path / "none")], "none: no dump there"),
        (["--features", str(dump), "--data-root", f"faces={tmp_path}"], "fewer than two real"),
        (["--features", str(dump), "--start", str(tmp_path / "gone")], "gone"),
    ):
        assert run(trace_net.main, trace_net.Config, None, options) == BAD_INPUT
        assert message in capsys.readouterr().err
    monkeypatch.setattr(reconstruction, "BATCH", 2)
    options = ["--features", str(dump), "--out", str(tmp_path), "--autoencoder-steps", "1"]
    options += ["--steps", "1", "--pairs", "1", "--workers", "1", "--device", "cpu"]
    assert run(trace_net.main, trace_net.Config, None, options) == 0
    assert (tmp_path / "trace_net.safetensors").is_file()


NET = TraceNet()


def test_losses_fall_for_right_predictions() -> None:
    shares = torch.zeros(4, 20, 20)
    shares[1::2, 6:14, 6:14] = 1
    touched = torch.einsum("nhw,rhw->nr", shares, region_shares()) > trace_net.MANIPULATED
    source = torch.zeros(4, 32, 20, 20)
    source[:, 0], source[:, 1] = 1 - shares, shares
    right = {
        "whole": torch.tensor([-5.0, 5, -5, 5]),
        "parts": torch.where(touched, 5.0, -5.0),
        "cells": shares * 10 - 5,
        "cell_source": source,
    }
    wrong = {name: -value for name, value in right.items()}
    wrong["cell_source"] = torch.ones_like(source) / 32**0.5
    losses = trace_net.Localisation(NET).losses
    good, bad = (losses(outputs, shares) for outputs in (right, wrong))
    assert set(good) == set(trace_net.WEIGHTS) and good["origins"] < bad["origins"]
    assert all(good[name] < 0.2 < bad[name] for name in good if name != "origins")


def test_hardly_touched_regions_do_not_count() -> None:
    inner = REGIONS.index("inner")
    shares = torch.zeros(2, 20, 20)
    shares[1, 6:14, 6:14], shares[1, 0, 0] = 0.03, 1  # 3% of the inner face
    losses = trace_net.Localisation(NET).losses
    outputs = {"whole": torch.zeros(2), "parts": torch.zeros(2, len(REGIONS)), "cells": shares * 0}
    outputs["cell_source"] = torch.ones(2, 32, 20, 20) / 32**0.5
    before = losses(outputs, shares)["parts"]
    outputs["parts"][1, inner] = 9
    assert losses(outputs, shares)["parts"] == before
    outputs["parts"][0, inner] = 9  # of the real face
    assert losses(outputs, shares)["parts"] > before


def test_pairs_alternate_and_repeat_for_a_seed(crops) -> None:
    fakes = PseudoFakes(crops)
    first, again, other = (trace_net.Pairs(fakes, 2, seed)[5] for seed in (1, 1, 2))
    assert first[0].shape == (4, 3, 160, 160) and first[1].shape == (4, 20, 20)
    assert torch.equal(first[0], again[0]) and not torch.equal(first[0], other[0])
    assert (first[1][0::2] == 0).all() and (first[1][1::2].amax((1, 2)) > 0.1).all()


def test_trace_training_keeps_batch_statistics_and_writes_the_average(crops, tmp_path) -> None:
    before = trace_net.initial().state_dict()
    imagenet = lite0_weights()
    assert torch.equal(before["stem.0.weight"], imagenet["conv_stem.weight"])
    assert torch.equal(before["stem.1.running_var"], imagenet["bn1.running_var"])
    assert all(torch.equal(v, imagenet[k]) for k, v in before.items() if k.startswith("blocks."))
    path = trace_net.train(crops, small(steps=2, lr=1e-2, out=tmp_path))
    assert TraceExpert(path).frozen("cpu")(torch.zeros(1, 4, 160, 160, dtype=torch.uint8))
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    last = {name.removeprefix("net."): value for name, value in state["task"].items()}
    average = {name.removeprefix("module."): value for name, value in state["average"].items()}
    running = [name for name in before if "running" in name]
    assert running and all(torch.equal(before[name], last[name]) for name in running)
    written = load_trace_net(path).state_dict()
    weights = [name for name in before if name.endswith("weight")]
    assert all(torch.equal(written[name], average[name].half().float()) for name in weights)
    gaps = torch.stack([(average[name] - last[name]).abs().max() for name in weights])
    assert (gaps > 0).all() and gaps.max() < 0.1
    assert not torch.equal(before["verdict.weight"], last["verdict.weight"])
    row = pd.read_csv(tmp_path / "log.csv").iloc[0]
    assert row["step"] == 2 and row["whole"] > 0 and 0 <= row["AUC on pseudo-fakes"] <= 1


def test_training_starts_from_a_trace_network(crops, tmp_path: Path) -> None:
    own, other = tmp_path / "own.safetensors", tmp_path / "other.pth"
    write_half(NET, own, {})
    still = small(steps=1, lr=0.0, start=str(own), out=tmp_path / "run")
    trained = load_trace_net(trace_net.train(crops, still))
    assert torch.allclose(trained.verdict.weight, NET.verdict.weight, atol=2e-3)
    torch.save({"one": torch.zeros(3)}, other)
    with pytest.raises(WeightsError, match="other.pth"):
        trace_net.initial(str(other))


def test_folded_normalisation_changes_neither_outputs_nor_gradients() -> None:
    torch.manual_seed(0)
    net = trace_net.initial()
    images = as_seen(torch.randint(256, (2, 3, 160, 160), dtype=torch.uint8))
    net.drop.p = 0.0
    found = []
    for predict in (net.train(), trace_net.folded(net)):
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        net.zero_grad()
        outputs = predict(images)
        parts = (outputs["whole"], outputs["cells"].square() / 800, outputs["source"][:, 1, 0])
        sum(part.sum() for part in parts).backward()
        gradients = {k: v.grad for k, v in net.named_parameters() if v.grad is not None}
        found.append({k: v.detach() for k, v in outputs.items()} | gradients)
    plain, quick = found
    assert plain.keys() == quick.keys() and sum("bn" in name for name in plain) > 90
    for name, value in plain.items():  # rounding crosses some kinks of ReLU6
        assert (value - quick[name]).norm() <= 3e-3 * value.norm(), name
    net.drop.p = 0.5
    predict = trace_net.folded(net.eval())
    whole = [predict(images)["whole"] for _ in range(2)]
    assert not torch.equal(*whole)  # in training mode


def test_autoencoder_learns_to_reconstruct(crops, monkeypatch) -> None:
    monkeypatch.setattr(reconstruction, "BATCH", 4)
    faces = np.stack([cv2.resize(face, (64, 64)) for face in crops.reconstructed])
    errors = []
    for steps in (1, 25):
        decoded = reconstruction.reconstruct(faces, steps)
        assert decoded.shape == faces.shape and decoded.dtype == np.uint8
        errors.append(np.abs(decoded.astype(float) - faces).mean())
    assert errors[1] < errors[0] / 1.5
