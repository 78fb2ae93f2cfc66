//! The shape of a configuration file: what serde accepts, before any meaning is checked. Unknown fields
//! are refused everywhere.

use serde::Deserialize;
use toml::Spanned;

use super::connection::{
    AuthoritySection, ConnectionSection, CredentialSection, IkeSection, RadiusSection, SecretSection,
};
use super::mpls::{ClassMapSection, FpmSection, LabelSection, LeakSection, RouteSection};

/// One file. Sections that stand once may stand in any one of the files.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) gateway: Option<Spanned<GatewaySection>>,
    pub(super) admin: Option<Spanned<AdminSection>>,
    pub(super) metrics: Option<Spanned<MetricsSection>>,
    #[serde(default)]
    pub(super) vrf: Vec<VrfSection>,
    #[serde(default)]
    pub(super) port: Vec<PortSection>,
    #[serde(default)]
    pub(super) tunnel: Vec<Spanned<TunnelSection>>,
    #[serde(default)]
    pub(super) policy: Vec<Spanned<PolicySection>>,
    pub(super) fpm: Option<Spanned<FpmSection>>,
    #[serde(default)]
    pub(super) route: Vec<RouteSection>,
    #[serde(default)]
    pub(super) label: Vec<LabelSection>,
    #[serde(default)]
    pub(super) class_map: Vec<ClassMapSection>,
    pub(super) ike: Option<Spanned<IkeSection>>,
    #[serde(default)]
    pub(super) authority: Vec<AuthoritySection>,
    #[serde(default)]
    pub(super) credential: Vec<CredentialSection>,
    #[serde(default)]
    pub(super) secret: Vec<SecretSection>,
    #[serde(default)]
    pub(super) radius: Vec<RadiusSection>,
    #[serde(default)]
    pub(super) connection: Vec<Spanned<ConnectionSection>>,
}

/// `[gateway]`: the process itself.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GatewaySection {
    pub(super) name: Option<Spanned<String>>,
    pub(super) dataplane_socket: Option<String>,
    pub(super) state_directory: Option<String>,
    pub(super) tap: Option<Spanned<String>>,
    pub(super) policy_default: Option<DefaultAction>,
}

/// What becomes of packets that no rule matches.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum DefaultAction {
    Bypass,
    Discard,
}

/// `[admin]`: the socket behind the command line.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AdminSection {
    pub(super) socket: Option<String>,
    pub(super) group: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) users: Vec<Spanned<String>>,
}

/// `[metrics]`: the Prometheus endpoint.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MetricsSection {
    pub(super) listen: Option<Spanned<String>>,
    pub(super) certificate_file: Option<Spanned<String>>,
    pub(super) key_file: Option<Spanned<String>>,
    pub(super) user: Option<Spanned<String>>,
    pub(super) password_file: Option<Spanned<String>>,
    pub(super) max_tunnel_series: Option<Spanned<u32>>,
}

/// `[[vrf]]`: a routing table with a name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VrfSection {
    pub(super) name: Spanned<String>,
    pub(super) table: Spanned<u32>,
    pub(super) policy_default: Option<DefaultAction>,
    /// The label that others reach the whole of it by.
    pub(super) label: Option<Spanned<u32>>,
    /// What of other tables it reaches.
    #[serde(default)]
    pub(super) leak: Vec<LeakSection>,
    /// Tables that routes told by FRR may lead into.
    #[serde(default)]
    pub(super) import: Vec<Spanned<String>>,
}

/// `[[port]]`: an interface under the dataplane.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PortSection {
    pub(super) interface: Spanned<String>,
    pub(super) role: Role,
    pub(super) vrf: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) xdp: Xdp,
    #[serde(default)]
    pub(super) require_zero_copy: bool,
    #[serde(default)]
    pub(super) mpls: bool,
    pub(super) label_space: Option<Spanned<u32>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    Protected,
    Internet,
    Trunk,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Xdp {
    #[default]
    Auto,
    Driver,
    Generic,
}

