"""Networks: vision models, and models that put vision and language together."""
