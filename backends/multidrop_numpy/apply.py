"""Members of the dropout family on NumPy arrays, and their gradients, since NumPy has no autograd."""

from __future__ import annotations

import numpy.typing as npt

from multidrop.family import Member, oracle
from multidrop.family import checked as checked_member
from multidrop.spec.keys import Key, as_key

from .functional import Array, floating, next_key, tensor


def apply(
    member: Member,
    X: npt.ArrayLike,
    key: int | Key | None = None,
    *,
    start: int = 0,
    learned: npt.ArrayLike | None = None,
) -> Array:
    """`multidrop.apply` for arrays; args, result and errors are those."""
    X = floating(tensor(X))
    logit = None if learned is None else floating(tensor(learned, name="learned"), "learned")
    key, start = _checked(member, X, key, start, logit)
    return oracle.apply(member, X, key, start, learned=logit)


def gradient(member: Member, dY: npt.ArrayLike, key: int | Key, *, start: int = 0) -> Array:
    """The gradient of `apply` with respect to X.

    Args:
        member: the member.
        dY: the gradient with respect to the output.
        key: the key of the call.
        start: the index of X's first element.

    Returns:
        An array of dY's shape and type.

    Raises:
        ValueError, TypeError: as `apply`.
    """
    dY = floating(tensor(dY, name="dY"), "dY")
    key, start = _checked(member, dY, key, start, None)
    return oracle.apply(member, dY, key, start, gradient=True)


def _checked(member: Member, X: Array, key: int | Key | None, start: int, learned: Array | None) -> tuple[Key, int]:
    """Checks the arguments, and returns key and start. The key is drawn last: a call that fails takes none."""
    start = checked_member(member, learned, X.shape).check(X.shape, start)
    return next_key(X.size == 0 or (member.idle and learned is None)) if key is None else as_key(key), start
