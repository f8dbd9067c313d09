"""How fast it is: the same work through several programs, side by side; no time for one whose numbers are wrong."""
