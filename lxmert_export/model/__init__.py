"""The canonical LXMERT in PyTorch: the reference that everything else is judged by."""
