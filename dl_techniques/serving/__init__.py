"""A loaded model behind a port: engine (questions, replies, batch), then what speaks HTTP."""
