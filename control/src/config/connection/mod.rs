//! Connections: what is negotiated by IKEv2, with whom, and what proves who is who.

mod child;
mod period;
mod secret;
mod section;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ike::{
    Childless, Fragmentation, Identity, LocalAuth, Ppk, RekeyTime, RemoteAuth, RemoteId, Retransmission,
    RsaScheme, default_ike_proposals,
};
use southbound::{IpPrefix, KeyMaterial};
use toml::Spanned;

pub(super) use section::{
    AuthoritySection, ConnectionSection, CredentialSection, IkeSection, RadiusSection, SecretSection,
};

use self::section::{Auth, ChildlessWord, Family, RekeySection, RetransmissionSection, RsaPadding};
use super::file::File;
use super::gateway::Builder;
use super::source::Source;
use super::tunnel::Tunnel;

/// The port of first messages (RFC 7296 section 2).
const IKE_PORT: u16 = 500;

/// What concerns all connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IkeSettings {
    /// Half-open IKE SAs from which on every new peer must return a cookie.
    pub cookie_threshold: usize,
    /// Half-open IKE SAs beyond which all new requests are dropped.
    pub half_open_limit: usize,
    /// Half-open IKE SAs of one address beyond which its requests are dropped.
    pub half_open_per_address: usize,
    /// IKE SAs beyond which new peers are dropped.
    pub sa_limit: usize,
    /// Where every key is written in clear, for debugging.
    pub key_log_directory: Option<PathBuf>,
}

impl Default for IkeSettings {
    fn default() -> Self {
        let engine = ike::EndpointConfig::default();
        Self {
            cookie_threshold: engine.cookie_threshold,
            half_open_limit: engine.half_open_limit,
            half_open_per_address: engine.half_open_per_address,
            sa_limit: engine.ike_sa_limit,
            key_log_directory: None,
        }
    }
}

/// A RADIUS server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RadiusServer {
    /// Where it is.
    pub address: SocketAddr,
    /// What it shares with us.
    pub secret: KeyMaterial,
    /// How long an answer may take before the request is repeated.
    pub timeout: Duration,
    /// How often it is asked before the next server is.
    pub tries: u8,
}

/// Where a peer is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    /// At an address.
    Address(SocketAddr),
    /// Wherever this name leads at the moment.
    Name(String, u16),
}

/// A connection, complete but for addresses behind names and the numbers of its tunnels.
#[derive(Clone, Debug, PartialEq)]
pub struct Connection {
    /// As the engine takes it.
    pub engine: ike::Connection,
    /// The peer's gateways, tried in turn; none for a peer that only initiates.
    pub remotes: Vec<Remote>,
    /// The tunnels of its children, in their order.
    pub tunnels: Vec<ChildTunnel>,
}

/// The tunnel of a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildTunnel {
    /// Its description; of a tunnel for each peer, the pattern.
    pub tunnel: Tunnel,
    /// There is one for each peer, which appears and goes with it.
    pub is_per_peer: bool,
    /// Its routes and rules are known only once its selectors are negotiated.
    pub follows_selectors: bool,
}

impl Builder {
    /// What concerns all connections, and what proves identities: before the connections.
    pub(super) fn secrets(&mut self, source: &Source, file: &File) {
        if let Some(section) = &file.ike
            && self.take(source, "section", "ike", section.span())
        {
            self.settings(source, section.get_ref());
        }
        for section in &file.authority {
            self.authority(source, section);
        }
        for section in &file.credential {
            self.credential(source, section);
        }
        for section in &file.secret {
            self.secret(source, section);
        }
        for section in &file.radius {
            self.radius(source, section);
        }
    }

    fn settings(&mut self, source: &Source, section: &IkeSection) {
        let bounded = |value: &Option<Spanned<u32>>, default: usize| {
            let value = value
                .as_ref()
                .and_then(|value| source.within(value, 1..=10_000_000));
            value.map_or(default, |value| value as usize)
        };
        let settings = &mut self.gateway.ike;
        settings.cookie_threshold = bounded(&section.cookie_threshold, settings.cookie_threshold);
        settings.half_open_limit = bounded(&section.half_open_limit, settings.half_open_limit);
        settings.half_open_per_address =
            bounded(&section.half_open_per_address, settings.half_open_per_address);
        settings.sa_limit = bounded(&section.sa_limit, settings.sa_limit);
        settings.key_log_directory = section
            .key_log_directory
            .as_ref()
            .map(|path| source.resolve(path));
    }

