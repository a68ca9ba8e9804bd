"""The other end of a serial line, as the protocol says it, in front of the compiled model of a trainer."""

import os
import threading
import tty
from struct import unpack_from

import numpy as np

NOTHING = np.zeros(0, np.uint8)
HEADS = {"R": 5, "W": 5, "s": 5, "S": 5}


class Bridge:
    """Takes bytes, and gives bytes when it is asked for them: as late as it can."""

    def __init__(self, bus):
        self.bus = bus
        self.answers = b""
        self.unanswered = 0  # samples
        self.most = 0  # of them at a time
        self.lose = None  # the byte from the host, by number, that does not arrive
        self.break_()

    def break_(self):
        self.text, self.stuck = b"", False
        if getattr(self, "inside", False):
            self._packet(bytes(self.bus.format.size), 1)
        self.inside = False

    def put(self, text):
        if self.lose is not None and self.lose < len(text):
            text = text[: self.lose] + text[self.lose + 1 :]
            self.lose = None
        elif self.lose is not None:
            self.lose -= len(text)
        self.text += text
        while self.text and not self.stuck and self._frame():
            pass

    def get(self):
        """What has come to the host: answers; and results, once it waits for nothing else."""
        answers, self.answers = self.answers, b""
        if not answers and self.unanswered:
            size = self.bus.format.size
            words = self.bus.format.result_words
            (data, last, _), _ = self.bus.transfer(NOTHING, NOTHING, NOTHING, words)
            if len(data) == words:
                self.unanswered -= 1
            for word, end in zip(data.reshape(-1, size), last.tolist(), strict=True):
                answers += (b"M" if end else b"m") + word.tobytes()
        return answers

    def _frame(self):
        """Work off a whole frame, if there is one."""
        letter = chr(self.text[0])
        if letter not in HEADS:
            self.stuck, self.text = True, b""
            self.answers += b"x"
            return False
        if len(self.text) < 5:
            return False
        if letter in "sS":
            (length,) = unpack_from("<I", self.text, 1)
            return self._whole(5 + length) and self._packet(self.frame[5:], letter == "S")
        address, count = unpack_from("<HH", self.text, 1)
        if not self._whole(5 + (4 * count if letter == "W" else 0)):
            return False
        values = np.frombuffer(self.frame[5:], "<u4").tolist() if letter == "W" else [None] * count
        found = [self.bus.access(address, value) for value in values]
        response = bytes([2 if any(response for response, _ in found) else 0])
        self.answers += letter.lower().encode()
        if letter == "R":
            words = [0 if refused else word for refused, word in found]
            self.answers += np.array(words, "<u4").tobytes()
        self.answers += response
        return True

    def _whole(self, size):
        if len(self.text) < size:
            return False
        self.frame, self.text = self.text[:size], self.text[size:]
        return True

    def _packet(self, data, end):
        size = self.bus.format.size
        words = len(data) // size
        if not words:
            return True
        last = np.zeros(words, np.uint8)
        last[-1] = end
        keep = np.full(words, (1 << size) - 1, np.uint64)
        _, accepted = self.bus.transfer(np.frombuffer(data, np.uint8), keep, last, 0)
        assert accepted == words, "the trainer has no room: the line has no back-pressure"
        self.inside = not end
        if len(data) == self.bus.format.sample_bytes:
            self.unanswered += 1
            self.most = max(self.most, self.unanswered)
        return True


class Port:
    """An open port of pySerial with a bridge at its other end."""

    name = "port"

    def __init__(self, bridge):
        self.bridge = bridge
        self.buffer = b""
        self.mangle = lambda text: text  # what happens to bytes on their way to the host
        self.closed = False

    def write(self, text):
        self.bridge.put(bytes(text))

    @property
    def in_waiting(self):
        self.buffer += self.mangle(self.bridge.get())
        return len(self.buffer)

    def read(self, size):
        while len(self.buffer) < size:
            before = len(self.buffer)
            if self.in_waiting == before:
                break
        came, self.buffer = self.buffer[:size], self.buffer[size:]
        return came

    def reset_input_buffer(self):
        self.buffer = b""

    def send_break(self, duration):
        assert duration > 0
        self.bridge.break_()

    def close(self):
        self.closed = True


class Terminal:
    """A pseudo terminal with a bridge behind it, for the real pySerial. It carries no breaks."""

    def __init__(self, bridge):
        self.bridge = bridge
        self.inner, self.outer = os.openpty()
        tty.setraw(self.inner)
        tty.setraw(self.outer)
        self.name = os.ttyname(self.outer)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while True:
            try:
                text = os.read(self.inner, 4096)
            except OSError:
                return
            if text == b"":
                return
            self.bridge.put(text)
            while answer := self.bridge.get():
                os.write(self.inner, answer)

    def close(self):
        os.close(self.outer)
        self.thread.join(1)
        os.close(self.inner)
