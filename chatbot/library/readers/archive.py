"""Formats that are a zip of XML parts: opened with limits of our own.

A bomb of half a megabyte would otherwise take gigabytes, and an entity in the XML would silently lose
text.
"""

from __future__ import annotations

import contextlib
import posixpath
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TypeAlias

from lxml import etree

from chatbot.errors import UnreadableDocument
from chatbot.i18n import N_
from chatbot.library.readers.kinds import DAMAGED, NEEDS_PASSWORD

MAX_TOTAL = 200_000_000
MAX_PART = 100_000_000
MAX_RATIO = 100
MAX_PARTS = 5_000
SMALL_PART = (
    1_000_000  # below this a high ratio does no harm: XML of empty table cells reaches 100:1
)

TOO_BIG_INSIDE = N_("it unpacks to far more than its size, as a harmful file would")
HAS_ENTITIES = N_("it contains XML declarations that a file of its kind never has")

Element: TypeAlias = etree._Element


@contextlib.contextmanager
def opened(path: Path, name: str) -> Iterator[Package]:
    """The parts of that zip. Raises UnreadableDocument for damaged, encrypted and hostile ones."""
    try:
        with zipfile.ZipFile(path) as archive:
            _check_sizes(archive, name)
            yield Package(archive, name)
    except (zipfile.BadZipFile, zlib.error, etree.XMLSyntaxError, EOFError, OSError, ValueError) as error:  # fmt: skip
        raise UnreadableDocument(DAMAGED, name=name) from error
    except RecursionError:
        raise
    except (RuntimeError, NotImplementedError) as error:  # encrypted members, unknown compression
        raise UnreadableDocument(NEEDS_PASSWORD, name=name) from error


def _check_sizes(archive: zipfile.ZipFile, name: str) -> None:
    parts = archive.infolist()
    total = sum(p.file_size for p in parts)
    bomb = any(
        p.file_size > MAX_PART
        or (p.file_size > SMALL_PART and p.file_size > MAX_RATIO * max(p.compress_size, 1))
        for p in parts
    )
    if bomb or total > MAX_TOTAL or len(parts) > MAX_PARTS:
        raise UnreadableDocument(TOO_BIG_INSIDE, name=name)


class Package:
    """The parts of the zip, each parsed without entities, DTDs or network."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self._archive = archive
        self._name = name
        self._members = {m.lstrip("/").lower(): m for m in archive.namelist()}

    def main_part(self, usual: str) -> str:
        """The part that an Office package names as its document; `usual` when it names none."""
        for kind, target in self.relations("").values():
            if kind == "officeDocument":
                return target
        return usual

    def relations(self, part: str) -> dict[str, tuple[str, str]]:
        """What that part of an Office package refers to inside it: id → (kind, part).

        Links to the outside are left out.
        """
        folder, file = posixpath.split(part)
        root = self.xml(posixpath.join(folder, "_rels", f"{file}.rels"))
        found = {}
        for relation in root if root is not None else ():
            if relation.get("TargetMode") == "External":
                continue
            target = posixpath.normpath(posixpath.join("/", folder, relation.get("Target") or ""))
            kind = (relation.get("Type") or "").rpartition("/")[2]
            found[relation.get("Id") or ""] = (kind, target.lstrip("/"))
        return found

    def content(self, part: str) -> bytes | None:
        """The part as it is; None when the package lacks it."""
        with self._opened(part) as file:
            return file.read() if file else None

    def xml(self, part: str) -> Element | None:
        """The root of that part; None when the package lacks it."""
        parser = etree.XMLParser(
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            huge_tree=True,
            remove_comments=True,
            remove_pis=True,
        )
        with self._opened(part) as file:
            if file is None:
                return None
            tree = etree.parse(file, parser)
        self._refuse_dtd(tree)
        return tree.getroot()

    def elements(self, part: str, name: str) -> Iterator[Element]:
        """Every element of that local name, whole; forgotten when the next is asked for."""
        with self._opened(part) as file:
            if file is None:
                return
            walker = etree.iterparse(
                file,
                tag=f"{{*}}{name}",
                resolve_entities=False,
                no_network=True,
                load_dtd=False,
                huge_tree=True,
                remove_comments=True,
                remove_pis=True,
            )
            for _, element in walker:
                self._refuse_dtd(element.getroottree())
                yield element
                element.clear()
                while (before := element.getprevious()) is not None:
                    before.getparent().remove(before)
            if walker.root is not None:
                self._refuse_dtd(walker.root.getroottree())

    def _opened(self, part: str) -> contextlib.AbstractContextManager[IO[bytes] | None]:
        member = self._members.get(part.lower())
        return self._archive.open(member) if member else contextlib.nullcontext()

    def _refuse_dtd(self, tree: etree._ElementTree) -> None:
        if tree.docinfo.doctype or tree.docinfo.internalDTD is not None:
            raise UnreadableDocument(HAS_ENTITIES, name=self._name)


def local(element: Element) -> str:
    """The tag without its namespace, which the flavours of a format disagree about."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def child(element: Element | None, *tags: str) -> Element | None:
    """The first element at that path of local names."""
    for tag in tags:
        if element is None:
            return None
        element = next((c for c in element if local(c) == tag), None)
    return element


def children(element: Element | None, *tags: str) -> list[Element]:
    """What stands below the first element at that path."""
    found = child(element, *tags)
    return list(found) if found is not None else []


def attribute(element: Element, name: str) -> str | None:
    """The attribute of that local name."""
    return next((v for k, v in element.attrib.items() if k.rpartition("}")[2] == name), None)


def core_title(package: Package) -> str:
    """The title in an Office package's properties."""
    title = child(package.xml("docProps/core.xml"), "title")
    return (title.text or "") if title is not None else ""
