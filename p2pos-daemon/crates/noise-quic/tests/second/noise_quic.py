"""Noise-QUIC revision 1, a second time: written from NOISE-QUIC.md, sharing nothing with the Rust crate.

For tests only. It favours being read beside the specification over speed, and it does not resist timing attacks.
Primitives (curves, ciphers) come from the `cryptography` package; Noise, the key schedule and packets are here.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

VERSION = 0x70325001
AES_256_GCM, CHACHA20_POLY1305 = 1, 2
TAG_BYTES = 16
FIELD = 2**255 - 19


# --- Section 2: keys ------------------------------------------------------------------------------------------------


def peer_id(seed: bytes) -> bytes:
    """Give the Ed25519 public key of a seed."""
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    return public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def x25519_secret(seed: bytes) -> bytes:
    """Give the X25519 secret of an Ed25519 seed: the clamped first half of its SHA-512."""
    scalar = bytearray(hashlib.sha512(seed).digest()[:32])
    scalar[0] &= 248
    scalar[31] = scalar[31] & 127 | 64
    return bytes(scalar)


def x25519_public(peer: bytes) -> bytes:
    """Map a PeerId to its X25519 key: u = (1 + y) / (1 - y)."""
    y = int.from_bytes(peer, "little") & (2**255 - 1)
    return ((1 + y) * pow(1 - y, -1, FIELD) % FIELD).to_bytes(32, "little")


def agree(secret: bytes, public: bytes) -> bytes:
    """X25519. The library raises on an all-zero result, as section 5 demands."""
    return X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(public))


def public_of(secret: bytes) -> bytes:
    """Give the public key of an X25519 secret."""
    public = X25519PrivateKey.from_private_bytes(secret).public_key()
    return public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


# --- Section 4: the key schedule ------------------------------------------------------------------------------------


def extract(salt: bytes, material: bytes) -> bytes:
    """HKDF-Extract with SHA-256."""
    return hmac.new(salt, material, hashlib.sha256).digest()


def expand(prk: bytes, label: bytes, context: bytes = b"", length: int = 32) -> bytes:
    """HKDF-Expand under a label and a context, each with its length in front."""
    info = length.to_bytes(2, "big") + bytes([len(label)]) + label + bytes([len(context)]) + context
    output, block = b"", b""
    while len(output) < length:
        block = hmac.new(prk, block + info + bytes([len(output) // 32 + 1]), hashlib.sha256).digest()
        output += block
    return output[:length]


def initial_prk(responder_static: bytes) -> bytes:
    """What everyone who knows the responder can compute."""
    return extract(b"p2pos noise-quic initial" + VERSION.to_bytes(4, "big"), responder_static)


def session_prk(k1: bytes, k2: bytes, handshake_hash: bytes) -> bytes:
    """What only the two sides can compute."""
    return extract(handshake_hash, k1 + k2)


def export(exporter: bytes, label: bytes, context: bytes, length: int) -> bytes:
    """Keying material for another protocol."""
    prk = extract(exporter, len(label).to_bytes(4, "big") + label + context)
    return expand(prk, b"export", b"", length)


# --- Section 5: Noise_IK_25519_ChaChaPoly_BLAKE2s ---------------------------------------------------------------------


@dataclass
class Noise:
    """One side of a Noise IK handshake, up to the split."""

    prologue: bytes
    static: bytes
    ephemeral: bytes
    responder_static: bytes
    is_initiator: bool
    remote_static: bytes = b""
    remote_ephemeral: bytes = b""
    h: bytes = field(init=False)
    ck: bytes = field(init=False)
    key: bytes = field(init=False, default=b"")
    counter: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        name = b"Noise_IK_25519_ChaChaPoly_BLAKE2s"
        self.h = self.ck = name.ljust(32, b"\0") if len(name) <= 32 else hashlib.blake2s(name).digest()
        self._mix_hash(self.prologue)
        self._mix_hash(self.responder_static)
        if self.is_initiator:
            self.remote_static = self.responder_static

    def write_first(self, payload: bytes) -> bytes:
        """Make message 1: e, es, s, ss."""
        e = public_of(self.ephemeral)
        self._mix_hash(e)
        self._mix_key(agree(self.ephemeral, self.remote_static))
        s = self._seal(public_of(self.static))
        self._mix_key(agree(self.static, self.remote_static))
        return e + s + self._seal(payload)

    def read_first(self, message: bytes) -> bytes:
        """Read message 1 and give its payload."""
        self.remote_ephemeral = message[:32]
        self._mix_hash(self.remote_ephemeral)
        self._mix_key(agree(self.static, self.remote_ephemeral))
        self.remote_static = self._open(message[32:80])
        self._mix_key(agree(self.static, self.remote_static))
        return self._open(message[80:])

    def write_second(self, payload: bytes) -> bytes:
        """Make message 2: e, ee, se."""
        e = public_of(self.ephemeral)
        self._mix_hash(e)
        self._mix_key(agree(self.ephemeral, self.remote_ephemeral))
        self._mix_key(agree(self.ephemeral, self.remote_static))
        return e + self._seal(payload)

    def read_second(self, message: bytes) -> bytes:
        """Read message 2 and give its payload."""
        self.remote_ephemeral = message[:32]
        self._mix_hash(self.remote_ephemeral)
        self._mix_key(agree(self.ephemeral, self.remote_ephemeral))
        self._mix_key(agree(self.static, self.remote_ephemeral))
        return self._open(message[32:])

    def split(self) -> tuple[bytes, bytes]:
        """Give k1 and k2."""
        return self._noise_hkdf(b"")

    def _mix_hash(self, data: bytes) -> None:
        self.h = hashlib.blake2s(self.h + data).digest()

    def _mix_key(self, shared: bytes) -> None:
        self.ck, self.key = self._noise_hkdf(shared)
        self.counter = 0

    def _noise_hkdf(self, material: bytes) -> tuple[bytes, bytes]:
        temp = hmac.new(self.ck, material, hashlib.blake2s).digest()
        one = hmac.new(temp, b"\x01", hashlib.blake2s).digest()
        return one, hmac.new(temp, one + b"\x02", hashlib.blake2s).digest()

    def _seal(self, plain: bytes) -> bytes:
        sealed = ChaCha20Poly1305(self.key).encrypt(noise_nonce(self.counter), plain, self.h)
        self.counter += 1
        self._mix_hash(sealed)
        return sealed

    def _open(self, sealed: bytes) -> bytes:
        plain = ChaCha20Poly1305(self.key).decrypt(noise_nonce(self.counter), sealed, self.h)
        self.counter += 1
        self._mix_hash(sealed)
        return plain


def noise_nonce(counter: int) -> bytes:
    """Noise's nonce for ChaChaPoly: 32 zero bits, then the counter, little-endian."""
    return bytes(4) + counter.to_bytes(8, "little")


