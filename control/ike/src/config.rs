//! Connections as the engine takes them: validated values, one [`Connection`] per peer or group of peers.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use southbound::{IpPrefix, Mode, ReplayWindow, TunnelId};

use crate::crypto::signature::RsaScheme;
use crate::payload::id::Identity;
use crate::payload::traffic_selector::TrafficSelector;
use crate::proposal::{EspProposal, IkeProposal};
use crate::proposal_text::{default_esp_proposals, default_ike_proposals};

/// Settings of a whole [`crate::Endpoint`].
#[derive(Debug, Clone)]
pub struct EndpointConfig {
    /// The port of first messages.
    pub port: u16,
    /// The port of messages with the non-ESP marker (RFC 3948).
    pub nat_t_port: u16,
    /// Half-open IKE SAs from which on every new peer must return a cookie (RFC 7296 section 2.6).
    pub cookie_threshold: usize,
    /// Half-open IKE SAs of one address from which on it must return a cookie.
    pub cookie_threshold_per_address: usize,
    /// Half-open IKE SAs of one address beyond which its requests are dropped.
    pub half_open_per_address: usize,
    /// Half-open IKE SAs beyond which all new requests are dropped.
    pub half_open_limit: usize,
    /// How long a peer may take to authenticate.
    pub half_open_timeout: Duration,
    /// IKE SAs beyond which new peers are dropped.
    pub ike_sa_limit: usize,
    /// Tunnel identifiers for children whose [`ChildConfig::tunnel`] is `None`, one for each peer's child.
    pub dynamic_tunnels: Range<u32>,
    /// Emit [`crate::Event::KeyLog`]: the keys of every IKE SA, for debugging only.
    pub key_log: bool,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            port: 500,
            nat_t_port: 4500,
            cookie_threshold: 30,
            cookie_threshold_per_address: 3,
            half_open_per_address: 50,
            half_open_limit: 50_000,
            half_open_timeout: Duration::from_secs(30),
            ike_sa_limit: 100_000,
            dynamic_tunnels: 0x8000_0000..0xffff_ffff,
            key_log: false,
        }
    }
}

/// How this side proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalAuth {
    /// With the preshared key found for the two identities.
    Psk,
    /// With the private key of the credential of this name, whose certificate is always sent.
    Certificate {
        /// Name in [`crate::Credentials`].
        credential: String,
        /// RSA padding.
        rsa_scheme: RsaScheme,
    },
    /// As an EAP peer by MS-CHAPv2, with the secret found for this user name.
    EapMschapv2 {
        /// The user name.
        user: String,
    },
    /// As an EAP peer by EAP-TLS, with the certificate of the credential of this name.
    EapTls {
        /// Name in [`crate::Credentials`].
        credential: String,
    },
}

impl LocalAuth {
    /// Whether this side authenticates by EAP.
    pub fn is_eap(&self) -> bool {
        matches!(self, Self::EapMschapv2 { .. } | Self::EapTls { .. })
    }
}

/// How the peer has to prove who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteAuth {
    /// With the preshared key found for the two identities.
    Psk,
    /// With a certificate that one of the trusted authorities vouches for and that bears the peer's identity.
    Certificate,
    /// By EAP MS-CHAPv2 against the users in [`crate::Credentials`]; this side authenticates first.
    EapMschapv2,
    /// By EAP-TLS (RFC 5216, RFC 9190) with a certificate that one of the trusted authorities vouches for; this side
    /// shows the certificate of its own authentication. The peer is then who its certificate says.
    EapTls,
    /// By whatever EAP method an authentication server runs with it: [`crate::Event::EapRequest`].
    EapRelay,
}

impl RemoteAuth {
    /// Whether the peer authenticates by EAP.
    pub fn is_eap(&self) -> bool {
        matches!(self, Self::EapMschapv2 | Self::EapTls | Self::EapRelay)
    }
}

