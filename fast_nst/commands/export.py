"""Export trained networks: to ONNX, to a program of torch.export, or to a web page that repaints photographs.

python scripts/export.py starry_night.safetensors -o starry_night.onnx
"""

import argparse
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fast_nst import weights
from fast_nst.commands import cli
from fast_nst.errors import RunError, UserError
from fast_nst.export.plain import PlainNetwork
from fast_nst.image import atomic_write
from fast_nst.networks import Network

SUFFIXES = (".onnx", ".pt2")


def parse() -> argparse.Namespace:
    parser = cli.Parser(description="Export trained networks.")
    parser.add_argument("weights", metavar="WEIGHTS", nargs="+")
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, required=True, help="ends in .onnx or .pt2")
    parser.add_argument(
        "--precision", choices=("float16", "float32"), default="float16",
        help="how an .onnx file stores the weights; it computes in float32",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    return parser.parse_args()


def check_installed() -> None:
    """Raises UserError if what an ONNX file needs is not installed."""
    if missing := [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]:
        raise UserError(f"-o: {', '.join(missing)} not installed; run: pip install 'fast-nst[export]'")


def export_network(network: Network, description: dict[str, Any], output: Path, half: bool) -> float:
    """Write one network to `output`; return its largest difference from the network. Raises RunError."""
    from fast_nst.export import onnx, program  # they import torch's exporter, which takes seconds

    plain, metadata = PlainNetwork(network), json.dumps(description)
    exported = program.export_program(plain)
    with atomic_write(output) as temporary:
        if output.suffix == ".onnx":
            temporary.write_bytes(onnx.to_onnx(exported, metadata, half).SerializeToString())
            try:
                return program.check_equal(onnx.run_with_onnxruntime(temporary), network, plain)
            except RunError as error:
                raise RunError(f"{error}; --precision float32 is exact" if half else str(error)) from None
        program.save_program(exported, temporary, metadata)
        return program.check_equal(program.load_program(temporary), network, plain)


def main() -> None:
    arguments = parse()
    output: Path = arguments.output
    if output.suffix not in SUFFIXES:
        raise UserError(f"-o {output}: cannot write this format; give one of {', '.join(SUFFIXES)}")
    if len(arguments.weights) > 1:
        raise UserError(f"-o {output}: is of one network, and there are {len(arguments.weights)} weights files")
    cli.check_new("-o", output, arguments.overwrite, arguments.weights)
    if output.suffix == ".onnx":
        check_installed()
    network, description = weights.load(Path(arguments.weights[0]).expanduser())
    difference = export_network(network, description, output, arguments.precision == "float16")
    size = output.stat().st_size / 1e6
    print(f"{output}: {size:.1f} MB, within {max(difference * 255, 0.01):.2f} of 255 of the network")


def command_line() -> None:
    cli.run(main)
