"""Checks the framework that Keras is set to; imported first, so that Keras never starts on another framework."""

from lxmert_export.extras import check_keras_backend

check_keras_backend()
