"""How fast transformers runs on a graphics card: `python -m benchmarks.cuda [--shape NAME …] [--json]`.

Any CUDA machine will do: the models have the shapes of real ones and random weights that are made on the card,
so nothing is downloaded. `--device mps` measures an Apple GPU, `--device cpu --shape tiny` only tries the script.

The engine itself writes and reads, in this process, without worker and page. Decoding is measured after
a prompt of 512 tokens, in four ways: `plain` with transformers' growing cache, `fixed` with the cache of
fixed place but every step launched anew, `recorded` with steps replayed as CUDA graphs, and `quoting`, recorded
and with drafts where 64 of every 80 tokens are quotations (answer and guesses are forced, as in
benchmarks/drafting.py); `misled` is the same with every guess wrong, `drawn` draws as the app does by default
instead of greedily: these three as ratios to `recorded`. The limit is the memory's speed, measured by copying, over the
bytes of weights that a token reads. A second turn has 1,500 tokens of known context and 200 new ones.
Memory is the driver's own count, context included, against the plan made from the config alone.
`--inductor` also compiles the recorded step with torch.compile, where Triton is there.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from benchmarks.drafting import AllWrong, Quoting, Record
from chatbot.engines.base import EngineSpec
from chatbot.engines.drafting import Experience
from chatbot.engines.transformers import Transformers
from chatbot.memory.config import described
from chatbot.memory.footprint import transformers_footprint
from chatbot.types import GenerationOptions, GenerationStats, Turn

_LLAMA = {
    "model_type": "llama", "intermediate_size": 8192, "num_key_value_heads": 8, "vocab_size": 128256,
    "max_position_embeddings": 131072, "tie_word_embeddings": True, "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
                        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
}  # fmt: skip
_QWEN = {
    "model_type": "qwen3", "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8,
    "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 40960,
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "Llama-3.2-1B": {**_LLAMA, "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32,
                     "head_dim": 64},
    "Llama-3.2-3B": {**_LLAMA, "hidden_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 24,
                     "head_dim": 128},
    "Qwen3-4B": {**_QWEN, "hidden_size": 2560, "intermediate_size": 9728, "tie_word_embeddings": True},
    "Qwen3-8B": {**_QWEN, "hidden_size": 4096, "intermediate_size": 12288, "tie_word_embeddings": False},
    "tiny": {"model_type": "llama", "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1000,
             "max_position_embeddings": 8192, "tie_word_embeddings": True},
}  # fmt: skip
REAL = [name for name in SHAPES if name != "tiny"]
CONTEXT, BATCH = 8192, 512
GREEDY = GenerationOptions(temperature=0, repeat_penalty=1.0, drafting=False)
DRAWN = GenerationOptions(seed=1, drafting=False)
COLUMNS = (
    "prefill", "plain", "fixed", "recorded", "of_limit", "at_4000", "drawn", "quoting", "misled",
    "second_turn", "memory", "plan",
)  # fmt: skip


class OnDevice(Transformers):
    """The engine, around a model that was never a file."""

    def __init__(self, spec: EngineSpec, model: Any, tokenizer: Any, *, static: bool) -> None:
        self._given = model, tokenizer
        super().__init__(spec, guesses=lambda _prompt: self.guesses, static=static)
        self.guesses: Any = Record()
        self.answer: list[int] = []
        self._start = 0
        self._ends = frozenset()  # random weights end where they like

    def _load(self, _spec: EngineSpec, _dtype: Any) -> None:
        from chatbot.engines.token_bytes import token_bytes

        self._model, self._tokenizer = self._given
        self._bytes = token_bytes(self._tokenizer)

    def unread(self) -> None:
        """As if nothing had been read before."""
        self._reader.forget(0)
        self._read = []

    def take_in(self, tokens: Sequence[int], tried: Sequence[int] = ()) -> Any:
        """The same; with an `answer`, that is what the model would write."""
        logits = super().take_in(tokens, tried)
        at = len(self._read) - self._start
        wanted = self.answer[at : at + len(logits)] if at >= 0 else []
        if wanted:
            # Random weights are so undecided that a longer batch's rounding changes their mind.
            rows = self._torch.arange(len(wanted), device=logits.device)
            with self._torch.inference_mode():
                logits[rows, self._torch.tensor(wanted, device=logits.device)] += 1e4
        return logits

    def write(
        self, turns: list[Turn], count: int, options: GenerationOptions = GREEDY
    ) -> tuple[str, GenerationStats]:
        """What is written, and what it cost."""
        self._start = self.count_tokens(turns)
        deltas = list(self.stream(turns, replace(options, max_tokens=count)))
        stats = deltas[-1].stats
        assert stats is not None
        return "".join(delta.text for delta in deltas), stats


def words(count: int, first: int = 7) -> str:
    """So many tokens of text."""
    return "".join(f" w{(first + 13 * at) % 900}" for at in range(count))


def tokenizer_of(size: int) -> Any:
    """One token a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({f"▁w{at}": at for at in range(size)}, "▁w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    made.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    return made


class Card:
    """The device: its name, its memory's speed, and how much of it is taken."""

    def __init__(self, device: str) -> None:
        import torch

        self.torch: Any = torch
        self.device = device
        self.before = self.taken()  # before anything of ours touches it
        if device == "cuda":
            self.name = torch.cuda.get_device_name()
        else:
            self.name = f"{platform.processor() or platform.machine()} ({device})"
        self.bandwidth = self._copying()

    def taken(self) -> int:
        """Bytes in use on the card, as the driver counts; 0 where it does not tell."""
        if self.device != "cuda":
            return int(self.torch.mps.driver_allocated_memory()) if self.device == "mps" else 0
        import pynvml

        pynvml.nvmlInit()
        card = self.torch.cuda.current_device() if self.torch.cuda.is_initialized() else 0
        return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(card)).used)

    def wait(self) -> None:
        """Until all that was asked for is done."""
        if self.device != "cpu":
            getattr(self.torch, self.device).synchronize()

    def free(self) -> int | None:
        """Bytes that can still be taken; None where nobody tells."""
        return int(self.torch.cuda.mem_get_info()[0]) if self.device == "cuda" else None

    def give_back(self) -> None:
        """Let go of what nobody uses any more."""
        gc.collect()
        if self.device != "cpu":
            getattr(self.torch, self.device).empty_cache()

    def _copying(self) -> float:
        """Bytes read and written a second."""
        size = (512 if self.device != "cpu" else 64) << 20
        source = self.torch.ones(size, dtype=self.torch.uint8, device=self.device)
        target = self.torch.empty_like(source)
        seconds = []
        for _ in range(12):
            self.wait()
            start = time.perf_counter()
            target.copy_(source)
            self.wait()
            seconds.append(time.perf_counter() - start)
        del source, target
        self.give_back()
        return 2 * size / statistics.median(seconds[2:])


