"""Makes image files that are damaged or unusual, and writes down what Pillow makes of each.

Run it by hand when a case is added (its output is committed): python ml/tests/strict.py
Tried with Pillow 12.3.0 and 13.0.0, which agree. strict.json has for each file its name, its length, and the FNV-1a hash of its RGB
pixels, or null where Pillow refuses it; strict.bin has the files one after the other, deflated.
"""

import io
import json
import pathlib
import struct
import warnings
import zlib

import numpy as np
from PIL import Image

HERE = pathlib.Path(__file__).parent / "golden"


def photo(w, h):
    y, x = np.mgrid[0:h, 0:w]
    return Image.fromarray(np.stack([x * 9 % 256, y * 11 % 256, (x * 5 + y * 7) % 256], -1).astype(np.uint8))


def enc(im, f, **o):
    b = io.BytesIO()
    im.save(b, f, **o)
    return b.getvalue()


SMALL = photo(24, 17)
J = enc(SMALL, "JPEG", quality=85)
JP = enc(SMALL, "JPEG", quality=85, progressive=True)
JG = enc(SMALL.convert("L"), "JPEG")
JC = enc(SMALL.convert("CMYK"), "JPEG")
JICC = enc(SMALL, "JPEG", icc_profile=bytes(range(200)))
JR = enc(SMALL, "JPEG", restart_marker_blocks=1)


def seg(m, d):
    return b"\xff" + bytes([m]) + struct.pack(">H", len(d) + 2) + d


def after_soi(j, x):
    return j[:2] + x + j[2:]


def find(j, m):
    i = 2
    while i < len(j):
        if j[i + 1] == m:
            return i
        if j[i + 1] == 0xDA:
            return -1
        i += 2 + struct.unpack(">H", j[i + 2 : i + 4])[0]


def patch(b, at, new):
    return b[:at] + new + b[at + len(new) :]


