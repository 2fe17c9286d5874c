"""Run as a script: how many bytes llama.cpp's process grows by for one model, as JSON.

    measured_growth.py FILE CONTEXT BATCH KV_TYPE

Loads as the engine worker does (weights read, not mapped; flash attention only for a quantised cache)
and reads one whole prompt batch.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import llama_cpp


def memory(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    match = re.search(rf"{field}:\s+(\d+) kB", status)
    assert match
    return int(match[1]) * 1024


@llama_cpp.llama_log_callback
def quiet(*_: object) -> None:
    pass


def main(file: str, context: str, batch: str, kv_type: str) -> None:
    before = memory("VmRSS")
    llama_cpp.llama_log_set(quiet, None)
    model_params = llama_cpp.llama_model_default_params()
    model_params.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE
    model = llama_cpp.llama_model_load_from_file(file.encode(), model_params)
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = int(context)
    params.n_batch = params.n_ubatch = int(batch)
    params.n_threads = params.n_threads_batch = 2
    params.type_k = params.type_v = {"f16": 1, "q8_0": 8}[kv_type]
    params.flash_attn_type = 0 if kv_type == "f16" else 1
    opened = llama_cpp.llama_init_from_model(model, params)
    tokens = (llama_cpp.llama_token * int(batch))(*([5] * int(batch)))
    assert llama_cpp.llama_decode(opened, llama_cpp.llama_batch_get_one(tokens, int(batch))) == 0
    print(json.dumps({"grown": memory("VmHWM") - before}))


if __name__ == "__main__":
    main(*sys.argv[1:])
