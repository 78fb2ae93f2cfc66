//! What becomes of a frame, and which counter says so.

use crate::maps::{COUNTERS, NO_SOCKET};

/// What becomes of a frame. Each verdict has a counter of its own per queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The kernel gets the frame, as if no program were there.
    Pass(Pass),
    /// The AF_XDP socket of the frame's queue gets it.
    Redirect(Redirect),
    /// It ends here.
    Drop(Drop),
}

/// Why a frame is left to the kernel.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pass {
    /// Nothing that Penstock handles on this port.
    NotOurs = 0,
    /// IKE on port 4500, told from ESP by its marker (RFC 3948 section 2.2), or an error about such.
    Ike = 1,
    /// A header that is needed for the decision is cut short or contradicts itself; the kernel counts it.
    Malformed = 2,
}

/// Why a frame is taken.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Redirect {
    /// ESP to a local address (RFC 4303).
    Esp = 3,
    /// ESP in UDP to a local address (RFC 3948).
    EspInUdp = 4,
    /// A fragment to a local address, of something that may be ours: ESP, UDP or a tunnel.
    Fragment = 5,
    /// An ICMP error to a local address about something that may be ours: path MTU and the like.
    IcmpError = 6,
    /// From a protected port, for an address beyond the gateway.
    Transit = 7,
    /// A labelled frame (RFC 3032).
    Mpls = 8,
    /// A tunnel of the MPLS services to a local address: GRE, IP in IP, MPLS in IP (RFC 4023) or in UDP (RFC 7510).
    Tunnel = 9,
}

/// Why a frame ends in the program.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drop {
    /// A NAT keepalive: a receiver is to ignore it and must not take it for a sign of life (RFC 3948
    /// sections 2.3 and 4), so it is ignored where that costs least.
    NatKeepalive = 10,
    /// Would be taken, but its source can be no host's: multicast, loopback or unspecified
    /// (RFC 1812 section 5.3.7, RFC 4291 sections 2.5.2, 2.5.3 and 2.7).
    MartianSource = 11,
}

impl Verdict {
    /// Every verdict, in the order of [`Self::index`].
    pub const ALL: [Self; 12] = [
        Self::Pass(Pass::NotOurs),
        Self::Pass(Pass::Ike),
        Self::Pass(Pass::Malformed),
        Self::Redirect(Redirect::Esp),
        Self::Redirect(Redirect::EspInUdp),
        Self::Redirect(Redirect::Fragment),
        Self::Redirect(Redirect::IcmpError),
        Self::Redirect(Redirect::Transit),
        Self::Redirect(Redirect::Mpls),
        Self::Redirect(Redirect::Tunnel),
        Self::Drop(Drop::NatKeepalive),
        Self::Drop(Drop::MartianSource),
    ];

    /// Which of the queue's [`Counters`](crate::maps::Counters) counts this verdict.
    #[must_use]
    #[inline(always)]
    pub const fn index(self) -> usize {
        match self {
            Self::Pass(why) => why as usize,
            Self::Redirect(why) => why as usize,
            Self::Drop(why) => why as usize,
        }
    }

    /// A short name, as metrics and listings show it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass(Pass::NotOurs) => "pass_not_ours",
            Self::Pass(Pass::Ike) => "pass_ike",
            Self::Pass(Pass::Malformed) => "pass_malformed",
            Self::Redirect(Redirect::Esp) => "redirect_esp",
            Self::Redirect(Redirect::EspInUdp) => "redirect_esp_in_udp",
            Self::Redirect(Redirect::Fragment) => "redirect_fragment",
            Self::Redirect(Redirect::IcmpError) => "redirect_icmp_error",
            Self::Redirect(Redirect::Transit) => "redirect_transit",
            Self::Redirect(Redirect::Mpls) => "redirect_mpls",
            Self::Redirect(Redirect::Tunnel) => "redirect_tunnel",
            Self::Drop(Drop::NatKeepalive) => "drop_nat_keepalive",
            Self::Drop(Drop::MartianSource) => "drop_martian_source",
        }
    }
}

// Each verdict has the counter of its place in `ALL`, and none that of `NO_SOCKET`.
const _: () = {
    let mut place = 0;
    while place < Verdict::ALL.len() {
        assert!(Verdict::ALL[place].index() == place);
        place += 1;
    }
    assert!(Verdict::ALL.len() <= NO_SOCKET && NO_SOCKET < COUNTERS);
};
