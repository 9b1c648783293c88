"""Training of the bundled networks: loop, teachers, losses, and runs of a few steps."""

from __future__ import annotations

import csv
import json
import shutil
import zipfile
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from command_line import BAD_INPUT, run
from data.dump import read_dump
from features.regions import REGIONS
from models.region_net import RegionExpert, RegionNet, load_region_net
from training import loop, region_net, region_net_card
from training.loop import Options, Schedule, fit
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


def run_toy(
    out: Path,
    stop: int | None = None,
    workers: int = 0,
    lr: float = 0.01,
    seconds: float = 0,
) -> Toy:
    def write(average: nn.Module, progress: str) -> dict[str, float]:
        torch.save(average.state_dict(), out / "weights.pt")
        return {"bias": average[-1].bias.item()}

    task, schedule = Toy(), Schedule(11, 4, warm_up=3, clip=1.0)
    options = Options(out=out, workers=workers, lr=lr, weight_decay=0.1, ema=0.9, seed=3)
    options.seconds = seconds
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


def test_a_run_stopped_by_the_clock_goes_on_as_if_it_never_had(tmp_path: Path) -> None:
    whole = run_toy(tmp_path / "whole")
    for step in range(1, 6):
        stopped = run_toy(tmp_path / "broken", seconds=1e-9)
        assert torch.load(tmp_path / "broken/state.pt", weights_only=True)["step"] == step
        assert not torch.equal(stopped.scale, whole.scale)
    resumed = run_toy(tmp_path / "broken")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    log = pd.read_csv(tmp_path / "broken" / "log.csv")
    assert log["step"].tolist() == [1, 2, 3, 4, 5, 8, 11] and log["loss"].max() < 50


def test_average_is_that_of_torch() -> None:
    nets = [Toy().net.train() for _ in "ab"]
    own = loop.MovingAverage(nets[0], 0.9)

    def update(average: list, current: list, count: torch.Tensor) -> None:
        decay = min(0.9, (1 + int(count)) / (10 + int(count)))
        get_ema_multi_avg_fn(decay)(average, current, count)

    other = AveragedModel(nets[1], multi_avg_fn=update, use_buffers=True)
    for step in range(30):
        for net, average in zip(nets, (own, other), strict=True):
            torch.manual_seed(step)
            net(torch.randn(6, 4))
            with torch.no_grad():
                for value in net.parameters():
                    value += torch.randn_like(value)
            average.update_parameters(net)
    assert own.state_dict().keys() == other.state_dict().keys()
    for name, value in other.state_dict().items():
        assert torch.equal(own.state_dict()[name], value), name


def test_warm_up_of_a_run_that_goes_on() -> None:
    schedule = Schedule(1000, 100, warm_up=100, clip=1.0, constant=0.5, start=700)
    rates = [schedule.rate(step) for step in (0, 49, 100, 299)]
    cosine = [Schedule(1000, 100, 1, 1.0, 0.5).rate(700 + step) for step in (0, 49, 100, 299)]
    assert rates == pytest.approx([0.01 * cosine[0], 0.5 * cosine[1], *cosine[2:]], rel=1e-6)


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
    average = loop.MovingAverage(net, 0.9)
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


@pytest.mark.usefixtures("small_net")
def test_experts_of_a_dump_can_teach(lit_dump: Path, tmp_path: Path) -> None:
    teachers, known = teachers_from_dump(lit_dump), read_dump(lit_dump)
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
    assert len(teachers_from_dump(lit_dump, limit=1).faces) == 1


def test_a_forgery_logit_teaches_no_region_network(lit_dump: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(lit_dump, tmp_path / "dump")
    meta = json.loads((folder / "meta.json").read_text())
    meta["outputs"]["lite.made"] = {"kind": "forgery_logit", "size": 1, "names": ["logit"]}
    (folder / "meta.json").write_text(json.dumps(meta))
    np.save(folder / "lite.made.npy", np.zeros((len(read_dump(lit_dump)), 8, 1), np.float16))
    assert teachers_from_dump(folder).kinds == teachers_from_dump(lit_dump).kinds
