//! The shape of `[ike]`, `[[authority]]`, `[[credential]]`, `[[secret]]` and `[[connection]]`.

use serde::Deserialize;
use toml::Spanned;

use crate::config::file::{Df, Ecn, TunnelMode, WordOrNumber};

/// `[ike]`: what concerns all connections.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct IkeSection {
    pub(super) cookie_threshold: Option<Spanned<u32>>,
    pub(super) half_open_limit: Option<Spanned<u32>>,
    pub(super) half_open_per_address: Option<Spanned<u32>>,
    pub(super) sa_limit: Option<Spanned<u32>>,
    pub(super) key_log_directory: Option<String>,
}

/// `[[authority]]`: certificates that vouch for peers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct AuthoritySection {
    pub(super) certificate_file: Spanned<String>,
    #[serde(default)]
    pub(super) revocation_files: Vec<Spanned<String>>,
}

/// `[[credential]]`: a certificate of ours and its private key.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct CredentialSection {
    pub(super) name: Spanned<String>,
    pub(super) certificate_file: Spanned<String>,
    pub(super) key_file: Spanned<String>,
}

/// `[[secret]]`: what both ends know.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct SecretSection {
    pub(super) kind: SecretKind,
    #[serde(default)]
    pub(super) id: Vec<Spanned<String>>,
    pub(super) file: Spanned<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum SecretKind {
    Psk,
    Eap,
    Ppk,
}

/// `[[radius]]`: a server that authenticates EAP peers; those that follow are asked where it does not answer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RadiusSection {
    pub(super) server: Spanned<String>,
    pub(super) secret_file: Spanned<String>,
    pub(super) timeout: Option<Spanned<Period>>,
    pub(super) tries: Option<Spanned<u8>>,
}

/// `[[connection]]`: a peer, or a group of peers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ConnectionSection {
    pub(in crate::config) name: Spanned<String>,
    #[serde(default)]
    pub(super) local: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) remote: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) remote_networks: Vec<Spanned<String>>,
    pub(super) local_id: Option<Spanned<String>>,
    pub(super) remote_id: Option<Spanned<String>>,
    pub(super) auth: Option<Spanned<Auth>>,
    pub(super) local_auth: Option<Spanned<Auth>>,
    pub(super) remote_auth: Option<Spanned<Auth>>,
    pub(super) credential: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) rsa_padding: RsaPadding,
    pub(super) psk_file: Option<Spanned<String>>,
    pub(super) eap_user: Option<Spanned<String>>,
    pub(super) proposals: Option<Vec<Spanned<String>>>,
    pub(super) rekey: Option<RekeySection>,
    pub(super) reauthenticate_after: Option<Spanned<Period>>,
    pub(super) dpd: Option<Spanned<Period>>,
    pub(super) retransmission: Option<RetransmissionSection>,
    pub(super) fragmentation: Option<bool>,
    pub(super) fragment_bytes: Option<Spanned<u16>>,
    pub(super) mobike: Option<bool>,
    #[serde(default)]
    pub(super) force_udp_encapsulation: bool,
    pub(super) nat_keepalive: Option<Spanned<Period>>,
    pub(super) childless: Option<ChildlessWord>,
    pub(super) unique: Option<bool>,
    pub(super) window: Option<Spanned<u32>>,
    pub(super) ppk: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) ppk_required: bool,
    #[serde(default)]
    pub(super) pools: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) dns: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) split_networks: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) request_addresses: Vec<Spanned<Family>>,
    pub(super) redirect_to: Option<Spanned<String>>,
    pub(super) child: Vec<Spanned<ChildSection>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Auth {
    Psk,
    Certificate,
    EapMschapv2,
    EapTls,
    EapRadius,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RsaPadding {
    #[default]
    Pss,
    Pkcs1,
    PssOrSha1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ChildlessWord {
    Allow,
    Prefer,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Family {
    Ipv4,
    Ipv6,
}

/// A span of time: seconds, or text such as `90s`, `15m`, `8h`, `2d`.
#[derive(Clone, Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "invalid value: expected seconds, or text such as \"90s\", \"15m\", \"8h\" or \"2d\""
)]
pub(super) enum Period {
    Seconds(i64),
    Text(String),
}

/// `rekey = { after = "1h", margin = "6m", fuzz = "6m", bytes = .., packets = .. }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RekeySection {
    pub(super) after: Option<Spanned<Period>>,
    pub(super) margin: Option<Spanned<Period>>,
    pub(super) fuzz: Option<Spanned<Period>>,
    pub(super) bytes: Option<Spanned<u64>>,
    pub(super) packets: Option<Spanned<u64>>,
}

/// `retransmission = { first = "2s", base = 1.6, longest = "40s", tries = 7 }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RetransmissionSection {
    pub(super) first_ms: Option<Spanned<u64>>,
    pub(super) base: Option<Spanned<f64>>,
    pub(super) longest: Option<Spanned<Period>>,
    pub(super) tries: Option<Spanned<u32>>,
}

/// `[[connection.child]]`: a Child SA and the tunnel that it carries.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ChildSection {
    pub(in crate::config) name: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) mode: TunnelMode,
    #[serde(default)]
    pub(super) local_ts: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) remote_ts: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) start: StartWord,
    pub(super) proposals: Option<Vec<Spanned<String>>>,
    pub(super) rekey: Option<RekeySection>,
    pub(super) replay_window: Option<Spanned<u32>>,
    #[serde(default)]
    pub(super) per_worker: bool,
    pub(super) resources: Option<Spanned<u16>>,
    pub(in crate::config) routes: Option<Vec<Spanned<String>>>,
    pub(super) host_routes: Option<Vec<Spanned<String>>>,
    pub(super) policy: Option<bool>,
    pub(super) priority: Option<Spanned<u32>>,
    pub(in crate::config) vrf: Option<Spanned<String>>,
    pub(in crate::config) outer_vrf: Option<Spanned<String>>,
    pub(super) dscp: Option<Spanned<WordOrNumber>>,
    #[serde(default)]
    pub(super) ecn: Ecn,
    #[serde(default)]
    pub(super) df: Df,
    pub(super) ttl: Option<Spanned<WordOrNumber>>,
    pub(super) mtu: Option<Spanned<u16>>,
    pub(super) clamp_mss: Option<bool>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum StartWord {
    /// On the first packet that wants the tunnel.
    #[default]
    Traffic,
    /// As soon as it is loaded, and again whenever it went down.
    Start,
    /// Only when the peer asks or the operator says.
    None,
}
