"""From a repository's name to a listed model: choose its files, fetch them in a child, take them in.

What is not finished lies in a folder of its own, with its journal beside it, over restarts: downloading the
same thing again goes on from there. Cancelled means paused; `forget` clears what was fetched.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from chatbot.errors import ModelError
from chatbot.i18n import N_
from chatbot.memory.facts import ModelFacts
from chatbot.models import making
from chatbot.models.files import (
    COMPANIONS,
    LICENCES,
    Report,
    StoredFile,
    check_room,
    telling_full_disk,
)
from chatbot.models.hub import Hub, RemoteFile, RemoteModel
from chatbot.models.journal import Journal, journal_of
from chatbot.models.names import is_safe
from chatbot.models.store import DOWNLOAD, ModelStore
from chatbot.settings import sync
from chatbot.types import ModelArtifact, ModelRole

ADAPTER = "adapter_config.json"
_PART = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
_SAFETENSORS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
_PICKLES = re.compile(r"pytorch_model(-\d{5}-of-\d{5})?\.bin")
_ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_INDEXES = {".safetensors": "model.safetensors.index.json", ".bin": "pytorch_model.bin.index.json"}
_MODULES = re.compile(r"\d+_\w+/(config\.json|model\.safetensors|pytorch_model\.bin)")
"""The parts of an embedder, such as 1_Pooling/config.json."""
_MOST_COMPANION = 100_000_000


@dataclass(frozen=True, slots=True)
class Quantisation:
    """One of the GGUF models of a repository: its first file, the name of its type, bytes of all parts."""

    file: str
    type: str
    size: int
    parts: int


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A download that was begun: bytes on the disk and in all, and what to ask for to go on."""

    repo: str
    revision: str
    file: str | None
    role: ModelRole | None
    name: str
    endpoint: str
    done: int
    total: int
    folder: Path


def download(
    store: ModelStore,
    report: Report,
    *,
    repo: str,
    revision: str | None = None,
    file: str | None = None,
    quantisation: str | None = None,
    role: ModelRole | None = None,
    name: str = "",
    pinned: Callable[[str], None] = lambda _commit: None,
) -> ModelArtifact:
    """The listed model of that repository, fetched at the commit that `revision` names now.

    `pinned` is told that commit before a byte is fetched: what asks for it goes on later. `file` chooses one GGUF (the first part of a split one), `quantisation` the one of that type. Raises OfflineError, HubError, GatedModel, ModelError,
    BrokenModel, DiskFullError, and Cancelled when `report` does; what was fetched is then kept.
    """
    report(0.0, N_("Asking the hub for {repo}"), repo=repo)
    with Hub() as hub:
        model = hub.model(repo, revision or "main")
        file = file or (file_of_type(model, quantisation) if quantisation else None)
        files = needed(model, file)
        check_runs_no_code(hub, model, files)
    pinned(model.revision)
    target = store.folder / f"{DOWNLOAD}{_key(model, files)}"
    journal = Journal(journal_of(target))
    done = sum(min(journal.good(f.path), f.size) for f in files)
    check_room(store.folder, sum(f.size for f in files) - done)
    origin = {"repo": model.repo, "revision": model.revision, "endpoint": model.endpoint}
    asked = {"file": file, "role": role, "name": name}
    with telling_full_disk(store.folder):
        target.mkdir(exist_ok=True)
        journal.begin({"version": 1, **origin, **asked, "files": [asdict(f) for f in files]})
    found = making.run("download", report, online=True, target=target, files=[asdict(f) for f in files], **origin)  # fmt: skip
    stored = [StoredFile(**entry) for entry in found["files"]]
    sync(target)
    made = {
        "step": "download",
        "parent": None,
        "params": {"repo": model.repo, "file": file},
        "figures": found["figures"],
        "at": time.time(),
    }
    facts = _facts_of(target, stored, model)
    with telling_full_disk(store.folder):
        listed = store.add(
            facts,
            sorted(stored, key=_weights_first),
            target,
            name=name or ("" if file else model.repo.rpartition("/")[2]),
            role=role or role_of(model),
            origin={**origin, "licence": model.licence, "base": model.base},
            made=made,
        )
    _clear(target)
    return listed


def quantisations(model: RemoteModel) -> list[Quantisation]:
    """The GGUF models in a repository, the smallest first; projectors and importance files are none."""
    found = []
    for file in model.files:
        if not file.path.lower().endswith(".gguf") or re.search(r"mmproj|imatrix", file.path, re.I):
            continue
        parts = _parts(model, file.path)
        if parts and parts[0].path == file.path:
            size = sum(part.size for part in parts)
            found.append(Quantisation(file.path, type_in(file.path), size, len(parts)))
    return sorted(found, key=lambda one: one.size)


