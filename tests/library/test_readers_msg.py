"""Outlook's mails: the same text as of any other mail, and no compound file can do more than be refused."""

from __future__ import annotations

import os
import random
import struct
import unicodedata
from email import message_from_string
from pathlib import Path

import pytest

from chatbot.errors import DocumentError, UnreadableDocument, UnsupportedDocument
from chatbot.library.readers import lzfu
from chatbot.library.readers.kinds import DAMAGED
from chatbot.library.readers.mail import MAX_ATTACHMENTS, MAX_DEPTH, SOME_ATTACHMENTS_LEFT_OUT

SHARED = Path(
    os.environ.get("HEARTH_SHARED_DATA", Path(__file__).resolve().parents[2] / "../shared/data")
)
REAL = sorted((SHARED / "ingest").glob("*/*.msg"))

HEAD = "Họp lớp\nFrom: Cô Hà <ha@example.vn>\nTo: Lớp 12A <lop@example.vn>\nCc: hieu.truong@example.vn\n"
DATE = "Date: Mon, 04 Mar 2024 01:00:00 +0000\n"
SENT = 133539876000000000
# The two examples of MS-OXRTFCP.
HELLO = bytes.fromhex(
    "2d0000002b0000004c5a4675f1c5c7a703000a007263706731323542320af32068656c090020627705b06c647d0a800fa0"
)
CROSSING = bytes.fromhex("1a0000001c0000004c5a4675e2d44b51410004205758595a0d6e7d010eb0")


@pytest.fixture
def read(reader, tmp_path):
    def read(content: bytes | dict, name: str = "thư.msg"):
        path = tmp_path / "nội dung"
        path.write_bytes(compound(content) if isinstance(content, dict) else content)
        return reader.read(path, name)

    return read


def text_of(reading) -> str:
    return "".join(p.text for p in reading.document.pages)


def test_a_mail_is_its_heads_and_its_text(read):
    reading = read(mail(body("Chào các em.\r\n\r\nMai họp.")))
    assert text_of(reading) == HEAD + DATE + "\nChào các em.\n\nMai họp.\n"
    assert reading.document.title == "Họp lớp"
    assert reading.document.media_type == "application/vnd.ms-outlook"
    assert reading.document.warning is None


def test_the_date_is_the_senders_where_it_was_kept(read):
    kept = wide("007D", "Received: by x\r\nDate: Mon, 04 Mar 2024 08:00:00 +0700\r\n")
    assert "\nDate: Mon, 04 Mar 2024 08:00:00 +0700\n" in text_of(read(mail(body("x") | kept)))


@pytest.mark.parametrize(
    ("page", "words"), [(1258, "Họp lớp chiều thứ bảy, đến sớm"), (1251, "Собрание"), (932, "会議")]
)
def test_texts_in_eight_bits_are_in_the_code_page_they_name(read, page, words):
    raw = in_1258(words) if page == 1258 else words.encode(f"cp{page}")
    parts = {"__substg1.0_0037001E": raw, "__substg1.0_1000001E": raw}
    # What the internet would have got is UTF-8; it says nothing of the texts in here.
    parts["__properties_version1.0"] = table(32, {"3FFD": page, "3FDE": 65001})
    assert text_of(read(parts)) == f"{words}\n\n{words}\n"


def test_a_mail_in_html_only_is_read_too(read):
    page = "<p>Chào <b>các em</b>.</p>".encode()
    assert text_of(read(mail({"__substg1.0_10130102": page}))) == HEAD + DATE + "\nChào các em.\n"


@pytest.mark.parametrize(
    ("packed", "said"),
    [
        (HELLO, "hello world"),
        (CROSSING, "WXYZWXYZWXYZWXYZWXYZ"),
        (struct.pack("<II4sI", 40, 24, b"MELA", 0) + b"{\\rtf1 Mai h\\u7885?p.}\r\n", "Mai họp."),
    ],
    ids=["LZFu", "overlapping", "not packed"],
)
def test_a_mail_in_rtf_only_is_read_too(read, packed, said):
    assert text_of(read(mail({"__substg1.0_10090102": packed}))) == f"{HEAD}{DATE}\n{said}\n"


def test_attachments_are_read_by_their_own_kinds_under_their_names(read, make_pdf, make_docx):
    heading = '<w:p><w:pPr><w:outlineLvl w:val="0"/></w:pPr><w:r><w:t>Phần một</w:t></w:r></w:p>'
    contract = make_pdf([[(60, 700, "The contract ends in May.")]]).read_bytes()
    reading = read(
        mail(
            body("Mai họp."),
            attachment("hợp đồng.pdf", contract),
            attachment("../../biên bản.docx", make_docx(heading).read_bytes()),
            attached(mail(body("lời của thư trong"))),
        )
    )
    assert text_of(reading) == (
        f"{HEAD}{DATE}\nMai họp.\n\nhợp đồng.pdf\nThe contract ends in May.\n\nbiên bản.docx\nPhần một\n\n"
        f"{HEAD}{DATE}\nlời của thư trong\n"
    )
    assert "Họp lớp › biên bản.docx › Phần một" in [p.path for p in reading.passages]
    assert reading.document.warning is None


