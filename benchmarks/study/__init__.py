"""The evidence for the parity thresholds: correct checkpoints that must not alarm, planted faults that must."""
