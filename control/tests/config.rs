//! Configuration files, good and bad: what they mean, and that every fault is told with its place.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use control::config::{Gateway, KeyAccess, Problems};
use proptest::prelude::*;
use southbound::{DscpPolicy, Mode, PolicyDefault, PortRole, SaDirection, TtlPolicy, TunnelId, VrfId};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("penstock-config-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn key(&self, name: &str, byte: u8, length_bytes: usize, mode: u32) {
        let path = self.write(name, &format!("{byte:02x}").repeat(length_bytes));
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const TUNNEL: &str = r#"
[[tunnel]]
name = "b"
local = "192.0.2.1"
remote = "192.0.2.2"
routes = ["10.2.0.0/16"]
[[tunnel.sa]]
spi_in = 0x1001
spi_out = 0x2001
algorithm = "aes128gcm16"
key_in_file = "in.key"
key_out_file = "out.key"
"#;

fn load(folder: &Folder, text: &str) -> Result<Gateway, Problems> {
    let path = folder.write("penstock.toml", text);
    Gateway::load(&path, KeyAccess::Required).map(|loaded| loaded.gateway)
}

fn with_keys(name: &str) -> Folder {
    let folder = Folder::new(name);
    folder.key("in.key", 0x11, 20, 0o600);
    folder.key("out.key", 0x22, 20, 0o600);
    folder
}

#[test]
fn a_whole_configuration_means_what_it_says() {
    let folder = with_keys("whole");
    folder.key("cbc-in.key", 1, 16 + 32, 0o400);
    folder.key("cbc-out.key", 1, 16 + 32, 0o400);
    let gateway = load(
        &folder,
        &format!(
            r#"
[gateway]
name = "gw1"
dataplane_socket = "/run/a.sock"
[[vrf]]
name = "blue"
table = 10
[[port]]
interface = "eth0"
role = "protected"
vrf = "blue"
[[port]]
interface = "eth1"
role = "internet"
xdp = "generic"
require_zero_copy = true
mpls = true
{TUNNEL}
esn = true
replay_window = 128
soft_lifetime = {{ bytes = 1000, seconds = 60 }}
[[tunnel]]
name = "c"
mode = "transport"
local = "2001:db8::1"
remote = "2001:db8::2"
local_ts = ["2001:db8::1[udp/1701]"]
remote_ts = ["2001:db8::2[udp]"]
policy = true
dscp = 46
ttl = "copy"
mtu = 1400
clamp_mss = false
udp_encapsulation = {{ remote_port = 4501 }}
vrf = "blue"
[[tunnel.sa]]
spi_in = 0x1002
spi_out = 0x2002
algorithm = "aes128-sha256"
key_in_file = "cbc-in.key"
key_out_file = "cbc-out.key"
replay_window = 0
[[policy]]
name = "ssh"
action = "bypass"
priority = 5
local_ts = ["10.1.0.0/16[tcp/22]"]
remote_ts = ["0.0.0.0/0"]
"#
        ),
    )
    .unwrap();
    assert_eq!(gateway.name, "gw1");
    assert_eq!(gateway.dataplane_socket, Path::new("/run/a.sock"));
    assert_eq!(gateway.ports[0].vrf, VrfId(10));
    assert_eq!(gateway.ports[1].role, PortRole::Internet);
    assert!(gateway.ports[1].mpls.is_some() && gateway.ports[1].require_zero_copy);
    let b = &gateway.tunnels[0];
    assert_eq!(b.routes, b.host_routes);
    assert_eq!(b.selectors.len(), 2, "everything of both families");
    let sa = b.sa_spec(TunnelId(7), &b.sas[0], SaDirection::Inbound).unwrap();
    assert_eq!(sa.key.expose(), [0x11; 20]);
    assert_eq!(sa.replay_window.unwrap().packets(), 128);
    assert!(sa.extended_sequence_numbers);
    assert_eq!(sa.lifetime.soft.seconds, Some(60));
    assert_eq!(sa.lifetime.hard.bytes, None);
    assert_eq!(sa.reference(), b.reference(&b.sas[0], SaDirection::Inbound));
    let out = b.sa_spec(TunnelId(7), &b.sas[0], SaDirection::Outbound).unwrap();
    assert_eq!(
        (out.spi, out.selectors.len(), out.replay_window),
        (0x2001, 0, None)
    );
    assert_eq!(out.reference(), b.reference(&b.sas[0], SaDirection::Outbound));
    let c = &gateway.tunnels[1];
    assert_eq!(c.mode, Mode::Transport);
    assert_eq!((c.dscp, c.ttl), (DscpPolicy::Set(46), TtlPolicy::Copy));
    assert_eq!((c.mtu_bytes, c.clamp_mss), (Some(1400), false));
    let udp = c.udp.unwrap();
    assert_eq!((udp.local_port, udp.remote_port), (4500, 4501));
    assert_eq!((c.inner_vrf, c.outer_vrf), (VrfId(10), VrfId::MAIN));
    assert_eq!(c.policy_priority, Some(1000));
    assert_eq!(c.sas[0].replay_window, None);
    assert_eq!(gateway.policies[0].priority, 5);
}

/// A fault: what is appended to a good file, and what must be said of it.
const FAULTS: &[(&str, &str)] = &[
    ("[gateway\n", "expected"),
    ("colour = 1\n", "unknown field `colour`"),
    ("[gateway]\ncolour = 1\n", "unknown field `colour`, expected"),
    (
        "[gateway]\nname = 7\n",
        "invalid type: integer `7`, expected a string",
    ),
    ("[gateway]\nname = \"\"\n", "expected 1 to 256 bytes"),
    ("[gateway]\ntap = \"a/b\"\n", "expected an interface name"),
    ("[metrics]\nlisten = \"here\"\n", "expected an address and port"),
    ("[[port]]\nrole = \"protected\"\n", "missing field `interface`"),
    (
        "[[port]]\ninterface = \"e0\"\nrole = \"left\"\n",
        "unknown variant `left`, expected one of `protected`, `internet`, `trunk`",
    ),
    (
        "[[port]]\ninterface = \"e 0\"\nrole = \"internet\"\n",
        "expected an interface name",
    ),
    (
        "[[port]]\ninterface = \"e0\"\nrole = \"internet\"\nvrf = \"red\"\n",
        "expected the name of a [[vrf]] table (there is none)",
    ),
    (
        "[[port]]\ninterface = \"e0\"\nrole = \"internet\"\n[[port]]\ninterface = \"e0\"\nrole = \"internet\"\n",
        "found port \"e0\" again",
    ),
    ("[[vrf]]\nname = \"a\"\ntable = 254\n", "found table 254"),
    (
        "[[tunnel]]\nname = \"b\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\n",
        "found tunnel \"b\" again",
    ),
    (
        "[[tunnel]]\nname = \"c\"\nlocal = \"::1\"\nremote = \"192.0.2.2\"\n",
        "expected a unicast address",
    ),
    (
        "[[tunnel]]\nname = \"c\"\nlocal = \"2001:db8::1\"\nremote = \"192.0.2.2\"\n",
        "expected another address of the family of local",
    ),
    (
        "[[tunnel]]\nname = \"c\"\nlocal = \"300.0.2.1\"\nremote = \"192.0.2.2\"\n",
        "found \"300.0.2.1\": expected an IPv4 or IPv6 address",
    ),
    (
        "[[tunnel]]\nname = \"c\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\npolicy = true\n",
        "without local_ts",
    ),
    (
        "[[tunnel]]\nname = \"c\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\npriority = 4\n",
        "expected policy = true",
    ),
    (
        "[[tunnel]]\nname = \"c\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\nlocal_ts = [\"10.0.0.0/8[tcp]\"]\nremote_ts = [\"10.0.0.0/8[udp]\"]\n",
        "expected the protocol of every local_ts",
    ),
    (
        "[[tunnel]]\nname = \"c\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\nlocal_ts = [\"10.0.0.0/8\"]\nremote_ts = [\"::/0\"]\n",
        "of the same address family",
    ),
    (
        "[[tunnel]]\nname = \"c\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\nlocal_ts = [\"10.0.0.0/99\"]\n",
        "expected a prefix (10.1.0.0/16)",
    ),
    (
        "[[tunnel]]\nname = \"c\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\nroutes = [\"10.2.0.0/16\"]\n",
        "found route \"10.2.0.0/16 in table 0\" again",
    ),
    (
        "[[tunnel]]\nname = \"c\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\nroutes = [\"10.2\"]\n",
        "expected a prefix: an address",
    ),
    (
        "[[tunnel]]\nname = \"c\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\ndscp = 64\n",
        "found 64: expected \"copy\" or 0 to 63",
    ),
    (
        "[[tunnel]]\nname = \"c\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\nttl = \"big\"\n",
        "found \"big\": expected \"copy\" or 1 to 255",
    ),
    (
        "[[tunnel]]\nname = \"c\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\nttl = true\n",
        "expected a word or a number",
    ),
    (
        "[[tunnel]]\nname = \"c\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\nmtu = 100\n",
        "found 100: expected 576 to 65535",
    ),
    (
        "[[tunnel]]\nname = \"c\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\nudp_encapsulation = { local_port = 0 }\n",
        "found 0: expected 1 to 65535",
    ),
    (
        "[[policy]]\nname = \"p\"\naction = \"protect\"\nlocal_ts = [\"::/0\"]\nremote_ts = [\"::/0\"]\n",
        "expected the name of a tunnel",
    ),
    (
        "[[policy]]\nname = \"p\"\naction = \"protect\"\ntunnel = \"z\"\nlocal_ts = [\"::/0\"]\nremote_ts = [\"::/0\"]\n",
        "expected the name of a [[tunnel]] table",
    ),
    (
        "[[policy]]\nname = \"p\"\naction = \"bypass\"\ntunnel = \"b\"\nlocal_ts = [\"::/0\"]\nremote_ts = [\"::/0\"]\n",
        "expected action = \"protect\"",
    ),
    (
        "[[policy]]\nname = \"p\"\naction = \"bypass\"\nlocal_ts = []\nremote_ts = [\"::/0\"]\n",
        "found an empty local_ts",
    ),
];

#[test]
fn every_fault_is_told_with_its_file_line_and_column() {
    let folder = with_keys("faults");
    for (text, expected) in FAULTS {
        // The fault is never before the line where the appended text begins.
        let good = format!("# first line\n{TUNNEL}");
        let first_line = if text.starts_with("colour") {
            0
        } else {
            good.matches('\n').count()
        };
        let whole = if first_line == 0 {
            format!("{text}{good}")
        } else {
            format!("{good}{text}")
        };
        let problems = load(&folder, &whole).expect_err(text).0;
        let problem = problems
            .iter()
            .find(|problem| problem.message.contains(expected))
            .unwrap_or_else(|| panic!("{text}\nsaid {problems:?}\nwanted {expected}"));
        assert!(problem.line > first_line && problem.column >= 1, "{problem}");
        assert!(problem.to_string().starts_with(&format!(
            "{}/penstock.toml:{}:{}: ",
            folder.0.display(),
            problem.line,
            problem.column
        )));
    }
}

#[test]
fn the_place_is_the_value_itself() {
    let folder = with_keys("place");
    let problems = load(&folder, "[[port]]\ninterface = \"e0\"\nrole = \"left\"\n").unwrap_err();
    assert!(problems.to_string().contains("penstock.toml:3:8: "), "{problems}");
    let problems = load(&folder, &TUNNEL.replace("0x2001", "17")).unwrap_err();
    assert!(
        problems
            .to_string()
            .ends_with("penstock.toml:9:11: found 17: expected 256 to 4294967295"),
        "{problems}"
    );
}

#[test]
fn each_setting_of_an_sa_is_checked() {
    let folder = with_keys("sa");
    folder.key("short.key", 3, 19, 0o600);
    folder.key("open.key", 3, 20, 0o640);
    folder.write("text.key", "not hexadecimal");
    fs::set_permissions(folder.0.join("text.key"), fs::Permissions::from_mode(0o600)).unwrap();
    for (from, to, expected) in [
        (
            "\"aes128gcm16\"",
            "\"rot13\"",
            "unknown encryption algorithm \"rot13\": expected one of",
        ),
        ("\"aes128gcm16\"", "\"aes128\"", "encryption without integrity"),
        ("out.key", "absent.key", "cannot be opened"),
        (
            "out.key",
            "short.key",
            "holds 19 bytes: expected 20 (40 hexadecimal digits)",
        ),
        ("out.key", "open.key", "has mode 0640: expected 0600"),
        ("out.key", "text.key", "expected hexadecimal digits"),
        ("out.key", ".", "expected a key file"),
        ("out.key", "in.key", "repeats nonces"),
        ("0x1001", "-1", "expected u32"),
        (
            "key_in_file",
            "replay_window = 100\nkey_in_file",
            "power of two from 64 to 65536",
        ),
        ("key_in_file", "key = \"00\"\nkey_in_file", "unknown field `key`"),
        (
            "key_in_file",
            "hard_lifetime = { bytes = 0 }\nkey_in_file",
            "found 0: expected 1 to",
        ),
    ] {
        let problems = load(&folder, &TUNNEL.replacen(from, to, 1)).expect_err(to);
        assert!(problems.to_string().contains(expected), "{to}: {problems}");
    }
}

#[test]
fn fault_86_no_byte_of_a_key_is_in_debug_or_in_a_fault() {
    let folder = with_keys("secret");
    let gateway = load(&folder, TUNNEL).unwrap();
    let shown = format!("{gateway:?}");
    assert!(
        !shown.contains("1111") && !shown.contains("17, 17") && shown.contains("[redacted]"),
        "{shown}"
    );
    folder.key("in.key", 0x11, 21, 0o600);
    let problems = load(&folder, TUNNEL).unwrap_err().to_string();
    assert!(!problems.contains("1111"), "{problems}");
}

#[test]
fn fragments_follow_in_byte_order_and_a_name_in_two_files_names_both() {
    let folder = with_keys("fragments");
    folder.write("conf.d/10-a.toml", "[gateway]\nname = \"a\"\n");
    folder.write(
        "conf.d/9-b.toml",
        "[[port]]\ninterface = \"late\"\nrole = \"internet\"\n",
    );
    folder.write("conf.d/.hidden.toml", "nonsense");
    folder.write("conf.d/readme.txt", "nonsense");
    let gateway = load(&folder, "[[port]]\ninterface = \"first\"\nrole = \"internet\"\n").unwrap();
    assert_eq!(gateway.name, "a");
    let interfaces: Vec<_> = gateway.ports.iter().map(|port| port.interface.as_str()).collect();
    assert_eq!(interfaces, ["first", "late"]);
    let problems = load(&folder, "[gateway]\nname = \"b\"\n")
        .unwrap_err()
        .to_string();
    assert!(
        problems.contains("conf.d/10-a.toml:1:1: found section \"gateway\" again"),
        "{problems}"
    );
    assert!(problems.contains("penstock.toml:1:1"), "{problems}");
}

#[test]
fn all_faults_of_all_files_are_told_at_once() {
    let folder = with_keys("all");
    folder.write("conf.d/a.toml", "[[vrf]]\nname = \"x\"\ntable = 0\n");
    let problems = load(
        &folder,
        "[[tunnel]]\nname = \"c\"\nlocal = \"x\"\nremote = \"y\"\nmtu = 3\n",
    )
    .unwrap_err();
    assert_eq!(problems.0.len(), 4, "{problems}");
}

#[test]
fn the_check_verb_needs_no_daemon_and_answers_by_exit_code() {
    let folder = Folder::new("verb");
    let path = folder.write("penstock.toml", TUNNEL);
    let check = |path: &Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_penstock"))
            .arg("check")
            .arg(path)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, text) = check(&path);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("1 tunnels") && text.contains("keys were not checked"),
        "{text}"
    );
    folder.write("penstock.toml", "[gateway]\ncolour = 1\n");
    let (code, text) = check(&path);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("penstock.toml:2:1: unknown field `colour`"),
        "{text}"
    );
    let (code, text) = check(Path::new("/nonexistent/penstock.toml"));
    assert_eq!(code, Some(1));
    assert!(
        text.contains("/nonexistent/penstock.toml:1:1: the file cannot be read"),
        "{text}"
    );
}

