"""Conditions and checks in plain words, for the tables of a page."""

from __future__ import annotations

EXPLANATIONS = {
    "finished": "the examination came to its end",
    "balance": "the weights of every neuron have the sizes that training to the end gives them",
    "range": "the numbers are neither too large nor too small for the computer's arithmetic",
    "consistency": "the data fit the network: an identity between its layers holds",
    "noise level": "the data are exact enough to count independent samples",
    "settled noise": "what the equations leave over is no larger than the noise that was assumed",
    "span": "the number of dimensions that the samples fill can be read off without doubt",
    "number possible": "the number of samples that you gave fits the data",
    "neurons": "there are more neurons than dimensions, so that the data show all samples",
    "I-hermite": "the weights fix every entry of the quantity from which samples are computed",
    "I-flat": "a stronger form of the same, of an earlier theorem; only for comparison",
    "I-value": "a form of it that does without derivatives; only for comparison",
    "number covered": "the theorem speaks about the number of samples that you gave",
    "decomposition": "that quantity splits into one part for each sample",
    "finite samples": "every part belongs to a sample of finite size",
    "second method": "an independent method finds the same samples",
    "leftover": "the samples explain also the data that the equations did not use",
    "tie": "the samples obey the equal margins or the loss that is known",
    "non-negative": "no pixel is negative, as you said",
    "right side": "every sample lies on the side of the boundary that its class asks for",
    "redundancy": "there are equations left that would fail for a wrong number of samples",
    "hidden share": "a further sample could not have gone unseen in the noise",
    "error bounds": "every sample is known to better than a tenth of its length",
    "separate margins": "no sample lies on the boundary itself",
    "stable rank": "no error in the data could change the count of samples",
    "first-order bounds": "the errors of the samples are small enough to be computed",
    "enclosure": "it is proved that there is exactly one solution close to the one printed",
    "agreement": "no proof contradicts the numbers",
    "evidence": "the strength of evidence that you asked for was reached",
    "known loss": "the samples' weights are those that the loss gives them",
    "masks agree with signs": "each sample switches on the neurons that its image says it does",
    "masks of the samples": "each sample switches on the neurons that its image says it does",
    "kernel of L": "the equations have as many solutions as there are samples, and no more",
    "rows": "there are enough neurons that some samples switch on and others do not",
    "power": "equations are left for each sample that would fail for a wrong one",
    "balance of the layers": "the sizes of the layers fit each other as after training to the end",
    "coefficients of the biases": "the biases say the same as the weights",
    "samples off the kinks": "no sample sits where a neuron is just switched on",
    "equal margins": "all samples lie equally far from the boundary",
}


def explained(name: str) -> str:
    """Return what a condition means; checks of one layer are explained by their kind.

    Example:
        >>> explained("balance of the layers")[:8], explained("gradient of layer 2")
        ('the size', 'the samples explain this part of the data')
    """
    if name in EXPLANATIONS:
        return EXPLANATIONS[name]
    if "layer" in name or "gradient" in name:
        return "the samples explain this part of the data"
    return ""
