"""From an attribute of a visitor to a variant: a keyed hash, so that everybody agrees."""

from collections.abc import Mapping
from hashlib import blake2b


def variant_of(attribute: str, salt: str, weights: Mapping[str, float]) -> str:
    """The variant of whoever has `attribute`, by weight; the same for the same salt, always.

    Splits with different salts are independent of each other.
    """
    digest = blake2b(attribute.encode(), key=salt.encode()[:64], digest_size=8).digest()
    point = int.from_bytes(digest) / 2**64 * sum(weights.values())
    for variant, weight in weights.items():
        point -= weight
        if point < 0:
            return variant
    return next(variant for variant in reversed(list(weights)) if weights[variant])
