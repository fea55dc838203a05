"""What learns in each stage, from what, and how a model is changed between stages."""
