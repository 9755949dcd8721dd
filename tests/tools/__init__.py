"""Scripts that make files of the repository: the demo clip, the screenshot."""
