"""What scripts/check-openapi sends where the document says "a picture": no schema tells what a JPEG is."""

import struct
import zlib
from pathlib import Path

import schemathesis
from hypothesis import strategies as st

SAMPLE = Path(__file__).parent.parent / "app/assets/sample.jpg"
GOLDENS = Path(__file__).parent.parent / "app/goldens/pictures"


def pictures(*patterns):
    files = [path for pattern in patterns for path in sorted(GOLDENS.glob(pattern))]
    return st.sampled_from([path.read_bytes() for path in files])


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@st.composite
def any_png(draw):
    """Any few pixels."""
    width, height = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    rows = b"".join(b"\0" + draw(st.binary(min_size=width * 3, max_size=width * 3)) for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


JPEG = st.just(SAMPLE.read_bytes()) | pictures("jpeg-*")
PNG = any_png() | pictures("png-*", "size-*")
BMP, TIFF, WEBP = pictures("bmp-*"), pictures("tiff-*"), pictures("webp-*")

schemathesis.openapi.media_type("image/jpeg", JPEG)
schemathesis.openapi.media_type("image/png", PNG)
schemathesis.openapi.media_type("image/bmp", BMP)
schemathesis.openapi.media_type("image/tiff", TIFF)
schemathesis.openapi.media_type("image/webp", WEBP)
schemathesis.openapi.format("binary", st.one_of(JPEG, PNG, BMP, TIFF, WEBP))


@schemathesis.hook
def filter_body(context, body):
    """The names of a form's fields are sent in headers, which can't hold control characters."""
    return not isinstance(body, dict) or all(name.isprintable() for name in body)
