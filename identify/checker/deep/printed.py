"""The proof about the printed answer: no other set of at most r samples has its gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flint
import numpy as np

from ..outcome import BoolArray, FloatArray, IntArray, check_possible, require
from .case import Case
from .cubic import count_unknowns, has_full_rank, integer_gram

_PRIMES = (2147483629, 2147483587)
"""Other primes than the verifier's."""
_SECONDS = 4e-7
_OPERATIONS = 5e-10
_ENTRIES = 60_000_000
_MODULAR = 900
"""Columns up to which a rank modulo a prime is taken for one output."""
_UNIT = 2.0**-53


def check_printed(case: Case) -> tuple[str, str]:
    """The columns x_ji x_jk (i < k), x_ji A_jc and, leaky, A_jc A_jd have full rank.

    For degree 3 those of their products with each unknown.
    x_ji = (A_j . p_i) s_ji with the stated masks and slopes, exact fractions; full rank modulo a
    prime is full rank.
    """
    stated = case.report.raw["proof"]
    _name_missing(case, stated)
    masks, answer = case.masks, case.answer
    outputs = case.network.weights[-1]
    zero_sum = case.report.loss == "cross_entropy"
    n, q = len(answer.samples), len(outputs) - int(zero_sum)
    check_possible(case.space.shape[1] == q, "the output layer does not see all of p")
    live = np.abs(outputs).max(axis=0) > 0.0
    masks, amplitudes = masks[live], outputs.T[live]
    leak = case.network.leak
    size = n * (n - 1) // 2 + n * q + (q * (q + 1) // 2 if leak else 0)
    rows = len(masks)
    if case.degree == 3:
        size, rows = count_unknowns(n, q, leak) - n, rows * (n + q)
    if stated is not None and stated["holds"] is not None:
        require(stated["required"] == size, f"{size} columns are needed, not {stated['required']}")
    if rows < size:
        require(stated is None or not stated["holds"], f"{rows} rows for {size} columns")
        check_possible(False, f"{rows} rows for {size} columns")
    full, how = _is_full(case, masks, amplitudes, size, zero_sum)
    if stated is not None and stated["holds"] is not None:
        said = bool(stated["holds"]), stated["rank"] == size
        require(full is None or said == (full, full), "the rank of the stated answer is another")
        require(not stated["holds"] or _prime(stated["prime"]), "no prime number")
    check_possible(full is not None, "the rank of the stated answer is open")
    if not full and case.report.raw["method"] == "masks":
        return how, f"the rank is below {size}: the list of masks decides instead"
    require(bool(full), f"the masks admit other sets of {n} samples: the rank is below {size}")
    return how, f"rank {size} of {size}: no other set of at most {n} has exactly this gradient"


def _name_missing(case: Case, stated: Mapping[str, Any] | None) -> None:
    """A proof that was not asked for, or not finished, is made here, and not held to the report."""
    if stated is None or stated["holds"] is None:
        case.not_checked["proof"] = None
    elif stated["prime"] is None:
        case.not_checked["proof.prime"] = None


def _prime(value: object) -> bool:
    return value is None or (isinstance(value, int) and value > 1 and flint.fmpz(value).is_prime())


def _is_full(
    case: Case, masks: BoolArray, amplitudes: FloatArray, size: int, zero_sum: bool
) -> tuple[bool | None, str]:
    single, leak = amplitudes.shape[1] == 1, case.network.leak
    if single and not leak and size > _MODULAR:
        check_possible(size**2 <= _ENTRIES, f"too large: {size} columns")
        case.in_time((len(masks) * size**2 + size**3) / 2e9)
        gram = _gram(masks, size) if case.degree == 2 else integer_gram(masks.astype(np.float64))
        return (_is_positive(gram) or None), "float64 with rounding bounds"
    rows = len(masks) if case.degree == 2 else size
    check_possible(rows * size <= _ENTRIES, f"too large: {rows} rows, {size} columns")
    case.in_time(rows * size * (_SECONDS + _OPERATIONS * size))
    for prime in _PRIMES:
        other = _residues(np.array([leak]), prime)[0]
        if single:
            # Every row is divided by a_j^2 and every column by its p: the masks alone are left.
            a = np.ones((len(masks), 1), dtype=np.int64)
            x = np.where(masks, 1, other)
        else:
            a = _residues(amplitudes, prime)
            p = _residues(case.answer.cotangents, prime)
            if zero_sum:
                a, p = (a[:, :-1] - a[:, -1:]) % prime, p[:, :-1]
            x = np.zeros(masks.shape, dtype=np.int64)
            for c in range(a.shape[1]):
                x = (x + a[:, c : c + 1] * p[:, c] % prime) % prime
            x = x * np.where(masks, 1, other) % prime
        if case.degree == 3:
            full = has_full_rank(x, a, int(other) if leak else 0, prime)
        else:
            full = _rank(_columns(x, a, bool(leak), prime), prime) == size
        if full:
            return True, "exact"
    return False, "exact"


def _columns(x: IntArray, a: IntArray, leaky: bool, prime: int) -> IntArray:
    n, q = x.shape[1], a.shape[1]
    first, second = np.triu_indices(n, 1)
    parts = [x[:, first] * x[:, second] % prime]
    parts += [x[:, i : i + 1] * a % prime for i in range(n)]
    if leaky:
        first, second = np.triu_indices(q)
        parts.append(a[:, first] * a[:, second] % prime)
    return np.hstack(parts)


def _rank(matrix: IntArray, prime: int) -> int:
    rank = 0
    for count in dict.fromkeys((min(len(matrix), matrix.shape[1] + 40), len(matrix))):
        entries = matrix[:count].ravel().tolist()
        rank = int(flint.nmod_mat(count, matrix.shape[1], entries, prime).rank())
        if rank == matrix.shape[1]:
            break
    return rank


def _residues(values: FloatArray, prime: int) -> IntArray:
    """Float64 numbers modulo the prime: each is an integer over a power of 2."""
    found = []
    for number in values.ravel().tolist():
        top, bottom = number.as_integer_ratio()
        found.append(top % prime * pow(bottom, -1, prime) % prime)
    return np.array(found, dtype=np.int64).reshape(values.shape)


def _gram(masks: BoolArray, size: int) -> FloatArray:
    """The Gram matrix of the columns M_ji M_jk and M_ji, whose entries are exact counts."""
    x = masks.astype(np.float64)
    first, second = np.triu_indices(x.shape[1], 1)
    gram = np.zeros((size, size))
    step = max(1, 4_000_000 // size)
    for start in range(0, len(x), step):
        part = x[start : start + step]
        part = np.hstack([part[:, first] * part[:, second], part])
        gram += part.T @ part
    return gram


def _is_positive(gram: FloatArray) -> bool:
    """Whether an exact symmetric matrix is positive definite for sure."""
    # Rump 2006: the factorisation of a matrix that is not positive definite fails if its diagonal
    # is lowered by gamma_(n+1) / (1 - gamma_(n+1)) times its trace.
    size = len(gram)
    gamma = (size + 2) * _UNIT / (1.0 - (size + 2) * _UNIT)
    gram[np.diag_indices(size)] -= 4.0 * gamma * float(np.trace(gram)) + 1e-9
    try:
        np.linalg.cholesky(gram)
    except np.linalg.LinAlgError:
        return False
    return True
