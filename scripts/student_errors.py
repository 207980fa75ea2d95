"""How wrong a student is: of features, of Grams, and of the way from a picture's Gram to that of its painting."""

import statistics

from bases import OUTPUTS
from torch import Tensor

from fast_nst.losses.functional import gram

PAINTED = slice(2, 6)  # what of a batch the network in training has just painted
Grams = dict[str, tuple[Tensor, Tensor]]
Errors = dict[str, Tensor]


def feature_errors(found: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
    """Relative squared errors of features by layer, each (B,)."""
    errors = {}
    for name, target in targets.items():
        energy = target.square().mean((1, 2, 3)).clamp_min(1e-3)
        errors[name] = (found[name] - target).square().mean((1, 2, 3)) / energy
    return errors


def grams_of(found: dict[str, Tensor], targets: dict[str, Tensor]) -> Grams:
    """By layer, the Grams (B, K, K) of a student's outputs and of the teacher's."""
    return {name: (gram(found[name]), gram(targets[name])) for name in targets}


def relative(wrong: Tensor, reference: Tensor) -> Tensor:
    """Squared norms of matrices over those of others: (B, K, K), (B or 1, K, K) -> (B,)."""
    return wrong.square().sum((1, 2)) / reference.square().sum((1, 2)).clamp_min(1e-8)


def gram_errors(grams: Grams) -> dict[str, Tensor]:
    return {name: relative(ours - theirs, theirs) for name, (ours, theirs) in grams.items()}


def way_errors(grams: Grams, goal: Grams) -> dict[str, Tensor]:
    """The same of what a training goes by, the way from a picture's Gram to that of its painting, `goal`: an error that
    both have in common misleads nobody."""
    return {
        name: relative((ours - goal[name][0]) - (theirs - goal[name][1]), goal[name][1])
        for name, (ours, theirs) in grams.items()
    }


class Tally:
    """Means by whose they are and what of, "photographs", "painted", "Gram" and "way", by size and by layer."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str, str], list[float]] = {}

    def add(self, whose: str, divisor: int, features: Errors, grams: Errors, ways: Errors) -> None:
        for name in OUTPUTS:
            kinds = {
                "photographs": features[name][:2], "painted": features[name][PAINTED],
                "Gram": grams[name][PAINTED], "way": ways[name],
            }  # fmt: skip
            for kind, value in kinds.items():
                key = whose, f"{kind} / {divisor}", name
                self.values.setdefault(key, []).append(float(value.detach().mean()))

    def means(self) -> dict[str, dict[str, dict[str, float]]]:
        means: dict[str, dict[str, dict[str, float]]] = {}
        for (whose, kind, name), values in self.values.items():
            means.setdefault(whose, {}).setdefault(kind, {})[name] = round(statistics.mean(values), 4)
        return means
