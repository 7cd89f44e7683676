"""What `sample_data/generate.py` is made of: data, sentences, models, stores."""
