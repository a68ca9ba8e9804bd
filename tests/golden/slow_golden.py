"""The arithmetic of a training step once more: plain NumPy on int64, tensors as in the equations.

It shares nothing with ``streamtrain.golden`` but the plan; numbers are rounded by the functions
that the gates are compared with (``tests/numeric``).
"""

from fractions import Fraction

import numpy as np

from streamtrain.host.device import Op
from streamtrain.network import CrossEntropy, SquaredHinge
from streamtrain.numeric import (
    Round,
    lane_bits,
    lfsr_states,
    requantize_codes,
    round_codes,
)
from streamtrain.pipeline.layouts import saturation_sites
from streamtrain.pipeline.optimizer import clip_frac, decay_frac, velocity


def clip(codes, fmt):
    return np.clip(codes, fmt.codes[0], fmt.codes[-1])


def low(random, bits):
    return None if random is None else random & (1 << bits) - 1


class Random:
    """Random bits of one site of a stage."""

    def __init__(self, seed):
        self.state = seed

    def beat(self):
        states, self.state = lfsr_states(self.state, 1)
        return int(states[0])

    def map(self, shape, lanes, bits):
        """Random numbers of a map (channels, rows, cols) whose pixels arrive in raster order."""
        channels, rows, cols = shape
        random = np.zeros(shape, np.int64)
        for r in range(rows):
            for c in range(cols):
                for block in range(channels // lanes):
                    state = self.beat()
                    for lane in range(lanes):
                        random[block * lanes + lane, r, c] = lane_bits(state, lane, bits)
        return random


class SlowStage:
    def __init__(self, plan, stage, weights):
        self.plan, self.stage = plan, stage
        (n, m), k = stage.channels, stage.kernel
        w = weights[f"{stage.name}.weight"]
        if w.ndim == 2:  # PyTorch's order of inputs to the stream's: channels innermost
            channels, rows, cols = stage.flattened
            w = w.reshape(m, channels, rows * cols).transpose(0, 2, 1)
        self.w = w.reshape(m, n, k, k).copy()
        self.b = weights.get(f"{stage.name}.bias", np.zeros(m, np.int64)).copy()
        self.gw, self.gb = np.zeros_like(self.w), np.zeros_like(self.b)
        self.vw, self.vb = np.zeros_like(self.w), np.zeros_like(self.b)
        self.random = {
            site: Random(plan.random_seed(stage, site)) for site in ("output", "errors", "weights")
        }
        self.saturated = dict.fromkeys(saturation_sites(plan), 0)

    def torch_weight(self, shape):
        if len(shape) == 4:
            return self.w
        channels, rows, cols = self.stage.flattened
        w = self.w.reshape(shape[0], rows * cols, channels)
        return w.transpose(0, 2, 1).reshape(shape)

    def operand(self, stored):
        s = self.stage
        shift = s.stored.frac - s.weights.frac
        return clip(round_codes(stored, shift, Round.NEAREST), s.weights)

    def forward(self, x):
        s = self.stage
        n, m = s.channels
        k = s.kernel
        self.x = x = x.reshape(n, s.rows, s.cols)
        self.padded = np.pad(x, ((0, 0), (s.pad, s.pad), (s.pad, s.pad)))
        w, b = self.operand(self.w), self.operand(self.b)
        z = np.zeros((m, s.out_rows, s.out_cols), np.int64)
        for r in range(s.out_rows):
            for c in range(s.out_cols):
                window = self.padded[:, r : r + k, c : c + k]
                z[:, r, c] = np.einsum("mnij,nij->m", w, window) + (b << s.input.frac)
        shift = s.input.frac + s.weights.frac - s.output.frac
        random = None
        if s.round_output is Round.STOCHASTIC and shift > 0:
            random = self.random["output"].map(z.shape, s.folding[0], shift)
        z, count = requantize_codes(z, shift, s.output, s.round_output, random)
        self.saturated["output"] += count

        y = np.zeros((m, *s.pooled), np.int64)
        self.choice = np.zeros((m, *s.pooled, 2), np.int64)
        for at in np.ndindex(y.shape):
            channel, r, c = at[0], at[1] * s.pool, at[2] * s.pool
            square = z[channel, r : r + s.pool, c : c + s.pool]
            i, j = np.unravel_index(square.argmax(), square.shape)
            y[at], self.choice[at] = square[i, j], (r + i, c + j)
        self.mask = y > 0 if s.relu else np.ones(y.shape, bool)
        return np.where(self.mask, y, 0)

    def receive(self, dy, shift, random):
        """Round the error of the outputs, and take it back through ReLU and pool."""
        s = self.stage
        dy, count = requantize_codes(dy, shift, s.errors, s.round_errors, random)
        self.saturated["errors"] += count
        self.dz = np.zeros((s.channels[1], s.out_rows, s.out_cols), np.int64)
        for at in np.ndindex(dy.shape):
            if self.mask[at]:
                self.dz[at[0], *self.choice[at]] = dy[at]

    def input_error(self):
        """dx[n, h, v] = sum of w[m, n, i, j] dz[m, h + pad - i, v + pad - j], exact."""
        s = self.stage
        w = self.operand(self.w)
        dx = np.zeros(self.x.shape, np.int64)
        for h in range(s.rows):
            for v in range(s.cols):
                for i in range(s.kernel):
                    for j in range(s.kernel):
                        r, c = h + s.pad - i, v + s.pad - j
                        if 0 <= r < s.out_rows and 0 <= c < s.out_cols:
                            dx[:, h, v] += w[:, :, i, j].T @ self.dz[:, r, c]
        return dx

    def update(self, rate_shift, update, values):
        s, plan = self.stage, self.plan
        k = s.kernel
        a = np.zeros_like(self.w)
        for i in range(k):
            for j in range(k):
                part = self.padded[:, i : i + s.out_rows, j : j + s.out_cols] << rate_shift
                a[:, :, i, j] = np.einsum("mrc,nrc->mn", self.dz, part)
        ab = self.dz.sum(axis=(1, 2)) << rate_shift
        shift, shift_b = plan.weight_shift(s), plan.bias_shift(s)
        drop, drop_b = plan.batch_shift(shift), plan.batch_shift(shift_b)
        t, tb = (self.gw << drop) + a, (self.gb << drop_b) + ab
        if not update:
            self.gw, self.gb = t >> drop, tb >> drop_b
            return
        self.gw[:], self.gb[:] = 0, 0
        t, tb, shift_b = self.optimised(t, tb, shift, shift_b, **values)
        random, random_b = self.weight_random()
        if plan.network.optimizer.momentum:
            self.keep_velocity(t, tb, random, random_b)
        random, random_b = low(random, shift), low(random_b, shift_b)
        new = self.w - round_codes(t, shift, s.round_weights, random)
        self.w = clip(new, s.stored)
        self.saturated["weights"] += np.count_nonzero(self.w != new)
        if s.bias:
            new = self.b - round_codes(tb, shift_b, s.round_weights, random_b)
            self.b = clip(new, s.stored)
            self.saturated["weights"] += np.count_nonzero(self.b != new)

    def optimised(self, t, tb, shift, shift_b, momentum=0, decay=0, clip=0):
        """Gradients as they are subtracted, and the bits below a stored bias."""
        s, plan, own = self.stage, self.plan, self.plan.network.optimizer
        if own.clip is not None:
            frac, frac_b = s.stored.frac + shift, s.stored.frac + shift_b
            limit, limit_b = (clip << f - clip_frac(plan) for f in (frac, frac_b))
            t, tb = np.clip(t, -limit, limit), np.clip(tb, -limit_b, limit_b)
        if not (own.momentum or own.weight_decay):
            return t, tb, shift_b
        frac = s.stored.frac + shift
        tb = tb << s.input.frac
        if own.momentum:
            up = frac - velocity(plan, s).frac - 10
            t, tb = t + (momentum * self.vw << up), tb + (momentum * self.vb << up)
        if own.weight_decay:
            up = frac - s.weights.frac - decay_frac(plan)
            w, b = self.operand(self.w), self.operand(self.b)
            t, tb = t + (decay * w << up), tb + (decay * b << up)
        return t, tb, shift

    def keep_velocity(self, t, tb, random, random_b):
        s, fmt = self.stage, velocity(self.plan, self.stage)
        drop = s.stored.frac + self.plan.weight_shift(s) - fmt.frac
        random, random_b = low(random, drop), low(random_b, drop)
        self.vw, count = requantize_codes(t, drop, fmt, s.round_weights, random)
        self.saturated["velocity"] += count
        if s.bias:
            self.vb, count = requantize_codes(tb, drop, fmt, s.round_weights, random_b)
            self.saturated["velocity"] += count

    def weight_random(self):
        """All bits of each weight's random state, and of each bias's."""
        s = self.stage
        if s.round_weights is not Round.STOCHASTIC:
            return None, None
        random, random_b = np.zeros_like(self.w), np.zeros_like(self.b)
        (mbs, nbs, kbs), (pms, pns, pks) = s.blocks, s.folding
        for mb, nb, kb in np.ndindex(mbs, nbs, kbs):
            state = self.random["weights"].beat()
            for pm, pn, pk in np.ndindex(pms, pns, pks):
                lane = (pm * pns + pn) * pks + pk
                i, j = divmod(kb * pks + pk, s.kernel)
                random[mb * pms + pm, nb * pns + pn, i, j] = lane_bits(state, lane, 32)
            if nb == 0 and kb == 0:
                for pm in range(pms):
                    random_b[mb * pms + pm] = lane_bits(state, pms * pns * pks + pm, 32)
        return random, random_b


class SlowGolden:
    def __init__(self, plan, weights):
        self.plan = plan
        self.shapes = {name: value.shape for name, value in weights.items()}
        self.stages = [SlowStage(plan, stage, weights) for stage in plan.stages]

    def step(self, x, op, label, update, mantissa, rate_shift, **values):
        """Returns the scores, the loss and the predicted class of one sample."""
        for slow in self.stages:
            # A map becomes a vector with its channels innermost.
            if slow.stage.rows == slow.stage.cols == 1:
                x = x.transpose(1, 2, 0)
            x = slow.forward(x)
        z = x.ravel()
        predicted = int(z.argmax())
        if op == Op.INFER:
            return z, 0, predicted
        loss, dz = self.loss([int(score) for score in z], int(label), int(mantissa))
        if op == Op.EVALUATE:
            return z, loss, predicted

        last = self.stages[-1]
        shift = self.loss_frac() - last.stage.errors.frac
        random = None
        if last.stage.round_errors is Round.STOCHASTIC and shift > 0:
            random = [lane_bits(last.random["errors"].beat(), 0, shift) for _ in z]
            random = np.array(random).reshape(-1, 1, 1)
        last.receive(np.array(dz, np.int64).reshape(-1, 1, 1), shift, random)
        for before, slow in zip(self.stages[-2::-1], self.stages[:0:-1], strict=True):
            s, b = slow.stage, before.stage
            dx = slow.input_error()
            shift = s.weights.frac + s.errors.frac - b.errors.frac
            random = None
            if b.round_errors is Round.STOCHASTIC and shift > 0:
                random = before.random["errors"].map(dx.shape, s.folding[1], shift)
            if dx.shape[1:] != b.pooled:
                dx = dx.reshape(*b.pooled, -1).transpose(2, 0, 1)
                if random is not None:
                    random = random.reshape(*b.pooled, -1).transpose(2, 0, 1)
            before.receive(dx, shift, random)
        for slow in self.stages:
            slow.update(int(rate_shift), update, values)
        return z, loss, predicted

    def loss_frac(self):
        """Fractional bits of the errors before they are rounded."""
        if isinstance(self.plan.network.loss, CrossEntropy):
            return 38
        return 7 + self.mean()[1] + self.stages[-1].stage.output.frac

    def mean(self):
        """2/n as a number of 16 bits and its fractional bits."""
        n, frac = self.plan.network.classes, 0
        while 2 * 2**frac < n * 2**15:
            frac += 1
        return round(Fraction(2 * 2**frac, n)), frac

    def loss(self, z, label, mantissa):
        """The loss and the errors, in Python's integers."""
        if isinstance(self.plan.network.loss, CrossEntropy):
            return self.cross_entropy(z, label, mantissa)
        fmt = self.stages[-1].stage.output
        mean, mean_frac = self.mean()
        targets = [(i == label) * 2**fmt.frac for i in range(len(z))]
        if isinstance(self.plan.network.loss, SquaredHinge):
            targets = [2**fmt.frac if target else -(2**fmt.frac) for target in targets]
            pairs = zip(z, targets, strict=True)
            z = [min(s, t) if t > 0 else max(s, t) for s, t in pairs]
        e = [score - target for score, target in zip(z, targets, strict=True)]
        lost = 1 if fmt.width == 18 else 0  # a distance has 19 bits, a multiplier's side 18
        total = sum(distance * (distance >> lost) for distance in e)
        # total * 2/n / 2, with 12 fractional bits
        loss = total * mean * 2**12 // 2 ** (2 * fmt.frac - lost + mean_frac + 1)
        return min(loss, 2**32 - 1), [distance * mean * mantissa for distance in e]

    def cross_entropy(self, z, label, mantissa):
        """Softmax cross-entropy: the loss and the errors."""
        frac = self.stages[-1].stage.output.frac
        d = [max(z) - score for score in z]
        e = []
        for behind in d:
            shift = frac + 2
            u = behind * 5909
            u = (u + (1 << shift - 1)) >> shift if shift > 0 else u << -shift
            power = round(2**15 * 2 ** (-(u % 1024) / 1024))
            e.append(power >> u // 1024)
        total = sum(e)
        reciprocal = 2**31 // total * mantissa
        v = [p * reciprocal - (mantissa << 31 if i == label else 0) for i, p in enumerate(e)]
        n = total.bit_length() - 1
        g = (total >> n - 10) % 1024
        log2 = (n - 15) * 4096 + round(4096 * np.log2(1 + (g + 0.5) / 1024))
        d_label = d[label] << 12 - frac if frac <= 12 else d[label] >> frac - 12
        return (log2 * 2839 >> 12) + d_label, v

    def weights(self):
        weights = {}
        for name, shape in self.shapes.items():
            layer, _, kind = name.partition(".")
            slow = next(slow for slow in self.stages if slow.stage.name == layer)
            weights[name] = slow.torch_weight(shape) if kind == "weight" else slow.b
        return weights

    def saturations(self):
        return {slow.stage.name: slow.saturated for slow in self.stages}
