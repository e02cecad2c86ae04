"""What is laid into PyTorch, NumPy and Gymnasium while a script runs; it fills the case and judges nothing."""
