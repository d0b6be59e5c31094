"""Every threshold that a verdict depends on, with its reason.

The checker keeps copies of its own (a test compares them): it must not follow a slip made here.
Block sizes, iteration counts and limits of memory stand where they are used; no verdict turns on
them.
"""

# The noise level rho.

NOISE_FLOOR = 1e-13
"""No float64 data are believed to be more exact: a few hundred roundings of products and sums."""
COARSE_NOISE = 1e-10
"""Relative noise from which a report names float64 as a way out: float32 has 1e-7."""
NOISE_LIMIT = 0.03
"""Largest noise level: ten times it is a third of the data, and no rank can be told above."""
BALANCE_LIMIT = 1e-2
"""Largest violation of |w_j|^2 = alpha a_j^2: training to stationarity leaves far less."""
ROUNDS = 12
"""Rounds in which the noise level has to settle: it grows by factors, or never settles."""

# Ranks.

GAP = 100.0
"""Smallest counted over largest uncounted singular value: noise alone makes no such step."""
PARALLEL = 1e-8
"""Distance of unit vectors below which two samples count as one: float64 cannot separate them."""

# Recovered samples.

BOUND_LIMIT = 0.1
"""Largest error bound of a sample or term: above, first order says nothing about the sample."""
BOX_LIMIT = 0.1
"""Largest relative size of a proved box, for the same reason."""
DIFFERENT = 0.1
"""Sets are different, and a sample is not recovered, from this share of a sample's norm on."""
SECOND_METHOD = 1e-6
"""Terms of two methods nearer than this are the same, however small the error bounds are."""

# The number of samples.

TIE_TOLERANCE = 1e-3
"""Largest tolerance, in the logarithm, at which a tie counts: a wider one holds by chance."""
HIDDEN_SHARE = 0.1
"""Largest median share of the data that a further sample could carry unseen."""

# Samples that somebody gives.

UNEXPLAINED = 0.1
"""Residual from which on the samples are said not to explain the data."""

# One gradient of a ReLU network.

KERNEL_GAP = 100.0
"""Smallest step between the kernel of L and its next value, as for ranks."""
KERNEL_NOISE = 30.0
"""Largest value of the kernel, in units of the noise, that still counts as 0."""
LARGEST_BOUND = BOUND_LIMIT
"""Largest relative error of a sample."""
SMALLEST_CONFIDENCE = 3.0
"""Smallest margin of a sign or a label over its error."""
LOOSEST = NOISE_LIMIT
"""Largest residual at which a check still confirms anything."""
SPARSE = 0.25
"""Share of exact zeros in a gradient from which it may have been sent without its small entries."""
EMPTY = 0.97
"""The same for a ReLU network, with the rows and columns that are 0 as a whole."""
SECOND_RESIDUAL = 1e-10
"""Largest relative residual of a shown set, unless twice the layer's noise is larger."""
SECOND_NOISE = 1e-6
"""Largest residual of a shown set all the same: more could hide where two masks differ."""
SECOND_DISTANCE = 1e-2
"""Smallest relative distance, beyond the errors, that makes two shown sets different."""

# One gradient: ranks, masks and layers.

SEEN = 3.0
"""A step of the singular values below which it is no candidate for the rank."""
CLEAR = GAP
"""The step s_r / s_(r+1) of a gradient from which its rank counts as clear."""
FLAT = 0.1
"""Directions of a tail, over those of independent noise, from which it may be noise."""
EVEN = 0.3
"""The same once rows and columns are scaled to one size: a sample is one direction still."""
LATE_FALL = 10.0
"""A later fall of the singular values that ends at rounding and so ends the rank."""
PASSES = 4.0
"""Errors of the passes that made a float32 gradient, over those of storing it."""
TAIL_ENTRIES = 30
"""Entries of a tail from which it is not 0 by chance, as sums on a coarse grid are."""
TAIL_SIGMAS = 3.1
"""Standard deviations that the noise of few entries is raised by: one in a thousand."""
FOREIGN_NOISE = 100.0
"""Times the noise of a clear layer from which another layer was disturbed by itself."""
AGREEMENT_SIGMAS = 10.0
"""What noise makes of the difference of two layers, times this, is allowed."""
DROWNED = 0.5
"""Relative difference of two layers that no noise excuses."""
LOOSE_LOSS = 0.2
"""Error of a slope from which the loss confirms nothing."""
NORM_LIMIT = 1e6
"""A mask counts as impossible if no sample of at most this norm has it."""
USABLE_ROW = 0.25
"""Largest error of an entry of a mask, as on is 1: beyond, its row tests nothing."""
LARGEST_CHANCE = 1e-2
"""Expected number of masks by chance that a list may hold."""
STATIONARY_ROUNDINGS = 30.0
"""Roundings up to which balance and equal margins hold."""
PARALLEL_NEURONS = 1e-6
"""Sine of the angle below which two hidden neurons have one direction."""
SINGULAR = 1e-10
"""Relative singular value below which a sample is not isolated."""

# Two checkpoints, and who took part.

SURE = 10.0
"""Expected errors of a member's residual up to which a sample counts as one."""
APART = 100.0
"""Expected errors from which a sample left no trace; chance must lie beyond them."""
OWN_ERRORS = 4.0
"""Errors of an entry, relative, that a vector computed elsewhere may carry."""
SPAN_ROUNDINGS = 64.0
"""Roundings of a weight up to which what follows the gap is taken for them."""
ALIKE = 0.75
"""Median over root mean square of the entries that moved: 0.4 after descent, 0.9 after Adam."""
GAP_SHARE = 0.35
"""The share of the digits between the largest value and the rounding that a gap has to span."""
CLIFF = 1e4
"""The gap that is asked for where the rank is more than half of the layer."""
BETTER_GAP = 4.0
"""A gap this much larger speaks for a scalar beside 1."""
REACHED = 100.0
"""Expected roundings of the residual up to which a replay reaches the final weights."""
REPLAY_BOUND = BOUND_LIMIT
"""A relative error bound from which a replayed sample is not determined."""
PAIR_FITS = 0.06
"""What samples may leave of a first layer's change between checkpoints: 0.5 % with the right ones,
10 % and more with others, of which nothing is drawn."""
