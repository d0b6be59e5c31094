"""How many samples the rows of a gradient can determine, by counting equations."""

from __future__ import annotations

from identify.disaggregation.cubic import LARGEST_UNKNOWNS, count_rows, count_unknowns


def largest_batch(width: int, outputs: int) -> int:
    """The largest batch that the last hidden layer's rows can determine, cross-entropy assumed.

    n (n + 1) / 2 + n (q - 1) rows are needed that some samples activate and others do not, with
    q = C - 1 for C outputs and q = 1 for one; or by the equations of degree 3, where they are
    formed, the fewer of `count_rows`.

    Example:
        >>> largest_batch(1400, 1), largest_batch(256, 10), largest_batch(5000, 10)
        (52, 29, 91)
    """
    q = max(1, outputs - 1)
    n = 0
    while (n + 1) * (n + 2) // 2 + (n + 1) * (q - 1) <= width:
        n += 1
    while (
        count_unknowns(n + 1, q, leaky=False) <= LARGEST_UNKNOWNS
        and max(count_rows(n + 1, q, leaky=False), 2 * (n + 1)) <= width
    ):
        n += 1
    return n


def largest_smooth_batch(widths: tuple[int, ...], outputs: int) -> int:
    """The largest batch whose samples can meet more equations than they have unknowns.

    A sample of n has n - 1 unknowns and q - 1 of its loss slope, q = C - 1 or 1; it meets
    m_l - n equations at every hidden layer and as many again for what enters the next one.

    Example:
        >>> largest_smooth_batch((200,), 1), largest_smooth_batch((256, 256), 10)
        (100, 190)
    """
    q = max(1, outputs - 1)
    twice = 2 * sum(widths) - widths[-1]
    count = (twice - (q - 1)) // (2 * len(widths))
    return max(0, min(count, *(width - 1 for width in widths)))
