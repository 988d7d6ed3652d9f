"""checkpoint -> something that runs: export, precision, build, parity, and the runners."""
