"""Writing a dump so that nothing but the shard at hand is lost, whatever happens.

Until a dump (data/dump.py) is finished its folder holds `unfinished/`: the settings, and one file per finished shard, a
fixed range of the samples. Every file is written under a temporary name, flushed to disk and renamed. A run that is
killed at any instant and started again repeats at most one shard, and its files do not tell that it was interrupted.

An expert without an answer about a face (models/ensemble.py makes all of it NaN where some of it is not finite, or nothing that
float16 can hold) costs that face only its own columns, and missing.csv says why.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import astuple, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from data.datasets import Sample, fill_groups_and_splits
from data.dump import (
    COLUMNS,
    FAILURE_COLUMNS,
    FORMAT,
    MISSING_COLUMNS,
    NO_FACE,
    Dump,
    Row,
    newest_dump,
    read_dump,
    read_settings,
)
from data.files import replacing, write_csv, write_json

__all__ = ["NO_FACE", "Dump", "DumpWriter", "Row", "newest_dump", "read_dump"]

EXTENDING = "extending"  # the folder in a dump in which data/extend.py works
NOT_FINITE = "answers that are not finite, or beyond the range of float16"


class ShardWriter:
    """Numbered shards of samples in a folder of `out` that one process at a time may write into.

    Use it as a context: it holds a lock until it ends. complete: nothing is left to write.
    """

    def __init__(self, out: Path, folder: str, samples: Sequence[Sample], shard_size: int) -> None:
        if shard_size < 1:
            raise ValueError(f"a shard holds at least one image, not {shard_size}")
        self.out, self.samples, self.shard_size = Path(out), list(samples), shard_size
        self.unfinished = self.out / folder
        self.complete = False
        self.config: dict = {}
        self._lock: BinaryIO | None = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another process write here."""
        if self._lock is not None:
            self._lock.close()

    def settings(self) -> dict:
        return {"format": FORMAT, "config": self.config, "shard_size": self.shard_size}

    def lock(self, folder: Path) -> BinaryIO:
        """Until it is closed or this process ends, however it ends. Not every network drive has locks.

        Raises: ValueError where another process holds it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise ValueError(
                f"{self.out}: another process is writing this dump; wait for it, or stop it"
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
                raise
        return lock

    def begin(self) -> None:
        """Remove what an earlier start left, and note the settings."""
        for old in self.unfinished.glob("*.safetensors*"):
            old.unlink(missing_ok=True)
        write_json(self.unfinished / "config.json", self.settings())

    def _shard(self, number: int) -> Path:
        return self.unfinished / f"{number:06d}.safetensors"

    def samples_of(self, number: int) -> list[Sample]:
        return self.samples[number * self.shard_size : (number + 1) * self.shard_size]

    def numbers(self) -> range:
        return range(-(-len(self.samples) // self.shard_size))

    def pending(self) -> list[tuple[int, list[Sample]]]:
        """(number, samples) of each shard that is not on disk yet, in order."""
        if self.complete:
            return []
        return [
            (number, self.samples_of(number))
            for number in self.numbers()
            if not self._shard(number).exists()
        ]

    def put(
        self,
        number: int,
        keys: Sequence[tuple[str, int]],
        arrays: Mapping[str, np.ndarray],
        **notes: list,
    ) -> None:
        """One shard on disk, whole or not at all, with its list of missing answers.

        keys: (path, face) of every row. arrays: `<expert>.<output>` -> (len(keys), R, D).
        Raises: ValueError where lengths differ.
        """
        tensors, broken = {}, {}
        for name, array in arrays.items():
            if len(array) != len(keys):
                raise ValueError(
                    f"shard {number}: {len(array)} values of {name} for {len(keys)} rows"
                )
            with np.errstate(over="ignore"):
                tensors[name] = np.ascontiguousarray(array, "<f2")
            expert = name.partition(".")[0]
            broken[expert] = broken.get(expert, False) | ~np.isfinite(tensors[name]).all((1, 2))
        missing = notes.pop("missing", [])
        explained = {(path, face, expert) for path, face, expert, _ in missing}
        lost = [
            (*keys[row], expert) for expert, rows in broken.items() for row in np.flatnonzero(rows)
        ]
        missing = [*missing, *((*key, NOT_FINITE) for key in lost if key not in explained)]
        with replacing(self._shard(number)) as file:
            text = {
                name: json.dumps(value)
                for name, value in {**notes, "missing": sorted(missing)}.items()
            }
            file.write(save(tensors, metadata=text))

    def notes(self, name: str) -> Iterator[list]:
        """`rows`, `failures` or `missing` of all shards, one by one in order."""
        for number in self.numbers():
            with safe_open(self._shard(number), framework="numpy") as shard:
                yield from json.loads(shard.metadata()[name])

    def merge(self, faces: int, regions: int, sizes: dict[str, int]) -> None:
        """Write arrays of the dump, (faces, regions, size), from the shards in order.

        Plain writes: into a memory map, a full disk would be a bus error.
        """
        with ExitStack() as stack:
            files = {
                name: stack.enter_context(replacing(self.out / f"{name}.npy")) for name in sizes
            }
            for name, file in files.items():
                shape = (faces, regions, sizes[name])
                header = {"descr": "<f2", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            for number in self.numbers():
                with safe_open(self._shard(number), framework="numpy") as shard:
                    for name, file in files.items() if shard.keys() else ():
                        array = shard.get_tensor(name)
                        if array.shape[1:] != (regions, sizes[name]):
                            raise ValueError(
                                f"{name}: shape {array.shape[1:]}, promised {(regions, sizes[name])}"
                            )
                        file.write(array.tobytes())


class DumpWriter(ShardWriter):
    """Writes a dump shard by shard, and goes on where an earlier run with the same settings stopped.

    config: what the bytes depend on; a dump in `out` with another one is refused. samples: all of the dataset, in a fixed
    order. shard_size: samples per shard; a dump that was begun with another size keeps that one. overwrite: begin anew
    where the dump in `out` is finished or has other settings.

    Raises: ValueError where `out` holds a dump with other settings (it says which), files that a dump would replace, or
    a dump that another process is writing.
    """

    def __init__(
        self,
        out: Path,
        config: dict,
        samples: Sequence[Sample],
        shard_size: int = 256,
        overwrite: bool = False,
    ) -> None:
        super().__init__(out, "unfinished", samples, shard_size)
        digest = hashlib.sha256(
            json.dumps([astuple(sample) for sample in self.samples]).encode()
        ).hexdigest()
        self.config = {**config, "images": len(self.samples), "samples": digest}
        finished = read_settings(self.out / "meta.json")
        begun = read_settings(self.unfinished / "config.json")
        same = self._same(finished or begun, overwrite)
        self.complete = finished is not None and same and not overwrite
        if self.complete:
            shutil.rmtree(self.unfinished, ignore_errors=True)  # a run that died while it tidied up
            return
        self._lock = self.lock(self.unfinished)
        if same and finished is None:
            self.shard_size = begun["shard_size"]
        else:
            # Remove an earlier dump, the sign of its completeness first; unless somebody is extending it.
            if (self.out / EXTENDING).is_dir():
                self.lock(self.out / EXTENDING).close()
            (self.out / "meta.json").unlink(missing_ok=True)
            for old in self._files():
                old.unlink(missing_ok=True)
            shutil.rmtree(self.out / EXTENDING, ignore_errors=True)
            self.begin()

    def _same(self, found: dict | None, overwrite: bool) -> bool:
        """Whether the dump in `out` is this one. Raises: ValueError where it is another, or no dump at all."""
        if found is None:
            # A folder with `unfinished/` and no settings in it is a start that was cut short.
            strangers = (
                [] if self.unfinished.is_dir() else [p.name for p in self._files() if p.exists()]
            )
            if strangers:
                raise ValueError(
                    f"{self.out}: holds {strangers[0]} and no dump; choose another --out, or move that file"
                )
            return False
        here, there = (
            {"format": data["format"], **data["config"]} for data in (self.settings(), found)
        )
        if here != there and not overwrite:
            differing = sorted(
                key for key in here.keys() | there.keys() if here.get(key) != there.get(key)
            )
            lines = "".join(
                f"\n  {key}: {there.get(key)!r} there, {here.get(key)!r} now" for key in differing
            )
            extend = (
                " --extend to add experts to it,"
                if {*differing} <= {"weights", "profile", "clip_model"}
                else ""
            )
            advice = f"Use --overwrite to replace it,{extend} or choose another --out."
            raise ValueError(f"{self.out}: holds a dump with other settings:{lines}\n{advice}")
        return here == there

    def _files(self) -> list[Path]:
        names = ("index.csv", "failures.csv", "missing.csv")
        return [
            *(self.out / name for name in names),
            *self.out.glob("*.npy"),
            *self.out.glob("*.partial"),
        ]

    def write_shard(
        self,
        number: int,
        rows: list[Row],
        arrays: dict[str, np.ndarray],
        failures: list[tuple[str, str]],
    ) -> None:
        """Put one shard on disk, whole or not at all.

        arrays: `<expert>.<output>` -> (len(rows), R, D); empty where there are no rows. failures: (path, reason) of every
        sample of the shard that has no row.

        Raises: ValueError where a sample is unaccounted for, or lengths differ.
        """
        expected = sorted(sample.path for sample in self.samples_of(number))
        if sorted({row.path for row in rows} | {path for path, _ in failures}) != expected:
            raise ValueError(f"shard {number}: every sample must be in the rows or in the failures")
        lines = [[kind(getattr(row, column)) for column, kind in COLUMNS.items()] for row in rows]
        keys = [(row.path, int(row.face)) for row in rows]
        self.put(number, keys, arrays, rows=lines, failures=sorted(failures))

    def _rows(self) -> Iterator[Row]:
        return (Row(*values) for values in self.notes("rows"))

    def finish(self, meta: dict) -> Dump:
        """Merge the shards, give groups and splits to faces that have none, and remove the shards.

        meta: dataset, data_root, profile, regions, outputs, weights, versions. The format, the settings and the counts
        (images, kept, faces, real, fake, no_face, unreadable; real and fake are faces) are added.

        Raises: ValueError where shards are missing or an array has not the shape that `meta` promises.
        """
        if self.complete:
            return read_dump(self.out)
        if self.pending():
            raise ValueError(f"{self.out}: {len(self.pending())} shards are missing")
        hashes: dict[str, str] = {}
        faces: Counter[str] = Counter()
        for row in self._rows():
            hashes[row.path] = row.phash
            faces[row.path] += 1
        kept = [sample for sample in self.samples if sample.path in faces]
        kept = fill_groups_and_splits(kept, [hashes[sample.path] for sample in kept])
        of = {sample.path: sample for sample in kept}
        self.merge(
            faces.total(),
            len(meta["regions"]),
            {k: output["size"] for k, output in meta["outputs"].items()},
        )
        rows = (
            replace(row, group=of[row.path].group, split=of[row.path].split) for row in self._rows()
        )
        write_csv(
            self.out / "index.csv",
            list(COLUMNS),
            ([getattr(row, name) for name in COLUMNS] for row in rows),
        )
        failures = list(self.notes("failures"))
        write_csv(self.out / "failures.csv", FAILURE_COLUMNS, failures)
        write_csv(self.out / "missing.csv", MISSING_COLUMNS, self.notes("missing"))
        fake = sum(count for path, count in faces.items() if of[path].label)
        no_face = sum(reason == NO_FACE for _, reason in failures)
        counts = {
            "images": len(self.samples),
            "kept": len(kept),
            "faces": faces.total(),
            "real": faces.total() - fake,
            "fake": fake,
            "no_face": no_face,
            "unreadable": len(failures) - no_face,
        }
        write_json(
            self.out / "meta.json",
            {"format": FORMAT, **meta, "config": self.config, "counts": counts},
        )
        shutil.rmtree(self.unfinished, ignore_errors=True)
        self.complete = True
        return read_dump(self.out)
