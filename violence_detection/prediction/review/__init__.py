"""Review by a person: a page for each run, the marks made on that page, and what is learnt from the marks."""