/// `[[tunnel]]`: a tunnel whose SAs are keyed by hand.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TunnelSection {
    pub(super) name: Spanned<String>,
    #[serde(default)]
    pub(super) mode: TunnelMode,
    #[serde(default)]
    pub(super) encapsulation: TunnelEncapsulation,
    /// The key of GRE.
    pub(super) key: Option<Spanned<u32>>,
    /// The checksum of GRE.
    #[serde(default)]
    pub(super) checksum: bool,
    #[serde(default)]
    pub(super) mpls: bool,
    pub(super) label_space: Option<Spanned<u32>>,
    pub(super) local: Spanned<String>,
    pub(super) remote: Spanned<String>,
    pub(super) local_ts: Option<Vec<Spanned<String>>>,
    pub(super) remote_ts: Option<Vec<Spanned<String>>>,
    pub(super) routes: Option<Vec<Spanned<String>>>,
    pub(super) host_routes: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    pub(super) policy: bool,
    pub(super) priority: Option<Spanned<u32>>,
    pub(super) vrf: Option<Spanned<String>>,
    pub(super) outer_vrf: Option<Spanned<String>>,
    pub(super) udp_encapsulation: Option<UdpEncapsulation>,
    pub(super) dscp: Option<Spanned<WordOrNumber>>,
    #[serde(default)]
    pub(super) ecn: Ecn,
    #[serde(default)]
    pub(super) df: Df,
    pub(super) ttl: Option<Spanned<WordOrNumber>>,
    pub(super) mtu: Option<Spanned<u16>>,
    #[serde(default = "yes")]
    pub(super) clamp_mss: bool,
    #[serde(default)]
    pub(super) sa: Vec<Spanned<SaSection>>,
}

fn yes() -> bool {
    true
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum TunnelMode {
    #[default]
    Tunnel,
    Transport,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum TunnelEncapsulation {
    #[default]
    Esp,
    Ip,
    Gre,
    Udp,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Ecn {
    #[default]
    Normal,
    Compatibility,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Df {
    #[default]
    Copy,
    Set,
    Clear,
}

/// A setting that is a number or the word for "as the inner packet has it".
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "invalid value: expected a word or a number")]
pub(super) enum WordOrNumber {
    Number(i64),
    Word(String),
}

/// `udp_encapsulation = { local_port = 4500, remote_port = 4500 }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UdpEncapsulation {
    pub(super) local_port: Option<Spanned<u16>>,
    pub(super) remote_port: Option<Spanned<u16>>,
    #[serde(default)]
    pub(super) checksum: bool,
}

/// `[[tunnel.sa]]`: a pair of manual SAs. The first pair of a tunnel sends; all of them receive.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SaSection {
    pub(super) spi_in: Spanned<u32>,
    pub(super) spi_out: Spanned<u32>,
    pub(super) algorithm: Spanned<String>,
    pub(super) key_in_file: Spanned<String>,
    pub(super) key_out_file: Spanned<String>,
    #[serde(default)]
    pub(super) esn: bool,
    pub(super) replay_window: Option<Spanned<u32>>,
    pub(super) soft_lifetime: Option<LifetimeSection>,
    pub(super) hard_lifetime: Option<LifetimeSection>,
    #[serde(default)]
    pub(super) accept_nonce_reuse_risk: bool,
}

/// `soft_lifetime = { bytes = .., packets = .., seconds = .. }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LifetimeSection {
    pub(super) bytes: Option<Spanned<u64>>,
    pub(super) packets: Option<Spanned<u64>>,
    pub(super) seconds: Option<Spanned<u64>>,
}

/// `[[policy]]`: a rule of the SPD.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicySection {
    pub(super) name: Spanned<String>,
    pub(super) action: Spanned<Action>,
    pub(super) tunnel: Option<Spanned<String>>,
    pub(super) priority: Option<Spanned<u32>>,
    pub(super) vrf: Option<Spanned<String>>,
    pub(super) local_ts: Vec<Spanned<String>>,
    pub(super) remote_ts: Vec<Spanned<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action {
    Protect,
    Bypass,
    Discard,
}
