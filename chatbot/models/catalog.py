"""Models worth having, and whether this PC can run them, before a byte of them is here.

`catalog.toml` holds facts and geometry; the memory plan is made from these. When the hub was asked, its
sizes, gates and commits take the place of what was worked out, and are kept in the data folder.
"""

from __future__ import annotations

import json
import threading
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

from chatbot.errors import ChatbotError, ModelError
from chatbot.hardware.detect import Installed
from chatbot.i18n import N_
from chatbot.memory.config import described
from chatbot.memory.facts import Layer, ModelFacts
from chatbot.memory.headers import read_gguf_start
from chatbot.memory.outline import HALVES, LADDER, outlined
from chatbot.memory.plan import plan
from chatbot.memory.recommend import recommend
from chatbot.models.fetching import Quantisation, needed, quantisations, small_json
from chatbot.models.files import Report
from chatbot.models.hub import Hit, Hub, RemoteModel
from chatbot.settings import Paths, write_atomically
from chatbot.types import Hardware, MemoryPlan, ModelRole

FILE = Path(__file__).with_suffix(".toml")
START = 256_000
"""Bytes of a GGUF that hold its geometry; the tokenizer comes after it."""
MOST_START = 4_000_000
AT_ONCE = 6
LOOK_SECONDS = 8.0
"""How long people wait for the fit of what a search found; the list itself is there before."""
QUICK_ON_CPU = 5_200_000_000
"""Bytes of a model of 8 billion parameters in Q4_K_M, the largest that is recommended without a GPU."""
RUNTIME = 300_000_000
"""Bytes that an embedder or reranker takes besides its weights: torch's own, and a batch of passages."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A model of the catalogue. `gguf` is a repository of quantised files, '' where none is known."""

    repo: str
    name: str
    role: ModelRole
    licence: str
    languages: tuple[str, ...]
    parameters: int
    context: int
    gated: bool = False
    gguf: str = ""
    only_gguf: bool = False
    """Whether the repository itself needs code of its own, so that only its GGUF can be used."""
    facts: ModelFacts | None = None
    """Its geometry; None for embedders and rerankers."""
    sizes: dict[str, int] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """Bytes and GGUF files by type, as the hub lists them; empty until it was asked."""
    revision: str = ""


@dataclass(frozen=True, slots=True)
class Way:
    """One form in which a model can be had: what to download, its size, how it would run here.

    With `made_here`, the repository is downloaded as it is, and this type is made of it on this PC.
    """

    repo: str
    file: str | None
    type: str
    size: int
    exact: bool
    """False while the size is worked out from the geometry."""
    plan: MemoryPlan | None
    fits: bool
    made_here: bool = False


@dataclass(frozen=True, slots=True)
class Offer:
    """A catalogue entry on this PC: its ways, the best first, the one to take, and whether it is starred."""

    entry: Entry
    ways: tuple[Way, ...]
    best: Way | None
    """The best that fits now; None where nothing does."""
    recommended: bool = False


@cache
def entries() -> tuple[Entry, ...]:
    """The catalogue as it was shipped, the preferred first."""
    rows = tomllib.loads(FILE.read_text(encoding="utf-8"))["model"]
    return tuple(_entry(dict(row)) for row in rows)


def catalogue(paths: Paths) -> tuple[Entry, ...]:
    """The catalogue with what the hub said when it was last asked."""
    try:
        known = json.loads(_cache(paths).read_bytes())
    except (OSError, ValueError):
        return entries()
    found = []
    for entry in entries():
        row = known.get(entry.repo) if isinstance(known, dict) else None
        found.append(replace(entry, **_learned(row)) if isinstance(row, dict) else entry)
    return tuple(found)


def refresh(paths: Paths, report: Report) -> int:
    """Ask the hub for every entry; how many it knew. One that cannot be had keeps what was known of it."""
    known: dict[str, Any] = {}
    asked = entries()
    with Hub() as hub:
        for number, entry in enumerate(asked):
            report(number / len(asked), N_("Asking the hub for {repo}"), repo=entry.repo)
            try:
                known[entry.repo] = _ask(hub, entry)
            except ChatbotError as error:
                if number == 0 and not known:
                    raise
                known[entry.repo] = {"missing": error.code}
    write_atomically(_cache(paths), json.dumps(known, ensure_ascii=False).encode())
    return sum("missing" not in row for row in known.values())


def offers(
    found: Sequence[Entry], hardware: Hardware, installed: Installed | None = None
) -> tuple[Offer, ...]:
    """What each of these models would be on this PC now; of the chat models one is starred."""
    made = [_offer(entry, hardware, installed or Installed()) for entry in found]
    star = _best_of(made, hardware)
    return tuple(replace(offer, recommended=offer is star) for offer in made)


