//! A Penstock gateway and a strongSwan gateway between two hosts.

use std::process::Stdio;
use std::time::Duration;

use bench::gateway::{Dataplane, Gateway};
use bench::namespace::Namespace;
use bench::process::wait_until;
use bench::strongswan::{Files, StrongSwan};
use bench::topology::{Links, Topology};

pub(crate) const LIMIT: Duration = Duration::from_secs(20);
pub(crate) const SECRET: &str = "a-preshared-key-of-this-test-0123456789";

/// What the two ends are told.
#[derive(Clone)]
pub(crate) struct Terms {
    /// More lines for the top of `penstock.toml`.
    pub(crate) file: String,
    /// Addresses and authentication in `[[connection]]`.
    pub(crate) connection: String,
    /// The children of Penstock.
    pub(crate) children: String,
    /// Secrets beside `penstock.toml`.
    pub(crate) secrets: Vec<(String, String)>,
    /// strongSwan's `connections.peer`, but for `local`, `remote` and `children`.
    pub(crate) peer: String,
    /// Its `local` and `remote` sections.
    pub(crate) peer_auth: String,
    /// Its `children`.
    pub(crate) peer_children: String,
    /// Its `secrets` and `pools`.
    pub(crate) peer_secrets: String,
    pub(crate) charon: String,
    pub(crate) pem: Vec<(String, String)>,
    /// Outer addresses of IPv6.
    pub(crate) outer_ipv6: bool,
    /// strongSwan 6.1, which has ML-KEM.
    pub(crate) is_6_1: bool,
}

impl Terms {
    /// One child between the sites, authenticated by a preshared key, with everything else as both ends have it by
    /// default.
    pub(crate) fn preshared() -> Self {
        Self {
            file: String::new(),
            connection: "auth = \"psk\"\npsk_file = \"{folder}/psk\"\nlocal_id = \"gw1.example\"\nremote_id = \"gw2.example\"\n".into(),
            children: CHILD.into(),
            secrets: vec![("psk".into(), SECRET.into())],
            peer: String::new(),
            peer_auth: "local { auth = psk\n id = gw2.example }\n remote { auth = psk\n id = gw1.example }".into(),
            peer_children: peer_child("", ""),
            peer_secrets: format!("secrets {{ ike-1 {{ secret = \"{SECRET}\" }} }}"),
            charon: String::new(),
            pem: Vec::new(),
            outer_ipv6: false,
            is_6_1: false,
        }
    }

    fn outer(&self, number: u8) -> String {
        let network = if self.outer_ipv6 {
            "2001:db8:77::"
        } else {
            "198.51.100."
        };
        format!("{network}{number}")
    }

    pub(crate) fn penstock(&self) -> String {
        let Self {
            file,
            connection,
            children,
            ..
        } = self;
        let addresses = if connection.contains("remote = ") {
            String::new()
        } else {
            format!(
                "local = [\"{}\"]\nremote = [\"{}\"]\n",
                self.outer(1),
                self.outer(2)
            )
        };
        format!(
            r#"[[port]]
interface = "lan"
role = "protected"

[[port]]
interface = "wan"
role = "internet"

{file}
[[connection]]
name = "site"
{addresses}{connection}
{children}
"#
        )
    }

    pub(crate) fn strongswan(&self) -> String {
        let Self {
            peer,
            peer_auth,
            peer_children,
            peer_secrets,
            ..
        } = self;
        let addresses = if peer.contains("remote_addrs") {
            String::new()
        } else {
            format!(
                "local_addrs = {}\n remote_addrs = {}",
                self.outer(2),
                self.outer(1)
            )
        };
        let proposals = if peer.contains("proposals") {
            ""
        } else {
            "proposals = aes128gcm16-prfsha256-x25519,aes256-sha256-modp2048"
        };
        format!(
            "connections {{ peer {{ version = 2\n {addresses}\n {proposals}\n send_cert = always\n {peer}\n {peer_auth}\n children {{ {peer_children} }} }} }}\n{peer_secrets}\n"
        )
    }

    pub(crate) fn files(&self) -> Files {
        Files {
            connections: self.strongswan(),
            charon_lines: self.charon.clone(),
            pem: self.pem.clone(),
        }
    }
}

/// Penstock's child between the sites.
pub(crate) const CHILD: &str = r#"[[connection.child]]
name = "net"
local_ts = ["10.1.0.0/24"]
remote_ts = ["10.2.0.0/24"]
"#;

/// strongSwan's.
pub(crate) fn peer_child(esp_proposals: &str, lines: &str) -> String {
    let esp = if esp_proposals.is_empty() {
        "aes128gcm16-x25519,aes128gcm16,aes256-sha256"
    } else {
        esp_proposals
    };
    format!(
        "net {{ local_ts = 10.2.0.0/24\n remote_ts = 10.1.0.0/24\n esp_proposals = {esp}\n rekey_time = 0\n {lines} }}"
    )
}

