"""The trained models: how they are made, measured and shipped."""