def file_of_type(model: RemoteModel, quantisation: str) -> str:
    """The GGUF of that type in a repository. Raises ModelError where there is none."""
    for one in quantisations(model):
        if one.type == quantisation.upper():
            return one.file
    raise ModelError(
        N_("the repository has no GGUF of the type {part}."), name=model.repo, part=quantisation
    )


_TYPE = re.compile(
    r"(?<![A-Za-z0-9])(UD-)?(I?Q\d(_[A-Z0-9]+)*|BF16|F16|F32|FP16|TQ\d_\d|MXFP4(_MOE)?)(?![A-Za-z0-9])",
    re.IGNORECASE,
)


def type_in(path: str) -> str:
    """The quantisation that a file's name tells, such as Q4_K_M; '' where it tells none."""
    found = list(_TYPE.finditer(path.rpartition("/")[2]))
    return found[-1][2].upper().replace("FP16", "F16") if found else ""


def needed(model: RemoteModel, file: str | None = None) -> list[RemoteFile]:
    """The files to fetch: weights once (safetensors before pickles), settings, tokenizer, licence.

    `file` chooses a GGUF. Small files come first. Raises ModelError where there is nothing to use.
    """
    if file is not None or (_has_no_folder(model) and quantisations(model)):
        chosen = _gguf(model, file)
    else:
        weights = _weights(model)
        chosen = [*weights, *_companions(model, weights)]
    for one in chosen:
        if not is_safe(one.path):
            raise ModelError(
                N_("one of its files has a name that cannot be kept."), name=model.repo
            )
    return sorted(chosen, key=lambda one: (one.size > _MOST_COMPANION, one.path))


def role_of(model: RemoteModel) -> ModelRole:
    """What the repository's own card says that the model is for."""
    if model.task in ("sentence-similarity", "feature-extraction"):
        return "embedder"
    return "reranker" if model.task in ("text-ranking", "text-classification") else "chat"


def base_of(hub: Hub, model: RemoteModel) -> tuple[str, str]:
    """The repository and revision that an adapter was trained on.

    A base that was quantised for training is answered with the plain one. Raises ModelError when the adapter
    names none that a hub could have, such as a path on the machine that trained it.
    """
    settings = small_json(hub, model, ADAPTER)
    named = settings.get("base_model_name_or_path") or ""
    revision = settings.get("revision") or "main"
    for name in (str(named), model.base):
        plain = re.sub(r"(-unsloth)?-bnb-(4|8)bit$", "", name)
        if re.fullmatch(r"[\w.-]+/[\w.-]+", plain, re.ASCII):
            return plain, str(revision) if plain == named else "main"
    raise ModelError(
        N_(
            "the adapter does not say which model of the hub it belongs to (“{part}”); choose its base."
        ),
        name=model.repo,
        part=str(named)[:100],
    )


def check_runs_no_code(hub: Hub, model: RemoteModel, files: Sequence[RemoteFile]) -> None:
    """Raise ModelError for a model that needs code of its own, before its weights are fetched."""
    if any(file.path == "config.json" for file in files):
        settings = small_json(hub, model, "config.json")
        if "auto_map" in settings:
            raise ModelError(
                N_("it asks for program code of its own, and Hearth never runs a model's code. Look for a GGUF of it."),
                name=model.repo,
            )  # fmt: skip
        quantised = settings.get("quantization_config")
        if method := quantised.get("quant_method") if isinstance(quantised, dict) else quantised:
            raise ModelError(
                N_("its weights are quantised with {part}; choose the plain model or a GGUF file."),
                name=model.repo,
                part=str(method)[:40],
            )


def unfinished(store: ModelStore) -> list[Unfinished]:
    """Downloads that were begun and can go on."""
    found = []
    for file in sorted(store.folder.glob(f"{DOWNLOAD}*.journal")):
        journal = Journal(file)
        plan = journal.plan
        if not plan.get("files"):
            continue
        found.append(
            Unfinished(
                repo=plan["repo"],
                revision=plan["revision"],
                file=plan.get("file"),
                role=plan.get("role"),
                name=plan.get("name", ""),
                endpoint=plan["endpoint"],
                done=sum(min(journal.good(f["path"]), f["size"]) for f in plan["files"]),
                total=sum(f["size"] for f in plan["files"]),
                folder=file.with_suffix(""),
            )
        )
    return found