    /// The connections and their tunnels.
    pub(super) fn connections(&mut self, source: &Source, file: &File) {
        for section in &file.connection {
            let section = section.get_ref();
            let named = self.name(source, "connection", &section.name);
            let Some(mut connection) = self.connection(source, section) else {
                continue;
            };
            if section.child.is_empty() {
                source.problem(
                    section.name.span(),
                    "found a connection without [[connection.child]]: expected the traffic that it is for",
                );
            }
            for child in &section.child {
                self.child(source, section, child.get_ref(), &mut connection);
            }
            if named {
                let fixed = connection.tunnels.iter().filter(|child| !child.is_per_peer);
                self.gateway
                    .tunnels
                    .extend(fixed.map(|child| child.tunnel.clone()));
                self.gateway.connections.push(connection);
            }
        }
    }

    fn connection(&mut self, source: &Source, section: &ConnectionSection) -> Option<Connection> {
        let mut engine = ike::Connection::new(section.name.get_ref());
        engine.local_addresses = addresses(source, &section.local);
        let remotes: Vec<Remote> = section
            .remote
            .iter()
            .filter(|text| text.get_ref() != "%any")
            .filter_map(|text| remote(source, text))
            .collect();
        engine.remote_networks = prefixes(source, &section.remote_networks);
        if section.remote.iter().any(|text| text.get_ref() == "%any") && !remotes.is_empty() {
            engine.remote_networks = ["0.0.0.0/0", "::/0"]
                .iter()
                .filter_map(|all| all.parse().ok())
                .collect();
        }
        engine.local_id = section.local_id.as_ref().and_then(|id| identity(source, id));
        engine.remote_id = section
            .remote_id
            .as_ref()
            .and_then(|id| remote_id(source, id))
            .unwrap_or(RemoteId::Any);
        self.authentication(source, section, &mut engine);
        if let Some(list) = &section.proposals {
            engine.proposals = proposals(source, list, default_ike_proposals);
        }
        if let Some(rekey) = &section.rekey {
            engine.rekey = rekey_time(source, rekey, engine.rekey);
            for (limit, name) in [(&rekey.bytes, "bytes"), (&rekey.packets, "packets")] {
                if let Some(limit) = limit {
                    source.problem(
                        limit.span(),
                        format!(
                            "found {name} in the lifetime of an IKE SA: expected it in a [[connection.child]]"
                        ),
                    );
                }
            }
        }
        engine.reauthenticate_after = section
            .reauthenticate_after
            .as_ref()
            .and_then(|period| period::read(source, period, 1));
        if let Some(delay) = &section.dpd {
            engine.dpd_delay = period::read(source, delay, 0).filter(|delay| !delay.is_zero());
        }
        if let Some(retransmission) = &section.retransmission {
            engine.retransmission = retransmission_of(source, retransmission);
        }
        engine.fragmentation = match (section.fragmentation, &section.fragment_bytes) {
            (Some(false), _) => Fragmentation::Never,
            // RFC 7383 section 2.5.1: what every path takes, and what a link takes.
            (_, Some(bytes)) => Fragmentation::Above {
                packet_bytes: source.within(bytes, 576..=9000).unwrap_or(1280),
            },
            (_, None) => engine.fragmentation,
        };
        engine.mobike = section.mobike.unwrap_or(engine.mobike);
        engine.force_udp_encapsulation = section.force_udp_encapsulation;
        if let Some(interval) = &section.nat_keepalive {
            engine.nat_keepalive = period::read(source, interval, 1).unwrap_or(engine.nat_keepalive);
        }
        engine.childless = match section.childless {
            None | Some(ChildlessWord::Allow) => Childless::Allow,
            Some(ChildlessWord::Prefer) => Childless::Prefer,
            Some(ChildlessWord::Never) => Childless::Never,
        };
        engine.pools = prefixes(source, &section.pools);
        engine.unique = section.unique.unwrap_or(engine.unique);
        if let Some(window) = &section.window {
            engine.window = source.within(window, 1..=64).unwrap_or(1);
        }
        engine.ppk = section.ppk.as_ref().map(|id| Ppk {
            id: id.get_ref().as_bytes().to_vec(),
            required: section.ppk_required,
        });
        if let Some(id) = &section.ppk
            && !self.taken.contains_key(&("ppk", id.get_ref().clone()))
        {
            source.problem(
                id.span(),
                format!(
                    "found ppk {:?}: expected the id of a [[secret]] of kind \"ppk\"",
                    id.get_ref()
                ),
            );
        }
        engine.dns = addresses(source, &section.dns);
        engine.announced_networks = prefixes(source, &section.split_networks);
        let asks = |family| {
            section
                .request_addresses
                .iter()
                .any(|asked| *asked.get_ref() == family)
        };
        engine.request_addresses = (asks(Family::Ipv4), asks(Family::Ipv6));
        engine.redirect_to = section
            .redirect_to
            .as_ref()
            .and_then(|text| address(source, text));
        Some(Connection {
            engine,
            remotes,
            tunnels: Vec::new(),
        })
    }

