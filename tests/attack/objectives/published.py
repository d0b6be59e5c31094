"""The constants of the attacks as published, copied by hand, and where the presets differ.

Sources, read as programs where the papers give no numbers:

* Haim et al. (2022), "Reconstructing training data from trained neural networks", and
  github.com/nivha/dataset_reconstruction with the command lines of its four released runs;
* Buzaglo et al. (2023), "Deconstructing data reconstruction", and github.com/gonbuzaglo/decoreco
  with the command lines of its runs and its sweep files;
* Loo et al. (2024), "Understanding reconstruction attacks with the neural tangent kernel and
  dataset distillation", and github.com/yolky/understanding_reconstruction;
* Shen, Wang, Qian & Lei (2026), "Data reconstruction: identifiability and optimization with sample
  splitting", algorithm 1 and the default settings of its program.

What a source does not state is missing here and compared with nothing.
"""

from __future__ import annotations

from typing import Any

_SGD: dict[str, Any] = {
    "optimiser": "sgd", "momentum": 0.9, "rate_lam": 1e-4, "steps": 50_000, "split every": 0,
    "multipliers": ("uniform", 0.0, 1.0), "labels": "equal blocks",
    "box": (-1.0, 1.0), "box weight": 1.0, "box over": "sum of pixels", "floor weight": 5.0,
    "network": "D-1000-1000-1", "bias": "first", "dtype": "float64", "of a class": 500,
}  # fmt: skip
_HAIM = {**_SGD, "objective": "haim"}
_MULTICLASS = {**_SGD, "objective": "buzaglo", "network": "D-1000-1000-10", "of a class": 100}
_REGRESSION = {
    **{key: value for key, value in _SGD.items() if key != "floor weight"},
    "objective": "buzaglo", "multipliers": ("normal",), "labels": None,
}  # fmt: skip
_SPLITTING = {
    **{key: value for key, value in _SGD.items() if key != "dtype"},
    "rate_x": 1e-2, "start_scale": 1e-4, "softness": 50.0, "floor": 0.1, "steps": 200_000,
    "split every": 50_000,
}  # fmt: skip


def _run(base: dict[str, Any], *numbers: float | None) -> dict[str, Any]:
    names = ("start_scale", "rate_x", "rate_lam", "floor", "softness")
    return base | dict(zip(names, numbers, strict=True))


PUBLISHED: dict[str, dict[str, Any]] = {
    # Command lines of the runs b9dfyspx, k60fvjdy, kcf9bhbi, rbijxft7.
    "haim-cifar-1": _run(_HAIM, 8.857e-4, 0.55492, 1e-4, 0.49830, 19.145),
    "haim-cifar-2": _run(_HAIM, 4.474e-3, 0.34621, 1e-4, 0.49359, 21.679),
    "haim-mnist-1": _run(_HAIM, 3.498e-2, 0.030524, 1e-4, 0.44705, 149.866),
    "haim-mnist-2": _run(_HAIM, 1.742e-3, 0.28212, 1e-4, 0.41527, 19.215),
    # The file called run 1, the file called run 2.
    "buzaglo-multiclass-1": _run(_MULTICLASS, 4.474e-3, 0.34621, 1e-4, 0.49359, 21.679)
    | {"of a class": 500},
    "buzaglo-multiclass-2": _run(_MULTICLASS, 6.228e-5, 1.362e-3, 0.47933, 0.20321, 39.517),
    # Runs 1 and 2, and the sweep file.
    "buzaglo-regression-1": _run(_REGRESSION, 1.975e-2, 0.95175, 1e-4, 0.4696, 90.289),
    "buzaglo-regression-2": _run(_REGRESSION, 1.365e-2, 0.87155, 1e-4, 0.4411, 107.413),
    "buzaglo-regression-3": _run(_REGRESSION, 3.504e-6, 0.94914, 1e-4, None, 103.717),
    # Defaults of the program and, for the number of images, its example: 200 images, twice as many
    # candidates. Softplus temperature at the steps 0, 20,000, 40,000, 80,000; b1 of Adam.
    "loo": {
        "objective": "loo", "optimiser": "adam", "momentum": 0.9, "rate_x": 0.02, "rate_lam": 0.02,
        "steps": 80_001, "split every": 0, "start_scale": 0.2,
        "multipliers": ("uniform", -0.5, 0.5), "labels": None,
        "softplus": (11.0, 20.0, 110.0, 200.0),
        "box": (0.0, 1.0), "box weight": 0.1, "box over": "mean of pixels", "floor": None,
        "features": "final", "network": "D-1000-1000-1", "bias": "all", "dtype": "float32",
        "of a class": 200,
    },
    "sample-splitting-haim": {**_SPLITTING, "objective": "haim"},
    "sample-splitting-buzaglo": {
        **_SPLITTING, "objective": "buzaglo", "network": "D-1000-1000-10",
    },
    "sample-splitting-loo": {
        **_SPLITTING, "objective": "loo", "features": "average", "labels": None,
        "multipliers": ("uniform", -1.0, 1.0), "floor of": "|lam|",
    },
}  # fmt: skip

_ANOTHER_FILE = "that file is Haim's command for CIFAR, run k60fvjdy; these are of the sweep file"
_UNUSED = "the program reads the number and does not use it: no floor for signed multipliers"

#: (preset, constant): the value of the preset and why it is not the published one.
DIFFERENT: dict[tuple[str, str], tuple[Any, str]] = {
    ("buzaglo-multiclass-1", "start_scale"): (3.605e-4, _ANOTHER_FILE),
    ("buzaglo-multiclass-1", "rate_x"): (2.420e-4, _ANOTHER_FILE),
    ("buzaglo-multiclass-1", "rate_lam"): (0.95128, _ANOTHER_FILE),
    ("buzaglo-multiclass-1", "floor"): (0.040118, _ANOTHER_FILE),
    ("buzaglo-multiclass-1", "softness"): (326.466, _ANOTHER_FILE),
    ("buzaglo-multiclass-1", "of a class"): (100, _ANOTHER_FILE),
    ("buzaglo-regression-1", "floor"): (None, _UNUSED),
    ("buzaglo-regression-2", "floor"): (None, _UNUSED),
    ("loo", "of a class"): (500, "for 250 images of a class as in the other presets, also twice"),
}

#: Of a round of splitting: products of Lanczos, range of the step and accuracy of its search (the
#: default of scipy's bounded search), threshold, the most splits, and half of an odd number n,
#: which is ceil(n / 2).
ROUND = {
    "products": 20, "steps": (1e-5, 0.02), "accuracy": 1e-5, "threshold": -0.1, "most": 150,
    "half of 7": 4,
}  # fmt: skip
