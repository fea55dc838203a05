"""Records to prompts: messages, chat template, tokenizer, pictures as the network takes them."""
