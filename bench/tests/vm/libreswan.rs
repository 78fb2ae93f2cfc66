//! Penstock against libreswan 4.10, whose pluto has no ESP but the kernel's: its default proposals, preshared keys and
//! certificates, both ends as initiator, renewals of both kinds by both.

use bench::pki::{KeyKind, Pki};

use crate::peers::Site;

const SECRET: &str = "a-preshared-key-of-this-test-0123456789";

/// How the two ends authenticate each other.
#[derive(Clone, Copy)]
enum Auth {
    Preshared,
    Certificates,
}

impl Auth {
    fn penstock(self) -> String {
        let (file, connection) = match self {
            Self::Preshared => ("", "auth = \"psk\"\npsk_file = \"{folder}/psk\""),
            Self::Certificates => (
                r#"[[authority]]
certificate_file = "{folder}/ca.pem"

[[credential]]
name = "own"
certificate_file = "{folder}/own.pem"
key_file = "{folder}/own.key"
"#,
                "auth = \"certificate\"\ncredential = \"own\"",
            ),
        };
        // Proposals are those that both ends have by default.
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
local = ["198.51.100.2"]
remote = ["198.51.100.1"]
{connection}
local_id = "gw2.example"
remote_id = "gw1.example"

[[connection.child]]
name = "net"
local_ts = ["10.2.0.0/24"]
remote_ts = ["10.1.0.0/24"]
start = "none"
"#
        )
    }

    fn libreswan(self) -> String {
        let auth = match self {
            Self::Preshared => "authby=secret",
            Self::Certificates => {
                "leftcert=own\n    leftsendcert=always\n    leftrsasigkey=%cert\n    rightrsasigkey=%cert"
            }
        };
        format!(
            r#"config setup
    logfile=/run/pluto.log
    nssdir=/run/nss
    dnssec-enable=no

conn site
    left=198.51.100.1
    leftid=@gw1.example
    leftsubnet=10.1.0.0/24
    right=198.51.100.2
    rightid=@gw2.example
    rightsubnet=10.2.0.0/24
    {auth}
    auto=add
"#
        )
    }
}

/// pluto in the machine.
struct Peer {
    site: Site,
}

impl Peer {
    fn boot(stem: &str) -> Self {
        let pki = Pki::new().unwrap();
        let [ours, theirs] =
            ["gw2.example", "gw1.example"].map(|name| pki.issue(name, KeyKind::Rsa).unwrap());
        let peer = Self {
            site: Site::boot(
                stem,
                &Auth::Preshared.penstock(),
                &[
                    ("psk", SECRET),
                    ("ca.pem", &pki.certificate()),
                    ("own.pem", &ours.certificate),
                    ("own.key", &ours.key),
                ],
            ),
        };
        let site = &peer.site;
        site.write(
            "/etc/ipsec.secrets",
            &format!("@gw1.example @gw2.example : PSK \"{SECRET}\"\n"),
        );
        site.write("/run/ca.pem", &pki.certificate());
        site.write("/run/own.pem", &theirs.certificate);
        site.write("/run/own.key", &theirs.key);
        for command in [
            "mkdir -p /run/nss /run/pluto",
            "certutil -N -d sql:/run/nss --empty-password",
            "certutil -A -d sql:/run/nss -n ca -t CT,, -a -i /run/ca.pem",
            "openssl pkcs12 -export -in /run/own.pem -inkey /run/own.key -name own -passout pass: -out /run/own.p12",
            "pk12util -i /run/own.p12 -d sql:/run/nss -W ''",
        ] {
            peer.does(command);
        }
        // Loaded with its first SA, an emulated kernel would take longer than pluto holds an SPI for.
        site.machine.run("modprobe -a esp4 esp6 gcm ctr cbc seqiv echainiv ghash_generic sha256_generic sha512_generic authenc hmac; true");
        peer.configure(Auth::Preshared);
        site.spawn("/usr/libexec/ipsec/pluto --config /etc/ipsec.conf --nofork");
        site.wait_for("pluto", || site.inside("ipsec whack --status").is_ok());
        peer.does("ipsec whack --listen");
        peer.load(Auth::Preshared);
        peer
    }

    fn does(&self, command: &str) -> String {
        self.site
            .inside(command)
            .unwrap_or_else(|error| panic!("{error}\n{}", self.site.situation()))
    }

    fn configure(&self, auth: Auth) {
        self.site.write("/etc/ipsec.conf", &auth.libreswan());
    }

    /// Gives pluto its connection anew.
    fn load(&self, auth: Auth) {
        self.configure(auth);
        self.does("ipsec auto --replace site");
    }

    /// The pair is in the machine's kernel, and the hosts reach each other by it.
    fn assert_carries(&self) {
        self.site.assert_joined();
        let states = self.site.machine.run("ip xfrm state");
        assert!(
            states.matches("mode tunnel").count() >= 2 && !states.contains("encap type"),
            "{}",
            self.site.situation()
        );
    }

    /// Packets that came by SAs which Penstock did not have yet.
    fn sent_early(&self) -> i64 {
        let drops = self.site.does(&["show", "drops"]);
        let line = drops.lines().find(|line| line.contains("spi_unknown"));
        let count = line.and_then(|line| line.split_whitespace().nth(2));
        count.map_or(0, |count| count.parse().unwrap())
    }

    /// pluto takes the connection down; where it brought it up, it would have it up again after our delete.
    fn terminates(&self) {
        let site = &self.site;
        self.does("ipsec whack --terminate --name site");
        site.wait_for("the peer's delete", || site.ike()["state"] != "established");
        site.wait_for_no_sa();
    }

    /// Either end brings the connection up, and the other one takes it down.
    fn both_ways(&self) {
        let site = &self.site;
        site.up();
        assert_eq!(site.ike()["initiator"], true);
        self.assert_carries();
        self.terminates();
        self.does("ipsec whack --initiate --name site --asynchronous");
        site.wait_for("the peer's connection", || site.ike()["state"] == "established");
        assert_eq!(site.ike()["initiator"], false, "{}", site.situation());
        self.assert_carries();
    }
}

#[test]
fn libreswan_by_preshared_key_and_certificates_with_its_default_proposals() {
    let peer = Peer::boot("vm-libreswan");
    let site = &peer.site;
    peer.both_ways();
    // pluto initiated; both ends renew both kinds.
    let lost = site.renew(
        (&site.topology.host_b, "10.1.0.10"),
        || drop(peer.does("ipsec whack --rekey-ipsec --name site --asynchronous")),
        || drop(peer.does("ipsec whack --rekey-ike --name site --asynchronous")),
    );
    // Answering a renewal, pluto sends by the new pair before its answer, without which nobody can open what it sends.
    assert!(lost <= peer.sent_early(), "{lost} lost\n{}", site.situation());
    peer.assert_carries();
    peer.terminates();

    site.configure(&Auth::Certificates.penstock());
    peer.load(Auth::Certificates);
    peer.both_ways();
    peer.terminates();
}
