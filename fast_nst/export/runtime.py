"""Find two files of the npm package onnxruntime-web (MIT license), which runs networks in a browser."""

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from fast_nst.atomic import atomic_write
from fast_nst.errors import UserError

VERSION = "1.30.0"
ARCHIVE = f"onnxruntime-web-{VERSION}.tgz"
_SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
_SCRIPT, _WASM = "dist/ort.webgpu.bundle.min.mjs", "dist/ort-wasm-simd-threaded.asyncify.wasm"


class Runtime(NamedTuple):
    """The files. script: a JavaScript module. wasm: the WebAssembly that it starts, for WebGPU and for the CPU."""

    script: bytes
    wasm: bytes


def find_runtime(given: Path | None = None) -> Runtime:
    """Read the package from `given`, a folder or .tgz, or from the user's cache, to which it is downloaded once.

    Raises UserError.
    """
    given = download() if given is None else given
    try:
        if given.is_dir():
            root = given if (given / _SCRIPT).exists() else given / "package"
            return Runtime((root / _SCRIPT).read_bytes(), (root / _WASM).read_bytes())
        with tarfile.open(given) as archive:
            files = [archive.extractfile(f"package/{name}") for name in (_SCRIPT, _WASM)]
            return Runtime(*(file.read() for file in files if file is not None))
    except (OSError, KeyError, TypeError, tarfile.TarError, EOFError) as error:
        raise UserError(f"--runtime: {given}: not the package onnxruntime-web {VERSION} ({error})") from None


def cache_path() -> Path:
    """Return the package's path in the user's cache; it need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fast_nst" / ARCHIVE


def download() -> Path:
    """Download the package to the user's cache, unless it is already there. Return its path. Raises UserError."""
    path = cache_path()
    if path.exists():
        return path
    with tempfile.TemporaryDirectory() as folder:
        data = _download(Path(folder))
    if base64.b64encode(hashlib.sha512(data).digest()).decode() != _SHA512:
        raise UserError(f"{ARCHIVE}: the download is damaged; try again")
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
    return path


def _download(folder: Path) -> bytes:
    """Return the package, downloaded with npm, which knows the user's registry and proxy. Raises UserError."""
    package = f"onnxruntime-web@{VERSION}"
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(f"--runtime: downloading {package} needs npm; install npm, or give {ARCHIVE} as --runtime FILE")
    command = [npm, "pack", package, "--pack-destination", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"--runtime: npm cannot download {package} ({reason}); give {ARCHIVE} as --runtime FILE")
    return (folder / ARCHIVE).read_bytes()
