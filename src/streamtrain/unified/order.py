"""The order in which the core gets the records of a program: what a tile needs is loaded while the one before it is
computed.

The core fetches records in order, and only some of a kind wait for their part of it. So a load that stands
behind all computations of the tile before it may come too late, and one that stands in front of them may hold
them up. Loads of a tile therefore stand between the computations of the one before it: each about where it may begin, if
a beat takes a cycle.
"""

from dataclasses import dataclass, field
from heapq import merge
from itertools import accumulate
from math import prod
from operator import itemgetter

from streamtrain.unified.loader import Target
from streamtrain.unified.program import Kind

__all__ = ["loads_ahead"]

_AHEAD = 2  # computations that wait for the array
_OF_STORES = (Target.ROUTES, Target.MASKS, Target.MASTERS)  # what is loaded for a store, and stays before it


@dataclass
class _Tile:
    """Numbers of the records of a tile, and how many writes have been asked for before its stores."""

    loads: list = field(default_factory=list)
    computes: list = field(default_factory=list)
    stores: list = field(default_factory=list)
    writes: int = 0


def loads_ahead(records):
    """Numbers of records in the order in which they are to be fetched.

    Loads keep their order among themselves but for those of routes and old weights, which stay before their store; so do
    computations, and stores. A load that waits for writes of the tile before it, or of one later, stays where it is.

    Parameters
    ----------
    records : list of (:class:`~streamtrain.unified.program.Kind`, dict)
        Each tile's loads, its computations, and its stores with what is loaded for them.
    """
    tiles = _tiles(records)
    order, before = list(tiles[0].loads), 0
    for tile, following in zip(tiles, [*tiles[1:], _Tile()], strict=True):
        waits = (records[n][1].get("after", 0) > tile.writes for n in following.loads)
        early = next((n for n, late in enumerate(waits) if late), len(following.loads))
        ahead = following.loads[:early]
        # Loads follow what the stores before them load; computations stand before those that begin with the one
        # after next.
        loads = zip(_begins(records, ahead, _beats, before), ahead, strict=True)
        starts = [-1] * _AHEAD + _begins(records, tile.computes, _operations)
        computes = zip(starts, tile.computes, strict=False)
        order += [number for _, number in merge(computes, loads, key=itemgetter(0))]
        order += tile.stores + following.loads[early:]
        before = sum(_beats(records[n][1]) for n in tile.stores if records[n][0] is Kind.LOAD)
    return order


def _begins(records, numbers, cost, first=0):
    """When each of these records begins, if one begins when the one before it is done."""
    return list(accumulate((cost(records[n][1]) for n in numbers), initial=first))[:-1]


def _beats(fields):
    return fields["chunks"] * fields["beats"]


def _operations(fields):
    loops = "tiles", "taps_row", "taps_col", "images", "rows", "cols"
    return prod(fields[name] for name in loops)


def _tiles(records):
    tiles, writes = [_Tile()], 0
    for number, (kind, fields) in enumerate(records):
        tile = tiles[-1]
        if kind is Kind.COMPUTE:
            if tile.stores:
                tiles.append(tile := _Tile(writes=writes))
            tile.computes.append(number)
        elif kind is Kind.BEGIN or (kind is Kind.LOAD and fields["target"] not in _OF_STORES):
            if tile.computes or tile.stores:
                tiles.append(tile := _Tile(writes=writes))
            tile.loads.append(number)
        else:
            tile.stores.append(number)
            if kind is Kind.STORE:
                writes += fields["chunks"] * (2 if "routes_address" in fields else 1)
    return tiles
