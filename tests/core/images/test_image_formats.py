import pytest
from PIL import Image

from kosmos2_core.errors import CorruptImage, UnknownFormat
from kosmos2_core.images.decode import decode_image
from kosmos2_core.images.formats import DECODED, UNDECODED, content_of, format_of, is_image_name
from tests.support.image_files import FIRST_DIRECTORY, encoded, tiff_file

GREY = Image.new("L", (60, 40), 99)
ftyp = b"\0\0\0\x18ftyp"


@pytest.mark.parametrize("kind", ["RGB", "L", "1", "P"])
@pytest.mark.parametrize("name", DECODED)
def test_a_file_that_pillow_writes_is_known_by_its_first_bytes(name, kind):
    if (name, kind) in {("JPEG", "P"), ("JPEG2000", "1"), ("JPEG2000", "P"), ("PPM", "P")}:
        pytest.skip("there is none")
    data = encoded(Image.new(kind, (60, 40)), name)
    assert format_of(data[:64]) == name
    assert name in DECODED
    decode_image(data)


def test_every_extension_that_pillow_knows_for_a_format_is_in_the_list():
    Image.init()
    ours = {f".{each}": name for name, group in DECODED.items() for each in group}
    theirs = {each: name for each, name in Image.registered_extensions().items() if name in DECODED}
    assert theirs.items() <= {**ours, ".mpo": "MPO", ".pfm": "PPM"}.items() | {(".dib", "DIB")}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.JPG", True), ("a.b.avif", True), ("x.HeIC", True), ("jpg", False), ("a.txt", False)],
)
def test_an_image_is_known_by_its_extension(name, expected):
    assert is_image_name(name) == expected


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (ftyp + b"avifmif1miaf", "AVIF"),
        (ftyp + b"mif1\0\0\0\0avifmiaf", "AVIF"),
        (ftyp + b"mif1\0\0\0\0heicmiaf", "HEIC"),
        (ftyp + b"mif1\0\0\0\0miaf", "HEIC"),
        (ftyp + b"heix", "HEIC"),
        (ftyp + b"msf1\0\0\0\0hevc", "HEIC"),
        (ftyp + b"avci", "HEIF without HEVC"),
        (ftyp + b"crx ", "camera raw"),
        (ftyp + b"isom\0\0\0\0avif", None),  # a video
        (b"\xff\x0a\x10\x20", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"II*\0\x10\0\0\0CR\2\0", "camera raw"),
        (b"FUJIFILMCCD-RAW 0201", "camera raw"),
        (b"IIU\0\x18\0\0\0", "camera raw"),
        (b"8BPS\0\1", "PSD"),
        (b"8BPS\0\2", "PSD"),
        (b"\0\0\1\0\1\0", "ICO"),
        (b"P6 3 2 255\n", "PPM"),
        (b"P5\n# made by" + b" x" * 99 + b"\n3 2 255\n", "PPM"),
        (b"II\0*\x08\0\0\0", "TIFF"),
        (b"MM*\0\0\0\0\x08", "TIFF"),
        (b"MM\0+\0\x08\0\0", "TIFF"),
        (b"P5 is a road", None),
        (b"Python is a language", None),
        (b"BMW builds cars, and motorcycles", None),
        (b"", None),
    ],
)
def test_first_bytes_name_a_format(head, name):
    assert format_of(head) == name


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<!DOCTYPE html><p>429", "an HTML page, not an image"),
        (b"\n\n  <HTML lang=en>", "an HTML page, not an image"),
        (b"\xef\xbb\xbf<html>", "an HTML page, not an image"),
        (b"<!-- cached --><html>", "an HTML page, not an image"),
        (b'<svg xmlns="x"/>', "an SVG drawing, not an image: convert it to PNG"),
        (b'<?xml version="1.0"?><svg/>', "an SVG drawing, not an image: convert it to PNG"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>', "an XML document, not an image"),
        (b'{"error": "rate limited"}', "JSON, not an image"),
        (b"403 Forbidden", "text, not an image"),
        ("Zugriff verweigert: gesch\u00fctzt".encode(), "text, not an image"),
        (b"%PDF-1.7\n%\xe2", "a PDF document, not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "a PostScript document, not an image"),
        (b"\0\0\0\x20ftypisom\0\0\2\0", "an MP4 or QuickTime video, not an image"),
        (b"\0\0\0\x14ftypqt  \0\0\2\0", "an MP4 or QuickTime video, not an image"),
        (b"RIFF\0\0\0\0AVI LIST", "a RIFF file that is no WebP (AVI or WAV), not an image"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:",
            "a Git LFS pointer, not an image: fetch its file with git lfs pull",
        ),
        (b"/9j/4AAQSkZJRg", "base64 text of a JPEG, not an image: decode it"),
        (b"data:image/png;base64,iVBO", "a data: URL, not an image: decode its base64"),
        (bytes(5000), "nothing but zero bytes, not an image"),
        (b"PK\3\4\x14\0", "a ZIP archive, not an image"),
        (b"\x80\x81\x82", "the first bytes (80 81 82) match no known format"),
    ],
)
def test_content_that_is_not_an_image_is_named(data, message):
    with pytest.raises(UnknownFormat) as caught:
        decode_image(data)
    assert str(caught.value).startswith(message)
    assert (content_of(data) or message).startswith(message)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\xff\x0a" + bytes(99), "JPEG XL"),
        (b"8BPS\0\1" + bytes(99), "PSD"),
        (b"\0\0\1\0\1\0" + bytes(99), "ICO"),
        (b"v/1\1" + bytes(99), "OpenEXR"),
        (ftyp + b"crx " + bytes(99), "camera raw"),
    ],
)
def test_an_image_that_is_not_decoded_is_rejected_by_its_format(data, name):
    with pytest.raises(UnknownFormat, match=f"{name} is not supported: convert it to JPEG or"):
        decode_image(data)


