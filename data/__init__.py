"""Storage: the dataset file, the replay buffers and what fills them. Knows nothing of learning."""
