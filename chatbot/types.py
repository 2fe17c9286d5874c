"""The nouns that Hearth's rooms pass to each other.

Everything here is a frozen value: no behaviour beyond what can be read off the fields, no imports
from other rooms. Lengths are characters of NFC text, sizes are bytes, times are seconds
(`*_at` are seconds since the epoch), scores are "higher is better".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Language = Literal["vi", "en"]
Role = Literal["system", "user", "assistant"]
Backend = Literal["extractive", "llama_cpp", "transformers", "openai"]
Scope = Literal["only", "also", "none"]
"""What an answer may draw on: documents only, documents and the model, the model alone."""

DocumentState = Literal["waiting", "reading", "ready", "failed"]
MessageState = Literal["writing", "complete", "stopped", "failed"]
JobState = Literal["waiting", "running", "paused", "done", "failed", "cancelled"]
StepState = Literal["waiting", "running", "done", "failed"]
ModelFormat = Literal["gguf", "hf", "pt", "adapter"]
ModelRole = Literal["chat", "embedder", "reranker"]
Phase = Literal["queued", "adding", "searching", "loading", "reading", "writing", "done"]
SearchMode = Literal["hybrid", "lexical", "dense"]
RelationKind = Literal["amends", "replaces", "repeals", "consolidates"]
"""What one official document does to another."""


# --- documents ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PageText:
    """The text of one page as a reader found it; `number` counts from 1, None where pages mean nothing."""

    text: str
    number: int | None = None
    anchors: bytes | None = None
    """Where each word stands on the page (`library.anchors` reads it); None where pages have no picture."""


@dataclass(frozen=True, slots=True)
class Heading:
    """A line that the source itself marks as a heading: a span of the document's text, level 1 the highest."""

    start: int
    end: int
    level: int


@dataclass(frozen=True, slots=True)
class ReadDocument:
    """What a reader returns: the pages in order, and what a person should know about the reading.

    The document's text is the pages' texts one after another, with nothing between them.
    """

    pages: tuple[PageText, ...]
    title: str = ""
    media_type: str = "text/plain"
    warning: str | None = None
    """A msgid, or several, one a line; translated where they are shown."""
    headings: tuple[Heading, ...] = ()


