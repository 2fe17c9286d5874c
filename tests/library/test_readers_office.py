"""Spreadsheets, presentations, OpenDocument, books, RTF: what a person sees in them is what is found."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from chatbot.errors import UnreadableDocument, UnsupportedDocument
from chatbot.library.readers.archive import HAS_ENTITIES, TOO_BIG_INSIDE
from chatbot.library.readers.epub import LOCKED
from chatbot.library.readers.kinds import NEEDS_PASSWORD

RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


@pytest.fixture
def read(reader, tmp_path):
    """Reads content, or a zip of the parts given; returns the reading."""

    def read(content: bytes | str | dict[str, str], name: str):
        path = tmp_path / "nội dung"
        if isinstance(content, dict):
            zipped(path, content)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return reader.read(path, name)

    return read


def zipped(path: Path, parts: dict[str, str]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for part, text in parts.items():
            archive.writestr(part, text)


def text_of(reading) -> str:
    return "".join(p.text for p in reading.document.pages)


def relations(**targets: str) -> str:
    found = "".join(
        f'<Relationship Id="{i}" Type="{RELATIONS}/{t.split()[0]}" Target="{t.split()[1]}"/>'
        for i, t in targets.items()
    )
    return f"<Relationships>{found}</Relationships>"


# --- Excel ------------------------------------------------------------------------------------


def workbook(*sheets: str, styles: str = "", strings: str = "") -> dict[str, str]:
    numbers = range(1, len(sheets) + 1)
    return {
        "xl/workbook.xml": f'<workbook xmlns:r="{RELATIONS}"><sheets>'
        + "".join(f'<sheet name="Trang {n}" sheetId="{n}" r:id="s{n}"/>' for n in numbers)
        + "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": relations(
            **{f"s{n}": f"worksheet worksheets/sheet{n}.xml" for n in numbers},
            styles="styles styles.xml",
            strings="sharedStrings sharedStrings.xml",
        ),
        "xl/styles.xml": f"<styleSheet>{styles}</styleSheet>",
        "xl/sharedStrings.xml": f"<sst>{strings}</sst>",
        **{
            f"xl/worksheets/sheet{n}.xml": f"<worksheet><sheetData>{rows}</sheetData></worksheet>"
            for n, rows in zip(numbers, sheets, strict=True)
        },
    }


def inline(text: str, place: str = "") -> str:
    at = f' r="{place}"' if place else ""
    return f'<c{at} t="inlineStr"><is><t>{text}</t></is></c>'


def test_every_row_of_a_sheet_names_its_columns(read):
    first = (
        f"<row r='1'>{inline('Bảng điểm')}</row>"
        f"<row r='2'>{inline('Tên')}{inline('Lớp')}{inline('Điểm')}</row>"
        f"<row r='3'><c t='s'><v>0</v></c>{inline('K65')}<c><v>3.2000000000000002</v></c></row>"
        f"<row r='4'>{inline('Bình', 'A4')}<c r='C4'><v>4</v></c></row>"
    )
    second = f"<row r='5'>{inline('Ghi chú')}</row>"
    strings = "<si><r><t>An </t></r><r><t>Nguyễn</t></r><rPh><t>bỏ</t></rPh></si>"
    reading = read(workbook(first, "", second, strings=strings), "điểm.xlsx")
    assert text_of(reading) == (
        "Trang 1\nBảng điểm\nTên | Lớp | Điểm\nTên: An Nguyễn | Lớp: K65 | Điểm: 3.2\nTên: Bình | Điểm: 4\n\n"
        "Trang 3\nGhi chú\n\n"
    )
    assert [p.path for p in reading.passages] == ["Trang 1", "Trang 3"]


def test_dates_times_and_percents_are_what_excel_shows(read):
    styles = (
        '<numFmts><numFmt numFmtId="164" formatCode="dd/mm/yyyy;@"/><numFmt numFmtId="165" formatCode="[h]:mm"/>'
        '<numFmt numFmtId="166" formatCode="&quot;ngày&quot; 0"/></numFmts>'
        '<cellXfs><xf numFmtId="0"/><xf numFmtId="14"/><xf numFmtId="164"/><xf numFmtId="22"/><xf numFmtId="10"/>'
        '<xf numFmtId="165"/><xf numFmtId="166"/><xf numFmtId="20"/></cellXfs>'
    )
    values = [("1", "45356"), ("2", "45357"), ("3", "45356.75"), ("4", "0.155"), ("5", "1.5"), ("6", "7"), ("7", "0.5")]  # fmt: skip
    row = "".join(f"<c s='{s}'><v>{v}</v></c>" for s, v in values)
    row += "<c t='b'><v>1</v></c><c t='e'><v>#N/A</v></c><c t='str'><v>công thức</v></c>"
    assert text_of(read(workbook(f"<row>{row}</row>", styles=styles), "x.xlsx")) == (
        "Trang 1\n2024-03-05 | 2024-03-06 | 2024-03-05 18:00 | 15.5% | 36:00 | 7 | 12:00 | TRUE | #N/A | công thức\n\n"
    )


def test_a_form_of_two_columns_is_no_table(read):
    rows = "".join(f"<row>{inline(a)}{inline(b)}</row>" for a, b in [("Họ tên", "An"), ("Nơi sinh", "Huế")])  # fmt: skip
    assert "Họ tên | An\nNơi sinh | Huế\n" in text_of(read(workbook(rows), "x.xlsx"))


def test_excels_binary_kind_is_refused_by_name(read):
    with pytest.raises(UnsupportedDocument):
        read({"xl/workbook.bin": "x"}, "x.xlsb")


# --- CSV --------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_csv_rows_name_their_columns_whatever_parts_them(read, separator):
    rows = [
        ["Tên", "Ghi chú", "Tiền"],
        ["An", f'"có {separator} trong ô"', "5"],
        ["Bình", '"hai\ndòng"', "6"],
    ]
    content = "\r\n".join(separator.join(row) for row in rows)
    inside = " " if separator == "\t" else separator
    assert text_of(read(content, "bảng.csv")) == (
        f"Tên | Ghi chú | Tiền\nTên: An | Ghi chú: {f'có {inside} trong ô' if inside != ' ' else 'có trong ô'} | Tiền: 5\n"
        "Tên: Bình | Ghi chú: hai dòng | Tiền: 6\n\n"
    )


def test_a_csv_of_one_column_and_an_odd_quote_loses_nothing(read):
    shown = text_of(read('tên\nống 5" thép\n"mở mãi\ncuối', "x.csv")).split()
    assert shown == ["tên", "ống", '5"', "thép", "mở", "mãi", "cuối"]


# --- PowerPoint -------------------------------------------------------------------------------


def shape(text: str, kind: str = "") -> str:
    mark = f'<p:nvSpPr><p:nvPr><p:ph type="{kind}"/></p:nvPr></p:nvSpPr>' if kind else ""
    return f"<p:sp>{mark}<p:txBody><a:p><a:r><a:t>{text}</a:t></a:r></a:p></p:txBody></p:sp>"


def slide(content: str) -> str:
    return f'<p:sld xmlns:p="p" xmlns:a="a"><p:cSld><p:spTree>{content}</p:spTree></p:cSld></p:sld>'


def test_slides_are_pages_in_the_order_of_the_presentation(read):
    cells = "".join(
        f"<a:tc><a:txBody><a:p><a:r><a:t>{t}</a:t></a:r></a:p></a:txBody></a:tc>" for t in "AB"
    )
    table = f"<p:graphicFrame><a:tbl><a:tr>{cells}</a:tr></a:tbl></p:graphicFrame>"
    reading = read(
        {
            "ppt/presentation.xml": f'<p:presentation xmlns:p="p" xmlns:r="{RELATIONS}"><p:sldIdLst>'
            '<p:sldId id="256" r:id="b"/><p:sldId id="257" r:id="a"/></p:sldIdLst></p:presentation>',
            "ppt/_rels/presentation.xml.rels": relations(
                a="slide slides/slide1.xml", b="slide slides/slide2.xml"
            ),
            "ppt/slides/slide1.xml": slide(
                f"<p:grpSp>{shape('trong nhóm')}</p:grpSp>"
                + table
                + shape("Tiêu đề", "title")
                + shape("7", "sldNum")
            ),
            "ppt/slides/_rels/slide1.xml.rels": relations(n="notesSlide ../notesSlides/n1.xml"),
            "ppt/notesSlides/n1.xml": slide(shape("Lời người nói", "body") + shape("7", "sldNum")),
            "ppt/slides/slide2.xml": slide(shape("Mở đầu", "ctrTitle")),
        },
        "bài giảng.pptx",
    )
    assert [(p.number, p.text) for p in reading.document.pages] == [
        (1, "Mở đầu\n"),
        (2, "Tiêu đề\ntrong nhóm\nA | B\n\nLời người nói\n"),
    ]
    assert [p.path for p in reading.passages] == ["Mở đầu", "Tiêu đề"]


# --- OpenDocument -----------------------------------------------------------------------------


def opendocument(family: str, body: str, **parts: str) -> dict[str, str]:
    return {
        "mimetype": f"application/vnd.oasis.opendocument.{family}",
        "content.xml": f'<o:d xmlns:o="o" xmlns:t="t" xmlns:b="b" xmlns:d="d" xmlns:p="p"><o:body><o:{family}>{body}'
        f"</o:{family}></o:body></o:d>",
        **parts,
    }


def test_an_odt_keeps_headings_lists_tables_and_notes(read):
    body = (
        '<t:tracked-changes><t:p>đã xoá</t:p></t:tracked-changes><t:h t:outline-level="1">Chương một</t:h>'
        "<t:p>Một<t:s/>hai<t:line-break/><t:span>ba<t:note><t:note-citation>1</t:note-citation><t:note-body>"
        "<t:p>Ghi chú</t:p></t:note-body></t:note></t:span> bốn</t:p>"
        "<t:list><t:list-item><t:p>mục</t:p></t:list-item></t:list>"
        "<b:table><b:table-row><b:table-cell><t:p>A</t:p></b:table-cell><b:table-cell><t:p>B</t:p></b:table-cell>"
        "</b:table-row></b:table>"
    )
    reading = read(opendocument("text", body), "x.odt")
    assert text_of(reading) == "Chương một\nMột hai ba [1] bốn\nmục\nA | B\n\n[1] Ghi chú\n"
    assert reading.passages[0].path == "Chương một"


def test_an_ods_does_not_repeat_its_empty_remainder(read):
    cell = '<b:table-cell o:value-type="{}"><t:p>{}</t:p></b:table-cell>'
    body = (
        '<b:table b:name="Giá"><b:table-row>' + cell.format("string", "Hàng") + cell.format("string", "Giá")
        + "</b:table-row><b:table-row>" + cell.format("string", "Gạo") + cell.format("float", "5")
        + '</b:table-row><b:table-row b:number-rows-repeated="1048576"><b:table-cell b:number-columns-repeated="1024"/>'
        "</b:table-row></b:table>"
    )  # fmt: skip
    assert text_of(read(opendocument("spreadsheet", body), "x.ods")) == (
        "Giá\nHàng | Giá\nHàng: Gạo | Giá: 5\n\n"
    )


def test_an_odp_has_its_slides_as_pages(read):
    frame = '<d:frame p:class="{}"><d:text-box><t:p>{}</t:p></d:text-box></d:frame>'
    page = (
        "<d:page>" + frame.format("outline", "Ý chính") + frame.format("title", "Tên") + "</d:page>"
    )
    reading = read(opendocument("presentation", page * 2), "x.odp")
    assert [(p.number, p.text) for p in reading.document.pages] == [
        (1, "Tên\nÝ chính\n"),
        (2, "Tên\nÝ chính\n"),
    ]


def test_an_encrypted_odt_asks_for_its_password(read):
    manifest = (
        "<m:manifest xmlns:m='m'><m:file-entry><m:encryption-data/></m:file-entry></m:manifest>"
    )
    with pytest.raises(UnreadableDocument) as caught:
        read(opendocument("text", "", **{"META-INF/manifest.xml": manifest}), "x.odt")
    assert caught.value.values["detail"] == NEEDS_PASSWORD


# --- EPUB -------------------------------------------------------------------------------------


def book(**parts: str) -> dict[str, str]:
    return {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": "<container><rootfiles><rootfile full-path='OPS/b.opf'/></rootfiles></container>",
        "OPS/b.opf": "<package><metadata><title>Sách</title></metadata><manifest>"
        "<item id='a' href='m%E1%BB%99t.xhtml' media-type='application/xhtml+xml'/>"
        "<item id='b' href='../hai.xhtml' media-type='application/xhtml+xml'/></manifest>"
        "<spine><itemref idref='b'/><itemref idref='a'/><itemref idref='thiếu'/></spine></package>",
        "OPS/một.xhtml": "<!DOCTYPE html><html><body><h1>Một</h1><p>Chữ</p></body></html>",
        "hai.xhtml": "<html><body><p>Trước</p></body></html>",
        **parts,
    }


def test_a_book_is_read_in_the_order_of_its_spine(read):
    reading = read(book(), "sách.epub")
    assert [p.text for p in reading.document.pages] == ["Trước\n", "Một\nChữ\n"]
    assert reading.document.title == "Sách"


def test_a_locked_book_is_refused_by_name(read):
    lock = "<e><EncryptedData><EncryptionMethod Algorithm='http://www.w3.org/2001/04/xmlenc#aes128-cbc'/></EncryptedData></e>"
    with pytest.raises(UnreadableDocument) as caught:
        read(book(**{"META-INF/encryption.xml": lock}), "x.epub")
    assert caught.value.values["detail"] == LOCKED


# --- RTF --------------------------------------------------------------------------------------


def test_rtf_gives_what_a_reader_sees(read):
    reading = read(
        rb"""{\rtf1\ansi\ansicpg1252\deff0{\fonttbl{\f0\fcharset0 Arial;}{\f1\fcharset163 Tahoma;}}
{\stylesheet{\s0 Normal;}{\s1\outlinelevel0 heading 1;}}{\info{\title Quy ch\u7871?}{\author X}}
{\*\generator bi mat}{\header tren cung}
\pard\s1 Ch\u432?\u417?ng m\u7897\'f4t\par
\pard\uc1{\listtext 1.\tab}Caf\'e9 {\b \'93h\u7885?c\'94}\~b\u7893?ng{\footnote Ghi ch\u250?} \\ \{x\}\line xu\u7889?ng d\u242?ng\par
{\field{\*\fldinst HYPERLINK "http://x"}{\fldrslt li\u234?n k\u7871?t}}{\pict 89504e47}{\object{\*\objdata 0105}{\result hinh}}\par
\trowd\intbl A\par C\cell B\cell\row
\pard\f1 \'d0i\'ea`u {\bin5 }}}}}\u-10179?\u-8704?\par}""",
        "x.rtf",
    )
    assert text_of(reading).splitlines() == [
        "Chương một",
        "1. Café “học” bổng [1] \\ {x} xuống dòng",
        "liên kết",
        "A C | B",
        "",
        "Điê`u 😀",
        "",
        "[1] Ghi chú",
    ]
    assert reading.document.title == "Quy chế"
    assert reading.document.headings[0].level == 1


