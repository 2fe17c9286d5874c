"""Whether a model is what it was made from: the verdict as a button, and every figure behind it."""

from __future__ import annotations

from typing import Any

import streamlit as st

from chatbot.i18n import N_, filled
from chatbot.markup import literal
from chatbot.services import services
from chatbot.types import ModelArtifact
from widgets.words import _, decimal, language, moment, plural, seconds, size

CHECKS = {
    "files": (N_("Files"), N_("Every byte is the one that was written: SHA-256.")),
    "parent": (
        N_("The model it was made from"),
        N_("Every byte of it is the one that was written; all else here is held against it."),
    ),
    "structure": (N_("Structure"), N_("The same tensors with the same names and shapes.")),
    "weights": (N_("Weights"), N_("How far each weight moved: ε = ‖θ after − θ before‖₂.")),
    "finite": (N_("No broken numbers"), N_("No weight is infinite or not a number.")),
    "embedding": (N_("Embedding table"), N_("How far it moved: ‖ΔE‖ in the Frobenius norm.")),
    "ones": (
        N_("Ones stay ones"),
        N_("An embedding set to ones keeps its mean of 1 through saving and loading."),
    ),
    "tokens": (
        N_("Tokenizer"),
        N_("Vietnamese and English texts become the same tokens and come back."),
    ),
    "template": (N_("Chat template"), N_("A conversation becomes the same prompt.")),
    "settings": (N_("Settings"), N_("What the model says of itself did not change.")),
    "outputs": (
        N_("Answers"),
        N_("How far the model's choice of the next word moved: δ on fixed prompts."),
    ),
    "repeat": (N_("Steadiness"), N_("The same prompt twice gives the same numbers: σ².")),
    "adapter": (
        N_("Adapter"),
        N_("Each weight it aims at moved by exactly scale·B·A, no other one."),
    ),
    "proof": (N_("Proof"), N_("A model that nobody could look into has not passed.")),
}
_DOUBTS = {"parent", "proof"}
"""Checks whose failing says that nothing is known, and not that the model is wrong."""
MADE_BY = {
    "download": N_("downloaded"),
    "unpack": N_("unpacked"),
    "prepare": N_("saved in 16 bits"),
    "merge": N_("merged"),
    "convert": N_("converted to GGUF"),
    "quantise": N_("quantised"),
}
_ICONS = {
    "pass": ":green[:material/check_circle:]",
    "fail": ":red[:material/error:]",
    "skipped": ":gray[:material/remove:]",
}
_FIGURES: dict[str, dict[str, str]] = {
    "files": {"files": N_("files"), "missing": N_("missing"), "changed": N_("changed")},
    "parent": {"files": N_("files"), "missing": N_("missing"), "changed": N_("changed")},
    "structure": {"tensors": N_("tensors"), "parameters": N_("parameters"), "missing": N_("missing"),
                  "unexpected": N_("unexpected"), "reshaped": N_("of another shape")},
    "settings": {"compared": N_("compared"), "different": N_("different")},
    "weights": {"epsilon": "ε", "relative": "ε / ‖θ‖", "tensors": N_("tensors"),
                "unchanged": N_("bit for bit the same"), "wrong": N_("beyond their limit")},
    "finite": {"count": "NaN, ∞"},
    "embedding": {"distance": "‖ΔE‖", "relative": "‖ΔE‖ / ‖E‖"},
    "ones": {"mean": N_("mean")},
    "tokens": {"texts": N_("texts"), "tokens": N_("tokens"), "different": N_("different")},
    "template": {"prompts": N_("prompts"), "different": N_("different")},
    "outputs": {"greatest": "max |Δlogit|", "relative": "‖Δlogit‖ / ‖logit‖", "kl": "KL",
                "top1": N_("same first choice"), "top1_clear": N_("same clear first choice"),
                "perplexity_ratio": N_("perplexity ratio"), "perplexity": N_("perplexity"),
                "positions": N_("positions")},
    "repeat": {"variance": "σ²", "times": N_("times")},
    "adapter": {"targets": N_("weights aimed at"), "changed": N_("changed"), "scale": N_("scale"),
                "times": N_("times applied")},
}  # fmt: skip
"""The figures of each check that people are shown, in this order; the JSON of the command line has all."""


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def button(model: ModelArtifact) -> None:
    """The verdict; pressing it opens the figures."""
    verdict: dict[str, Any] = model.manifest.get("verdict") or {}
    if not verdict:
        label, icon = f":gray[{_('Not checked yet')}]", ":gray[:material/shield:]"
    elif verdict["verdict"] == "fail":
        label, icon = f":red[**{_('Check failed')}**]", ":red[:material/gpp_bad:]"
    elif _named(verdict, "skipped"):
        label, icon = f":orange[{_('Partly checked')}]", ":orange[:material/rule:]"
    elif not verdict.get("parent"):
        label, icon = f":blue[{_('Whole, not compared')}]", ":blue[:material/task_alt:]"
    else:
        label, icon = f":green[{_('Checked')}]", ":green[:material/verified:]"
    if st.button(f"{icon} {label}", key=f"verdict-{model.id}", type="tertiary"):
        st.dialog(_("Is it the same model?"), width="medium", icon=":material/verified:")(_dialog)(
            model.id
        )