def prologue(responder: bytes) -> bytes:
    """What both sides must agree on before they speak."""
    return b"p2pos noise-quic" + VERSION.to_bytes(4, "big") + responder


def hello(claimed: bytes, suites: list[int], params: bytes) -> bytes:
    """Give the payload of message 1."""
    return claimed + bytes([len(suites)]) + bytes(suites) + params


def framed(message: bytes) -> bytes:
    """Put a message's length in front of it."""
    return len(message).to_bytes(2, "big") + message


# --- Section 6: packets ---------------------------------------------------------------------------------------------


@dataclass
class DirectionKeys:
    """The keys of one direction: of one packet secret, and the header key that stays over key updates."""

    suite: int
    secret: bytes
    header_secret: bytes = b""

    def aead(self) -> AESGCM | ChaCha20Poly1305:
        """Give the packet cipher."""
        key = expand(self.secret, b"key")
        return AESGCM(key) if self.suite == AES_256_GCM else ChaCha20Poly1305(key)

    def nonce(self, path: int, number: int) -> bytes:
        """IV xor (path id, packet number)."""
        position = path.to_bytes(4, "big") + number.to_bytes(8, "big")
        return bytes(a ^ b for a, b in zip(expand(self.secret, b"iv", length=12), position, strict=True))

    def mask(self, sample: bytes) -> bytes:
        """Give the header protection mask (RFC 9001 s5.4.3, s5.4.4)."""
        key = expand(self.header_secret or self.secret, b"hp")
        if self.suite == AES_256_GCM:
            return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(sample)[:5]
        return Cipher(algorithms.ChaCha20(key, sample), None).encryptor().update(bytes(5))

    def updated(self) -> DirectionKeys:
        """Give the keys of the next key phase."""
        return DirectionKeys(self.suite, expand(self.secret, b"update"), self.header_secret or self.secret)