/// Both gateways running.
pub(crate) struct Site {
    pub(crate) penstock: Gateway,
    pub(crate) strongswan: StrongSwan,
    pub(crate) topology: Topology,
}

impl Site {
    pub(crate) fn start(stem: &str, terms: &Terms) -> Self {
        Self::start_over(Topology::new(stem, Links::default()).unwrap(), terms)
    }

    pub(crate) fn start_over(topology: Topology, terms: &Terms) -> Self {
        let secrets: Vec<(&str, &str)> = terms
            .secrets
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .collect();
        // Its packets in clear, before and after the tunnel, are no answer to any question here.
        topology
            .gateway_2
            .ip("route add unreachable 10.1.0.0/24")
            .unwrap();
        let strongswan = if terms.is_6_1 {
            StrongSwan::start_6_1(&topology.gateway_2, &terms.files()).unwrap()
        } else {
            StrongSwan::start(&topology.gateway_2, &terms.files()).unwrap()
        };
        let penstock = Gateway::start(
            &topology.gateway_1,
            &terms.penstock(),
            &secrets,
            Dataplane::default(),
        )
        .unwrap();
        Self {
            penstock,
            strongswan,
            topology,
        }
    }

    /// Both take other terms.
    pub(crate) fn change(&self, terms: &Terms) {
        self.strongswan.connections(&terms.strongswan()).unwrap();
        self.strongswan.load().unwrap_or_else(|error| panic!("{error}"));
        for (name, text) in &terms.secrets {
            std::fs::write(self.penstock.folder().join(name), text).unwrap();
        }
        self.penstock.configure(&terms.penstock()).unwrap();
        self.penstock
            .penstock(&["reload"])
            .unwrap_or_else(|error| panic!("{error}"));
    }

    pub(crate) fn logs(&self) -> String {
        let mut text = format!(
            "--- strongSwan\n{}\n{}",
            self.strongswan.log(),
            self.penstock.logs()
        );
        for noun in ["ike", "sa", "tunnels", "routes", "drops"] {
            text += &self
                .penstock
                .penstock(&["show", noun])
                .unwrap_or_else(|error| error.to_string());
        }
        text
    }

    /// Penstock's command line; its own words where it fails.
    pub(crate) fn does(&self, arguments: &[&str]) -> String {
        self.penstock
            .penstock(arguments)
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}\n{}", self.logs()))
    }

    /// swanctl; charon's words where it fails.
    pub(crate) fn peer_does(&self, arguments: &[&str]) -> String {
        self.strongswan
            .swanctl(arguments)
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}\n{}", self.logs()))
    }

    pub(crate) fn peer_initiates(&self) {
        self.peer_does(&["--initiate", "--child", "net", "--timeout", "15"]);
    }

    /// The hosts reach each other.
    pub(crate) fn assert_joined(&self) {
        let Topology { host_a, host_b, .. } = &self.topology;
        self.assert_answers(host_a, "10.2.0.10");
        self.assert_answers(host_b, "10.1.0.10");
    }

    /// The same, first at Penstock's asking, then at the peer's.
    pub(crate) fn assert_joined_by_either(&self) {
        self.does(&["up", "site"]);
        self.assert_joined();
        self.does(&["down", "site"]);
        self.peer_initiates();
        self.assert_joined();
    }

    pub(crate) fn assert_answers(&self, from: &Namespace, to: &str) {
        assert!(
            wait_until(LIMIT, || answers(from, to)),
            "no answer from {to}\n{}",
            self.logs()
        );
    }

    /// `show ike`, the first record.
    pub(crate) fn ike(&self) -> serde_json::Value {
        self.penstock.json(&["show", "ike"]).unwrap()["ike"][0].clone()
    }

    pub(crate) fn wait_for(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        assert!(wait_until(LIMIT, || condition(self)), "{what}\n{}", self.logs());
    }
}

pub(crate) fn answers(from: &Namespace, to: &str) -> bool {
    from.run(&format!("ping -c 1 -W 1 {to}")).is_ok()
}

/// Runs echo requests from `from` to `to` every 10 ms while `meanwhile` goes on; returns how many were lost.
pub(crate) fn lost_during(from: &Namespace, to: &str, count: u32, meanwhile: impl FnOnce()) -> u32 {
    let mut command = from.command("ping");
    command.args(["-q", "-i", "0.01", "-W", "2", "-c", &count.to_string(), to]);
    let ping = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    meanwhile();
    let output = String::from_utf8(ping.wait_with_output().unwrap().stdout).unwrap();
    let received: u32 = output
        .lines()
        .find_map(|line| line.split(", ").find_map(|part| part.strip_suffix(" received")))
        .unwrap_or_else(|| panic!("no summary in {output:?}"))
        .parse()
        .unwrap();
    count - received
}
