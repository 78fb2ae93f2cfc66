//! What configuration files say about VRFs, labels and FRR, good and bad.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::path::PathBuf;

use control::config::{Gateway, KeyAccess, LabelAction, Problems, RouteTarget, Via};
use southbound::{ClassMapId, Encapsulation, LabelSpaceId, PopClass, PushClass, TtlModel, TunnelId, VrfId};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("penstock-config-mpls-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
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

const PE: &str = r#"
[fpm]
stale_seconds = 30
ttl = "pipe"
[[vrf]]
name = "red"
table = 10
label = 1001
leak = [{ prefix = "10.9.0.0/16", vrf = "shared" }]
import = ["shared"]
[[vrf]]
name = "shared"
table = 30
[[port]]
interface = "core"
role = "internet"
mpls = true
[[port]]
interface = "ce-red"
role = "protected"
vrf = "red"
[[tunnel]]
name = "pe-2"
local = "198.51.100.1"
remote = "198.51.100.2"
encapsulation = "gre"
key = 7
mpls = true
label_space = 3
[[class_map]]
name = "voice"
push = [{ dscp = 46, tc = 5 }]
pop = [{ tc = 5, dscp = 46 }]
[[route]]
vrf = "red"
prefix = "192.168.102.0/24"
ttl = 64
tc = "voice"
entropy_label = true
next_hops = [
    { interface = "core", gateway = "10.0.12.2", labels = [17, 2001], weight = 3 },
    { tunnel = "pe-2", labels = [3, 2001] },
]
[[route]]
prefix = "203.0.113.0/24"
action = "blackhole"
[[label]]
label = 300
dscp = "voice"
next_hops = [{ interface = "core", gateway = "10.0.12.2" }]
[[label]]
label = 300
space = 3
action = "pop"
"#;

#[test]
fn a_pe_means_what_it_says() {
    let folder = Folder::new("good");
    let gateway = folder.load(PE).unwrap();
    let fpm = gateway.fpm.unwrap();
    assert_eq!(fpm.listen.to_string(), "127.0.0.1:2620");
    assert_eq!((fpm.stale.as_secs(), fpm.ttl), (30, TtlModel::Pipe(255)));
    assert_eq!(gateway.imports, [(VrfId(10), VrfId(30))].into());
    assert_eq!(gateway.ports[0].mpls, Some(LabelSpaceId::PLATFORM));
    assert_eq!(gateway.ports[1].mpls, None);

    let spec = gateway.tunnels[0].spec(TunnelId(1));
    assert_eq!(
        spec.encapsulation,
        Encapsulation::Gre {
            key: Some(7),
            checksum: false
        }
    );
    assert_eq!((spec.protected, spec.labels), (false, Some(LabelSpaceId(3))));

    let route = |prefix: &str| {
        let prefix = prefix.parse().unwrap();
        gateway
            .routes
            .iter()
            .find(|route| route.prefix == prefix)
            .unwrap()
    };
    assert_eq!(route("10.9.0.0/16").target, RouteTarget::Vrf(VrfId(30)));
    assert_eq!(route("203.0.113.0/24").target, RouteTarget::Blackhole);
    let RouteTarget::Hops(hops) = &route("192.168.102.0/24").target else {
        panic!("{:?}", gateway.routes)
    };
    let labels = |hop: usize| -> Vec<u32> {
        hops[hop]
            .stack
            .labels()
            .iter()
            .map(|label| label.value())
            .collect()
    };
    assert_eq!(labels(0), [17, 2001]);
    assert_eq!(labels(1), [2001], "an implicit null is no label");
    assert_eq!((hops[0].weight, hops[1].weight), (3, 1));
    assert_eq!(hops[0].ttl, TtlModel::Pipe(64));
    assert_eq!(hops[0].class, PushClass::Map(ClassMapId(1)));
    assert_eq!(hops[0].entropy_beneath, Some(1));
    assert_eq!(hops[1].via, Via::Tunnel("pe-2".into()));

    let label = |value: u32, space: u32| {
        gateway
            .labels
            .iter()
            .find(|label| label.label.value() == value && label.space.0 == space)
            .unwrap()
    };
    assert_eq!(label(1001, 0).action, LabelAction::Vrf(VrfId(10)));
    assert_eq!(label(300, 0).class, PopClass::Map(ClassMapId(1)));
    assert_eq!(label(300, 3).action, LabelAction::Pop);
    let map = &gateway.class_maps[0];
    assert_eq!((map.dscp_to_tc[46], map.dscp_to_tc[8]), (5, 1));
    assert_eq!((map.tc_to_dscp[5], map.tc_to_dscp[1]), (Some(46), None));
}

/// A line that replaces or follows another, and what is said of it, at its own line.
const FAULTS: &[(&str, &str)] = &[
    (
        "[[label]]\nlabel = 15\naction = \"pop\"",
        "found 15: expected 16 to 1048575",
    ),
    (
        "[[label]]\nlabel = 1048576\naction = \"pop\"",
        "expected 16 to 1048575",
    ),
    ("[[label]]\nlabel = 1001\naction = \"pop\"", "expected it once"),
    (
        "[[label]]\nlabel = 40\naction = \"push\"",
        "expected \"pop\", \"host\" or \"discard\"",
    ),
    ("[[label]]\nlabel = 40", "expected one of next_hops"),
    (
        "[[label]]\nlabel = 40\nvrf = \"green\"",
        "expected \"main\" or the name of a [[vrf]] table",
    ),
    (
        "[[label]]\nlabel = 40\nspace = 32\naction = \"pop\"",
        "found 32: expected 0 to 31",
    ),
    (
        "[[label]]\nlabel = 40\nnext_hops = [{ interface = \"core\" }]",
        "expected gateway",
    ),
    (
        "[[label]]\nlabel = 40\nnext_hops = [{ interface = \"lan\", gateway = \"10.0.0.1\" }]",
        "expected that of a [[port]] table",
    ),
    (
        "[[label]]\nlabel = 40\nnext_hops = [{ tunnel = \"pe-3\" }]",
        "expected the name of a [[tunnel]] table",
    ),
    (
        "[[label]]\nlabel = 40\nnext_hops = [{ gateway = \"10.0.0.1\" }]",
        "expected either interface",
    ),
    (
        "[[route]]\nprefix = \"10.8.0.0/16\"\nnext_hops = [{ tunnel = \"pe-2\", labels = [7] }]",
        "found label 7: expected 16 or more",
    ),
    (
        "[[route]]\nprefix = \"10.8.0.0/16\"\nnext_hops = [{ tunnel = \"pe-2\", labels = [20,20,20,20,20,20,20,20,20] }]",
        "found 9 labels: expected at most 8",
    ),
    (
        "[[route]]\nprefix = \"10.8.0.0/16\"\nttl = 0\nnext_hops = [{ tunnel = \"pe-2\" }]",
        "expected \"uniform\", \"pipe\" or 1 to 255",
    ),
    (
        "[[route]]\nprefix = \"10.8.0.0/16\"\ntc = 8\nnext_hops = [{ tunnel = \"pe-2\" }]",
        "found 8: expected \"copy\", 0 to 7",
    ),
    (
        "[[route]]\nprefix = \"10.8.0.0/16\"\nto_vrf = \"main\"",
        "found the route's own vrf",
    ),
    (
        "[[route]]\nprefix = \"10.8.0.0/33\"\naction = \"blackhole\"",
        "expected a prefix",
    ),
    (
        "[[route]]\nvrf = \"red\"\nprefix = \"192.168.102.0/24\"\naction = \"blackhole\"",
        "expected it once",
    ),
    ("[[vrf]]\nname = \"main\"\ntable = 40", "expected another name"),
    (
        "[[vrf]]\nname = \"loop\"\ntable = 40\nleak = [{ prefix = \"10.0.0.0/8\", vrf = \"loop\" }]",
        "found the vrf itself",
    ),
    (
        "[[tunnel]]\nname = \"x\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\nmpls = true",
        "found mpls in a tunnel that only carries IP",
    ),
    (
        "[[tunnel]]\nname = \"x\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\nencapsulation = \"udp\"",
        "expected mpls = true",
    ),
    (
        "[[tunnel]]\nname = \"x\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\nencapsulation = \"ip\"\nkey = 1",
        "found a key: expected encapsulation",
    ),
    (
        "[[class_map]]\nname = \"x\"\npush = [{ dscp = 64, tc = 1 }]",
        "found 64: expected 0 to 63",
    ),
    (
        "[[port]]\ninterface = \"e9\"\nrole = \"internet\"\nlabel_space = 1",
        "expected mpls = true",
    ),
];

#[test]
fn every_fault_is_told_with_its_file_line_and_column() {
    let folder = Folder::new("bad");
    let lines = PE.lines().count();
    for (text, expected) in FAULTS {
        let Err(Problems(problems)) = folder.load(&format!("{PE}{text}\n")) else {
            panic!("taken: {text}")
        };
        let fault = problems.iter().find(|problem| problem.message.contains(expected));
        let fault = fault.unwrap_or_else(|| panic!("{text}\nsaid {problems:?}\nwanted {expected}"));
        assert!(fault.line > lines && fault.column >= 1, "{fault}");
    }
}