#[test]
fn the_example_is_a_good_configuration() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("example/penstock.toml");
    let gateway = Gateway::load(&path, KeyAccess::IfReadable).unwrap().gateway;
    assert_eq!(gateway.tunnels[0].sas[0].transform.to_string(), "aes128gcm16");
    assert_eq!((gateway.ports.len(), gateway.policies.len()), (2, 1));
    // What is commented out is good too.
    let text = fs::read_to_string(&path).unwrap();
    let folder = Folder::new("example");
    let uncommented: String = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(setting) if setting.contains(" = ") => format!("{setting}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert_ne!(uncommented, text);
    let path = folder.write("penstock.toml", &uncommented);
    Gateway::load(&path, KeyAccess::IfReadable).unwrap();
}

#[test]
fn a_default_for_what_no_policy_matches_and_a_remark_where_it_is_missing() {
    let folder = Folder::new("default");
    let load = |text: &str| {
        let path = folder.write("penstock.toml", text);
        Gateway::load(&path, KeyAccess::IfReadable)
    };
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("example/penstock.toml");
    let example = fs::read_to_string(example).unwrap();
    let loaded = load(&example).unwrap();
    let defaults = &loaded.gateway.policy_defaults;
    assert_eq!(defaults.get(&VrfId::MAIN), Some(&PolicyDefault::Bypass));
    assert!(loaded.notes.iter().all(|note| !note.contains("policy_default")));
    // A route into a tunnel beside a policy, and nothing said: the operator is told what holds then.
    let silent = load(&example.replace("policy_default = \"bypass\"", "")).unwrap();
    assert!(silent.gateway.policy_defaults.is_empty());
    assert!(
        silent
            .notes
            .iter()
            .any(|note| note.contains("policy_default = \"bypass\"")),
        "{:?}",
        silent.notes
    );
    let of_vrf = example.replace("# policy_default = \"discard\"", "policy_default = \"discard\"");
    let defaults = load(&of_vrf).unwrap().gateway.policy_defaults;
    assert_eq!(defaults.get(&VrfId(10)), Some(&PolicyDefault::Discard));
    let wrong = load(&example.replace("\"bypass\"", "\"allow\""))
        .unwrap_err()
        .to_string();
    assert!(wrong.contains("expected `bypass` or `discard`"), "{wrong}");
}

proptest! {
    /// A good file with one byte changed, left out or doubled: read or refused with a place, never a panic.
    #[test]
    fn a_damaged_file_never_panics(at in 0usize..240, byte in any::<u8>(), kind in 0u8..3) {
        let folder = Folder::new("damaged");
        let mut bytes = TUNNEL.as_bytes().to_vec();
        let at = at.min(bytes.len() - 1);
        match kind {
            0 => bytes[at] = byte,
            1 => { bytes.remove(at); }
            _ => bytes.insert(at, byte),
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let path = folder.write("penstock.toml", &text);
        if let Err(problems) = Gateway::load(&path, KeyAccess::IfReadable) {
            let lines = text.matches('\n').count() + 1;
            prop_assert!(!problems.0.is_empty());
            for problem in problems.0 {
                prop_assert!(problem.line >= 1 && problem.line <= lines && problem.column >= 1, "{problem}");
                prop_assert!(!problem.message.is_empty());
            }
        }
    }
}
