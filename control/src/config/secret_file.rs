//! Files that hold a secret: owned by root or by this user, closed to group and others.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{User, geteuid};
use zeroize::Zeroizing;

use super::key_file::KeyAccess;

/// Reads a file of at most `limit_bytes`. `Ok(None)` is a file passed over because of `access`.
///
/// # Errors
/// What was found and what was expected; never a byte of the secret.
pub(super) fn read(
    path: &Path,
    limit_bytes: u16,
    access: KeyAccess,
) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
    let shown = path.display();
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error)
            if access == KeyAccess::IfReadable
                && matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
                ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(format!("the key file {shown} cannot be opened: {error}")),
    };
    let metadata = file
        .metadata()
        .map_err(|error| format!("the key file {shown} cannot be examined: {error}"))?;
    if !metadata.is_file() {
        return Err(format!("{shown} is not a file: expected a key file"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(format!(
            "the key file {shown} has mode {:04o}: expected 0600 or less, closed to group and others",
            metadata.mode() & 0o7777
        ));
    }
    let is_trusted = |owner: u32| owner == 0 || owner == geteuid().as_raw() || is_service_user(owner);
    if !is_trusted(metadata.uid()) {
        return Err(format!(
            "the key file {shown} belongs to user {}: expected root or user {}",
            metadata.uid(),
            geteuid()
        ));
    }
    if metadata.len() > u64::from(limit_bytes) {
        return Err(format!(
            "the key file {shown} has {} bytes: expected at most {limit_bytes}",
            metadata.len()
        ));
    }
    // One buffer for all, so that no copy of the secret stays behind in freed memory.
    let mut text = Zeroizing::new(vec![0u8; usize::from(limit_bytes)]);
    let mut used_bytes = 0;
    loop {
        match file.read(&mut text[used_bytes..]) {
            Ok(0) => break,
            Ok(count) => used_bytes += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("the key file {shown} cannot be read: {error}")),
        }
    }
    text.truncate(used_bytes);
    Ok(Some(text))
}

/// Whether this is the user that the packaged daemon runs as: root looks its files over with `penstock check`.
fn is_service_user(owner: u32) -> bool {
    matches!(User::from_name("penstock-control"), Ok(Some(user)) if user.uid.as_raw() == owner)
}
