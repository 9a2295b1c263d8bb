"""Writes picture.jpg: a baseline JPEG image, 4:2:0, made of coefficients directly, so that no library is needed for it.

Each block has a mean and the three lowest frequencies in it, which change from block to block.
"""
import struct

WIDTH, HEIGHT = 128, 96
END = 0  # the symbol that ends a block

# Every code has four bits. (A code of ones alone is not allowed, and these are fewer than fifteen.)
DC_SYMBOLS = list(range(12))
AC_SYMBOLS = [END] + list(range(1, 11))


def segment(marker, content):
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def table(identity, symbols):
    lengths = [0, 0, 0, len(symbols)] + [0] * 12
    return segment(0xC4, bytes([identity] + lengths + symbols))


class Bits:
    def __init__(self):
        self.text = ""

    def symbol(self, symbols, symbol):
        self.text += f"{symbols.index(symbol):04b}"

    def number(self, symbols, value):
        size = abs(value).bit_length()
        self.symbol(symbols, size)
        if size:
            self.text += f"{value if value > 0 else value + (1 << size) - 1:0{size}b}"

    def stuffed(self):
        text = self.text + "1" * (-len(self.text) % 8)
        data = bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8))
        return data.replace(b"\xff", b"\xff\x00")


def scan():
    bits, before, number = Bits(), [0, 0, 0], 0
    for _ in range(WIDTH // 16 * HEIGHT // 16):
        for component in (0, 0, 0, 0, 1, 2):
            number += 1
            mean = (number * 37 + component * 11) % 61 - 30
            bits.number(DC_SYMBOLS, mean - before[component])
            before[component] = mean
            for frequency in (1, 2, 3):
                bits.number(AC_SYMBOLS, (number * frequency) % 7 + 1)
            bits.symbol(AC_SYMBOLS, END)
    return bits.stuffed()


components = [(1, 0x22), (2, 0x11), (3, 0x11)]
frame = struct.pack(">BHHB", 8, HEIGHT, WIDTH, 3) + bytes(byte for name, sampling in components for byte in (name, sampling, 0))
start = bytes([3]) + bytes(byte for name, _ in components for byte in (name, 0)) + bytes([0, 63, 0])
with open("picture.jpg", "wb") as picture:
    picture.write(b"\xff\xd8")
    picture.write(segment(0xE0, b"JFIF\0" + bytes([1, 1, 0, 0, 1, 0, 1, 0, 0])))
    picture.write(segment(0xDB, bytes([0] + [16] * 64)))
    picture.write(segment(0xC0, frame))
    picture.write(table(0x00, DC_SYMBOLS) + table(0x10, AC_SYMBOLS))
    picture.write(segment(0xDA, start) + scan() + b"\xff\xd9")
