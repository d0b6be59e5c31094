"""Networks and files, good and bad, for the tests of reading them."""

from __future__ import annotations

import json
import struct
import zipfile

import numpy as np

from identify.model.two_layer import TwoLayerNetwork


def network(seed=0, m=4, d=3, outputs=1, bias=False, **options):
    rng = np.random.default_rng(seed)
    return TwoLayerNetwork(
        rng.normal(size=(m, d)),
        rng.normal(size=(outputs, m)),
        options.pop("degree", 3),
        hidden_bias=rng.normal(size=m) if bias else None,
        output_bias=rng.normal(size=outputs) if bias else None,
        **options,
    )


def layers(hidden=(4, 3), output=(1, 4), names=("hidden", "output"), dtype=np.float64):
    return {
        f"{names[0]}.weight": np.ones(hidden, dtype),
        f"{names[1]}.weight": np.ones(output, dtype),
    }


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path


def raw_safetensors(path, header, data=b"", length=None):
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def raw_npz(path, name, header, data=b"", **options):
    """An npz of one member with a header of our own making."""
    text = header.encode().ljust(118) + b"\n"
    member = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr(f"{name}.npy", member)
    return path


def same(first, second):
    assert first.arrays().keys() == second.arrays().keys()
    for name, array in first.arrays().items():
        np.testing.assert_array_equal(array, second.arrays()[name])
    assert (first.degree, first.activation) == (second.degree, second.activation)
    assert first.sha256() == second.sha256()
