"""Quantized layers: their classes, their configs, and how a saved network gets them back."""
