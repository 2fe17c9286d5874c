"""What became of a folder's files since it was last looked at: one pure comparison.

Files are told by their path, contents by their hash. A document follows its content: wherever the same
bytes lie now, there the document belongs, so a renamed or moved file is not read again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as a look at the folder shows it, unopened."""

    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Known:
    """A file as it was taken in; `sha256` is '' when it was refused unread, `missing` once it was gone."""

    size: int
    mtime_ns: int
    sha256: str
    missing: bool = False


@dataclass(frozen=True, slots=True)
class Borne:
    """A document and the path that it bears as its origin."""

    id: str
    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Changes:
    """What to do so that the documents are the folder's files again; paths in order."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Old path → new path of the same content."""
    missing: tuple[str, ...] = ()
    """Gone from the folder, with a document that is left: a person decides."""
    forgotten: tuple[str, ...] = ()
    """Gone, and nothing of theirs is left in the library, or the same content lies elsewhere."""
    moves: Mapping[str, str] = field(default_factory=dict)
    """Document → the path that it bears from now on."""
    emptied: tuple[str, ...] = ()
    """Documents of refused files that are gone: they hold nothing that could be missed."""


def differing(known: Mapping[str, Known], seen: Mapping[str, Seen]) -> list[str]:
    """Paths that are new or whose size or time is not the known one: only their content may differ."""
    return [path for path, file in seen.items() if not _is_same(known.get(path), file)]


def worth_hashing(
    known: Mapping[str, Known], seen: Mapping[str, Seen], different: Iterable[str]
) -> list[str]:
    """Those of the differing paths that may hold a content that is already known, by their size."""
    paths = set(different)
    sizes = {
        file.size
        for path, file in known.items()
        if file.sha256 and (path not in seen or path in paths)
    }
    return sorted(path for path in paths if seen[path].size in sizes)


def compare(
    known: Mapping[str, Known],
    found: Mapping[str, str | None],
    documents: Iterable[Borne] = (),
    elsewhere: Mapping[str, str] | None = None,
) -> Changes:
    """What happened between `known` and `found` (path → hash, None for a content not known before).

    `documents` are those that bear a path of this folder; `elsewhere` maps hashes to paths of other linked
    folders that hold the same content for the same collection.
    """
    gone = sorted(known.keys() - found.keys())
    new = sorted(found.keys() - known.keys())
    renamed = _renamed({path: known[path].sha256 for path in gone}, {p: found[p] for p in new})
    changed = sorted(p for p in found if p in known and found[p] != known[p].sha256)

    where = dict(elsewhere or {})
    for path in sorted(found, key=lambda p: (p not in known, p)):  # new ones have the last word
        if content := found[path]:
            where[content] = path
    documents = list(documents)
    moves = {}
    for document in documents:
        place = _place_of(document, known, found, where)
        if place and place != document.path:
            moves[document.id] = place

    left: dict[str, list[Borne]] = {}
    for document in documents:
        if document.id not in moves:
            left.setdefault(document.path, []).append(document)
    unpaired = [path for path in gone if path not in renamed]
    missing = [p for p in unpaired if any(d.sha256 for d in left.get(p, ()))]
    taken = set(renamed.values())
    return Changes(
        added=tuple(p for p in new if p not in taken),
        changed=tuple(changed),
        renamed=renamed,
        missing=tuple(missing),
        forgotten=tuple(p for p in unpaired if p not in set(missing)),
        moves=moves,
        emptied=tuple(d.id for p in unpaired for d in left.get(p, ()) if not d.sha256),
    )


def _is_same(known: Known | None, seen: Seen) -> bool:
    return known is not None and (known.size, known.mtime_ns) == (seen.size, seen.mtime_ns)


def _renamed(gone: Mapping[str, str], new: Mapping[str, str | None]) -> dict[str, str]:
    """Pairs of a path that is gone and a new one with the same content."""
    waiting: dict[str, list[str]] = {}
    for path, content in new.items():
        if content:
            waiting.setdefault(content, []).append(path)
    return {path: waiting[content].pop(0) for path, content in gone.items() if waiting.get(content)}


def _place_of(
    document: Borne,
    known: Mapping[str, Known],
    found: Mapping[str, str | None],
    where: Mapping[str, str],
) -> str | None:
    """The path a document belongs to now; None when its content and its file are gone."""
    if found.get(document.path) == document.sha256:
        return document.path
    if document.sha256 in where:
        return where[document.sha256]
    if not document.sha256 or document.path in found:
        return document.path  # an earlier version answers until the newest is ready
    newest = known.get(document.path)
    return where.get(newest.sha256) if newest else None
