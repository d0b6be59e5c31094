"""Every threshold that a verdict depends on, with its reason.

The checker keeps copies of its own (a test compares them): it must not follow a slip made here.
Block sizes, iteration counts and limits of memory stand where they are used; no verdict turns on
them.
"""

# The noise level rho.

NOISE_FLOOR = 1e-13
"""No float64 data are believed to be more exact: a few hundred roundings of products and sums."""
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

FITS = 1e-2
"""Largest residual at which given data count as an explanation: trained weights are not exact."""
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
