"""`python -m embedded_engine`."""

from embedded_engine.cli import main

main()
