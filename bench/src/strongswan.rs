//! A strongSwan peer in a namespace: charon with userspace ESP (`kernel-libipsec`), its files in a folder of its own.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use thiserror::Error;

use crate::namespace::{CommandError, Namespace, run};
use crate::process::{Process, wait_until};

const START_LIMIT: Duration = Duration::from_secs(20);

/// Listed, so that none is loaded that would touch the host.
const PLUGINS: &str = "random nonce aes sha1 sha2 md5 mgf1 hmac kdf gcm ccm ctr chapoly cmac xcbc curve25519 \
    drbg gmp openssl pem pkcs1 pkcs8 x509 constraints revocation pubkey socket-default \
    vici updown attr eap-identity eap-mschapv2 eap-tls counters";

/// Who carries the ESP of a charon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Esp {
    /// charon itself, over a TUN device.
    Userspace,
    /// The kernel that it runs on.
    Kernel,
}

impl Esp {
    /// libipsec comes before netlink, which then leaves SAs to it.
    fn plugins(self) -> &'static str {
        match self {
            Self::Userspace => "kernel-libipsec kernel-netlink",
            Self::Kernel => "kernel-netlink",
        }
    }
}

/// Why a peer does not run.
#[derive(Debug, Error)]
pub enum PeerError {
    /// Files or processes.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A command failed.
    #[error("{0}")]
    Command(#[from] CommandError),
    /// charon did not come up.
    #[error("charon does not answer; its log:\n{0}")]
    Silent(String),
}

/// What a peer is started with.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// `swanctl.conf`, whole.
    pub connections: String,
    /// More lines for the section `charon` of `strongswan.conf`.
    pub charon_lines: String,
    /// Certificates and keys in PEM by their places, such as `x509/own.pem`, `private/own.pem`, `x509ca/ca.pem`.
    pub pem: Vec<(String, String)>,
}

/// A running charon; stopped on drop, its folder removed.
#[derive(Debug)]
pub struct StrongSwan {
    namespace: String,
    folder: PathBuf,
    /// The root that it runs in, where that is not the machine's.
    root: Option<PathBuf>,
    process: Option<Process>,
}

