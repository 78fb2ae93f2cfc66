//! A router with two links of labels and two customers, who have the same addresses.
//!
//! ```text
//!  A1, table 1 --- [1]          [2] --- WEST, labels: 172.16.2.2, 2001:db8:2::2
//!                       router
//!  B1, table 2 --- [4]          [3] --- EAST, labels: 172.16.3.2, 2001:db8:3::2
//! ```

use southbound::{
    IlmSpec, Label, LabelOperation, LabelSpaceId, LabelStack, LabelVia, NextHop, Nhlfe, PopClass, PortId,
    PortRole, TtlModel, Update, VrfId,
};
use wire::Lse;

use super::gateway::{Gateway, neighbour_mac, port_mac};

pub const CUSTOMER_A: u32 = 1;
pub const WEST: u32 = 2;
pub const EAST: u32 = 3;
pub const CUSTOMER_B: u32 = 4;

pub const VRF_A: VrfId = VrfId(1);
pub const VRF_B: VrfId = VrfId(2);

/// The customers' host, and one of another site.
pub const HERE: [&str; 2] = ["192.168.101.5", "fd00:101::5"];
pub const THERE: [&str; 2] = ["192.168.102.5", "fd00:102::5"];

/// The router: links, neighbours, addresses and connected routes; no labels.
pub fn router() -> Gateway {
    let mut router = Gateway::bare();
    let labels = Some(LabelSpaceId::PLATFORM);
    router.put_port(CUSTOMER_A, PortRole::Protected, VRF_A, None);
    router.put_port(WEST, PortRole::Internet, VrfId::MAIN, labels);
    router.add_port_in(EAST, PortRole::Internet, VrfId::MAIN, labels);
    router.add_port_in(CUSTOMER_B, PortRole::Protected, VRF_B, None);
    for (port, vrf) in [
        (CUSTOMER_A, VRF_A),
        (WEST, VrfId::MAIN),
        (EAST, VrfId::MAIN),
        (CUSTOMER_B, VRF_B),
    ] {
        let is_core = vrf == VrfId::MAIN;
        let networks = if is_core {
            [format!("172.16.{port}"), format!("2001:db8:{port}:")]
        } else {
            ["192.168.101".to_owned(), "fd00:101:".to_owned()]
        };
        for (network, length) in networks.iter().zip([24, 64]) {
            let dot = if length == 24 { '.' } else { ':' };
            router.local_in(vrf, port, &format!("{network}{dot}1"));
            let host = if is_core { 2 } else { 5 };
            router.neighbour(port, &format!("{network}{dot}{host}"), Some(neighbour_mac(port)));
            let connected = NextHop::Port {
                port: PortId(port),
                gateway: None,
            };
            router.route_in(
                vrf,
                &format!("{network}{dot}{}/{length}", if length == 24 { "0" } else { "" }),
                vec![connected],
            );
        }
    }
    router
}

pub fn label(value: u32) -> Label {
    Label::new(value).unwrap()
}

/// To the neighbour of a core link under these labels.
pub fn nhlfe(labels: &[u32], port: u32) -> Nhlfe {
    let labels: Vec<_> = labels.iter().map(|value| label(*value)).collect();
    let via = LabelVia::Port {
        port: PortId(port),
        gateway: format!("172.16.{port}.2").parse().unwrap(),
    };
    Nhlfe::new(LabelStack::new(&labels).unwrap(), via)
}

pub fn ilm(value: u32, operation: LabelOperation) -> IlmSpec {
    IlmSpec {
        space: LabelSpaceId::PLATFORM,
        label: label(value),
        operation,
        ttl: TtlModel::Uniform,
        class: PopClass::Keep,
    }
}

/// An entry that forwards to one next hop.
pub fn forward(value: u32, nhlfe: Nhlfe) -> Update {
    Update::PutIlm(ilm(
        value,
        LabelOperation::Forward {
            next_hops: vec![nhlfe],
            weights: vec![],
        },
    ))
}

pub fn lookup(value: u32, vrf: VrfId) -> Update {
    Update::PutIlm(ilm(value, LabelOperation::PopAndLookup(vrf)))
}

/// Label, TTL: the rest of an entry as it usually is.
pub fn entries(labels: &[(u32, u8)]) -> Vec<Lse> {
    labels
        .iter()
        .enumerate()
        .map(|(place, (value, ttl))| Lse {
            label: wire::Label::new(*value).unwrap(),
            traffic_class: 0,
            bottom: place + 1 == labels.len(),
            ttl: *ttl,
        })
        .collect()
}

/// A labelled packet, from the first entry on.
pub fn labelled(entries: &[Lse], packet: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_bytes()).collect();
    bytes.extend(packet);
    bytes
}

/// What left by a port: EtherType, label stack, the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    pub ether_type: u16,
    pub entries: Vec<Lse>,
    pub packet: Vec<u8>,
}

impl Left {
    /// Labels and TTLs.
    pub fn labels(&self) -> Vec<(u32, u8)> {
        self.entries
            .iter()
            .map(|entry| (entry.label.value(), entry.ttl))
            .collect()
    }
}

/// Splits bytes that begin with a label stack.
pub fn split(mut bytes: &[u8]) -> (Vec<Lse>, Vec<u8>) {
    let mut entries = Vec::new();
    while let Some((entry, rest)) = bytes.split_first_chunk::<4>() {
        let entry = Lse::from_bytes(*entry);
        entries.push(entry);
        bytes = rest;
        if entry.bottom {
            break;
        }
    }
    (entries, bytes.to_vec())
}

impl Gateway {
    /// A labelled packet arrives at a port; nothing walks yet.
    pub fn deliver_labelled(&mut self, port: u32, bytes: &[u8]) {
        let mut frame = port_mac(port).to_vec();
        frame.extend([2, 0, 0, 0, 0, 0x99, 0x88, 0x47]);
        frame.extend(bytes);
        self.deliver_frame(port, &frame);
    }

    /// What left by a port.
    pub fn left(&mut self, port: u32) -> Vec<Left> {
        self.collect_frames(port)
            .iter()
            .map(|frame| {
                let ether_type = u16::from_be_bytes([frame[12], frame[13]]);
                let (entries, packet) = if ether_type == 0x8847 {
                    split(&frame[14..])
                } else {
                    (vec![], frame[14..].to_vec())
                };
                Left {
                    ether_type,
                    entries,
                    packet,
                }
            })
            .collect()
    }

    /// One labelled packet in, one turn, what left by another port.
    pub fn pass_labelled(&mut self, from: u32, bytes: &[u8], to: u32) -> Vec<Left> {
        self.deliver_labelled(from, bytes);
        self.turn();
        self.left(to)
    }

    /// One IP packet in, one turn, what left by another port.
    pub fn pass_to(&mut self, from: u32, packet: &[u8], to: u32) -> Vec<Left> {
        self.deliver(from, packet);
        self.turn();
        self.left(to)
    }
}
