//! Three routers with FRR and Penstock: LDP between them, MP-BGP VPNv4 and VPNv6 between the PEs, two customers with the
//! same addresses of both families.
//!
//! ```text
//!  red, blue -- PE1 (1.1.1.1) -- 10.0.12.0/24 -- P (2.2.2.2) -- 10.0.23.0/24 -- PE2 (3.3.3.3) -- red, blue
//! ```
//!
//! The routers' kernels have neither MPLS nor VRFs: what carries the customers' packets is Penstock.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fmt::Write as _;
use std::time::Duration;

use bench::customers::{CUSTOMERS, Host, join};
use bench::frr::Frr;
use bench::gateway::{Dataplane, Gateway};
use bench::namespace::Namespace;
use bench::prober::probe;
use bench::process::wait_until;

/// LDP and BGP take some seconds each, and FPM waits some before it connects.
const CONVERGENCE: Duration = Duration::from_secs(120);

/// Table numbers, which are also the forward delays of the bridges that stand in for VRF devices.
const TABLES: [u32; 2] = [1010, 1020];

struct Router {
    gateway: Gateway,
    frr: Frr,
    namespace: Namespace,
}

/// A PE's or the P router's own links, before Penstock and FRR.
fn prepare(name: &str, number: u8) -> Namespace {
    let namespace = Namespace::new(&format!("frr-{name}")).unwrap();
    for interfaces in ["all", "default"] {
        namespace
            .sysctl(&format!("net.ipv4.conf.{interfaces}.rp_filter"), "0")
            .unwrap();
    }
    namespace.sysctl("net.ipv4.ip_forward", "1").unwrap();
    namespace
        .ip(&format!("addr add {number}.{number}.{number}.{number}/32 dev lo"))
        .unwrap();
    namespace
}

fn start(namespace: Namespace, number: u8, cores: &[&str], is_pe: bool) -> Router {
    let mut configuration = format!(
        "[gateway]\nname = \"router-{number}\"\n\n[fpm]\nlisten = \"127.0.0.1:2620\"\nstale_seconds = 120\n"
    );
    for core in cores {
        write!(
            configuration,
            "\n[[port]]\ninterface = \"{core}\"\nrole = \"internet\"\nmpls = true\n"
        )
        .unwrap();
    }
    if is_pe {
        for (customer, table) in CUSTOMERS.iter().zip(TABLES) {
            write!(
                configuration,
                "\n[[vrf]]\nname = \"{customer}\"\ntable = {table}\n\n[[port]]\ninterface = \"ce-{customer}\"\nrole = \"protected\"\nvrf = \"{customer}\"\n"
            )
            .unwrap();
        }
    }
    let dataplane = Dataplane {
        frames_per_worker: 4096,
        ..Dataplane::default()
    };
    let gateway = Gateway::start(&namespace, &configuration, &[], dataplane).unwrap();
    let id = format!("{number}.{number}.{number}.{number}");
    let zebra = format!("hostname router-{number}\nfpm address 127.0.0.1 port 2620\n");
    let mut ldpd =
        format!("mpls ldp\n router-id {id}\n address-family ipv4\n  discovery transport-address {id}\n");
    for core in cores {
        writeln!(ldpd, "  interface {core}").unwrap();
    }
    let mut daemons = vec![("ldpd", ldpd)];
    if is_pe {
        let peer = if number == 1 { "3.3.3.3" } else { "1.1.1.1" };
        let mut bgpd = format!(
            "router bgp 65000\n bgp router-id {id}\n no bgp default ipv4-unicast\n neighbor {peer} remote-as 65000\n neighbor {peer} update-source lo\n neighbor {peer} timers connect 2\n address-family ipv4 vpn\n  neighbor {peer} activate\n exit-address-family\n address-family ipv6 vpn\n  neighbor {peer} activate\n exit-address-family\n"
        );
        for (customer, table) in CUSTOMERS.iter().zip(TABLES) {
            writeln!(bgpd, "router bgp 65000 vrf {customer}").unwrap();
            for family in ["ipv4", "ipv6"] {
                write!(
                    bgpd,
                    " address-family {family} unicast\n  redistribute connected\n  label vpn export auto\n  rd vpn export {id}:{table}\n  rt vpn both 65000:{table}\n  export vpn\n  import vpn\n exit-address-family\n"
                )
                .unwrap();
            }
        }
        daemons.push(("bgpd", bgpd));
    }
    let frr = Frr::start(&namespace, &zebra, &daemons).unwrap();
    Router {
        gateway,
        frr,
        namespace,
    }
}

