"""A FastVLM encoder and a new projector on a frozen, pretrained language model."""
