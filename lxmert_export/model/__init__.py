"""The canonical LXMERT in PyTorch: the reference for every conversion."""
