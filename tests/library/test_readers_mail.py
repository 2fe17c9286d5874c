"""Mails with what hangs on them: every attachment is read by its own kind, none can go too deep."""

from __future__ import annotations

from email.message import EmailMessage

import pytest

from chatbot.library.readers.mail import MAX_ATTACHMENTS, MAX_DEPTH, SOME_ATTACHMENTS_LEFT_OUT


@pytest.fixture
def read(reader, tmp_path):
    def read(content: bytes, name: str = "thư.eml"):
        path = tmp_path / "nội dung"
        path.write_bytes(content)
        return reader.read(path, name)

    return read


def mail(subject: str = "Họp lớp", text: str | None = "Chào các em.\n\nMai họp.") -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Cô Hà <ha@example.vn>"
    message["To"] = "lop@example.vn"
    message["Subject"] = subject
    message["Date"] = "Mon, 04 Mar 2024 08:00:00 +0700"
    message["Message-ID"] = "<1@example.vn>"
    if text is not None:
        message.set_content(text)
    return message


def text_of(reading) -> str:
    return "".join(p.text for p in reading.document.pages)


HEAD = "Họp lớp\nFrom: Cô Hà <ha@example.vn>\nTo: lop@example.vn\nDate: Mon, 04 Mar 2024 08:00:00 +0700\n\n"


def test_a_mail_is_its_heads_and_its_text_once(read):
    message = mail()
    message.add_alternative("<p>Chào các em.</p><p>Mai họp.</p>", subtype="html")
    reading = read(message.as_bytes())
    assert text_of(reading) == HEAD + "Chào các em.\n\nMai họp.\n"
    assert reading.document.title == "Họp lớp"
    assert reading.document.media_type == "message/rfc822"


def test_a_mail_in_html_only_is_read_too(read):
    message = mail(text=None)
    message.set_content("<p>Chào <b>các em</b>.</p>", subtype="html", charset="utf-8")
    assert text_of(read(message.as_bytes())) == HEAD + "Chào các em.\n"


def test_attachments_follow_under_their_names(read, make_pdf, make_docx):
    message = mail()
    attach(
        message, make_pdf([[(60, 700, "The contract ends in May.")]]).read_bytes(), "hợp đồng.pdf"
    )
    heading = '<w:p><w:pPr><w:outlineLvl w:val="0"/></w:pPr><w:r><w:t>Phần một</w:t></w:r></w:p>'
    attach(message, make_docx(heading).read_bytes(), "../../biên bản.docx")
    reading = read(message.as_bytes())
    assert text_of(reading).endswith(
        "Mai họp.\n\nhợp đồng.pdf\nThe contract ends in May.\n\nbiên bản.docx\nPhần một\n"
    )
    assert [p.path for p in reading.passages][-1] == "Họp lớp › biên bản.docx › Phần một"
    assert reading.document.warning is None


def test_an_attachment_that_cannot_be_read_is_said(read):
    message = mail()
    attach(message, b"MZ" + bytes(range(256)), "virus.exe")
    reading = read(message.as_bytes())
    assert text_of(reading).endswith("Mai họp.\n\nvirus.exe\n")
    assert reading.document.warning == SOME_ATTACHMENTS_LEFT_OUT


def test_forwarded_mails_are_read_to_a_limited_depth(read):
    message = mail("Thư 0", "tầng 0")
    for level in range(1, MAX_DEPTH + 4):
        outer = mail(f"Thư {level}", f"tầng {level}")
        outer.add_attachment(message)
        message = outer
    reading = read(message.as_bytes())
    read_levels = [n for n in range(MAX_DEPTH + 4) if f"tầng {n}\n" in text_of(reading)]
    assert read_levels == list(range(3, MAX_DEPTH + 4))
    assert reading.document.warning == SOME_ATTACHMENTS_LEFT_OUT


def test_mails_attached_as_files_are_read_to_a_limited_depth(read):
    content = mail("Thư 0", "tầng 0").as_bytes()
    for level in range(1, 8):
        outer = mail(f"Thư {level}", f"tầng {level}")
        attach(outer, content, "thư.eml")
        content = outer.as_bytes()
    reading = read(content)
    assert "tầng 7\n" in text_of(reading)
    assert "tầng 1\n" not in text_of(reading)
    assert reading.document.warning == SOME_ATTACHMENTS_LEFT_OUT


def test_only_so_many_attachments_are_read(read):
    message = mail()
    for number in range(MAX_ATTACHMENTS + 5):
        message.add_attachment(f"nội dung {number}", filename=f"{number}.txt")
    reading = read(message.as_bytes())
    assert text_of(reading).count("nội dung") == MAX_ATTACHMENTS
    assert reading.document.warning == SOME_ATTACHMENTS_LEFT_OUT


def test_a_mailbox_is_all_its_mails(read):
    box = b"".join(
        b"From x@y Mon Mar  4 08:00:00 2024\n" + mail(f"Thư {n}", f"lời {n}").as_bytes() + b"\n"
        for n in range(3)
    )
    reading = read(box, "hộp thư.mbox")
    assert [h.level for h in reading.document.headings] == [1, 1, 1]
    assert all(f"lời {n}\n" in text_of(reading) for n in range(3))
    assert "From x@y" not in text_of(reading)


@pytest.mark.parametrize(
    ("head", "shown"),
    [
        (b"Subject: =?utf-8?B?SOG7jXAgbOG7m3A=?=", "Họp lớp"),
        (b"Subject: =?utf-8?Q?H=E1=BB=8Dp?=\r\n =?utf-8?Q?_l=E1=BB=9Bp?=", "Họp lớp"),
        ("Subject: Họp lớp".encode(), "Họp lớp"),
        (b"Subject: =?bogus?B?SOG7jXA=?=", "Họp"),
    ],
)
def test_subjects_however_they_are_written(read, head, shown):
    reading = read(head + b"\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\nLoi\r\n")
    assert reading.document.title == shown


@pytest.mark.parametrize(
    "content",
    [
        b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\r\n\r\n--\r\n\r\nx",
        b"Content-Type: multipart/mixed; boundary=a\r\n\r\n" + b"--a\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\n" * 5000,
        b"Content-Type: text/plain; charset=\xff\xfe\r\nContent-Transfer-Encoding: base64\r\n\r\n!!!!",
        b"Message-ID: " + b"(" * 100_000 + b"\r\nSubject: x\r\n\r\ny",
    ],
    ids=["no boundary", "nested", "charset", "brackets"],
)  # fmt: skip
def test_broken_mails_give_text_or_a_named_error(reader, tmp_path, content):
    from chatbot.errors import DocumentError

    path = tmp_path / "hỏng.eml"
    path.write_bytes(content)
    try:
        reading = reader.read(path, path.name)
    except DocumentError as error:
        said = error.text("vi")
    else:
        said = text_of(reading) + (reading.document.warning or "")
    assert said.strip()


def attach(message: EmailMessage, content: bytes, name: str) -> None:
    message.add_attachment(content, maintype="application", subtype="octet-stream", filename=name)
