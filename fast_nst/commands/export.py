"""Export trained networks: to ONNX, to a torch.export program, or to a web page that repaints photographs.

python scripts/export.py starry_night.safetensors -o starry_night.onnx
python scripts/export.py starry_night.safetensors cubist.safetensors -o paint.html
"""

import argparse
import json
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fast_nst import weights
from fast_nst.atomic import atomic_write
from fast_nst.commands import cli
from fast_nst.errors import RunError, UserError
from fast_nst.export.plain import PlainNetwork
from fast_nst.networks import Network
from fast_nst.stylize import choice

SUFFIXES = (".onnx", ".pt2", ".html")


def parse() -> argparse.Namespace:
    parser = cli.Parser(description="Export trained networks.")
    parser.add_argument("weights", metavar="WEIGHTS", nargs="+", help="trained networks; several only for a page")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("-o", "--output", metavar="FILE", type=Path, help=f"a file that ends in {', '.join(SUFFIXES)}")
    target.add_argument("--folder", metavar="DIR", type=Path, help="write the page as a folder of files, for a website")
    parser.add_argument(
        "--precision", choices=("float16", "float32"), default="float16",
        help="how .onnx and pages store the weights; they compute in float32",
    )  # fmt: skip
    parser.add_argument(
        "--runtime", metavar="FILE", type=Path,
        help="onnxruntime-web as a .tgz or folder, for a page; otherwise it is downloaded once (33 MB)",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    return parser.parse_args()


def check_installed() -> None:
    """Raise UserError if a package that an ONNX file needs is not installed."""
    if missing := [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]:
        raise UserError(f"export: {', '.join(missing)} not installed; run: pip install 'fast-nst[export]'")


def check(arguments: argparse.Namespace) -> None:
    """Raise UserError unless the output can be written."""
    output, files = arguments.output, arguments.weights
    if output is None:
        folder: Path = arguments.folder
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--folder: {folder}: is a file")
        cli.check_new("--folder", folder / "index.html", arguments.overwrite, files)
    else:
        if output.suffix not in SUFFIXES:
            raise UserError(f"-o {output}: cannot write this format; give one of {', '.join(SUFFIXES)}")
        if len(files) > 1 and output.suffix != ".html":
            raise UserError(f"-o {output}: got {len(files)} weights files; allowed: one; only .html takes several")
        cli.check_new("-o", output, arguments.overwrite, files)
    if output is None or output.suffix != ".pt2":
        check_installed()


def load(name: str) -> tuple[Network, dict[str, Any]]:
    """Load a network and its description.

    name: FILE, FILE:STYLE or a bundled style's name. If it names a style, only that style is kept.
    """
    file, style = choice.find_weights(name)
    network, description = weights.load(file)
    if style is None:
        return network, description
    chosen, _ = choice.choose(network, description, style)
    return chosen, {**description, "style": {"names": [style]}}


def export_network(network: Network, description: dict[str, Any], output: Path, half: bool) -> float:
    """Write `network` to `output`; return how far its outputs and the file's differ at most. Raises RunError."""
    from fast_nst.export import onnx, program  # they import torch's exporter, which takes seconds

    plain, metadata = PlainNetwork(network), json.dumps(description)
    exported = program.export_program(plain)
    with atomic_write(output) as temporary:
        if output.suffix == ".onnx":
            temporary.write_bytes(onnx.to_onnx(exported, plain, metadata, half).SerializeToString())
            try:
                return program.check_equal(onnx.run_with_onnxruntime(temporary), network, plain)
            except RunError as error:
                raise RunError(f"{error}; --precision float32 is exact" if half else str(error)) from None
        program.save_program(exported, temporary, metadata)
        return program.check_equal(program.load_program(temporary), network, plain)


def export_page(arguments: argparse.Namespace) -> None:
    """Write a page with all networks. Raises RunError, UserError."""
    import onnx

    from fast_nst.export import page
    from fast_nst.export.runtime import find_runtime

    loaded = [load(name) for name in arguments.weights]
    runtime, models = find_runtime(arguments.runtime), []
    with tempfile.TemporaryDirectory() as folder:
        file, paths = Path(folder) / "network.onnx", tqdm(arguments.weights, unit="network", disable=None)
        for path, (network, description) in zip(paths, loaded, strict=True):
            export_network(network, description, file, arguments.precision == "float16")
            plain = PlainNetwork(network)
            models.append(page.PageModel(plain, onnx.load(file), page.name_styles(description, plain, Path(path).stem)))
    if arguments.output is None:
        page.write_folder(page.build_files(models, runtime), arguments.folder)
        print(f"{arguments.folder}: upload this folder; to try it: python -m http.server -d {arguments.folder}")
    else:
        with atomic_write(arguments.output) as temporary:
            temporary.write_text(page.build_page(models, runtime), encoding="utf-8")
        size = arguments.output.stat().st_size / 1e6
        print(f"{arguments.output}: {size:.1f} MB; open it in a browser, no server needed")


def main() -> None:
    arguments = parse()
    check(arguments)
    output = arguments.output
    if output is None or output.suffix == ".html":
        export_page(arguments)
        return
    network, description = load(arguments.weights[0])
    difference = export_network(network, description, output, arguments.precision == "float16")
    size = output.stat().st_size / 1e6
    print(f"{output}: {size:.1f} MB; differs from the network by at most {max(difference * 255, 0.01):.2f} of 255")


def command_line() -> None:
    cli.run(main)