sos = find(J, 0xDA)
scan = sos + 2 + struct.unpack(">H", J[sos + 2 : sos + 4])[0]
cases = {}
app0 = find(J, 0xE0)
cases.update(
    {
        "jpeg": J,
        "jpeg progressive": JP,
        "jpeg grey": JG,
        "jpeg cmyk": JC,
        "jpeg restart markers": JR,
        "jpeg extraneous bytes after SOI": after_soi(J, b"\0\0abc"),
        "jpeg extraneous bytes before DQT": (lambda i: J[:i] + b"\x12\x34\x56" + J[i:])(find(J, 0xDB)),
        "jpeg extraneous bytes before SOS": J[:sos] + b"\x12\x34\x56" + J[sos:],
        "jpeg fill bytes before a marker": J[:sos] + b"\xff\xff\xff" + J[sos:],
        "jpeg JFIF 2.1": patch(J, app0 + 9, b"\x02\x01"),
        "jpeg JFIF too short": J[:app0] + seg(0xE0, b"JFIF\0") + J[app0 + 18 :],
        "jpeg no JFIF": J[:app0] + J[app0 + 18 :],
        "jpeg Adobe transform 0": after_soi(J, seg(0xEE, b"Adobe\0\x64\0\0\0\0\0")),
        "jpeg Adobe transform 1": after_soi(J, seg(0xEE, b"Adobe\0\x64\0\0\0\0\1")),
        "jpeg Adobe transform 2": after_soi(J, seg(0xEE, b"Adobe\0\x64\0\0\0\0\2")),
        "jpeg Adobe transform 3": after_soi(J, seg(0xEE, b"Adobe\0\x64\0\0\0\0\3")),
        "jpeg Adobe transform 3 without JFIF": after_soi(J[:app0] + J[app0 + 18 :], seg(0xEE, b"Adobe\0\x64\0\0\0\0\3")),
        "jpeg cmyk Adobe transform 3": (lambda i: patch(JC, i + 15, b"\3"))(find(JC, 0xEE)),
        "jpeg cmyk Adobe transform 2": (lambda i: patch(JC, i + 15, b"\2"))(find(JC, 0xEE)),
        "jpeg Adobe too short": after_soi(J, seg(0xEE, b"Adobe\0")),
        "jpeg ICC chunk": JICC,
        "jpeg ICC chunk number 0 of 0": (lambda i: patch(JICC, i + 16, b"\0\0"))(find(JICC, 0xE2)),
        "jpeg ICC chunk 2 of 1": (lambda i: patch(JICC, i + 16, b"\2\1"))(find(JICC, 0xE2)),
        "jpeg ICC chunk without numbers": after_soi(J, seg(0xE2, b"ICC_PROFILE\0")),
        "jpeg bad EXIF": after_soi(J, seg(0xE1, b"Exif\0\0garbage!")),
        "jpeg bad MPF": after_soi(J, seg(0xE2, b"MPF\0garbage and more")),
        "jpeg bad Photoshop": after_soi(J, seg(0xED, b"Photoshop 3.0\0garbage")),
        "jpeg COM segment": after_soi(J, seg(0xFE, b"hello")),
        "jpeg segment longer than the file": after_soi(J[:40], b"\xff\xe5\xff\xff"),
        "jpeg segment length 1": after_soi(J, b"\xff\xe5\0\x01"),
        "jpeg missing EOI": J[:-2],
        "jpeg missing EOI followed by garbage": J[:-2] + b"garbage that is no marker" * 3,
        "jpeg EOI followed by garbage": J + b"garbage" * 5,
        "jpeg cut in the scan": J[: (scan + len(J)) // 2],
        "jpeg cut 3 bytes before the end": J[:-3],
        "jpeg cut 10 bytes before the end": J[:-10],
        "jpeg cut before SOS": J[:sos],
        "jpeg cut then garbage": J[: (scan + len(J)) // 2] + b"\0" * 50,
        "jpeg cut then EOI": J[: (scan + len(J)) // 2] + b"\xff\xd9",
        "jpeg progressive cut": JP[: len(JP) * 3 // 4],
        "jpeg progressive cut then EOI": JP[: len(JP) * 3 // 4] + b"\xff\xd9",
        "jpeg scan damaged": patch(J, scan + 20, b"\x5a\xa5\x11"),
        "jpeg restart marker damaged": (lambda i: patch(JR, i, b"\x11\x22"))(JR.index(b"\xff\xd1")),
        "jpeg marker in the scan": patch(J, scan + 30, b"\xff\xe3"),
        "jpeg no EOI but a new image": J[:-2] + J,
        "jpeg twice": J + J,
        "jpeg 12 bits": (lambda i: patch(J, i + 4, b"\x0c"))(find(J, 0xC0)),
        "jpeg arithmetic": (lambda i: patch(J, i + 1, b"\xc9"))(find(J, 0xC0)),
        "jpeg lossless": (lambda i: patch(J, i + 1, b"\xc3"))(find(J, 0xC0)),
        "jpeg two components": (lambda i: patch(J, i + 9, b"\2"))(find(J, 0xC0)),
        "jpeg height 0": (lambda i: patch(J, i + 5, b"\0\0"))(find(J, 0xC0)),
        "jpeg only the start": J[:3],
        "jpeg SOI then no marker": b"\xff\xd8\xff" + b"abcdefgh",
    }
)


# remove DHT
def drop(j, m):
    out = j[:2]
    i = 2
    while j[i + 1] != 0xDA:
        n = 2 + struct.unpack(">H", j[i + 2 : i + 4])[0]
        if j[i + 1] != m:
            out += j[i : i + n]
        i += n
    return out + j[i:]


cases["jpeg no Huffman tables"] = drop(J, 0xC4)
cases["jpeg no quantisation tables"] = drop(J, 0xDB)
cases["jpeg unknown marker before SOF"] = after_soi(J, seg(0xF5, b"abc"))


# PNG
def chunk(t, d, crc=None):
    return struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d) if crc is None else crc)


SIG = b"\x89PNG\r\n\x1a\n"
rows = np.asarray(SMALL)
raw = b"".join(b"\0" + r.tobytes() for r in rows)


def ihdr(w=24, h=17, d=8, c=2, comp=0, filt=0, il=0):
    return chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, d, c, comp, filt, il))


Z = zlib.compress(raw, 9)
IEND = chunk(b"IEND", b"")
IDAT = chunk(b"IDAT", Z)


def split(z, n):
    k = len(z) // n + 1
    return b"".join(chunk(b"IDAT", z[i : i + k]) for i in range(0, len(z), k))


cases.update(
    {
        "png": SIG + ihdr() + IDAT + IEND,
        "png without IEND": SIG + ihdr() + IDAT,
        "png cut in IEND": SIG + ihdr() + IDAT + IEND[:7],
        "png IEND wrong checksum": SIG + ihdr() + IDAT + IEND[:8] + b"abcd",
        "png IDAT cut in checksum": SIG + ihdr() + IDAT[:-2],
        "png IDAT without checksum": SIG + ihdr() + IDAT[:-4],
        "png IDAT cut 1 byte of data": SIG + ihdr() + IDAT[:-5],
        "png IDAT cut in the middle": SIG + ihdr() + IDAT[: len(IDAT) // 2],
        "png too short data": SIG + ihdr() + chunk(b"IDAT", zlib.compress(raw[:-100])) + IEND,
        "png too short data without IEND": SIG + ihdr() + chunk(b"IDAT", zlib.compress(raw[:-100])),
        "png deflate stream cut": SIG + ihdr() + chunk(b"IDAT", Z[:-20]) + IEND,
        "png deflate stream without adler": SIG + ihdr() + chunk(b"IDAT", Z[:-4]) + IEND,
        "png wrong adler": SIG + ihdr() + chunk(b"IDAT", Z[:-1] + b"\0") + IEND,
        "png too much data": SIG + ihdr() + chunk(b"IDAT", zlib.compress(raw + b"\0" * 100)) + IEND,
        "png garbage after the stream in IDAT": SIG + ihdr() + chunk(b"IDAT", Z + b"garbage") + IEND,
        "png IDAT wrong checksum": SIG + ihdr() + chunk(b"IDAT", Z, 1) + IEND,
        "png two IDAT, first wrong checksum": SIG + ihdr() + chunk(b"IDAT", Z[:40], 1) + chunk(b"IDAT", Z[40:]) + IEND,
        "png IHDR wrong checksum": SIG + ihdr()[:-4] + b"abcd" + IDAT + IEND,
        "png tEXt wrong checksum": SIG + ihdr() + chunk(b"tEXt", b"k\0v", 1) + IDAT + IEND,
        "png tEXt wrong checksum after IDAT": SIG + ihdr() + IDAT + chunk(b"tEXt", b"k\0v", 1) + IEND,
        "png unknown ancillary chunk wrong checksum": SIG + ihdr() + chunk(b"abCd", b"xyz", 1) + IDAT + IEND,
        "png unknown critical chunk": SIG + ihdr() + chunk(b"ABCD", b"xyz") + IDAT + IEND,
        "png unknown critical chunk wrong checksum": SIG + ihdr() + chunk(b"ABCD", b"xyz", 1) + IDAT + IEND,
        "png chunk with a name of no letters": SIG + ihdr() + chunk(b"1234", b"xyz") + IDAT + IEND,
        "png tEXt without a separator": SIG + ihdr() + chunk(b"tEXt", b"abc") + IDAT + IEND,
        "png zTXt damaged": SIG + ihdr() + chunk(b"zTXt", b"k\0\0garbage") + IDAT + IEND,
        "png zTXt unknown method": SIG + ihdr() + chunk(b"zTXt", b"k\0\5garbage") + IDAT + IEND,
        "png iTXt damaged": SIG + ihdr() + chunk(b"iTXt", b"k\0\1") + IDAT + IEND,
        "png gAMA wrong length": SIG + ihdr() + chunk(b"gAMA", b"ab") + IDAT + IEND,
        "png pHYs wrong length": SIG + ihdr() + chunk(b"pHYs", b"ab") + IDAT + IEND,
        "png cHRM wrong length": SIG + ihdr() + chunk(b"cHRM", b"abc") + IDAT + IEND,
        "png sRGB wrong length": SIG + ihdr() + chunk(b"sRGB", b"") + IDAT + IEND,
        "png iCCP damaged": SIG + ihdr() + chunk(b"iCCP", b"k\0\0garbage") + IDAT + IEND,
        "png iCCP wrong checksum": SIG + ihdr() + chunk(b"iCCP", b"k\0\0" + zlib.compress(b"p"), 3) + IDAT + IEND,
        "png tRNS wrong length": SIG + ihdr() + chunk(b"tRNS", b"a") + IDAT + IEND,
        "png eXIf garbage": SIG + ihdr() + chunk(b"eXIf", b"garbage") + IDAT + IEND,
        "png second IHDR": SIG + ihdr() + ihdr() + IDAT + IEND,
        "png no IDAT": SIG + ihdr() + IEND,
        "png no IHDR": SIG + IDAT + IEND,
        "png tEXt before IHDR": SIG + chunk(b"tEXt", b"k\0v") + ihdr() + IDAT + IEND,
        "png empty IDAT first": SIG + ihdr() + chunk(b"IDAT", b"") + IDAT + IEND,
        "png IDATs apart": SIG + ihdr() + chunk(b"IDAT", Z[:40]) + chunk(b"tEXt", b"k\0v") + chunk(b"IDAT", Z[40:]) + IEND,
        "png many IDAT": SIG + ihdr() + split(Z, 9) + IEND,
        "png trailing garbage": SIG + ihdr() + IDAT + IEND + b"garbage",
        "png palette missing": SIG
        + ihdr(c=3)
        + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + bytes(range(24)) for _ in range(17))))
        + IEND,
        "png palette index outside": SIG
        + ihdr(c=3)
        + chunk(b"PLTE", bytes([1, 2, 3, 4, 5, 6]))
        + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + bytes(range(24)) for _ in range(17))))
        + IEND,
        "png palette of 5 bytes": SIG
        + ihdr(c=3)
        + chunk(b"PLTE", bytes(5))
        + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + bytes(24) for _ in range(17))))
        + IEND,
        "png bit depth 3": SIG + ihdr(d=3) + IDAT + IEND,
        "png colour type 5": SIG + ihdr(c=5) + IDAT + IEND,
        "png compression 1": SIG + ihdr(comp=1) + IDAT + IEND,
        "png filter method 1": SIG + ihdr(filt=1) + IDAT + IEND,
        "png interlace 2": SIG + ihdr(il=2) + IDAT + IEND,
        "png row filter 7": SIG + ihdr() + chunk(b"IDAT", zlib.compress(b"\7" + raw[1:])) + IEND,
        "png width 0": SIG + ihdr(w=0) + IDAT + IEND,
        "png zlib window too small": SIG + ihdr() + chunk(b"IDAT", b"\x08\x1d" + Z[2:]) + IEND,
        "png zlib header damaged": SIG + ihdr() + chunk(b"IDAT", b"\x00\x00" + Z[2:]) + IEND,
        "png compressed text of 3 MB": SIG + ihdr() + chunk(b"zTXt", b"k\0\0" + zlib.compress(b"x" * 3_000_000, 9)) + IDAT + IEND,
        "png only the signature": SIG,
        "png cut in IHDR": (SIG + ihdr())[:20],
        "png acTL 0 frames": SIG + ihdr() + chunk(b"acTL", bytes(8)) + IDAT + IEND,
        "png PLTE in truecolour": SIG + ihdr() + chunk(b"PLTE", bytes(6)) + IDAT + IEND,
        "png PLTE in grey": SIG
        + ihdr(c=0)
        + chunk(b"PLTE", bytes(6))
        + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + bytes(24) for _ in range(17))))
        + IEND,
    }
)
# GIF, BMP, WebP
G = enc(SMALL.quantize(16), "GIF")
B = enc(SMALL, "BMP")
W = enc(SMALL, "WEBP", quality=80)
WL = enc(SMALL, "WEBP", lossless=True)
cases.update(
    {
        "gif": G,
        "gif without trailer": G[:-1],
        "gif cut in the data": G[:-30],
        "gif cut in the palette": G[:30],
        "gif trailing garbage": G + b"abc",
        "bmp": B,
        "bmp cut by a row": B[:-80],
        "bmp trailing garbage": B + b"abc",
        "bmp cut in the header": B[:30],
        "bmp cut one byte": B[:-1],
        "bmp planes 0": patch(B, 26, b"\0\0"),
        "bmp size wrong": patch(B, 2, b"\1\0\0\0"),
        "webp": W,
        "webp lossless": WL,
        "webp cut": W[:-20],
        "webp lossless cut": WL[:-20],
        "webp trailing garbage": W + b"abcd",
        "webp riff size too large": patch(W, 4, struct.pack("<I", len(W) + 100)),
        "webp riff size too small": patch(W, 4, struct.pack("<I", len(W) - 40)),
        "webp cut one byte": W[:-1],
    }
)


def fnv(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def pillow(data):
    try:
        return fnv(Image.open(io.BytesIO(data)).convert("RGB").tobytes())
    except Exception:
        return None


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    table = [[name, len(data), pillow(data)] for name, data in cases.items()]
    (HERE / "strict.json").write_text(json.dumps(table, indent=0) + "\n")
    (HERE / "strict.bin").write_bytes(zlib.compress(b"".join(cases.values()), 9))
