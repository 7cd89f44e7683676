"""`python -m contrasim_cli`."""

from contrasim_cli.cli import main

main()
