"""ESP from the text of the RFCs, on python3-cryptography: shares nothing with the gateway.

Knows what scapy's IPsec layer does not (AES-GMAC, extended sequence numbers under a HMAC) and checks the
padding, which scapy passes over.
"""
import hashlib
import hmac
import os
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

# encryption: kind, key bytes without salt, salt bytes, IV bytes, alignment, scapy's name
ENCRYPTION = {
    "aes128gcm16": ("gcm", 16, 4, 8, 4, "AES-GCM"),
    "aes192gcm16": ("gcm", 24, 4, 8, 4, "AES-GCM"),
    "aes256gcm16": ("gcm", 32, 4, 8, 4, "AES-GCM"),
    "chacha20poly1305": ("chacha", 32, 4, 8, 4, "CHACHA20-POLY1305"),
    "aes128gmac": ("gmac", 16, 4, 8, 4, None),
    "aes192gmac": ("gmac", 24, 4, 8, 4, None),
    "aes256gmac": ("gmac", 32, 4, 8, 4, None),
    "aes128": ("cbc", 16, 0, 16, 16, "AES-CBC"),
    "aes192": ("cbc", 24, 0, 16, 16, "AES-CBC"),
    "aes256": ("cbc", 32, 0, 16, 16, "AES-CBC"),
    "aes128ctr": ("ctr", 16, 4, 8, 4, "AES-CTR"),
    "aes192ctr": ("ctr", 24, 4, 8, 4, "AES-CTR"),
    "aes256ctr": ("ctr", 32, 4, 8, 4, "AES-CTR"),
    "null": ("null", 0, 0, 0, 4, "NULL"),
}

# integrity: hash, key bytes, ICV bytes, scapy's name
INTEGRITY = {
    "sha1": ("sha1", 20, 12, "HMAC-SHA1-96"),
    "sha256": ("sha256", 32, 16, "SHA2-256-128"),
    "sha384": ("sha384", 48, 24, "SHA2-384-192"),
    "sha512": ("sha512", 64, 32, "SHA2-512-256"),
}

COMBINED_ICV_BYTES = 16


class Refused(Exception):
    """The packet is not what the SA makes; says why."""


class Transform:
    """Seals and opens the bytes from the ESP header to the ICV."""

    def __init__(self, name, key, spi, extended):
        encryption, _, integrity = name.partition("-")
        self.name = name
        self.spi = spi
        self.extended = extended
        self.kind, key_bytes, salt_bytes, self.iv_bytes, self.alignment, self.scapy_encryption = ENCRYPTION[
            encryption
        ]
        self.key = key[:key_bytes]
        self.salt = key[key_bytes : key_bytes + salt_bytes]
        self.integrity_key = key[key_bytes + salt_bytes :]
        if integrity:
            self.hash, integrity_bytes, self.icv_bytes, self.scapy_integrity = INTEGRITY[integrity]
            if len(self.integrity_key) != integrity_bytes:
                raise ValueError(f"{name}: the key has {len(key)} bytes")
        else:
            self.hash, self.icv_bytes, self.scapy_integrity = None, COMBINED_ICV_BYTES, None

    @property
    def scapy_can(self):
        """Whether scapy's IPsec layer knows this transform."""
        return self.scapy_encryption is not None and not (self.extended and self.hash)

    def _associated(self, sequence):
        if self.extended:
            return struct.pack("!IQ", self.spi, sequence)
        return struct.pack("!II", self.spi, sequence & 0xFFFFFFFF)

    def _aead(self):
        return ChaCha20Poly1305(self.key) if self.kind == "chacha" else AESGCM(self.key)

    def _counter(self, iv, data):
        # RFC 3686 section 4: nonce, IV, a block counter that starts at one
        cipher = Cipher(algorithms.AES(self.key), modes.CTR(self.salt + iv + b"\0\0\0\1")).encryptor()
        return cipher.update(data) + cipher.finalize()

    def _mac(self, data, sequence):
        high = struct.pack("!I", sequence >> 32) if self.extended else b""
        return hmac.new(self.integrity_key, data + high, self.hash).digest()[: self.icv_bytes]

    def seal(self, next_header, payload, sequence, traffic_flow_padding=0):
        """The ESP packet of `payload`."""
        payload = payload + bytes(traffic_flow_padding)
        pad = -(len(payload) + 2) % self.alignment
        plain = payload + bytes(range(1, pad + 1)) + bytes([pad, next_header])
        header = struct.pack("!II", self.spi, sequence & 0xFFFFFFFF)
        iv = struct.pack("!Q", sequence) if self.iv_bytes == 8 else os.urandom(self.iv_bytes)
        if self.kind in ("gcm", "chacha"):
            return header + iv + self._aead().encrypt(self.salt + iv, plain, self._associated(sequence))
        if self.kind == "gmac":
            tag = self._aead().encrypt(self.salt + iv, b"", self._associated(sequence) + iv + plain)
            return header + iv + plain + tag
        if self.kind == "cbc":
            cipher = Cipher(algorithms.AES(self.key), modes.CBC(iv)).encryptor()
            plain = cipher.update(plain) + cipher.finalize()
        elif self.kind == "ctr":
            plain = self._counter(iv, plain)
        return header + iv + plain + self._mac(header + iv + plain, sequence)

    def open(self, packet, high=0):
        """Next header, payload and the 64-bit sequence number of an ESP packet."""
        if len(packet) < 8 + self.iv_bytes + 2 + self.icv_bytes:
            raise Refused(f"{len(packet)} bytes are too few")
        spi, low = struct.unpack("!II", packet[:8])
        if spi != self.spi:
            raise Refused(f"SPI {spi:#x}")
        sequence = (high << 32 | low) if self.extended else low
        iv = packet[8 : 8 + self.iv_bytes]
        body, icv = packet[8 + self.iv_bytes : -self.icv_bytes], packet[-self.icv_bytes :]
        try:
            if self.kind in ("gcm", "chacha"):
                plain = self._aead().decrypt(self.salt + iv, body + icv, self._associated(sequence))
            elif self.kind == "gmac":
                self._aead().decrypt(self.salt + iv, icv, self._associated(sequence) + iv + body)
                plain = body
            else:
                expected = self._mac(packet[: -self.icv_bytes], sequence)
                if not hmac.compare_digest(expected, icv):
                    raise Refused("the ICV is wrong")
                plain = body
                if self.kind == "cbc":
                    cipher = Cipher(algorithms.AES(self.key), modes.CBC(iv)).decryptor()
                    plain = cipher.update(body) + cipher.finalize()
                elif self.kind == "ctr":
                    plain = self._counter(iv, body)
        except InvalidTag:
            raise Refused("the ICV is wrong") from None
        pad, next_header = plain[-2], plain[-1]
        if (len(body)) % self.alignment:
            raise Refused(f"{len(body)} bytes are not aligned to {self.alignment}")
        if pad + 2 > len(plain) or plain[-2 - pad : -2] != bytes(range(1, pad + 1)):
            raise Refused("the padding is not 1, 2, 3, ...")
        return next_header, plain[: -2 - pad], sequence
