"""Export a network as a torch.export program with free batch, height and width (`-o network.pt2`)."""

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from fast_nst.errors import RunError
from fast_nst.export.plain import PlainNetwork
from fast_nst.networks import Network

TOLERANCE = 1 / 255  # largest difference allowed between an exported network and the network itself
LARGEST_SIDE = 16384
_CHECKED = ((1, 64, 64), (2, 50, 77), (1, 131, 96))  # batch, height, width


def export_program(plain: PlainNetwork) -> ExportedProgram:
    """Trace `plain`; batch, height and width stay free."""
    batch = Dim("batch", min=1, max=4096)
    sizes = {0: batch, 2: Dim("height", min=plain.smallest, max=LARGEST_SIDE)}
    sizes[3] = Dim("width", min=plain.smallest, max=LARGEST_SIDE)
    example: tuple[Tensor, ...] = (torch.rand(2, 3, 256, 320),)  # a dimension of 1 would be taken as fixed
    dynamic: tuple[dict[int, Dim], ...] = (sizes,)
    if plain.conditional:
        example, dynamic = (*example, torch.rand(2, plain.num_styles)), (*dynamic, {0: batch})
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(plain, example, dynamic_shapes=dynamic)
    program.example_inputs = None  # they would be saved
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names folders of this machine
    return program


def save_program(program: ExportedProgram, path: Path, metadata: str) -> None:
    """Write `program` to `path`, a .pt2 file, with `metadata` as its extra file "fast_nst"."""
    with open(path, "wb") as file:
        torch.export.save(program, file, extra_files={"fast_nst": metadata})


def load_program(path: Path) -> Callable[..., Tensor]:
    """Return a function that runs the program in a .pt2 file."""
    with open(path, "rb") as file:
        return torch.export.load(file).module()


@torch.no_grad()
def check_equal(exported: Callable[..., Tensor], network: Network, plain: PlainNetwork) -> float:
    """Return the largest difference of `exported` from `network` at three sizes. Raises RunError above TOLERANCE."""
    generator, worst = torch.Generator().manual_seed(0), 0.0
    for batch, *sides in _CHECKED:
        height, width = (max(side, plain.smallest) for side in sides)
        inputs = [torch.rand(batch, 3, height, width, generator=generator)]
        if plain.conditional:
            inputs.append(torch.rand(batch, plain.num_styles, generator=generator) / plain.num_styles)
        difference = (exported(*inputs) - network(*inputs).clamp(0, 1)).abs().max()
        if not difference <= TOLERANCE:  # also for NaN
            raise RunError(
                f"the exported network differs from the network by {float(difference) * 255:.2f} of 255 at "
                f"{width} x {height}; nothing was written"
            )
        worst = max(worst, float(difference))
    return worst
