"""MNIST digits (LeCun, Cortes, Burges 1998) as content images: shapes on a flat ground."""

import os
import shutil
from pathlib import Path

from PIL import Image

from fast_nst.errors import UserError, one_line


class Mnist:
    """The training digits by index, RGB, 28x28, 60,000 in the full set; read from `root`, downloaded if missing.

    train: False for the test digits. labels: the digit that each image shows. Raises UserError if the download fails.
    """

    def __init__(self, root: str | os.PathLike[str], train: bool = True) -> None:
        import torchvision  # slow (2 s) and needed only here

        folder = Path(root) / "MNIST"
        found = folder.exists()
        try:
            self.digits = torchvision.datasets.MNIST(root, train=train, download=True)
        except (OSError, RuntimeError) as error:
            if not found:
                shutil.rmtree(folder, ignore_errors=True)
            reason = one_line(error).partition(". ")[0][:200]
            raise UserError(
                f"data.root: {root}: MNIST is missing and cannot be downloaded ({reason}); put its four "
                f"*-ubyte.gz files into {folder / 'raw'}; for pictures of your own, add data=folder"
            ) from None
        self.labels: list[int] = self.digits.targets.tolist()

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, index: int) -> Image.Image:
        return self.digits[index][0].convert("RGB")
