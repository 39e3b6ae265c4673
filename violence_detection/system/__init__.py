"""Files, processes and machines: helpers that know nothing about video."""