/// Stands in for the VRF devices that this kernel may not have; `zebra-preload.c` says how.
fn vrfs(pe: &Namespace) {
    for (customer, table) in CUSTOMERS.iter().zip(TABLES) {
        pe.ip(&format!("link add {customer} type bridge forward_delay {table}"))
            .unwrap();
        pe.ip(&format!("link set {customer} up")).unwrap();
        let index = pe.run(&format!("cat /sys/class/net/{customer}/ifindex")).unwrap();
        pe.ip(&format!("link set ce-{customer} group {}", index.trim()))
            .unwrap();
    }
}

impl Router {
    /// Labels that lead into a VRF, and labelled routes of the customers' tables.
    fn learned(&self) -> (usize, usize) {
        let count = |arguments: &[&str], list: &str, fits: &dyn Fn(&str) -> bool| {
            let answer = self.gateway.json(arguments).unwrap_or_default();
            answer[list].as_array().map_or(0, |records| {
                records.iter().filter(|record| fits(&record.to_string())).count()
            })
        };
        (
            count(&["show", "mpls"], "labels", &|record| {
                CUSTOMERS
                    .iter()
                    .any(|vrf| record.contains(&format!("\"vrf {vrf}\"")))
            }),
            count(&["show", "routes"], "routes", &|record| {
                record.contains("labels ")
                    && CUSTOMERS
                        .iter()
                        .any(|vrf| record.contains(&format!("\"vrf\":\"{vrf}\"")))
            }),
        )
    }

    /// The state of FPM.
    fn session(&self) -> serde_json::Value {
        self.gateway
            .json(&["show", "fpm"])
            .map(|mut answer| answer["fpm"][0].take())
            .unwrap_or_default()
    }

    fn situation(&self) -> String {
        let mut text = String::new();
        for noun in ["fpm", "mpls", "vrf", "routes", "neighbours", "drops"] {
            let answer = self.gateway.penstock(&["show", noun]);
            writeln!(text, "{answer:?}").unwrap();
        }
        for command in [
            "show mpls table",
            "show ip route vrf all",
            "show mpls ldp neighbor",
            "show ipv6 route vrf all",
            "show bgp ipv4 vpn summary",
            "show bgp ipv6 vpn",
        ] {
            writeln!(text, "{:?}", self.frr.show(command)).unwrap();
        }
        text.replace("\\n", "\n")
    }
}

