#!/usr/bin/python3
"""A peer of the gateway that is none of it: exchanges one echo through each SA pair of a plan.

  exchange.py INTERFACE < plan.json > results.json

For each case the peer builds an ESP packet with an echo request in it (by scapy's IPsec layer where that
knows the transform, else by transform.py), sends it to the gateway, waits for the ESP packet of the answer
and opens it, by both. The plan is a list of cases with the fields read in `Case`; the result is a list of
{"name", "error"}, where error is null for an exchange that was right in every point.
"""
import json
import socket
import sys
import time

from scapy.arch import get_if_hwaddr
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.layers.l2 import Ether, getmacbyip
from scapy.packet import Raw

from transform import Refused, Transform

PAYLOAD = b"the quick brown fox jumps over the lazy dog, 0123456789"
ANSWER_LIMIT_SECONDS = 3.0
NAT_TRAVERSAL_PORT = 4500
ETHER_TYPE_ALL = 3


class Case:
    def __init__(self, fields, number):
        self.name = fields["name"]
        self.transport = fields["transport"]
        self.udp = fields["udp"]
        self.extended = fields["extended"]
        self.peer, self.gateway = fields["peer"], fields["gateway"]
        self.inside, self.host = fields["inside"], fields["host"]
        self.first_sequence = fields.get("first_sequence", 1)
        self.traffic_flow_padding = fields.get("traffic_flow_padding", 0)
        self.number = number
        algorithm = fields["algorithm"]
        self.to_gateway = Transform(
            algorithm, bytes.fromhex(fields["key_to_gateway"]), fields["spi_to_gateway"], self.extended
        )
        self.from_gateway = Transform(
            algorithm, bytes.fromhex(fields["key_from_gateway"]), fields["spi_from_gateway"], self.extended
        )

    def association(self, transform, source, destination, sequence):
        """scapy's own SA for one direction."""
        return SecurityAssociation(
            ESP,
            spi=transform.spi,
            seq_num=sequence & 0xFFFFFFFF,
            crypt_algo=transform.scapy_encryption,
            crypt_key=transform.key + transform.salt,
            auth_algo=transform.scapy_integrity,
            auth_key=transform.integrity_key or None,
            tunnel_header=None if self.transport else outer(source, destination),
            nat_t_header=UDP(sport=NAT_TRAVERSAL_PORT, dport=NAT_TRAVERSAL_PORT) if self.udp else None,
            esn_en=self.extended,
            esn=sequence >> 32,
        )

    def request(self):
        """The inner echo request."""
        source, destination = (self.peer, self.gateway) if self.transport else (self.inside, self.host)
        if ":" in destination:
            return IPv6(src=source, dst=destination, hlim=40) / ICMPv6EchoRequest(
                id=self.number, seq=7, data=PAYLOAD
            )
        return IP(src=source, dst=destination, ttl=40) / ICMP(id=self.number, seq=7) / Raw(PAYLOAD)

    def sealed(self):
        """The request as it goes on the wire, from the outer IP header on."""
        request = self.request()
        request = request.__class__(bytes(request))
        scapy_builds = (
            self.to_gateway.scapy_can
            and not self.traffic_flow_padding
            # scapy leaves the UDP header of an IPv6 transport packet where it does not belong.
            and not (self.transport and ":" in self.peer and self.udp)
        )
        if scapy_builds:
            association = self.association(self.to_gateway, self.peer, self.gateway, self.first_sequence)
            packet = association.encrypt(request, esn_en=self.extended, esn=self.first_sequence >> 32)
            packet = packet.__class__(bytes(packet))
            if UDP in packet:
                # scapy 2.5 leaves the length of an empty UDP datagram there.
                packet[UDP].len = len(packet[UDP])
            return bytes(packet)
        if self.transport:
            next_header = 58 if ":" in self.peer else 1
            inner = bytes(request.payload)
        else:
            next_header = 41 if isinstance(request, IPv6) else 4
            inner = bytes(request)
        esp = self.to_gateway.seal(next_header, inner, self.first_sequence, self.traffic_flow_padding)
        header = outer(self.peer, self.gateway)
        if self.udp:
            return bytes(header / UDP(sport=NAT_TRAVERSAL_PORT, dport=NAT_TRAVERSAL_PORT, chksum=0) / Raw(esp))
        if isinstance(header, IPv6):
            header.nh = 50
        else:
            header.proto = 50
        return bytes(header / Raw(esp))

    def check(self, packet):
        """Raises Refused unless `packet`, an IP packet of the gateway, is the right answer."""
        expect(packet.src == self.gateway, f"outer source {packet.src}")
        expect(packet.dst == self.peer, f"outer destination {packet.dst}")
        if self.udp:
            expect(UDP in packet and packet[UDP].dport == NAT_TRAVERSAL_PORT, "no UDP to port 4500")
            esp = bytes(packet[UDP].payload)
        else:
            expect(UDP not in packet, "ESP in UDP")
            esp = bytes(packet.payload)
        next_header, inner, sequence = self.from_gateway.open(esp)
        expect(sequence >= 1, "sequence number 0")
        answer = self.inner(next_header, inner)
        self.check_answer(answer)
        if self.from_gateway.scapy_can and not (self.transport and ":" in self.peer and self.udp):
            association = self.association(self.from_gateway, self.gateway, self.peer, sequence)
            opened = association.decrypt(packet.__class__(bytes(packet)), esn_en=self.extended, esn=sequence >> 32)
            expect(bytes(opened.payload)[:8] == bytes(answer.payload)[:8], "scapy and the RFC text disagree")

    def inner(self, next_header, payload):
        if self.transport:
            expect(next_header == (58 if ":" in self.peer else 1), f"next header {next_header}")
            header = outer(self.gateway, self.peer)
            return header / (ICMPv6EchoReply(payload) if ":" in self.peer else ICMP(payload))
        expect(next_header == (41 if ":" in self.inside else 4), f"next header {next_header}")
        return IPv6(payload) if next_header == 41 else IP(payload)

    def check_answer(self, answer):
        if not self.transport:
            expect(answer.src == self.host and answer.dst == self.inside, f"inner {answer.src} > {answer.dst}")
            hops = answer.hlim if isinstance(answer, IPv6) else answer.ttl
            # Hosts start at 64; one gateway is on the way.
            expect(hops == 63, f"inner TTL {hops}")
        if isinstance(answer, IPv6):
            expect(ICMPv6EchoReply in answer, f"not an echo reply: {answer.summary()}")
            expect(answer[ICMPv6EchoReply].id == self.number, "another echo's reply")
            expect(bytes(answer[ICMPv6EchoReply].data) == PAYLOAD, "the payload changed")
        else:
            expect(ICMP in answer and answer[ICMP].type == 0, f"not an echo reply: {answer.summary()}")
            expect(answer[ICMP].id == self.number, "another echo's reply")
            expect(bytes(answer[ICMP].payload) == PAYLOAD, "the payload changed")


