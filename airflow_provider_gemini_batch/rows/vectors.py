"""Vectors of the length that was asked for: a model may answer with its full length all the same."""

from __future__ import annotations

from math import fsum, sqrt


def fit_vector(vector: list[float], dimensions: int) -> tuple[list[float], str, str]:
    """Cut a vector that is too long and bring it to length 1 again, as the service does for shorter vectors.

    Gemini's embeddings are made so that their first values are a good shorter vector (Matryoshka); they are normalised
    only at full length. Source: https://ai.google.dev/gemini-api/docs/embeddings#quality-for-smaller-dimensions

    :returns: the vector, what is wrong with it (it is too short), and what was done to it.
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