@dataclass
class Packet:
    """A packet before protection. Its first byte holds form, type, key phase and packet number length."""

    first: int
    destination: bytes
    source: bytes | None
    number: int
    frames: bytes
    path: int = 0

    def protect(self, keys: DirectionKeys) -> bytes:
        """Encrypt the frames and mask the header."""
        number_bytes = (self.first & 3) + 1
        header = bytes([self.first]) + self.destination
        if self.source is not None:
            header = long_header(self.first, self.destination, self.source)
            header += b"\0" if self.first & 0x30 == 0 else b""
            header += (number_bytes + len(self.frames) + TAG_BYTES | 0x4000).to_bytes(2, "big")
        number_at = len(header)
        header += self.number.to_bytes(8, "big")[8 - number_bytes :]
        sealed = keys.aead().encrypt(keys.nonce(self.path, self.number), self.frames, header)
        packet = bytearray(header + sealed)
        mask = keys.mask(bytes(packet[number_at + 4 : number_at + 20]))
        packet[0] ^= mask[0] & (0x0F if self.first & 0x80 else 0x1F)
        for i in range(number_bytes):
            packet[number_at + i] ^= mask[1 + i]
        return bytes(packet)


def unprotect(packet: bytes, number_at: int, keys: DirectionKeys, path: int = 0) -> tuple[bytes, bytes]:
    """Unmask and decrypt a packet whose number is complete; give header and frames."""
    plain = bytearray(packet)
    mask = keys.mask(packet[number_at + 4 : number_at + 20])
    plain[0] ^= mask[0] & (0x0F if packet[0] & 0x80 else 0x1F)
    number_end = number_at + (plain[0] & 3) + 1
    for i in range(number_at, number_end):
        plain[i] ^= mask[1 + i - number_at]
    header = bytes(plain[:number_end])
    number = int.from_bytes(header[number_at:], "big")
    return header, keys.aead().decrypt(keys.nonce(path, number), bytes(plain[number_end:]), header)


def long_header(first: int, destination: bytes, source: bytes) -> bytes:
    """Give the part of a long header that all types share."""
    ids = b"".join(bytes([len(cid)]) + cid for cid in (destination, source))
    return bytes([first]) + VERSION.to_bytes(4, "big") + ids


def crypto_frame(data: bytes) -> bytes:
    """Give a CRYPTO frame at offset 0."""
    return b"\x06\x00" + (len(data) | 0x4000).to_bytes(2, "big") + data


def initial_keys(responder_static: bytes, connection: bytes, side: bytes) -> DirectionKeys:
    """Give the Initial keys of one direction; `side` is b"i" or b"r"."""
    secret = expand(initial_prk(responder_static), b"initial " + side, connection)
    return DirectionKeys(CHACHA20_POLY1305, secret)


# --- Section 7: Retry -----------------------------------------------------------------------------------------------


def retry_packet(responder_static: bytes, original: bytes, destination: bytes, source: bytes, token: bytes) -> bytes:
    """Give a Retry with its tag."""
    packet = long_header(0xF0, destination, source) + token
    key = expand(initial_prk(responder_static), b"retry")
    return packet + hmac.new(key, bytes([len(original)]) + original + packet, hashlib.sha256).digest()[:TAG_BYTES]
