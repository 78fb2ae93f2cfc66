//! Leased addresses, kept over a restart: a client that returns gets the address it had.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ike::Endpoint;
use tracing::warn;

const FILE_NAME: &str = "leases.json";

/// The least time between two writings.
const PAUSE: Duration = Duration::from_secs(1);

/// The file of leases.
#[derive(Debug)]
pub(super) struct Leases {
    path: PathBuf,
    is_changed: bool,
    written: Option<Instant>,
}

impl Leases {
    /// Reads the file of an earlier process into the endpoint. One that cannot be read is told and begun anew.
    pub(super) fn open(folder: &Path, endpoint: &mut Endpoint) -> Self {
        let path = folder.join(FILE_NAME);
        match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice::<BTreeMap<IpAddr, String>>(&bytes) {
                Ok(leases) => {
                    for (address, holder) in leases {
                        endpoint.restore_lease(address, holder);
                    }
                }
                Err(error) => warn!(path = %path.display(), %error, "the leases of addresses cannot be read"),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => warn!(path = %path.display(), %error, "the leases of addresses cannot be read"),
        }
        Self {
            path,
            is_changed: false,
            written: None,
        }
    }

    /// An address was leased.
    pub(super) fn changed(&mut self) {
        self.is_changed = true;
    }

    /// When the file is to be written.
    pub(super) fn due(&self) -> Option<Instant> {
        self.is_changed
            .then(|| self.written.map_or_else(Instant::now, |written| written + PAUSE))
    }

    /// Writes the file where it is due.
    pub(super) fn tick(&mut self, now: Instant, endpoint: &Endpoint) {
        if self.due().is_none_or(|due| due > now) {
            return;
        }
        (self.is_changed, self.written) = (false, Some(now));
        let leases: BTreeMap<IpAddr, &str> = endpoint.leases().collect();
        let fresh = self.path.with_extension("new");
        let written = serde_json::to_vec(&leases)
            .map_err(io::Error::from)
            .and_then(|bytes| fs::write(&fresh, bytes))
            .and_then(|()| fs::rename(&fresh, &self.path));
        if let Err(error) = written {
            warn!(path = %self.path.display(), %error, "the leases of addresses cannot be kept");
        }
    }
}
