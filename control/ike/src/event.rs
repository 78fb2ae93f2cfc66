//! What an endpoint tells its driver.

use std::net::SocketAddr;

use southbound::{TunnelId, Update};

use crate::exchange_tally::ExchangeTallies;
use crate::payload::id::Identity;
use crate::payload::traffic_selector::TrafficSelector;

/// Names an IKE SA within its endpoint, over its whole life but not over rekeys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SaId(pub u64);

/// A datagram to send. On the NAT traversal port the non-ESP marker is already in front (RFC 3948 section 2.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// The payload of the datagram.
    pub bytes: Vec<u8>,
}

/// A Child SA pair as it is shown to operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildSummary {
    /// Name in the configuration.
    pub name: String,
    /// The tunnel it carries.
    pub tunnel: TunnelId,
    /// Our inbound SPI, which names the pair.
    pub spi_in: u32,
    /// The peer's inbound SPI.
    pub spi_out: u32,
    /// Algorithms, in the notation of the configuration.
    pub suite: String,
    /// Our side of the traffic.
    pub local_ts: Vec<TrafficSelector>,
    /// The peer's side.
    pub remote_ts: Vec<TrafficSelector>,
    /// ESP travels in UDP.
    pub udp: bool,
    /// Which of several pairs for the same traffic it is (RFC 9611): 0 is for all workers, each further one for the
    /// worker of the number before.
    pub resource: Option<u16>,
}

/// Something that happened, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Tell the dataplane: an SA to install or remove, or the outbound SA to use. The order is that of
    /// make-before-break and must be kept.
    Dataplane(Update),
    /// An IKE SA is established and both ends are authenticated.
    IkeUp {
        /// The SA.
        sa: SaId,
        /// Its connection.
        connection: String,
        /// Who the peer is.
        remote_id: Identity,
        /// Where it is.
        remote: SocketAddr,
        /// Algorithms, in the notation of the configuration.
        suite: String,
        /// Addresses assigned to the peer, or to us where we asked.
        virtual_addresses: Vec<std::net::IpAddr>,
    },
    /// An IKE SA took over from another.
    IkeRekeyed {
        /// The old SA.
        old: SaId,
        /// The new one.
        new: SaId,
        /// Its connection.
        connection: String,
    },
    /// An IKE SA is gone.
    IkeDown {
        /// The SA.
        sa: SaId,
        /// Its connection.
        connection: String,
        /// Why.
        reason: String,
    },
    /// A Child SA pair exists; the updates that install it follow.
    ChildUp {
        /// Its IKE SA.
        sa: SaId,
        /// Its connection.
        connection: String,
        /// The pair.
        child: ChildSummary,
    },
    /// A Child SA pair took over from another; the updates that install it follow.
    ChildRekeyed {
        /// Its IKE SA.
        sa: SaId,
        /// Its connection.
        connection: String,
        /// The inbound SPI of the old pair.
        old_spi_in: u32,
        /// The new pair.
        child: ChildSummary,
    },
    /// A Child SA pair is gone; the updates that remove it came before.
    ChildDown {
        /// Its IKE SA.
        sa: SaId,
        /// Its connection.
        connection: String,
        /// Name in the configuration.
        child: String,
        /// The tunnel it carried.
        tunnel: TunnelId,
        /// Its inbound SPI.
        spi_in: u32,
    },
    /// A negotiation failed; the line tells what was offered and expected.
    Failed {
        /// The connection, where one was found.
        connection: Option<String>,
        /// The peer.
        remote: SocketAddr,
        /// One line for the operator.
        reason: String,
    },
    /// The peer of an IKE SA is now elsewhere, as an authenticated message said.
    PeerMoved {
        /// The SA.
        sa: SaId,
        /// Where it is now.
        remote: SocketAddr,
    },
    /// A packet of a peer's EAP authentication for the authentication server (as RADIUS, RFC 3579): the driver passes it
    /// on, and answers by [`crate::Endpoint::answer_eap`]. The peer's repetitions are ignored meanwhile; the limit on
    /// half-open SAs ends a wait that is too long.
    EapRequest {
        /// The SA, which the answer names.
        sa: SaId,
        /// Its connection.
        connection: String,
        /// Our address and port.
        local: SocketAddr,
        /// The peer's, unauthenticated.
        remote: SocketAddr,
        /// Who the peer says it is in IKE.
        peer: Identity,
        /// Who it says it is in EAP.
        user: String,
        /// The EAP packet, whole. Some methods have a password in it (EAP-GTC), so it is treated like one.
        packet: southbound::KeyMaterial,
    },
    /// A line for a key log file in Wireshark's `ikev2_decryption_table` format; only where the configuration asks.
    KeyLog(String),
}

