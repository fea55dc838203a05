"""How a running `fastvlm serve` does under load."""
