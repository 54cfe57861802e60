"""Is the candidate better than the champion? Frozen prompts, an independent judge, one verdict."""
