"""What the ids of training rows say: which conversation, or which of our messages, a row was made of."""

ANSWERS = "answers"  # source of rows that hold what a candidate said between two iterations


def window_id(conversation_id: str, window: int) -> str:
    """Of the first, second … window of a conversation."""
    return f"{conversation_id}#{window + 1}" if window else conversation_id


def conversation_of(row_id: str) -> str:
    """The conversation that a row with this id is a window of."""
    name, _, number = row_id.rpartition("#")
    return name if name and number.isdigit() else row_id


def answer_id(message_id: str, number: int) -> str:
    """Of the answer that a candidate gave in the place of a logged message."""
    return f"{message_id}~{number}"


def answer_row_id(answer_id: str) -> str:
    return f"{ANSWERS}-{answer_id}"


def answered_by(row_id: str) -> str | None:
    """The logged message in whose place the row's answer stands; None for other rows."""
    if not row_id.startswith(f"{ANSWERS}-"):
        return None
    return row_id.removeprefix(f"{ANSWERS}-").rpartition("~")[0]
