//! Connections as the operator sees and steers them. No secret is in any of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use ike::{ChildSummary, IkeSummary};
use serde_json::{Value, json};

use super::driver::Driver;
use crate::admin::ExitCode;
use crate::config::IkeSettings;
use crate::exporter::IkeFigures;

impl Driver {
    /// Each IKE SA, and each connection that has none.
    pub(crate) fn records(&self, connection: Option<&str>) -> Vec<Value> {
        let fits = |name: &str| connection.is_none_or(|wanted| wanted == name);
        let sas = match connection {
            Some(name) => self.endpoint.ike_sas_of(name),
            None => self.endpoint.ike_sas(),
        };
        let with_sa: BTreeSet<&String> = sas.iter().map(|sa| &sa.connection).collect();
        let mut records: Vec<Value> = sas.iter().map(|sa| self.record(sa)).collect();
        for name in self
            .loaded
            .keys()
            .filter(|name| fits(name) && !with_sa.contains(*name))
        {
            records.push(json!({
                "connection": name,
                "state": "down",
                "failure": self.journal.failure(name),
                "children": [],
            }));
        }
        records
    }

    fn record(&self, sa: &IkeSummary) -> Value {
        let (here, there) = sa.nat;
        json!({
            "connection": sa.connection,
            "state": sa.state,
            "initiator": sa.initiator,
            "initiator_spi": format!("{:016x}", sa.initiator_spi),
            "responder_spi": format!("{:016x}", sa.responder_spi),
            "local": sa.local.to_string(),
            "remote": sa.remote.to_string(),
            "local_id": sa.local_id.as_ref().map(ToString::to_string),
            "remote_id": sa.remote_id.as_ref().map(ToString::to_string),
            "suite": sa.suite,
            "nat": match (here, there) {
                (false, false) => "none",
                (true, false) => "here",
                (false, true) => "there",
                (true, true) => "both",
            },
            "virtual_addresses": sa.virtual_addresses,
            "child_names": sa.children.iter().map(|child| child.name.as_str()).collect::<BTreeSet<_>>(),
            "children": sa.children.iter().map(child).collect::<Vec<_>>(),
            "failure": self.journal.failure(&sa.connection),
        })
    }

    /// What the exporter shows.
    pub(crate) fn figures(&self, settings: &IkeSettings) -> IkeFigures {
        let mut sas = BTreeMap::new();
        for state in self.endpoint.states() {
            *sas.entry(state).or_default() += 1;
        }
        IkeFigures {
            connections_configured: self.loaded.len() as u64,
            sas,
            half_open: self.endpoint.half_open() as u64,
            half_open_limit: settings.half_open_limit as u64,
            counters: self.endpoint.counters(),
            reassembly_bytes: self.endpoint.reassembly_bytes() as u64,
            failures: self.failures,
            expiries: Vec::new(),
        }
    }

    /// How many IKE SAs are up.
    pub(crate) fn established(&self) -> usize {
        let states = self.endpoint.states();
        states.filter(|state| *state == "established").count()
    }

    /// Brings children up; those that were not up.
    pub(crate) fn up(
        &mut self,
        connection: &str,
        child: Option<&str>,
    ) -> Result<Vec<String>, (ExitCode, String)> {
        let names = self.children(connection, child)?;
        let up: BTreeSet<String> = self.up_children(connection);
        let missing: Vec<String> = names.into_iter().filter(|name| !up.contains(name)).collect();
        for name in &missing {
            self.endpoint
                .initiate(Instant::now(), connection, Some(name))
                .map_err(|error| (ExitCode::Refused, error.to_string()))?;
        }
        Ok(missing)
    }

    /// Takes a connection or one child of it down; whether there was anything.
    pub(crate) fn down(&mut self, connection: &str, child: Option<&str>) -> Result<bool, (ExitCode, String)> {
        self.children(connection, child)?;
        let now = Instant::now();
        match child {
            Some(child) => {
                let is_up = self.up_children(connection).contains(child);
                self.endpoint.terminate_child(now, connection, child);
                Ok(is_up)
            }
            None => {
                let is_up = self.endpoint.is_up(connection);
                self.endpoint.terminate(now, connection);
                Ok(is_up)
            }
        }
    }

    /// Renews the IKE SA of a connection, or one child's pair.
    pub(crate) fn rekey(&mut self, connection: &str, child: Option<&str>) -> Result<(), (ExitCode, String)> {
        self.children(connection, child)?;
        let not_up = |what: &str| Err((ExitCode::Refused, format!("{what} is not up")));
        let now = Instant::now();
        let up = self.up_children(connection);
        match child {
            Some(name) if !up.contains(name) => not_up(name),
            Some(name) => {
                self.endpoint.rekey_child(now, connection, name);
                Ok(())
            }
            None if !self.endpoint.is_up(connection) => not_up(connection),
            None => {
                self.endpoint.rekey_ike(now, connection);
                Ok(())
            }
        }
    }

    fn children(&self, connection: &str, child: Option<&str>) -> Result<Vec<String>, (ExitCode, String)> {
        let Some(loaded) = self.loaded.get(connection) else {
            return Err((ExitCode::NotFound, format!("no connection {connection:?}")));
        };
        let names = loaded
            .config
            .engine
            .children
            .iter()
            .map(|known| known.name.clone());
        let names: Vec<String> = names
            .filter(|name| child.is_none_or(|child| child == name))
            .collect();
        match child {
            Some(child) if names.is_empty() => Err((
                ExitCode::NotFound,
                format!("no child {child:?} of {connection:?}"),
            )),
            _ => Ok(names),
        }
    }

    fn up_children(&self, connection: &str) -> BTreeSet<String> {
        self.endpoint
            .ike_sas_of(connection)
            .into_iter()
            .flat_map(|sa| sa.children.into_iter().map(|child| child.name))
            .collect()
    }
}

fn child(child: &ChildSummary) -> Value {
    let list = |selectors: &[ike::TrafficSelector]| -> Vec<String> {
        selectors.iter().map(|selector| format!("{selector:?}")).collect()
    };
    json!({
        "name": child.name,
        "spi_in": format!("{:#010x}", child.spi_in),
        "spi_out": format!("{:#010x}", child.spi_out),
        "suite": child.suite,
        "local_ts": list(&child.local_ts),
        "remote_ts": list(&child.remote_ts),
        "udp": child.udp,
    })
}
