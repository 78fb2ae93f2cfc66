//! The shape of the tables about labels.

use serde::Deserialize;
use toml::Spanned;

use super::super::file::WordOrNumber;

/// `[fpm]`: the listener for FRR.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct FpmSection {
    pub(super) listen: Option<Spanned<String>>,
    pub(super) stale_seconds: Option<Spanned<u64>>,
    pub(super) ttl: Option<Spanned<WordOrNumber>>,
}

/// `{ prefix = .., vrf = .. }` of a `[[vrf]]`: what it reaches in another.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct LeakSection {
    pub(in super::super) prefix: Spanned<String>,
    pub(in super::super) vrf: Spanned<String>,
}

/// `{ interface = .., gateway = .., labels = [..] }` or `{ tunnel = .., labels = [..] }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct HopSection {
    pub(super) interface: Option<Spanned<String>>,
    pub(super) gateway: Option<Spanned<String>>,
    pub(super) tunnel: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) labels: Vec<Spanned<u32>>,
    pub(super) weight: Option<Spanned<u8>>,
}

/// `[[route]]`: a static route, perhaps under labels.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct RouteSection {
    pub(super) vrf: Option<Spanned<String>>,
    pub(in super::super) prefix: Spanned<String>,
    #[serde(default)]
    pub(super) next_hops: Vec<Spanned<HopSection>>,
    pub(super) to_vrf: Option<Spanned<String>>,
    pub(super) action: Option<Spanned<String>>,
    pub(super) ttl: Option<Spanned<WordOrNumber>>,
    pub(super) tc: Option<Spanned<WordOrNumber>>,
    #[serde(default)]
    pub(super) entropy_label: bool,
}

/// `[[label]]`: what is done with a label that comes in.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct LabelSection {
    pub(in super::super) label: Spanned<u32>,
    pub(super) space: Option<Spanned<u32>>,
    pub(super) vrf: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) next_hops: Vec<Spanned<HopSection>>,
    pub(super) action: Option<Spanned<String>>,
    pub(super) ttl: Option<Spanned<WordOrNumber>>,
    pub(super) tc: Option<Spanned<WordOrNumber>>,
    pub(super) dscp: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) entropy_label: bool,
}

/// `[[class_map]]`: traffic classes of labels and DSCPs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct ClassMapSection {
    pub(in super::super) name: Spanned<String>,
    #[serde(default)]
    pub(super) push: Vec<ClassPair>,
    #[serde(default)]
    pub(super) pop: Vec<ClassPair>,
}

/// `{ dscp = 46, tc = 5 }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct ClassPair {
    pub(super) dscp: Spanned<u8>,
    pub(super) tc: Spanned<u8>,
}
