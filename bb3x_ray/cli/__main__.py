"""`python -m bb3x_ray.cli`."""

from bb3x_ray.cli import main

main()
