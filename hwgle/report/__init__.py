"""What is told about a chip: comparisons with float64, and pictures of them."""
