#!/usr/bin/python3
"""A router beside the gateway that is none of it: exchanges labelled packets with it, by scapy's MPLS layer.

  labels.py INTERFACE GATEWAY-ADDRESS > results.json
  labels.py INTERFACE GATEWAY-ADDRESS LABEL...        sends one packet under these, and is done

The gateway's configuration is in bench/tests/labels.rs. The result is a list of {"name", "error"}, where error is
null for an exchange that was right in every point.
"""
import json
import socket
import struct
import sys
import time

from scapy.arch import get_if_hwaddr
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import GRE, ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether, getmacbyip
from scapy.packet import Raw

ANSWER_LIMIT_SECONDS = 3.0
SILENCE_SECONDS = 0.4
TRIES = 20
ETHER_TYPE_ALL = 3
PAYLOAD = b"a quick brown fox under labels, 0123456789"


class Wire:
    """The link to the gateway, frame by frame."""

    def __init__(self, interface, gateway):
        self.ours, self.theirs = get_if_hwaddr(interface), getmacbyip(gateway)
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHER_TYPE_ALL))
        self.socket.bind((interface, 0))
        self.socket.settimeout(0.1)

    def send(self, packet, ether_type):
        frame = Ether(src=self.ours, dst=self.theirs, type=ether_type) / packet
        self.socket.send(bytes(frame))

    def receive(self, wanted, seconds=ANSWER_LIMIT_SECONDS):
        """The first frame from the gateway that `wanted` makes something of."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                frame = self.socket.recv(4096)
            except TimeoutError:
                continue
            if frame[6:12] != bytes.fromhex(self.theirs.replace(":", "")):
                continue
            found = wanted(struct.unpack("!H", frame[12:14])[0], frame[14:])
            if found is not None:
                return found
        return None


def stack(labels):
    """MPLS entries of (label, ttl) or (label, ttl, tc)."""
    packet = None
    for place, entry in enumerate(labels):
        label, ttl, cos = (*entry, 0)[:3]
        layer = MPLS(label=label, ttl=ttl, cos=cos, s=int(place + 1 == len(labels)))
        packet = layer if packet is None else packet / layer
    return packet


def unstack(data):
    """Entries as (label, ttl, tc), and what is beneath; scapy reads each entry."""
    entries = []
    while True:
        entry = MPLS(data[:4])
        entries.append((entry.label, entry.ttl, entry.cos))
        data = data[4:]
        if entry.s:
            return entries, data


def labelled(ether_type, data):
    return unstack(data) if ether_type == 0x8847 else None


def is_sound(data):
    """An IP packet whose checksums scapy would write itself."""
    packet = IP(data) if data[0] >> 4 == 4 else IPv6(data)
    rebuilt = packet.copy()
    for layer, field in ((IP, "chksum"), (ICMP, "chksum"), (UDP, "chksum"), (ICMPv6EchoReply, "cksum")):
        if layer in rebuilt:
            delattr(rebuilt[layer], field)
    return bytes(rebuilt) == data


def check(condition, text):
    if not condition:
        raise AssertionError(text)


def echo(source, destination, hops=40, tos=0, payload=PAYLOAD):
    if ":" in source:
        return IPv6(src=source, dst=destination, hlim=hops) / ICMPv6EchoRequest(id=7, seq=1, data=payload)
    return IP(src=source, dst=destination, ttl=hops, id=99, tos=tos) / ICMP(id=7, seq=1) / Raw(payload)


def is_reply(data, source, destination):
    packet = IP(data) if data[0] >> 4 == 4 else IPv6(data)
    kind = packet[ICMP].type == 0 if ICMP in packet else ICMPv6EchoReply in packet
    return packet.src == source and packet.dst == destination and kind


def answered(wire, sent, source, host):
    """The labelled answer to a labelled echo request."""
    wire.send(sent, 0x8847)
    answer = wire.receive(
        lambda kind, data: (found := labelled(kind, data)) and is_reply(found[1], host, source) and found
    )
    check(answer, "no answer under labels")
    return answer


def class_to_label(wire):
    """The host answers with the DSCP of the request, whose first bits become the traffic class (RFC 5462)."""
    sent = stack([(500, 64)]) / echo("10.9.0.5", "10.1.0.10", tos=0xB8)
    entries, packet = answered(wire, sent, "10.9.0.5", "10.1.0.10")
    check(packet[1] == 0xB8 and all(entry[2] == 5 for entry in entries), f"{packet[1]:02x} {entries}")


def class_of_label(wire):
    """The traffic class becomes a class selector (RFC 2474), which the host's answer brings back."""
    sent = stack([(502, 64, 6)]) / echo("10.9.0.5", "10.1.0.10", tos=0xB8)
    entries, packet = answered(wire, sent, "10.9.0.5", "10.1.0.10")
    check(packet[1] == 0xC0 and all(entry[2] == 6 for entry in entries), f"{packet[1]:02x} {entries}")


