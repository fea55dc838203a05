"""Pictures, questions and answers, each a function of its number."""
