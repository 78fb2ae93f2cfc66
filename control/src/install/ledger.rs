//! The record of counter-mode keys that were given to a dataplane.
//!
//! A counter-mode key that met the same sequence number twice reveals plaintext (RFC 4106 section 9, RFC
//! 7634 section 6). Sequence numbers live in the dataplane; with it, or with the SA, they are lost. So every
//! such key is recorded, durably, before it is installed, and not installed again where its numbers are
//! lost. The record holds fingerprints, never keys.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use southbound::{SaRef, SaSpec};
use thiserror::Error;

const FILE_NAME: &str = "key-use.json";
const VERSION: u32 = 1;

/// Why the record cannot be used.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// The kernel said no.
    #[error("the record of used keys {path} cannot be {action}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// It is no such record.
    #[error("{0} is not a record of used keys: move it away only if every manual key has been replaced")]
    Malformed(PathBuf),
}

/// Names a key without telling it: 128 bits of a hash over the transform and the key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Fingerprint(String);

impl Fingerprint {
    pub(super) fn new(sa: &SaSpec) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"penstock key use 1\0");
        // One key under two transforms of one cipher family would still repeat its key stream, so the
        // transform is left out.
        hash.update(sa.key.expose());
        let mut text = String::new();
        for byte in &hash.finalize()[..16] {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }
}

/// Where a key went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Use {
    /// The dataplane's instance.
    pub(super) instance: u64,
    /// The SA.
    pub(super) sa: SaRef,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    keys: BTreeMap<String, Use>,
}

/// The record.
#[derive(Debug)]
pub struct Ledger {
    folder: PathBuf,
    keys: BTreeMap<String, Use>,
}

impl Ledger {
    /// Reads the record in `folder`, which is made where it is not there. No record is an empty one.
    ///
    /// # Errors
    /// [`LedgerError`]: without the record no counter-mode key may be installed.
    pub fn open(folder: &Path) -> Result<Self, LedgerError> {
        let fault = |action, path: &Path| {
            let path = path.to_owned();
            move |source| LedgerError::Io { path, action, source }
        };
        fs::create_dir_all(folder).map_err(fault("made", folder))?;
        let path = folder.join(FILE_NAME);
        let keys = match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice::<Record>(&bytes)
                    .ok()
                    .filter(|record| record.version == VERSION)
                    .ok_or(LedgerError::Malformed(path))?
                    .keys
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(fault("read", &path)(error)),
        };
        Ok(Self {
            folder: folder.to_owned(),
            keys,
        })
    }

    pub(super) fn find(&self, key: &Fingerprint) -> Option<&Use> {
        self.keys.get(&key.0)
    }

    /// Records uses; they are on the disk when this returns.
    pub(super) fn record(&mut self, uses: Vec<(Fingerprint, Use)>) -> Result<(), LedgerError> {
        if uses.is_empty() {
            return Ok(());
        }
        let before = self.keys.clone();
        self.keys
            .extend(uses.into_iter().map(|(key, place)| (key.0, place)));
        let written = self.write();
        if written.is_err() {
            self.keys = before;
        }
        written
    }

    /// A key that was never accepted is as good as unused.
    pub(super) fn forget(&mut self, key: &Fingerprint) -> Result<(), LedgerError> {
        match self.keys.remove(&key.0) {
            Some(_) => self.write(),
            None => Ok(()),
        }
    }

    /// Whole, beside the old one, then in its place: a crash leaves one or the other.
    fn write(&self) -> Result<(), LedgerError> {
        let path = self.folder.join(FILE_NAME);
        let fresh = self.folder.join(format!("{FILE_NAME}.new"));
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&fresh)?;
            file.write_all(&serde_json::to_vec_pretty(&Record {
                version: VERSION,
                keys: self.keys.clone(),
            })?)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|source| LedgerError::Io {
            path,
            action: "written",
            source,
        })
    }
}
