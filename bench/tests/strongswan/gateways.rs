//! Where the peer is: names whose addresses change, several gateways tried in turn, networks that fall silent.

use std::fs;
use std::path::PathBuf;

use bench::namespace::Namespace;
use bench::topology::{Links, Topology};

use crate::site::{CHILD, Site, Terms};

/// The hosts file of what is started in a namespace; removed on drop.
struct Hosts {
    folder: PathBuf,
}

impl Hosts {
    fn new(namespace: &Namespace, text: &str) -> Self {
        let folder = PathBuf::from("/etc/netns").join(namespace.name());
        fs::create_dir_all(&folder).unwrap();
        let hosts = Self { folder };
        hosts.write(text);
        hosts
    }

    /// In place: what runs has this very file mounted.
    fn write(&self, text: &str) {
        fs::write(self.folder.join("hosts"), text).unwrap();
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Penstock's terms that notice a silent peer within seconds.
fn impatient() -> Terms {
    let mut terms = Terms::preshared();
    terms.connection +=
        "dpd = 1\nmobike = false\nretransmission = { first_ms = 300, base = 1.2, tries = 3 }\n";
    terms.children = format!("{CHILD}start = \"start\"\n");
    terms.peer = "local_addrs = %any\n remote_addrs = 198.51.100.1\n mobike = no\n unique = replace".into();
    terms
}

/// The peer's gateway has another address of its network, and no longer the old one.
fn readdress(site: &Site, from: u8, to: u8) {
    let gateway = &site.topology.gateway_2;
    gateway
        .sysctl("net.ipv4.conf.all.promote_secondaries", "1")
        .unwrap();
    gateway
        .ip(&format!("addr add 198.51.100.{to}/24 dev wan"))
        .unwrap();
    gateway
        .ip(&format!("addr del 198.51.100.{from}/24 dev wan"))
        .unwrap();
}

fn wait_for_remote(site: &Site, address: &str) {
    site.wait_for(&format!("no IKE SA with {address}"), |site| {
        let record = site.ike();
        record["state"] == "established"
            && record["remote"]
                .as_str()
                .is_some_and(|remote| remote.starts_with(&format!("{address}:")))
    });
}

#[test]
fn a_peer_is_followed_by_its_name() {
    let topology = Topology::new("swan-name", Links::default()).unwrap();
    let hosts = Hosts::new(&topology.gateway_1, "198.51.100.2 gw2.example\n");
    let mut terms = impatient();
    terms.connection += "remote = [\"gw2.example\"]\n";
    let site = Site::start_over(topology, &terms);
    site.assert_joined();
    wait_for_remote(&site, "198.51.100.2");
    hosts.write("198.51.100.22 gw2.example\n");
    readdress(&site, 2, 22);
    wait_for_remote(&site, "198.51.100.22");
    site.assert_joined();
}

#[test]
fn gateways_are_tried_in_turn() {
    let mut terms = impatient();
    // Nobody is at the first address.
    terms.connection += "remote = [\"198.51.100.9\", \"198.51.100.2\"]\n";
    let site = Site::start("swan-turn", &terms);
    wait_for_remote(&site, "198.51.100.2");
    site.assert_joined();
    // The second falls silent, and the first is there.
    readdress(&site, 2, 9);
    wait_for_remote(&site, "198.51.100.9");
    site.assert_joined();
}

#[test]
fn both_ends_notice_a_silent_network_and_return_with_it() {
    let mut terms = impatient();
    terms.peer = "dpd_delay = 1s\n dpd_timeout = 3s\n unique = replace".into();
    terms.charon = "retransmit_tries = 2\n retransmit_timeout = 0.5".into();
    let site = Site::start("swan-silent", &terms);
    site.assert_joined();
    let spi = site.ike()["spi_i"].clone();
    // Liveness checks of both ends are answered: the SA stays.
    site.wait_for("strongSwan asked for no sign of life", |site| {
        site.strongswan.log().matches("sending DPD request").count() >= 2
    });
    assert_eq!(site.ike()["spi_i"], spi, "{}", site.logs());
    // The carrier stays: nothing tells either end but the silence.
    site.topology.internet.ip("link set g2 nomaster").unwrap();
    site.wait_for("we did not notice", |site| site.ike()["state"] != "established");
    site.wait_for("strongSwan did not notice", |site| {
        !site.peer_does(&["--list-sas"]).contains("ESTABLISHED")
    });
    site.topology.internet.ip("link set g2 master br0").unwrap();
    site.assert_joined();
}
