"""What was found, looked at by a person: a page a run, the marks made on it, and what is learnt from them."""
