"""Who is in a clip, by the file names of the official datasets.

FaceForensics++: 071 is a source video, 071_054 is that video with the face or expression of 054.
Its people are called by their source videos.
Celeb-DF: id3_0002 is a video of person 3, id3_id7_0002 that video with the face of person 7.
DeeperForensics: 071_M101 is that video with the face of the actor M101.
DeepFakeDetection: 01__kitchen_pan is actor 1, 01_02__kitchen_pan__ABC has the face of actor 2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from scipy.cluster.hierarchy import DisjointSet

SOURCES = re.compile(r"(\d{3})(?:_(\d{3}|[MW]\d{3}))?|([MW]\d{3})")
PEOPLE = re.compile(r"id(\d+)(?:_id(\d+))?_\d{4}")
ACTORS = re.compile(r"(\d\d)(?:_(\d\d))?__\w.*")
# Methods that put in the face of the second one named, in small letters and without signs.
SWAPS = """
    deepfakes faceswap faceshifter deepfakedetection deeperforensics df
    celebsynthesis celebdf celebdfv1 celebdfv2
    blendface e4s facedancer fsgan inswap mobileswap simswap uniface deepfacelab
"""
SWAPS = frozenset(SWAPS.split())
SAME = frozenset(("face2face", "neuraltextures"))  # others, which move the face of the first one
KIND = r"(?:c0|c23|c40|raw|mp4|avi|faces?|crop(?:ped)?|aligned|frames?|images?|real|fake)"
AROUND = re.compile(rf"^(?:{KIND}[_\-. ])+|(?:[_\-. ]{KIND})+$|^(?:clip|vid(?:eo)?)[_\- ]?(?=\d)")


def bare(name: str) -> str:
    """071_054 of c23_071_054_faces."""
    return AROUND.sub("", name)


def sources(name: str) -> tuple[str, ...]:
    """The source videos in a clip of FaceForensics++, the one that is seen first; none unknown."""
    match = SOURCES.fullmatch(name)
    return tuple(filter(None, match.groups())) if match else ()


def person(name: str) -> str:
    """The person filmed in a clip of Celeb-DF, such as id3; "" unknown."""
    match = PEOPLE.fullmatch(name)
    return f"id{match[1]}" if match else ""


def actor(name: str) -> str:
    """The actor filmed in a clip of DeepFakeDetection, such as actor01; "" unknown."""
    match = ACTORS.fullmatch(name)
    return f"actor{match[1]}" if match else ""


def people(name: str, method: str = "") -> tuple[str, str]:
    """(Who was filmed, whose face was put in) in a clip that is called so; "" unknown.

    Args:
        method: as of data.samples.Clip: "real", or "" where it is not known. Of methods that are
            neither in SWAPS nor in SAME, names do not tell whose head it is, if anyone's.
    """
    known = re.sub(r"[^a-z0-9]", "", method.lower())
    first, *other = sources(name)[:2] or [""]
    tells = not other or other[0][0] in "MW"  # whether no method but swaps makes clips called so
    for pattern, prefix in ((PEOPLE, "id"), (ACTORS, "actor")):
        if match := pattern.fullmatch(name):
            first, *other = (prefix + number for number in match.groups() if number)
            tells = True
    if known == "real":
        return ("", "") if other else (first, "")
    if known and known not in SWAPS | SAME:
        return "", ""
    swapped = tells if not known else known in SWAPS
    return first, "".join(other) if swapped else ""


def linked(names: Iterable[str], mutual: bool = False) -> dict[str, str]:
    """Source video -> its group: videos that share a clip, and chains of them.

    Args:
        mutual: only where 071_054 and 054_071 are both there, as in the official pairs. Methods
            that paired videos at random would chain all of them into one group.
    """
    pairs = {found for name in names if (found := sources(name))}
    groups = DisjointSet({source for pair in pairs for source in pair})
    for pair in pairs:
        if len(pair) == 2 and (not mutual or pair[::-1] in pairs):
            groups.merge(*pair)
    return {source: "_".join(sorted(g)[:2]) for g in groups.subsets() for source in g}


def group_of(name: str, groups: dict[str, str]) -> str:
    """The group of a clip: source videos (`groups`, from `linked`), a person, an actor; or ""."""
    found = next((groups[source] for source in sources(name) if source in groups), "")
    return found or person(name) or actor(name)