/// Which identities of a peer are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteId {
    /// Whatever it proves.
    Any,
    /// Exactly this one.
    Exactly(Identity),
    /// A domain name below this one (`*.example.org` is `example.org` here).
    FqdnBelow(String),
    /// A mail address of this domain.
    EmailAt(String),
}

impl RemoteId {
    /// Whether `identity` is accepted.
    pub fn matches(&self, identity: &Identity) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(wanted) => wanted == identity,
            Self::FqdnBelow(domain) => match identity {
                Identity::Fqdn(name) => below(name, domain, '.'),
                _ => false,
            },
            Self::EmailAt(domain) => match identity {
                Identity::Email(address) => below(address, domain, '@'),
                _ => false,
            },
        }
    }

    /// The identity to ask for in IDr, where one is fixed.
    pub(crate) fn expected(&self) -> Option<&Identity> {
        match self {
            Self::Exactly(identity) => Some(identity),
            _ => None,
        }
    }
}

fn below(name: &str, domain: &str, separator: char) -> bool {
    let Some(split) = name.len().checked_sub(domain.len() + 1) else {
        return false;
    };
    match (
        name.get(..split),
        name.get(split..split + 1),
        name.get(split + 1..),
    ) {
        (Some(head), Some(middle), Some(tail)) => {
            !head.is_empty() && middle.starts_with(separator) && tail.eq_ignore_ascii_case(domain)
        }
        _ => false,
    }
}

impl std::fmt::Display for RemoteId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Exactly(identity) => write!(f, "{identity}"),
            Self::FqdnBelow(domain) => write!(f, "*.{domain}"),
            Self::EmailAt(domain) => write!(f, "*@{domain}"),
        }
    }
}

/// IKE fragmentation (RFC 7383).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragmentation {
    /// Neither announced nor used.
    Never,
    /// Announced; encrypted messages beyond this size are fragmented where the peer can.
    Above {
        /// Largest IP packet, headers included.
        packet_bytes: u16,
    },
}

/// Whether the IKE SA may come up without its first Child SA (RFC 6023).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Childless {
    /// Answered where the peer initiates so.
    Allow,
    /// Initiated so where the peer can.
    Prefer,
    /// Not announced.
    Never,
}

/// When to bring a child up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAction {
    /// Only on command, or when the peer asks.
    None,
    /// As soon as the connection is loaded, and again whenever it goes down.
    Start,
    /// On [`crate::Endpoint::acquire`].
    OnTraffic,
}

/// A lifetime: renewed at `renew_after` less a random part, given up at `give_up_after`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RekeyTime {
    /// When renewal starts at the latest.
    pub renew_after: Duration,
    /// Renewal starts earlier by a random part of this.
    pub fuzz: Duration,
    /// When the SA is closed if it could not be renewed.
    pub give_up_after: Duration,
}

impl RekeyTime {
    /// Renewal after `seconds` less up to a tenth, given up a tenth later.
    pub fn seconds(seconds: u64) -> Self {
        Self {
            renew_after: Duration::from_secs(seconds),
            fuzz: Duration::from_millis(seconds * 100),
            give_up_after: Duration::from_millis(seconds * 1100),
        }
    }
}

/// A use limit of a Child SA in bytes or packets: renewed at the first, stopped at the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UseLimit {
    /// Renewal starts here.
    pub renew_at: u64,
    /// The SA stops here.
    pub stop_at: u64,
}

/// Retransmission of requests (RFC 7296 section 2.4): tries at `first * base^n`, each varied by up to a tenth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retransmission {
    /// The first wait.
    pub first: Duration,
    /// Factor between waits.
    pub base: f64,
    /// Longest single wait.
    pub longest: Duration,
    /// Retransmissions before the peer counts as dead.
    pub tries: u32,
}

impl Default for Retransmission {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(2),
            base: 1.6,
            longest: Duration::from_secs(40),
            tries: 7,
        }
    }
}

/// One side of the traffic of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TsSide {
    /// Fixed selectors.
    Fixed(TrafficSelector),
    /// The outer address of that side, or its assigned virtual address.
    Dynamic,
}