def test_an_attachment_that_cannot_be_read_is_said(read):
    reading = read(mail(body("Mai họp."), attachment("virus.exe", b"MZ" + bytes(range(256)))))
    assert text_of(reading).endswith("Mai họp.\n\nvirus.exe\n")
    assert reading.document.warning == SOME_ATTACHMENTS_LEFT_OUT


def test_only_so_many_attachments_are_read(read):
    many = [attachment(f"{n}.txt", f"nội dung {n}".encode()) for n in range(MAX_ATTACHMENTS + 5)]
    reading = read(mail(body("x"), *many))
    assert text_of(reading).count("nội dung") == MAX_ATTACHMENTS
    assert reading.document.warning == SOME_ATTACHMENTS_LEFT_OUT


def test_attached_mails_are_read_to_a_limited_depth(read):
    inner = mail(body("tầng 0"))
    for level in range(1, MAX_DEPTH + 4):
        inner = mail(body(f"tầng {level}"), attached(inner))
    reading = read(inner)
    found = [n for n in range(MAX_DEPTH + 4) if f"tầng {n}\n" in text_of(reading)]
    assert found == list(range(3, MAX_DEPTH + 4))
    assert reading.document.warning == SOME_ATTACHMENTS_LEFT_OUT


def test_other_compound_files_are_refused_by_name(read):
    word = {"WordDocument": b"\xec\xa5" + bytes(600), "1Table": bytes(100)}
    for content in (word, word | {"ObjectPool": {"_1": mail(body("thư trong tệp Word"))}}):
        with pytest.raises(UnsupportedDocument) as refused:
            read(content, "cũ.doc")
        assert "“cũ.doc”" in refused.value.text("vi")
        assert "DOCX" in refused.value.text("vi")


def test_a_mail_with_a_locked_attachment_is_not_locked_itself(read):
    locked = compound({"EncryptedPackage": bytes(600), "EncryptionInfo": bytes(100)})
    reading = read(mail(body("Mai họp."), attachment("khóa.docx", locked)))
    assert "Mai họp.\n" in text_of(reading)
    assert reading.document.warning == SOME_ATTACHMENTS_LEFT_OUT


def whole() -> bytes:
    return compound(mail(body("Mai họp. " * 600), attachment("ghi chú.txt", b"ghi " * 3000)))


def directory(content: bytes) -> int:
    """Where the directory starts."""
    return 512 * (1 + struct.unpack_from("<L", content, 48)[0])


def cut_off(content: bytearray) -> None:
    del content[-2000:]


def loop_of_names(content: bytearray) -> None:
    at = directory(content)
    for entry in range(1, 8):
        struct.pack_into("<LL", content, at + 128 * entry + 68, entry, 1)


def huge_streams(content: bytearray) -> None:
    at = directory(content)
    for entry in range(1, 12):
        struct.pack_into("<L", content, at + 128 * entry + 120, 0xFFFFFFF0)


def huge_sectors(content: bytearray) -> None:
    struct.pack_into("<H", content, 30, 0xFFFF)


def endless_table(content: bytearray) -> None:
    struct.pack_into("<L", content, 44, 109 + 127 * 1_000_000)
    struct.pack_into("<LL", content, 68, 0, 1_000_000)


@pytest.mark.parametrize(
    "damage", [cut_off, loop_of_names, huge_streams, huge_sectors, endless_table]
)
def test_hostile_mails_are_refused_by_name(read, damage):
    content = bytearray(whole())
    damage(content)
    with pytest.raises(UnreadableDocument) as refused:
        read(bytes(content))
    assert refused.value.text("vi").strip()


def test_sectors_that_lead_to_themselves_end_where_the_text_should(read):
    content = bytearray(whole())
    places = 512 * (1 + struct.unpack_from("<L", content, 76)[0])
    for sector in range(15):  # those of the body are among them
        struct.pack_into("<L", content, places + 4 * sector, sector)
    assert 0 < len(text_of(read(bytes(content)))) < len(content)


@pytest.mark.parametrize(
    "packed", [b"", HELLO[:30], HELLO[:8] + b"nope" + HELLO[12:], b"\xff" * 8 + HELLO[8:]]
)
def test_broken_rtf_is_refused_by_name(read, packed):
    with pytest.raises(ValueError):
        lzfu.unpack(packed)
    with pytest.raises(UnreadableDocument) as refused:
        read(mail({"__substg1.0_10090102": packed or b"x"}))
    assert refused.value.values["detail"] == DAMAGED


@pytest.mark.faults
def test_whatever_bytes_are_broken_there_is_text_or_a_named_error(read):
    chance = random.Random(1)
    for original in (whole(), *(path.read_bytes() for path in REAL)):
        for _ in range(40):
            content = bytearray(original)
            for _ in range(chance.choice((1, 4, 30))):
                content[chance.randrange(8, len(content))] = chance.randrange(256)
            try:
                reading = read(bytes(content))
            except DocumentError as error:
                said = error.text("vi")
            else:
                said = text_of(reading) + (reading.document.warning or "")
            assert said.strip()


