"""Files of Faster R-CNN features: one module a format, one way to check boxes, and a format of ours to convert them to."""
