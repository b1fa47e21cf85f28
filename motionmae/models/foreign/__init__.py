"""Other projects' checkpoints in our names, a file for each source. Its one rule: strict, never unpickled freely."""
