"""`python -m edge_medgemma`, the same as `edge-medgemma`."""

from edge_medgemma.runtime.cli import main

main()
