//! Penstock against strongSwan 5.9.8 on the kernel's own ESP, which knows what strongSwan's ESP in user space does not:
//! transport mode, ESN, and ESP without UDP around it.

use std::path::Path;

use bench::eavesdropper::{Eavesdropper, Kind};
use bench::strongswan::{Esp, settings};

use crate::peers::Site;

const SECRET: &str = "a-preshared-key-of-this-test-0123456789";

/// What the two ends agree on, and what the machine's kernel must say of it.
#[derive(Clone, Copy)]
struct Terms {
    ike: &'static str,
    /// As strongSwan and Penstock write it.
    esp: &'static str,
    /// What `ip xfrm state` calls the algorithm.
    algorithm: &'static str,
    is_transport: bool,
    outer_ipv6: bool,
    /// ESP in UDP, though there is no NAT.
    in_udp: bool,
}

const TUNNEL: Terms = Terms {
    ike: "aes128gcm16-prfsha256-x25519",
    esp: "aes128gcm16-esn",
    algorithm: "rfc4106(gcm(aes)) ",
    is_transport: false,
    outer_ipv6: false,
    in_udp: false,
};

const TRANSPORT: Terms = Terms {
    is_transport: true,
    ..TUNNEL
};

/// Each mode, each family outside and inside, with UDP around it and without, and each kind of algorithm with and
/// without ESN.
const TERMS: &[Terms] = &[
    TUNNEL,
    Terms {
        esp: "aes256-sha256-esn",
        algorithm: "cbc(aes)",
        ..TUNNEL
    },
    Terms {
        esp: "chacha20poly1305-x25519-esn",
        algorithm: "rfc7539esp(chacha20,poly1305)",
        outer_ipv6: true,
        ..TUNNEL
    },
    Terms {
        esp: "aes128-sha512-noesn",
        algorithm: "hmac(sha512)",
        outer_ipv6: true,
        ..TUNNEL
    },
    TRANSPORT,
    Terms {
        esp: "aes256ctr-sha384-esn",
        algorithm: "rfc3686(ctr(aes))",
        outer_ipv6: true,
        ..TRANSPORT
    },
    Terms {
        esp: "chacha20poly1305-noesn",
        algorithm: "rfc7539esp(chacha20,poly1305)",
        ..TRANSPORT
    },
    Terms {
        esp: "aes192gcm16-noesn",
        in_udp: true,
        ..TUNNEL
    },
    Terms {
        esp: "aes192-sha1-esn",
        algorithm: "hmac(sha1)",
        in_udp: true,
        ..TRANSPORT
    },
    Terms {
        esp: "aes256gmac-esn",
        algorithm: "rfc4543(gcm(aes))",
        ..TUNNEL
    },
    Terms {
        esp: "null-sha256-noesn",
        algorithm: "hmac(sha256)",
        ..TUNNEL
    },
];

impl Terms {
    fn outer(self, number: u8) -> String {
        if self.outer_ipv6 {
            format!("2001:db8:77::{number}")
        } else {
            format!("198.51.100.{number}")
        }
    }

    fn has_esn(self) -> bool {
        self.esp.ends_with("-esn")
    }

    fn penstock(self) -> String {
        let mode = if self.is_transport {
            "mode = \"transport\""
        } else {
            r#"local_ts = ["10.2.0.0/24", "fd02::/64"]
remote_ts = ["10.1.0.0/24", "fd01::/64"]"#
        };
        format!(
            r#"[[port]]
interface = "lan"
role = "protected"

[[port]]
interface = "wan"
role = "internet"

[[connection]]
name = "site"
local = ["{}"]
remote = ["{}"]
auth = "psk"
psk_file = "{{folder}}/psk"
local_id = "gw2.example"
remote_id = "gw1.example"
proposals = ["{}"]
force_udp_encapsulation = {}

[[connection.child]]
name = "net"
{mode}
proposals = ["{}"]
start = "none"
"#,
            self.outer(2),
            self.outer(1),
            self.ike,
            self.in_udp,
            self.esp
        )
    }

    fn strongswan(self) -> String {
        let selectors = if self.is_transport {
            "mode = transport"
        } else {
            "local_ts = 10.1.0.0/24,fd01::/64\n remote_ts = 10.2.0.0/24,fd02::/64"
        };
        format!(
            r#"connections {{ peer {{ version = 2
 local_addrs = {}
 remote_addrs = {}
 proposals = {}
 local {{ auth = psk
 id = gw1.example }}
 remote {{ auth = psk
 id = gw2.example }}
 children {{ net {{ {selectors}
 esp_proposals = {}
 rekey_time = 0 }} }} }} }}
secrets {{ ike-1 {{ secret = "{SECRET}" }} }}
"#,
            self.outer(1),
            self.outer(2),
            self.ike,
            self.esp
        )
    }
}

/// charon in the machine.
struct Peer {
    site: Site,
}

impl Peer {
    fn boot(stem: &str) -> Self {
        let peer = Self {
            site: Site::boot(stem, &TUNNEL.penstock(), &[("psk", SECRET)]),
        };
        let site = &peer.site;
        site.write(
            "/etc/strongswan.conf",
            &settings(Path::new("/run"), Esp::Kernel, ""),
        );
        site.spawn("/usr/sbin/charon-systemd");
        site.wait_for("charon's socket", || {
            site.inside("test -S /run/vici.sock").is_ok()
        });
        peer.load(TUNNEL);
        peer
    }

