"""A candidate that a percentage of people talks to: who does, what they think of it, and when that is enough.

Pure: records in, records out. `rounds/canary.py` reads the log for it and moves the aliases.
"""
