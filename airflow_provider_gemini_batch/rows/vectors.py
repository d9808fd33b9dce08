"""Vectors of the requested length: a model may ignore it and return its full length."""

from __future__ import annotations

from math import fsum, sqrt


def fit_vector(vector: list[float], dimensions: int) -> tuple[list[float], str, str]:
    """Return a vector cut to the requested number of values and normalised, as the service returns shorter vectors.

    The first values of a Gemini embedding are a good shorter vector (Matryoshka), but only the full one is normalised.
    Source: https://ai.google.dev/gemini-api/docs/embeddings#quality-for-smaller-dimensions

    :returns: the vector, what is wrong with it (too short), and what was changed; each text may be empty.
    """
    length = len(vector)
    if length == dimensions:
        return vector, "", ""
    if length < dimensions:
        return vector, f"the embedding has {length} values where {dimensions} were asked for", ""
    cut = vector[:dimensions]
    norm = sqrt(fsum(value * value for value in cut))
    if norm:
        cut = [value / norm for value in cut]
    return cut, "", f"the embedding had {length} values; it was cut to {dimensions} and normalised"