/// A Child SA to negotiate or accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildConfig {
    /// Unique within its connection.
    pub name: String,
    /// The tunnel that its SAs carry; `None` takes one of the endpoint's dynamic ones for each peer.
    pub tunnel: Option<TunnelId>,
    /// Proposals in order of preference.
    pub proposals: Vec<EspProposal>,
    /// Tunnel or transport mode; a peer that does not agree to transport mode gets tunnel mode.
    pub mode: Mode,
    /// Our side of the traffic.
    pub local_ts: Vec<TsSide>,
    /// The peer's side.
    pub remote_ts: Vec<TsSide>,
    /// Renewal by time.
    pub rekey: RekeyTime,
    /// Renewal by bytes.
    pub bytes: Option<UseLimit>,
    /// Renewal by packets.
    pub packets: Option<UseLimit>,
    /// Inbound anti-replay window.
    pub replay_window: ReplayWindow,
    /// When to bring it up.
    pub start: StartAction,
    /// Child SAs to hold at once with the same selectors, for as many workers (RFC 9611); at least 1.
    pub resources: u16,
    /// Those beyond the first are made when workers ask for them ([`crate::Endpoint::acquire_for_worker`]), not at once.
    pub resources_on_demand: bool,
}

impl ChildConfig {
    /// A child with defaults between two sides.
    pub fn new(name: &str, tunnel: Option<TunnelId>, local_ts: Vec<TsSide>, remote_ts: Vec<TsSide>) -> Self {
        Self {
            name: name.to_owned(),
            tunnel,
            proposals: default_esp_proposals(),
            mode: Mode::Tunnel,
            local_ts,
            remote_ts,
            rekey: RekeyTime::seconds(3600),
            bytes: None,
            packets: None,
            replay_window: ReplayWindow::DEFAULT,
            start: StartAction::None,
            resources: 1,
            resources_on_demand: false,
        }
    }

    /// How many pairs there should be at once of our own accord, where the peer takes more than one or not.
    pub(crate) fn pairs_at_once(&self, peer_is_full: bool) -> usize {
        if peer_is_full || self.resources_on_demand {
            1
        } else {
            usize::from(self.resources.max(1))
        }
    }
}

/// A peer, or a group of peers, and what to do with them.
#[derive(Debug, Clone, PartialEq)]
pub struct Connection {
    /// Unique name.
    pub name: String,
    /// Local addresses it applies to; empty for all. The first is the one to initiate from.
    pub local_addresses: Vec<IpAddr>,
    /// Where `local_addresses` is empty, the addresses to initiate from: the first of the peer's family.
    pub source_addresses: Vec<IpAddr>,
    /// The peer's addresses and first ports, tried in turn; empty for a peer that only initiates.
    pub remote_addresses: Vec<SocketAddr>,
    /// Networks that a peer may initiate from; empty for those of `remote_addresses`, or any where that is empty.
    pub remote_networks: Vec<IpPrefix>,
    /// Our identity; `None` takes the certificate's, or our address.
    pub local_id: Option<Identity>,
    /// The peer's.
    pub remote_id: RemoteId,
    /// How we authenticate.
    pub local_auth: LocalAuth,
    /// How the peer does.
    pub remote_auth: RemoteAuth,
    /// Proposals in order of preference.
    pub proposals: Vec<IkeProposal>,
    /// Renewal of the IKE SA.
    pub rekey: RekeyTime,
    /// Renewal with authentication from the start, which wins over `rekey` where it comes first.
    pub reauthenticate_after: Option<Duration>,
    /// Liveness check after this long without a sign of the peer.
    pub dpd_delay: Option<Duration>,
    /// Retransmission of requests.
    pub retransmission: Retransmission,
    /// IKE fragmentation.
    pub fragmentation: Fragmentation,
    /// Announce and use MOBIKE (RFC 4555).
    pub mobike: bool,
    /// Always encapsulate ESP in UDP.
    pub force_udp_encapsulation: bool,
    /// Interval of NAT keepalives (RFC 3948 section 4).
    pub nat_keepalive: Duration,
    /// Childless initiation.
    pub childless: Childless,
    /// Announce INITIAL_CONTACT and close the peer's older SAs of the same identities.
    pub unique: bool,
    /// Our request window (RFC 7296 section 2.3): requests of the peer we process out of order; 1 is the default.
    pub window: u32,
    /// Name of the post-quantum preshared key to use (RFC 8784).
    pub ppk: Option<Ppk>,
    /// Addresses for peers that ask (configuration payload), each a network to draw from.
    pub pools: Vec<IpPrefix>,
    /// DNS servers for such peers.
    pub dns: Vec<IpAddr>,
    /// Networks to announce to such peers (INTERNAL_IP4_SUBNET); empty for all.
    pub announced_networks: Vec<IpPrefix>,
    /// Ask the peer for virtual addresses: IPv4, IPv6.
    pub request_addresses: (bool, bool),
    /// Gateway to send peers to instead (RFC 5685).
    pub redirect_to: Option<IpAddr>,
    /// What it carries.
    pub children: Vec<ChildConfig>,
}

