"""Documents put straight into SQLite, as ingest would commit them."""

import time

from chatbot.database import Database

LAWS = {
    "cu-tru": "Công dân thay đổi chỗ ở thì đăng ký tạm trú với công an cấp xã trong ba mươi ngày.",
    "lao-dong": "Người lao động đơn phương chấm dứt hợp đồng phải báo trước bốn mươi lăm ngày.",
    "hoc-vu": "Sinh viên bị cảnh báo học vụ khi điểm trung bình học kỳ dưới một phẩy không.",
    "hon-nhan": "Nam từ đủ hai mươi tuổi, nữ từ đủ mười tám tuổi được kết hôn theo pháp luật.",
    "handbook": "Employees receive fifteen days of paid leave each year after the trial period.",
}


def put(database: Database, texts: dict[str, str], *, collection="documents", conversation=None):
    """One document a text, its paragraphs as passages; returns the documents' ids."""
    with database.transaction() as connection:
        connection.execute("INSERT OR IGNORE INTO collections VALUES (?, 0)", (collection,))
        for name, text in texts.items():
            parts = text.split("\n\n")
            connection.execute(
                "INSERT INTO documents (id, collection, name, sha256, media_type, size, state,"
                " passages, added_at, conversation) VALUES (?, ?, ?, ?, 'text/plain', ?, 'ready', ?, ?, ?)",
                (
                    name,
                    collection,
                    f"{name}.txt",
                    name,
                    len(text),
                    len(parts),
                    time.time(),
                    conversation,
                ),
            )
            start = 0
            for ordinal, part in enumerate(parts):
                path, _, body = part.rpartition("|")
                connection.execute(
                    "INSERT INTO passages VALUES (?, ?, ?, ?, ?, ?, NULL, ?)",
                    (f"{name}:{ordinal}", name, ordinal, body, start, start + len(body), path),
                )
                start += len(body) + 2
    return list(texts)


def many(count: int) -> dict[str, str]:
    """Distinct texts that share words."""
    return {
        f"quy-dinh-{n:03}": f"Quy định số {n} về hồ sơ loại {n % 7}: nộp tại phòng {n % 11} trước ngày {n}."
        for n in range(count)
    }


def found(candidates) -> set[str]:
    return {hit.passage_id for hit in candidates.hits}


def ranking(candidates, side="lexical", count=10) -> list[str]:
    """Passage ids of one side, best first."""
    hits = [hit for hit in candidates.hits if getattr(hit, f"{side}_rank")]
    return [h.passage_id for h in sorted(hits, key=lambda h: getattr(h, f"{side}_rank"))][:count]
