//! Basic authentication (RFC 7617).

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sha2::{Digest, Sha256};

/// The one user and password that the endpoint takes. Only a digest is kept.
#[derive(Clone)]
pub struct Credentials([u8; 32]);

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Credentials([redacted])")
    }
}

impl Credentials {
    /// Reads the password of `user`: the file's first line.
    ///
    /// # Errors
    /// Where the file cannot be read, is empty, or is readable by others.
    pub fn read(user: &str, password_file: &Path) -> io::Result<Self> {
        if fs::metadata(password_file)?.mode() & 0o077 != 0 {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!(
                    "{} is readable by others: expected mode 0600",
                    password_file.display()
                ),
            ));
        }
        let text = fs::read_to_string(password_file)?;
        let password = text.lines().next().unwrap_or_default();
        if password.is_empty() {
            return Err(io::Error::other(format!(
                "{} has no password in its first line",
                password_file.display()
            )));
        }
        Ok(Self(digest(format!("{user}:{password}").as_bytes())))
    }

    /// Whether an `Authorization` header's value is right. Digests are compared, so that the time it takes
    /// tells nothing of the password.
    pub(super) fn accept(&self, header: &str) -> bool {
        let Some((scheme, encoded)) = header.trim().split_once(' ') else {
            return false;
        };
        scheme.eq_ignore_ascii_case("basic")
            && decode(encoded.trim()).is_some_and(|given| digest(&given) == self.0)
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Base64 (RFC 4648 section 4).
fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_4648_vectors_are_decoded() {
        for (text, bytes) in [("Zg==", "f"), ("Zm8=", "fo"), ("Zm9vYmFy", "foobar"), ("", "")] {
            assert_eq!(decode(text).unwrap(), bytes.as_bytes());
        }
        assert_eq!(decode("Zm9v!"), None);
    }

    #[test]
    fn only_the_right_password_is_taken() {
        let credentials = Credentials(digest(b"Aladdin:open sesame"));
        // The example of RFC 7617 section 2.
        assert!(credentials.accept("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
        assert!(!credentials.accept("Basic QWxhZGRpbjpvcGVuIHNlc2FtZA=="));
        assert!(!credentials.accept("Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
        assert!(!credentials.accept(""));
        assert_eq!(format!("{credentials:?}"), "Credentials([redacted])");
    }
}
