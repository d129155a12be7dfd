"""Checkpoints and histories: any damage is detected, every format is read, and a resumed run continues from them."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_run import FACTS, HISTORY, STATE
from named import named

import multidrop as md
from multidrop.section import checkpoint as checkpoints


def damaged(content: bytes, generator: np.random.Generator) -> bytes:
    """Content with one damage: mostly a byte that is another, half of them in the header."""
    header = 8 + int.from_bytes(content[:8], "little")
    place = int(generator.integers(header if generator.random() < 0.5 else len(content)))
    kind = generator.choice(["edit", "flip", "cut", "extend", "insert", "delete"], p=[0.5, 0.3, 0.05, 0.05, 0.05, 0.05])
    some = generator.bytes(int(generator.integers(1, 20)))
    if kind == "edit":
        other = (content[place] + int(generator.integers(1, 256))) % 256
        return content[:place] + bytes([other]) + content[place + 1 :]
    if kind == "flip":
        return content[:place] + bytes([content[place] ^ 1 << int(generator.integers(8))]) + content[place + 1 :]
    if kind == "cut":
        return content[:place]
    if kind == "extend":
        return content + some
    return content[:place] + some + content[place:] if kind == "insert" else content[:place] + content[place + 1 :]


def test_every_damage_of_a_checkpoint_is_noticed(path: Path, pytestconfig: pytest.Config) -> None:
    checkpoints.save(path, STATE, FACTS)
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(pytestconfig.getoption("--edits")):
        edited = damaged(content, generator)
        path.write_bytes(edited)
        with pytest.raises(md.CheckpointError, match=f"^{path}: "):
            checkpoints.load(path)


def test_every_byte_of_the_header_is_covered(path: Path) -> None:
    """Each of them, with a change that a JSON reader hardly sees: the lowest bit."""
    checkpoints.save(path, {"b1": np.ones(2)}, {"n": 1})
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(md.CheckpointError, match=str(path)):
            checkpoints.load(path)


def test_a_checkpoint_is_a_safetensors_file(path: Path) -> None:
    from safetensors import safe_open
    from safetensors.numpy import load_file

    checkpoints.save(path, STATE, FACTS)
    again = load_file(path)
    assert all(np.array_equal(again[name], array) and again[name].dtype == array.dtype for name, array in STATE.items())
    with safe_open(path, framework="numpy") as file:
        content = json.loads(file.metadata()["multidrop"])
    assert content["format"] == checkpoints.FORMAT
    assert content["facts"] == FACTS
    first = path.read_bytes()
    checkpoints.save(path, STATE, FACTS)
    assert path.read_bytes() == first


@pytest.mark.parametrize("facts", [{}, {"text": '"multidrop":"{\\"format\\": 2, "\\ü\0\ud800'}, {"n": [1, None, True]}])
def test_facts_come_back(path: Path, facts: dict[str, Any]) -> None:
    checkpoints.save(path, {"multidrop": np.zeros((0, 3)), '"': np.ones(1)}, facts)
    state, again = checkpoints.load(path)
    assert again == facts
    assert state["multidrop"].shape == (0, 3)


@pytest.mark.parametrize("bad", [{"x": object()}, {"x": {1: 2}}, {1: 2}, {"x": np.ones(2)}, {"x": 1j}, [1]], ids=named)
def test_facts_that_json_cannot_hold(path: Path, bad: Any) -> None:
    with pytest.raises(ValueError, match="facts: expected names and values that JSON can hold; got "):
        checkpoints.save(path, STATE, bad)
    assert os.listdir(path.parent) == []


def format_1(path: Path, content: str) -> None:
    """A file as the first format had it."""
    from safetensors.numpy import save_file

    save_file({"W1": np.arange(3.0)}, path, {"multidrop": content})


def test_the_first_format_is_read(path: Path) -> None:
    import hashlib

    digest = hashlib.blake2b(b"W1 float64 (3,);" + np.arange(3.0).tobytes(), digest_size=16).hexdigest()
    format_1(path, json.dumps({"format": 1, "digest": digest, "batches": 5}))
    state, facts = checkpoints.load(path)
    assert state["W1"].tolist() == [0, 1, 2]
    assert facts == {"batches": 5}
    path.write_bytes(path.read_bytes()[:-1] + b"\x41")
    with pytest.raises(md.CheckpointError, match="do not match its digest"):
        checkpoints.load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[1]", r"contents: expected a JSON object; got \[1\] \(list\)"),
        ("null", "contents: expected a JSON object"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("{}", "expected format 1 or 2; got None"),
        ('{"format": 3}', "expected format 1 or 2; got 3"),
        ('{"format": "1"}', "expected format 1 or 2; got '1'"),
        ('{"format": 2, "digest": "00"}', "expected format 1 or 2; got 2"),
        ('{"format": 1}', "do not match its digest"),
    ],
    ids=lambda text: text[:20],
)
def test_contents_that_are_wrong(path: Path, content: str, message: str) -> None:
    format_1(path, content)
    with pytest.raises(md.CheckpointError, match=rf"{path}: .*{message}"):
        checkpoints.load(path)


def test_types_that_numpy_lacks(path: Path) -> None:
    header = json.dumps({"W1": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(md.CheckpointError, match=f"{path}: cannot be read as a checkpoint"):
        checkpoints.load(path)


EPOCH = HISTORY.to_dict()["epochs"][0]


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {},
        {"settings": {}},
        {"epochs": []},
        {"settings": [], "epochs": []},
        {"settings": {}, "epochs": {}},
        {"settings": {}, "epochs": None},
        {"settings": {}, "epochs": [None]},
        {"settings": {}, "epochs": [{}]},
        {"settings": {}, "epochs": [{**EPOCH, "more": 1}]},
        {"settings": {}, "epochs": [{**EPOCH, "epoch": "1"}]},
        {"settings": {}, "epochs": [{**EPOCH, "epoch": None}]},
        {"settings": {}, "epochs": [{**EPOCH, "epoch": 2}]},
        {"settings": {}, "epochs": [{**EPOCH, "seconds": "2.0"}]},
        {"settings": {}, "epochs": [{**EPOCH, "seconds": True}]},
        {"settings": {}, "epochs": [EPOCH, EPOCH]},
    ],
    ids=lambda content: json.dumps(content)[:50],
)
def test_a_history_that_is_damaged(path: Path, content: Any) -> None:
    with pytest.raises(ValueError, match=r"(history|settings|epochs?( 1)?): .*expected .*; got "):
        md.History.from_dict(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"{path}: expected a history that to_json wrote: "):
        md.History.from_json(path)
    checkpoints.save(path, {}, {"history": content, "batches": [1, 0]})
    with pytest.raises(md.CheckpointError, match=f"{path}: not a checkpoint of a run: "):
        resumed(path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"NaN", b"[" * 100_000], ids=lambda content: repr(content[:9])
)
def test_a_history_that_is_no_json(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path}: expected a history that to_json wrote: "):
        md.History.from_json(path)


def test_settings_that_are_not_finite(path: Path) -> None:
    md.History({"clip": math.inf, "pair": (1, math.nan)}).to_json(path)
    assert json.loads(path.read_text(), parse_constant=pytest.fail)["settings"] == {"clip": None, "pair": [1, None]}


def resumed(path: Path, **options: Any) -> md.History:
    """A run of two epochs on a few examples that goes on from a file, or begins it."""
    md.manual_seed(1)
    with md.use_backend("numpy"):
        generator = np.random.default_rng(0)
        images, labels = (
            generator.integers(0, 256, (8, 28, 28), np.uint8),
            generator.integers(0, 10, 8).astype(np.uint8),
        )
        batches = md.Batches(
            images, labels, 4, md.dispatch.load("numpy"), key=md.Key(3, 5), dtype="float32", source="noise"
        )
        test = list(batches)  # which passes over them once
        batches.epoch = 0
        net = md.Net(num_hiddens1=4, num_hiddens2=4)
        before = {name: array.copy() for name, array in md.dispatch.load("numpy").get_state(net).items()}
        try:
            return md.train(net, batches, test, options.pop("epochs", 2), checkpoint=path, resume=True, **options)
        except BaseException:
            after = md.dispatch.load("numpy").get_state(net)
            assert all(np.array_equal(after[name], array) for name, array in before.items())
            raise


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batches": None}, "not a checkpoint of a run: batches: expected an integer"),
        ({"batches": "5"}, "not a checkpoint of a run: batches: expected an integer"),
        ({"batches": [1, -1]}, "not a checkpoint of a run: call: expected an integer"),
        ({"batches": [1, 2, 3]}, "not a checkpoint of a run: batches: expected an integer"),
        ({"history": None}, "not a checkpoint of a run: history: expected"),
        (
            {"W1": np.zeros((784, 4), np.float64)},
            "belongs to a different net: state: expected W1 of type float32; got float64",
        ),
        (
            {"W1": np.zeros((784, 4), np.int32)},
            "belongs to a different net: state: expected W1 of type float32; got int32",
        ),
        ({"dropout1": np.ones(2)}, "belongs to a different net: state: expected dropout1 of type uint64; got float64"),
        ({"W1": np.zeros((4, 784), np.float32)}, "belongs to a different net: state: expected W1 of shape"),
        ({"W9": np.zeros(1)}, r"belongs to a different net: state: expected .* unknown \['W9'\]"),
        ({"W1": None}, r"belongs to a different net: state: expected .* missing \['W1'\]"),
    ],
    ids=str,
)
def test_a_checkpoint_of_other_facts_or_arrays(path: Path, changes: dict[str, Any], message: str) -> None:
    """With a digest that is right."""
    resumed(path, epochs=1)
    state, facts = checkpoints.load(path)
    (name,) = changes
    if name in facts:
        facts = {key: v for key, v in (facts | changes).items() if v is not None}
    else:
        state = {key: v for key, v in (state | changes).items() if v is not None}
    checkpoints.save(path, state, facts)
    before = path.read_bytes()
    with pytest.raises(md.CheckpointError, match=f"{path}: {message}"):
        resumed(path)
    assert path.read_bytes() == before


def test_the_whole_key_of_the_batches_is_kept(path: Path) -> None:
    whole = resumed(path.with_name("whole"))
    resumed(path, epochs=1)
    assert checkpoints.load(path)[1]["batches"] == [3, 5]
    parts = resumed(path)
    assert [epoch.train_loss for epoch in parts.epochs] == [epoch.train_loss for epoch in whole.epochs]


def test_settings_are_compared_as_json_has_them(path: Path) -> None:
    for epochs in (1, 2):
        history = resumed(path, epochs=epochs, settings={"hidden": (4, 4), "clip": math.inf, "n": np.int64(1)})
    assert len(history.epochs) == 2
    with pytest.raises(ValueError, match="settings: expected names and values that JSON can hold; got "):
        resumed(path, settings={"x": object()})
    for bad in (3, b"x", "a\0b"):
        with pytest.raises(ValueError, match="checkpoint: expected the path of a file"):
            resumed(bad)  # type: ignore[arg-type]  # on purpose


def test_a_path_that_cannot_be_a_checkpoint(tmp_path: Path) -> None:
    """Is named; nobody is told to delete a folder."""
    with pytest.raises(md.CheckpointError, match=r": expected the path of a file; got that of a folder"):
        resumed(tmp_path)
    with pytest.raises(md.CheckpointError, match=r"could not be written \(File name too long\)"):
        resumed(tmp_path / ("x" * 300))


def test_a_header_in_another_form_is_not_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_place", lambda data: None)
    with pytest.raises(md.CheckpointError, match="this version of safetensors writes its header differently"):
        checkpoints.save(path, {}, {})
    assert not path.exists()
