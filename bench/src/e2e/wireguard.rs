//! One end of a WireGuard tunnel by `wireguard-go`, over a TUN device.

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::namespace::{CommandError, Namespace};
use crate::process::{Process, wait_until};

const PORT: u16 = 51_820;

/// A running end; stopped on drop, its key removed.
#[derive(Debug)]
pub struct Wireguard {
    interface: String,
    public_key: String,
    key_file: PathBuf,
    process: Process,
}

impl Wireguard {
    /// Starts `wireguard-go` in `namespace` with a new key. Its interface is `wg` and `number`, for the programs' sockets
    /// have one folder for all namespaces.
    ///
    /// # Errors
    /// Where `wireguard-go` or `wg` is not installed or does not come up.
    pub fn start(namespace: &Namespace, number: u8) -> Result<Self, Box<dyn Error>> {
        let interface = format!("wg{number}-{}", std::process::id() % 100_000);
        let key_file = std::env::temp_dir().join(format!("{interface}.key"));
        let log = std::env::temp_dir().join(format!("{interface}.log"));
        let key = namespace.run("wg genkey")?;
        fs::write(&key_file, &key)?;
        fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600))?;
        let mut command = namespace.command("wireguard-go");
        command.args(["--foreground", &interface]);
        let process = Process::spawn(command, &log)?;
        let is_up = wait_until(Duration::from_secs(10), || {
            namespace.run(&format!("wg show {interface}")).is_ok()
        });
        let words = process.log();
        let _ = fs::remove_file(&log);
        if !is_up {
            return Err(format!("wireguard-go does not come up: {words}").into());
        }
        namespace.run(&format!(
            "wg set {interface} listen-port {PORT} private-key {}",
            key_file.display()
        ))?;
        let public_key = namespace
            .run(&format!("wg show {interface} public-key"))?
            .trim()
            .to_owned();
        Ok(Self {
            interface,
            public_key,
            key_file,
            process,
        })
    }

    /// Makes `peer` at `address` known, whose side has `networks`, and routes them there.
    ///
    /// # Errors
    /// Where a command is refused.
    pub fn meet(
        &self,
        namespace: &Namespace,
        peer: &Self,
        address: &str,
        networks: &str,
    ) -> Result<(), CommandError> {
        let interface = &self.interface;
        namespace.run(&format!(
            "wg set {interface} peer {} endpoint {address}:{PORT} allowed-ips {networks}",
            peer.public_key
        ))?;
        namespace.ip(&format!("link set {interface} up"))?;
        namespace.ip(&format!("route add {networks} dev {interface}"))?;
        Ok(())
    }

    /// The process that carries.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Wireguard {
    fn drop(&mut self) {
        // One that is gone is what was wanted.
        let _ = fs::remove_file(&self.key_file);
    }
}
