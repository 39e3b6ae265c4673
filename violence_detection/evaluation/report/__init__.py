"""The report: figures, predictions, plots, and one page that needs no network."""
