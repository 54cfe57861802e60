"""Ids that depend on what was read alone: reading it twice gives the same events."""

import hashlib
import json
from datetime import UTC, datetime
from typing import Any


def fingerprint(value: Any) -> str:
    """Hexadecimal hash of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def microseconds(value: Any) -> int:
    """Of a time in ISO 8601 (UTC where it says nothing else), or of seconds since 1970; 0 for anything
    else."""
    if isinstance(value, bool):
        return 0
    if isinstance(value, int | float):
        return round(value * 1e6) if 0 <= value < 1e11 else 0
    try:
        when = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return 0
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return round(when.timestamp() * 1e6)
