"""The checker's own copies of the thresholds are those of the verifier."""

from pathlib import Path

from identify import thresholds
from identify.checker import bounds, case, hidden_share, linear, premises, sets, ties


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


def test_every_threshold_has_its_reason():
    lines = Path(thresholds.__file__).read_text(encoding="utf-8").splitlines()
    names = [k for k, line in enumerate(lines) if line[:1].isupper() and " = " in line]
    assert len(names) > 15
    for k in names:
        assert lines[k + 1].startswith('"""'), lines[k]
