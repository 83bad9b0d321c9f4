"""Makes the golden files of this folder with PyTorch, torchvision and Pillow.

Run it by hand when a case is added (the files are committed): python ml/torch/tests/golden.py
Tried with torch 2.11.0, torchvision 0.26.0, Pillow 13.0.0, safetensors 0.8.0.
"""

import argparse
import datetime
import io
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections import Counter, OrderedDict, defaultdict

import numpy as np
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision import transforms

HERE = pathlib.Path(__file__).parent / "golden"
torch.set_num_threads(1)


# --- weights files ---


def numbers(*shape):
    """Numbers that every float format holds exactly; the Rust side computes the same."""
    i = torch.arange(int(np.prod(shape)))
    return (((i * 7) % 23 - 11) / 8).reshape(shape).float()


class Evil:
    def __reduce__(self):
        return (os.system, ("touch /tmp/purlin-golden-evil",))


class WholeModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)


def small_state_dict():
    model = nn.Sequential(OrderedDict(conv=nn.Conv2d(2, 3, 2), bn=nn.BatchNorm2d(3)))
    with torch.no_grad():
        for tensor in list(model.parameters()) + [model.bn.running_mean, model.bn.running_var]:
            tensor.copy_(numbers(*tensor.shape))
    return model.state_dict()


class TinyClassifier(nn.Module):
    """Averages channels: three classes out of any image."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)
        with torch.no_grad():
            self.fc.weight.copy_(torch.eye(3))
            self.fc.bias.zero_()

    def forward(self, x):
        return self.fc(x.mean(dim=(2, 3)))


def weights():
    out = HERE / "weights"
    state = small_state_dict()
    assert isinstance(state, OrderedDict)
    plain = dict(state)
    torch.save(plain, out / "plain_dict.pt")
    torch.save(state, out / "ordered.pth")
    torch.save(state, out / "protocol4.bin", pickle_protocol=4)
    torch.save({"epoch": 3, "lr": 0.1, "state_dict": state, "best": None, "tags": ["a", ("b", 2**70)]}, out / "nested_state_dict.pt")
    torch.save({"model": state}, out / "nested_model.pt")
    torch.save(OrderedDict(("module." + k, v) for k, v in state.items()), out / "module_prefix.pth")
    for name, kind in [("bf16", torch.bfloat16), ("half", torch.float16), ("double", torch.float64)]:
        torch.save({k: v.to(kind) if v.is_floating_point() else v for k, v in state.items()}, out / f"{name}.pt")
    base = numbers(6, 4)
    views = OrderedDict(
        base=base,
        transposed=base.t(),
        slice=base[2:5, 1:3],
        every_second=base[::2],
        expanded=numbers(1, 4).expand(3, 4),
        scalar=torch.tensor(0.5),
        empty=torch.zeros(0, 3),
        channels_last=numbers(2, 3, 4, 5).to(memory_format=torch.channels_last),
        parameter=nn.Parameter(numbers(3)),
    )
    torch.save(views, out / "views.pth")
    torch.save({"long": torch.arange(5), "int": torch.arange(5, dtype=torch.int32), "bool": torch.tensor([True, False]),
                "byte": torch.arange(5, dtype=torch.uint8)}, out / "integers.pt")
    torch.save(state, out / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save({"a": numbers(2), "b": Evil()}, out / "evil.pt")
    torch.save(WholeModel(), out / "whole_model.pt")
    torch.save([numbers(2)], out / "list.pt")
    torch.save({"state_dict": {"a": numbers(2), "note": "text"}}, out / "with_a_note.pt")
    save_file({k: v.contiguous() for k, v in state.items()}, out / "tensors.safetensors")
    save_file({"conv.weight": numbers(3, 2, 2, 2).bfloat16()}, out / "bf16.safetensors")
    marked(out)
    beside(out, state)
    torch.jit.save(torch.jit.script(TinyClassifier().eval()), out / "scripted.pt")
    torch.jit.save(torch.jit.freeze(torch.jit.script(TinyClassifier().eval())), out / "frozen.pt")


def packages():
    """Compiled networks: for batches of any size from two on, and for one image. Their libraries want AVX2."""
    model = TinyClassifier().eval()
    batch = torch.export.Dim("batch", min=2, max=1024)
    for name, count, shapes in [("compiled", 4, {"x": {0: batch}}), ("compiled_for_one", 1, None)]:
        with torch.no_grad():
            program = torch.export.export(model, (torch.zeros(count, 3, 224, 224),), dynamic_shapes=shapes)
        made = torch._inductor.aoti_compile_and_package(program, package_path=str(HERE / "weights" / f"{name}.pt2"))
        without_sources(pathlib.Path(made))


def without_sources(package):
    """The package with what is loaded alone, stripped and compressed. Of the sources the names are looked at."""
    with zipfile.ZipFile(package) as archive:
        members = {name: b"" if name.endswith(".cpp") else archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in members.items():
            if name.endswith(".so"):
                with tempfile.NamedTemporaryFile() as library:
                    library.write(content)
                    library.flush()
                    subprocess.run(["strip", library.name], check=True)
                    content = pathlib.Path(library.name).read_bytes()
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)


def marked(out):
    """Tensors whose numbers stand for something else: PyTorch's negative and conjugate bits."""
    base = numbers(6, 4)
    complex_numbers = torch.complex(base, base + 1)
    tensors = OrderedDict(
        base=base,
        negated=torch._neg_view(base),
        # A view on every second number of a complex tensor, negated.
        imaginary=complex_numbers.conj().imag,
        negated_slice=torch._neg_view(base)[1:3, ::2],
        parameter=nn.Parameter(torch._neg_view(base)),
    )
    assert tensors["negated"].is_neg() and tensors["imaginary"].is_neg()
    torch.save({k: v for k, v in tensors.items() if k != "imaginary"}, out / "negated.pth")
    torch.save({"imaginary": tensors["imaginary"]}, out / "imaginary.pth")
    torch.save({k: v for k, v in tensors.items() if k != "imaginary"}, out / "negated_legacy.pth", _use_new_zipfile_serialization=False)
    torch.save({"base": base, "conjugated": complex_numbers.conj(), "complex": complex_numbers}, out / "complex.pth")


