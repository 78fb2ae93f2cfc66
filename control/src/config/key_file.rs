//! Files that hold one secret key in hexadecimal digits.
//!
//! White space and lines that begin with `#` are passed over; a leading `0x` is allowed. The file must
//! be as [`secret_file`] wants it.

use std::path::Path;

use southbound::KeyMaterial;
use zeroize::Zeroizing;

use super::secret_file;

/// Longest key file in bytes.
const MAX_FILE_BYTES: u16 = 4096;

/// Whether keys must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyAccess {
    /// A key that cannot be read is a problem: the daemon.
    Required,
    /// A key file that is absent here or closed to this user is passed over: the offline check.
    IfReadable,
}

/// Reads the key in `path`, which must have `expected_bytes` bytes. `Ok(None)` is a key passed over.
///
/// # Errors
/// What was found and what was expected; never a byte of the key.
pub(super) fn read(
    path: &Path,
    expected_bytes: usize,
    access: KeyAccess,
) -> Result<Option<KeyMaterial>, String> {
    let shown = path.display();
    let Some(text) = secret_file::read(path, MAX_FILE_BYTES, access)? else {
        return Ok(None);
    };
    let key = parse(&text)
        .ok_or_else(|| format!("the key file {shown} does not hold a key: expected hexadecimal digits"))?;
    if key.len_bytes() != expected_bytes {
        return Err(format!(
            "the key file {shown} holds {} bytes: expected {expected_bytes} ({} hexadecimal digits)",
            key.len_bytes(),
            expected_bytes * 2
        ));
    }
    Ok(Some(key))
}

fn parse(text: &[u8]) -> Option<KeyMaterial> {
    let mut key = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut high: Option<u8> = None;
    let mut begun = false;
    for line in text.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        if line.starts_with(b"#") {
            continue;
        }
        let digits = match line.strip_prefix(b"0x") {
            Some(rest) if !begun => rest,
            _ => line,
        };
        begun |= !line.is_empty();
        for byte in digits.iter().filter(|byte| !byte.is_ascii_whitespace()) {
            let digit = char::from(*byte).to_digit(16)? as u8;
            match high.take() {
                None => high = Some(digit),
                Some(upper) => key.push(upper << 4 | digit),
            }
        }
    }
    if high.is_some() || key.is_empty() {
        return None;
    }
    Some(KeyMaterial::new(key.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_read_through_comments_and_white_space() {
        let key = parse(b"# site b\n0x00 11\n22FF\n").unwrap();
        assert_eq!(key.expose(), [0, 0x11, 0x22, 0xff]);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in [&b""[..], b"\n", b"0", b"0x", b"zz", b"00\n0x11", b"\xff\xff"] {
            assert!(parse(text).is_none(), "{text:?}");
        }
    }
}
