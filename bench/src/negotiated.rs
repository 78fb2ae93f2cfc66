//! The configuration of the two gateways of [`crate::topology`] with a tunnel negotiated by IKEv2.

use crate::pki::{KeyKind, Pki};

/// A connection between the two sites, the same on both gateways but for the point of view.
#[derive(Clone, Debug)]
pub struct Negotiated {
    /// More lines for the top of the file of both gateways.
    pub file_lines: String,
    /// The lines of `[[connection]]` that say who is who.
    pub connection_lines: String,
    /// More lines for its child on both gateways.
    pub child_lines: String,
    /// More lines for the child of gateway 1.
    pub child_lines_1: String,
    /// Outer addresses of IPv6 in place of IPv4.
    pub outer_ipv6: bool,
}

/// The file of [`Negotiated::preshared`]'s secret.
pub const PSK_FILE: &str = "site.psk";

/// The files of one gateway by name, text and all.
pub type Secrets = Vec<(String, String)>;

impl Negotiated {
    /// Each end shows a certificate of one authority, which lives as long as this call; the files of gateway 1 and of
    /// gateway 2.
    ///
    /// # Errors
    /// Where no key can be made.
    pub fn certified(kind: KeyKind) -> Result<(Self, [Secrets; 2]), rcgen::Error> {
        let pki = Pki::new()?;
        let files = |number: u8| -> Result<Secrets, rcgen::Error> {
            let own = pki.issue(&format!("gateway-{number}.example"), kind)?;
            Ok(vec![
                ("ca.pem".to_owned(), pki.certificate()),
                ("own.pem".to_owned(), own.certificate),
                ("own.key".to_owned(), own.key),
            ])
        };
        let terms = Self {
            file_lines: r#"[[authority]]
certificate_file = "{folder}/ca.pem"

[[credential]]
name = "own"
certificate_file = "{folder}/own.pem"
key_file = "{folder}/own.key"
"#
            .to_owned(),
            connection_lines: r#"auth = "certificate"
credential = "own"
local_id = "gateway-{number}.example"
remote_id = "gateway-{peer}.example"
"#
            .to_owned(),
            ..Self::preshared()
        };
        Ok((terms, [files(1)?, files(2)?]))
    }

    /// Both ends know one secret, which is the text of [`PSK_FILE`].
    #[must_use]
    pub fn preshared() -> Self {
        Self {
            file_lines: String::new(),
            connection_lines: format!("auth = \"psk\"\npsk_file = \"{{folder}}/{PSK_FILE}\"\n"),
            child_lines: String::new(),
            child_lines_1: String::new(),
            outer_ipv6: false,
        }
    }

    /// The address of gateway `number` towards the other.
    #[must_use]
    pub fn outer(&self, number: u8) -> String {
        let network = if self.outer_ipv6 {
            "2001:db8:77::"
        } else {
            "198.51.100."
        };
        format!("{network}{number}")
    }

    /// The configuration of gateway `number`, 1 or 2. The texts `{number}` and `{peer}` in the lines stand for it and
    /// for the other.
    #[must_use]
    pub fn configuration(&self, number: u8) -> String {
        let peer = 3 - number;
        let Self {
            file_lines,
            connection_lines,
            child_lines,
            child_lines_1,
            ..
        } = self;
        let own_lines = if number == 1 { child_lines_1 } else { "" };
        format!(
            r#"[gateway]
name = "gateway-{number}"

[[port]]
interface = "lan"
role = "protected"

[[port]]
interface = "wan"
role = "internet"

{file_lines}
[[connection]]
name = "site-{peer}"
local = ["{}"]
remote = ["{}"]
{connection_lines}

[[connection.child]]
local_ts = ["10.{number}.0.0/24", "fd0{number}::/64"]
remote_ts = ["10.{peer}.0.0/24", "fd0{peer}::/64"]
{child_lines}
{own_lines}
"#,
            self.outer(number),
            self.outer(peer),
        )
        .replace("{number}", &number.to_string())
        .replace("{peer}", &peer.to_string())
    }
}
