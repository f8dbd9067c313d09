"""Dense layers: matrix products and the activation between them."""
