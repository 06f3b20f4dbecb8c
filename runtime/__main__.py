"""`python -m edge_medgemma.runtime`, the same as `edge-medgemma`."""

from edge_medgemma.runtime.cli import main

main()
