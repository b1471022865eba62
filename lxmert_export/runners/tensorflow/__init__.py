"""SavedModels and ``.keras`` files in TensorFlow."""
