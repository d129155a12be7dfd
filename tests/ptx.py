"""Runs PTX, the assembly that the kernels for GPUs hold, on the host: a line at a time, for all threads together."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

OPERATIONS: dict[str, Callable[..., Any]] = {
    "mov": lambda a: a,
    "cvt": lambda a: a,
    "not": lambda a: ~a,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "shr": lambda a, b: a >> b,
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul.lo": lambda a, b: a * b,
    "mul.hi": lambda a, b: (a * b) >> np.uint64(32),
    "setp.eq": lambda a, b: a == b,
    "setp.ne": lambda a, b: a != b,
    "setp.lt": lambda a, b: a < b,
    "setp.lt.and": lambda a, b, p: (a < b) & p,
}


def run(text: str, results: int, given: Sequence[Any], steps: list[str] | None = None) -> list[Any]:
    """The results of assembly, uint64 of shape (threads,).

    Args:
        text: the assembly; its operands are the results, and then what is given.
        results: how many results there are.
        given: what each thread is given, unsigned integers of shape (threads,).
        steps: gets the lines in the order in which they are run.

    Raises:
        KeyError: for an instruction that is not known here, or a register that was not written.
    """
    lines = [line.strip() for line in re.split(r";|(?<=:)|(?<=\{) (?=\.)", text.strip().removesuffix("}").strip(" {"))]
    lines = [line for line in lines if line and not line.startswith(".reg")]
    labels = {line[:-1]: number for number, line in enumerate(lines) if line.endswith(":")}
    threads = len(given[0])
    registers: dict[str, Any] = {f"${i}": np.asarray(each, np.uint64) for i, each in enumerate(given, results)}
    at = np.zeros(threads, np.int64)  # where each thread is

    def value(name: str) -> Any:
        return np.uint64(int(name, 0)) if name[0].isdigit() else registers[name]

    def write(name: str, new: Any, where: Any) -> None:
        new = np.broadcast_to(new, (threads,))
        registers[name] = np.where(where, new, registers.get(name, np.zeros_like(new)))

    while (number := int(at.min())) < len(lines):
        where = at == number
        at[where] += 1
        line = lines[number]
        if steps is not None:
            steps.append(line)
        if line.endswith(":"):
            continue
        if line.startswith("@p "):
            where, line = where & registers["p"], line[3:]
        operation, rest = line.split(" ", 1)
        if operation == "bra":
            at[where] = labels[rest]
            continue
        kind, *types = re.split(r"\.(?=[bu]\d)", operation)
        if rest.startswith("{"):  # both halves of a register
            halves, source = rest.removeprefix("{").split("}, ")
            low, high = halves.split(", ")
            write(low, value(source) & np.uint64(2**32 - 1), where)
            write(high, value(source) >> np.uint64(32), where)
            continue
        target, *sources = rest.split(", ")
        new = OPERATIONS[kind](*(value(name) for name in sources))
        write(target, new if kind.startswith("setp") or "64" in types[0] else new & np.uint64(2**32 - 1), where)
    return [registers[f"${i}"] for i in range(results)]
