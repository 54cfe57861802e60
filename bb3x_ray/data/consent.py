"""Consent that was taken back, or given again: the latest `consent` event of the person stands.

An event's `conversation_id` says what it is about, `EVERYTHING` all that the person ever said; its
`consent_basis` is "none" for taken back. Where both speak, the later one stands (see `standing.py`). A
message that was logged without consent has no text, and no later consent brings it back.
"""

NO_BASIS = ("", "none")