/// What an authentication server says to [`Event::EapRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EapAnswer {
    /// A further EAP request for the peer (RADIUS: Access-Challenge with its EAP-Message).
    Continue(Vec<u8>),
    /// The peer is authenticated (RADIUS: Access-Accept).
    Success {
        /// EAP-Success, where the server sent one; made up otherwise.
        packet: Option<Vec<u8>>,
        /// The master session key: for RADIUS the decrypted MS-MPPE-Recv-Key, then the MS-MPPE-Send-Key (RFC 2548).
        msk: southbound::KeyMaterial,
        /// Who the peer is, where the server says so (User-Name); else what it said in EAP.
        user: Option<String>,
        /// Addresses for the peer instead of those of the pools (Framed-IP-Address, Framed-IPv6-Address).
        addresses: Vec<std::net::IpAddr>,
    },
    /// The peer is refused (RADIUS: Access-Reject), or the server cannot be reached.
    Failure {
        /// EAP-Failure, where the server sent one; made up otherwise.
        packet: Option<Vec<u8>>,
        /// One line for the operator.
        reason: String,
    },
}

/// Counters of an endpoint, never reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Datagrams that were not IKE messages, or malformed before authentication.
    pub malformed: u64,
    /// Messages for SAs that do not exist.
    pub unknown_spi: u64,
    /// Messages whose integrity check failed.
    pub integrity_failed: u64,
    /// Messages with a message ID outside the window.
    pub out_of_window: u64,
    /// Retransmitted requests that were answered from the cache.
    pub retransmits_answered: u64,
    /// Requests that we retransmitted.
    pub retransmits_sent: u64,
    /// Cookies demanded.
    pub cookies_sent: u64,
    /// Requests dropped by the limits on half-open SAs.
    pub half_open_refused: u64,
    /// Fragments dropped for malformed numbers, size or budget.
    pub fragments_dropped: u64,
    /// IKE SAs established.
    pub established: u64,
    /// Authentications that failed.
    pub authentication_failed: u64,
    /// First requests, and others before authentication, with an unknown critical payload.
    pub unknown_critical: u64,
    /// Cookies returned that were not ours, or too old.
    pub cookies_invalid: u64,
    /// First requests that no connection is for.
    pub no_connection: u64,
    /// Messages whose unprotected answer the limit on such answers kept back.
    pub rate_limited: u64,
    /// Peers that were given up because they did not answer.
    pub dpd_timeouts: u64,
    /// Fragments sent, first transmissions only.
    pub fragments_sent: u64,
    /// Fragments received, their integrity verified.
    pub fragments_received: u64,
    /// IKE SAs renewed, by who asked: we, the peer.
    pub ike_rekeys: [u64; 2],
    /// Child SAs renewed, likewise.
    pub child_rekeys: [u64; 2],
    /// Renewals of an IKE SA that met one by the peer (RFC 7296 section 2.8.2).
    pub ike_rekey_collisions: u64,
    /// Renewals of a Child SA that met one by the peer (RFC 7296 section 2.8.1).
    pub child_rekey_collisions: u64,
    /// Exchanges by type and outcome.
    pub exchanges: ExchangeTallies,
}
