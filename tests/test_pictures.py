"""A dump knows its pictures by their contents: other ones under the same names are refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cv2
import pytest

from data import pictures
from data.dump import read_dump
from data.pictures import FILE, Known, digest_of, print_of, prints_of, read_prints
from data.store import DumpWriter
from preprocessing_pipeline import cli, main
from tests.toy_pictures import arguments, configured, write_pictures, write_weights

OTHER = "made from other pictures: 1 of 14 files hold something else now.*real/1.jpg.*--overwrite"


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, astronaut) -> Path:
    return write_pictures(tmp_path_factory.mktemp("first") / "toy", astronaut)


@pytest.fixture(scope="module")
def whole(dataset, weights, tmp_path_factory) -> Path:
    return main(configured(dataset, weights, tmp_path_factory.mktemp("whole") / "dump"))


def copied(dataset: Path, folder: Path) -> Path:
    return Path(shutil.copytree(dataset, folder / "toy", copy_function=shutil.copy))  # new times


def replace_one(root: Path) -> None:
    path = str(root / "real/1.jpg")
    cv2.imwrite(path, cv2.imread(path), [cv2.IMWRITE_JPEG_QUALITY, 40])


# Files.


def test_a_file_is_known_by_its_content(tmp_path):
    paths = ["a.bmp", "b.bmp", "gone.jpg", "clip.mp4@0of2", "clip.mp4@1of2"]
    for name in ("a.bmp", "b.bmp", "clip.mp4"):
        (tmp_path / name).write_bytes(name.encode() * 100)
    prints = prints_of(tmp_path, paths)
    assert [each.file for each in prints] == ["a.bmp", "b.bmp", "gone.jpg", "clip.mp4"]
    assert prints[2][:4] == ("gone.jpg", -1, 0, "")
    known = Known(tmp_path, prints)
    assert not any(map(known.changed, [*paths, "unknown.jpg"]))
    os.utime(tmp_path / "a.bmp", (1e9, 1e9))  # another time, the same content
    (tmp_path / "b.bmp").write_bytes(b"x" * 500)  # the same size
    os.utime(tmp_path / "b.bmp", (1e9, 1e9))
    (tmp_path / "gone.jpg").write_bytes(b"here again")
    (tmp_path / "clip.mp4").unlink()
    assert list(map(known.changed, paths)) == [False, True, True, False, False]


def archived(root: Path, *contents: str) -> Path:
    """Files of one size and one time, as of an archive without times."""
    for folder, content in zip(("real", "fake"), contents, strict=True):
        (root / folder).mkdir(parents=True)
        (root / folder / "a.bmp").write_text(content)
        os.utime(root / folder / "a.bmp", (315532800, 315532800))
    return root


def exchange(one: Path, other: Path) -> None:
    between = one.with_name("between")
    one.rename(between)
    other.rename(one)
    between.rename(other)


def write_in_place(path: Path) -> None:
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    path.write_text("other")
    os.utime(path, ns=times)


def link_again(path: Path, to: Path) -> None:
    shutil.rmtree(path)
    path.symlink_to(to)


EXCHANGED = {
    "files": lambda root: exchange(root / "real/a.bmp", root / "fake/a.bmp"),
    "folders": lambda root: exchange(root / "real", root / "fake"),
    "datasets": lambda root: exchange(root, root.with_name("second")),
    "a link": lambda root: link_again(root, root.with_name("second")),
    "in place": lambda root: write_in_place(root / "real/a.bmp"),
}


@pytest.mark.parametrize("how", EXCHANGED)
def test_size_and_time_are_not_trusted(tmp_path, how):
    root = archived(tmp_path / "first", "first", "again")
    archived(tmp_path / "second", "other", "again")
    known = Known(root, prints_of(root, ["real/a.bmp", "fake/a.bmp"]))
    assert not known.changed("real/a.bmp")
    EXCHANGED[how](root)
    with pytest.raises(ValueError, match="made from other pictures"):
        known.check(tmp_path, "")


def test_another_folder_with_files_of_the_same_sizes_and_times(tmp_path):
    root = archived(tmp_path / "first", "first", "again")
    prints = prints_of(root, ["real/a.bmp", "fake/a.bmp"])
    other = Known(archived(tmp_path / "second", "other", "again"), prints)
    assert [other.changed(each.file) for each in prints] == [True, False]


def test_a_file_that_may_not_be_read_any_more_has_not_changed(tmp_path, monkeypatch):
    root = archived(tmp_path / "first", "first", "again")
    known = Known(root, prints_of(root, ["real/a.bmp"]))
    (root / "real/a.bmp").chmod(0)  # its ctime is another one
    monkeypatch.setattr(pictures, "print_of", lambda root, file: pictures.Print(file, -1, 0, ""))
    assert not known.changed("real/a.bmp") and not known.fresh


def test_of_a_large_file_some_parts_are_hashed(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "WHOLE", 50)
    monkeypatch.setattr(pictures, "PART", 10)
    content = bytearray(range(100))
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    before = print_of(tmp_path, "a.mp4").sha256
    for place, same in ((0, False), (30, True), (50, False), (99, False)):
        other = bytearray(content)
        other[place] ^= 255
        path.write_bytes(other)
        assert (print_of(tmp_path, "a.mp4").sha256 == before) is same
    path.write_bytes(content + b"1")
    assert print_of(tmp_path, "a.mp4").sha256 != before


def test_the_digest_is_of_contents_and_names_alone(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    first = digest_of(prints_of(tmp_path, ["a", "b"]))
    os.utime(tmp_path / "a", (1e9, 1e9))
    assert digest_of(prints_of(tmp_path, ["b", "a"])) == first
    (tmp_path / "a").write_text("c")
    assert digest_of(prints_of(tmp_path, ["a", "b"])) != first


# Dumps.


def test_other_pictures_under_the_same_names_are_refused(dataset, weights, whole, tmp_path):
    root, out = copied(dataset, tmp_path), shutil.copytree(whole, tmp_path / "dump")
    config = configured(root, weights, out)
    assert main(config) == out  # moved, and otherwise the same
    before = read_dump(out)
    replace_one(root)
    for more in ((), ("traces",)):  # finished; an expert is added
        with pytest.raises(ValueError, match=OTHER):
            main(configured(root, weights, out, *more))
    assert cli(arguments(config)) == 2
    after = read_dump(main(configured(root, weights, out, overwrite=True)))
    assert after.digest != before.digest and after.meta["pictures"] != before.meta["pictures"]
    assert main(config) == out


def test_other_pictures_are_refused_while_unfinished(dataset, weights, tmp_path, monkeypatch):
    root = copied(dataset, tmp_path)
    config = configured(root, weights, tmp_path / "dump")
    write = DumpWriter.write_faces

    def stop_at_the_last(self: DumpWriter, number: int, *rest: object) -> None:
        if number == 3:
            raise KeyboardInterrupt
        write(self, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(DumpWriter, "write_faces", stop_at_the_last)
        with pytest.raises(KeyboardInterrupt):
            main(config)
    replace_one(root)
    with pytest.raises(ValueError, match="1 of 12 files hold something else"):
        main(config)
    config.overwrite = True
    assert len(read_prints(main(config) / FILE)) == 14


def test_a_dump_like_another_is_of_its_pictures(dataset, weights, whole, tmp_path):
    root = copied(dataset, tmp_path)
    options = {"like": whole, "degrade": "jpeg:4", "split": ""}
    config = configured(root, weights, tmp_path / "degraded", **options)
    main(config)
    replace_one(root)
    with pytest.raises(ValueError, match="1 of 12 files hold something else now"):
        main(config)
    with pytest.raises(ValueError, match=f"{whole}: made from other pictures: 1 of 12"):
        main(configured(root, weights, tmp_path / "new", **options))


def test_a_dump_of_an_earlier_version_cannot_know(dataset, weights, whole, tmp_path, capsys):
    out = shutil.copytree(whole, tmp_path / "dump")
    (out / FILE).unlink()
    assert cli(arguments(configured(dataset, weights, out))) == 0
    assert "whether its pictures are still the same is not known" in capsys.readouterr().err


def hashed(config, monkeypatch) -> int:
    """How many files a run has to hash."""
    files, print_of = [], pictures.print_of
    with monkeypatch.context() as patch:
        patch.setattr(pictures, "print_of", lambda *of: (files.append(of), print_of(*of))[1])
        main(config)
    return len(files)


def test_a_copied_dataset_is_hashed_once(dataset, weights, whole, tmp_path, monkeypatch):
    root, out = copied(dataset, tmp_path), shutil.copytree(whole, tmp_path / "dump")
    config, before = configured(root, weights, out), {p.name: p.read_bytes() for p in out.iterdir()}
    assert [hashed(config, monkeypatch) for _ in range(3)] == [14, 0, 0]
    after = {path.name: path.read_bytes() for path in out.iterdir()}
    assert [name for name in before if before[name] != after.pop(name)] == [FILE]
    assert not after, "nothing is left over"
    assert digest_of(read_prints(out / FILE)) == read_dump(out).meta["pictures"]
    shutil.copytree(whole, out, dirs_exist_ok=True)
    monkeypatch.setattr("os.access", lambda *a, **_: a[1] != os.W_OK)  # it may only be read
    assert hashed(config, monkeypatch) == 14 and (out / FILE).read_bytes() == before[FILE]


def test_a_check_alone_hashes_once_too(dataset, whole, tmp_path, monkeypatch):
    """As before an evaluation. Not while another process writes into the dump."""
    root, out = copied(dataset, tmp_path), shutil.copytree(whole, tmp_path / "dump")
    files, print_of = [], pictures.print_of
    monkeypatch.setattr(pictures, "print_of", lambda *of: (files.append(of), print_of(*of))[1])
    counts = []
    (out / "unfinished").mkdir()
    for _ in range(4):
        pictures.check_pictures(read_dump(out), root, "")
        counts.append(len(files))
        if len(counts) == 2:
            (out / "unfinished").rmdir()
    assert counts == [14, 28, 42, 42]
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in whole.iterdir())


def test_notes_of_an_earlier_version_are_read(dataset, weights, whole, tmp_path, monkeypatch):
    out = shutil.copytree(whole, tmp_path / "dump")
    lines = (out / FILE).read_text().splitlines()
    (out / FILE).write_text("".join(line.rsplit(",", 2)[0] + "\n" for line in lines))
    assert {(each.ctime_ns, each.inode) for each in read_prints(out / FILE)} == {(0, 0)}
    config = configured(dataset, weights, out)
    assert [hashed(config, monkeypatch) for _ in range(2)] == [14, 0]
    found = read_prints(out / FILE)
    assert found == prints_of(dataset, [each.file for each in found])


# What a run is refused for, and how it ends.


def test_a_dump_and_its_dataset_are_not_in_one_another(dataset, weights, tmp_path):
    root = copied(dataset, tmp_path)
    for out in (root, root / "real" / "dump", tmp_path):
        with pytest.raises(ValueError, match="in one another; choose another --out"):
            main(configured(root, weights, out))


def test_a_dump_without_a_face_ends_with_3(dataset, weights, tmp_path):
    (tmp_path / "toy" / "fake").mkdir(parents=True)
    shutil.copy(dataset / "fake" / "stripes.png", tmp_path / "toy" / "fake")
    assert cli(arguments(configured(tmp_path / "toy", weights, tmp_path / "dump"))) == 3
