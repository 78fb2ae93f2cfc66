//! Why a packet went no further. Each reason is one counter, one metric label and one page of the
//! troubleshooting guide.

use std::fmt;

/// Where in the packet's way a reason belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Headers as received.
    Parse,
    /// Reassembly of outer fragments.
    Reassembly,
    /// Lookup of the inbound SA.
    Sad,
    /// ICV and decryption, padding.
    Crypto,
    /// The anti-replay window.
    Replay,
    /// Selectors and rules.
    Policy,
    /// Routing.
    Fib,
    /// Neighbours.
    Neighbour,
    /// Labels.
    Mpls,
    /// GRE, IP and UDP tunnels.
    Tunnel,
    /// Transmission, and delivery to the host.
    Transmit,
}

impl Stage {
    /// The label value in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::Reassembly => "reassembly",
            Self::Sad => "sad",
            Self::Crypto => "crypto",
            Self::Replay => "replay",
            Self::Policy => "policy",
            Self::Fib => "fib",
            Self::Neighbour => "neighbour",
            Self::Mpls => "mpls",
            Self::Tunnel => "tunnel",
            Self::Transmit => "transmit",
        }
    }
}

macro_rules! drop_reasons {
    ($( $(#[doc = $help:literal])+ $variant:ident = $stage:ident, $name:literal; )+) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $( $(#[doc = $help])+ $variant, )+
        }

        impl DropReason {
            /// Every reason, in the order of its counter.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The label value in metrics and on the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The stage it belongs to.
            #[must_use]
            pub const fn stage(self) -> Stage {
                match self { $(Self::$variant => Stage::$stage,)+ }
            }

            /// One sentence for people: its documentation.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => concat!($($help,)+),)+ }
            }
        }
    };
}