def ways_of(
    hub: Hub, model: RemoteModel, hardware: Hardware, installed: Installed | None = None
) -> tuple[Way, ...]:
    """How any repository of the hub could run here, the best first; of its files only headers are read.

    Raises ModelError, BrokenModel, HubError for one that cannot be used.
    """
    installed = installed or Installed()
    choices = quantisations(model)
    if choices:
        facts = facts_of_gguf(hub, model, choices[0].file)
        return tuple(
            _gguf_way(model.repo, facts, one, hardware, installed) for one in reversed(choices)
        )
    files = needed(model)
    size = sum(f.size for f in files if f.path.endswith((".safetensors", ".bin")))
    if any(file.path == "adapter_config.json" for file in files):
        return (Way(model.repo, None, "adapter", size, exact=True, plan=None, fits=True),)
    config = small_json(hub, model, "config.json")
    facts = described(config, model.repo)
    if not facts.writes_text:
        fits = size + RUNTIME <= hardware.ram_available
        return (Way(model.repo, None, "F32", size, exact=True, plan=None, fits=fits),)
    kind = "F16" if config.get("torch_dtype", config.get("dtype")) == "float16" else "BF16"
    planned = _planned(outlined(facts, kind, size), hardware, installed)
    fits = bool(planned and planned.fits)
    ways = [Way(model.repo, None, kind, size, exact=True, plan=planned, fits=fits)]
    for kind in LADDER:
        drawn = outlined(facts, kind)
        if planned := _planned(drawn, hardware, installed):
            ways.append(
                Way(model.repo, None, kind, drawn.size, exact=False, plan=planned,
                    fits=planned.fits, made_here=True)
            )  # fmt: skip
    return tuple(ways)


def facts_of_gguf(hub: Hub, model: RemoteModel, file: str) -> ModelFacts:
    """The geometry of a GGUF on the hub, from its first bytes."""
    found = model.file(file)
    if found is None:
        raise ModelError(
            N_("the repository has no such GGUF file, or not all parts of it."), name=model.repo
        )
    length = START
    while True:
        start = hub.read(model, file, 0, length)
        try:
            return read_gguf_start(start, found.size, file.rpartition("/")[2])
        except ChatbotError:
            if length >= min(MOST_START, found.size):
                raise
            length *= 4


def look_at(
    hits: Sequence[Hit],
    hardware: Hardware,
    installed: Installed | None = None,
    seconds: float = LOOK_SECONDS,
) -> dict[str, tuple[Way, ...] | ChatbotError]:
    """`ways_of` for everything that a search found, several at a time, or why a repository has none.

    After `seconds` what the hub has not answered yet is left out. Raises OfflineError.
    """
    hub = Hub(silent_seconds=seconds)

    def ways(hit: Hit) -> tuple[Way, ...] | ChatbotError:
        try:
            return ways_of(hub, hub.model(hit.repo), hardware, installed)
        except ChatbotError as error:
            return error

    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="look")
    asked = {pool.submit(ways, hit): hit.repo for hit in hits}
    done, late = wait(asked, seconds)
    pool.shutdown(wait=False, cancel_futures=True)

    def end() -> None:
        wait(late)
        hub.close()

    threading.Thread(target=end, name="look", daemon=True).start()
    return {repo: look.result() for look, repo in asked.items() if look in done}


def best_quantisation(
    hub: Hub, model: RemoteModel, hardware: Hardware, installed: Installed | None = None
) -> Quantisation | None:
    """The GGUF of a repository to take on this PC now; None where none fits."""
    ways = [way for way in ways_of(hub, model, hardware, installed) if way.file]
    best = best_way(sorted(ways, key=_rank))
    return next((one for one in quantisations(model) if best and one.file == best.file), None)


def _rank(way: Way) -> int:
    return LADDER.index(way.type) if way.type in LADDER else len(LADDER)


def _entry(row: dict[str, Any]) -> Entry:
    geometry = row.pop("geometry", None)
    if row["role"] not in get_args(ModelRole):
        raise ValueError(row["repo"])
    row["languages"] = tuple(row["languages"])
    facts = _facts(row["name"], row["context"], geometry) if geometry else None
    return Entry(**row, facts=facts)


