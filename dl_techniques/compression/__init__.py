"""Smaller and faster models: quantization, pruning, distillation."""
