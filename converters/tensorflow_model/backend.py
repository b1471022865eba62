"""Imported before all else of this package, so that Keras is never imported to run on another framework."""

from lxmert_export.keras_backend import check_keras_backend

check_keras_backend()
