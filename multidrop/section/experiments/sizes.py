"""What the sizes of a scale are called in the reports."""

from __future__ import annotations

from collections.abc import Mapping

from .words import Text

_NAMES: Mapping[str, Text] = {
    "angles": Text("angles (degrees)", "açılar (derece)"),
    "batch": Text("batch size", "minigrup boyutu"),
    "decay": Text("weight decay λ", "ağırlık sönümü λ"),
    "doublings": Text("doublings of the steps", "adım sayısının ikiye katlanması"),
    "epochs": Text("epochs", "dönem"),
    "every": Text("epochs between measurements", "ölçümler arası dönem"),
    "examples": Text("examples of the linear model", "doğrusal modelin örnekleri"),
    "features": Text("features", "öznitelik"),
    "first": Text("first measured step", "ölçülen ilk adım"),
    "forgotten": Text("steps before the average", "ortalama öncesi adım"),
    "halves": Text("halves drawn", "çekilen yarı"),
    "hidden": Text("units per hidden layer", "gizli katman başına birim"),
    "images": Text("training images", "eğitim imgesi"),
    "lr": Text("learning rate", "öğrenme hızı"),
    "p": Text.same("p"),
    "p1": Text.same("p1"),
    "p2": Text.same("p2"),
    "recorded": Text("recorded images", "kaydedilen imge"),
    "replicas": Text("replicas", "yineleme"),
    "samples": Text("samples", "örneklem"),
    "settle": Text("epochs at a tenth of the rate", "hızın onda biriyle dönem"),
    "shown": Text("σ shown", "gösterilen σ"),
    "sigmas": Text.same("σ"),
    "small": Text("small σ", "küçük σ"),
    "stddev": Text("σ of the noise", "gürültünün σ'sı"),
    "tests": Text("test images", "test imgesi"),
    "trained": Text("σ in training", "eğitimde σ"),
    "validation": Text("validation images", "doğrulama imgesi"),
}


def name_of(size: str) -> Text:
    """The name of a size in both languages; one that is not listed keeps its own."""
    return _NAMES.get(size, Text.same(size))