    fn authentication(&mut self, source: &Source, section: &ConnectionSection, engine: &mut ike::Connection) {
        let Some(local) = section.local_auth.as_ref().or(section.auth.as_ref()) else {
            source.problem(
                section.name.span(),
                "found a connection without auth: expected \"psk\", \"certificate\", \"eap-mschapv2\", \"eap-tls\" or \"eap-radius\"",
            );
            return;
        };
        let remote = section
            .remote_auth
            .as_ref()
            .or(section.auth.as_ref())
            .unwrap_or(local);
        engine.local_auth = match local.get_ref() {
            Auth::Psk => LocalAuth::Psk,
            Auth::Certificate => LocalAuth::Certificate {
                credential: self.credential_of(source, section, local.span()),
                rsa_scheme: match section.rsa_padding {
                    RsaPadding::Pss => RsaScheme::default(),
                    RsaPadding::Pkcs1 => RsaScheme::Pkcs1,
                    RsaPadding::PssOrSha1 => RsaScheme::PssOrSha1,
                },
            },
            Auth::EapRadius => {
                source.problem(
                    local.span(),
                    "found \"eap-radius\" for this side: expected it as remote_auth, and \"certificate\" as local_auth",
                );
                return;
            }
            Auth::EapTls => LocalAuth::EapTls {
                credential: self.credential_of(source, section, local.span()),
            },
            Auth::EapMschapv2 => match &section.eap_user {
                Some(user) => LocalAuth::EapMschapv2 {
                    user: user.get_ref().clone(),
                },
                None => {
                    source.problem(
                        local.span(),
                        "found \"eap-mschapv2\" without eap_user: expected the user's name beside it",
                    );
                    return;
                }
            },
        };
        if *remote.get_ref() == Auth::EapRadius && self.gateway.radius.is_empty() {
            source.problem(
                remote.span(),
                "found \"eap-radius\" without a server: expected a [[radius]] table",
            );
        }
        engine.remote_auth = match remote.get_ref() {
            Auth::Psk => RemoteAuth::Psk,
            Auth::Certificate => RemoteAuth::Certificate,
            Auth::EapMschapv2 => RemoteAuth::EapMschapv2,
            Auth::EapTls => RemoteAuth::EapTls,
            Auth::EapRadius => RemoteAuth::EapRelay,
        };
        if let Some(file) = &section.psk_file {
            let mut identities: Vec<Identity> = match &engine.remote_id {
                RemoteId::Exactly(identity) => vec![identity.clone()],
                RemoteId::Any => {
                    let addresses = section.remote.iter();
                    let addresses = addresses.filter_map(|text| text.get_ref().parse().ok());
                    addresses.map(Identity::Address).collect()
                }
                // Patterns name nobody in particular.
                RemoteId::FqdnBelow(_) | RemoteId::EmailAt(_) => Vec::new(),
            };
            if !identities.is_empty() {
                identities.extend(engine.local_id.clone());
            }
            self.preshared(source, file, identities);
        }
        if engine.remote_auth == RemoteAuth::Certificate && engine.remote_id == RemoteId::Any {
            self.gateway.notes.push(format!(
                "{}: connection {:?} has no remote_id: every certificate of the authorities is accepted",
                source.place(section.name.span()),
                engine.name
            ));
        }
    }

    fn credential_of(
        &self,
        source: &Source,
        section: &ConnectionSection,
        span: std::ops::Range<usize>,
    ) -> String {
        let known = |name: &str| self.taken.contains_key(&("credential", name.to_owned()));
        match &section.credential {
            Some(name) if known(name.get_ref()) => name.get_ref().clone(),
            Some(name) => {
                source.problem(
                    name.span(),
                    format!(
                        "found credential {:?}: expected the name of a [[credential]] table",
                        name.get_ref()
                    ),
                );
                String::new()
            }
            None => {
                source.problem(span, "found \"certificate\" without a credential: expected the name of a [[credential]] table, as credential = \"...\"");
                String::new()
            }
        }
    }
}

/// An identity as [`Identity::from_text`] reads it.
fn identity(source: &Source, text: &Spanned<String>) -> Option<Identity> {
    match text.get_ref().parse() {
        Ok(identity) => Some(identity),
        Err(error) => {
            source.problem(text.span(), format!("found {:?}: {error}", text.get_ref()));
            None
        }
    }
}

