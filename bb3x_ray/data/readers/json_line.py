"""One line of JSON, strictly: what the log could not hold is refused here, with a reason that quotes
nothing."""

import json
from typing import Any

import orjson


def parse(line: bytes) -> dict[str, Any]:
    """The JSON object of a line. Raises ValueError with the reason.

    orjson takes valid UTF-8 without lone surrogates, NaN or infinity only, so no text needs to be checked
    again.
    """
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise ValueError(_reason(line)) from None
    if type(record) is not dict:
        raise ValueError("not a JSON object")
    return record


def normal(record: Any) -> dict[str, Any]:
    """The same for what a laxer parser has read. Raises ValueError with the reason."""
    return parse(json.dumps(record).encode())


def _reason(line: bytes) -> str:
    """Why orjson refused: the standard parser knows the place, and takes what JSON does not allow."""
    try:
        record = json.loads(line.decode("utf-8"))
        json.dumps(record, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError:
        return "not valid UTF-8"
    except UnicodeEncodeError:
        return "a text holds half a surrogate pair"
    except json.JSONDecodeError as error:
        return f"not valid JSON at column {error.colno}"
    except RecursionError:
        return "nested too deeply"
    except ValueError:  # an integer of thousands of digits
        return "not valid JSON: a number is too long"
    return "not strict JSON: NaN, infinity, or nested too deeply"
