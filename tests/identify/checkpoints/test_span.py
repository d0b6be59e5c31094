"""The span and the number of samples from two checkpoints."""

from __future__ import annotations

import numpy as np
import pytest

from identify.checkpoints.span import find_span, first_moments, load_span, save_span
from identify.errors import FileError, InvalidInputError
from identify.exposure.batch_members import span_members
from identify.exposure.membership import Membership
from identify.model.deep import DeepNetwork
from identify.model.deep_files import load_deep_network
from identify.model.untrusted import read_moments
from tests.identify.checkpoints.training import Recipe, start, train

RULES = {
    "plain": Recipe("plain", 15),
    "momentum": Recipe("momentum", 15, 0.01),
    "decay": Recipe("momentum", 15, 0.01, 1e-2),
    "small decay": Recipe("plain", 15, 0.05, 1e-4),
    "mini-batches": Recipe("plain", 40, 0.05, batch=3),
}


def trained(recipe, seed, count=9, sizes=(60, 50, 40, 10), activation="relu"):
    rng = np.random.default_rng(seed)
    before = start(sizes, rng, activation)
    x = rng.random((count, sizes[0]))
    y = rng.integers(0, sizes[-1], count).astype(float)
    return before, train(before, x, y, recipe, rng), x


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_number_and_span_are_exact(rule, activation):
    for seed, count in enumerate((1, 5, 12)):
        before, after, x = trained(RULES[rule], seed, count, activation=activation)
        found = find_span(before, after)
        assert found.samples == count
        lifted = np.column_stack([x, np.ones(count)])
        outside = lifted - lifted @ found.basis.T @ found.basis
        assert np.linalg.norm(outside) < 1e-6 * np.linalg.norm(lifted)
        recipe = RULES[rule]
        if recipe.decay and recipe.rule == "plain":
            assert found.kept == pytest.approx((1 - recipe.rate * recipe.decay) ** recipe.steps)
        assert (found.kept == 1.0) == (recipe.decay == 0.0)


def test_adam_leaves_no_number():
    for seed in range(5):
        before, after, _ = trained(Recipe("adam", 10, 1e-3), seed)
        found = find_span(before, after)
        assert found.samples is None
        assert "Adam" in found.reason
        assert str(found).startswith("No number and no span")


def test_more_samples_than_the_layer_holds_leave_no_number():
    before, after, _ = trained(RULES["plain"], 0, count=80)
    assert find_span(before, after).samples is None


def test_checkpoints_in_float32_keep_their_number():
    before, after, _ = trained(RULES["plain"], 1, count=6)

    def stored(network):
        weights = [w.astype(np.float32) for w in network.weights]
        return type(network)(weights, [b.astype(np.float32) for b in network.biases], "relu")

    found = find_span(stored(before), stored(after))
    assert found.samples == 6


def test_samples_of_the_span_are_members_and_others_are_not():
    before, after, x = trained(RULES["momentum"], 2)
    others = np.random.default_rng(3).random((25, 60))
    found = span_members(find_span(before, after), np.vstack([x, others[:5]]), others[5:])
    assert found.members == len(x)
    assert set(found.answers[len(x) :]) == {Membership.NO_TRACE}
    assert np.all(found.p_values[: len(x)] == 1 / 21)


def test_a_span_is_written_and_read(tmp_path):
    before, after, _ = trained(RULES["plain"], 4)
    found = find_span(before, after)
    save_span(tmp_path / "span.safetensors", found)
    basis, values, has_bias = load_span(tmp_path / "span.safetensors")
    assert np.array_equal(basis, found.basis)
    assert np.array_equal(values, found.singular_values)
    assert has_bias
    np.savez(tmp_path / "other.npz", basis=np.ones((2, 3)))
    with pytest.raises(FileError, match="singular_values"):
        load_span(tmp_path / "other.npz")


def test_what_is_no_pair_is_refused(tmp_path):
    before, after, x = trained(RULES["plain"], 5)
    other, *_ = trained(RULES["plain"], 5, sizes=(60, 51, 40, 10))
    with pytest.raises(InvalidInputError, match="first layer of shape"):
        find_span(before, other)
    with pytest.raises(InvalidInputError, match="moved"):
        find_span(before, before)
    with pytest.raises(InvalidInputError, match="kept"):
        find_span(before, after, kept=1.5)
    with pytest.raises(InvalidInputError, match="60"):
        find_span(before, after).lifted(x[:, 1:])
    adam = find_span(*trained(Recipe("adam", 10, 1e-3), 5)[:2])
    with pytest.raises(InvalidInputError, match="gap"):
        save_span(tmp_path / "span.safetensors", adam)


