"""Wrong tokenizers and chat templates are caught, between folders and in GGUF files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chatbot.models.verify import templates, tokens
from chatbot.models.verify.stored import open_model
from chatbot.models.verify.texts import TEXTS, long_text
from tests import tiny_models
from tests.models.verifying import copy, write_metadata
from tests.tiny_models import TEMPLATE, make_gguf, make_hf

Json = dict[str, Any]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tách từ")


@pytest.fixture(scope="module")
def hf(home: Path) -> Path:
    """Its vocabulary has a number of two digits, so that it matters where digits are split."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_models, "_TRAINING", tiny_models._TRAINING + "12 x12 " * 200)
        return make_hf(home / "gốc")


@pytest.fixture(scope="module")
def gguf(hf: Path, home: Path) -> Path:
    return make_gguf(hf, home / "gốc.gguf", "f16")


def compare(made: Path, origin: Path) -> Any:
    return tokens.compare(open_model(made), open_model(origin))


def template(made: Path, origin: Path) -> Any:
    return templates.compare(open_model(made), open_model(origin))


def edited(folder: Path, target: Path, name: str, edit: Callable[[Json], None]) -> Path:
    made = copy(folder, target)
    edit_json(made / name, edit)
    return made


def edit_json(file: Path, edit: Callable[[Json], None]) -> None:
    content = json.loads(file.read_text("utf-8"))
    edit(content)
    file.write_text(json.dumps(content, ensure_ascii=False), "utf-8")


def test_the_same_tokenizer_passes_in_every_form(hf: Path, gguf: Path, tmp_path: Path) -> None:
    for made, origin in ((copy(hf, tmp_path / "copy"), hf), (gguf, hf), (hf, gguf), (gguf, gguf)):
        check = compare(made, origin)
        assert check.verdict == "pass", check
        assert check.measured["texts"] >= len(TEXTS)
        assert template(made, origin).verdict == "pass"


def test_a_tokenizer_saved_anew_by_transformers_passes(hf: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    made = copy(hf, tmp_path / "copy")
    AutoTokenizer.from_pretrained(hf).save_pretrained(made)
    assert compare(made, hf).verdict == "pass"
    assert template(made, hf).verdict == "pass"


def test_real_tokens_of_a_sentencepiece_model_agree_with_llama_cpp(shared_data: Path) -> None:
    """stories260K: llama.cpp's SPM vocabulary against the folder's tokenizer.json."""
    folder = shared_data / "models" / "stories260K"
    if not folder.is_dir():
        pytest.skip("stories260K is not on this machine")
    made = open_model(folder.with_suffix(".gguf"))
    check = tokens.compare(made, open_model(folder))
    assert check.verdict == "pass", check


def _swap_tokens(content: Json) -> None:
    vocabulary = content["model"]["vocab"]
    one, other = list(vocabulary)[300:302]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]


def _swap_merges(content: Json) -> None:
    merges = content["model"]["merges"]
    merges[3], merges[40] = merges[40], merges[3]


def _drop_merge(content: Json) -> None:
    content["model"]["merges"].pop()


def _other_pieces(content: Json) -> None:
    digits = {"type": "Digits", "individual_digits": True}
    both = [digits, content["pre_tokenizer"]]
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": both}


def _prefix(content: Json) -> None:
    content["pre_tokenizer"]["add_prefix_space"] = True


def _lower(content: Json) -> None:
    content["normalizer"] = {"type": "Lowercase"}


