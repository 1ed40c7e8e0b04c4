"""What backlane speaks of: pure values and arithmetic, no I/O, no clock of their own."""
