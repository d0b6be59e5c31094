"""Check a report without trusting the program that made it.

``check_report`` reads the report and the files by itself, redoes every proof and recomputes every
number that the verdict rests on. It shares no code with the verifier: this folder imports the
standard library, numpy, safetensors, python-flint and, for its files, torch. It works wherever
it is copied:

    python -m checker REPORT.json MODEL [--gradient FILE] [--initial FILE] [--require confirmed]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NoReturn

from . import bounds, leftover, linear, premises, sets, terms, ties
from .case import Case
from .conditions import check_conditions
from .deep.check import check_deep_report
from .deep.report import is_deep, load_report
from .enclosure import BALLS, check_enclosure
from .levels import overall_evidence
from .margins import check_margins
from .outcome import (
    CONFIRMED,
    FLOAT,
    OPEN,
    REFUTED,
    CheckInputError,
    CheckResult,
    Claim,
    Progress,
    decide,
    require,
    required,
)
from .reading.files import Network, read_network
from .reading.gradient import one_output, one_output_head, read_gradient
from .reading.report import Report, read_report
from .source import build_data
from .stationary.check import check_stationary_report
from .stationary.report import is_stationary

__all__ = ["CheckInputError", "CheckResult", "Claim", "check_report", "main"]

Check = Callable[[Case], str | tuple[str, str]]
_ROLES = {"gradient": "gradient", "fine-tuning": "initial"}
"""The second file of a source."""
NOTES = (
    "reason", "symmetries", "strengthen", "conditions.source", "condition_number",
    "condition_method", "wording of assumptions", "caveats", "problem.distinct_neurons",
    "problem.rank_method", "candidates", "covered", "seed", "versions", "seconds",
)  # fmt: skip
"""What is written for readers: only its types are checked."""
UNCLAIMED = (
    "spans_input_space", "evidence", "conditions", "residuals", "redundant_equations",
    "error_bounds", "absolute_bounds", "data_error", "noise_level", "problem.span_dimension",
    "problem.unknowns", "problem.rank", "certificate",
)  # fmt: skip
"""What a verdict without a claim leaves unchecked."""
UNCONFIRMED = 4


def check_report(
    report: object,
    model: object,
    *,
    gradient: object = None,
    initial: object = None,
    degree: int | None = None,
    activation: str | None = None,
    layers: object = None,
    key: str | None = None,
    progress: Progress | None = None,
    time_limit: float | None = None,
) -> CheckResult:
    """Redo the proofs of a report and say of each claim: confirmed, refuted or not checkable.

    Args:
        report: path of report.json, or its content as plain data.
        model: the network: ``.safetensors``, ``.npz``, a torch checkpoint, an index, a folder.
        gradient, initial: the second file, for the sources gradient and fine-tuning.
        degree: of the monomial, for files that do not carry it.
        activation: of a ReLU network; without it that of the file or of the report.
        layers: names of the two layers, "HIDDEN,OUTPUT" or a pair.
        key: name of the state_dict in a torch checkpoint that holds several.
        progress: called with a claim's name and a share in [0, 1].
        time_limit: seconds; claims not reached are "not checkable". A rank modulo a prime that
            has begun is finished.

    Returns:
        A `CheckResult`, whose claims have fixed names; `not_checked` names the fields that no
        claim vouches for.

    Raises:
        CheckInputError: a report or file that cannot be read, with one line.

    Cost: the proofs anew: N^3 / 3 operations modulo the prime, about 10 N^3 in float64, r^6 in
        ball arithmetic.
    """
    deadline = None if time_limit is None else time.monotonic() + time_limit
    plain = load_report(report, time_limit)
    if is_deep(plain):
        for name, extra in (("initial", initial), ("degree", degree)):
            if extra is not None:
                raise CheckInputError(name, "none for a gradient of a ReLU network", extra)
        return check_deep_report(
            plain,
            model,
            gradient=gradient,
            activation=activation,
            layers=layers,
            key=key,
            progress=progress,
            time_limit=time_limit,
        )
    if is_stationary(plain):
        for name, extra in (("gradient", gradient), ("initial", initial), ("degree", degree)):
            if extra is not None:
                raise CheckInputError(name, "none for the weights of a ReLU network", extra)
        return check_stationary_report(
            plain,
            model,
            activation=activation,
            layers=layers,
            key=key,
            progress=progress,
            time_limit=time_limit,
        )
    content = read_report(plain, time_limit)
    files = _read_files(content, (model, gradient, initial), degree, layers, key)
    found: dict[str, Claim] = {}
    found["inputs"] = decide("inputs", "hash", lambda: premises.check_inputs(content, files))
    found["digest"] = decide("digest", "hash", lambda: premises.check_digest(content))
    found["problem"] = decide(
        "problem", "hash", lambda: premises.check_problem(content, files["model"])
    )
    usable = found["inputs"].holds and found["problem"].holds
    case: Case | None = None
    if usable:
        assumed = None if content.certificate is None else content.certificate.assumed
        decay, point = (None, None) if assumed is None else (assumed.decay, assumed.point)
        if content.source == "gradient":
            shift = None if assumed is None else assumed.gradient_decay
            model, gradient = one_output(files["model"], files["gradient"], shift)
            files = {"model": model, "gradient": gradient}
        else:
            files = one_output_head(files)
            _check_offset(content, files["model"])
        case = Case(content, build_data(content.source, files, decay, point), deadline)
    checks = _checks(content, found)
    for number, (name, how, check) in enumerate(checks):
        if progress is not None:
            progress(name, number / len(checks))
        if case is None:
            found[name] = Claim(name, OPEN, how, "the files are not those of the report")
        elif deadline is not None and time.monotonic() > deadline:
            found[name] = Claim(name, OPEN, how, f"time limit of {time_limit:g} s reached")
        else:
            found[name] = decide(name, how, partial(check, case))
    found["scope"] = decide("scope", "exact", lambda: _scope(content))
    found["verdict"] = _verdict(content, found)
    return CheckResult(tuple(found.values()), _not_checked(content, case))


def _not_checked(report: Report, case: Case | None) -> tuple[str, ...]:
    """The fields that no claim vouches for."""
    names = list(NOTES)
    certificate = report.certificate
    if certificate is not None and certificate.assumed.decay is not None:
        names.append("certificate.assumed.decay")
    if report.verdict in ("undecided", "locally"):
        names += UNCLAIMED
    elif certificate is not None and certificate.enclosure is not None:
        names.append("certificate.enclosure.precision")
    if report.verdict == "nonidentifiable" and None in (report.bounds or (None,)):
        names += ["absolute_bounds", "data_error"]
    return (*names, *(case.not_checked if case is not None else ()))


def _read_files(
    report: Report,
    paths: tuple[object, object, object],
    degree: int | None,
    layers: object,
    key: str | None,
) -> dict[str, Network]:
    """The networks by role; the source decides which files there have to be."""
    if degree is not None and (isinstance(degree, bool) or not isinstance(degree, int)):
        raise CheckInputError("degree", "an integer", repr(degree)[:80])
    if key is not None and not isinstance(key, str):
        raise CheckInputError("key", "a name", repr(key)[:80])
    model, gradient, initial = paths
    files = {"model": read_network(model, degree=degree, layers=layers, key=key, outputs=2)}
    wanted = _ROLES.get(report.source)
    for role, path in (("gradient", gradient), ("initial", initial)):
        if role == wanted:
            if path is None:
                raise CheckInputError(role, f"a file, the source being {report.source}", "none")
            first = files["model"]
            if role == "gradient":
                files[role] = read_gradient(path, first, layers=layers, key=key)
            else:
                files[role] = read_network(
                    path, degree=first.degree, layers=layers, key=key, need_key=False, outputs=2
                )
                _same_shapes(path, first, files[role])
        elif path is not None:
            raise CheckInputError(role, f"no file, the source being {report.source}", path)
    if files["model"].output.ndim == 1:
        _check_offset(report, files["model"])
    return files


def _check_offset(report: Report, model: Network) -> None:
    offset = model.output_bias
    if report.source == "kkt" and offset is not None and offset.any():
        raise CheckInputError("output.bias", "0 for the source kkt", offset[0])


def _same_shapes(path: object, first: Network, second: Network) -> None:
    if second.hidden.shape != first.hidden.shape:
        expected = f"the network's shape {first.hidden.shape}"
        raise CheckInputError(f"{path}: hidden.weight", expected, second.hidden.shape)
    if (second.hidden_bias is None) != (first.hidden_bias is None):
        raise CheckInputError(f"{path}: hidden.bias", "as in the network", "another")


def _checks(report: Report, found: Mapping[str, Claim]) -> list[tuple[str, str, Check]]:
    """What there is to check for the verdict: names, arithmetic, functions."""
    assumptions: list[tuple[str, str, Check]] = [("assumptions", FLOAT, premises.check_assumptions)]
    if report.verdict in ("undecided", "locally"):
        return assumptions
    balance = "balance" if report.source in ("kkt", "weight-decay") else "consistency"
    checks: list[tuple[str, str, Check]] = [
        *assumptions,
        (balance, FLOAT, premises.check_balance),
        ("basis", FLOAT, premises.check_basis),
        ("points", FLOAT, premises.check_points),
        ("conditioning", FLOAT, linear.check_conditioning),
        ("noise level", FLOAT, linear.check_noise),
        ("redundancy", "exact", premises.check_redundancy),
        ("residuals", FLOAT, linear.check_residuals),
    ]
    globally, certificate = report.verdict == "globally", report.certificate
    proofs: list[tuple[str, str, Check, object]] = [
        ("rank", "exact", premises.check_rank, certificate and certificate.rank),
        (
            "singular value",
            "float64 with rounding bounds",
            premises.check_singular,
            certificate and certificate.singular,
        ),
        ("enclosure", BALLS, check_enclosure, certificate and certificate.enclosure),
    ]
    if globally or (certificate is not None and certificate.terms is not None):
        checks.append(("terms", FLOAT, terms.check_terms))
    if globally:
        checks.append(("leftover", FLOAT, leftover.check_leftover))
    checks += [(name, how, check) for name, how, check, part in proofs if globally or part]
    if not globally:
        checks.append(("sets", FLOAT, sets.check_sets))
    if globally or report.bounds is not None:
        checks.append(("error bounds", FLOAT, bounds.check_bounds))
    if globally and report.source == "kkt":
        checks.append(("margins", BALLS, check_margins))
    if report.row("tie") is not None:
        checks.append(("tie", FLOAT, ties.check_tie))
    checks.append(("conditions", FLOAT, lambda case: check_conditions(case, found)))
    checks.append(("evidence", "exact", _evidence))
    return checks


def _evidence(case: Case) -> str:
    """The report names the weakest evidence for the rank, the samples and their number."""
    stated, own = case.report.evidence, overall_evidence(case)
    require(stated == own, f"the certificate holds a proof of level {own}, not {stated}")
    return f"{own}, as the certificate has it"


def _scope(report: Report) -> str:
    """The scope is the one that goes with the verdict."""
    scope, r = report.scope, report.span
    if report.verdict == "undecided":
        require(scope is None and report.sample_count is None, "undecided has no scope")
        return "none"
    if report.verdict == "globally":
        require(
            r is not None and scope == ("at_most", (r,)) and report.sample_count == r,
            f"the proofs are about at most {r} samples, the scope says otherwise",
        )
        return f"at most {r} samples"
    kind = "shown" if report.verdict == "nonidentifiable" else "exactly"
    said, counts = required(scope, f"the scope has to be of the kind {kind}")
    require(said == kind, f"the scope has to be of the kind {kind}")
    require(report.sample_count is None or kind == "exactly", "no number of samples is determined")
    return f"{kind} {' and '.join(map(str, counts))} samples"


def _verdict(report: Report, found: Mapping[str, Claim]) -> Claim:
    """The verdict stands if everything that it needs is confirmed and nothing is refuted."""
    how = "the claims above"
    false = [name for name, claim in found.items() if claim.outcome == REFUTED]
    if false:
        return Claim("verdict", REFUTED, how, f"refuted: {', '.join(false)}")
    if report.verdict == "undecided":
        return Claim("verdict", OPEN, how, "undecided claims nothing")
    if report.verdict == "locally":
        return Claim("verdict", OPEN, how, "no certificate of a local verdict is known")
    optional = {"residuals"}
    if report.verdict == "globally":
        by_value = report.certificate is not None and report.certificate.rank is None
        proved = found["rank"].holds or (
            found["singular value"].holds and by_value and report.evidence == "proved_interval"
        )
        if not proved:
            detail = f"no proof that the rank is full: {found['rank'].detail}"
            return Claim("verdict", OPEN, how, detail)
        optional |= {"rank", "singular value"}
    missing = [c for name, c in found.items() if not c.holds and name not in optional]
    if missing:
        detail = f"{missing[0].name} is not proved: {missing[0].detail}"
        return Claim("verdict", OPEN, how, detail)
    words = {
        "globally": f"at most {report.span} samples: exactly one set explains the data",
        "nonidentifiable": "two different sets explain the data",
    }
    return Claim("verdict", CONFIRMED, how, words[report.verdict])


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Print the claims of a report: 0; 3 if one is refuted; 2 for unusable input; 4 if required."""
    parser = _Parser(prog="checker", description="Redo the proofs of a report.")
    parser.add_argument("report")
    parser.add_argument("model")
    for option in ("--gradient", "--initial", "--activation", "--layers", "--key"):
        parser.add_argument(option)
    parser.add_argument("--degree", type=int)
    parser.add_argument("--time-limit", type=float)
    parser.add_argument("--require", choices=[CONFIRMED])
    given = vars(parser.parse_args(argv))
    required = given.pop("require")
    try:
        result = check_report(**given)
    except CheckInputError as error:
        print(error, file=sys.stderr)
        return 2
    print(result)
    return exit_code(result, required=required is not None)


def exit_code(result: CheckResult, *, required: bool) -> int:
    """3 if a claim is refuted, 4 if the verdict has to be confirmed and is not, else 0."""
    if result.outcome == REFUTED:
        return 3
    return UNCONFIRMED if required and result.outcome != CONFIRMED else 0
