"""Names into file names."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Final

_SAFE: Final = re.compile(r"[a-z0-9](?:[a-z0-9_-]|\.(?=[a-z0-9]))*")
_TAKEN: Final = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?|(?:.*-)?[0-9a-f]{8}")
_LENGTH: Final = 60


def slug(name: str) -> str:
    """A safe file name for any scenario name; two names never share one.

    A name of lower-case letters, digits, ``-``, ``_`` and ``.`` that no system reserves is kept. Of any
    other, what is left is followed by eight digits of its SHA-256; so is a name that ends like that already.

    Raises:
        ValueError: The name holds a lone surrogate, which no file system and no terminal takes.
    """
    try:
        digest = hashlib.sha256(name.encode("utf-8")).hexdigest()[:8]
    except UnicodeEncodeError:
        raise ValueError("a lone surrogate (half a character) cannot be written anywhere") from None
    if len(name) <= _LENGTH and _SAFE.fullmatch(name) and not _TAKEN.fullmatch(name):
        return name
    plain = unicodedata.normalize("NFKD", name[:300]).encode("ascii", "ignore").decode("ascii").lower()
    kept = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:_LENGTH].rstrip("-")
    return f"{kept}-{digest}" if kept else digest