def beside(out, state):
    """State dicts with all sorts of things beside and in them, in other wrappings and archives."""
    tagged = OrderedDict(state)
    tagged["conv.bias"] = nn.Parameter(state["conv.bias"])
    tagged["conv.bias"].tag = "an attribute"
    plain = state["bn.bias"].clone()
    plain.tag = "an attribute"
    tagged["bn.bias"] = plain
    extras = {
        "counter": Counter("abca"), "size": torch.Size([2, 3]), "device": torch.device("cpu"), "dtype": torch.float16,
        "set": {1, 2}, "frozen": frozenset("ab"), "bytes": b"\xff\x00raw", "complex": 1 + 2j, "namespace": argparse.Namespace(lr=0.1, w=state["bn.bias"]),
        "scalar": np.float64(0.5), "array": np.arange(4), "default": defaultdict(list, a=[1]), "path": pathlib.PurePosixPath("a/b"),
        "big": 2**80, "when": datetime.datetime(2020, 1, 2), "slice": slice(1, 2), "type": nn.Linear, "ellipsis": ...,
    }
    unread = {
        "uint16": torch.tensor([0, 1, 2], dtype=torch.uint16), "fp8": numbers(4).to(torch.float8_e4m3fn),
        "sparse": numbers(2, 2).to_sparse(), "quantized": torch.quantize_per_tensor(numbers(4), 0.1, 0, torch.qint8),
        "complex_tensor": torch.complex(numbers(2), numbers(2)), "meta": torch.zeros(2, device="meta"),
    }
    for name, options in [("beside.pth", {}), ("beside_protocol4.pth", {"pickle_protocol": 4}),
                          ("beside_legacy.pth", {"_use_new_zipfile_serialization": False})]:
        inside = {**tagged, **{f"x.{k}": v for k, v in {**extras, **unread}.items()}}
        torch.save({"state_dict": inside, **extras}, out / name, **options)
    torch.save(defaultdict(None, state), out / "default_dict.pth")
    for wrapper in ["net", "params", "module", "model_ema", "weights", "ema"]:
        torch.save({wrapper: state, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": numbers(2)}}}}, out / f"under_{wrapper}.pth")
    torch.save({"student": state, "step": 1}, out / "under_student.pth")
    other = OrderedDict((k, v * 0) for k, v in state.items())
    torch.save({"model": other, "model_ema": {"module": state}, "epoch": 3}, out / "two_candidates.pth")
    torch.save({"model": WholeModel(), "epoch": 3}, out / "whole_model_inside.pth")
    torch.save(state, out / "legacy_protocol4.pth", _use_new_zipfile_serialization=False, pickle_protocol=4)
    torch.save(OrderedDict(all=numbers(6, 4), part=numbers(6, 4)[2:5, 1:3], t=numbers(6, 4).t()), out / "legacy_views.pth",
               _use_new_zipfile_serialization=False)
    for name, folder in [("rezipped.pth", "ordered/"), ("rezipped_flat.pth", "")]:
        with zipfile.ZipFile(out / "ordered.pth") as old, zipfile.ZipFile(out / name, "w", zipfile.ZIP_DEFLATED) as new:
            for member in old.namelist():
                new.writestr(folder + member.split("/", 1)[1], old.read(member))
    save_file({**{k: v.contiguous() for k, v in state.items()}, "extra": numbers(4).to(torch.float8_e4m3fn)}, out / "one_f8.safetensors")


# --- models with weights that both sides compute ---


def hashed(key, count):
    """`count` numbers in [-1, 1), the same on every machine."""
    x = (np.arange(count, dtype=np.uint64) * 1664525 + key * 1013904223 + 12345) & 0xFFFFFFFF
    for _ in range(2):
        x ^= x >> 16
        x = (x * 0x45D9F3B) & 0xFFFFFFFF
    x ^= x >> 16
    return x.astype(np.float64) / 2**31 - 1


def fill(model):
    state = model.state_dict()
    names = [name for name in state if not name.endswith("num_batches_tracked")]
    for key, name in enumerate(names):
        shape = state[name].shape
        values = hashed(key, int(np.prod(shape)))
        if len(shape) > 1:
            values = values * np.sqrt(6.0 / np.prod(shape[1:]))
        elif name.endswith("running_var"):
            values = 1.5 + 0.5 * values
        elif name.endswith("weight"):
            values = 0.9 + 0.1 * values
        else:
            values = 0.1 * values
        state[name].copy_(torch.from_numpy(values.reshape(shape)))
    return model.eval()


class DigitsCnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.conv3 = nn.Conv2d(32, 32, 3, padding=1)
        self.fc1 = nn.Linear(512, 64)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x):
        for conv in (self.conv1, self.conv2, self.conv3):
            x = torch.max_pool2d(torch.relu(conv(x)), 2)
        return self.fc2(torch.relu(self.fc1(x.flatten(1))))


def fnv(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def formula_images(channels, size):
    pixels = (hashed(99, 2 * size * size * channels) * 128 + 128).astype(np.uint8)
    return pixels.reshape(2, size, size, channels)


IMAGENET = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def models():
    listing = {}
    names = ["mobilenet_v2", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
    for name in names:
        state = getattr(torchvision.models, name)(weights=None).state_dict()
        lines = [f"{key} {list(value.shape)}" for key, value in state.items() if not key.endswith("num_batches_tracked")]
        listing[name] = {"count": len(lines), "fnv1a": fnv("\n".join(lines))}
    logits = {}
    with torch.no_grad():
        for name in ["mobilenet_v2", "resnet18", "resnet50", "digits_cnn"]:
            if name == "digits_cnn":
                model, images, normalize = DigitsCnn(), formula_images(1, 32), transforms.Normalize([0.5], [0.5])
            else:
                model, images, normalize = getattr(torchvision.models, name)(weights=None), formula_images(3, 224), IMAGENET
            x = normalize(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
            logits[name] = [[float(f"{v:.7g}") for v in row] for row in fill(model)(x).tolist()]
    (HERE / "models.json").write_text(json.dumps({"tensors": listing, "logits": logits}) + "\n")


# --- images ---


def photo(width, height, seed=0):
    """Something like a photograph: gradients, edges and a little noise."""
    y, x = np.mgrid[0:height, 0:width]
    u, v = x / width, y / height
    rng = np.random.default_rng(seed)
    rgb = np.stack([
        200 * u + 40 * np.sin(9 * v + seed),
        180 * v + 50 * np.cos(7 * u * v + seed),
        120 + 100 * np.sin(5 * (u + v) + 2 * seed),
    ], -1)
    rgb[(u - 0.6) ** 2 + (v - 0.4) ** 2 < 0.05] = (230, 40 + 20 * seed, 60)
    rgb[int(height * 0.7):int(height * 0.8), int(width * 0.1):int(width * 0.5)] = (20, 90, 220)
    rgb += rng.normal(0, 4, rgb.shape)
    return Image.fromarray(rgb.clip(0, 255).astype(np.uint8))


def png(width, height, depth, color, rows, extra=()):
    """A PNG of a kind that Pillow does not write."""
    def chunk(tag, data):
        return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))
    body = b"".join(b"\0" + row for row in rows)
    chunks = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))]
    chunks += [chunk(tag, data) for tag, data in extra]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IDAT", zlib.compress(body, 9)) + chunk(b"IEND", b"")


