"""What trained a shipped or quoted model: stages in YAML, and the code that makes them."""