@dataclass(frozen=True, slots=True)
class Fact:
    """Something a document says of itself, and the words that say so: offsets in the document's text.

    Dates are ISO ('2024-07-30').
    """

    value: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Relation:
    """Another document that this one changes, ends or contains, by its official number."""

    kind: RelationKind
    number: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Validity:
    """What an official document says of itself; None where it does not say so clearly.

    `kind` is the document's kind as its heading names it ('Thông tư'), `expires` the last day in force.
    """

    number: Fact | None = None
    kind: Fact | None = None
    body: Fact | None = None
    title: Fact | None = None
    issued: Fact | None = None
    effective: Fact | None = None
    expires: Fact | None = None
    relations: tuple[Relation, ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """One stored document; `warning` and `error` are messages for people, or None."""

    id: str
    collection: str
    name: str
    sha256: str
    media_type: str
    size: int
    state: DocumentState
    pages: int
    passages: int
    language: Language | None
    warning: str | None
    error: str | None
    added_at: float
    origin: str | None = None
    """The path the file was added from, where there was one."""
    conversation: str | None = None
    """Set when the file belongs to one conversation only (attached in the chat)."""
    failure: dict[str, Any] | None = None
    """The error as `ChatbotError.to_dict` gave it, so that it can be told in the person's language."""
    deleted_at: float | None = None
    """Set while it lies in the trash."""
    validity: Validity = Validity()


@dataclass(frozen=True, slots=True)
class Passage:
    """A span of a document: `text` is the document's text from `start` to `end`, exactly."""

    id: str
    document_id: str
    ordinal: int
    text: str
    start: int
    end: int
    page: int | None
    path: str
    """Where it stands in the document's structure, such as 'Chương II › Điều 20 › Khoản 1'."""


@dataclass(frozen=True, slots=True)
class SearchFilter:
    """Which passages a search may return; empty tuples mean 'no restriction'.

    `conversation` adds the files attached to that conversation; other conversations' files never show.
    """

    collections: tuple[str, ...] = ()
    documents: tuple[str, ...] = ()
    conversation: str | None = None
    nothing: bool = False
    """True when the person chose to search nothing but the conversation's own files."""
    media_types: tuple[str, ...] = ()
    """Patterns as SQL's LIKE has them, such as 'application/pdf' and '%spreadsheet%'."""
    kinds: tuple[str, ...] = ()
    """Kinds of official documents, such as 'Thông tư'."""
    issued_from: str = ""
    issued_to: str = ""
    """ISO dates, both inclusive; documents that do not say when they were issued do not pass."""
    in_force_on: str = ""
    """An ISO date: only documents that by their own words, and the library's, were in force that day."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A passage that a search found, and why; ranks count from 1, None where that side missed it."""

    passage: Passage
    document: str
    score: float
    lexical_rank: int | None = None
    dense_rank: int | None = None
    referred_by: str | None = None
    """The passage whose reference led here; None where the search itself did."""


# --- conversations --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """A passage shown to the model under the number that the answer cites as [number]."""

    number: int
    passage_id: str
    document_id: str
    document: str
    page: int | None
    path: str
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class SentenceSupport:
    """Whether one sentence of an answer is backed by the passages it rests on; offsets are the answer's.

    `reason` is a msgid that `values` fill in, empty when supported; `cited` are the numbers it was held to.
    """

    start: int
    end: int
    supported: bool
    reason: str = ""
    values: dict[str, str] = field(default_factory=dict, hash=False)
    cited: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class GenerationStats:
    """What one answer cost. Seconds, tokens, tokens per second; `cached_tokens` were not re-read."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    answer_tokens: int = 0
    seconds_to_first_token: float = 0.0
    seconds: float = 0.0
    tokens_per_second: float = 0.0
    context: int = 0
    """The model's context length in tokens; 0 for engines without one."""
    finish: Literal["stop", "length", "cancelled"] = "stop"
    restored_tokens: int = 0
    """How many of `cached_tokens` came from disk."""
    drafted: int = 0
    accepted: int = 0
    """Tokens guessed from what was read before, and how many of them the model would have written too."""


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """How to write: sampling, length, stop words. `seed` None draws a fresh one."""

    temperature: float = 0.3
    top_p: float = 0.95
    top_k: int = 40
    min_p: float = 0.05
    repeat_penalty: float = 1.1
    max_tokens: int = 1024
    seed: int | None = None
    stop: tuple[str, ...] = ()
    thinking: bool = True
    """False asks a reasoning model to answer without its <think> part."""
    drafting: bool = True
    """Guess the next tokens from what was read, where that pays; the text stays the same."""
    conversation: str = ""
    """Whose state may be kept on disk, to go on sooner after a restart; "" keeps nothing."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message as an engine receives it.

    `text` is the complete prompt text. `question` and `sources` repeat its parts for the engine
    that quotes instead of writing; engines with a model read `text` only.
    """

    role: Role
    text: str
    question: str = ""
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a stream: text to append, reading progress (0..1), or the closing statistics."""

    text: str = ""
    progress: float | None = None
    queue_place: int | None = None
    notice: str | None = None
    """A sentence for the person, such as 'the model brings no chat template'; already translated key."""
    stats: GenerationStats | None = None


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What a loaded engine is: backend, a name for people, and its limits."""

    backend: Backend
    model: str
    context: int
    device: str = "cpu"
    precision: str = ""
    template: Literal["model", "built-in", "none"] = "none"
    steps: str = ""
    """'recorded' where a GPU replays each token's step, 'launched' where it does not; `steps_reason` says why."""
    steps_reason: str = ""


class Engine(Protocol):
    """Anything that can answer: one method that streams, one that counts, one that ends."""

    @property
    def info(self) -> EngineInfo: ...

    def stream(self, turns: Sequence[Turn], options: GenerationOptions) -> Iterator[Delta]:
        """Yield the answer as it grows; the last Delta carries the stats. Closing the iterator cancels."""
        ...

    def count_tokens(self, turns: Sequence[Turn], *, thinking: bool = True) -> int:
        """Exactly as many tokens as `stream` would read for these turns; remote engines estimate."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation, a node in its tree of branches."""

    id: str
    conversation_id: str
    parent_id: str | None
    role: Role
    text: str
    created_at: float
    state: MessageState = "complete"
    sources: tuple[Source, ...] = ()
    stats: GenerationStats | None = None
    engine: str = ""
    model: str = ""
    notices: tuple[str, ...] = ()
    error: str | None = None
    thumb: int = 0
    note: str = ""
    support: tuple[SentenceSupport, ...] = ()
    """What the support check found in each sentence that claims something."""


@dataclass(frozen=True, slots=True)
class Approved:
    """A question and the cited passages that the person found right: by a thumb up, or by opening them."""

    message_id: str
    question: str
    sources: tuple[Source, ...]
    praised: bool
    first: bool
    """True when nothing was said before the question, so that it can be understood alone."""


@dataclass(frozen=True, slots=True)
class ConversationSettings:
    """What one conversation answers with; None fields fall back to the settings page."""

    model: str | None = None
    scope: Scope = "only"
    filter: SearchFilter = field(default_factory=SearchFilter)
    system_prompt: str = ""
    options: GenerationOptions = field(default_factory=GenerationOptions)


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation as the sidebar lists it; `leaf_id` is the branch last looked at."""

    id: str
    title: str
    created_at: float
    updated_at: float
    pinned: bool = False
    incognito: bool = False
    deleted_at: float | None = None
    leaf_id: str | None = None
    settings: ConversationSettings = field(default_factory=ConversationSettings)


# --- this PC and its models -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GpuProgram:
    """A process on a GPU: its id, the bytes it holds there (None: the driver does not tell), whether Hearth's."""

    pid: int
    memory: int | None
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as the driver tells it; bytes, percent, degrees Celsius, watts, MHz; None where unknown.

    `pcie` is the link as it is now, generation and lanes; `cuda` the newest CUDA the driver can run; `bus` the
    card's place on the PCI bus ('0000:01:00.0'), which stays when the card before it is lost.
    """

    index: int
    name: str
    kind: Literal["cuda", "mps", "rocm"]
    total: int
    free: int
    load: float | None = None
    temperature: float | None = None
    power: float | None = None
    driver: str = ""
    used_by_hearth: int | None = None
    bf16: bool = True
    power_limit: float | None = None
    clock: float | None = None
    memory_clock: float | None = None
    pcie: tuple[int, int] | None = None
    cuda: str = ""
    programs: tuple[GpuProgram, ...] = ()
    bus: str = ""
    asleep: bool = False
    """Its power is cut until a program wants it; memory is as it was before."""

    @property
    def key(self) -> tuple[str, str]:
        """What tells this card from the others, also when their numbers change."""
        return (self.kind, self.bus or str(self.index))


@dataclass(frozen=True, slots=True)
class Hardware:
    """What this PC has and what of it is free now."""

    device: Literal["cuda", "mps", "cpu"]
    gpus: tuple[Gpu, ...]
    ram_total: int
    ram_available: int
    swap_total: int
    swap_used: int
    cores: int
    cores_physical: int
    cpu_name: str
    cpu_flags: tuple[str, ...]
    cpu_load: float
    disk_total: int
    disk_free: int
    system: str
    unified_memory: bool = False


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence for people: a msgid that `values` fill in; floats there are gigabytes."""

    text: str
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CardShare:
    """What one GPU would hold of a model: layers, `parts` in bytes, and what is free there now."""

    index: int
    name: str
    layers: int
    parts: dict[str, int]
    free: int


@dataclass(frozen=True, slots=True)
class Evicted:
    """What would be ended to make room, and the bytes that gives back; they count as free in a plan."""

    name: str
    ram: int
    gpu: int = 0


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How a model would run here: every size in bytes, `reason` a sentence with the numbers.

    `parts` sums to `total`; `free` is what the chosen device has now.
    """

    backend: Backend
    precision: str
    device: str
    gpu_layers: int
    context: int
    kv_type: str
    batch: int
    threads: int
    parts: dict[str, int]
    total: int
    free: int
    fits: bool
    reason: str
    growth: int = 0
    """Bytes that a conversation filling the context adds to `total` later."""
    learnt: dict[str, float] = field(default_factory=dict)
    """Factors that earlier loads on this PC taught, by place ('ram', 'gpu'); they are in `parts` already."""
    layers: int = 0
    """How many layers the model has, the output counted as `gpu_layers` counts it."""
    cards: tuple[CardShare, ...] = ()
    """The GPUs that share the model, in the order of its layers; together the 'gpu_' parts."""
    evicts: tuple[Evicted, ...] = ()
    reads: dict[str, int] = field(default_factory=dict)
    """Bytes of weights that writing one token reads, by place ('ram', 'gpu')."""
    notes: tuple[Note, ...] = ()
    """What else decided, in sentences that are part of `reason`."""
    flash: str = ""
    """Flash attention: 'on', 'off', or '' where the engine chooses."""
    threads_batch: int = 0
    """Threads that read a prompt; 0 means as many as write."""
    steady: bool = False
    """Whether a person chose the threads: they stay so many while other programs keep the processor busy."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a short measurement on this PC chose for a model that runs on the CPU through llama.cpp.

    `decode` and `prefill` are the tokens per second it measured with that choice, `plain_…` those with the
    usual one; `seconds` is how long it took.
    """

    threads: int
    threads_batch: int
    batch: int
    flash: bool
    decode: float
    prefill: float
    plain_decode: float
    plain_prefill: float
    seconds: float
    at: float


@dataclass(frozen=True, slots=True)
class Growth:
    """What an engine's process grew by at its peak, counted from just before it loaded; bytes.

    `gpu` is what its library's own allocator took there, None where that does not tell.
    """

    ram: int
    gpu: int | None = None


@dataclass(frozen=True, slots=True)
class ModelArtifact:
    """One model on disk; `path` is a GGUF file or a model folder.

    Engines run `gguf` and `hf`; `pt` is a folder with a state_dict, `adapter` one that needs its base.
    """

    id: str
    format: ModelFormat
    path: str
    name: str
    size: int
    linked: bool
    added_at: float
    architecture: str = ""
    parameters: int = 0
    context: int = 0
    role: ModelRole = "chat"
    manifest: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobStep:
    """One step of long work; `message` is a msgid that `values` fill in, `weight` its share of the whole."""

    name: str
    state: StepState = "waiting"
    progress: float = 0.0
    message: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    model: str | None = None
    """Id of the model that the step made or took in."""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of long work; `progress` 0..1 or None when it cannot be told.

    `log` holds its last lines, each a JSON list: seconds since the epoch, step, msgid, values.
    """

    id: str
    kind: str
    state: JobState
    title: str
    progress: float | None
    message: str
    error: str | None
    created_at: float
    updated_at: float
    params: dict[str, Any] = field(default_factory=dict)
    steps: tuple[JobStep, ...] = ()
    log: str = ""