def pop_route_push(wire, source, host, into, out):
    """Labels in, the last one a VPN's, and the answer under labels out."""
    entries, packet = answered(wire, stack([(label, 64) for label in into]) / echo(source, host), source, host)
    hops = packet[8] if packet[0] >> 4 == 4 else packet[7]
    check([entry[0] for entry in entries] == out, f"labels {entries}")
    check(hops == 63 and all(entry[1] == 63 for entry in entries), f"TTLs {hops} {entries}")
    check(is_sound(packet), "a checksum is wrong")


def forwarded(wire, sent, packet, expected, expected_hops=None):
    """Labels in, labels out, the packet as it was but for its TTL."""
    wire.send(stack(sent) / packet, 0x8847)
    want = bytes(packet)

    def same(kind, data):
        if expected:
            found = labelled(kind, data)
            return found if found and found[1][12:] == want[12:] else None
        return ([], data) if kind in (0x0800, 0x86DD) and data[12:] == want[12:] else None

    answer = wire.receive(same)
    check(answer, "nothing was forwarded")
    check(answer[0] == expected, f"labels {answer[0]}, expected {expected}")
    check(is_sound(answer[1]), "a checksum is wrong")
    check(answer[1][8] == (expected_hops or packet.ttl), f"TTL {answer[1][8]}")


def time_exceeded(wire):
    """An LSP's TTL ends here: the error goes on along it, with the stack that came (RFC 4884, RFC 4950)."""
    sent = stack([(200, 1, 3), (16000, 9)])
    wire.send(sent / echo("10.9.0.5", "10.77.0.1"), 0x8847)
    answer = wire.receive(
        lambda kind, data: (found := labelled(kind, data)) and found[1][20:22] == b"\x0b\x00" and found
    )
    check(answer, "no time exceeded")
    entries, packet = answer
    check([entry[0] for entry in entries] == [201, 16000], f"labels {entries}")
    check(IP(packet).dst == "10.9.0.5" and is_sound(packet), "not to the sender, or unsound")
    message = packet[20:]
    quote_bytes = message[5] * 4
    extension = message[8 + quote_bytes:]
    check(quote_bytes >= 128 and extension[0] >> 4 == 2, "no extension")
    check(extension[4:8] == struct.pack("!HBB", 12, 1, 1), f"object {extension[4:8].hex()}")
    check(extension[8:16] == bytes(sent), f"stack {extension[8:16].hex()}")


def entropy(wire):
    wire.send(stack([(500, 64)]) / echo("10.10.0.5", "10.1.0.10"), 0x8847)
    answer = wire.receive(
        lambda kind, data: (found := labelled(kind, data)) and is_reply(found[1], "10.1.0.10", "10.10.0.5") and found
    )
    check(answer, "no answer")
    labels = [entry[0] for entry in answer[0]]
    check(labels[:2] == [100, 7] and len(labels) == 4 and labels[2] > 15 and labels[3] == 700, f"{labels}")
    check(answer[0][2][1] == 0, "the entropy label has a TTL")


