#!/usr/bin/env python3
"""Seeds for the fuzzer in the folder given: the small goldens, each sent raw and as a form."""

import pathlib
import sys

RAW = {".jpg": 0, ".png": 1, ".bmp": 2, ".tif": 3, ".webp": 4}
target = pathlib.Path(sys.argv[1])
target.mkdir(parents=True, exist_ok=True)
for picture in sorted(pathlib.Path(__file__).parent.glob("../goldens/pictures/*")):
    data = picture.read_bytes()
    if len(data) <= 20_000:
        (target / f"raw-{picture.name}").write_bytes(bytes([RAW[picture.suffix], 0]) + data)
        (target / f"form-{picture.name}").write_bytes(bytes([6, 4]) + data)
form = b'--fuzz\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\nx\r\n--fuzz--\r\n'
(target / "form-whole").write_bytes(bytes([7, 1]) + form)
