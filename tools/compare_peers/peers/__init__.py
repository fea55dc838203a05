"""Who computes: the table of peers, and the code that runs each in its own process."""
