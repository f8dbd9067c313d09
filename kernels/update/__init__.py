"""Update of an atom's features: the memory-bound parts between the matrix products, and their adjoints."""
