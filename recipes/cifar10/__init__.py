"""What quantization, pruning and distillation cost on CIFAR-10: the runs behind the README."""
