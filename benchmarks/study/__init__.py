"""The evidence for the parity thresholds: correct checkpoints must not alarm, and planted faults must."""
