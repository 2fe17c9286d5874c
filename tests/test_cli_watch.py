"""Linked folders on the command line: with a running Hearth and without."""

from __future__ import annotations

import time
from pathlib import Path

import httpx

from tests.browser.conftest import RunningApp, running
from tests.test_cli import LAW, data, error_of, hearth, result_of

__all__ = ["data"]


def ready_rows(data: Path) -> list[str]:
    rows = result_of(data, "documents", "list", "--collection", "quy chế")["documents"]
    return sorted(row["document"] for row in rows if row["state"] == "ready")


def test_a_folder_is_linked_followed_reviewed_and_let_go(data: Path, tmp_path: Path):
    folder = tmp_path / "Quy chế (bản mới)"
    folder.mkdir()
    (folder / "thư viện.txt").write_text(LAW, encoding="utf-8")
    (folder / "trống.txt").write_bytes(b"")
    linked = result_of(data, "documents", "watch", folder, "--collection", "quy chế")
    assert sorted(linked["added"]) == [str(folder / "thư viện.txt"), str(folder / "trống.txt")]
    assert {(row["document"], row["state"]) for row in linked["documents"]} == {
        ("thư viện.txt", "ready"),
        ("trống.txt", "failed"),
    }
    (row,) = linked["folders"]
    assert (row["path"], row["collection"], row["files"]) == (str(folder), "quy chế", 2)

    (folder / "thư viện.txt").rename(folder / "giờ mở cửa.txt")
    (folder / "trống.txt").unlink()
    (folder / "học phí.txt").write_text("Điều 2. Học phí nộp trước ngày 15.\n", encoding="utf-8")
    synced = result_of(data, "documents", "sync")
    assert synced["added"] == [str(folder / "học phí.txt")]
    assert synced["renamed"] == [
        {"from": str(folder / "thư viện.txt"), "to": str(folder / "giờ mở cửa.txt")}
    ]
    assert (synced["changed"], synced["missing"]) == ([], [])

    (folder / "giờ mở cửa.txt").unlink()
    assert result_of(data, "documents", "sync")["missing"] == [str(folder / "giờ mở cửa.txt")]
    assert ready_rows(data) == ["giờ mở cửa.txt", "học phí.txt"]
    removed = result_of(data, "documents", "sync", "--remove-missing")
    assert (removed["removed"], removed["missing"]) == ([str(folder / "giờ mở cửa.txt")], [])
    assert ready_rows(data) == ["học phí.txt"]

    away = folder.rename(tmp_path / "ổ đĩa đã rút")
    assert result_of(data, "documents", "sync")["unreachable"] == [str(folder)]
    away.rename(folder)
    assert result_of(data, "documents", "unwatch", folder) == {
        "unlinked": str(folder),
        "removed": [],
    }
    assert result_of(data, "documents", "sync")["folders"] == []
    assert ready_rows(data) == ["học phí.txt"]


def test_what_cannot_be_linked_is_told(data: Path, tmp_path: Path):
    assert error_of(data, "documents", "watch", tmp_path / "không có")["code"] == "folder"
    assert error_of(data, "documents", "unwatch", tmp_path)["code"] == "not_found"
    assert hearth(data, "documents", "watch").returncode == 2


def ready(app: RunningApp) -> set[str]:
    reply = httpx.post(
        f"{app.address}/api/command",
        json={"name": "documents list", "params": {"collection": "sống"}},
        headers={"Authorization": f"Bearer {app.token}"},
        timeout=30,
        trust_env=False,
    )
    rows = reply.json()["result"]["documents"]
    return {row["document"] for row in rows if row["state"] == "ready"}


def test_a_running_hearth_follows_a_folder_that_was_linked_beside_it(data: Path, tmp_path: Path):
    folder = tmp_path / "sống"
    folder.mkdir()
    (folder / "một.txt").write_text("Điều 1. Phòng đọc mở lúc chín giờ.\n", encoding="utf-8")
    with running(data) as app:
        linked = result_of(data, "documents", "watch", folder, "--collection", "sống")
        assert [row["document"] for row in linked["documents"]] == ["một.txt"]
        (folder / "hai.txt").write_text("Điều 2. Phòng máy mở lúc mười giờ.\n", encoding="utf-8")
        (folder / "một.txt").rename(folder / "ba.txt")
        deadline = time.monotonic() + 60
        while ready(app) != {"hai.txt", "ba.txt"} and time.monotonic() < deadline:
            time.sleep(0.2)
        assert ready(app) == {"hai.txt", "ba.txt"}
        assert result_of(data, "documents", "sync")["unreachable"] == []
        result_of(data, "documents", "unwatch", folder, "--remove")
        assert ready(app) == set()
