"""`python -m tt_tito` is `tito`."""

from tt_tito.cli import main

main()
