"""scripts/dev/digits.py, on patterns instead of digits."""

import re
import struct

import numpy as np
from conftest import run


def test_the_share_of_digits_read_correctly_is_printed(workplace, trained):
    raw = workplace / "patterns" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 1000), ("t10k", 20)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        digits = np.zeros((count, 28, 28), np.uint8)
        for digit, label in zip(digits, labels, strict=True):
            digit[4 : 4 + 2 * label + 1, 4:24] = 255  # a bar as high as the digit
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, count, 28, 28) + digits.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels.tobytes())
    file = trained[0] / "my painting.safetensors"
    result = run("digits.py", file, "--root", "patterns", "--sheet", "patterns.png", cwd=workplace)
    assert result.returncode == 0, result.stderr
    plain, painted = (float(share) for share in re.findall(r"^([\d.]+)% of", result.stdout, re.M))
    assert plain > 90
    assert 0 <= painted < plain  # after six steps of training it paints no digits
    assert (workplace / "patterns.png").is_file()
