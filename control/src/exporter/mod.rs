//! The HTTP endpoint of the gateway: metrics for Prometheus, health for load balancers, a page for people.
//!
//! | path | is |
//! |---|---|
//! | `/metrics` | the gateway's families, as Prometheus text or OpenMetrics by the `Accept` header |
//! | `/metrics/tunnels` | families with a series a tunnel, up to a limit; `?connection=REGEX` chooses |
//! | `/healthz`, `/readyz` | 200 or 503 |
//! | `/`, `/status.json` | the status page and what it shows |
//!
//! Everything is made anew at each request, from the dataplane's shared counters and its answers: a scrape
//! never touches a worker. Only `GET` and `HEAD` are answered. Clients are few and have little time, so that
//! a slow one keeps nobody from anything.

mod auth;
mod exposition;
mod families;
mod gateway;
mod history;
mod http;
mod labels;
mod page;
mod ports;
mod server;
mod snapshot;
mod tls;
mod traffic;
mod tunnels;
mod workers;

pub use auth::Credentials;
pub use history::{History, Sample};
pub(crate) use labels::MOST_SERIES;
pub use server::{Endpoint, Scrapes, listen};
pub use snapshot::{IkeFigures, Scrape, Snapshot, TunnelRecord, Wanted};
pub use tls::acceptor;

use exposition::Form;
use families::Families;

/// The families of `/metrics`.
///
/// # Errors
/// Where two families have one name, which the tests exclude.
fn metrics(snapshot: &Snapshot, form: Form) -> Result<Vec<u8>, prometheus::Error> {
    let families = Families::new();
    gateway::families(&families, snapshot)?;
    gateway::ike(&families, &snapshot.ike)?;
    traffic::families(&families, &snapshot.blocks)?;
    workers::families(&families, snapshot)?;
    ports::families(&families, snapshot)?;
    tunnels::summary(&families, snapshot)?;
    labels::families(&families, snapshot)?;
    families.process()?;
    exposition::encode(&families.gather(), form)
}

#[cfg(test)]
mod tests {
    use southbound::DropReason;

    use super::*;

    #[test]
    fn every_drop_reason_is_exported_before_it_ever_happens() {
        let text = String::from_utf8(metrics(&Snapshot::default(), Form::Text).unwrap()).unwrap();
        for reason in DropReason::ALL {
            let line = format!(
                "penstock_drop_packets_total{{reason=\"{}\",stage=\"{}\"}} 0",
                reason.name(),
                reason.stage().name()
            );
            assert!(text.contains(&line), "{line}");
        }
        assert!(text.contains("penstock_dataplane_up 0"));
        assert!(text.lines().all(|line| line.starts_with('#')
            || line.starts_with("penstock_")
            || line.starts_with("process_")));
    }

    /// A gateway with at least one of everything.
    fn everything() -> Snapshot {
        let layout = southbound::CounterLayout::new(1);
        let mut bytes = vec![0u8; layout.segment_bytes()];
        for (index, value) in layout.header().into_iter().enumerate() {
            bytes[index * 8..index * 8 + 8].copy_from_slice(&value.to_le_bytes());
        }
        let file = nix::sys::memfd::memfd_create("counters", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
        let mut file = std::fs::File::from(file);
        std::io::Write::write_all(&mut file, &bytes).unwrap();
        let blocks = crate::plane::Counters::open(file.into()).unwrap().read().unwrap();
        Snapshot {
            blocks,
            ports: vec![southbound::PortStatus {
                port: southbound::PortId(0),
                slot: 0,
                vlan: None,
                interface: "wan".into(),
                phase: southbound::PortPhase::Up,
                xdp: Some(southbound::XdpMode::Driver),
                queues: vec![southbound::CopyMode::ZeroCopy],
                mtu_bytes: 1500,
                rebinds: 0,
                error: None,
            }],
            workers: vec![southbound::WorkerStatus {
                worker: 0,
                cpu: 2,
                frames: 4096,
                huge_pages: true,
            }],
            sas: vec![southbound::SaStatus {
                sa: southbound::SaRef {
                    direction: southbound::SaDirection::Outbound,
                    spi: 0x1001,
                    destination: [192, 0, 2, 2].into(),
                },
                tunnel: southbound::TunnelId(1),
                transform: "aes128gcm16".parse().unwrap(),
                selected: true,
                worker: None,
                expired: false,
                packets: 1,
                bytes: 100,
                sequence: 1,
                remaining_sequence: 1_000,
                replay_drops: 0,
                integrity_failures: 0,
                selector_drops: 0,
                age_seconds: 1,
            }],
            vrfs: vec![(
                "red".into(),
                southbound::VrfStatus {
                    vrf: southbound::VrfId(1),
                    name: "red".into(),
                    routes_v4: 1,
                    routes_v6: 0,
                    packets: 1,
                    bytes: 100,
                },
            )],
            tunnels: vec![TunnelRecord {
                name: "a".into(),
                state: "up",
                local: String::new(),
                remote: String::new(),
                inner_mtu_bytes: 1400,
                totals: southbound::TunnelTotals::default(),
            }],
            ike: IkeFigures {
                expiries: [false, true]
                    .map(|is_revocation_list| ike::Expiry {
                        name: "gateway".into(),
                        is_revocation_list,
                        unix_seconds: 1,
                    })
                    .into(),
                ..IkeFigures::default()
            },
            ..Snapshot::default()
        }
    }

    /// Whatever begins with the prefix in a file of `monitoring/`.
    fn named(text: &str) -> std::collections::BTreeSet<&str> {
        text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_' && letter != ':')
            .filter(|word| word.starts_with("penstock_"))
            .collect()
    }

    #[test]
    fn dashboard_and_rules_name_only_what_is_exported() {
        let snapshot = everything();
        let mut text = metrics(&snapshot, Form::Text).unwrap();
        text.extend(tunnels::detail(&snapshot.tunnels, None, 1000, Form::Text).unwrap());
        let text = String::from_utf8(text).unwrap();
        let mut exported: std::collections::BTreeSet<String> = std::collections::BTreeSet::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            exported.insert(name.to_owned());
            if kind == "histogram" {
                exported.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}")));
            }
        }
        for (file, text) in [
            (
                "dashboard.json",
                include_str!("../../../monitoring/dashboard.json"),
            ),
            ("recording.yml", include_str!("../../../monitoring/recording.yml")),
            ("alerts.yml", include_str!("../../../monitoring/alerts.yml")),
        ] {
            let named = named(text);
            assert!(named.len() > 5, "{file}");
            let unknown: Vec<_> = named.iter().filter(|name| !exported.contains(**name)).collect();
            assert!(unknown.is_empty(), "{file} names {unknown:?}");
        }
        let dashboard: serde_json::Value =
            serde_json::from_str(include_str!("../../../monitoring/dashboard.json")).unwrap();
        let rows: Vec<_> = dashboard["panels"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|panel| panel["type"] == "row")
            .map(|panel| panel["title"].as_str().unwrap())
            .collect();
        assert_eq!(&rows[..4], ["Health", "Traffic", "Drops", "IKE"]);
    }

    #[test]
    fn both_forms_tell_the_same_samples() {
        let snapshot = everything();
        let samples = |form| {
            let mut lines: Vec<String> = String::from_utf8(metrics(&snapshot, form).unwrap())
                .unwrap()
                .lines()
                .filter(|line| line.starts_with("penstock_"))
                .map(str::to_owned)
                .collect();
            lines.sort();
            lines
        };
        assert_eq!(samples(Form::Text), samples(Form::OpenMetrics));
    }
}
