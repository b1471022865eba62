"""Makes `python -m lxmert_export.cli` the same as the console script `lxmert-export`."""

from lxmert_export.cli.main import main

main()
