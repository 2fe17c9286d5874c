"""How a model would run here: its parts as bars, the reasons, what else is possible, and every choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any

import streamlit as st

from chatbot.errors import ChatbotError
from chatbot.i18n import N_
from chatbot.markup import literal
from chatbot.memory.explain import PART_NAMES, sentences
from chatbot.services import services
from chatbot.types import MemoryPlan, ModelArtifact
from widgets import fit_badge
from widgets.words import _, decimal, language, memory

if TYPE_CHECKING:
    from chatbot.memory.alternatives import Alternative

_CONTEXTS = (2048, 4096, 8192, 16384, 32768, 65536, 131072)
_BATCHES = (64, 128, 256, 512, 1024, 2048)
_KV_TYPES = ("f16", "q8_0", "q4_0")
_PRECISIONS = ("fp32", "bf16", "fp16")
_STYLE = """
<style>
.hearth-plan { display: grid; gap: 0.15rem; font-size: 0.8125rem; font-variant-numeric: tabular-nums; }
.hearth-plan > p { display: flex; justify-content: space-between; gap: 1rem; margin: 0.3rem 0 0; font-size: inherit; }
.hearth-plan > p > span + span { white-space: nowrap; }
.hearth-plan > div { display: flex; height: 0.5rem; border-radius: 0.25rem; overflow: hidden;
  background: color-mix(in srgb, currentColor 12%, transparent); }
.hearth-plan > div > i { display: block; }
.hearth-plan > small { display: flex; flex-wrap: wrap; gap: 0 0.9rem; font-size: inherit; }
.hearth-plan small i { display: inline-block; width: 0.6rem; height: 0.6rem; border-radius: 0.15rem;
  margin-right: 0.3rem; }
