"""Kubernetes' quantities: `250m`, `1.5Gi`, `2e3`. Pure."""

_SUFFIXES = {
    "n": 1e-9,
    "u": 1e-6,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
    "E": 1e18,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
    "Pi": 2.0**50,
    "Ei": 2.0**60,
}


def quantity(text: str | int | float) -> float:
    """The number. Raises ValueError."""
    word = str(text)
    for length in (2, 1):
        if word[-length:] in _SUFFIXES and len(word) > length:
            return float(word[:-length]) * _SUFFIXES[word[-length:]]
    return float(word)