def outer(source, destination):
    if ":" in destination:
        return IPv6(src=source, dst=destination)
    return IP(src=source, dst=destination)


def expect(condition, message):
    if not condition:
        raise Refused(message)


def answers(listener, case, deadline):
    """IP packets of the gateway to the peer that carry the case's SPI, until the deadline."""
    while (left := deadline - time.monotonic()) > 0:
        listener.settimeout(left)
        try:
            frame = Ether(listener.recv(65535))
        except TimeoutError:
            return
        packet = frame.payload
        if not isinstance(packet, (IP, IPv6)) or packet.src != case.gateway:
            continue
        esp = bytes(packet[UDP].payload) if UDP in packet else bytes(packet.payload)
        if esp[:4] == case.from_gateway.spi.to_bytes(4, "big"):
            yield packet


def exchange(listener, interface, gateway_mac, case):
    frame = Ether(src=get_if_hwaddr(interface), dst=gateway_mac, type=0x86DD if ":" in case.peer else 0x0800)
    listener.send(bytes(frame) + case.sealed())
    reason = "no answer"
    for packet in answers(listener, case, time.monotonic() + ANSWER_LIMIT_SECONDS):
        try:
            case.check(packet)
            return None
        except Refused as refused:
            reason = str(refused)
    return reason


def main():
    interface = sys.argv[1]
    plan = [Case(fields, number) for number, fields in enumerate(json.load(sys.stdin), start=1)]
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHER_TYPE_ALL)) as listener:
        listener.bind((interface, ETHER_TYPE_ALL))
        gateway_mac = getmacbyip("198.51.100.1")
        results = [
            {"name": case.name, "error": exchange(listener, interface, gateway_mac, case)} for case in plan
        ]
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
