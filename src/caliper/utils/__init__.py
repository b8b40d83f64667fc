"""Small helpers that know nothing of learning or simulation: files, progress bars, memory, provenance."""
