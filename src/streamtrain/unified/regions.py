"""Where maps and weights lie in memory."""

from dataclasses import dataclass

__all__ = ["Region", "padded", "ranges"]


def padded(bits, beat):
    """Bits that a word of so many takes in memory: beats hold whole numbers of words, or words whole beats."""
    return -(-bits // beat) * beat if bits > beat else 1 << (bits - 1).bit_length()


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
        Of a word, :func:`padded`.
    beat_bytes : :class:`int`
        Each row begins with a beat, so that loads and stores may begin with any.
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
    def row_bytes(self):
        """Bytes from one row to the next."""
        return -(-self.columns * self.bits // (8 * self.beat_bytes)) * self.beat_bytes

    @property
    def stride(self):
        """Bytes from one tile to the next."""
        return self.rows * self.row_bytes

    def wrote(self, images, writes):
        """So many writes have been asked for when these images are complete, or are as far as they are."""
        for image in images:
            self.written[image] = writes

    def spans(self, images, tiles):
        """Images whose tiles lie at equal distances, so that they go into one load or store: all, or each."""
        if len(images) == 1 or len(tiles) == self.tiles:
            return [images]
        return [range(image, image + 1) for image in images]

    def part(self, images, tiles, rows):
        """Chunks of memory as stores have them; each argument is a :class:`range`."""
        assert len(images) == 1 or len(tiles) == self.tiles, "not at equal distances"
        first = images.start * self.tiles + tiles.start
        return {
            "address": self.address + first * self.stride + rows.start * self.row_bytes,
            "beats": len(rows) * self.row_bytes // self.beat_bytes,
            "chunks": len(images) * len(tiles), "stride": self.stride,
        }  # fmt: skip

    def loaded(self, images, tiles, rows):
        """The same as loads have them, with what is in them: so many rows of words."""
        part = self.part(images, tiles, rows)
        return part | {"rows": part["chunks"] * len(rows), "words": self.columns}

    def loaded_beats(self, images, tiles, rows):
        """The same, as beats and not as words."""
        part = self.part(images, tiles, rows)
        return part | {"rows": part["chunks"], "words": part["beats"]}


def ranges(count, size):
    """Ranges of up to ``size`` that cover ``range(count)``."""
    return [range(first, min(first + size, count)) for first in range(0, count, size)]
