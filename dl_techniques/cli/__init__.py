"""The command `fastvlm`: thin; parses, calls, prints."""
