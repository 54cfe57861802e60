"""One file a format: recorded talk becomes events or conversations."""
