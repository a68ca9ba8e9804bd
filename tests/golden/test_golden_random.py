"""The float twin against autograd, on random networks that are trained in random ways."""

import numpy as np
import torch
from drawn import trained_networks
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_twin import LOSSES, real_weights, torch_model

from streamtrain.golden import Golden
from streamtrain.host.trainer import training_commands
from streamtrain.pipeline.optimizer import MOMENTUM_BITS, clip_frac, decay_frac
from streamtrain.pipeline.plan import lower

STEPS = 3


@settings(max_examples=500, deadline=None)
@given(trained_networks(), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_twin_trains_as_autograd_does(network, batch, seed):
    plan = lower(network, lambda *layer: (1, 1, 1), max_batch=batch)
    rng = np.random.default_rng(seed)
    fmt, count = plan.stages[0].input, STEPS * batch
    x = fmt.encode(rng.normal(0, 1, (count, *network.input_shape)))
    y = rng.integers(network.classes, size=count)
    commands = training_commands(plan, y, batch)
    twin = Golden(plan, exact=False)
    results = twin.run(x, commands)

    model, tensors = torch_model(network)
    for name, tensor in tensors.items():
        tensor.requires_grad_(name.partition(".")[0] not in network.frozen)
    # Values as the design has them: rounded.
    rate = commands.mantissa[0] / 128 * 2.0 ** (commands.shift[0] - plan.rate_exponent) * batch
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=rate,
        momentum=commands.momentum[0] / 2**MOMENTUM_BITS,
        weight_decay=commands.decay[0] * 2.0 ** -decay_frac(plan) / rate,
    )
    clip = commands.clip[0] * 2.0 ** -clip_frac(plan) / rate
    for begin in range(0, count, batch):
        part = slice(begin, begin + batch)
        scores = model(torch.tensor(fmt.decode(x[part])))
        losses = LOSSES[network.loss](scores, torch.tensor(y[part]))
        optimizer.zero_grad()
        losses.mean().backward()
        if network.optimizer.clip is not None:
            torch.nn.utils.clip_grad_value_(model.parameters(), clip)
        optimizer.step()
        np.testing.assert_allclose(
            results.loss[part] / 4096, losses.detach(), rtol=1e-9, atol=1e-12
        )
    for name, w in real_weights(twin).items():
        np.testing.assert_allclose(w, tensors[name].detach(), rtol=1e-9, atol=1e-12)
