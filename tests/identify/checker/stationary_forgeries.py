"""What a forger changes in a report on weights; each function changes plain data in place."""

from __future__ import annotations

from tests.identify.checker import deep_forgeries as shared

LINES = (("both layers", "the hidden layer alone"), ("the hidden layer alone", "both layers"))


def hidden_sample(report):
    shared.hidden_sample(report)
    for name in ("coefficients", "margins"):
        if report[name] is not None:
            del report[name][-1]
    n = report["rank"]
    report["patterns_needed"] = n * (n + 1) // 2


def follow_slopes(report):
    """The coefficients as the slopes say them."""
    report["coefficients"] = [-p[0] for p in report["certificate"]["cotangents"]]


def merged_pair(report):
    shared.merged_pair(report)
    follow_slopes(report)


def swapped_slopes(report):
    p = report["certificate"]["cotangents"]
    p[0], p[1] = [2.0 * p[1][0]], [0.5 * p[0][0]]
    follow_slopes(report)


def longer_slope(report):
    shared.longer_slope(report)
    follow_slopes(report)


def another_coefficient(report):
    report["coefficients"][0] *= 1.01


def turned_label(report):
    """Label, slope and coefficient of one sample change their sign."""
    report["labels"][0] *= -1
    report["certificate"]["cotangents"][0][0] *= -1.0
    follow_slopes(report)


def another_margin(report):
    report["margins"][0] *= 1.01


def other_layers(report):
    """The other layers are said to have been trained, in every place that says it."""
    other = {"both": "hidden", "hidden": "both"}[report["problem"]["trained"]]
    for place in (report["problem"], report["certificate"]):
        place["trained"] = other
    for old, new in LINES:
        if any(old in line for line in report["assumptions"]):
            report["assumptions"] = [line.replace(old, new) for line in report["assumptions"]]
            break


def other_layers_in_the_problem(report):
    trained = report["problem"]["trained"]
    report["problem"]["trained"] = {"both": "hidden", "hidden": "both"}[trained]


def other_layers_without_their_evidence(report):
    """The same with all evidence of the output layer dropped, but for the certificate."""
    other_layers_in_the_problem(report)
    away = ("stationarity of the output layer", "balance of the layers")
    report["checks"] = [check for check in report["checks"] if check["name"] not in away]
    report["ranks"] = report["ranks"][:1]
    for old, new in LINES:
        if any(old in line for line in report["assumptions"]):
            report["assumptions"] = [line.replace(old, new) for line in report["assumptions"]]
            break


def other_layers_in_the_certificate(report):
    trained = report["certificate"]["trained"]
    report["certificate"]["trained"] = {"both": "hidden", "hidden": "both"}[trained]


def other_source(report):
    for place in (report["problem"], report["certificate"]):
        place["source"] = {"kkt": "weight_decay", "weight_decay": "kkt"}[place["source"]]


def no_kinks(report):
    report["checks"] = [c for c in report["checks"] if c["name"] != "samples off the kinks"]


def farther_from_the_kinks(report):
    for check in report["checks"]:
        if check["name"] == "samples off the kinks":
            check["value"] *= 100.0


def more_directions(report):
    report["neuron_directions"] += 1


def fewer_patterns_needed(report):
    report["patterns_needed"] -= 1


def smaller_pattern_rank(report):
    report["pattern_rank"] -= 1


def smaller_residual(report):
    for check in report["checks"]:
        if check["name"].startswith("stationarity"):
            check["value"] = 20.0 * check["value"] + 1e-6


def left_out_check(report):
    name = "stationarity of the hidden layer"
    report["checks"] = [check for check in report["checks"] if check["name"] != name]


def another_loss(report):
    report["problem"]["loss"] = "squared"
    report["problem"]["source"] = report["certificate"]["source"] = "weight_decay"


def another_hash(report):
    report["inputs"][0]["sha256"] = "0" * 64


def more_samples_assumed(report):
    report["problem"]["samples"] = report["rank"] + 1
    report["assumptions"].append(f"there are {report['rank'] + 1} active samples")


FORGERIES = (
    shared.another_mask, hidden_sample, merged_pair, shared.moved_sample, swapped_slopes,
    shared.swapped_samples, longer_slope, another_coefficient, turned_label, another_margin,
    shared.another_number, shared.no_scope, shared.undecided, other_layers,
    other_layers_in_the_problem, other_layers_without_their_evidence,
    other_layers_in_the_certificate, other_source, no_kinks, farther_from_the_kinks,
    more_directions, fewer_patterns_needed, smaller_pattern_rank, smaller_residual, left_out_check,
    another_loss, another_hash, more_samples_assumed, shared.smaller_bound, shared.softened_noise,
    shared.more_equations, shared.fewer_assumptions, shared.no_length, shared.more_neurons,
    shared.nothing_open, shared.fewer_columns, shared.no_prime,
)  # fmt: skip


def as_if_unique(report):
    """Every field that a rule looks at says yes."""
    shared.as_if_unique(report)
    report["ranks"] = [entry | {"clear": True} for entry in report["ranks"]]
    return report
