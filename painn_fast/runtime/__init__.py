"""Files that survive a kill, checkpoints, progress, interrupts and several processes: what long work needs."""