def warning(model: ModelArtifact) -> None:
    """What a person must know before they use a model whose check failed; nothing for others."""
    verdict = model.manifest.get("verdict") or {}
    if verdict.get("verdict") != "fail":
        return
    words = (
        _(
            "Nothing shows that this model is what it was made from ({failed}). Look at the figures before"
            " you rely on it."
        )
        if _is_doubt(verdict)
        else _(
            "This model is not what it was made from ({failed}). Its answers may be wrong: make it again"
            " before you rely on it."
        )
    )
    failed = ", ".join(_named(verdict, "fail"))
    st.error(words.format(failed=failed), icon=":material/gpp_bad:")


def _dialog(model_id: str) -> None:
    model = services().models.get(model_id)
    st.markdown(f"**{literal(model.name)}**")
    verdict: dict[str, Any] = model.manifest.get("verdict") or {}
    if not verdict:
        st.markdown(
            _(
                "Hearth compares a model with what it was made from: files, weights, tokens, chat"
                " template and answers. This one has not been checked on this PC."
            )
        )
    else:
        _summary(verdict)
        _table(verdict["checks"])
        if kinds := verdict.get("types"):
            parts = " · ".join(_kind(kind, about) for kind, about in kinds.items())
            st.caption(_("What the weights are stored as: {parts}").format(parts=parts))
    label = _("Check again") if verdict else _("Check now")
    if st.button(label, key="check-again", type="primary", icon=":material/fact_check:"):
        services().workshop.verify(model.id)
        st.session_state["models-goto"] = "jobs"
        st.rerun()


def _summary(verdict: dict[str, Any]) -> None:
    passed = sum(check["verdict"] == "pass" for check in verdict["checks"])
    skipped = _named(verdict, "skipped")
    alone = "" if verdict.get("parent") else _("It was not compared with what it was made from.")
    if verdict["verdict"] == "fail":
        words = (
            _("Nothing shows that it is what it was made from.")
            if _is_doubt(verdict)
            else _("It is not what it was made from.")
        )
        st.error(words, icon=":material/gpp_bad:")
    elif skipped:
        words = _("What could be checked is in order. Not checked: {parts}.")
        st.warning(f"{words.format(parts=', '.join(skipped))} {alone}", icon=":material/rule:")
    elif alone:
        words = _("It is whole: its files, its structure and its numbers are in order.")
        st.info(f"{words} {alone}", icon=":material/task_alt:")
    else:
        words = _("It is what it was made from: every part is within its limit.")
        st.success(words, icon=":material/verified:")
    facts = [plural("{count} part in order", "{count} parts in order", passed)]
    if skipped:
        facts.append(plural("{count} not checked", "{count} not checked", len(skipped)))
    if step := verdict.get("step"):
        facts.append(_("after it was {step}").format(step=_(MADE_BY.get(step, step))))
    if at := verdict.get("at"):
        facts.append(moment(at))
    if took := verdict.get("seconds"):
        facts.append(_("took {time}").format(time=seconds(took)))
    st.caption(" · ".join(facts))


def _table(checks: list[dict[str, Any]]) -> None:
    order = {"fail": 0, "pass": 1, "skipped": 2}
    for check in sorted(checks, key=lambda c: order.get(c["verdict"], 3)):
        name, what = CHECKS.get(check["name"], (check["name"], ""))
        with st.container(gap=None, key=f"check-{check['name']}-{check['verdict']}"):
            st.markdown(f"{_ICONS[check['verdict']]} **{_(name)}** · :gray[{_(what)}]")
            if check["detail"]:
                said = literal(filled(check["detail"], check.get("values", {}), language()))
                st.markdown(f":red[{said}]" if check["verdict"] == "fail" else f":gray[{said}]")
            if figures := _figures(check["name"], check["measured"], check["limit"]):
                st.caption(figures)


def _kind(kind: str, about: dict[str, Any]) -> str:
    """A type of weights, its size and how exact it is here."""
    words = f"{literal(kind)} {size(about['bytes'])}"
    return words + (f" (ε/‖θ‖ {_number(about['relative'])})" if about.get("relative") else "")


def _name(check: str) -> str:
    return _(CHECKS[check][0]) if check in CHECKS else check


def _named(verdict: dict[str, Any], ended: str) -> list[str]:
    """The names of the checks that ended so."""
    return [_name(check["name"]) for check in verdict["checks"] if check["verdict"] == ended]


def _is_doubt(verdict: dict[str, Any]) -> bool:
    """Whether it failed for what is not known, and not for what was found."""
    return {c["name"] for c in verdict["checks"] if c["verdict"] == "fail"} <= _DOUBTS


def _figures(check: str, measured: dict[str, Any], limit: dict[str, Any]) -> str:
    """What was measured, each with its limit where it has one."""
    parts = []
    for key, label in _FIGURES.get(check, {}).items():
        value = measured.get(key)
        if value is None:
            continue
        shown = f"{_(label)}: **{_number(len(value) if isinstance(value, list) else value)}**"
        if isinstance(limit.get(key), (int, float)):
            shown += f" ({_('limit {number}').format(number=_number(limit[key]))})"
        parts.append(shown)
    return " · ".join(parts)


def _number(value: Any) -> str:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return literal(str(value))
    if isinstance(value, int):
        return decimal(value, 0)
    if isinstance(value, float):
        if value == 0 or 0.001 <= abs(value) < 1e5:
            return decimal(value, 4).rstrip("0").rstrip(".,") or "0"
        mantissa, _e, exponent = f"{value:.1e}".partition("e")
        return f"{decimal(float(mantissa), 1)}·10{str(int(exponent)).translate(_RAISED)}"
    return literal(str(value)[:60])