def _facts(name: str, context: int, geometry: dict[str, Any]) -> ModelFacts:
    window, every = geometry.get("window"), geometry.get("every", 1)
    layers = tuple(
        Layer(geometry["heads"], geometry["kv_heads"], geometry["head"], geometry["head"],
              window if window and (n + 1) % every else None)
        for n in range(geometry["layers"])
    )  # fmt: skip
    return ModelFacts(
        format="hf",
        path="",
        files=(),
        name=name,
        architecture=geometry["architecture"],
        writes_text=True,
        quantisation="",
        context=context,
        vocabulary=geometry["vocabulary"],
        width=geometry["width"],
        feed_forward=geometry["feed_forward"],
        layers=layers,
        tensors=(),
        chat_template=True,
        tokenizer=True,
        tied=geometry["tied"],
    )


def _offer(entry: Entry, hardware: Hardware, installed: Installed) -> Offer:
    if entry.facts is None:
        size = entry.sizes.get("", entry.parameters * 4)
        fits = size + RUNTIME <= hardware.ram_available
        way = Way(entry.repo, None, "", size, "" in entry.sizes, None, fits)
        return Offer(entry, (way,), way if fits else None)
    ways = []
    for kind in LADDER if entry.only_gguf else (HALVES[0], *LADDER):
        facts = outlined(entry.facts, kind, entry.sizes.get(kind, 0))
        planned = _planned(facts, hardware, installed)
        if planned is None:
            continue
        made_here = kind in LADDER and not entry.gguf
        repo = entry.repo if kind in HALVES or made_here else entry.gguf
        size, exact = entry.sizes.get(kind, facts.size), kind in entry.sizes
        file = entry.files.get(kind)
        ways.append(Way(repo, file, kind, size, exact, planned, planned.fits, made_here))
    return Offer(entry, tuple(ways), best_way(ways))


def best_way(ways: Sequence[Way]) -> Way | None:
    """The first that fits now and is quick enough, else the smallest that fits; `ways` the best first."""
    fitting = [way for way in ways if way.fits]
    quick = [way for way in fitting if _is_quick(way)]
    return quick[0] if quick else min(fitting, key=lambda way: way.size, default=None)


def _is_quick(way: Way) -> bool:
    """Whether nobody waits for its words: a CPU reads the whole file for each of them."""
    on_gpu = way.plan is not None and not way.plan.device.endswith("cpu")
    return on_gpu or way.size <= QUICK_ON_CPU


def _best_of(made: Sequence[Offer], hardware: Hardware) -> Offer | None:
    """The chat model to begin with: Vietnamese, to be had by anyone, as large as runs well here."""
    advised = recommend(hardware)
    most = advised.billions * 1.15e9 if advised else 0
    able = [
        offer
        for offer in made
        if offer.best and offer.entry.role == "chat" and not offer.entry.gated
        and "vi" in offer.entry.languages and "en" in offer.entry.languages
    ]  # fmt: skip
    fitting = [offer for offer in able if offer.entry.parameters <= most]
    return max(fitting, key=lambda offer: offer.entry.parameters, default=None)


def _planned(facts: ModelFacts, hardware: Hardware, installed: Installed) -> MemoryPlan | None:
    try:
        return plan(hardware, facts, installed=installed)
    except (
        ModelError
    ):  # the library that would run it is not installed, or it is quantised otherwise
        return None


def _gguf_way(
    repo: str, facts: ModelFacts, one: Quantisation, hardware: Hardware, installed: Installed
) -> Way:
    kind = one.type if one.type in (*LADDER, "F16", "Q4_0", "Q5_0") else "Q4_K_M"
    drawn = replace(outlined(facts, kind, one.size), format="gguf", quantisation=one.type)
    planned = _planned(drawn, hardware, installed)
    fits = bool(planned and planned.fits)
    return Way(repo, one.file, one.type, one.size, exact=True, plan=planned, fits=fits)


def _ask(hub: Hub, entry: Entry) -> dict[str, Any]:
    """What the hub says of an entry: commit, gate, bytes by type, and the files' names."""
    model = hub.model(entry.repo)
    said: dict[str, Any] = {
        "revision": model.revision,
        "gated": bool(model.gated),
        "sizes": {},
        "files": {},
    }
    if not entry.only_gguf:
        size = sum(f.size for f in needed(model) if f.path.endswith((".safetensors", ".bin")))
        said["sizes"][HALVES[0] if entry.facts else ""] = size
    if entry.gguf:
        for one in quantisations(hub.model(entry.gguf)):
            if one.type in LADDER and one.type not in said["sizes"]:
                said["sizes"][one.type], said["files"][one.type] = one.size, one.file
    return said


def _learned(row: dict[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in ("revision", "gated", "sizes", "files") if key in row}


def _cache(paths: Paths) -> Path:
    return paths.data / "catalogue.json"
