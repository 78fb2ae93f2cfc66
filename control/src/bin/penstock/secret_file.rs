//! Files that only their owner may read.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

/// Writes a new file of mode 0600; one that is there stays as it is. It belongs to whom its folder belongs to, where root
/// writes it: so a key in the service's folder can be read by the service.
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
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let owner = folder.metadata().map_err(named)?;
    if nix::unistd::geteuid().is_root() && owner.uid() != 0 {
        fchown(&file, Some(owner.uid()), Some(owner.gid())).map_err(named)?;
    }
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
