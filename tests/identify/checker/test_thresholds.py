"""The checker's own copies of the thresholds are those of the verifier."""

from pathlib import Path

from identify import thresholds
from identify.checker import bounds, case, hidden_share, linear, premises, sets, ties
from identify.checker.deep import agreement, confirm, listing, loss, spectra


def test_the_copies_agree():
    copies = {
        "NOISE_FLOOR": case.NOISE_FLOOR,
        "NOISE_LIMIT": linear.NOISE_LIMIT,
        "BALANCE_LIMIT": premises.BALANCE_LIMIT,
        "BOUND_LIMIT": bounds.BOUND_LIMIT,
        "BOX_LIMIT": bounds.BOUND_LIMIT,
        "DIFFERENT": sets.DIFFERENT,
        "TIE_TOLERANCE": ties.TIE_LIMIT,
        "HIDDEN_SHARE": hidden_share.HIDDEN_SHARE,
    }
    assert copies == {name: getattr(thresholds, name) for name in copies}


def test_the_copies_for_gradients_agree():
    copies = {
        "LARGEST_BOUND": confirm.BOUND_LIMIT,
        "LOOSEST": confirm.LOOSEST,
        "SMALLEST_CONFIDENCE": loss.CONFIDENT,
        "LOOSE_LOSS": loss._LOOSE,
        "BALANCE_LIMIT": agreement.BALANCE_LIMIT,
        "DROWNED": agreement.DROWNED,
        "AGREEMENT_SIGMAS": agreement._SIGMAS,
        "LARGEST_CHANCE": listing.LARGEST_CHANCE,
        "USABLE_ROW": listing._USABLE,
        "NORM_LIMIT": listing._NORM,
        "CLEAR": spectra.GAP,
        "FLAT": spectra._FLAT,
        "EVEN": spectra._NOISE,
    }
    assert copies == {name: getattr(thresholds, name) for name in copies}


def test_every_threshold_has_its_reason():
    lines = Path(thresholds.__file__).read_text(encoding="utf-8").splitlines()
    names = [k for k, line in enumerate(lines) if line[:1].isupper() and " = " in line]
    assert len(names) > 15
    for k in names:
        assert lines[k + 1].startswith('"""'), lines[k]