@pytest.mark.parametrize("before", [b"\n", b"\xef\xbb\xbf", b"\r\n\r\n", b" \0"])
@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF"])
def test_an_image_after_other_bytes_is_rejected_with_the_remedy(name, before):
    data = before + encoded(GREY, name)
    with pytest.raises(CorruptImage, match=f"the {name} data begin at byte {len(before)}; remove"):
        decode_image(data)


# TIFF 6.0: a preview of 60x40 grey pixels at byte 8.
PREVIEW = {
    256: [60], 257: [40], 258: [8], 259: [1], 262: [1], 273: [8], 277: [1], 278: [40], 279: [2400],
}  # fmt: skip
RAWS = {
    "DNG": ({**PREVIEW, 50706: [0x0401]},),
    "NEF": ({**PREVIEW, 262: [32803]}, {**PREVIEW, 254: [1], 330: [FIRST_DIRECTORY]}),
    "an unflagged preview": ({**PREVIEW, 262: [32803]}, {**PREVIEW, 330: [FIRST_DIRECTORY]}),
    "the second of two": (
        {**PREVIEW, 262: [34892]},
        {**PREVIEW, 330: [8, FIRST_DIRECTORY]},
    ),
    "PEF": ({**PREVIEW, 262: [32803]},),
    "a circle": ({**PREVIEW, 254: [1], 330: [FIRST_DIRECTORY]},),
}


@pytest.mark.parametrize("name", RAWS)
def test_a_camera_raw_in_a_tiff_is_not_taken_for_its_preview(name):
    with pytest.raises(UnknownFormat, match="camera raw is not supported"):
        decode_image(tiff_file(*RAWS[name]))


@pytest.mark.parametrize(
    "directories",
    [
        (PREVIEW,),
        ({**PREVIEW, 254: [1]},),  # small, and all there is
        ({**PREVIEW, 254: [2]},),  # a page
        ({**PREVIEW, 254: [1]}, {**PREVIEW, 330: [FIRST_DIRECTORY]}),  # a pyramid
        ({**PREVIEW, 330: [FIRST_DIRECTORY] * 99},),
    ],
)
def test_a_tiff_with_other_images_is_no_camera_raw(directories):
    assert decode_image(tiff_file(*directories)).width == 60


def test_no_extension_is_of_two_formats():
    groups = [*DECODED.values(), *UNDECODED.values()]
    extensions = [each for group in groups for each in group]
    assert len(extensions) == len({*extensions})
