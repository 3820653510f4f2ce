"""What the core is held to, written slowly in PyTorch.

`step` is one training step of any recipe in any dtype, dense, differentiated by autograd. `published` is the published
recipe as a user would write it with `torch.nn` and `torch.optim`, and shares no line with `step`.
"""

import torch

# Everything here is small, and a pool of threads costs more than it brings.
torch.set_num_threads(1)
