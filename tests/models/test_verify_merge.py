"""A merged model is base + scale·B·A, once, and nothing else; every other outcome is caught."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chatbot.models.verify import step
from chatbot.models.verify.check import check as passing
from tests.models.verifying import change, check, copy, failed, found, load, wide_hf

TARGETS = ("q_proj", "v_proj", "down_proj")


@pytest.fixture(autouse=True)
def _weights_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (step.tokens, step.templates):
        monkeypatch.setattr(module, "compare", lambda *_, **__: passing("other"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ghép adapter")


@pytest.fixture(scope="module", params=["float32", "float16", "bfloat16"])
def base(request: pytest.FixtureRequest, home: Path) -> Path:
    return wide_hf(home / f"base {request.param}", dtype=request.param)


def adapter_for(base: Path, target: Path, **settings: Any) -> Path:
    """A LoRA adapter with random halves, saved by PEFT itself."""
    import peft
    import torch
    import transformers

    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=list(TARGETS), **settings)
    adapted = peft.get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name and "magnitude" not in name:
            torch.nn.init.normal_(parameter, std=0.05)
        elif "modules_to_save" in name:
            parameter.data += 0.01
    adapted.save_pretrained(target)
    return target


def merged_by_peft(base: Path, adapter: Path, target: Path, scale: float = 1.0) -> Path:
    """PEFT's own merge in float32, then rounded to the base's type."""
    import peft
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    adapted = peft.PeftModel.from_pretrained(model, adapter)
    for module in adapted.modules():
        if isinstance(getattr(module, "scaling", None), dict):
            module.scaling = {name: value * scale for name, value in module.scaling.items()}
    whole = adapted.merge_and_unload().state_dict()
    copy(base, target)
    dtype = next(iter(load(base).values())).dtype

    def edit(weights: dict[str, Any]) -> None:
        weights |= {name: whole[name].to(dtype) for name in weights}

    return change(target, edit)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
        {"rank_pattern": {"q_proj": 4}, "alpha_pattern": {"down_proj": 32}},
    ],
    ids=["LoRA", "rsLoRA", "DoRA", "whole output layer", "patterns"],
)
def test_a_sound_merge_of_every_kind_passes(
    base: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    adapter = adapter_for(base, tmp_path / "adapter", **settings)
    made = merged_by_peft(base, adapter, tmp_path / "merged")
    verdict = check(made, base, adapter=adapter, step="merge")
    assert verdict["verdict"] == "pass", verdict
    measured = found(verdict, "adapter")["measured"]
    assert measured["targets"] == measured["changed"] == 6
    assert measured["times"] == pytest.approx(1.0, abs=1e-2)
    assert check(made, base)["verdict"] == "fail"  # without the adapter nothing explains the change


def test_an_adapter_kept_as_a_pickle_is_held_against_the_merge(base: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    adapter = adapter_for(base, tmp_path / "adapter")
    made = merged_by_peft(base, adapter, tmp_path / "merged")
    plain = adapter / "adapter_model.safetensors"
    torch.save(load_file(plain), adapter / "adapter_model.bin")
    plain.unlink()
    verdict = check(made, base, adapter=adapter, step="merge", run=False)
    assert verdict["verdict"] == "pass", failed(verdict)
    assert found(verdict, "adapter")["measured"]["changed"] == 6
    assert "adapter" in failed(check(base, base, adapter=adapter, step="merge", run=False))


def test_a_merge_without_its_adapter_is_looked_at_alone_and_says_so(base: Path) -> None:
    verdict = check(base, step="merge")
    adapter = found(verdict, "adapter")
    assert adapter["verdict"] == "skipped"
    assert "no longer here" in adapter["detail"]
    assert verdict["step"] == "merge"


@pytest.fixture(scope="module")
def plain(home: Path) -> tuple[Path, Path]:
    base = wide_hf(home / "plain", dtype="bfloat16")
    return base, adapter_for(base, home / "adapter")


@pytest.mark.parametrize(
    ("scale", "times"), [(2.0, 2.0), (0.0, 0.0), (0.5, 0.5), (-1.0, -1.0), (1.05, 1.05)]
)
def test_an_adapter_applied_another_number_of_times_is_caught(
    plain: tuple[Path, Path], tmp_path: Path, scale: float, times: float
) -> None:
    base, adapter = plain
    made = merged_by_peft(base, adapter, tmp_path / "merged", scale)
    verdict = check(made, base, adapter=adapter)
    assert {"weights", "adapter"} <= failed(verdict)
    assert found(verdict, "adapter")["measured"]["times"] == pytest.approx(times, abs=0.02)


def test_one_layer_left_out_is_caught(plain: tuple[Path, Path], tmp_path: Path) -> None:
    base, adapter = plain
    name = "model.layers.1.self_attn.v_proj.weight"
    made = merged_by_peft(base, adapter, tmp_path / "merged")
    change(made, lambda weights: weights.update({name: load(base)[name]}))
    verdict = check(made, base, adapter=adapter)
    assert {"weights", "adapter"} <= failed(verdict)
    assert found(verdict, "weights")["measured"]["worst"][0]["name"] == name
    assert found(verdict, "adapter")["values"] == {"count": 1, "name": name}


def test_a_weight_that_the_adapter_does_not_target_may_not_change(
    plain: tuple[Path, Path], tmp_path: Path
) -> None:
    import torch

    base, adapter = plain
    made = merged_by_peft(base, adapter, tmp_path / "merged")

    def edit(weights: dict[str, Any]) -> None:
        weights["model.layers.0.mlp.up_proj.weight"].view(torch.int16)[1, 1] ^= 1

    change(made, edit)
    verdict = check(made, base, adapter=adapter)
    assert failed(verdict) == {"weights"}
    assert found(verdict, "weights")["measured"]["wrong"] == 1


def test_another_adapter_is_caught(plain: tuple[Path, Path], tmp_path: Path) -> None:
    base, adapter = plain
    made = merged_by_peft(base, adapter, tmp_path / "merged")
    other = copy(adapter, tmp_path / "other")
    config = json.loads((other / "adapter_config.json").read_text("utf-8"))
    (other / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 24}), "utf-8")
    assert "weights" in failed(check(made, base, adapter=other))


def test_an_adapter_of_zeros_changes_nothing_and_that_is_said(
    plain: tuple[Path, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    base, adapter = plain
    empty = copy(adapter, tmp_path / "empty")
    file = empty / "adapter_model.safetensors"
    weights = load_file(file)
    save_file({n: w * (0 if "lora_B" in n else 1) for n, w in weights.items()}, file)
    verdict = check(copy(base, tmp_path / "copy"), base, adapter=empty)
    assert failed(verdict) == {"adapter"}


def test_logits_of_the_merged_model_are_those_of_base_and_adapter(
    plain: tuple[Path, Path], tmp_path: Path
) -> None:
    base, adapter = plain
    made = merged_by_peft(base, adapter, tmp_path / "merged")
    verdict = check(made, base, adapter=adapter, run=True)
    assert verdict["verdict"] == "pass", verdict
    outputs = found(verdict, "outputs")
    assert outputs["measured"]["relative"] < outputs["limit"]["relative"] / 2
    assert found(verdict, "repeat")["measured"]["variance"] == 0.0
