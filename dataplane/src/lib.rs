//! The packet path of Penstock: from a port's receive ring to a port's transmit ring, through ESP tunnels.
//!
//! ```text
//!  NIC -> XDP (ebpf) --redirect--> rx ring -> classify -+-> reassemble -> esp_decap -> policy(in) --+
//!          |   \--drop (bogus)                          +-> esp_decap -> policy(in) ----------------+-> ip_forward
//!          +--pass to the kernel (IKE, ARP/ND, ssh,     +-> icmp_learn -> punt                      |    |
//!             routing protocols, anything not ours)     +-> policy(out) ----------------------------+    |
//!                                                            |                                           |
//!   a route leads to:   a neighbour <------------------------|-------------------------------------------+
//!                         egress -> tx ring -> NIC           v                                           |
//!                       a tunnel <- protect ----- midchain (fits? MSS, fragments) <----------------------+
//!                         esp_encap -> egress -> tx ring -> NIC                                          |
//!                       the host  -> TAP <---------------------------------------------------------------+
//! ```
//!
//! Labels and tunnels other than ESP join in, in the same pass:
//!
//! ```text
//!  rx -> classify -> esp_decap -> tunnel_decap (GRE, IP, UDP) -> mpls_forward -> policy -> ip_forward ...
//!                          labels alone ---------------------------^     |         of the VRF that the label names
//!                                                                        +-> egress, midchain under other labels
//!  ... ip_forward -> label_push -> midchain -> tunnel_encap (GRE, IP, UDP) -> esp_encap -> egress -> tx
//! ```
//!
//! # One worker a core, run to completion
//!
//! A [`worker::Worker`] owns its packet memory ([`xsk::Umem`]), its queues ([`xsk::PortQueue`]) and everything that packets
//! need on their way; it shares only the tables, which it reads through a [`tables::View`] taken once a batch. A
//! [`batch::Batch`] of up to 64 packets goes through the stages of [`stage`] one stage at a time, so that code and tables of
//! a stage stay in the cache for the batch and the cipher works on many packets at once. A packet stays in its frame, and
//! its frame in its slot, from receive ring to transmit ring: headers are written into the room before it, the ICV behind.
//!
//! # What a packet meets
//!
//! | stage | question | may end as |
//! |---|---|---|
//! | [`stage::classify`] | a sound IP packet, of which kind, for whom? | `Truncated`, `MalformedIp`, `IpChecksum`, `ExtensionHeaders`, `MalformedUdp`, `MartianSource`, `NotForwardable`, `UnknownEtherType` |
//! | [`stage::reassemble`] | do the fragments to us make a whole? | `Fragment…`, `ReassembledTooLong` |
//! | [`stage::esp_decap`] | which SA, is it fresh, is it authentic, what is in it, may it be? | `Esp…`, `Spi…`, `Sa…`, `EncapsulationMismatch`, `Replayed`, `TooOld`, `IntegrityFailed`, `BadPadding`, `NextHeaderRefused`, `Dummy`, `InnerMalformed`, `SelectorMismatch`, `EcnIllegal` |
//! | [`stage::tunnel_decap`] | which GRE, IP or UDP tunnel, may it come so? | `GreMalformed`, `MalformedUdp`, `TunnelPayload`, `UnprotectedInbound`, `LabelsRefused` |
//! | [`stage::mpls_forward`] | what does the top label say, is there TTL left, what is beneath? | `Label…`, `TooBig`, `MartianSource` |
//! | [`stage::policy`] | what do the rules say? | `PolicyDiscard`, `UnprotectedInbound`, `SelectorMismatch` |
//! | [`stage::ip_forward`] | where to? | `NoRoute`, `Unreachable`, `Blackhole`, `TtlExceeded`, `TunnelLoop` |
//! | [`stage::label_push`] | do its labels fit? | `TooBig`, `NoHeadroom` |
//! | [`stage::midchain`] | does it fit the tunnel, has the tunnel an SA? | `TooBig`, `SaExpired`, `NoOutboundSa` |
//! | [`stage::esp_encap`] | a sequence number, headers, cipher | `SequenceExhausted`, `NoHeadroom` |
//! | [`stage::egress`] | whose Ethernet address? | `NeighbourUnresolved`, `NeighbourQueueFull`, `PortMtu` |
//! | [`worker`] | is there room on the ring? | `PortDown`, `TransmitRingFull`, `PuntFull` |
//!
//! A packet for which something is missing that control can get (a neighbour's address, an SA) waits in the
//! [`hold::Hold`], which is small; a sender that should know why its packet goes no further is told by
//! [`stage::icmp_error`]. What leaves a tunnel in an error goes back into that tunnel.
//!
//! # Invariants
//!
//! 1. A packet that a rule or a route sends into a tunnel never leaves in clear: without an SA it waits or is dropped.
//! 2. Nothing that a packet says of itself is believed before its ICV was right, and nothing is read beyond its end.
//! 3. Every packet is accounted for and every frame is in one place: [`worker::Worker::check_books`], also asserted after
//!    each batch in debug builds.
//! 4. No lock, allocation, log line or, wake-ups and the TAP apart, system call per packet.

pub mod attach;
pub mod batch;
pub mod bell;
pub mod config;
pub mod counters;
pub mod fragment;
pub mod fragment_v6;
pub mod handle;
pub mod handoff;
pub mod hold;
pub mod icmp_limit;
pub mod link_watch;
pub mod mss_clamp;
pub mod ports;
pub mod privileges;
pub mod reassembly;
pub mod sa;
pub mod seccomp;
pub mod server;
pub mod stage;
pub mod supervisor;
mod sync;
pub mod tables;
pub mod tap;
pub mod trace;
pub mod worker;
pub mod xsk;
