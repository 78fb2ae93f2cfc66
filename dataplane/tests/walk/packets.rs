//! Packets for the walks, built from fields.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wire::checksum::Sum;
use wire::{IpProtocol, TrafficClass, ipv4, ipv6};

/// An IP packet to be.
#[derive(Clone, Debug)]
pub struct Ip {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub class: u8,
    pub hops: u8,
    pub dont_fragment: bool,
    pub payload: Vec<u8>,
}

impl Ip {
    pub fn new(source: &str, destination: &str, protocol: u8, payload: Vec<u8>) -> Self {
        Self {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol,
            class: 0,
            hops: 64,
            dont_fragment: true,
            payload,
        }
    }

    /// UDP from port 1000 to 2000 with a payload that makes the whole IP packet `total_bytes` long.
    pub fn udp(source: &str, destination: &str, total_bytes: usize) -> Self {
        let mut packet = Self::new(source, destination, 17, Vec::new());
        let header_bytes = if packet.source.is_ipv4() { 20 } else { 40 };
        let payload: Vec<u8> = (0..total_bytes - header_bytes - 8)
            .map(|index| index as u8)
            .collect();
        packet.payload = udp(&packet, 1000, 2000, &payload);
        packet
    }

    pub fn bytes(&self) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => self.v4(source, destination),
            (IpAddr::V6(source), IpAddr::V6(destination)) => self.v6(source, destination),
            _ => panic!("one family"),
        }
    }

    fn v4(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        let mut header = [0; 20];
        ipv4::Repr {
            traffic_class: TrafficClass(self.class),
            total_bytes: (20 + self.payload.len()) as u16,
            identification: 0x1234,
            dont_fragment: self.dont_fragment,
            more_fragments: false,
            fragment_offset_bytes: 0,
            ttl: self.hops,
            protocol: IpProtocol(self.protocol),
            source,
            destination,
        }
        .emit(&mut header);
        [&header[..], &self.payload].concat()
    }

    fn v6(&self, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
        let mut header = [0; 40];
        ipv6::Repr {
            traffic_class: TrafficClass(self.class),
            flow_label: 0x12345,
            payload_bytes: self.payload.len() as u16,
            next_header: IpProtocol(self.protocol),
            hop_limit: self.hops,
            source,
            destination,
        }
        .emit(&mut header);
        [&header[..], &self.payload].concat()
    }

    fn pseudo(&self, protocol: u8, length: usize) -> Sum {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                Sum::pseudo_header_v4(source, destination, IpProtocol(protocol), length as u16)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                Sum::pseudo_header_v6(source, destination, IpProtocol(protocol), length as u32)
            }
            _ => panic!("one family"),
        }
    }
}

pub fn udp(ip: &Ip, source_port: u16, destination_port: u16, payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    let mut bytes = Vec::new();
    bytes.extend(source_port.to_be_bytes());
    bytes.extend(destination_port.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    let checksum = ip.pseudo(17, bytes.len()).bytes(&bytes).checksum();
    bytes[6..8].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// What a router on the path tells the sender of `outer`, quoting up to 512 bytes of it.
pub fn too_big(outer: &[u8], mtu_bytes: u16) -> Vec<u8> {
    let quote = &outer[..outer.len().min(512)];
    let message = |kind: [u8; 2]| [&kind, &[0; 4][..], &mtu_bytes.to_be_bytes(), quote].concat();
    let mut error = if outer[0] >> 4 == 4 {
        let to = Ipv4Addr::from_octets(outer[12..16].try_into().unwrap());
        Ip::new("203.0.113.9", &to.to_string(), 1, message([3, 4]))
    } else {
        let to = Ipv6Addr::from_octets(outer[8..24].try_into().unwrap());
        Ip::new("2001:db8:ff::9", &to.to_string(), 58, message([2, 0]))
    };
    let sum = match error.protocol {
        1 => Sum::new(),
        protocol => error.pseudo(protocol, error.payload.len()),
    };
    let checksum = sum.bytes(&error.payload).checksum();
    error.payload[2..4].copy_from_slice(&checksum.to_be_bytes());
    error.bytes()
}

/// A TCP SYN with an MSS option.
pub fn syn(ip: &Ip, mss: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(1000u16.to_be_bytes());
    bytes.extend(80u16.to_be_bytes());
    bytes.extend([0; 8]);
    bytes.extend([6 << 4, 2, 0x20, 0, 0, 0, 0, 0, 2, 4]);
    bytes.extend(mss.to_be_bytes());
    let checksum = ip.pseudo(6, bytes.len()).bytes(&bytes).checksum();
    bytes[16..18].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// Whether the checksum of TCP, UDP or ICMPv6 in a whole IP packet without extension headers is right.
pub fn upper_checksum_holds(packet: &[u8]) -> bool {
    let (header_bytes, protocol, addresses) = match packet[0] >> 4 {
        4 => (20, packet[9], &packet[12..20]),
        _ => (40, packet[6], &packet[8..40]),
    };
    let payload = &packet[header_bytes..];
    let sum = Sum::new().bytes(payload);
    if protocol == 1 {
        return sum.is_valid();
    }
    Sum::new()
        .bytes(addresses)
        .word(u16::from(protocol))
        .word(payload.len() as u16)
        .bytes(payload)
        .is_valid()
}

pub fn ethernet(destination: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let ether_type: u16 = if packet.first().is_some_and(|first| first >> 4 == 6) {
        0x86dd
    } else {
        0x0800
    };
    let mut bytes = Vec::new();
    bytes.extend(destination);
    bytes.extend([2, 0, 0, 0, 0, 0x99]);
    bytes.extend(ether_type.to_be_bytes());
    bytes.extend(packet);
    bytes
}

/// The IP packet in a frame.
pub fn inside(frame: &[u8]) -> &[u8] {
    &frame[14..]
}
