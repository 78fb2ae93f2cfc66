//! What the XDP program and its loader share: the names, sizes and layouts of the maps.
//!
//! The program is loaded once per port, so each instance has maps of its own: a port's role, its local
//! addresses (which differ between VRFs), its sockets and its counters end with the instance.
//!
//! | map         | kind         | key                | value          | entries                        |
//! |-------------|--------------|--------------------|----------------|--------------------------------|
//! | `PORT`      | array        | 0                  | [`PortConfig`] | 1                              |
//! | `VLANS`     | hash         | [`VlanKey`]        | [`Role`]       | [`MAX_VLANS`]                  |
//! | `LOCAL_V4`  | hash         | address, 4 octets  | [`Local`]      | [`MAX_LOCAL_ADDRESSES`]        |
//! | `LOCAL_V6`  | hash         | address, 16 octets | [`Local`]      | [`MAX_LOCAL_ADDRESSES`]        |
//! | `SOCKETS`   | XSKMAP       | queue              | AF_XDP socket  | queues of the port             |
//! | `VERDICTS`  | per-CPU array| [`counter_index`]  | frames         | [`COUNTERS`] a queue           |

use core::mem::size_of;

/// Name of the program within the object.
pub const PROGRAM: &str = "penstock_xdp";
/// Name of the map that holds the [`PortConfig`].
pub const PORT: &str = "PORT";
/// Name of the map from [`VlanKey`] to the [`Role`] of that VLAN.
pub const VLANS: &str = "VLANS";
/// Name of the set of local IPv4 addresses, as they stand in a packet.
pub const LOCAL_V4: &str = "LOCAL_V4";
/// Name of the set of local IPv6 addresses.
pub const LOCAL_V6: &str = "LOCAL_V6";
/// Name of the map from queue to AF_XDP socket.
pub const SOCKETS: &str = "SOCKETS";
/// Name of the map of the counters, one copy per CPU.
pub const VERDICTS: &str = "VERDICTS";

/// Entries of [`VLANS`]: every identifier of one tag.
pub const MAX_VLANS: u32 = 4096;
/// Entries of each of the two sets of local addresses.
pub const MAX_LOCAL_ADDRESSES: u32 = 65_536;
/// Queues that the object is built for; the loader sizes the maps for the queues that the port has.
pub const MAX_QUEUES: u32 = 64;
/// Counters of one queue: one per [`Verdict`](crate::verdict::Verdict), and [`NO_SOCKET`].
pub const COUNTERS: usize = 16;
/// Index of the counter of frames to be redirected that met no socket in their queue's slot. It counts
/// beside the verdict's own counter, not instead of it.
pub const NO_SOCKET: usize = COUNTERS - 1;

/// Counters of one queue, indexed by `Verdict::index` and [`NO_SOCKET`].
pub type Counters = [u64; COUNTERS];

/// Where the map has a counter of a queue.
#[must_use]
#[inline(always)]
pub const fn counter_index(queue: u32, index: usize) -> u32 {
    queue * COUNTERS as u32 + index as u32
}

/// What a port, or one VLAN of it, is for: a set of flags.
///
/// The empty set takes nothing from the kernel.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Role(pub u32);

impl Role {
    /// Nothing is steered.
    pub const NONE: Self = Self(0);
    /// Plain side: packets for addresses that are not the gateway's own are taken to be forwarded.
    pub const PROTECTED: Self = Self(1);
    /// Tunnel side: ESP, ESP in UDP and what belongs to them are taken.
    pub const INTERNET: Self = Self(2);
    /// Labelled frames are taken.
    pub const MPLS: Self = Self(4);
    /// What comes to an end of a tunnel is taken: GRE, IP in IP, MPLS in IP and MPLS in UDP.
    pub const TUNNELS: Self = Self(8);

    /// The flags of either.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The flags that `other` does not have.
    #[must_use]
    #[inline(always)]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether every flag of `other` is set.
    #[must_use]
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any flag of `other` is set.
    #[must_use]
    #[inline(always)]
    pub const fn has_any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// What an address is to the gateway: a set of flags.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Local(pub u8);

impl Local {
    /// Somebody else's.
    pub const NONE: Self = Self(0);
    /// The gateway's own, or a broadcast address of its links.
    pub const OWN: Self = Self(1);
    /// The gateway's own, and an end of a GRE, IP or UDP tunnel.
    pub const TUNNEL_END: Self = Self(3);

    /// Whether it is the gateway's own.
    #[must_use]
    #[inline(always)]
    pub const fn is_own(self) -> bool {
        self.0 & 1 != 0
    }

    /// Whether it is an end of a GRE, IP or UDP tunnel.
    #[must_use]
    #[inline(always)]
    pub const fn is_tunnel_end(self) -> bool {
        self.0 & 2 != 0
    }
}

/// Configuration of a port: whose frames are taken, and which of them.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PortConfig {
    /// Role of the untagged frames.
    pub role: Role,
    /// The port's MAC address: frames to any other destination pass.
    pub mac: [u8; 6],
    /// Zero; keeps the size a multiple of four without hidden bytes.
    pub reserved: [u8; 2],
}

impl PortConfig {
    /// As it stands in the map, for a loader that may not look at memory itself.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; size_of::<Self>()] {
        let [r0, r1, r2, r3] = self.role.0.to_ne_bytes();
        let [m0, m1, m2, m3, m4, m5] = self.mac;
        let [z0, z1] = self.reserved;
        [r0, r1, r2, r3, m0, m1, m2, m3, m4, m5, z0, z1]
    }
}

/// The VLAN of a tagged frame: the identifiers of the outer tag and, with two tags, the inner one.
///
/// `inner` is zero where there is one tag. Frames tagged with identifier 0 alone (priority tags, IEEE 802.1Q
/// 9.6) count as untagged and are never looked up.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct VlanKey {
    /// Identifier in the outer, or only, tag.
    pub outer: u16,
    /// Identifier in the inner tag, or zero.
    pub inner: u16,
}

// The layouts are read by two compilers: a change here must be one of the object too.
const _: () = {
    assert!(size_of::<Role>() == 4);
    assert!(size_of::<PortConfig>() == 12);
    assert!(size_of::<VlanKey>() == 4);
    assert!(size_of::<Counters>() == 128);
};
