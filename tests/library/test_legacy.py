"""TCVN3 and VNI are told and converted; no other text is ever touched."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot.library.readers.legacy import NOTES, detect, modern, modernised

SENTENCE = (
    "Cộng hòa xã hội chủ nghĩa Việt Nam. Sinh viên được nghỉ học tạm thời và bảo lưu kết quả đã học"
    " trong các trường hợp sau đây: điểm đ) và ô tô cũng vậy."
)
# Written out by hand: what these sentences look like in the two encodings.
TCVN3 = "Céng hßa x· héi chñ nghÜa ViÖt Nam. Sinh viªn ®\xadîc nghØ häc t¹m thêi vµ b¶o l\xadu kÕt qu¶ ®· häc trong c¸c tr\xadêng hîp sau ®©y: ®iÓm ®) vµ « t« còng vËy."
VNI = "Coäng hoøa xaõ hoäi chuû nghóa Vieät Nam. Sinh vieân ñöôïc nghæ hoïc taïm thôøi vaø baûo löu keát quaû ñaõ hoïc trong caùc tröôøng hôïp sau ñaây: ñieåm ñ) vaø oâ toâ cuõng vaäy."

VIETNAMESE = (
    "Điều kiện xét học bổng khuyến khích: điểm trung bình từ 3,20 trở lên; ôi, cô có hoà toà khoá à"
)
ENGLISH = "The café’s naïve résumé cost £5 — 5µm ©2020 Windows® «quoted» 3½ × 4 · §12 façade"
FRENCH = "Où êtes-vous né ? L’été dernier, à Noël, « la forêt » était déjà brûlée ; ça coûte cher"
OTHERS = "für schöne Mädchen große Öl på gjør sønn señor niño mañana år två"
SCHEMES = {"tcvn3": TCVN3, "vni": VNI}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_text_in_an_old_encoding_comes_out_in_unicode_and_says_so(scheme):
    assert modernised(SCHEMES[scheme]) == (SENTENCE, NOTES[scheme])


@pytest.mark.parametrize(
    ("old", "new"),
    [("§IÒU KIÖN XÐT HäC BæNG", "ĐIỀU KIỆN XÉT HỌC BỔNG"), ("QuyÕt ®Þnh sè 12/Q§-UBND", "Quyết định số 12/QĐ-UBND")],
)  # fmt: skip
def test_capitals_of_tcvn3_have_their_tones(old, new):
    assert modern(old, "tcvn3") == new


def test_capitals_of_vni_have_their_tones():
    assert modern("ÑIEÀU KIEÄN XEÙT HOÏC BOÅNG", "vni") == "ĐIỀU KIỆN XÉT HỌC BỔNG"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_is_already_unicode_beside_it_stays(scheme):
    text = f"{SCHEMES[scheme]}\nĐiều 5. Học phí là bao nhiêu?\nCopyright © 2020 Windows\n"
    assert modernised(text)[0].splitlines()[1:] == text.splitlines()[1:]


@given(
    st.lists(st.sampled_from(f"{VIETNAMESE} {ENGLISH} {FRENCH} {OTHERS}".split(" ")), max_size=60)
)
@settings(max_examples=400, deadline=None)
def test_ordinary_text_is_never_touched(words):
    text = " ".join(words)
    assert modernised(text) == (text, None)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=0x1EFF), max_size=300))
@settings(max_examples=300, deadline=None)
def test_letters_at_random_are_never_touched(text):
    assert detect(text) is None


def test_no_text_of_the_search_sets_is_taken_for_an_old_encoding(shared_data):
    for name in ("alqac-vi", "xquad-vi", "xquad-en", "nq-en"):
        for line in (shared_data / name / "corpus.jsonl").read_text(encoding="utf-8").splitlines():
            text = json.loads(line)["text"]
            assert detect(text) is None
            for paragraph in re.split(r"\n+", text):
                assert detect(paragraph) is None


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_files_in_an_old_encoding(reader, tmp_path, make_docx, scheme, encoding):
    old = SCHEMES[scheme]
    paths = [tmp_path / "a.txt", tmp_path / "a.html", tmp_path / "a.rtf", tmp_path / "a.csv"]
    paths[0].write_bytes(old.encode(encoding))
    paths[1].write_bytes(f"<html><body><p>{old}</p></body></html>".encode(encoding))
    escaped = "".join(c if c.isascii() else f"\\'{ord(c):02x}" for c in old)
    paths[2].write_bytes(rf"{{\rtf1\ansi\ansicpg1252 {escaped}\par}}".encode("ascii"))
    paths[3].write_bytes(old.encode(encoding))
    paths.append(make_docx(f"<w:p><w:r><w:t>{old}</w:t></w:r></w:p>"))
    for path in paths:
        reading = reader.read(path, path.name)
        assert "".join(p.text for p in reading.document.pages).strip() == SENTENCE
        assert reading.document.warning == NOTES[scheme]
        assert reading.language == "vi"