def through_tunnel(wire, header, read, source, label):
    """Labels within a tunnel's header both ways."""
    outer = IP(src="198.51.100.2", dst="198.51.100.1", ttl=30)
    wire.send(header(outer, stack([(500, 64)]) / echo(source, "10.1.0.10")), 0x0800)

    def answered(kind, data):
        if kind != 0x0800:
            return None
        packet = IP(data)
        if packet.src != "198.51.100.1" or packet.dst != "198.51.100.2":
            return None
        inner = read(data)
        if inner is None:
            return None
        found = unstack(inner)
        return (data, found) if is_reply(found[1], "10.1.0.10", source) else None

    answer = wire.receive(answered)
    check(answer, "no answer in the tunnel")
    data, (entries, packet) = answer
    check([entry[0] for entry in entries] == [label], f"labels {entries}")
    check(is_sound(packet), "an inner checksum is wrong")
    header = IP(data[:20])
    sum_is = header.chksum
    del header.chksum
    check(IP(bytes(header)).chksum == sum_is, "the outer checksum is wrong")


def path_of_tunnel(wire):
    """A router on the way says what is too big for it, and the gateway keeps to that (RFC 2003 section 5.1)."""
    inner = stack([(500, 64)]) / echo("10.11.0.5", "10.1.0.10", payload=PAYLOAD * 28)
    request = IP(src="198.51.100.2", dst="198.51.100.1", ttl=30) / GRE(proto=0x8847, key_present=1, key=77) / inner

    def sent_by_gateway(kind, data):
        return data if kind == 0x0800 and data[9] == 47 and IP(data).src == "198.51.100.1" else None

    wire.send(request, 0x0800)
    whole = wire.receive(sent_by_gateway)
    check(whole and len(whole) > 1200, "no long answer")
    error = IP(src="198.51.100.2", dst="198.51.100.1") / ICMP(type=3, code=4, nexthopmtu=1000) / Raw(whole[:100])
    wire.send(error, 0x0800)
    for _ in range(TRIES):
        wire.send(request, 0x0800)
        pieces = [wire.receive(sent_by_gateway)]
        check(pieces[0], "no answer")
        if len(pieces[0]) < len(whole):
            break
        time.sleep(SILENCE_SECONDS)
    pieces.append(wire.receive(sent_by_gateway))
    check(pieces[1], "no second piece")
    check(max(len(piece) for piece in pieces) in range(980, 1001), f"{[len(piece) for piece in pieces]}")


def router_alert(wire):
    """An echo request to the gateway itself under a router alert reaches its host, which answers without labels."""
    wire.send(stack([(1, 1)]) / echo("198.51.100.2", "198.51.100.1"), 0x8847)
    answer = wire.receive(
        lambda kind, data: data if kind == 0x0800 and is_reply(data, "198.51.100.1", "198.51.100.2") else None
    )
    check(answer and answer.endswith(PAYLOAD), "the gateway's host did not answer")


def alert_for_another(wire):
    """A router alert lets no packet into the host's own routing."""
    wire.send(stack([(1, 64)]) / echo("198.51.100.2", "10.1.0.10"), 0x8847)
    answer = wire.receive(
        lambda kind, data: data if kind == 0x0800 and is_reply(data, "10.1.0.10", "198.51.100.2") else None,
        SILENCE_SECONDS)
    check(answer is None, "an answer")


def silence(wire, labels):
    """No answer: a customer's host is not reached by another customer's label, nor by a stack without end."""
    wire.send(stack([(label, 64) for label in labels]) / echo("10.9.0.5", "10.1.0.10"), 0x8847)
    answer = wire.receive(lambda kind, data: labelled(kind, data), SILENCE_SECONDS)
    check(answer is None, f"an answer: {answer}")