fn remote_id(source: &Source, text: &Spanned<String>) -> Option<RemoteId> {
    let word = text.get_ref();
    if word == "%any" {
        Some(RemoteId::Any)
    } else if let Some(domain) = word.strip_prefix("*.") {
        Some(RemoteId::FqdnBelow(domain.to_owned()))
    } else if let Some(domain) = word.strip_prefix("*@") {
        Some(RemoteId::EmailAt(domain.to_owned()))
    } else {
        identity(source, text).map(RemoteId::Exactly)
    }
}

/// Text as one of `proposals`; the word "default" stands for those of a list that is absent.
fn proposals<P: std::str::FromStr<Err = ike::Error>>(
    source: &Source,
    list: &[Spanned<String>],
    default: fn() -> Vec<P>,
) -> Vec<P> {
    let mut out = Vec::new();
    for text in list {
        match text.get_ref().as_str() {
            "default" => out.extend(default()),
            word => match word.parse() {
                Ok(proposal) => out.push(proposal),
                Err(error) => source.problem(text.span(), format!("found {word:?}: {error}")),
            },
        }
    }
    if out.is_empty() {
        return default();
    }
    out
}

/// A lifetime in time: its parts default to a tenth of the whole.
fn rekey_time(source: &Source, section: &RekeySection, default: RekeyTime) -> RekeyTime {
    let Some(after) = section
        .after
        .as_ref()
        .and_then(|after| period::read(source, after, 1))
    else {
        return default;
    };
    let part = |value: &Option<Spanned<section::Period>>| match value {
        Some(value) => period::read(source, value, 0).unwrap_or_default(),
        None => after / 10,
    };
    let fuzz = part(&section.fuzz);
    if let (Some(value), true) = (&section.fuzz, fuzz >= after) {
        source.problem(
            value.span(),
            "found a fuzz as long as the lifetime: expected a part of it",
        );
    }
    RekeyTime {
        renew_after: after,
        fuzz,
        give_up_after: after + part(&section.margin).max(Duration::from_secs(1)),
    }
}

fn retransmission_of(source: &Source, section: &RetransmissionSection) -> Retransmission {
    let default = Retransmission::default();
    let first = section
        .first_ms
        .as_ref()
        .and_then(|value| source.within(value, 10..=60_000));
    let base = section
        .base
        .as_ref()
        .and_then(|value| source.within(value, 1.0..=10.0));
    let tries = section
        .tries
        .as_ref()
        .and_then(|value| source.within(value, 1..=100));
    let longest = section
        .longest
        .as_ref()
        .and_then(|value| period::read(source, value, 1));
    Retransmission {
        first: first.map_or(default.first, Duration::from_millis),
        base: base.unwrap_or(default.base),
        longest: longest.unwrap_or(default.longest),
        tries: tries.unwrap_or(default.tries),
    }
}

/// An address, a name, or either with a port: `[2001:db8::1]:4500`, `gw.example.org:4500`.
fn remote(source: &Source, text: &Spanned<String>) -> Option<Remote> {
    let word = text.get_ref();
    if let Ok(address) = word.parse::<IpAddr>() {
        return Some(Remote::Address(SocketAddr::new(address, IKE_PORT)));
    }
    if let Ok(address) = word.parse::<SocketAddr>() {
        return Some(Remote::Address(address));
    }
    let (name, port) = match word.rsplit_once(':') {
        Some((name, port)) => (name, port.parse().ok()),
        None => (word.as_str(), Some(IKE_PORT)),
    };
    let is_name = !name.is_empty()
        && name.len() <= 253
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        && name.bytes().any(|byte| byte.is_ascii_alphabetic());
    match port.filter(|port| is_name && *port != 0) {
        Some(port) => Some(Remote::Name(name.to_owned(), port)),
        None => {
            source.problem(
                text.span(),
                format!(
                    "found {word:?}: expected an address, a host's name, either with a port, or \"%any\""
                ),
            );
            None
        }
    }
}

fn address(source: &Source, text: &Spanned<String>) -> Option<IpAddr> {
    source.value(text, "an IPv4 or IPv6 address")
}

fn addresses(source: &Source, list: &[Spanned<String>]) -> Vec<IpAddr> {
    list.iter()
        .filter(|text| text.get_ref() != "%any")
        .filter_map(|text| address(source, text))
        .collect()
}

fn prefixes(source: &Source, list: &[Spanned<String>]) -> Vec<IpPrefix> {
    super::tunnel::prefixes(source, Some(list))
}
