"""Models: those of transformers (`huggingface`: `text`, `vision`) and anybody's modules (`factory`).

`load` finds which kind is meant, `network` is what they have in common, `hooks` reads what modules put out.
"""
