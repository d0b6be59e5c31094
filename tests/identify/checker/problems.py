"""A small producer of certified reports for the tests of the checker, in plain numpy."""

from __future__ import annotations

import hashlib
import json
import math
from itertools import combinations, combinations_with_replacement

import numpy as np
import scipy.linalg
import scipy.stats

from identify.checker.check import check_report
from identify.checker.outcome import CheckInputError

UNIT = 2.0**-53
SHIFT = 44


def network_hash(arrays, degree):
    digest = hashlib.sha256(f"monomial {degree}\n".encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
    return digest.hexdigest()


def sign(report):
    """Renew the digest, as somebody who forges a report would."""
    content = {k: v for k, v in report.items() if k not in ("seconds", "versions")}
    content["certificate"] = {k: v for k, v in report["certificate"].items() if k != "digest"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    report["certificate"]["digest"] = hashlib.sha256(text.encode()).hexdigest()
    return report


def second_share(u, scales, q, degree, rho):
    """Median share of the data that a second sample next to a lone one could have, one by one."""
    rng = np.random.default_rng(5)
    others = rng.standard_normal((384, len(q)))
    own = scales * (u @ q) ** (degree - 1)
    shares = []
    for other, t in zip(others, rng.random(384), strict=True):
        x = (1.0 - t) * q + t * other / np.linalg.norm(other)
        x = x / np.linalg.norm(x)
        psi = scales * (u @ x) ** (degree - 1)
        left = np.linalg.norm(x - (q @ x) * q) * np.linalg.norm(psi - psi @ own / (own @ own) * own)
        shares.append(min(1.0, 10.0 * rho * np.linalg.norm(psi) / max(left, 1e-300)))
    return float(np.median(shares))


def exponents(order, r):
    rows = list(combinations_with_replacement(range(r), order))
    return np.array([[row.count(axis) for axis in range(r)] for row in rows])


def powers(points, order):
    """Bombieri-Weyl coordinates of the powers of points."""
    table = exponents(order, points.shape[1])
    scale = [math.factorial(order) / math.prod(map(math.factorial, row)) for row in table]
    return np.prod(points[:, None] ** table, axis=2) * np.sqrt(scale)


def hermite_rows(points, degree):
    """H by differentiating the powers, slowly."""
    table = exponents(degree, points.shape[1])
    rows = []
    for point in points:
        for axis in range(len(point)):
            lower = table.copy()
            lower[:, axis] -= 1
            value = np.prod(point ** np.maximum(lower, 0), axis=1) * table[:, axis] / degree
            rows.append(value * powers(np.ones((1, len(point))), degree)[0])
    return np.array(rows)


class Problem:
    """Planted samples, their network and gradient as arrays, and the report."""

    source = "gradient"
    scale = "free"
    left = 0
    given = None

    @classmethod
    def stationary(cls, coefficients, scale="free"):
        """Orthonormal samples and all eigenvectors of sum_i b_i x_i^3, balanced: a KKT point.

        For equal |b_i| all |f(x_i)| are equal, too.
        """
        problem = cls.__new__(cls)
        b = np.array(coefficients)
        r = len(b)
        x = np.linalg.qr(np.random.default_rng(r).normal(size=(r + 2, r)))[0].T
        subsets = [s for n in range(1, r + 1) for s in combinations(range(r), n)]
        v = np.array([sum(x[i] / b[i] for i in s) for s in subsets])
        # w = c v, 3 a c = 1, |w|^2 = 3 a^2.
        c = (3.0 * np.sum(v**2, axis=1)) ** -0.25
        problem.degree, problem.r = 3, r
        problem.u, problem.scales = c[:, None] * v, 1.0 / c
        problem.model = {"hidden.weight": problem.u, "output.weight": problem.scales / 3.0}
        problem.rows, problem.samples, problem.coefficients = problem.u, x, b
        problem.source, problem.scale, problem.gradient = "kkt", scale, None
        return problem

    def __init__(self, degree, r, seed=0, *, d=5, extra=False):
        rng = np.random.default_rng([degree, r, seed])
        self.degree, self.r = degree, r
        count = math.comb(r + degree - 1, degree)
        m = max(-(-count // r) + 3, r + 3)
        x = rng.normal(size=(r, d))
        b = rng.uniform(0.5, 2.0, r) * rng.choice([-1.0, 1.0], r)
        w, a = rng.normal(size=(m, d)), rng.uniform(0.5, 2.0, m) * rng.choice([-1.0, 1.0], m)
        self.u = w
        self.samples, self.coefficients = x, b
        if extra:  # one more sample in the span of the others
            x, b = np.vstack([x, rng.normal(size=r) @ x]), np.append(b, 1.0)
        self.everything = x, b
        inner = w @ x.T
        rows = degree * a[:, None] * ((inner ** (degree - 1) * b) @ x)
        self.model = {"hidden.weight": w, "output.weight": a}
        self.gradient = {"hidden.weight": rows, "output.weight": inner**degree @ b}
        self.rows, self.scales = rows, degree * a

    def certify(self):
        degree, r = self.degree, self.r
        # The last neurons may be outside the equations.
        kept = slice(None, len(self.u) - self.left)
        u, rows, scales = self.u[kept], self.rows[kept], self.scales[kept]
        count = math.comb(r + degree - 1, degree)
        _, sigma, right = np.linalg.svd(rows / np.abs(rows).max())
        basis = right[:r].T
        order = np.argsort(-np.abs(scales) * np.linalg.norm(u @ basis, axis=1) ** (degree - 1))
        neurons = order[:1] if r == 1 else order
        length, height = (np.linalg.norm(u[neurons], axis=1).max(),
                          np.abs(scales[neurons]).max())  # fmt: skip
        unit = np.abs(rows[neurons]).max()
        v = u @ basis / length
        lengths = np.linalg.norm(v, axis=1)
        w = np.abs(scales) / height * lengths ** (degree - 1)
        p = v / lengths[:, None]
        sides = np.sign(scales)[:, None] * (rows @ basis) / unit
        points = np.round(p[neurons] * 2.0**SHIFT).astype(np.int64)
        scale = unit / height / length ** (degree - 1)
        z = (self.samples @ basis) * (np.abs(self.coefficients) / scale)[:, None] ** (1 / degree)
        signs = np.sign(self.coefficients)
        largest = np.argsort(-np.linalg.norm(z, axis=1))
        z, signs = z[largest], signs[largest]

        consistency = self._consistency()
        full, ambient = len(self.u), basis.shape[0]
        inner = self.u[full - self.left :] @ self.samples.T
        told = self.scales[full - self.left :, None] * (
            (inner ** (degree - 1) * self.coefficients) @ self.samples
        )
        missing = self.rows[full - self.left :] - told
        missing = float(np.linalg.norm(missing) / np.linalg.norm(self.rows)) if self.left else 0.0
        # Rows that show the noise, and no more.
        rho = max(consistency, 1e-13, missing if missing < 1e-6 else 0.0)
        model = ((p @ z.T) ** (degree - 1) * signs) @ z * w[:, None] - sides
        residual = float(np.linalg.norm(model) / np.linalg.norm(sides))
        outside = (rows - rows @ basis @ basis.T) / unit
        off_span = float(np.linalg.norm(outside) / np.linalg.norm(rows / unit))
        linear = 1e-16
        q = 1 if r == 1 else -(-count // r) + 1
        smallest = 0.9 * float(
            np.linalg.svd(hermite_rows(points[:q] * 2.0**-SHIFT, degree), compute_uv=False)[-1]
        )
        radius = 0.5 * smallest / (math.sqrt(q) * (degree - 1) * 1.5 ** (degree - 2))
        bounds, worst = self._bounds(p, w, z, signs, sides, outside, residual, consistency)
        box = self._box(p[neurons], w[neurons], z, signs, sides[neurons], rho)
        given = r if self.given is None and degree == 3 and r <= 2 else self.given or None
        spare = count - r * r
        k = len(neurons)
        equations = k * r
        gap = None if ambient == r else float(sigma[r - 1] / sigma[r])
        flat, whole = (self._spread(p[neurons], n) for n in (degree - 1, degree))

        def row(name, holds, required, found, evidence="numerical"):
            return {"name": name, "holds": holds, "required": required, "found": found,
                    "evidence": evidence, "source": ""}  # fmt: skip

        exact, interval = "proved_exact", "proved_interval"
        tolerance = max(rho, 2.0**-SHIFT * math.sqrt(r))
        inputs = {"model": self.model}
        first = row("balance", True, 0.01, consistency)
        if self.source == "gradient":
            inputs["gradient"] = self.gradient
            first = row("consistency", True, 0.03, consistency)
        ties = [row("tie", True, self._tie_width(bounds, rho), 0.0)] if self.scale == "unit" else []
        # A permutation of the neurons exchanges all samples: the ties between them are empty.
        share = max(1.0, math.sqrt(self.left * ambient / (full * r)))
        limit = 10.0 * rho * share
        outside_rows = [row("leftover", missing <= limit, limit, missing)] if self.left else []
        weighed = []
        if r > 1:
            hidden = self._hidden(p, w, z, signs, basis, rho, largest)
            weighed = [row("hidden share", hidden <= 0.1 or given == r, 0.1, hidden)]
        elif self.source == "gradient":
            hidden = second_share(u, scales, basis[:, 0], degree, rho)
            weighed = [row("hidden share", hidden <= 0.1 or given == r, 0.1, hidden)]
        words = {
            "kkt": "the weights are a KKT point of the max-margin problem, up to scale",
            "gradient": "the gradient is that of the loss of one batch at these weights",
        }
        assumptions = [words[self.source]]
        assumptions += [f"exactly {given} active samples (--samples)"] if given else []
        assumptions += ["all samples have norm 1 (--scale unit)"] if ties else []
        report = {
            "schema_version": 1,
            "verdict": "globally",
            "reason": "planted",
            "scope": {"kind": "at_most", "samples": r},
            "spans_input_space": ambient == r,
            "symmetries": [],
            "sample_count": r,
            "evidence": interval,
            "strengthen": [],
            "conditions": [
                first,
                row("span", True, 100.0, gap),
                row("I-hermite", True, count, count, exact),
                row("I-flat", flat[1] >= flat[0], *flat),
                row("I-value", whole[1] >= whole[0], *whole),
                row("decomposition", True, 10.0 * rho, residual, interval),
                *outside_rows,
                row("redundancy", spare >= 1 or given == r, 1, spare, exact),
                *weighed,
                *ties,
                row("error bounds", True, 0.1, worst),
                row("stable rank", True, tolerance, radius, interval),
                row("enclosure", True, 0.1, max(box["relative"]), interval),
            ],
            "residuals": {
                "balance": {"value": consistency, "equations": full},
                "off_span": {
                    "value": None if ambient == r else off_span,
                    "equations": full * (ambient - r),
                },
                "linear": {
                    "value": linear if equations > count else None,
                    "equations": equations - count,
                },
                "samples": {
                    "value": residual if equations > r * r else None,
                    "equations": equations - r * r,
                },
            },
            "redundant_equations": spare,
            "condition_number": None,
            "condition_method": None,
            "error_bounds": bounds,
            "assumptions": assumptions,
            "caveats": [],
            "certificate": {
                "format": 1,
                "assumed": {
                    "samples": given,
                    "scale": self.scale,
                    "non_negative": False,
                    "noise": None,
                    "loss": None,
                    "decay": None,
                },
                "basis": basis.tolist(),
                "neurons": neurons.tolist(),
                "shift": SHIFT,
                "points": points.tolist(),
                "rank": {"prime": 2**31 - 1, "neurons": q, "unknowns": count},
                "singular_value": {"bound": smallest, "neurons": q, "radius": radius},
                "terms": {"values": z.tolist(), "signs": [int(s) for s in signs]},
                "enclosure": box,
                "sets": None,
                "digest": "",
            },
            "noise_level": rho,
            "problem": {
                "source": self.source,
                "degree": degree,
                "width": full,
                "dimension": ambient,
                "distinct_neurons": k,
                "span_dimension": r,
                "unknowns": count,
                "rank": count,
                "rank_method": None,
            },
            "inputs": [
                {"role": role, "sha256": network_hash(arrays, degree)}
                for role, arrays in inputs.items()
            ],
            "seed": 0,
            "versions": {"kktcert": "0"},
            "seconds": 1.0,
        }
        return sign(json.loads(json.dumps(report)))

    def _consistency(self):
        if self.source == "kkt":
            norms, heights = np.sum(self.u**2, axis=1), self.scales**2 / 3.0
            return float(np.sum(np.abs(norms - heights)) / np.sum(norms + heights))
        left = self.scales * self.gradient["output.weight"]
        right = np.sum(self.u * self.rows, axis=1)
        top = np.abs(left).max()
        left, right = left / top, right / top
        both = np.linalg.norm(np.abs(left) + np.abs(right))
        return float(np.linalg.norm(left - right) / both)

    def _tie_width(self, bounds, rho):
        """How far the logarithms of |f(x_i)| may be apart, by the error bounds."""
        x = self.samples / np.linalg.norm(self.samples, axis=1)[:, None]
        inner, heights, n = x @ self.u.T, self.scales / self.degree, self.degree
        slopes = np.linalg.norm((self.scales * inner ** (n - 1)) @ self.u, axis=1)
        bulk = np.abs(inner) ** n @ np.abs(heights)
        width = slopes * np.array(bounds) + 10 * (n + 1) * rho * bulk
        return float(np.max(width / np.abs(inner**n @ heights)))

    def _hidden(self, p, w, z, signs, basis, rho, largest):
        """Median share of the data that a mixture of the samples could have unseen, one by one."""
        jacobian = self._jacobian(p, w, z, signs)
        x = self.samples / np.linalg.norm(self.samples, axis=1)[:, None]
        peak = np.take_along_axis(x, np.abs(x).argmax(axis=1)[:, None], axis=1)
        x = ((x * np.sign(peak)) @ basis)[largest]
        shares = []
        for weights in np.random.default_rng(5).dirichlet(np.ones(self.r), 384):
            v = weights @ x
            v = v / np.linalg.norm(v)
            phi = ((w * (p @ v) ** (self.degree - 1))[:, None] * v).ravel()
            rest = phi - jacobian @ np.linalg.lstsq(jacobian, phi, rcond=1e-13)[0]
            seen = np.linalg.norm(rest) / np.linalg.norm(phi)
            shares.append(min(1.0, 10.0 * rho / max(seen, 1e-12)))
        return float(np.median(shares))

    def _spread(self, points, order):
        needed = math.comb(self.r + order - 1, order)
        if len(points) < needed:
            return needed, len(points)
        sigma = np.linalg.svd(powers(points, order), compute_uv=False)
        return needed, int(np.count_nonzero(sigma > 1e-12 * sigma[0]))

    def _jacobian(self, p, w, z, signs):
        """Derivative of the weighted equations, by entries."""
        n = self.degree
        s = p @ z.T
        result = np.zeros((len(p), self.r, self.r, self.r))
        for a in range(self.r):
            for b in range(self.r):
                part = (n - 1) * s ** (n - 2) * z[:, a] * p[:, b : b + 1]
                result[:, a, :, b] = signs * (part + (a == b) * s ** (n - 1))
        return (result * w[:, None, None, None]).reshape(len(p) * self.r, self.r**2)

    def _bounds(self, p, w, z, signs, sides, outside, residual, consistency):
        """The documented error bounds."""
        r, size = self.r, np.linalg.norm(sides)
        level = max(consistency, 1e-16, UNIT)
        if r == 1:  # all neurons are parallel: what averaging their rows loses
            flip = p ** (self.degree - 1)
            mean = np.sum(w[:, None] * flip * sides) / np.sum(w**2)
            lost = np.linalg.norm(sides - w[:, None] * flip * mean) / size
            level = max(level, lost)
        lengths = np.linalg.norm(z, axis=1)
        spare = (len(p) - r) * (outside.shape[1] - r)
        seen = 1.1 * np.linalg.norm(outside, 2) if outside.shape[1] > r else 0.0
        off = max(seen, (4 if spare < 30 else 1) * level * size)
        off *= 2.0 * (outside.shape[1] > r)
        frame = (p @ z.T) ** (self.degree - 1) * w[:, None]
        off = off * np.linalg.norm(np.linalg.pinv(frame), axis=1)
        units = z / lengths[:, None]
        if r == 1:
            return (off / lengths).tolist(), max(level, float(np.max(off / lengths)))
        inverse = np.linalg.pinv(self._jacobian(p, w, z, signs)).reshape(r, r, -1)
        equations = len(p) * r
        k = equations - r * r
        plain = residual * math.sqrt(equations / k)
        careful = residual * math.sqrt(equations / scipy.stats.chi2.ppf(1e-4, k))
        error = max(min(careful, max(plain, 4 * level)), level) * size
        terms = np.hypot([np.linalg.norm(j, 2) * error for j in inverse], off) / lengths
        tangent = [
            np.linalg.norm((np.eye(r) - np.outer(x, x)) @ j, 2) * error / length
            for x, j, length in zip(units, inverse, lengths, strict=True)
        ]
        bounds = np.hypot(tangent, off / lengths)
        bounds = bounds * (1 + 2 * bounds + 10 * terms.max())
        return bounds.tolist(), float(max(bounds.max(), terms.max()))

    def _box(self, p, w, z, signs, sides, rho):
        r, size = self.r, np.linalg.norm(sides)
        full = self._jacobian(p, w, z, signs)
        pivots = scipy.linalg.qr(full.T, pivoting=True)[2][: r * r]
        # The points count as balls, too.
        reach = (
            np.abs(np.linalg.inv(full[pivots])).sum(axis=1)
            * (rho + 2e-13 * (self.degree - 2))
            * size
        )
        radii = 1.5 * reach.reshape(r, r)
        inverse = np.linalg.pinv(full).reshape(r, r, -1)
        norms, rest = np.linalg.norm(z, axis=1), np.linalg.norm(radii, axis=1)
        conditions = [np.linalg.norm(j, 2) * size / n for j, n in zip(inverse, norms, strict=True)]
        return {
            "precision": 128,
            "radius": rho,
            "pivots": [int(i) for i in pivots],
            "centres": z.tolist(),
            "radii": radii.tolist(),
            "relative": (rest / (norms - rest)).tolist(),
            "conditions": conditions,
        }

    def save(self, folder, **changed):
        """Write both files; `changed` replaces arrays, None leaves one out."""
        paths = {}
        roles = {"model": self.model, "gradient": self.gradient}
        for role, arrays in roles.items():
            if arrays is None:
                continue
            arrays = {**arrays, **changed.get(role, {})}
            arrays = {name: array for name, array in arrays.items() if array is not None}
            paths[role] = folder / f"{role}.npz"
            np.savez(paths[role], degree=self.degree, activation="monomial", **arrays)
        return paths["model"], paths.get("gradient")


def outcome(report, files):
    """The outcome, or "input" for a report that is refused in one line."""
    try:
        return check_report(report, files[0], gradient=files[1]).outcome
    except CheckInputError as error:
        return "several lines" if "\n" in str(error) else "input"


def claim(report, files, name):
    """One claim of a report whose digest is renewed."""
    return check_report(sign(report), files[0], gradient=files[1])[name]
