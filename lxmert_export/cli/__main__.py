"""`python -m lxmert_export.cli` does what the console script `lxmert-export` does."""

from lxmert_export.cli.main import main

main()