FAULTS = {
    "two tokens swapped": _swap_tokens,
    "two merges swapped": _swap_merges,
    "a merge less": _drop_merge,
    "another pre-tokenizer": _other_pieces,
    "a space before every text": _prefix,
    "a normalizer": _lower,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_tokenizer_is_caught_in_a_folder_and_in_a_gguf(
    hf: Path, gguf: Path, tmp_path: Path, fault: str
) -> None:
    wrong = edited(hf, tmp_path / "wrong", "tokenizer.json", FAULTS[fault])
    assert compare(wrong, hf).verdict == "fail"
    assert compare(gguf, wrong).verdict == "fail"  # the file was made by another tokenizer
    assert compare(wrong, gguf).verdict == "fail"


def _swapped(values: list[str], one: int, other: int) -> list[str]:
    values = list(values)
    values[one], values[other] = values[other], values[one]
    return values


@pytest.mark.parametrize(
    ("key", "alter"),
    [
        ("tokenizer.ggml.tokens", lambda v: _swapped(v, 300, 301)),
        ("tokenizer.ggml.merges", lambda v: _swapped(v, 3, 40)),
        ("tokenizer.ggml.pre", lambda _: "qwen2"),
        ("tokenizer.ggml.eos_token_id", lambda v: v - 1),
        ("tokenizer.ggml.add_bos_token", lambda v: not v),
        ("tokenizer.ggml.token_type", lambda v: [1 if n == 1 else t for n, t in enumerate(v)]),
    ],
)
def test_a_wrong_tokenizer_in_a_gguf_is_caught(
    hf: Path, gguf: Path, tmp_path: Path, key: str, alter: Callable[[Any], Any]
) -> None:
    before = open_model(gguf).settings
    if key not in before:
        pytest.skip(f"this converter writes no {key}")
    wrong = write_metadata(copy(gguf, tmp_path / "wrong.gguf"), {key: alter(before[key])})
    assert compare(wrong, gguf).verdict == "fail"
    assert compare(wrong, hf).verdict == "fail"


def test_a_lost_end_of_answers_is_caught(hf: Path, gguf: Path, tmp_path: Path) -> None:
    folder = copy(hf, tmp_path / "không dừng")
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / file).is_file():
            edit_json(folder / file, lambda said: said.pop("eos_token", None))
    assert compare(folder, hf).verdict == "fail"
    file = write_metadata(
        Path(shutil.copy(gguf, tmp_path)), {}, drop=("tokenizer.ggml.eos_token_id",)
    )
    found = compare(file, hf)
    assert (found.verdict, found.values["part"][:3]) == ("fail", "eos")


def test_a_tokenizer_that_does_not_load_is_a_fault_and_a_parents_is_a_reason(
    hf: Path, tmp_path: Path
) -> None:
    broken = copy(hf, tmp_path / "broken")
    (broken / "tokenizer.json").write_text("{", "utf-8")
    assert compare(broken, hf).verdict == "fail"
    assert compare(hf, broken).verdict == "skipped"


def test_a_missing_chat_template_is_caught(hf: Path, gguf: Path, tmp_path: Path) -> None:
    without = edited(hf, tmp_path / "hf", "tokenizer_config.json", lambda c: c.pop("chat_template"))
    assert template(without, hf).verdict == "fail"
    assert template(hf, without).verdict == "fail"
    assert template(without, without).verdict == "pass"
    bare = write_metadata(copy(gguf, tmp_path / "x.gguf"), {}, drop=("tokenizer.chat_template",))
    assert template(bare, gguf).verdict == "fail"
    assert template(bare, hf).verdict == "fail"


def test_another_chat_template_is_caught_by_what_it_writes(
    hf: Path, gguf: Path, tmp_path: Path
) -> None:
    changed = TEMPLATE.replace("<|im_end|>\n", "<|im_end|>", 1)
    other = edited(
        hf, tmp_path / "o", "tokenizer_config.json", lambda c: c.update(chat_template=changed)
    )
    assert template(other, hf).verdict == "fail"
    assert template(gguf, other).verdict == "fail"
    thinking = TEMPLATE.replace("<think>", "<think>\n")
    other = edited(
        hf, tmp_path / "t", "tokenizer_config.json", lambda c: c.update(chat_template=thinking)
    )
    assert template(other, hf).verdict == "fail"  # seen only where thinking is asked for


def test_a_template_written_in_another_way_but_meaning_the_same_passes(
    hf: Path, tmp_path: Path
) -> None:
    same = "{# a remark #}" + TEMPLATE
    other = edited(
        hf, tmp_path / "o", "tokenizer_config.json", lambda c: c.update(chat_template=same)
    )
    check = template(other, hf)
    assert check.verdict == "pass"
    assert check.measured["prompts"] == 6


def test_the_long_text_repeats_no_sentence() -> None:
    sentences = long_text(250).split(". ")
    assert len(set(sentences)) >= 250
    assert len(long_text(250)) > 8000


def test_a_folder_whose_tokenizer_composes_agrees_with_llama_cpp_on_composed_text(
    hf: Path, gguf: Path, tmp_path: Path
) -> None:
    """Qwen's does; llama.cpp never normalises."""
    composes = edited(
        hf, tmp_path / "nfc", "tokenizer.json", lambda c: c.update(normalizer={"type": "NFC"})
    )
    assert compare(gguf, composes).verdict == "pass"
    assert compare(composes, hf).verdict == "fail"
