"""What stands in a file's place when it was not copied: nothing, or a pointer of Git LFS."""

from __future__ import annotations

POINTER_START = b"version https://"  # and the address of its specification


def not_copied(content: bytes) -> str | None:
    """Says what stands in a file's place, and how to get the file; None if it has content of its own."""
    if not content:
        return "is empty; copy or download it again"
    if content.startswith(POINTER_START):
        return "is a Git LFS pointer, not the file: run 'git lfs pull' where it lies"
    return None
