"""Edge vectors from positions, and forces and virials from what each edge pulls."""
