//! Connections in configuration files, good and bad.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use control::config::{Gateway, KeyAccess, Problems, Remote};
use ike::{Identity, LocalAuth, RemoteAuth, RemoteId, StartAction};
use southbound::Mode;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("penstock-connections-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn secret(&self, name: &str, text: &str, mode: u32) {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn load(&self, text: &str) -> Result<Gateway, Problems> {
        let path = self.0.join("penstock.toml");
        fs::write(&path, text).unwrap();
        Gateway::load(&path, KeyAccess::Required).map(|loaded| loaded.gateway)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const SECRET: &str = "correct horse battery staple, as they say";

const SITE: &str = r#"
[[connection]]
name = "b"
local = ["192.0.2.1"]
remote = ["192.0.2.2", "backup.example:4500"]
local_id = "a.example"
remote_id = "b.example"
auth = "psk"
psk_file = "psk"
proposals = ["aes256gcm16-prfsha384-x25519", "default"]
rekey = { after = "8h", margin = "10m", fuzz = "30m" }
dpd = 15
retransmission = { first_ms = 500, base = 2.0, longest = "10s", tries = 5 }
fragment_bytes = 1400
mobike = false
[[connection.child]]
name = "data"
local_ts = ["10.1.0.0/16"]
remote_ts = ["10.2.0.0/16", "10.3.0.4-10.3.0.7"]
start = "start"
rekey = { after = "1h", bytes = 1000000 }
[[connection.child]]
name = "voice"
mode = "transport"
local_ts = ["192.0.2.1[udp/5060]"]
remote_ts = ["192.0.2.2[udp]"]
"#;

#[test]
fn a_connection_means_what_it_says() {
    let folder = Folder::new("whole");
    folder.secret("psk", SECRET, 0o600);
    let gateway = folder.load(SITE).unwrap_or_else(|problems| panic!("{problems}"));
    let connection = &gateway.connections[0];
    assert_eq!(
        connection.remotes,
        [
            Remote::Address(SocketAddr::from(([192, 0, 2, 2], 500))),
            Remote::Name("backup.example".into(), 4500)
        ]
    );
    let engine = &connection.engine;
    assert_eq!(engine.local_auth, LocalAuth::Psk);
    assert_eq!(engine.remote_auth, RemoteAuth::Psk);
    assert_eq!(
        engine.remote_id,
        RemoteId::Exactly(Identity::Fqdn("b.example".into()))
    );
    assert!(
        engine.proposals.len() > 2,
        "the word default stands for the defaults"
    );
    assert_eq!(engine.rekey.renew_after, Duration::from_secs(8 * 3600));
    assert_eq!(engine.rekey.give_up_after, Duration::from_secs(8 * 3600 + 600));
    assert_eq!(engine.dpd_delay, Some(Duration::from_secs(15)));
    assert_eq!((engine.retransmission.tries, engine.mobike), (5, false));
    let [data, voice] = engine.children.as_slice() else {
        panic!("{:?}", engine.children)
    };
    assert_eq!((data.start, data.mode), (StartAction::Start, Mode::Tunnel));
    assert_eq!(data.bytes.unwrap().renew_at, 1_000_000);
    assert_eq!(
        (voice.start, voice.mode),
        (StartAction::OnTraffic, Mode::Transport)
    );
    // A child is a tunnel with routes, or rules where its selectors are narrow.
    let names: Vec<_> = gateway
        .tunnels
        .iter()
        .map(|tunnel| tunnel.name.as_str())
        .collect();
    assert_eq!(names, ["b/data", "b/voice"]);
    let routes: Vec<_> = gateway.tunnels[0]
        .routes
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(routes, ["10.2.0.0/16", "10.3.0.4/30"]);
    assert_eq!(
        (
            gateway.tunnels[0].policy_priority,
            gateway.tunnels[1].policy_priority
        ),
        (None, Some(1000))
    );
    assert!(gateway.tunnels[1].routes.is_empty());
    assert!(
        gateway
            .policies
            .iter()
            .any(|policy| policy.name == "IKE of b/voice" && policy.priority == 0)
    );
}

#[test]
fn identities_of_every_kind() {
    let folder = Folder::new("identities");
    folder.secret("psk", SECRET, 0o600);
    let remote_id = |text: &str| {
        let text = SITE.replace("\"b.example\"", &format!("{text:?}"));
        let gateway = folder.load(&text).unwrap_or_else(|problems| panic!("{problems}"));
        gateway.connections[0].engine.remote_id.clone()
    };
    let name = Identity::from_text("C=CH, O=Example, CN=gw");
    assert!(matches!(&name, Identity::DistinguishedName(der) if der.starts_with(&[0x30])));
    for (text, wanted) in [
        ("CN=gw, O=Example, C=CH", name),
        ("ops@b.example", Identity::Email("ops@b.example".into())),
        ("keyid:00ff", Identity::KeyId(vec![0, 255])),
        ("2001:db8::2", Identity::Address("2001:db8::2".parse().unwrap())),
        ("@b.example", Identity::Fqdn("b.example".into())),
    ] {
        assert_eq!(remote_id(text), RemoteId::Exactly(wanted), "{text}");
    }
    assert_eq!(remote_id("*.example"), RemoteId::FqdnBelow("example".into()));
    assert_eq!(remote_id("*@example"), RemoteId::EmailAt("example".into()));
    assert_eq!(remote_id("%any"), RemoteId::Any);
}

#[test]
fn no_secret_is_shown() {
    let folder = Folder::new("debug");
    folder.secret("psk", SECRET, 0o600);
    folder.secret("alice", "in wonderland", 0o600);
    folder.secret("radius", "shared with the server", 0o600);
    let text = format!(
        "{SITE}\n[[secret]]\nkind = \"eap\"\nid = [\"alice\"]\nfile = \"alice\"\n[[secret]]\nkind = \"ppk\"\nid = [\"q\"]\nfile = \"alice\"\n\
         [[radius]]\nserver = \"192.0.2.9\"\nsecret_file = \"radius\"\n"
    );
    let shown = format!("{:?}", folder.load(&text).unwrap());
    for secret in [SECRET, "in wonderland", "shared with the server"] {
        assert!(!shown.contains(secret), "{shown}");
        assert!(!shown.contains(&format!("{:?}", secret.as_bytes())), "{shown}");
    }
}

#[test]
fn every_fault_is_told_with_its_place() {
    let folder = Folder::new("faults");
    folder.secret("psk", SECRET, 0o600);
    folder.secret("open", SECRET, 0o644);
    folder.secret("empty", "\n", 0o600);
    let base = "[[connection]]\nname = \"x\"\nremote = [\"192.0.2.2\"]\nauth = \"psk\"\npsk_file = \"psk\"\n";
    let child = "[[connection.child]]\nremote_ts = [\"10.0.0.0/8\"]\nlocal_ts = [\"10.0.0.0/8\"]\n";
    for (text, line, words) in [
        (base.to_owned(), 1, "child"),
        (format!("{base}wrong = 1\n{child}"), 6, "wrong"),
        (format!("{base}proposals = [\"aes512\"]\n{child}"), 6, "aes512"),
        (format!("{base}dpd = \"1 hour\"\n{child}"), 6, "90s"),
        (
            format!("{base}rekey = {{ after = \"1h\", bytes = 5 }}\n{child}"),
            6,
            "bytes",
        ),
        (
            format!("{base}rekey = {{ after = \"1h\", fuzz = \"2h\" }}\n{child}"),
            6,
            "fuzz",
        ),
        (format!("{base}ppk = \"nobody\"\n{child}"), 6, "nobody"),
        (
            format!("{base}local_id = \"CN=gw, street\"\n{child}"),
            6,
            "distinguished name",
        ),
        (format!("{base}remote_id = \"\"\n{child}"), 6, "empty"),
        (
            format!("[[secret]]\nkind = \"psk\"\nid = [\"frob=gw\"]\nfile = \"psk\"\n{base}{child}"),
            3,
            "frob=gw",
        ),
        (
            format!("{base}remote_networks = [\"10.0.0.0/99\"]\n{child}"),
            6,
            "prefix",
        ),
        (
            format!("{base}{child}").replace("192.0.2.2", "bad name!"),
            3,
            "bad name!",
        ),
        (
            format!("{base}{child}").replace("auth = \"psk\"\n", ""),
            2,
            "auth",
        ),
        (
            format!("{base}{child}").replace("auth = \"psk\"", "auth = \"certificate\""),
            4,
            "credential",
        ),
        (
            format!("{base}{child}").replace(
                "auth = \"psk\"",
                "remote_auth = \"eap-radius\"\nlocal_auth = \"psk\"",
            ),
            4,
            "[[radius]]",
        ),
        (
            format!("{base}{child}").replace("auth = \"psk\"", "auth = \"eap-mschapv2\""),
            4,
            "eap_user",
        ),
        (
            format!("{base}{child}").replace("\"psk\"\n[[", "\"open\"\n[["),
            5,
            "0600",
        ),
        (
            format!("{base}{child}").replace("\"psk\"\n[[", "\"empty\"\n[["),
            5,
            "one line of text",
        ),
        (
            format!("{base}{child}").replace("\"psk\"\n[[", "\"absent\"\n[["),
            5,
            "absent",
        ),
        (format!("{base}{child}start = \"now\"\n"), 9, "now"),
        (format!("{base}{child}replay_window = 65\n"), 9, "65"),
        (format!("{base}{child}vrf = \"blue\"\n"), 9, "blue"),
        (format!("{base}{child}{child}"), 2, "again"),
        (
            format!("{base}{child}").replace("remote_ts = [\"10.0.0.0/8\"]", "remote_ts = [\"ten\"]"),
            7,
            "dynamic",
        ),
    ] {
        let problems = folder.load(&text).expect_err(&text);
        let problem = &problems.0[0];
        assert_eq!(problem.line, line, "{problem}\nin\n{text}");
        assert!(problem.to_string().contains(words), "{words} is not in {problem}");
        assert!(!problem.to_string().contains(SECRET));
    }
    folder.load(&format!("{base}{child}")).unwrap();
}
