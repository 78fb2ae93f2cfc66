//! The metrics endpoint.

use std::net::SocketAddr;
use std::path::PathBuf;

use toml::Spanned;

use super::file::MetricsSection;
use super::source::Source;

/// Samples of `/metrics/tunnels` unless the configuration says otherwise: some 14,000 tunnels.
const DEFAULT_MAX_TUNNEL_SERIES: u32 = 100_000;

/// A certificate and its key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsTls {
    /// The chain, the endpoint's own certificate first.
    pub certificate_file: PathBuf,
    /// The key.
    pub key_file: PathBuf,
}

/// The one user that may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsUser {
    /// The name.
    pub user: String,
    /// The file with the password in its first line, mode 0600.
    pub password_file: PathBuf,
}

/// The metrics endpoint and status page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Where it listens.
    pub listen: SocketAddr,
    /// TLS, where wanted.
    pub tls: Option<MetricsTls>,
    /// Who may ask, where not everybody may.
    pub user: Option<MetricsUser>,
    /// Most samples of `/metrics/tunnels`.
    pub max_tunnel_series: usize,
}

impl Metrics {
    pub(super) fn new(source: &Source, section: &MetricsSection) -> Option<Self> {
        let listen = match &section.listen {
            None => Some(SocketAddr::from(([127, 0, 0, 1], 9185))),
            Some(text) => source.value(text, "an address and port, such as 127.0.0.1:9185"),
        };
        let tls = pair(
            source,
            ("certificate_file", &section.certificate_file),
            ("key_file", &section.key_file),
        )
        .map(|(certificate, key)| MetricsTls {
            certificate_file: source.resolve(certificate),
            key_file: source.resolve(key),
        });
        let user = pair(
            source,
            ("user", &section.user),
            ("password_file", &section.password_file),
        )
        .map(|(user, password)| MetricsUser {
            user: user.to_owned(),
            password_file: source.resolve(password),
        });
        if let Some(user) = &section.user
            && user.get_ref().contains(':')
        {
            source.problem(
                user.span(),
                "found a ':' in the user: expected none (RFC 7617 section 2)",
            );
        }
        let max_tunnel_series = match &section.max_tunnel_series {
            None => Some(DEFAULT_MAX_TUNNEL_SERIES),
            Some(count) => source.within(count, 0..=10_000_000),
        };
        Some(Self {
            listen: listen?,
            tls,
            user,
            max_tunnel_series: max_tunnel_series? as usize,
        })
    }
}

/// Two settings that stand together or not at all.
fn pair<'a>(
    source: &Source,
    one: (&str, &'a Option<Spanned<String>>),
    other: (&str, &'a Option<Spanned<String>>),
) -> Option<(&'a str, &'a str)> {
    match (one.1, other.1) {
        (Some(first), Some(second)) => Some((first.get_ref(), second.get_ref())),
        (None, None) => None,
        (Some(alone), None) => {
            source.problem(
                alone.span(),
                format!("found {} alone: expected {} too", one.0, other.0),
            );
            None
        }
        (None, Some(alone)) => {
            source.problem(
                alone.span(),
                format!("found {} alone: expected {} too", other.0, one.0),
            );
            None
        }
    }
}
