"""What turns a task's data into tensors and back: vocabularies, labels, scales."""
