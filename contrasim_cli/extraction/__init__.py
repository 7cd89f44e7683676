"""Activations from models: what is fed (`inputs`), what it runs through (`models`), what is kept of it (`pooling`, `run`)."""
