"""Heads: all designs of the first stages, and what the stages behind them notice of one, compiled.

A head and a partial design of all other stages make a design. All that they notice of each other are times
of the pixels between them, and cycles are linear in these, in the max-plus sense. So a few rows of
numbers say what a head does: for each of its stages how long it is from an error that arrives to
the stage's update, and from there to an output. With them, the cycles of a design are known a hundred times
sooner than if all its units are worked through.
"""

from typing import NamedTuple

import numpy as np

from streamtrain.explore.partial import NEVER, pace, update
from streamtrain.jit import njit
from streamtrain.pipeline import timing

__all__ = ["FirstStages", "completed", "first_stages"]

_HEADS = 6000  # at most


class FirstStages(NamedTuple):
    """All designs of the first stages.

    Parameters
    ----------
    designs : integer array (heads, first stages)
    kinds : integer array (Pm of the last of them, Pn of the next stage)
        Kind of the link between them: those of a kind are as fast.
    times : integer array (heads, kinds, times)
        Cycles from one sample to the next that stages which compute nothing but FP allow; for each stage and
        the next one, how long it is from its update to each output; and for each stage how
        long it is from each error to its update.
    """

    designs: np.ndarray
    kinds: np.ndarray
    times: np.ndarray


@njit(cache=True)
def _errors_adjoint(geo, s, row, weights, given, end):
    """BP of a stage, backwards: how long it is from each of its errors to a later time.

    ``weights`` (pixels,) are those of the errors that it sends, and ``end`` that of BP's end. ``given``
    (pixels,) becomes those of the errors that it takes.
    """
    latency, ahead = int(row[timing._BP_LATENCY]), int(row[timing._BP_AHEAD])
    writes = int(row[timing._BP_WRITES])
    given[:] = NEVER
    follows, pixels = end, geo.sent[s]
    for p in range(pixels - 1, -1, -1):
        operations, group, last = timing._bp_pixel(row, geo.vectors[s], geo.channels[s, 0], p)
        if p + 1 < pixels:
            weights[p] = max(weights[p], writes + weights[p + 1])
        follows = max(follows, latency + int(last) + weights[p])
        begin = max(int(operations) + follows, int(group) + latency + writes + weights[p])
        if 0 < ahead <= p:
            weights[p - ahead] = max(weights[p - ahead], begin - int(operations))
        need = geo.bp_needs[s, p]
        given[need] = max(given[need], begin)
        follows = begin


@njit(cache=True)
def _behind(geo, s, extra, in_flight, own, links, found, before, times):
    """Times of heads with a stage behind them.

    Parameters
    ----------
    geo : :class:`~streamtrain.pipeline.timing.Geometry`
    s : :class:`int`
        Number of the stage.
    extra : :class:`int`
        Cycles that an update takes besides.
    in_flight : :class:`int`
    own : array (foldings, durations)
    links : integer array (heads, kinds + 1, 2)
        Durations of the links behind the stage, forwards, and of that in front of it, backwards.
    found : integer array (heads, 3)
        Numbers of a head, the kind of its link, and a folding.
    before, times : integer arrays (heads, kinds, times)
        As for :class:`FirstStages`, without and with the stage; the latter is filled.
    """
    inputs, outputs = geo.pooled[s - 1] if s > 0 else geo.inputs[0], geo.pooled[s]
    table = np.zeros((s + 1, len(timing.DURATIONS)))
    x = np.empty((s + 2, geo.fp_needs.shape[1]))
    row, never = table[s], np.full(outputs, NEVER)
    weights, spare = np.empty((2, inputs), np.int64)
    given = np.empty(outputs, np.int64)
    for number in range(len(found)):
        head, o = before[found[number, 0], found[number, 1]], found[number, 2]
        row[: own.shape[1]] = own[o]
        row[timing._BP_WRITES], row[timing._BP_LAST] = links[number, -1]
        for kind in range(times.shape[1]):
            to = times[number, kind]
            writes, last = links[number, kind]
            row[timing._FP_WRITES], row[timing._FP_LAST] = writes, last
            to[0] = head[0]
            if s < geo.first:
                to[0] = max(to[0], pace(geo, s, row, writes, last, in_flight, never, spare))
            at = 1
            for i in range(s + 2):
                x[s] = NEVER
                if i == s == 0 and in_flight == 1:  # pixels come when there is memory for them
                    for p in range(inputs):
                        x[0, p] = (p + 1) * row[timing._READS] - timing._OPEN
                elif i <= s:
                    x[s, :inputs] = head[1 + i * inputs : 1 + (i + 1) * inputs]
                start = 0.0 if i == s else NEVER
                room = -timing._OPEN if i > s and in_flight == 1 else NEVER
                timing._forward_stage(geo, table, s, start, room, x)
                _put(x[s + 1, :outputs], to[at : at + outputs])
                at += outputs
            for i in range(s + 1):
                given[:], weights[:] = NEVER, NEVER
                end = update(geo, s, row, extra) if i == s else NEVER
                if i < s:
                    weights[:] = head[1 + (s + 1 + i) * inputs : 1 + (s + 2 + i) * inputs]
                if s > geo.first:
                    _errors_adjoint(geo, s, row, weights, given, end)
                elif i == s == geo.first:
                    for p in range(geo.outputs[s]):
                        need = geo.wu_needs[s, p]
                        given[need] = max(given[need], geo.outputs[s] - p + end)
                _put(given, to[at : at + outputs])
                at += outputs


