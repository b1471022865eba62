"""The Python interface: the functions that ``lxmert_export`` offers and that the command line calls."""
