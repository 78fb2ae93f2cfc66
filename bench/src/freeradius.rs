//! A FreeRADIUS server in a namespace, with a configuration of its own.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::namespace::Namespace;
use crate::process::{Process, wait_until};

const START_LIMIT: Duration = Duration::from_secs(20);

/// A running server; stopped on drop, its folder removed.
#[derive(Debug)]
pub struct FreeRadius {
    folder: PathBuf,
    process: Option<Process>,
}

impl FreeRadius {
    /// Serves EAP-MSCHAPv2 at `address`, port 1812, for the client at `client`, which shares `secret`. `users` is its
    /// file of users.
    ///
    /// # Errors
    /// Where it does not start; its log is in the message.
    pub fn start(
        namespace: &Namespace,
        address: IpAddr,
        client: IpAddr,
        secret: &str,
        users: &str,
    ) -> io::Result<Self> {
        let folder = std::env::temp_dir().join(format!("radius-{}", namespace.name()));
        fs::create_dir_all(&folder)?;
        let shown = folder.display();
        fs::write(folder.join("dictionary"), "")?;
        fs::write(folder.join("users"), users)?;
        fs::write(
            folder.join("radiusd.conf"),
            format!(
                r"prefix = /usr
libdir = /usr/lib/freeradius
raddbdir = {shown}
logdir = {shown}
run_dir = {shown}
pidfile = {shown}/radiusd.pid
thread pool {{
  start_servers = 1
  max_servers = 2
  min_spare_servers = 1
  max_spare_servers = 1
  max_requests_per_server = 0
}}
client penstock {{
  ipaddr = {client}
  secret = {secret}
  require_message_authenticator = yes
}}
modules {{
  eap {{
    default_eap_type = mschapv2
    timer_expire = 60
    mschapv2 {{
    }}
  }}
  mschap {{
    use_mppe = yes
  }}
  files {{
    filename = {shown}/users
  }}
}}
server default {{
  listen {{
    type = auth
    ipaddr = {address}
    port = 1812
  }}
  authorize {{
    files
    eap {{
      ok = return
    }}
  }}
  authenticate {{
    Auth-Type MS-CHAP {{
      mschap
    }}
    eap
  }}
}}
"
            ),
        )?;
        let mut command = namespace.command("freeradius");
        command.args(["-f", "-X", "-n", "radiusd", "-d"]).arg(&folder);
        let server = Self {
            process: Some(Process::spawn(command, &folder.join("log"))?),
            folder,
        };
        if wait_until(START_LIMIT, || server.log().contains("Ready to process requests")) {
            Ok(server)
        } else {
            Err(io::Error::other(server.log()))
        }
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for FreeRadius {
    fn drop(&mut self) {
        self.process.take();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