/// A post-quantum preshared key to use (RFC 8784).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ppk {
    /// Its identifier, found in [`crate::Credentials`].
    pub id: Vec<u8>,
    /// Refuse peers that do not use it.
    pub required: bool,
}

impl Connection {
    /// A connection with defaults, authenticated by certificates.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            local_addresses: Vec::new(),
            source_addresses: Vec::new(),
            remote_addresses: Vec::new(),
            remote_networks: Vec::new(),
            local_id: None,
            remote_id: RemoteId::Any,
            local_auth: LocalAuth::Psk,
            remote_auth: RemoteAuth::Psk,
            proposals: default_ike_proposals(),
            rekey: RekeyTime::seconds(4 * 3600),
            reauthenticate_after: None,
            dpd_delay: Some(Duration::from_secs(30)),
            retransmission: Retransmission::default(),
            fragmentation: Fragmentation::Above { packet_bytes: 1280 },
            mobike: true,
            force_udp_encapsulation: false,
            nat_keepalive: Duration::from_secs(20),
            childless: Childless::Allow,
            unique: true,
            window: 1,
            ppk: None,
            pools: Vec::new(),
            dns: Vec::new(),
            announced_networks: Vec::new(),
            request_addresses: (false, false),
            redirect_to: None,
            children: Vec::new(),
        }
    }

    /// Whether a peer at `remote`, reached at `local`, may use this connection.
    pub(crate) fn accepts_addresses(&self, local: IpAddr, remote: IpAddr) -> bool {
        let local_fits = self.local_addresses.is_empty() || self.local_addresses.contains(&local);
        let remote_fits = if !self.remote_networks.is_empty() {
            self.remote_networks
                .iter()
                .any(|network| network.contains(remote))
        } else {
            self.remote_addresses.is_empty() || self.remote_addresses.iter().any(|a| a.ip() == remote)
        };
        local_fits && remote_fits
    }

    pub(crate) fn child(&self, name: &str) -> Option<&ChildConfig> {
        self.children.iter().find(|child| child.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_patterns() {
        let id = Identity::from_text;
        assert!(RemoteId::Any.matches(&id("x")));
        assert!(RemoteId::FqdnBelow("example.org".into()).matches(&id("a.b.Example.org")));
        for not in ["example.org", "badexample.org", ".example.org", "a@example.org"] {
            assert!(
                !RemoteId::FqdnBelow("example.org".into()).matches(&id(not)),
                "{not}"
            );
        }
        assert!(RemoteId::EmailAt("example.org".into()).matches(&id("a@example.org")));
        assert!(!RemoteId::EmailAt("example.org".into()).matches(&id("a@b.example.org")));
        assert!(!RemoteId::Exactly(id("192.0.2.1")).matches(&id("192.0.2.2")));
    }
}
