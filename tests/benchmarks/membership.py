"""Members against held-out samples by the rows of a gradient: the table of docs/checkpoints.md.

    [KKTCERT_DATA=DIR] python -m tests.benchmarks.membership [--members 1000]

Batches of 32 images in an MLP and in a small convolutional network, of 8 sequences of 16 tokens in
a transformer of two blocks, all as torch initialises them, cross-entropy. AUC is the share of pairs
of a member and another sample that the residuals order rightly.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from attack.membership import GivenInputs, module_members
from identify.exposure.membership import Membership
from tests.benchmarks.checkpoint_span import images


class Tokens(nn.Module):
    """A transformer of two blocks of width 256, and a linear layer on the mean over the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(500, 256)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.words(x)
        for block in self.blocks:
            h = block(h)
        return torch.as_tensor(self.head(h.mean(dim=1)))


class Block(nn.Module):
    """Attention with four heads and a layer of 512 GELU units, layer norms before both."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(256), nn.LayerNorm(256)])
        self.mixed = nn.Linear(256, 768)
        self.out = nn.Linear(256, 256)
        self.wide = nn.Linear(256, 512)
        self.narrow = nn.Linear(512, 256)

    def forward(self, h: Tensor) -> Tensor:
        parts = self.mixed(self.norms[0](h)).unflatten(2, (3, 4, 64)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        h = h + self.out(mixed.transpose(1, 2).flatten(2))
        return h + torch.as_tensor(self.narrow(nn.functional.gelu(self.wide(self.norms[1](h)))))


def mlp(size: int) -> nn.Module:
    """A network of size-512-256-10."""
    return nn.Sequential(
        nn.Linear(size, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10)
    )


def convolutional(side: int) -> nn.Module:
    """Two convolutions before linear layers of 512-256-10."""
    flat = 16 * (side // 4) ** 2
    return nn.Sequential(
        nn.Unflatten(1, (1, side, side)),
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(flat, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(),
        nn.Linear(256, 10),
    )  # fmt: skip


def judge(
    build: Callable[[], nn.Module], data: Tensor, batch: int, members: int, dtype: torch.dtype
) -> str:
    """AUC, members found, others called members and undecided, over batches of members."""
    inside: list[float] = []
    outside: list[float] = []
    found = false = open_ = 0
    rng = np.random.default_rng(0)
    for seed in range(-(-members // batch)):
        torch.manual_seed(seed)
        module = build().to(dtype).eval()
        x = data[torch.as_tensor(rng.permutation(len(data))[: 2 * batch])]
        x = x.to(dtype) if x.is_floating_point() else x
        y = torch.as_tensor(rng.integers(0, 10, batch))
        module.zero_grad()
        nn.functional.cross_entropy(module(x[:batch]), y).backward()  # type: ignore[no-untyped-call]
        gradient = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
        report = module_members(module, gradient, GivenInputs(x))
        scores = report.fit.residuals
        inside += list(scores[:batch])
        outside += list(scores[batch:])
        found += sum(a is Membership.MEMBER for a in report.answers[:batch])
        false += sum(a is Membership.MEMBER for a in report.answers[batch:])
        open_ += sum(a is Membership.UNDECIDED for a in report.answers)
    pairs = len(inside) * len(outside)
    auc = stats.mannwhitneyu(np.nan_to_num(outside), np.nan_to_num(inside)).statistic / pairs
    return f"{auc:.4f} | {found} of {len(inside)} | {false} of {len(outside)} | {open_}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, default=1000)
    options = parser.parse_args()
    pixels = torch.as_tensor(images())
    side = int(np.sqrt(pixels.shape[1]))
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(0, 500, (4000, 16), generator=generator)
    cases: dict[str, tuple[Callable[[], nn.Module], Tensor, int]] = {
        "MLP, 32 images": (lambda: mlp(pixels.shape[1]), pixels, 32),
        "convolutional, 32 images": (lambda: convolutional(side), pixels, 32),
        "transformer, 8 sequences": (Tokens, words, 8),
        "transformer, 32 sequences": (Tokens, words, 32),
    }
    print("| network | numbers | AUC | members found | others called members | undecided |")
    print("|---" * 6 + "|")
    for name, (build, data, batch) in cases.items():
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            line = judge(build, data, batch, options.members, dtype)
            print(f"| {name} | {str(dtype).split('.')[1]} | {line} |", flush=True)


if __name__ == "__main__":
    main()