drop_reasons! {
    /// The frame ends before the headers that it announces.
    Truncated = Parse, "truncated";
    /// The IP version, header length or total length contradicts the frame.
    MalformedIp = Parse, "malformed_ip";
    /// The IPv4 header checksum is wrong.
    IpChecksum = Parse, "ip_checksum";
    /// More IPv6 extension headers than are walked.
    ExtensionHeaders = Parse, "extension_headers";
    /// The UDP length contradicts the packet.
    MalformedUdp = Parse, "malformed_udp";
    /// No address of this gateway and no unicast address either: not for forwarding.
    NotForwardable = Parse, "not_forwardable";
    /// The source address cannot be one (multicast, broadcast, unspecified, loopback).
    MartianSource = Parse, "martian_source";
    /// The checksum of ESP in UDP over IPv6 is neither zero nor right.
    UdpChecksum = Parse, "udp_checksum";
    /// An EtherType that no stage handles.
    UnknownEtherType = Parse, "unknown_ether_type";
    /// A VLAN tag that belongs to no port.
    UnknownVlan = Parse, "unknown_vlan";
    /// A packet of several receive descriptors, larger than one frame.
    OversizeReceived = Parse, "oversize_received";

    /// A fragment that overlaps another, ends twice or is impossibly placed; its whole datagram goes.
    FragmentInvalid = Reassembly, "fragment_invalid";
    /// No room: too many datagrams or bytes wait for their fragments.
    FragmentTableFull = Reassembly, "fragment_table_full";
    /// The other fragments did not come in time.
    FragmentTimeout = Reassembly, "fragment_timeout";
    /// The whole datagram is larger than a frame.
    ReassembledTooLong = Reassembly, "reassembled_too_long";

    /// Shorter than ESP header, IV and ICV together (RFC 4303 section 2).
    EspRunt = Sad, "esp_runt";
    /// No inbound SA has this SPI.
    SpiUnknown = Sad, "spi_unknown";
    /// The SPI is one of the reserved 0 to 255.
    SpiReserved = Sad, "spi_reserved";
    /// The SA expects ESP in UDP and got it bare, or the reverse.
    EncapsulationMismatch = Sad, "encapsulation_mismatch";
    /// The SA is past a hard limit of bytes, packets or time.
    SaExpired = Sad, "sa_expired";
    /// The packet was sent to an address that is not the SA's.
    SaDestination = Sad, "sa_destination";
    /// The encrypted part is no whole number of cipher blocks.
    EspAlignment = Sad, "esp_alignment";

    /// The ICV is wrong: another key, a damaged packet or a forgery.
    IntegrityFailed = Crypto, "integrity_failed";
    /// The pad length is larger than the packet, or the padding is not 1, 2, 3, … (RFC 4303 section 2.4).
    BadPadding = Crypto, "bad_padding";
    /// The next header is none that the SA may carry.
    NextHeaderRefused = Crypto, "next_header_refused";
    /// A dummy packet (next header 59, RFC 4303 section 2.6): not an error.
    Dummy = Crypto, "dummy";
    /// The inner packet contradicts its own length or the space it came in.
    InnerMalformed = Crypto, "inner_malformed";

    /// The sequence number was accepted before.
    Replayed = Replay, "replayed";
    /// The sequence number is left of the window.
    TooOld = Replay, "too_old";

    /// The inner packet is outside the selectors of its SA.
    SelectorMismatch = Policy, "selector_mismatch";
    /// A rule says discard.
    PolicyDiscard = Policy, "policy_discard";
    /// No rule matches, and what no rule matches is discarded.
    PolicyNoMatch = Policy, "policy_no_match";
    /// A rule says protect, and the packet came in clear.
    UnprotectedInbound = Policy, "unprotected_inbound";
    /// ECN: outer CE over an inner packet that cannot carry it (RFC 6040 section 4.2).
    EcnIllegal = Policy, "ecn_illegal";
    /// The tunnel has no outbound SA and the hold queue is full or was given up.
    NoOutboundSa = Policy, "no_outbound_sa";
    /// The outbound SA has used its last sequence number (RFC 4303 section 3.3.3).
    SequenceExhausted = Policy, "sequence_exhausted";
    /// No route for the packet; the sender is told.
    NoRoute = Fib, "no_route";
    /// The route is a blackhole.
    Blackhole = Fib, "blackhole";
    /// The route says unreachable; the sender is told.
    Unreachable = Fib, "unreachable";
    /// TTL or hop limit ran out; the sender is told.
    TtlExceeded = Fib, "ttl_exceeded";
    /// Larger than the way allows and not to be fragmented; the sender is told.
    TooBig = Fib, "too_big";
    /// A tunnel's own packets are routed into the tunnel.
    TunnelLoop = Fib, "tunnel_loop";

    /// The neighbour did not answer in time.
    NeighbourUnresolved = Neighbour, "neighbour_unresolved";
    /// Too many packets already wait for this neighbour.
    NeighbourQueueFull = Neighbour, "neighbour_queue_full";

    /// No bottom of stack within the depth that is looked at.
    LabelStackTooDeep = Mpls, "label_stack_too_deep";
    /// No entry for the label.
    LabelUnknown = Mpls, "label_unknown";
    /// A reserved label where it may not be.
    LabelReserved = Mpls, "label_reserved";
    /// The label's TTL ran out.
    LabelTtlExceeded = Mpls, "label_ttl_exceeded";
    /// What follows the stack is neither IPv4 nor IPv6, or not the one that the label promises.
    LabelPayload = Mpls, "label_payload";
    /// The packet ends before the bottom of its label stack.
    LabelStackTruncated = Mpls, "label_stack_truncated";
    /// The label of a VRF has another label beneath it.
    LabelNotBottom = Mpls, "label_not_bottom";
    /// A labelled packet from, or for, a port or tunnel that carries no labels.
    LabelsRefused = Mpls, "labels_refused";
    /// The label's entry says discard.
    LabelDiscard = Mpls, "label_discard";

    /// The GRE header has another version, an outdated flag, a wrong checksum or no end.
    GreMalformed = Tunnel, "gre_malformed";
    /// What the tunnel brought is nothing that it carries.
    TunnelPayload = Tunnel, "tunnel_payload";
    /// The packet was leaked from one VRF into another and would be into a third.
    VrfLoop = Fib, "vrf_loop";

    /// Larger than the egress port's MTU.
    PortMtu = Transmit, "port_mtu";
    /// The egress port is down.
    PortDown = Transmit, "port_down";
    /// The transmit ring stayed full.
    TransmitRingFull = Transmit, "transmit_ring_full";
    /// No free frame for a packet of our own making.
    NoFrame = Transmit, "no_frame";
    /// The headers do not fit before or behind the packet in its frame.
    NoHeadroom = Transmit, "no_headroom";
    /// The host did not take the packet from the TAP in time.
    PuntFull = Transmit, "punt_full";
    /// More ICMP errors than the limit allows: this one was not sent.
    IcmpRateLimited = Transmit, "icmp_rate_limited";
}

impl fmt::Display for DropReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_counters_are_dense() {
        let names: HashSet<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), DropReason::COUNT);
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert!(reason.help().len() > 10, "{reason}");
        }
    }
}
