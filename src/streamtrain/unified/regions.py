"""Where maps and weights lie in memory."""

from dataclasses import dataclass

__all__ = ["Region", "ranges"]


@dataclass
class Region:
    """Maps in memory, or weights: *tiles* that are alike, a number of them for each image.

    Parameters
    ----------
    address : :class:`int`
        In bytes.
    tiles, rows, columns : :class:`int`
        Tiles of an image, and words of a tile.
    bits : :class:`int`
        Of a word.
    beat_bytes : :class:`int`
        Each tile begins with a beat.
    written : list of :class:`int`
        Writes of the program after which each image is what it should be.
    """

    address: int
    tiles: int
    rows: int
    columns: int
    bits: int
    beat_bytes: int
    written: list

    @property
    def stride(self):
        """Bytes from one tile to the next."""
        return self._beats(self.rows) * self.beat_bytes

    def _beats(self, rows):
        return -(-rows * self.columns * self.bits // (8 * self.beat_bytes))

    def wrote(self, images, writes):
        """So many writes have been asked for when these images are complete, or are as far as they are."""
        for image in images:
            self.written[image] = writes

    def begins_with_beat(self, row):
        return row * self.columns * self.bits % (8 * self.beat_bytes) == 0

    def spans(self, images, tiles):
        """Images whose tiles lie at equal distances, so that they go into one load or store: all, or each."""
        if len(images) == 1 or len(tiles) == self.tiles:
            return [images]
        return [range(image, image + 1) for image in images]

    def part(self, images, tiles, rows):
        """Chunks of memory as loads and stores have them; each argument is a :class:`range`."""
        assert len(images) == 1 or len(tiles) == self.tiles, "not at equal distances"
        assert self.begins_with_beat(rows.start), "not at a beat"
        first = images.start * self.tiles + tiles.start
        offset = rows.start * self.columns * self.bits // 8
        return {
            "address": self.address + first * self.stride + offset,
            "beats": self._beats(len(rows)), "chunks": len(images) * len(tiles),
            "stride": self.stride, "words": len(rows) * self.columns,
        }  # fmt: skip


def ranges(count, size):
    """Ranges of up to ``size`` that cover ``range(count)``."""
    return [range(first, min(first + size, count)) for first in range(0, count, size)]
