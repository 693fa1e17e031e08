#!/usr/bin/env python3
"""Makes the pictures in pictures/ and what torchvision makes of them: expected/NAME.webp, the 224 x 224 pixels (lossless) that
reach the model, and logits.f32, the model's answers (float32, little-endian, 1000 a picture, in the order of goldens.json).

    apt-get install python3-torch python3-torchvision
    cargo run -p xtask-weights --example seeded -- 42 seeded-42.safetensors
    /usr/bin/python3 app/goldens/make.py seeded-42.safetensors

goldens.json has the versions that made what is committed. The weights are those of the app's tests: same seed, same bytes.
"""

import json
import math
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image, features
from torchvision import transforms
from torchvision.transforms.functional import InterpolationMode

HERE = Path(__file__).parent
PICTURES, EXPECTED = HERE / "pictures", HERE / "expected"
Image.MAX_IMAGE_PIXELS = None


def scene(width, height, seed=0, noise=0.0):
    """A table with things on it: flat parts, edges, a fine grating, as 8-bit RGB."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    u, v = x / max(width - 1, 1), y / max(height - 1, 1)
    rng = np.random.default_rng(seed)
    rgb = np.stack([90 + 120 * u, 150 - 70 * v, 60 + 130 * v * u], axis=-1)
    grating = 40 * np.sin(2 * math.pi * (9 * u + 31 * v * v))
    rgb += np.where((v > 0.6)[..., None], grating[..., None], 0)
    for _ in range(9):
        cx, cy, r = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.05, 0.22)
        disc = (u - cx) ** 2 + ((v - cy) * height / width) ** 2 < r * r
        rgb[disc] = rng.uniform(0, 255, 3)
    rgb += rng.normal(0, noise, rgb.shape)
    return np.clip(rgb, 0, 255).astype(np.uint8)


def picture(width, height, seed=0):
    return Image.fromarray(scene(width, height, seed))


def photo(width, height, seed=0):
    """With a camera's noise, which only lossy formats store in little space."""
    return Image.fromarray(scene(width, height, seed, noise=2.5))


