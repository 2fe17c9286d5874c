"""The hub that the tests make themselves is believed because the hub's own client works against it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.models.hub_server import HubServer, serving

FILES: dict[str, bytes | Path] = {
    "config.json": b'{"model_type": "llama"}\n',
    "tokenizer.json": b"{}" * 500,
    "model.safetensors": bytes(range(256)) * 4000,
    "README.md": "# Mô hình\n".encode(),
}
CLIENT = """
import sys, json
from pathlib import Path
import huggingface_hub
from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

url, token, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
api = HfApi(endpoint=url, token=token)
said = {}
info = api.model_info("student/tiny", files_metadata=True)
said["commit"] = info.sha
said["sha256"] = next(f.lfs.sha256 for f in info.siblings if f.lfs)
said["found"] = [m.id for m in api.list_models(search="tiny", limit=5)]
one = hf_hub_download("student/tiny", "model.safetensors", cache_dir=folder / "a", endpoint=url)
said["one"] = Path(one).read_bytes() == Path(sys.argv[4]).read_bytes()
home = snapshot_download("student/tiny", cache_dir=folder / "b", endpoint=url)
said["all"] = sorted(p.name for p in Path(home).iterdir())
for name, error in (("student/gated", GatedRepoError), ("student/nothing", RepositoryNotFoundError)):
    try:
        hf_hub_download(name, "config.json", cache_dir=folder / "c", endpoint=url, token=False)
    except error:
        said[name] = error.__name__
said["gated with token"] = Path(
    hf_hub_download("student/gated", "config.json", cache_dir=folder / "d", endpoint=url, token=token)
).read_text()
api.create_repo("student/new", private=True)
api.upload_file(path_or_fileobj=sys.argv[4], path_in_repo="model.safetensors", repo_id="student/new")
api.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id="student/new")
said["uploaded"] = sorted(api.list_repo_files("student/new"))
print(json.dumps(said))
"""


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with serving() as server:
        server.add("student/tiny", FILES)
        server.add("student/gated", FILES, gated="manual")
        yield server


def test_the_hubs_own_client_works_against_it(hub, tmp_path):
    import json

    weights = tmp_path / "weights"
    weights.write_bytes(FILES["model.safetensors"])
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, hub.url, hub.token, str(tmp_path), str(weights)],
        env={"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1",
             "PATH": "/usr/bin", "HF_HUB_DISABLE_TELEMETRY": "1"},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["commit"] == hub.repos["student/tiny"].head
    assert said["sha256"] == hub.hashes(FILES["model.safetensors"])[0]
    assert said["found"] == ["student/tiny"]
    assert said["one"]
    assert said["all"] == sorted(FILES)
    assert said["student/gated"] == "GatedRepoError"
    assert said["student/nothing"] == "RepositoryNotFoundError"
    assert "llama" in said["gated with token"]
    assert said["uploaded"] == [".gitattributes", "config.json", "model.safetensors"]
    assert hub.repos["student/new"].private
    assert hub.repos["student/new"].commits[-1][1]["model.safetensors"] == weights.read_bytes()
