"""The Python interface, one module a group of functions: what ``lxmert_export`` offers, and what the command line calls."""
