"""One answer of a batch: its settings, how its tokens are chosen, its text."""
