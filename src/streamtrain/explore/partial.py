"""Partial designs: the last stages of a design, put together stage by stage, compiled.

All that the stages in front notice of a partial design is when errors arrive from it and how long it
takes from its inputs to the end of the step: two times for each pixel between them, because a
longest path is linear in the max-plus sense. :func:`extended` works these times out when a stage is put before
partial designs, and :func:`undominated` drops those that another one is no worse than.
"""

from typing import NamedTuple

import numpy as np

from streamtrain.jit import njit
from streamtrain.pipeline import timing

__all__ = ["NEVER", "Partial", "Stage", "extended", "pace", "undominated", "update"]

NEVER = -(2**29)
"""A time that nothing waits for, with room to add to it."""


class Stage(NamedTuple):
    """What a stage adds to a partial design.

    Parameters
    ----------
    durations, cost, parts : arrays (foldings, ...)
        Durations; resources; and what it adds to each cut.
    pm, pn : integer arrays (foldings,)
        Numbers of its Pm and Pn.
    by_pm : integer array (Pm + 1,)
        Where the foldings of each Pm begin.
    link, link_cost, link_parts : arrays (Pm of the stage before, Pn, ...)
        The durations of the link between them, and as above.
    """

    durations: np.ndarray
    cost: np.ndarray
    parts: np.ndarray
    pm: np.ndarray
    pn: np.ndarray
    by_pm: np.ndarray
    link: np.ndarray
    link_cost: np.ndarray
    link_parts: np.ndarray


class Partial(NamedTuple):
    """Partial designs, a row each.

    Parameters
    ----------
    lanes : integer array
        Number of the Pm of the stage that comes next.
    times : integer array (rows, times)
        The end of the step; when the next stage's FP may go on; cycles of a pixel that it writes, and of its
        last channels; when each error between them can be read, and how long it is from each input
        to the end.
    cost, parts : arrays (rows, ...)
        Resources, and what it is worth by each of the cuts that there are tables of.
    designs : integer array (rows, stages)
    blocks : array of :class:`numpy.uint64`
        Blocks of corners at which it may be better than what is known, as bits.
    """

    lanes: np.ndarray
    times: np.ndarray
    cost: np.ndarray
    parts: np.ndarray
    designs: np.ndarray
    blocks: np.ndarray


@njit(cache=True)
def _adjoint(geo, s, own, writes, last, weights, given):
    """FP of a stage, backwards: how long it is from each of its inputs to the end of the step.

    ``weights`` (pixels,) are those of its outputs, and become those of their being written.
    ``given`` (pixels,) becomes those of its inputs. Returns that of FP's beginning.
    """
    fp, group = int(own[timing._FP]), int(own[timing._FP_GROUP])
    latency, ahead = int(own[timing._FP_LATENCY]), int(own[timing._FP_AHEAD])
    given[:] = NEVER
    follows = NEVER
    for p in range(geo.outputs[s] - 1, -1, -1):
        q = geo.corner[s, p]
        end, begin = follows, NEVER
        if q >= 0:
            if q + 1 < geo.pooled[s]:
                weights[q] = max(weights[q], writes + weights[q + 1])
            end = max(end, latency + last + weights[q])
            begin = group + latency + writes + weights[q]
        begin = max(begin, fp + end)
        if 0 < ahead <= q:
            weights[q - ahead] = max(weights[q - ahead], begin - fp)
        need = geo.fp_needs[s, p]
        given[need] = max(given[need], begin)
        follows = begin
    return follows


@njit(cache=True)
def update(geo, s, own, extra):
    """Cycles from the end of BP, or from the last error if there is none, until FP may go on."""
    words, word = int(own[timing._WU]), int(own[timing._WORD])
    cycles = int(own[timing._BIASES]) + timing._UPDATE + extra
    if s == geo.first:
        return cycles + int(own[timing._TERMS]) + (words - 1) * word
    return cycles + timing._TOKEN + words * word if geo.trained[s] else NEVER


@njit(cache=True)
def _errors(geo, s, own, writes, last, dz, sent, extra):
    """BP and WU of a stage. ``sent`` becomes when the stage before can read its errors, if ever.

    Returns when FP may go on.
    """
    time = NEVER
    if s <= geo.first:
        sent[:] = NEVER
        if s < geo.first:
            return time
        for p in range(geo.outputs[s]):
            time = max(time, dz[geo.wu_needs[s, p]]) + 1
        return time + update(geo, s, own, extra)
    latency, ahead = int(own[timing._BP_LATENCY]), int(own[timing._BP_AHEAD])
    row = own.copy()
    row[timing._BP_LAST] = last
    written = NEVER
    for p in range(geo.sent[s]):
        operations, group, end = timing._bp_pixel(row, geo.vectors[s], geo.channels[s, 0], p)
        begin = max(dz[geo.bp_needs[s, p]], time)
        if 0 < ahead <= p:
            begin = max(begin, sent[p - ahead] - int(operations))
        time = begin + int(operations)
        written = max(
            written + writes, time + latency + int(end), begin + int(group) + latency + writes
        )
        sent[p] = written
    return time + update(geo, s, own, extra) if geo.trained[s] else NEVER


