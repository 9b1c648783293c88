"""The folder of a dump that is being written.

Until the dump is whole, `unfinished/` holds config.json, the lock, and a file for every shard that
is done: a fixed range of the samples.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from functools import cached_property
from pathlib import Path
from typing import Self

from data.dump import FORMAT, is_earlier, read_settings
from data.files import PARTIAL, lock, write_json
from data.pictures import FILE as PICTURES
from data.pictures import LOCK, Known, Print, note_fresh, read_prints
from data.samples import PEOPLE, Sample

log = logging.getLogger("masc")


def settings_of(out: Path) -> dict:
    """The settings of the dump in a folder, finished or not; empty where there is none."""
    for file in (Path(out) / "meta.json", Path(out) / "unfinished" / "config.json"):
        if (found := read_settings(file)) is not None:
            return found["config"]
    return {}


def read_shard(path: Path) -> dict:
    """Of the faces. Raises: ValueError where it is damaged."""
    try:
        found = json.loads(path.read_bytes())
        if isinstance(found, dict) and {"rows", "failures"} <= found.keys():
            return found
    except (ValueError, RecursionError):
        pass
    raise ValueError(f"{path}: damaged; delete it and run the same command again")


def _difference(name: str, old: object, now: object) -> str:
    if name == "samples":  # two digests say nothing
        return "\n  another list of pictures, or other labels, groups, splits or people"
    return f"\n  {name}: {old!r} there, {now!r} now"


class DumpFolder:
    """What the two passes of data.store.DumpWriter have in common: settings, lock and shards.

    Args:
        config: the settings on which the bytes depend, whatever the experts.
        weights: expert -> SHA-256, of the experts asked for; `new` are those that the dump lacks.
        samples: all of the dataset, in a fixed order.
        shard_size: an unfinished dump keeps the one that it was begun with.
        overwrite: begin anew where the dump is finished, or has other settings or pictures.
        root: folder of the pictures, which are compared with those that the dump was made from.
    """

    def __init__(
        self,
        out: Path,
        config: Mapping,
        weights: Mapping[str, str],
        samples: Sequence[Sample],
        shard_size: int = 256,
        overwrite: bool = False,
        root: Path | None = None,
    ) -> None:
        if shard_size < 1:
            raise ValueError(f"--shard-size {shard_size}: a shard holds at least one image")
        self.out, self.samples, self.shard_size = Path(out), list(samples), shard_size
        self.unfinished = self.out / "unfinished"
        self.weights, self.meta = dict(weights), {}
        self.config = {**config, "images": len(self.samples)}
        self._lock, self.root = None, root
        self._fresh: dict[str, Print] = {}  # files that were hashed again
        anew = self._read_state(overwrite)
        if self._without_people and not anew:
            log.warning(
                "%s: made before dumps kept people, and goes on without them; use --overwrite to make "
                "it again with them",
                self.out,
            )
        news = self._fresh and os.access(self.out, os.W_OK)
        if self.complete and not self.unfinished.is_dir() and not news:
            return
        if not self._acquire_lock():
            if self.complete:  # the other process adds experts
                return
            raise ValueError(f"{self.out}: another process is writing this dump; wait for it")
        try:
            self._begin_or_continue(overwrite)
        except BaseException:  # whatever it is, the lock is given back
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()

    # The state of the folder.

    @property
    def new(self) -> list[str]:
        return [expert for expert in self.weights if expert not in self.meta.get("weights", ())]

    @property
    def complete(self) -> bool:
        return bool(self.meta) and not self.new

    def _read_state(self, overwrite: bool) -> bool:
        """Whether the dump has to be begun anew."""
        # What an earlier version found has no people, whatever is known now.
        self.config["samples"] = self._digest(people=not is_earlier(self.out / "index.csv"))
        meta = read_settings(self.out / "meta.json")
        begun = read_settings(self.unfinished / "config.json")
        found, self.meta = meta or begun, {}
        if found is None:
            # `unfinished/` without settings is a run that was killed at its very beginning.
            if (files := self._files()) and not self.unfinished.is_dir():
                raise ValueError(f"{self.out}: no dump, but {files[0].name}; choose another --out")
            return True
        differing = self._differences(found)
        if differing and not overwrite:
            lines = "".join(_difference(*each) for each in differing)
            raise ValueError(
                f"{self.out}: holds a dump with other settings:{lines}\n"
                "Use --overwrite to replace it, or choose another --out."
            )
        if differing or (overwrite and (meta or self._without_people)):
            return True
        if lost := self._lost(meta or {}):
            if not overwrite:
                raise ValueError(f"{lost}: gone; use --overwrite to make the dump again")
            return True
        if self.root is not None:
            known, advice = self.pictures, "Use --overwrite to replace it, or choose another --out."
            try:
                known.check(self.out, advice)
            except ValueError:
                if not overwrite:
                    raise
                return True
        self.meta = meta or {}
        if begun:
            self.shard_size = self._shard_size_of(begun)
        return False

    @cached_property
    def _people_known(self) -> bool:
        return any(getattr(sample, name) for sample in self.samples for name in PEOPLE)

    @property
    def _without_people(self) -> bool:
        """Whether its faces are of an earlier version, and people are known now."""
        return self._people_known and is_earlier(self.out / "index.csv")

    def _digest(self, people: bool) -> str:
        """SHA-256 of the samples. Where nobody is known, that of earlier versions."""
        end = None if people and self._people_known else -len(PEOPLE)
        listing = json.dumps([astuple(sample)[:end] for sample in self.samples])
        return hashlib.sha256(listing.encode()).hexdigest()

    def _shard_size_of(self, begun: Mapping) -> int:
        size = begun.get("shard_size")
        if type(size) is not int or size < 1:
            raise ValueError(
                f"{self.unfinished / 'config.json'}: damaged; delete {self.unfinished}"
            )
        return size

    def _differences(self, found: dict) -> list[tuple[str, object, object]]:
        """(setting, in the folder, now) of what is not the same."""
        if found.get("format") != FORMAT:
            return [("format", found.get("format"), FORMAT)]
        old, now = dict(found["config"]), dict(self.config)
        for expert, sha in self.weights.items():
            name = f"weights of {expert}"
            old[name], now[name] = found.get("weights", {}).get(expert, sha)[:12], sha[:12]
        names = sorted(old.keys() | now.keys())
        return [(n, old.get(n), now.get(n)) for n in names if old.get(n) != now.get(n)]

    def _acquire_lock(self) -> bool:
        self._lock = lock(self.out / LOCK)
        return self._lock is not None

    def _begin_or_continue(self, overwrite: bool) -> None:
        settings = self.unfinished / "config.json"
        if self._read_state(overwrite):  # again: another process may have written meanwhile
            # The settings go first: without them, nothing that is left counts.
            first = [settings, self.out / "meta.json", self.out / "predictions.csv"]
            for old in [*first, *self._files(), *self.unfinished.glob("*-*")]:
                old.unlink(missing_ok=True)
            self.config["samples"] = self._digest(people=True)
        else:
            note_fresh(self.out, self._fresh)
            if self.complete:
                self._tidy()
                return
        for old in [*self.out.glob(f"*{PARTIAL}"), *self.unfinished.glob(f"*{PARTIAL}")]:
            old.unlink()  # of a run that was killed
        if not settings.is_file():
            size = self.shard_size
            write_json(settings, {"format": FORMAT, "config": self.config, "shard_size": size})

    def _files(self) -> list[Path]:
        """The files of a dump in the folder, meta.json excepted."""
        names = ("index.csv", "failures.csv", "missing.csv", PICTURES, "*.npy", f"*{PARTIAL}")
        return [path for name in names for path in sorted(self.out.glob(name))]

    def _tidy(self) -> None:
        """Remove the shards, those excepted of experts that another run has begun with."""
        shards = [*self.unfinished.glob("*.safetensors")]
        done = [s for s in shards if s.name.partition("-")[0] in self.meta["weights"]]
        if done == shards:
            shutil.rmtree(self.unfinished, ignore_errors=True)
        else:
            for shard in done:
                shard.unlink()

    def _lost(self, meta: Mapping) -> Path | None:
        """A file that a finished dump lacks."""
        names = [f"{name}.npy" for name in meta.get("outputs", ())]
        names += ["index.csv", "failures.csv", "missing.csv"] if meta else []
        return next((self.out / n for n in names if not (self.out / n).is_file()), None)

    # The pictures.

    def _prints(self) -> list[Print]:
        """Of all files, or, before all faces are found, of those of the shards that are done."""
        if (self.out / "index.csv").is_file():
            return read_prints(self.out / PICTURES) or []
        shards = sorted(self.unfinished.glob("faces-*.json"))
        found = (read_shard(shard).get("files", ()) for shard in shards)
        return [Print(*each) for each in dict.fromkeys(tuple(x) for some in found for x in some)]

    @property
    def pictures(self) -> Known:
        """What is known of the files; nothing in a dump of an earlier version."""
        return Known(self.root or Path(), self._prints(), self._fresh)

    # Shards.

    def _shard(self, number: int, expert: str = "") -> Path:
        """Of the faces, or of one expert with the weights at hand."""
        if not expert:
            return self.unfinished / f"faces-{number:06d}.json"
        return self.unfinished / f"{expert}-{self.weights[expert][:12]}-{number:06d}.safetensors"

    def _samples_of(self, number: int) -> list[Sample]:
        return self.samples[number * self.shard_size : (number + 1) * self.shard_size]

    @property
    def _numbers(self) -> range:
        return range(-(-len(self.samples) // self.shard_size))
