"""A trainer at the other end of a serial line; :mod:`streamtrain.bus.uart` has the protocol."""

from contextlib import contextmanager
from struct import pack
from time import monotonic, sleep

import numpy as np

from streamtrain.bus.axi import OKAY, SLVERR
from streamtrain.bus.uart import Letter
from streamtrain.host.bus_device import FEATURES, RESULT_BYTES, SAMPLE_BYTES, BusError

__all__ = ["BAUD", "UartBus"]

BAUD = 1_000_000
"""Bits per second, unless told otherwise."""

_UNANSWERED = 2  # samples that the trainer has room for
_WORDS = 1024  # of a register that are asked for at once
_LOOK_SECONDS = 0.1  # between two looks at what has come
_PATIENCE_SECONDS = 10.0  # in which no part of a result comes
_ANSWER_SECONDS = 2.0  # in which no part of an answer does
_QUIET_SECONDS = 0.05  # after which nothing comes of itself; a USB cable may hold bytes back for 0.02
_BREAK_SECONDS = 0.01


class UartBus:
    """Registers and packets over a serial line; see :class:`~streamtrain.host.bus_device.Bus`.

    Parameters
    ----------
    port : :class:`str` or file-like
        Name, such as ``"/dev/ttyUSB0"`` or ``"COM3"``; or an open port of pySerial.
    baud : :class:`int`
        Bits per second, as the bitstream was built for.

    Raises
    ------
    ImportError
        If a name is given and pySerial is not installed.
    BusError
        If the port cannot be opened.
    """

    capacity = 1 << 22

    def __init__(self, port, baud=BAUD):
        self.name = port if isinstance(port, str) else getattr(port, "name", "the serial line")
        self._port = _open(port, baud) if isinstance(port, str) else port
        self._sizes = None  # of a word, a sample and a result

    # -- Registers ----------------------------------------------------------------------------------

    def read(self, address):
        """See :class:`~streamtrain.host.bus_device.Bus`."""
        return int(self.read_all(address, 1)[0])

    def write(self, address, value):
        """See :class:`~streamtrain.host.bus_device.Bus`."""
        self.write_all(address, np.array([value], np.uint32))

    def read_all(self, address, count):
        """See :class:`~streamtrain.host.bus_device.Bus`."""
        found = [np.zeros(0, "<u4")]
        for start in range(0, count, _WORDS):
            part = min(_WORDS, count - start)
            self._send(pack("<BHH", Letter.READ, address, part))
            answer = self._answer(Letter.FOUND, 4 * part + 1)
            if self._refused(answer[-1]):
                raise BusError(f"The trainer refuses that address 0x{address:03x} is read now")
            found.append(np.frombuffer(answer, "<u4", part))
        return np.concatenate(found).astype(np.uint32)

    def write_all(self, address, values):
        """See :class:`~streamtrain.host.bus_device.Bus`."""
        words = np.asarray(values).astype("<u4")
        for start in range(0, len(words), _WORDS):
            part = words[start : start + _WORDS]
            self._send(pack("<BHH", Letter.WRITE, address, len(part)) + part.tobytes())
            if self._refused(self._answer(Letter.WRITTEN, 1)[0]):
                what = f"0x{int(part[0]):08x}" if len(part) == 1 else f"{len(part)} words"
                raise BusError(f"The trainer refuses {what} at address 0x{address:03x}")

    def _answer(self, letter, size):
        """What follows the letter of an answer."""
        return self._receive(1 + size, {0: letter}, _ANSWER_SECONDS)[1:]

    def _refused(self, response):
        if response not in {OKAY, SLVERR}:
            raise BusError(self._wrong(response, None))
        return response == SLVERR

    # -- Packets ------------------------------------------------------------------------------------

    def exchange(self, packet, size):
        """See :class:`~streamtrain.host.bus_device.Bus`."""
        if self._sizes is None:
            self._sizes = (
                self.read(FEATURES) & 0xFF,
                self.read(SAMPLE_BYTES),
                self.read(RESULT_BYTES),
            )
        width, sample, result = self._sizes
        packet = np.asarray(packet, np.uint8).tobytes()
        if not size:
            self._send(pack("<BI", Letter.SEND_LAST, len(packet)) + packet)
            return np.zeros(0, np.uint8)
        count = len(packet) // sample
        answers = []
        for number in range(count + _UNANSWERED):
            if number >= _UNANSWERED:
                answers.append(self._result(width, result, len(answers) == count - 1))
            if number < count:
                letter = Letter.SEND_LAST if number == count - 1 else Letter.SEND
                part = packet[number * sample : (number + 1) * sample]
                self._send(pack("<BI", letter, sample) + part)
        return np.concatenate(answers).ravel()

    def _result(self, width, size, last):
        """The words of a result, without their letters."""
        words, frame = size // width, 1 + width
        letters = dict.fromkeys(range(0, words * frame, frame), Letter.RESULT)
        if last:
            letters[(words - 1) * frame] = Letter.RESULT_LAST
        received = self._receive(words * frame, letters, _PATIENCE_SECONDS)
        return np.frombuffer(received, np.uint8).reshape(words, frame)[:, 1:]

    # -- The line -----------------------------------------------------------------------------------

    def _send(self, text):
        with self._named():
            self._port.write(text)

    def _receive(self, size, letters, patience):
        """So many bytes; ``letters`` are those that have to be in some places."""
        received, late = b"", monotonic() + patience
        while len(received) < size:
            with self._named():
                came = self._port.read(size - len(received))
            for place, byte in enumerate(came, len(received)):
                if byte != letters.get(place, byte):
                    raise BusError(self._wrong(byte, letters[place]))
            received += came
            if came:
                late = monotonic() + patience
            elif received.endswith(bytes([Letter.LOST])):
                raise BusError(self._wrong(Letter.LOST, None))
            elif monotonic() > late:
                raise BusError(
                    f"{self.name}: waited {patience:g} s for an answer, and {len(received)} of {size} bytes "
                    f"came; check cable, bitstream and baud rate"
                )
        return received

    def _wrong(self, byte, letter):
        """What it means that ``byte`` came where ``letter`` should be."""
        if byte == Letter.LOST:
            return f"{self.name}: the trainer has lost a byte, or got one that begins no command"
        results = {Letter.RESULT, Letter.RESULT_LAST}
        if byte in results and letter in results:
            return f"{self.name}: results end before those of all samples came: a sample was dropped"
        if byte in results:
            return f"{self.name}: results came that belong to nothing that was sent"
        expected = "a response" if letter is None else repr(chr(letter))
        return (
            f"{self.name}: 0x{byte:02x} came where {expected} should be; "
            f"a byte was lost, or the baud rate is another one"
        )

    @contextmanager
    def _named(self):
        """Errors of the port say which one it is."""
        try:
            yield
        except OSError as error:  # as pySerial's are
            raise BusError(f"{self.name}: {error}") from error

    def flush(self):
        """See :class:`~streamtrain.host.bus_device.Bus`."""
        self._sizes = None
        with self._named():
            self._port.send_break(_BREAK_SECONDS)
            began = quiet = monotonic()
            while monotonic() < quiet + _QUIET_SECONDS:
                if self._port.in_waiting:
                    self._port.reset_input_buffer()
                    quiet = monotonic()
                if quiet > began + _ANSWER_SECONDS:
                    raise BusError(
                        f"{self.name} does not fall silent after a break: check that a trainer is there"
                    )
                sleep(_QUIET_SECONDS / 10)

    def pause(self, seconds):
        """See :class:`~streamtrain.host.bus_device.Bus`."""
        sleep(seconds)

    def close(self):
        """See :class:`~streamtrain.host.bus_device.Bus`."""
        self._port.close()


def _open(name, baud):
    try:
        import serial
    except ImportError:
        raise ImportError(
            'A serial line needs pySerial; install it with: pip install "streamtrain[uart]"'
        ) from None
    try:
        return serial.Serial(
            name, baud, timeout=_LOOK_SECONDS, write_timeout=_PATIENCE_SECONDS, exclusive=True
        )
    except (OSError, ValueError) as error:
        raise BusError(f"Cannot open {name} at {baud:,} baud: {error}") from None
