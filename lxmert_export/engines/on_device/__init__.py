"""The script that a bundle brings to a device. It imports nothing from lxmert_export."""
