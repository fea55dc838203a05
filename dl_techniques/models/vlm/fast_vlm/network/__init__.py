"""Pictures and token ids to logits: image embedding, splice, decoder."""
