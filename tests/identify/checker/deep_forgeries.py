"""What a forger changes in a gradient report; each function changes plain data in place."""

from __future__ import annotations

import numpy as np

from tests.identify.checker.deep_reports import flip

LISTS = ("labels", "label_confidence", "counts", "error_bounds")


def another_mask(report):
    masks = report["certificate"]["masks"][-1]
    masks[0] = flip(masks[0], 3)


def another_mask_below(report):
    masks = report["certificate"]["masks"][0]
    masks[-1] = flip(masks[-1], 5)


def hidden_sample(report):
    n = report["rank"]
    for name in LISTS:
        if report[name] is not None:
            del report[name][-1]
    for name in ("samples", "cotangents"):
        del report["certificate"][name][-1]
    for masks in report["certificate"]["masks"]:
        del masks[-1]
    report["rank"] = report["sample_count"] = report["scope"]["samples"] = n - 1
    for entry in report["ranks"]:
        entry["rank"] = min(entry["rank"], n - 1)


def merged_pair(report):
    """Two samples are both their average, with the mask of the first."""
    certificate = report["certificate"]
    for name in ("samples", "cotangents"):
        mean = ((np.array(certificate[name][0]) + np.array(certificate[name][1])) / 2).tolist()
        certificate[name][0] = certificate[name][1] = mean
    for masks in certificate["masks"]:
        masks[1] = masks[0]


def moved_sample(report):
    sample = np.array(report["certificate"]["samples"][1])
    length = np.linalg.norm(sample)
    sample[0] += 30.0 * report["error_bounds"][1] * length
    report["certificate"]["samples"][1] = sample.tolist()


def swapped_slopes(report):
    p = report["certificate"]["cotangents"]
    p[0], p[1] = p[1], p[0]


def swapped_samples(report):
    x = report["certificate"]["samples"]
    x[0], x[1] = x[1], x[0]


def longer_slope(report):
    p = report["certificate"]["cotangents"]
    p[0] = [1.02 * value for value in p[0]]


def another_number(report):
    report["scope"]["samples"] += 1


def no_scope(report):
    report["scope"] = None


def wider_gap(report):
    report["kernel"]["gap"] *= 10.0


def wider_gap_with_its_value(report):
    report["kernel"]["gap"] *= 10.0
    report["kernel"]["smallest_other"] *= 10.0


def wider_gap_of_the_rank(report):
    report["ranks"][-2]["gap"] *= 10.0


def softened_noise(report):
    for entry in report["ranks"]:
        entry["noise"] *= 5.0
        entry["relative_noise"] *= 5.0
    report["error_bounds"] = [5.0 * bound for bound in report["error_bounds"]]


def smaller_bound(report):
    report["error_bounds"][0] /= 3.0


def undecided(report):
    report["verdict"], report["scope"] = "undecided", None


def fewer_rows_needed(report):
    report["kernel"]["rows_needed"] -= 5


def larger_sigma(report):
    report["data_statement"]["sigma"] *= 10.0


def no_prime(report):
    report["proof"]["prime"] = 2147483646


def fewer_columns(report):
    report["proof"]["rank"] -= 1
    report["proof"]["required"] -= 1


def smaller_residual(report):
    for check in report["checks"]:
        if check["name"].startswith("gradient"):
            check["value"] /= 10.0


def more_equations(report):
    for check in report["checks"]:
        check["equations"] *= 2


def left_out_check(report):
    report["checks"] = [c for c in report["checks"] if c["name"] != "gradient of layer 1"]


def another_loss(report):
    report["problem"]["loss"] = "squared"


def fewer_assumptions(report):
    report["assumptions"] = report["assumptions"][-1:]


def no_length(report):
    report["scaled"] = False


def more_neurons(report):
    report["problem"]["sizes"][-2] += 8
    report["certificate"]["masks"][-1] = [m + "00" for m in report["certificate"]["masks"][-1]]


def nothing_open(report):
    report["candidates"] = True


def another_degree(report):
    report["kernel"]["degree"] = 5 - report["kernel"]["degree"]


FORGERIES = (
    another_mask, another_mask_below, hidden_sample, merged_pair, moved_sample, swapped_slopes,
    swapped_samples, longer_slope, another_number, no_scope, wider_gap, wider_gap_with_its_value,
    wider_gap_of_the_rank, softened_noise, smaller_bound, undecided, fewer_rows_needed,
    larger_sigma, no_prime, fewer_columns, smaller_residual, more_equations, left_out_check,
    another_loss, fewer_assumptions, no_length, more_neurons, nothing_open,
    another_degree,
)  # fmt: skip


def as_if_unique(report):
    """Every field that a rule looks at says yes."""
    report |= {"verdict": "globally", "candidates": False, "covered": True, "interrupted": False}
    report["scope"] = {"kind": "at_most", "samples": report["rank"]}
    for entry in report["ranks"]:
        entry["clear"] = entry["clear"] or entry["layer"] == len(report["problem"]["sizes"]) - 2
    for check in report["checks"]:
        check["holds"] = True
    kernel = report["kernel"]
    if report["method"] == "kernel" and kernel is not None:
        other = max(1e6, kernel["smallest_other"] or 0.0)
        kernel |= {"largest_kernel": 1.0, "smallest_other": other, "gap": other}
        kernel["rows"] = max(kernel["rows"], kernel["rows_needed"])
    return report


def with_honest_numbers(report):
    """The verdict and what a check says are changed, every measurement stays."""
    report |= {"verdict": "globally", "candidates": False, "covered": True, "interrupted": False}
    report["scope"] = {"kind": "at_most", "samples": report["rank"]}
    for check in report["checks"]:
        check["holds"] = True
    return report
