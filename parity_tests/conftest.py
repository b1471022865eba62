"""What every test of the suite runs under."""

from __future__ import annotations

import torch

# Tests run two at a time on two cores: more threads in each would only wait for one another.
torch.set_num_threads(1)
