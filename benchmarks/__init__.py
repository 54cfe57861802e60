"""What is claimed of speed, side by side with a peer in one run, as ratios: `make bench`."""
