"""The interaction log at the size of a real deployment: how fast, in how much memory."""