@njit(cache=True)
def pace(geo, s, own, writes, last, in_flight, ends, given):
    """Cycles from one sample to the next that a stage which computes nothing but FP allows.

    ``ends`` (pixels,) are how long it is from each of its outputs to the end of FP in the next stage, if
    that one is alike, too; only with one sample in flight. ``given`` (pixels,) becomes that from its
    inputs to its own end.
    """
    fp, reads = int(own[timing._FP]), int(own[timing._READS])
    pace = max(geo.outputs[s] * fp + timing._FREE, geo.pooled[s] * writes)
    if s == 0:
        pace = max(pace, geo.inputs[0] * reads)
    if in_flight > 1:
        return pace
    if s + 1 < geo.first:  # the next stage's memory is free: it is filled, and read
        _adjoint(geo, s, own, writes, last, ends, given)
        pace = max(pace, writes + ends[0] + timing._FREE)
    given[:] = NEVER
    for p in range(geo.outputs[s]):
        need = geo.fp_needs[s, p]
        given[need] = max(given[need], (geo.outputs[s] - p) * fp)
    if s == 0:
        for p in range(geo.inputs[0]):
            pace = max(pace, (p + 1) * reads + given[p] + timing._FREE)
    return pace


@njit(cache=True)
def extended(geo, s, extra, in_flight, stage, partial, found, times):
    """Times of candidates, an array (candidates, times) as for :class:`Partial`.

    Parameters
    ----------
    geo : :class:`~streamtrain.pipeline.timing.Geometry`
    s : :class:`int`
        Number of the stage.
    extra : :class:`int`
        Cycles that an update takes besides.
    in_flight : :class:`int`
    stage, partial, found
        As for :func:`candidates`.
    times : integer array (candidates, times)
        Becomes the times. Of whole designs they are the cycles of a step and, if there is a column for
        it, those of a prediction.
    """
    size = geo.pooled[s]
    after = geo.pooled[s - 1] if s > 0 else geo.inputs[0]
    weights, given = np.empty(size, np.int64), np.empty(after, np.int64)
    next_ends = np.empty(size, np.int64)
    row = np.zeros(len(timing.DURATIONS))
    sent = np.empty(after, np.int64)
    begin = 0
    for number in range(len(found)):
        label, o, a = found[number, 0], found[number, 1], found[number, 2]
        own = partial.times[label]
        if number == 0 or found[number - 1, 0] != label or found[number - 1, 1] != o:
            weights[:] = own[4 + size :]
            row[: stage.durations.shape[1]] = stage.durations[o]
            begin = _adjoint(geo, s, row, own[2], own[3], weights, given)
        link = stage.link[a, stage.pn[o]]
        updated = _errors(geo, s, row, link[2], link[3], own[4 : 4 + size], sent, extra)
        end = max(own[0], updated + begin)
        if s < geo.first:
            next_ends[:] = own[4 : 4 + size]
            allowed = pace(geo, s, row, own[2], own[3], in_flight, next_ends, sent)
            end = max(end, allowed)
        if in_flight == 1:  # the next sample comes when there is memory for it
            free = own[1] - timing._OPEN
            end = max(end, free + own[2] + weights[0])
            if s == 0:
                for p in range(geo.inputs[0]):
                    read = (p + 1) * int(row[timing._READS])
                    end = max(end, updated - timing._OPEN + read + given[p])
        to = times[number]
        to[0] = end
        if s == 0 and len(to) > 1:  # the latency of a prediction counts, too
            to[1] = timing._COMMAND + begin
            for p in range(geo.inputs[0]):
                read = (p + 1) * int(row[timing._READS])
                to[1] = max(to[1], read + given[p])
        if s > 0:
            to[1] = updated if in_flight == 1 else NEVER
            to[2], to[3] = link[0], link[1]
            to[4 : 4 + after] = sent
            to[4 + after :] = given


@njit(cache=True)
def undominated(order, times, cost, safe, near):
    """Numbers of the partial designs that no other one dominates.

    ``order`` sorts them by their first resource. Those that are ``safe`` can never exceed the limits
    on the third resource and on: these do not count against them. Times that are later by up to
    ``near`` (designs,) count as alike.
    """
    kept = np.empty(len(order), np.int64)
    count = 0
    for i in order:
        dominated = False
        for at in range(count - 1, -1, -1):
            j = kept[at]
            worse = cost[j, 1] > cost[i, 1] or times[j, 0] > times[i, 0] + near[i]
            if not worse and not safe[j]:
                for r in range(2, cost.shape[1]):
                    if cost[j, r] > cost[i, r]:
                        worse = True
                        break
            if worse:
                continue
            for t in range(times.shape[1]):
                if times[j, t] > times[i, t] + near[i]:
                    worse = True
                    break
            if not worse:
                dominated = True
                break
        if not dominated:
            kept[count] = i
            count += 1
    return kept[:count]