def arrived(store: ModelStore, repo: str, revision: str, file: str | None) -> int:
    """Bytes on the disk of such a download that is not finished."""
    asked = (repo, revision, file)
    return sum(b.done for b in unfinished(store) if (b.repo, b.revision, b.file) == asked)


def forget(begun: Unfinished) -> None:
    """Delete what was fetched of that download; nobody may be fetching it."""
    _clear(begun.folder)


def _facts_of(target: Path, stored: list[StoredFile], model: RemoteModel) -> ModelFacts:
    """What was fetched. Of what is whole and yet no model nothing is kept: it would be the same once more."""
    try:
        return making.facts_of(target, stored)
    except ModelError as error:
        _clear(target)
        if error.values.get("name") == target.name:  # people never saw that folder
            raise type(error)(**{**error.values, "name": model.repo}) from error
        raise


def _clear(folder: Path) -> None:
    # The journal goes first: a folder without one is cleared at the next start.
    journal_of(folder).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _key(model: RemoteModel, files: Sequence[RemoteFile]) -> str:
    said = json.dumps([model.endpoint, model.repo, model.revision, [f.path for f in files]])
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _weights_first(file: StoredFile) -> tuple[bool, str]:
    return (not file.name.lower().endswith(".gguf"), file.name)


def _has_no_folder(model: RemoteModel) -> bool:
    return not any(
        _SAFETENSORS.fullmatch(file.path)
        or _PICKLES.fullmatch(file.path)
        or file.path in _ADAPTER_WEIGHTS
        for file in model.files
    )


def _gguf(model: RemoteModel, file: str | None) -> list[RemoteFile]:
    if file is None:
        choices = quantisations(model)
        if len(choices) > 1:
            raise ModelError(
                N_("the repository holds several GGUF files; choose one of them."), name=model.repo
            )
        file = choices[0].file
    found = _parts(model, file)
    if not found:
        raise ModelError(
            N_("the repository has no such GGUF file, or not all parts of it."), name=model.repo
        )
    return found


def _parts(model: RemoteModel, path: str) -> list[RemoteFile]:
    """Every part of a GGUF in order; empty when one is absent."""
    match = _PART.fullmatch(path)
    if not match:
        whole = model.file(path)
        return [whole] if whole and path.lower().endswith(".gguf") else []
    count = int(match["count"])
    names = [f"{match['stem']}-{n:05}-of-{count:05}.gguf" for n in range(1, min(count, 1000) + 1)]
    found = [part for name in names if (part := model.file(name))]
    return found if len(found) == count else []


def _weights(model: RemoteModel) -> list[RemoteFile]:
    names = {file.path for file in model.files}
    if ADAPTER in names:
        for name in _ADAPTER_WEIGHTS:
            if found := model.file(name):
                return [found]
    for pattern in (_SAFETENSORS, _PICKLES):
        found_all = [file for file in model.files if pattern.fullmatch(file.path)]
        whole = [file for file in found_all if "-of-" not in file.path]
        if found_all and "config.json" in names:
            return whole or found_all
    raise ModelError(
        N_(
            "the repository holds no model that Hearth can use: no safetensors, no GGUF, no adapter."
        ),
        name=model.repo,
    )


def _companions(model: RemoteModel, weights: Sequence[RemoteFile]) -> list[RemoteFile]:
    """Settings, tokenizer, template and licence of a folder; never program code, never other weights."""
    index = _INDEXES.get(Path(weights[0].path).suffix) if len(weights) > 1 else None
    found = []
    for file in model.files:
        stem, suffix = file.path.partition(".")[0].upper(), Path(file.path).suffix.lower()
        if file in weights or file.size > _MOST_COMPANION:
            continue
        if file.path.endswith(".index.json"):
            if file.path == index:
                found.append(file)
        elif _MODULES.fullmatch(file.path) or (
            "/" not in file.path and (suffix in COMPANIONS or stem in LICENCES)
        ):
            found.append(file)
    return found


def small_json(hub: Hub, model: RemoteModel, path: str) -> dict[str, Any]:
    """The object in a small file of a repository; empty where it is none. Raises ModelError for no JSON."""
    try:
        found = json.loads(hub.read(model, path))
    except ValueError as error:
        raise ModelError(N_("{part} is not readable JSON."), name=model.repo, part=path) from error
    return found if isinstance(found, dict) else {}