.hearth-plan .weights { background: #c4541f; } .hearth-plan .kv { background: #3f86b5; }
.hearth-plan .buffers, .hearth-plan .loading { background: #5f9a48; } .hearth-plan .runtime { background: #a97fc0; }
.hearth-plan .growth { background: repeating-linear-gradient(135deg, #5f9a48 0 3px,
  color-mix(in srgb, #5f9a48 35%, transparent) 3px 6px); }
.hearth-plan .free { background: color-mix(in srgb, currentColor 12%, transparent); }
</style>
"""


@dataclass(frozen=True, slots=True)
class _Place:
    name: str
    parts: dict[str, int]
    free: int
    growth: int = 0


def bars(plan: MemoryPlan, *, every: bool = False) -> None:
    """A bar for each memory that the plan uses: what each part takes of what is free there.

    Without `every`, main memory is left out where the GPUs hold the model.
    """
    places = _places(plan)
    if not every and plan.cards and not plan.device.endswith("+cpu"):
        places = places[: len(plan.cards)]
    rows = "".join(_bar(place, named=len(places) > 1) for place in places)
    st.html(f'{_STYLE}<div class="hearth-plan">{rows}</div>')


def why(plan: MemoryPlan) -> str:
    """What else there is to say, in one line."""
    return " ".join(sentences(plan, language())[2:])


def button(model: ModelArtifact) -> None:
    """The button that opens the whole view."""
    if st.button(_("How it runs"), key=f"how-{model.id}", icon=":material/tune:", type="tertiary"):
        st.dialog(_("How it runs"), width="medium", icon=":material/tune:", on_dismiss="rerun")(
            _view
        )(model.id)


def _places(plan: MemoryPlan) -> list[_Place]:
    main = {key: size for key, size in plan.parts.items() if not key.startswith("gpu_")}
    if plan.device.startswith("mps"):  # one memory
        both = {key: main.get(key, 0) + plan.parts.get(f"gpu_{key}", 0) for key in PART_NAMES}
        return [_Place(_("Memory"), both, plan.free, plan.growth)]
    if not plan.cards:
        return [_Place(_("Main memory"), main, plan.free, plan.growth)]
    on_card = plan.growth if plan.backend == "transformers" else 0
    cards = [_Place(card.name, card.parts, card.free, on_card) for card in plan.cards]
    free = plan.free - sum(card.free for card in cards) or services().hardware().ram_available
    return [*cards, _Place(_("Main memory"), main, free, plan.growth - on_card)]


def _bar(place: _Place, *, named: bool) -> str:
    total = sum(place.parts.values())
    scale = max(place.free, total + place.growth, 1)
    shown = [(key, place.parts[key]) for key in PART_NAMES if place.parts.get(key)]
    shown += [("growth", place.growth)] if place.growth else []
    spans = "".join(
        f'<i class="{key}" style="width:{100 * part / scale:.1f}%"></i>' for key, part in shown
    )
    names = {**PART_NAMES, "growth": N_("when the context is full")}
    named_parts = [(key, _(names[key]), part) for key, part in shown if part >= total / 100]
    named_parts.append(("free", _("left free"), max(place.free - total - place.growth, 0)))
    key = "".join(
        f'<span><i class="{kind}"></i>{escape(words)} {memory(bytes_)}</span>'
        for kind, words, bytes_ in named_parts
    )
    words = _("{total} of {free}").format(total=memory(total), free=memory(place.free))
    head = f"<p><span>{escape(place.name)}</span><span>{words}</span></p>" if named else ""
    label = escape(f"{place.name}: {words}")
    return f'{head}<div role="img" aria-label="{label}">{spans}</div><small>{key}</small>'


# --- the dialog -----------------------------------------------------------------------------


def _view(model_id: str) -> None:
    model = services().models.get(model_id)
    plan = services().plan_model(model)
    where, needs, *rest = sentences(plan, language())
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{literal(model.name)}**", width="content")
        fit_badge.badge(plan)
    st.markdown(literal(f"{where} {needs}"))
    bars(plan, every=True)
    if rest:
        st.caption("\n".join(f"- {literal(sentence)}" for sentence in rest))
    if words := fit_badge.speed(plan):
        st.caption(f":material/speed: {words}")
    _also(model, services().alternatives(model, plan))
    _choices(model, plan)


def _also(model: ModelArtifact, offered: Sequence[Alternative]) -> None:
    if not offered:
        return
    st.markdown(f"**{_('Also possible')}**")
    with st.container(gap="xsmall", key=f"also-{model.id}"):
        for number, one in enumerate(offered):
            words = one.words(language())
            speed = "" if one.more else fit_badge.speed(one.plan)
            with st.container(horizontal=True, vertical_alignment="center", wrap=False):
                with st.container(gap=None, width="stretch"):
                    st.markdown(literal(words[:1].upper() + words[1:]))
                    if speed:
                        st.caption(speed)
                if not one.more and not one.model:
                    st.button(
                        _("Use"),
                        key=f"use-{model.id}-{number}-{words}",
                        on_click=_change,
                        args=(model, one.wishes),
                    )


def _choices(model: ModelArtifact, plan: MemoryPlan) -> None:
    """Every choice, kept with the model; what is left to Hearth says so."""
    saved = model.manifest.get("defaults") or {}
    gguf = plan.backend == "llama_cpp"
    st.markdown(f"**{_('Your choice')}**")
    contexts = [c for c in _CONTEXTS if not model.context or c < model.context]
    contexts += [model.context] if model.context else []
    cores = services().hardware().cores
    left, right = st.columns(2)
    with left:
        _choice(model, saved, "context", N_("Context (tokens)"), contexts, _count,
                _("How much the model can read at once: instructions, passages and conversation"))  # fmt: skip
        if gguf:
            _choice(model, saved, "kv_type", N_("KV cache type"), _KV_TYPES, str,
                    _("What the model keeps of the text it has read; q8_0 and q4_0 halve and quarter it"))  # fmt: skip
        else:
            _choice(model, saved, "precision", N_("Precision"), _PRECISIONS, str, "")
    with right:
        _choice(model, saved, "batch", N_("Batch (tokens)"), _BATCHES, _count,
                _("How much of a prompt is read in one piece; smaller needs less memory and reads slower"))  # fmt: skip
        _choice(model, saved, "threads", N_("Threads"), range(1, cores + 1), str,
                _("How many processor cores compute"))  # fmt: skip
    if any(gpu.kind != "rocm" for gpu in services().hardware().gpus):
        layers = [-1, *range(plan.layers)] if gguf else [-1, 0]
        _choice(model, saved, "gpu_layers", N_("Layers on the GPU"), layers, _layers_in_words,
                _("The others are computed by the processor"))  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(_("Kept with the model for the next time."), width="stretch")
        if any(value is not None for value in saved.values()):
            st.button(
                _("All automatic"),
                key=f"automatic-{model.id}",
                type="tertiary",
                icon=":material/restart_alt:",
                on_click=_change,
                args=(model, dict.fromkeys(saved)),
            )


def _choice(
    model: ModelArtifact, saved: dict[str, Any], name: str, label: str, values: Sequence[Any],
    words: Callable[[Any], str], explained: str,
) -> None:  # fmt: skip
    """One selection; "" is Hearth's own choice. Drawn anew when another way changed it, or its words."""
    now = saved.get(name)
    options = ["", *values] if now is None or now in values else ["", *values, now]
    key = f"wish-{name}-{model.id}-{now}-{language()}"

    def chosen() -> None:
        value = st.session_state[key]
        _change(model, {name: None if value == "" else value})

    st.selectbox(
        _(label),
        options,
        index=0 if now is None else options.index(now),
        format_func=lambda value: _("Automatic") if value == "" else words(value),
        key=key,
        help=explained or None,
        on_change=chosen,
    )


def _change(model: ModelArtifact, wishes: dict[str, Any]) -> None:
    saved = {**(model.manifest.get("defaults") or {}), **wishes}
    kept = {name: wish for name, wish in saved.items() if wish is not None}
    wished = replace(model, manifest={**model.manifest, "defaults": kept})
    try:
        services().plan_model(wished)
    except ChatbotError as error:  # not every model allows every choice
        st.toast(literal(error.text(language())), icon=":material/error:")
        return
    services().models.note(model.id, defaults=kept)


def _count(number: int) -> str:
    return decimal(number, 0)


def _layers_in_words(layers: int) -> str:
    return {-1: _("All"), 0: _("None")}.get(layers, str(layers))
