//! The configuration of the two gateways of [`crate::topology`], keyed by hand.

use std::fs::File;
use std::io::{self, Read};

/// A tunnel between the two sites, the same on both gateways but for the point of view.
#[derive(Clone, Debug)]
pub struct SiteToSite {
    /// The transform as `penstock.toml` spells it.
    pub algorithm: String,
    /// Bytes of key material that the transform takes.
    pub key_bytes: usize,
    /// More lines for the `[[tunnel]]` section of both gateways.
    pub tunnel_lines: String,
    /// More lines for the `[[tunnel.sa]]` section of both gateways.
    pub sa_lines: String,
    /// Outer addresses of IPv6 in place of IPv4.
    pub outer_ipv6: bool,
    keys: [String; 2],
}

impl SiteToSite {
    /// A tunnel with fresh random keys.
    ///
    /// # Errors
    /// Where the kernel gives no randomness.
    pub fn new(algorithm: &str, key_bytes: usize) -> io::Result<Self> {
        Ok(Self {
            algorithm: algorithm.to_owned(),
            key_bytes,
            tunnel_lines: String::new(),
            sa_lines: String::new(),
            outer_ipv6: false,
            keys: [random_hex(key_bytes)?, random_hex(key_bytes)?],
        })
    }

    /// The configuration of gateway `number`, 1 or 2.
    #[must_use]
    pub fn configuration(&self, number: u8) -> String {
        let peer = 3 - number;
        let outer = if self.outer_ipv6 {
            "2001:db8:77::"
        } else {
            "198.51.100."
        };
        let Self {
            algorithm,
            tunnel_lines,
            sa_lines,
            ..
        } = self;
        format!(
            r#"[gateway]
name = "gateway-{number}"

[[port]]
interface = "lan"
role = "protected"

[[port]]
interface = "wan"
role = "internet"

[[tunnel]]
name = "site-{peer}"
local = "{outer}{number}"
remote = "{outer}{peer}"
local_ts = ["10.{number}.0.0/24", "fd0{number}::/64"]
remote_ts = ["10.{peer}.0.0/24", "fd0{peer}::/64"]
routes = ["10.{peer}.0.0/24", "fd0{peer}::/64"]
{tunnel_lines}
[[tunnel.sa]]
spi_in = 0x{number}001
spi_out = 0x{peer}001
algorithm = "{algorithm}"
key_in_file = "{{folder}}/to-{number}.key"
key_out_file = "{{folder}}/to-{peer}.key"
{sa_lines}
"#
        )
    }

    /// The secrets that both gateways need, by file name.
    #[must_use]
    pub fn secrets(&self) -> [(&str, &str); 2] {
        [("to-1.key", &self.keys[0]), ("to-2.key", &self.keys[1])]
    }
}

fn random_hex(length_bytes: usize) -> io::Result<String> {
    let mut bytes = vec![0u8; length_bytes];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
