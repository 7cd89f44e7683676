"""Activations from models: what is fed (`sources`), what it runs through (`networks`), what is kept of it (`pooling`, `run`).

`batching` cuts items into shards and batches, `shards` keeps what is done so that a stopped run can go on, `estimate` says
beforehand what a run will write, `provenance` what its rows depend on; `importing` takes activations that exist already.
"""