    fn load(&self, terms: Terms) {
        self.site.write("/etc/swanctl/swanctl.conf", &terms.strongswan());
        self.does("--load-all --noprompt --clear");
    }

    /// Both take other terms.
    fn change(&self, terms: Terms) {
        self.load(terms);
        self.site.configure(&terms.penstock());
    }

    fn does(&self, arguments: &str) -> String {
        let (verb, rest) = arguments.split_once(' ').unwrap_or((arguments, ""));
        self.site
            .inside(&format!("swanctl {verb} --uri unix:///run/vici.sock {rest}"))
            .unwrap_or_else(|error| panic!("{error}\n{}", self.site.situation()))
    }

    /// Traffic both ways, none of it in clear, and what the machine's kernel says of its SAs.
    fn assert_carries(&self, terms: Terms) {
        let Site {
            topology, machine, ..
        } = &self.site;
        let file = std::env::temp_dir().join(format!("{}.pcap", topology.internet.name()));
        let ear = Eavesdropper::listen(&topology.internet, "g2", &file, 2000).unwrap();
        if terms.is_transport {
            self.site.assert_answers(&topology.gateway_2, &terms.outer(1));
            self.site.wait_for("an answer to the kernel", || {
                machine
                    .attempt(&format!(
                        "ping -c 2 -i 0.2 -W 2 -s 900 -p 50454e53544f434b {}",
                        terms.outer(2)
                    ))
                    .is_ok()
            });
        } else {
            self.site.assert_joined();
            self.site.assert_answers(&topology.host_a, "fd02::10");
            self.site.assert_answers(&topology.host_b, "fd01::10");
            // Sizes that fill a frame, and those that must be fragmented before the tunnel or after it.
            for size in [1200, 1400, 1472] {
                self.site.wait_for(&format!("an answer of {size} bytes"), || {
                    topology
                        .host_b
                        .run(&format!(
                            "ping -c 1 -W 2 -s {size} -p 50454e53544f434b -M dont 10.1.0.10"
                        ))
                        .is_ok()
                });
            }
        }
        let capture = ear.finish().unwrap();
        std::fs::remove_file(file).unwrap();
        // Without encryption it can be read, though not changed.
        let is_legible = ["null", "gmac"].iter().any(|cipher| terms.esp.contains(cipher));
        assert_eq!(capture.contains(b"PENSTOCK"), is_legible);
        assert_eq!(capture.count(Kind::Clear), 0, "{}", self.site.situation());
        let around = if terms.in_udp {
            Kind::IkeOrUdpEsp
        } else {
            Kind::Esp
        };
        assert!(capture.count(around) > 2, "{}", self.site.situation());
        let mode = if terms.is_transport { "transport" } else { "tunnel" };
        // A renewed pair goes a little later.
        self.site.wait_for("one pair to be left", || {
            let states = machine.run("ip xfrm state");
            states.matches(&format!("mode {mode}")).count() == 2
        });
        let states = machine.run("ip -d xfrm state");
        assert!(states.contains(terms.algorithm), "{}", self.site.situation());
        let expected = if terms.has_esn() { 2 } else { 0 };
        assert_eq!(
            states
                .lines()
                .filter(|line| line.contains("flag") && line.contains("esn"))
                .count(),
            expected,
            "{}",
            self.site.situation()
        );
        assert_eq!(
            states.matches("encap type espinudp").count(),
            if terms.in_udp { 2 } else { 0 },
            "{}",
            self.site.situation()
        );
    }
}

#[test]
fn strongswan_on_the_kernels_esp_both_ways_in_every_mode() {
    let peer = Peer::boot("vm-esp");
    let site = &peer.site;
    for (number, terms) in TERMS.iter().enumerate() {
        println!("{} over {}", terms.esp, terms.outer(2));
        peer.change(*terms);
        let is_ours = number % 2 == 0;
        if is_ours {
            site.up();
        } else {
            peer.does("--initiate --child net --timeout 100");
        }
        assert_eq!(site.ike()["initiator"], is_ours);
        peer.assert_carries(*terms);
        // Each end deletes what the other one asked for.
        if is_ours {
            peer.does("--terminate --ike peer --timeout 100");
            site.wait_for("the peer's delete", || site.ike()["state"] != "established");
        } else {
            site.does(&["down", "site"]);
        }
        site.wait_for_no_sa();
        // The inbound one drains.
        site.wait_for("our SAs to go", || {
            let shown = site.penstock.json(&["show", "sa"]).unwrap();
            shown["sas"].as_array().unwrap().is_empty()
        });
    }
}

#[test]
fn rekeys_of_both_kinds_with_the_kernels_esp_lose_nothing() {
    let peer = Peer::boot("vm-rekey");
    let site = &peer.site;
    for terms in [TUNNEL, TRANSPORT] {
        peer.change(terms);
        site.up();
        peer.assert_carries(terms);
        let (from, to) = if terms.is_transport {
            (&site.topology.gateway_2, terms.outer(1))
        } else {
            (&site.topology.host_b, "10.1.0.10".to_owned())
        };
        let lost = site.renew(
            (from, &to),
            || drop(peer.does("--rekey --child net")),
            || drop(peer.does("--rekey --ike peer")),
        );
        assert_eq!(lost, 0, "{}", site.situation());
        peer.assert_carries(terms);
        site.does(&["down", "site"]);
        site.wait_for_no_sa();
    }
}
