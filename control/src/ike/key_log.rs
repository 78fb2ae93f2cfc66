//! The opt-in key log: every negotiated key in clear, in the two tables that Wireshark reads.
//!
//! Put `ikev2_decryption_table` and `esp_sa` into a Wireshark profile's folder to read captured traffic.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use southbound::{Encryption, Integrity, SaSpec};
use tracing::warn;

/// The open tables.
#[derive(Debug)]
pub(crate) struct KeyLog {
    folder: PathBuf,
    ike: File,
    esp: File,
}

impl KeyLog {
    /// Opens both tables in `folder` for appending, closed to everybody else, and warns.
    ///
    /// # Errors
    /// Where the kernel says no.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let open = |name: &str| {
            OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .open(folder.join(name))
        };
        let log = Self {
            folder: folder.to_owned(),
            ike: open("ikev2_decryption_table")?,
            esp: open("esp_sa")?,
        };
        log.warn();
        Ok(log)
    }

    /// Says so, loudly.
    pub(crate) fn warn(&self) {
        warn!(
            folder = %self.folder.display(),
            "EVERY KEY IS WRITTEN TO DISK IN CLEAR: key_log_directory is set; whoever reads that folder reads all traffic. \
             Remove the setting and the folder as soon as the fault is found"
        );
    }

    /// The keys of an IKE SA, as the engine formats them.
    pub(crate) fn ike(&mut self, line: &str) {
        self.written(|log| writeln!(log.ike, "{line}"));
    }

    /// The keys of an SA.
    pub(crate) fn esp(&mut self, sa: &SaSpec) {
        let line = esp_line(sa);
        self.written(|log| writeln!(log.esp, "{line}"));
    }

    fn written(&mut self, write: impl FnOnce(&mut Self) -> io::Result<()>) {
        if let Err(error) = write(self) {
            warn!(folder = %self.folder.display(), %error, "the key log cannot be written");
        }
    }
}

fn esp_line(sa: &SaSpec) -> String {
    let (source, destination) = match sa.direction {
        southbound::SaDirection::Inbound => (sa.remote, sa.local),
        southbound::SaDirection::Outbound => (sa.local, sa.remote),
    };
    let transform = sa.transform;
    let encryption_bytes = transform.encryption().key_bytes().min(sa.key.len_bytes());
    let (encryption, integrity) = sa.key.expose().split_at(encryption_bytes);
    let cipher = match transform.encryption() {
        Encryption::Null => "NULL",
        Encryption::AesCbc128 | Encryption::AesCbc192 | Encryption::AesCbc256 => "AES-CBC [RFC3602]",
        Encryption::AesCtr128 | Encryption::AesCtr192 | Encryption::AesCtr256 => "AES-CTR [RFC3686]",
        Encryption::ChaCha20Poly1305 => "ChaCha20 with Poly1305 [RFC7634]",
        _ => "AES-GCM [RFC4106]",
    };
    let authentication = match transform.integrity() {
        None => "NULL",
        Some(Integrity::HmacSha1) => "HMAC-SHA-1-96 [RFC2404]",
        Some(Integrity::HmacSha256) => "HMAC-SHA-256-128 [RFC4868]",
        Some(Integrity::HmacSha384) => "HMAC-SHA-384-192 [RFC4868]",
        Some(Integrity::HmacSha512) => "HMAC-SHA-512-256 [RFC4868]",
    };
    let family = if sa.local.is_ipv4() { "IPv4" } else { "IPv6" };
    let number = if sa.extended_sequence_numbers {
        "64-bit"
    } else {
        "32-bit"
    };
    format!(
        "\"{family}\",\"{source}\",\"{destination}\",\"{:#010x}\",\"{cipher}\",\"{}\",\"{authentication}\",\"{}\",\"{number}\"",
        sa.spi,
        hexadecimal(encryption),
        hexadecimal(integrity),
    )
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::new();
    if !bytes.is_empty() {
        text.push_str("0x");
    }
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
