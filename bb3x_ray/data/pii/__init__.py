"""What identifies a person in a text: one file for each kind, see `data/deidentify.py` for the whole."""