def random_model(config: dict[str, Any], dtype: Any, device: str) -> Any:
    """A model of that shape, made on the device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(1)
    settings = AutoConfig.for_model(**config)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(settings, dtype=dtype)
    return model.eval()


def read_a_token(model: Any) -> int:
    """Bytes of weights that one token reads: all, but for a table of which it reads one row."""
    weights = {id(value): value.nbytes for value in model.parameters()}
    if not model.config.tie_word_embeddings:
        del weights[id(model.get_input_embeddings().weight)]
    return sum(weights.values())


def measured(
    name: str, card: Card, precision: str, tokens: int, rounds: int, *, inductor: bool
) -> dict[str, Any]:
    """Everything about one shape; speeds in tokens a second, medians of the rounds."""
    torch = card.torch
    config = {**SHAPES[name], "torch_dtype": precision}
    short = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}[precision]
    on_gpu = card.device != "cpu"
    planned = transformers_footprint(
        described(config, name), CONTEXT, short, BATCH, on_gpu=on_gpu
    ).peak("gpu" if on_gpu else "ram")
    row: dict[str, Any] = {"shape": name, "precision": short, "plan": planned}
    free = card.free()
    if free is not None and planned > free + (card.taken() - card.before):
        return {**row, "skipped": f"needs {planned / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"}
    model = random_model(config, getattr(torch, precision), card.device)
    tokenizer = tokenizer_of(config["vocab_size"])
    spec = EngineSpec("transformers", name=name, context=CONTEXT, batch=BATCH, device=card.device,
                      precision=short)  # fmt: skip
    limit = card.bandwidth / read_a_token(model)
    row |= {"limit": limit, "weights": sum(value.nbytes for value in model.parameters())}

    prompt = [Turn("user", words(512))]

    def speed(
        engine: OnDevice,
        guesses: Callable[[], Any] = Record,
        options: GenerationOptions = GREEDY,
        turns: list[Turn] = prompt,
    ) -> float:
        found = []
        for number in range(rounds + 1):
            engine.guesses = guesses()
            _, stats = engine.write(turns, tokens, options)
            if number:  # the first round warms up: steps are recorded, costs are learnt
                found.append(stats.tokens_per_second)
        return statistics.median(found)

    with _engine(spec, model, tokenizer, static=False) as engine:
        row["plain"] = speed(engine)
    card.give_back()
    start = time.perf_counter()
    with _engine(spec, model, tokenizer, static=True) as engine:
        card.wait()
        row |= {"ready_seconds": time.perf_counter() - start, "steps": engine.info.steps,
                "steps_reason": engine.info.steps_reason}  # fmt: skip
        row["recorded"] = speed(engine)
        row["of_limit"] = row["recorded"] / limit
        row["at_4000"] = speed(engine, turns=[Turn("user", words(4000))])
        row["drawn"] = speed(engine, options=DRAWN) / row["recorded"]
        engine.answer = [7 + at % 500 for at in range(tokens + 16)]
        forced = speed(engine)
        for column, oracle in {"quoting": Quoting, "misled": AllWrong}.items():
            engine._experience = Experience()
            drafted = speed(
                engine, lambda who=oracle: who(engine.answer), replace(GREEDY, drafting=True)
            )
            row[column] = drafted / forced
        engine.answer = []
        row |= _turns(engine, rounds)
        row["memory"] = card.taken() - card.before
        replay = engine._reader._replay
        reason, replay.reason = replay.reason, "not asked for"
        row["fixed"] = speed(engine)
        replay.reason = reason
        if inductor:
            replay.forget()
            engine._reader._forward = torch.compile(engine._reader._forward, dynamic=False)
            row["inductor"] = speed(engine)
    return row


def _turns(engine: OnDevice, rounds: int) -> dict[str, float]:
    """Reading a prompt at once, and the time to the first token of a second turn against reading it all."""
    reading, ratios = [], []
    first = [Turn("user", words(1500))]
    for _ in range(rounds + 1):
        engine.unread()
        text, _ = engine.write(first, 8)
        both = [*first, Turn("assistant", text), Turn("user", words(200, 11))]
        _, reused = engine.write(both, 1)
        engine.unread()
        _, cold = engine.write(both, 1)
        if reused.cached_tokens < 1500 or cold.cached_tokens:
            raise SystemExit(f"{reused.cached_tokens} and {cold.cached_tokens} tokens were reused")
        reading.append(cold.prompt_tokens / cold.seconds_to_first_token)
        ratios.append(reused.seconds_to_first_token / cold.seconds_to_first_token)
    return {
        "prefill": statistics.median(reading[1:]),
        "second_turn": statistics.median(ratios[1:]),
    }


@contextlib.contextmanager
def _engine(spec: EngineSpec, model: Any, tokenizer: Any, *, static: bool) -> Iterator[OnDevice]:
    engine = OnDevice(spec, model, tokenizer, static=static)
    try:
        yield engine
    finally:
        engine.close()


def shown(row: dict[str, Any]) -> str:
    """One row of the table in docs/benchmarks.md."""
    if "skipped" in row:
        return f"| {row['shape']} {row['precision']} | {row['skipped']} |"
    forms = {
        "of_limit": "{:.0%}", "drawn": "× {:.2f}", "quoting": "× {:.2f}", "misled": "× {:.2f}", "second_turn": "{:.2f}",
    }  # fmt: skip
    cells = [
        f"{row[name] / 1e9:.2f} GB" if name in ("memory", "plan")
        else forms.get(name, "{:.1f}").format(row[name])
        for name in COLUMNS
    ]  # fmt: skip
    if row["steps"] != "recorded":
        cells[COLUMNS.index("recorded")] += " (launched)"
    return " | ".join(["", f"{row['shape']} {row['precision']}", *cells, ""]).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", action="append", choices=SHAPES)
    parser.add_argument("--device", choices=("cuda", "mps", "cpu"), default="cuda")
    parser.add_argument("--precision", choices=("bfloat16", "float16", "float32"))
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--inductor", action="store_true")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    card = Card(asked.device)
    default = {"cuda": "bfloat16", "mps": "float16", "cpu": "float32"}[asked.device]
    rows = []
    for name in asked.shape or REAL:
        row = measured(
            name, card, asked.precision or default, asked.tokens, asked.rounds, inductor=asked.inductor
        )  # fmt: skip
        card.give_back()
        rows.append(row)
        if not asked.json:
            print(json.dumps(row), flush=True)
    about = {
        "card": card.name,
        "date": datetime.now(UTC).date().isoformat(),
        "torch": card.torch.__version__,
        "cuda": card.torch.version.cuda,
        "bandwidth": card.bandwidth,
    }
    if asked.json:
        print(json.dumps({**about, "rows": rows}))
        return
    print(json.dumps(about))
    print("\n| model | " + " | ".join(COLUMNS) + " |\n|" + "---|" * (len(COLUMNS) + 1))
    for row in rows:
        print(shown(row))


if __name__ == "__main__":
    main()
