"""From what the user named to a model, in one call, for everybody above."""