impl StrongSwan {
    /// Writes the files, starts charon in `namespace` and loads the connections.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub fn start(namespace: &Namespace, files: &Files) -> Result<Self, PeerError> {
        Self::start_in(None, namespace, files)
    }

    /// The same with the strongSwan 6.1 of the root that `bench/strongswan61/prepare` makes.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub fn start_6_1(namespace: &Namespace, files: &Files) -> Result<Self, PeerError> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("strongswan61/prepare");
        run(&mut Command::new(script))?;
        let cache = std::env::var_os("PENSTOCK_STRONGSWAN61")
            .map_or_else(|| PathBuf::from("/var/tmp/penstock-strongswan61"), PathBuf::from);
        Self::start_in(Some(cache.join("root")), namespace, files)
    }

    fn start_in(root: Option<PathBuf>, namespace: &Namespace, files: &Files) -> Result<Self, PeerError> {
        let name = format!("charon-{}", namespace.name());
        let folder = match &root {
            Some(root) => root.join("var/peers").join(name),
            None => std::env::temp_dir().join(name),
        };
        let make = |path: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        for name in [
            "x509", "x509ca", "x509ocsp", "x509aa", "x509ac", "x509crl", "pubkey", "private", "rsa", "ecdsa",
            "pkcs8", "pkcs12",
        ] {
            make(&folder.join(name))?;
        }
        // As the daemon itself sees it.
        let seen = match &root {
            Some(root) => Path::new("/").join(folder.strip_prefix(root).unwrap_or(&folder)),
            None => folder.clone(),
        };
        fs::write(
            folder.join("strongswan.conf"),
            settings(&seen, Esp::Userspace, &files.charon_lines),
        )?;
        for (place, pem) in &files.pem {
            fs::write(folder.join(place), pem)?;
            fs::set_permissions(folder.join(place), fs::Permissions::from_mode(0o600))?;
        }
        let mut peer = Self {
            namespace: namespace.name().to_owned(),
            folder,
            root,
            process: None,
        };
        peer.connections(&files.connections)?;
        // What it sends in UDP leaves through a veth pair: nobody but it would finish the checksum.
        let _ = namespace.run("ethtool -K wan tx off");
        peer.restart()?;
        Ok(peer)
    }

    /// Starts charon, again where it was killed, and loads the connections.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub fn restart(&mut self) -> Result<(), PeerError> {
        let socket = self.folder.join("vici.sock");
        let _ = fs::remove_file(&socket);
        let mut command = match &self.root {
            None => self.inside("/usr/sbin/charon-systemd"),
            Some(root) => self.in_root(root),
        };
        command.env_remove("NOTIFY_SOCKET");
        let process = Process::spawn(command, &self.folder.join("charon.out"))?;
        self.process = Some(process);
        if !wait_until(START_LIMIT, || socket.exists()) {
            return Err(PeerError::Silent(self.log()));
        }
        self.load()?;
        Ok(())
    }

    /// Replaces `swanctl.conf`; [`Self::load`] applies it.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn connections(&self, text: &str) -> io::Result<()> {
        fs::write(self.folder.join("swanctl.conf"), text)
    }

    /// Loads connections and secrets.
    ///
    /// # Errors
    /// [`CommandError`] where one is refused.
    pub fn load(&self) -> Result<(), CommandError> {
        let file = self.folder.join("swanctl.conf");
        self.swanctl(&[
            "--load-all",
            "--noprompt",
            "--clear",
            "--file",
            &file.to_string_lossy(),
        ])
        .map(drop)
    }

    /// Runs `swanctl` against this peer.
    ///
    /// # Errors
    /// [`CommandError`] where it does not end with status 0.
    pub fn swanctl(&self, arguments: &[&str]) -> Result<String, CommandError> {
        let uri = format!("unix://{}", self.folder.join("vici.sock").display());
        let mut command = self.inside("swanctl");
        let (verb, rest) = arguments.split_first().unwrap_or((&"--version", &[]));
        run(command.arg(verb).args(["--uri", &uri]).args(rest))
    }

    /// charon's process; `None` between a kill and the next start.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// What charon logged.
    #[must_use]
    pub fn log(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        read("charon.log") + &read("charon.out")
    }

    /// Kills charon at once, as a crash would.
    ///
    /// # Errors
    /// Where the kernel cannot say what became of it.
    pub fn kill(&mut self) -> io::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
        }
        Ok(())
    }

    /// charon in a mount namespace of its own, where the root's devices are the machine's.
    fn in_root(&self, root: &Path) -> Command {
        let conf = Path::new("/").join(self.folder.strip_prefix(root).unwrap_or(&self.folder));
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, "unshare", "-m", "sh", "-ec"]);
        command.arg(
            r#"mount --make-rprivate /; mount --bind /dev "$1/dev"; mount -t proc proc "$1/proc"
            exec chroot "$1" env STRONGSWAN_CONF="$2/strongswan.conf" /usr/sbin/charon-systemd"#,
        );
        command.arg("charon").arg(root).arg(conf);
        command
    }

    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, program]);
        command.env("STRONGSWAN_CONF", self.folder.join("strongswan.conf"));
        command.env("SWANCTL_DIR", &self.folder);
        command
    }
}

impl Drop for StrongSwan {
    fn drop(&mut self) {
        self.process.take();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A `strongswan.conf` whose socket and log are in `folder`, with more lines for its section `charon`.
#[must_use]
pub fn settings(folder: &Path, esp: Esp, charon_lines: &str) -> String {
    let folder = folder.display();
    let plugins = format!("{} {PLUGINS}", esp.plugins());
    format!(
        r"charon {{
  load = {plugins}
  retransmit_tries = 4
  retransmit_timeout = 1.0
  retransmit_base = 1.4
  cookie_threshold_ip = 1000
  block_threshold = 2000
  {charon_lines}
  plugins {{
    vici {{
      socket = unix://{folder}/vici.sock
    }}
    kernel-libipsec {{
      allow_peer_ts = yes
    }}
  }}
  filelog {{
    main {{
      path = {folder}/charon.log
      flush_line = yes
      time_format = %H:%M:%S
      default = 1
      cfg = 2
      enc = 1
      job = 0
    }}
  }}
}}
charon-systemd {{
  load = {plugins}
}}
swanctl {{
  load = pem pkcs1 pkcs8 x509 openssl pubkey random nonce constraints
}}
"
    )
}
