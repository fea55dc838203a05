"""Prompts to text: alignment, prefill, decoding steps, sampling, streams."""
