"""The search index's files damaged at random: found, rebuilt from SQLite, the same answers, search meanwhile.

A few damages run always; HEARTH_FULL=1 makes 100 to Chroma's folder and 100 to tantivy's.
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from chatbot.database import Database
from chatbot.library.index import Index
from chatbot.library.index_seal import read_seal
from chatbot.settings import Paths
from tests.library.index_data import put, ranking

pytestmark = pytest.mark.faults

FULL = bool(os.environ.get("HEARTH_FULL"))
DAMAGES = 100 if FULL else 3
PASSAGES = 1100
"""More than Chroma's sync threshold of 1,000, so that there are graph files to damage."""

SYLLABLES = [
    "an",
    "bình",
    "cao",
    "dân",
    "đăng",
    "giáo",
    "hành",
    "khoa",
    "lao",
    "mức",
    "nghị",
    "phạt",
    "quyền",
    "sinh",
    "thuế",
    "trường",
    "vay",
    "xử",
]
QUESTIONS = ("mức phạt hành", "quyen sinh", "thuế trường cao", "lao vay dân")


def files_of(folder: Path) -> list[Path]:
    return sorted(f for f in folder.rglob("*") if f.is_file() and f.name != "seal.json")


def one_of(folder: Path, chance: random.Random) -> Path:
    return chance.choice([f for f in files_of(folder) if f.stat().st_size])


def truncated(folder, old, chance):
    file = one_of(folder, chance)
    os.truncate(file, chance.randrange(file.stat().st_size))


def bits_flipped(folder, old, chance):
    file = one_of(folder, chance)
    content = bytearray(file.read_bytes())
    for place in chance.sample(range(len(content)), min(len(content), chance.randint(1, 8))):
        content[place] ^= 1 << chance.randrange(8)
    file.write_bytes(content)


def part_zeroed(folder, old, chance):
    file = one_of(folder, chance)
    content = bytearray(file.read_bytes())
    start = chance.randrange(len(content))
    content[start : start + 4096] = bytes(len(content[start : start + 4096]))
    content[start] ^= 0 if any(file.read_bytes()[start : start + 4096]) else 1
    file.write_bytes(content)


def grown(folder, old, chance):
    with one_of(folder, chance).open("ab") as end:
        end.write(chance.randbytes(chance.randint(1, 5000)))


def replaced_by_noise(folder, old, chance):
    file = one_of(folder, chance)
    file.write_bytes(chance.randbytes(file.stat().st_size))


def file_deleted(folder, old, chance):
    one_of(folder, chance).unlink()


def emptied(folder, old, chance):
    shutil.rmtree(folder)
    folder.mkdir()


def folder_deleted(folder, old, chance):
    shutil.rmtree(folder)


def old_folder(folder, old, chance):
    """A backup of the folder put back: whole in itself, but not what SQLite holds."""
    shutil.rmtree(folder)
    shutil.copytree(old, folder)


def old_files_new_seal(folder, old, chance):
    seal = (folder / "seal.json").read_bytes()
    old_folder(folder, old, chance)
    (folder / "seal.json").write_bytes(seal)


def files_exchanged(folder, old, chance):
    """Every file under another file's name."""
    files = files_of(folder)
    contents = [f.read_bytes() for f in files]
    for file, content in zip(files, contents[1:] + contents[:1], strict=True):
        file.write_bytes(content)


KINDS = [
    truncated, bits_flipped, part_zeroed, grown, replaced_by_noise, file_deleted, emptied, folder_deleted,
    old_folder, old_files_new_seal, files_exchanged,
]  # fmt: skip


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory):
    """A library whose index was sealed twice: copies of the folders of the first time, and the paths."""
    paths = Paths(tmp_path_factory.mktemp("chỉ mục") / "dữ liệu")
    paths.make()
    database = Database(paths.database)
    chance = random.Random(20251122)
    texts = {f"bài-{n}": " ".join(chance.choices(SYLLABLES, k=30)) for n in range(PASSAGES)}
    names = list(texts)
    put(database, {name: texts[name] for name in names[:600]})
    opened(database, paths).close()
    old = paths.data.parent / "old"
    shutil.copytree(paths.index, old)
    put(database, {name: texts[name] for name in names[600:]})
    opened(database, paths).close()
    yield database, paths, old
    database.close()


def opened(database: Database, paths: Paths) -> Index:
    index = Index(database, paths.index, "hearth-surface", "1")
    assert index.wait_ready(300), index.status()
    return index


def answers(index: Index) -> list[set[str]]:
    """The first ten of each side for each question; equals may change places."""
    return [set(ranking(index.query(q), side)) for q in QUESTIONS for side in ("lexical", "dense")]


@pytest.mark.timeout(7200 if FULL else 300)
@pytest.mark.parametrize("store", ["dense", "lexical"])
def test_random_damages_are_found_and_rebuilt_while_search_goes_on(store, library):
    database, paths, old_index = library
    index = opened(database, paths)
    before = answers(index)
    best = [ranking(index.query(question))[:3] for question in QUESTIONS]
    index.close()
    (old,) = old_index.glob(f"{store}-*")
    chance = random.Random(f"{store} 20251122")
    kinds = [*chance.sample(KINDS, len(KINDS)), *chance.choices(KINDS, k=DAMAGES)][:DAMAGES]
    for number, kind in enumerate(kinds):
        told = f"damage {number} of {store}: {kind.__name__}"
        (folder,) = paths.index.glob(f"{store}-*")
        kind(folder, old, chance)
        sealed = read_seal(folder)
        assert kind is old_folder or sealed is None or not sealed[1], f"{told} is not seen"
        index = Index(database, paths.index, "hearth-surface", "1")
        meanwhile = [ranking(index.query(question))[0] for question in QUESTIONS]
        assert index.wait_ready(300), (told, index.status())
        after = answers(index)
        index.close()
        # SQLite's scan weighs words a little otherwise: equals may change places.
        assert all(m in three for m, three in zip(meanwhile, best, strict=True)), told
        assert after == before, told
        (folder,) = paths.index.glob(f"{store}-*")
        sealed = read_seal(folder)
        assert sealed is not None, told
        assert sealed[1], told