@njit(cache=True)
def _put(times, to):
    """Write times; what comes close to never is never."""
    for p in range(len(to)):
        to[p] = int(times[p]) if times[p] > NEVER // 2 else NEVER


def first_stages(space):
    """All designs of as many first stages as have few; None if even one has too many."""
    geo, plan = space.geometry, space.plan
    heads = FirstStages(
        np.empty((1, 0), int), np.zeros((1, space.pn[0].max() + 1), int),
        np.full((1, 1, 1 + geo.inputs[0]), NEVER, np.int32),
    )  # fmt: skip
    for s, own in enumerate(space.own[:-1]):
        if len(heads.designs) * len(own) > _HEADS:
            break
        head, o = np.indices((len(heads.designs), len(own))).reshape(2, -1)
        before = space.pm[s - 1][heads.designs[head, s - 1]] if s else np.zeros_like(head)
        pn, link = space.pn[s][o], space.link[s][..., :2].astype(int)
        # Links of a kind take the same time; where there are fewer kinds, the last one is repeated.
        numbers = [np.unique(row, axis=0, return_index=True, return_inverse=True)[1:] for row in link]
        kinds = np.stack([inverse.ravel() for _, inverse in numbers])
        some = np.stack([np.pad(i, (0, kinds.max() + 1 - len(i)), "edge") for i, _ in numbers])
        pm = space.pm[s][o]
        links = np.zeros((len(o), kinds.max() + 2, 2), int)
        links[:, :-1] = link[pm[:, None], some[pm]]
        if s:
            links[:, -1] = space.link[s - 1][before, pn][:, 2:]
        times = np.empty((*links[:, :-1].shape[:2], 1 + (2 * s + 3) * geo.pooled[s]), np.int32)
        found = np.stack([head, heads.kinds[before, pn], o], axis=1)
        _behind(
            geo, s, int(plan.late), plan.in_flight, own, links, found, heads.times, times
        )  # fmt: skip
        heads = FirstStages(np.column_stack([heads.designs[head], o]), kinds, times)
    return heads if heads.designs.shape[1] else None


@njit(cache=True)
def completed(stages, hits, heads, times, cycles):
    """Cycles of whole designs.

    Parameters
    ----------
    stages : :class:`int`
        How many a head has.
    hits : integer array (designs, 3)
        Numbers of a partial design, a head, and the kind of the link between them.
    heads : integer array (heads, kinds, times)
        As for :class:`FirstStages`.
    times : integer array (partial designs, times)
        As for :class:`~streamtrain.explore.partial.Partial`.
    cycles : integer array (designs,)
        Becomes the cycles.
    """
    size = (times.shape[1] - 4) // 2
    for number in range(len(hits)):
        own, head = times[hits[number, 0]], heads[hits[number, 1], hits[number, 2]]
        errors, weights = own[4 : 4 + size], own[4 + size :]
        end = max(np.int64(own[0]), np.int64(head[0]))
        for i in range(stages + 1):
            updated = np.int64(own[1])
            if i < stages:
                updated = _longest(errors, head[1 + (stages + 1 + i) * size :])
            if updated > NEVER // 2:
                end = max(end, updated + _longest(weights, head[1 + i * size :]))
        cycles[number] = end


@njit(cache=True)
def _longest(first, second):
    """The longest sum of two times of the same pixel."""
    most = np.int32(2 * NEVER)
    for p in range(len(first)):
        most = max(most, np.int32(first[p] + second[p]))
    return np.int64(most)