def bmp16(width, height, masks, pixels):
    stride = (width * 2 + 3) // 4 * 4
    body = b"".join(pixels[y].astype("<u2").tobytes().ljust(stride, b"\0") for y in reversed(range(height)))
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 16, 3, len(body), 0, 0, 0, 0) + struct.pack("<III", *masks)
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + len(body), 0, 0, 14 + len(header)) + header + body


def gif_with_offset_frame():
    frame = Image.new("P", (4, 4))
    frame.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 250, 200, 9])
    frame.putdata([0, 1, 2, 3] * 4)
    buffer = io.BytesIO()
    frame.save(buffer, "gif", transparency=2)
    data = bytearray(buffer.getvalue())
    data[6:10] = struct.pack("<HH", 10, 8)
    at = data.index(b"\x2c\0\0\0\0\4\0\4\0")
    data[at + 1:at + 5] = struct.pack("<HH", 3, 2)
    return bytes(data)


def images():
    out = HERE / "images"
    small = photo(61, 47)

    def save(name, image, **options):
        image.save(out / name, **options)

    save("rgb_420_large.jpg", photo(500, 375), quality=85)
    save("rgb_444.jpg", small, quality=95, subsampling="4:4:4")
    save("rgb_422.jpg", small, quality=90, subsampling="4:2:2")
    save("rgb_420.jpg", photo(63, 49, 1), quality=75, subsampling="4:2:0")
    save("progressive.jpg", photo(120, 90, 2), quality=80, progressive=True)
    save("low_quality.jpg", photo(150, 100, 3), quality=12)
    save("grey.jpg", small.convert("L"), quality=90)
    save("cmyk.jpg", small.convert("CMYK"), quality=92)
    save("keep_rgb.jpg", small, quality=90, keep_rgb=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    save("exif_rotated.jpg", small, quality=90, exif=exif)
    # Trailing rubbish, as cameras and downloads leave it.
    buffer = io.BytesIO()
    small.save(buffer, "jpeg", quality=88)
    (out / "trailing_bytes.jpg").write_bytes(buffer.getvalue() + b"rubbish" * 5)

    save("rgb.png", small)
    rgba = small.copy()
    rgba.putalpha(Image.linear_gradient("L").resize(small.size))
    save("rgba.png", rgba)
    save("grey.png", small.convert("L"))
    save("grey_alpha.png", rgba.convert("LA"))
    save("palette.png", small.quantize(16))
    save("palette_transparent.png", small.quantize(16), transparency=3)
    save("one_bit.png", small.convert("1"))
    ramp = np.arange(40 * 30).reshape(30, 40)
    save("grey_16bit.png", Image.fromarray((ramp * 54).astype(np.uint16)))
    save("grey_16bit_dark.png", Image.fromarray((ramp // 5).astype(np.uint16)))
    rgb16 = (np.stack([ramp * 54, ramp * 31 + 77, 65535 - ramp * 50], -1) % 65536).astype(">u2")
    (out / "rgb_16bit.png").write_bytes(png(40, 30, 16, 2, [row.tobytes() for row in rgb16]))
    la16 = (np.stack([ramp * 54, ramp * 31], -1) % 65536).astype(">u2")
    (out / "grey_alpha_16bit.png").write_bytes(png(40, 30, 16, 4, [row.tobytes() for row in la16]))
    two_bit = [bytes(((x + y) * 37) & 255 for x in range(10)) for y in range(30)]
    (out / "grey_2bit.png").write_bytes(png(40, 30, 2, 0, two_bit))
    (out / "grey_transparent.png").write_bytes(
        png(40, 30, 8, 0, [(row % 256).astype(np.uint8).tobytes() for row in ramp], [(b"tRNS", b"\0\x10")]))
    (out / "rgb_transparent.png").write_bytes(
        png(61, 47, 8, 2, [row.tobytes() for row in np.asarray(small)], [(b"tRNS", b"\0\x10\0\x20\0\x30")]))

    save("lossy.webp", photo(121, 83, 1), quality=80)
    save("lossy_low.webp", photo(120, 90, 2), quality=20)
    save("lossless.webp", small, lossless=True)
    save("alpha.webp", rgba, quality=80)
    save("animated.webp", small, save_all=True, append_images=[photo(61, 47, 2)], duration=100, quality=70)

    save("rgb.bmp", small)
    save("grey.bmp", small.convert("L"))
    save("palette.bmp", small.quantize(16))
    save("one_bit.bmp", small.convert("1"))
    save("rgba.bmp", rgba)
    sixteen = (ramp * 211 % 65536).astype(np.uint16)
    (out / "rgb_565.bmp").write_bytes(bmp16(40, 30, (0xF800, 0x07E0, 0x001F), sixteen))
    (out / "rgb_555.bmp").write_bytes(bmp16(40, 30, (0x7C00, 0x03E0, 0x001F), sixteen & 0x7FFF))

    save("palette.gif", small.quantize(32))
    save("grey.gif", small.convert("L"))
    save("transparent.gif", small.quantize(8), transparency=2)
    save("interlaced.gif", small.quantize(8), interlace=1)
    save("animated.gif", small.quantize(16), save_all=True, append_images=[photo(61, 47, 2).quantize(16)], duration=100)
    (out / "offset_frame.gif").write_bytes(gif_with_offset_frame())

    resize = transforms.Resize((224, 224))
    nets = {name: fill(getattr(torchvision.models, name)(weights=None)) for name in ("mobilenet_v2", "resnet18")}
    top = {}
    for path in sorted(out.iterdir()):
        rgb = Image.open(path).convert("RGB")
        resized = resize(rgb)
        # The decoded pixels of every image; the resized ones where they are not the same story told again.
        rgb.save(HERE / "resized" / f"{path.name}.decoded.png", optimize=True)
        if path.name in RESIZED:
            resized.save(HERE / "resized" / f"{path.name}.224.png", optimize=True)
        x = IMAGENET(transforms.ToTensor()(resized)).unsqueeze(0)
        with torch.no_grad():
            top[path.name] = {name: int(net(x).argmax()) for name, net in nets.items()}
    grey = Image.open(out / "rgb_420.jpg").convert("L").resize((32, 32), Image.Resampling.BILINEAR)
    grey.save(HERE / "resized" / "rgb_420.jpg.grey32.png", optimize=True)
    (HERE / "top1.json").write_text(json.dumps(top, indent=0) + "\n")


# Noise of black and white is the hardest picture for a resizer's rounding. Source size, target size, channels.
NOISE = [((301, 211), (40, 30), 3), ((33, 17), (50, 64), 3), ((500, 60), (16, 16), 1), ((1200, 900), (28, 24), 3), ((90, 120), (89, 119), 1)]


def noise():
    for (width, height), target, channels in NOISE:
        values = hashed(width, width * height * channels)
        pixels = np.where(values < -0.4, 0, np.where(values > 0.4, 255, values * 128 + 128)).astype(np.uint8)
        pixels = pixels.reshape(height, width, 3) if channels == 3 else pixels.reshape(height, width)
        image = transforms.Resize(target[::-1])(Image.fromarray(pixels))
        image.save(HERE / "resized" / f"noise_{width}x{height}.png", optimize=True)


RESIZED = {"rgb_420_large.jpg", "rgb_444.jpg", "progressive.jpg", "low_quality.jpg", "grey.jpg", "cmyk.jpg", "rgb.png", "lossy.webp",
           "one_bit.png", "offset_frame.gif"}

if __name__ == "__main__":
    for part in sys.argv[1:] or ["weights", "packages", "models", "images", "noise"]:
        globals()[part]()
