"""Imported before all else of this package, so that Keras is never imported to run on another framework."""

from lxmert_export.extras import check_keras_backend

check_keras_backend()