def test_a_japanese_rtf_is_decoded_by_its_font(read):
    raw = b"".join(b"\\'%02x" % b for b in "日本語".encode("cp932"))
    content = rb"{\rtf1\ansi{\fonttbl{\f3\fcharset128 MS Mincho;}}\f3 " + raw + rb"\par}"
    assert text_of(read(content, "x.rtf")) == "日本語\n"


# --- what hostile files try -------------------------------------------------------------------


@pytest.mark.parametrize(
    "parts",
    [
        workbook("<row/>") | {"xl/worksheets/sheet1.xml": "<!DOCTYPE x [<!ENTITY e 'y'>]><worksheet><row><c t='str'><v>&e;</v></c></row></worksheet>"},
        opendocument("text", "") | {"content.xml": "<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><x>&e;</x>"},
        book() | {"OPS/b.opf": "<!DOCTYPE x [<!ENTITY e 'y'>]><package/>"},
        {"ppt/presentation.xml": "<!DOCTYPE x [<!ENTITY e 'y'>]><x/>"},
    ],
    ids=["xlsx", "odt", "epub", "pptx"],
)  # fmt: skip
def test_xml_with_a_dtd_is_refused(read, parts):
    with pytest.raises(UnreadableDocument) as caught:
        read(parts, "x")
    assert caught.value.values["detail"] == HAS_ENTITIES