def gre_key(data):
    if data[9] != 47:
        return None
    packet = GRE(data[20:])
    is_ours = packet.proto == 0x8847 and packet.key_present == 1 and packet.key == 77
    return data[28:] if is_ours else None


def main():
    wire = Wire(sys.argv[1], sys.argv[2])
    if len(sys.argv) > 3:
        labels = [(int(label), 64) for label in sys.argv[3:]]
        wire.send(stack(labels) / echo("10.9.0.5", "10.1.0.10"), 0x8847)
        return
    transit = IP(src="10.9.0.5", dst="10.77.0.1", ttl=20) / UDP(sport=1000, dport=2000) / Raw(PAYLOAD)
    to_us = IP(src="10.9.0.5", dst="198.51.100.2", ttl=20) / UDP(sport=1000, dport=2000) / Raw(PAYLOAD)
    cases = [
        ("pop, route in the VRF, push two", lambda: pop_route_push(wire, "10.9.0.5", "10.1.0.10", [500], [100, 700])),
        ("the same for IPv6", lambda: pop_route_push(wire, "fd09::5", "fd01::10", [500], [100, 701])),
        ("swap", lambda: forwarded(wire, [(200, 33, 5), (16000, 9)], transit, [(201, 32, 5), (16000, 9, 0)])),
        ("swap and push", lambda: forwarded(wire, [(210, 33, 2)], transit, [(301, 32, 2), (302, 32, 2)])),
        ("penultimate-hop popping", lambda: forwarded(wire, [(220, 10)], transit, [], 9)),
        ("explicit null", lambda: forwarded(wire, [(0, 10)], to_us, [], 9)),
        ("TTL of the label ends", lambda: time_exceeded(wire)),
        ("entropy label", lambda: entropy(wire)),
        ("explicit nulls above a VPN's label", lambda: pop_route_push(
            wire, "10.9.0.5", "10.1.0.10", [0, 2, 500], [100, 700])),
        ("explicit null for IPv6", lambda: pop_route_push(wire, "fd09::5", "fd01::10", [2, 500], [100, 701])),
        ("eight labels pushed", lambda: pop_route_push(
            wire, "10.14.0.5", "10.1.0.10", [500], list(range(801, 809)))),
        ("penultimate-hop popping, pipe model", lambda: forwarded(wire, [(230, 10)], transit, [], 20)),
        ("DSCP to traffic class", lambda: class_to_label(wire)),
        ("traffic class to DSCP", lambda: class_of_label(wire)),
        ("another customer's label", lambda: silence(wire, [501])),
        ("a stack deeper than sixteen", lambda: silence(wire, [0] * 16 + [500])),
        ("router alert", lambda: router_alert(wire)),
        ("router alert for somebody else", lambda: alert_for_another(wire)),
        ("labels in GRE with a key", lambda: through_tunnel(
            wire, lambda outer, inner: outer / GRE(proto=0x8847, key_present=1, key=77) / inner, gre_key, "10.11.0.5", 710)),
        ("labels in IP", lambda: through_tunnel(
            wire, lambda outer, inner: IP(src=outer.src, dst=outer.dst, ttl=30, proto=137) / inner,
            lambda data: data[20:] if data[9] == 137 else None, "10.12.0.5", 711)),
        ("labels in UDP", lambda: through_tunnel(
            wire, lambda outer, inner: outer / UDP(sport=50000, dport=6635) / inner,
            lambda data: data[28:] if data[9] == 17 and data[22:24] == struct.pack("!H", 6635) else None,
            "10.13.0.5", 712)),
        ("path of a tunnel in the clear", lambda: path_of_tunnel(wire)),
    ]
    results = []
    for name, run in cases:
        try:
            run()
            error = None
        except AssertionError as wrong:
            error = str(wrong)
        results.append({"name": name, "error": error})
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
