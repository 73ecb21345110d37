"""The identity of a process as one text, for formats that want one."""

from __future__ import annotations

import hashlib

__all__ = ["entity_id"]


def entity_id(boot_id: str, pid: int, start_ns: int) -> str:
    """The same for every record of one process, and for no other process of any machine.

    >>> entity_id("b0075eed", 7, 10_000_000)
    '70bd50816918c5793020b98a193fe76b'
    """
    identity = f"{boot_id}:{pid}:{start_ns}".encode()
    return hashlib.blake2b(identity, digest_size=16).hexdigest()