@pytest.mark.parametrize(
    "parts",
    [
        workbook(" " * 3_000_000),
        opendocument("text", " " * 3_000_000),
        book(**{"OPS/một.xhtml": " " * 3_000_000}),
    ],
    ids=["xlsx", "odt", "epub"],
)
def test_a_bomb_is_refused_before_it_unpacks(read, parts):
    with pytest.raises(UnreadableDocument) as caught:
        read(parts, "x")
    assert caught.value.values["detail"] == TOO_BIG_INSIDE


@pytest.mark.parametrize("name", ["x.odt", "x.pptx", "x.rtf"])
def test_a_million_nested_parts_are_read_or_refused(read, name):
    deep = 100_000
    content: bytes | dict[str, str] = {
        "x.odt": opendocument("text", "<t:section>" * 200 + "<t:p>sâu</t:p>" + "</t:section>" * 200),
        "x.pptx": {"ppt/presentation.xml": "<a>" * deep},
        "x.rtf": b"{\\rtf1 " + b"{" * deep + b"deep" + b"}" * deep + b"}",
    }[name]  # fmt: skip
    if name == "x.pptx":
        with pytest.raises(UnreadableDocument):
            read(content, name)
    else:
        assert text_of(read(content, name)) in ("sâu\n", "deep\n")