@pytest.mark.parametrize("rate", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("kept", [1.0, 0.999])
def test_biases_without_decay_or_with_a_rate_of_their_own(rate, kept):
    for seed, count in enumerate((1, 4, 9)):
        rng = np.random.default_rng(seed)
        before = start((60, 50, 10), rng)
        x = rng.random((count, 60))
        step = before.gradient(x, rng.normal(size=(count, 10)))
        weights = [kept * w - 0.1 * g for w, g in zip(before.weights, step.weights, strict=True)]
        biases = [b - 0.1 * rate * g for b, g in zip(before.biases, step.biases, strict=True)]
        found = find_span(before, DeepNetwork(weights, biases, "relu"))
        assert found.samples == count
        assert found.has_bias == (rate > 0.0)
        assert found.kept == pytest.approx(kept, abs=1e-9)
        others = rng.random((3, 60))
        members = span_members(found, np.vstack([x, others]))
        assert members.members == count


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_adam_on_few_grey_levels_leaves_no_number(levels, count):
    for seed, steps in enumerate((1, 3, 20)):
        rng = np.random.default_rng(seed)
        before = start((60, 50, 10), rng)
        x = rng.integers(0, levels, (count, 60)) / max(1, levels - 1)
        y = rng.integers(0, 10, count).astype(float)
        after = train(before, x, y, Recipe("adam", steps, 1e-3), rng)
        assert find_span(before, after).samples is None


@pytest.mark.parametrize("kind", ["adam", "momentum"])
@pytest.mark.parametrize("batch", [0, 3])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_optimisers_state_shows_the_span(tmp_path, kind, batch, dtype):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(60, 50), torch.nn.GELU(), torch.nn.Linear(50, 10))
    net.to(getattr(torch, dtype))
    torch.save(net.state_dict(), tmp_path / "initial.pt")
    x, y = torch.rand(9, 60, dtype=getattr(torch, dtype)), torch.randint(0, 10, (9,))
    if kind == "adam":
        descent = torch.optim.Adam(net.parameters(), lr=1e-3)
    else:
        descent = torch.optim.SGD(net.parameters(), lr=1e-2, momentum=0.9)
    for step in range(12):
        part = slice(3 * (step % 3), 3 * (step % 3) + 3) if batch else slice(None)
        descent.zero_grad()
        torch.nn.functional.cross_entropy(net(x[part]), y[part]).backward()
        descent.step()
    checkpoint = {"epoch": 4, "model": net.state_dict(), "optimizer": descent.state_dict()}
    torch.save(checkpoint, tmp_path / "final.pt")
    before, after = (
        load_deep_network(tmp_path / name, activation="gelu") for name in ("initial.pt", "final.pt")
    )
    moments = first_moments(*read_moments(tmp_path / "final.pt"), after)
    found = find_span(before, after, moments=moments)
    assert found.samples == 9
    assert found.source == ("exp_avg" if kind == "adam" else "weights")
    assert ("exp_avg" in str(found)) == (kind == "adam")
    lifted = found.lifted(x.double().numpy())
    outside = lifted - lifted @ found.basis.T @ found.basis
    assert np.linalg.norm(outside) < 1e-4 * np.linalg.norm(lifted)
    alone = find_span(before, after)
    assert (alone.samples is None) == (kind == "adam")


def test_moments_that_are_not_there_are_none(tmp_path):
    before, after, _ = trained(RULES["plain"], 0)
    assert first_moments("", [], after) is None
    wrong = [np.ones((3, 3)), np.zeros(before.weights[0].shape)]
    assert first_moments("exp_avg", wrong, after) is None
    torch = pytest.importorskip("torch")
    torch.save({"a.weight": torch.ones(3, 4)}, tmp_path / "plain.pt")
    assert read_moments(tmp_path / "plain.pt") == ("", [])
    with pytest.raises(FileError, match="cannot be opened"):
        read_moments(tmp_path / "none.pt")
