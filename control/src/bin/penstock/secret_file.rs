//! Files that only their owner may read.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes a new file of mode 0600; one that is there stays as it is.
pub(crate) fn create(path: &Path, text: &str) -> io::Result<()> {
    write_new(path, text, 0o600)
}

/// Writes a new file that anybody may read; one that is there stays as it is.
pub(crate) fn create_public(path: &Path, text: &str) -> io::Result<()> {
    write_new(path, text, 0o644)
}

fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(named)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(named)
}

/// Random bytes of the kernel.
pub(crate) fn random(length_bytes: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length_bytes];
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes)
}

/// As hexadecimal digits.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