#[test]
fn fault_63_75_two_customers_stay_apart_and_flow_on_while_zebra_dies() {
    let (pe1, p, pe2) = (prepare("pe1", 1), prepare("p", 2), prepare("pe2", 3));
    join(&pe1, "core", &p, "west").unwrap();
    join(&pe2, "core", &p, "east").unwrap();
    for (namespace, interface, address) in [
        (&pe1, "core", "10.0.12.1"),
        (&p, "west", "10.0.12.2"),
        (&p, "east", "10.0.23.2"),
        (&pe2, "core", "10.0.23.3"),
    ] {
        namespace
            .ip(&format!("addr add {address}/24 dev {interface}"))
            .unwrap();
    }
    // The loopback addresses by routes of the kernel's: an ospfd of FRR 8.4 tells a new zebra nothing that it told the
    // old one, so that killing zebra would be about ospfd.
    for (namespace, target, gateway) in [
        (&pe1, "2.2.2.2", "10.0.12.2"),
        (&pe1, "3.3.3.3", "10.0.12.2"),
        (&p, "1.1.1.1", "10.0.12.1"),
        (&p, "3.3.3.3", "10.0.23.3"),
        (&pe2, "1.1.1.1", "10.0.23.2"),
        (&pe2, "2.2.2.2", "10.0.23.2"),
    ] {
        namespace
            .ip(&format!("route add {target}/32 via {gateway}"))
            .unwrap();
    }
    let host = |pe: &Namespace, customer: &str, site: u8| {
        let namespace = Namespace::new(&format!("frr-{customer}{site}")).unwrap();
        Host::attach(namespace, pe, customer, site).unwrap()
    };
    let west = CUSTOMERS.map(|customer| host(&pe1, customer, 1));
    let east = CUSTOMERS.map(|customer| host(&pe2, customer, 2));
    vrfs(&pe1);
    vrfs(&pe2);
    let mut pe1 = start(pe1, 1, &["core"], true);
    let p = start(p, 2, &["west", "east"], false);
    let pe2 = start(pe2, 3, &["core"], true);
    let situation = || {
        format!(
            "PE1\n{}\nP\n{}\nPE2\n{}",
            pe1.situation(),
            p.situation(),
            pe2.situation()
        )
    };

    // Each PE gives a label per VRF and family, and learns the other site of each customer.
    let is_up = wait_until(CONVERGENCE, || pe1.learned() == (4, 4) && pe2.learned() == (4, 4));
    assert!(is_up, "{}", situation());
    let [far_v4, far_v6] = Host::addresses(2);
    for far in [far_v4, far_v6] {
        let answers = wait_until(Duration::from_secs(20), || {
            west.iter().all(|host| host.reaches(far))
        });
        assert!(answers, "{far} {}", situation());

        // The same address means another host to each customer.
        for (customer, other) in [(0, 1), (1, 0)] {
            let before = [0, 1].map(|which| east[which].echo_requests().unwrap());
            for _ in 0..5 {
                assert!(west[customer].reaches(far), "{}", situation());
            }
            let after = [0, 1].map(|which| east[which].echo_requests().unwrap());
            assert_eq!(after[customer] - before[customer], 5);
            assert_eq!(after[other], before[other], "a packet crossed: {}", situation());
        }
    }

    // What was carried, was carried under labels by the dataplanes.
    let used = |router: &Router| {
        let labels = router.gateway.json(&["show", "mpls"]).unwrap();
        let packets = |record: &serde_json::Value| record["packets"].as_u64().unwrap();
        labels["labels"]
            .as_array()
            .unwrap()
            .iter()
            .map(packets)
            .sum::<u64>()
    };
    assert!(
        used(&pe1) >= 10 && used(&p) >= 20 && used(&pe2) >= 10,
        "{}",
        situation()
    );

    // zebra crashes and comes back under traffic; what it told stays until it has told it again. Then control does.
    let mut of_v4 = None;
    let of_v6 = probe(&west[1].namespace, &east[1].namespace, far_v6, || {
        let probed = probe(&west[0].namespace, &east[0].namespace, far_v4, || {
            replace_zebra(&mut pe1);
            replace_control(&mut pe1);
        });
        of_v4 = Some(probed.unwrap());
    })
    .unwrap();
    for probed in [of_v4.unwrap(), of_v6] {
        assert!(probed.sent > 100, "{probed:?}");
        assert!(probed.lost.is_empty(), "{probed:?}\n{}", pe1.situation());
    }
    for host in &west {
        assert!(host.reaches(far_v4) && host.reaches(far_v6));
    }
    drop(pe1.namespace);
}

fn replace_zebra(pe: &mut Router) {
    pe.frr.kill("zebra").unwrap();
    assert!(wait_until(Duration::from_secs(20), || {
        pe.session()["state"] == "listening"
    }));
    pe.frr.start_zebra().unwrap();
    // ldpd tells its labels anew. bgpd of FRR 8.4 does not tell VPN routes to a new zebra: they stay as they were
    // told to the old one, for the stale timer.
    let is_back = wait_until(CONVERGENCE, || {
        let session = pe.session();
        session["state"] == "connected"
            && session["sessions"] == 2
            && pe.learned().1 == 4
            && pe
                .frr
                .show("show mpls table")
                .is_ok_and(|table| table.contains("LDP"))
    });
    assert!(is_back, "{}", pe.situation());
}

/// A new control process adopts what the dataplane has, and zebra, which does not have the VPN routes any more, connects
/// to it.
fn replace_control(pe: &mut Router) {
    pe.gateway.control().unwrap().kill().unwrap();
    pe.gateway.start_control().unwrap();
    let is_back = wait_until(CONVERGENCE, || {
        // bgpd has given its labels anew since: the old ones stay besides, for the stale timer.
        let (labels, routes) = pe.learned();
        pe.session()["state"] == "connected" && labels >= 4 && routes == 4
    });
    assert!(is_back, "{}", pe.situation());
}
