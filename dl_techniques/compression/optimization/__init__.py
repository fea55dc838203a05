"""`fastvlm optimize`: recipes and their steps, measured before and after."""
