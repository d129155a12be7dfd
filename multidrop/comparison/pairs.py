"""Pairs the layers of one model with those of the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ..conversion import shown_path
from .parts import DROPOUT, Part
from .side import Side


class Pair(NamedTuple):
    """A layer of one model and its counterpart in the other."""

    paths: tuple[str, str]
    kind: str
    weights: Sequence[str] = ()
    """The names of its weights; empty for a dropout."""
    same_output: bool = True
    """Whether the outputs can be compared. If one applies an activation and the other leaves that to a separate layer,
    only the inputs can."""


def pair(a: Side, b: Side, pairs: Mapping[str, str]) -> list[Pair]:
    """Pairs the layers of both models, the k-th with the k-th except for those in `pairs`, and numbers them in both.

    Raises:
        ValueError: if the models have different layers, weights or shapes, or share a dropout layer.
    """
    both_have = [x for x, layer in a.dropouts.items() if any(layer is other for other in b.dropouts.values())]
    if both_have:
        raise ValueError(f"models: expected separate dropout layers; got {shown_path(both_have[0])} in both models")
    unknown = [f"{x!r}: {y!r}" for x, y in pairs.items() if not _alike(a, x, b, y)]
    if unknown:
        raise ValueError(
            f"pairs: expected paths of layers with weights or of dropouts in both models; got {unknown[0]}"
        )
    if len(set(pairs.values())) < len(pairs):
        raise ValueError(f"pairs: expected each layer of the second model once; got {pairs}")
    found = []
    for path_a, path_b in _matched("layers with weights", (a, a.parts), (b, b.parts), pairs):
        part_a, part_b = a.parts[path_a], b.parts[path_b]
        _check_shapes(a, part_a, b, part_b)
        same = part_a.activation == part_b.activation
        found.append(Pair((path_a, path_b), part_a.kind, tuple(part_a.weights), same))
    for paths in _matched("dropout layers", (a, a.dropouts), (b, b.dropouts), pairs):
        found.append(Pair(paths, DROPOUT))
    found.sort(key=lambda both: a.order(both.paths[0]))
    a.number_layers(both.paths[0] for both in found)
    b.number_layers(both.paths[1] for both in found)
    return found


def _alike(a: Side, x: str, b: Side, y: str) -> bool:
    return (x in a.parts and y in b.parts) or (x in a.dropouts and y in b.dropouts)


def _matched(
    kind: str, of_a: tuple[Side, Iterable[str]], of_b: tuple[Side, Iterable[str]], pairs: Mapping[str, str]
) -> list[tuple[str, str]]:
    (a, paths_a), (b, paths_b) = ((side, list(paths)) for side, paths in (of_a, of_b))
    if len(paths_a) != len(paths_b):
        listed = "; ".join(
            f"{s.name} has {len(p)}: {', '.join(map(shown_path, p))}" for s, p in ((a, paths_a), (b, paths_b))
        )
        listed = "; not keyed: ".join([listed, *a.unreached, *b.unreached])
        raise ValueError(f"models: expected as many {kind} in both; {listed}")
    rest = iter([path for path in paths_b if path not in pairs.values()])
    return [(path, pairs[path] if path in pairs else next(rest)) for path in paths_a]


def _check_shapes(a: Side, part_a: Part, b: Side, part_b: Part) -> None:
    """Checks that two layers can hold the same weights. Sizes of 1 are ignored, because frameworks place them
    differently, as in depthwise convolutions."""
    shapes = [
        {name: tuple(n for n in side.weight_shape(part, name) if n != 1) for name in part.weights}
        for side, part in ((a, part_a), (b, part_b))
    ]
    if shapes[0] != shapes[1]:
        told = "; ".join(
            f"{shown_path(part.path)} of {side.name}, {part.kind}: {shape}"
            for (side, part), shape in zip(((a, part_a), (b, part_b)), shapes, strict=True)
        )
        raise ValueError(f"models: expected layers with weights of the same shapes in the same order; got {told}")
