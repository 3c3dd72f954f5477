"""What samplers compute with: tensors in, tensors out."""