@pytest.mark.skipif(not REAL, reason="no real mails in ../shared/data/ingest")
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_real_mails_say_who_wrote_to_whom_and_when(reader, path):
    head, _, rest = text_of(reader.read(path, path.name)).partition("\n\n")
    message = message_from_string(head[head.index("From: ") :])
    assert "@" in message["From"]
    assert message["To"]
    assert " 202" in message["Date"]
    assert rest.strip()


def mail(more: dict, *attachments: dict) -> dict:
    """The tree of a mail from Cô Hà to her class."""
    people = (
        (1, "Lớp 12A", "lop@example.vn"),
        (2, "", "hieu.truong@example.vn"),
        (3, "Mật", "bcc@x.vn"),
    )
    tree = wide("0037", "Họp lớp") | wide("0C1A", "Cô Hà") | wide("0C1F", "ha@example.vn") | more
    tree["__properties_version1.0"] = table(32, {"0039": SENT})
    for number, (kind, name, address) in enumerate(people):
        tree[f"__recip_version1.0_#{number:08X}"] = {
            "__properties_version1.0": table(8, {"0C15": kind}),
            **wide("3001", name),
            **wide("3003", address),
        }
    for number, parts in enumerate(attachments):
        tree[f"__attach_version1.0_#{number:08X}"] = parts
    return tree


def body(text: str) -> dict:
    return wide("1000", text)


def attachment(name: str, content: bytes) -> dict:
    properties = {"__properties_version1.0": table(8, {"3705": 1})}
    return properties | wide("3707", name) | {"__substg1.0_37010102": content}


def attached(tree: dict) -> dict:
    inner = tree | {"__properties_version1.0": table(24, {"0039": SENT})}
    return {"__properties_version1.0": table(8, {"3705": 5}), "__substg1.0_3701000D": inner}


def wide(tag: str, text: str) -> dict:
    return {f"__substg1.0_{tag}001F": text.encode("utf-16-le")}


def table(header: int, values: dict[str, int]) -> bytes:
    rows = (struct.pack("<HHLQ", 3, int(tag, 16), 6, value) for tag, value in values.items())
    return bytes(header) + b"".join(rows)


def in_1258(text: str) -> bytes:
    """The tones behind their vowels, as windows-1258 has them."""
    raw = b""
    for letter in unicodedata.normalize("NFC", text):
        *base, last = unicodedata.normalize("NFD", letter)
        if base and last in "\u0300\u0301\u0303\u0309\u0323":
            raw += unicodedata.normalize("NFC", "".join(base)).encode("cp1258") + last.encode(
                "cp1258"
            )
        else:
            raw += letter.encode("cp1258")
    return raw


def compound(tree: dict) -> bytes:
    """A compound file (MS-CFB): `tree` names streams (bytes) and storages (trees)."""
    none, end = 0xFFFFFFFF, 0xFFFFFFFE
    names, links = (
        ["Root Entry"],
        [[5, none, none, end, 0]],
    )  # kind, next, first inside, start, size
    sectors, fat, small, small_fat = bytearray(), [], bytearray(), []

    def put(content: bytes, size: int, room: bytearray, chain: list[int]) -> int:
        start, count = len(chain), -(-len(content) // size)
        chain.extend([*range(start + 1, start + count), end])
        room.extend(content.ljust(count * size, b"\0"))
        return start

    def add(folder: int, items: dict) -> None:
        before, place = folder, 2
        for name, content in items.items():
            links[before][place] = len(links)
            before, place = len(links), 1
            names.append(name)
            links.append([1 if isinstance(content, dict) else 2, none, none, end, 0])
            if isinstance(content, dict):
                add(before, content)
            elif content:
                where = (512, sectors, fat) if len(content) >= 4096 else (64, small, small_fat)
                links[before][3:] = put(content, *where), len(content)

    add(0, tree)
    if small:
        links[0][3:] = put(bytes(small), 512, sectors, fat), len(small)
    listed = struct.pack(f"<{len(small_fat)}L", *small_fat)
    small_start = put(listed, 512, sectors, fat) if small else end
    entries = b"".join(
        struct.pack(
            "<64sHBBLLL16sLQQLQ",
            *(name.encode("utf-16-le"), 2 * len(name) + 2, kind, 1, none, following, inside),
            *(b"", 0, 0, 0, start, size),
        )
        for name, (kind, following, inside, start, size) in zip(names, links, strict=True)
    )
    first = put(entries, 512, sectors, fat)
    tables = next(n for n in range(1, 109) if 128 * n >= len(fat) + n)
    places = range(len(fat), len(fat) + tables)
    fat += [0xFFFFFFFD] * tables + [none] * (128 * tables - len(fat) - tables)
    header = struct.pack(
        "<8s16s6H10L",
        *(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"", 0x3E, 3, 0xFFFE, 9, 6, 0, 0, 0),
        *(tables, first, 0, 4096, small_start, -(-len(listed) // 512), end, 0),
    )
    header += struct.pack("<109L", *places, *[none] * (109 - tables))
    return header + bytes(sectors) + struct.pack(f"<{len(fat)}L", *fat)