def flat(width, height, seed=0):
    """Large pictures that compress to little: each row is the one before it, moved."""
    x = (np.arange(width, dtype=np.uint32) * 255 // max(width - 1, 1)).astype(np.uint8)
    rows = np.arange(height, dtype=np.uint32)
    return Image.fromarray(x[None, :] + (rows[:, None] >> 3).astype(np.uint8), "L")


def noise(width, height):
    return Image.fromarray(np.random.default_rng(width * 10_000 + height).integers(0, 256, (height, width, 3), np.uint8))


def png(samples, colour_type):
    """A PNG of 16 bits a sample, which Pillow can't write; `samples`: [height, width, channels] or [height, width]."""
    height, width = samples.shape[:2]
    rows = samples.astype(">u2").tobytes()
    stride = len(rows) // height
    raw = b"".join(b"\0" + rows[i * stride : (i + 1) * stride] for i in range(height))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")


def deep(width, height, seed):
    """The scene in 16 bits; the low byte is not the high one, so that rounding and truncation differ."""
    low = np.random.default_rng(seed).integers(0, 256, (height, width, 1), np.uint16) & 0xF0
    return scene(width, height, seed).astype(np.uint16) << 8 | low


def make_pictures():
    """Name to how it is to be read: None where Pillow's own conversion is what counts."""
    PICTURES.mkdir(exist_ok=True)
    for old in PICTURES.iterdir():
        old.unlink()
    readers = {}

    def save(name, image, **options):
        image.save(PICTURES / name, **options)
        readers[name] = None

    def write(name, data, reader):
        (PICTURES / name).write_bytes(data)
        readers[name] = reader

    vga = photo(640, 480, 1)
    save("jpeg-420.jpg", vga, quality=80, subsampling="4:2:0")
    save("jpeg-444.jpg", photo(400, 300, 2), quality=85, subsampling="4:4:4")
    save("jpeg-422-odd-size.jpg", photo(333, 517, 3), quality=80, subsampling="4:2:2")
    save("jpeg-progressive.jpg", photo(500, 375, 4), quality=80, progressive=True, optimize=True)
    save("jpeg-grey.jpg", photo(480, 360, 5).convert("L"), quality=80)
    save("jpeg-cmyk-adobe.jpg", photo(320, 240, 6).convert("CMYK"), quality=85)
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: turn by 90 degrees.
    save("jpeg-exif-rotated.jpg", photo(400, 300, 7), quality=80, exif=exif)
    save("jpeg-low-quality.jpg", photo(640, 427, 8), quality=25)
    save("jpeg-1x1.jpg", noise(1, 1), quality=90)
    save("jpeg-17x9.jpg", noise(17, 9), quality=90)

    small = picture(280, 210, 9)
    alpha = Image.fromarray((np.mgrid[0:210, 0:280][1] * 255 // 279).astype(np.uint8))
    rgba = small.copy()
    rgba.putalpha(alpha)
    save("png-rgb.png", small, optimize=True)
    save("png-alpha.png", rgba.resize((140, 105)), optimize=True)
    grey_alpha = small.convert("L").resize((140, 105))
    grey_alpha.putalpha(alpha.resize((140, 105)))
    save("png-grey-alpha.png", grey_alpha, optimize=True)
    save("png-palette.png", picture(400, 300, 15).quantize(64), optimize=True)
    save("png-palette-transparent.png", small.quantize(32), optimize=True, transparency=3)
    save("png-1-bit.png", picture(300, 400, 10).convert("1"), optimize=True)
    # Pillow clips 16-bit grey to 8 bits, which makes a picture white. The high byte is what it takes of 16-bit colour.
    rgb16, grey16 = deep(120, 90, 11), deep(160, 120, 12)[..., 0]
    write("png-16-bit-rgb.png", png(rgb16, 2), lambda _: Image.fromarray((rgb16 >> 8).astype(np.uint8)))
    write("png-16-bit-grey.png", png(grey16, 0), lambda _: Image.fromarray((grey16 >> 8).astype(np.uint8)).convert("RGB"))

    save("webp-lossless.webp", small, lossless=True)
    save("webp-lossy.webp", vga, quality=75)
    save("webp-alpha.webp", rgba, lossless=True, exact=True)
    save("bmp-24-bit.bmp", small.resize((130, 100)))
    save("bmp-palette.bmp", small.resize((131, 99)).quantize(200))
    save("bmp-grey.bmp", small.convert("L").resize((127, 95)))
    save("tiff-lzw.tif", small.resize((200, 150)), compression="tiff_lzw")
    save("tiff-deflate.tif", small.resize((150, 200)), compression="tiff_adobe_deflate")
    save("tiff-raw-grey.tif", small.convert("L").resize((100, 150)))
    save("tiff-cmyk.tif", small.resize((100, 75)).convert("CMYK"), compression="tiff_lzw")

    for width, height in [(1, 1), (2, 3), (7, 1), (1, 300), (223, 224), (224, 224), (225, 224), (256, 256), (257, 255)]:
        make = noise if max(width, height) < 100 else picture
        save(f"size-{width}x{height}.png", make(width, height), optimize=True)
    save("size-1000x30.png", picture(1000, 30, 13), optimize=True)
    save("size-31x900.png", picture(31, 900, 14), optimize=True)
    save("limit-8192x3051.png", flat(8192, 3051), optimize=True)
    save("limit-5000x5000.png", flat(5000, 5000), optimize=True)
    save("limit-8192x1.png", flat(8192, 1), optimize=True)
    save("limit-1x8192.png", flat(1, 8192), optimize=True)
    return readers


def load_weights(path):
    data = Path(path).read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    tensors = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            tensors[name] = torch.frombuffer(bytearray(data[begin:end]), dtype=torch.float32).reshape(entry["shape"])
    model = torchvision.models.resnet50()
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing), (missing, unexpected)
    return model.eval()


def main():
    model = load_weights(sys.argv[1])
    torch.set_num_threads(1)
    readers = make_pictures()
    EXPECTED.mkdir(exist_ok=True)
    for old in EXPECTED.iterdir():
        old.unlink()
    # torchvision's ResNet50_Weights.IMAGENET1K_V1.transforms(), which works on Pillow's pictures.
    crop = transforms.Compose([transforms.Resize(256, InterpolationMode.BILINEAR, antialias=True), transforms.CenterCrop(224)])
    normalize = transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    goldens, logits = [], []
    for name, reader in sorted(readers.items()):
        image = (reader or (lambda path: Image.open(path).convert("RGB")))(PICTURES / name)
        pixels = crop(image)
        pixels.save(EXPECTED / f"{name}.webp", lossless=True, quality=100, method=6)
        with torch.inference_mode():
            answer = model(normalize(transforms.functional.to_tensor(pixels))[None])[0].numpy()
        best = np.sort(answer)[::-1]
        goldens.append({"name": name, "size": list(image.size), "top_1": int(answer.argmax()), "margin": float(best[0] - best[1])})
        logits.append(answer.astype("<f4").tobytes())
        print(f"{name:32} {image.size[0]:5} x {image.size[1]:<5} top-1 {answer.argmax():4} margin {best[0] - best[1]:.4f}")
    (HERE / "logits.f32").write_bytes(b"".join(logits))
    versions = {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "pillow": PIL.__version__,
        "libjpeg-turbo": features.version("libjpeg_turbo"),
        "zlib": features.version("zlib"),
        "webp": features.version("webp"),
        "libtiff": features.version("libtiff"),
        "numpy": np.__version__,
    }
    document = {"weights": "seeded-42", "versions": versions, "pictures": goldens}
    (HERE / "goldens.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
