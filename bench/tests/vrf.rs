//! Three customers of one gateway, two of them with the same addresses: routes lead from one table into another only where
//! the configuration says so.
//!
//! ```text
//!  red  192.168.101.10 --ce-red---+
//!                                 gateway --ce-shared-- 192.168.102.10 shared
//!  blue 192.168.101.10 --ce-blue--+
//! ```

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::time::Duration;

use bench::customers::Host;
use bench::gateway::{Dataplane, Gateway};
use bench::namespace::Namespace;
use bench::process::wait_until;

const PATIENCE: Duration = Duration::from_secs(20);

/// One of red and blue leads into shared, and shared to it.
fn configuration(leaking: Option<&str>) -> String {
    let leak = |site: u8, vrf: &str| {
        format!(
            "leak = [{{ prefix = \"192.168.10{site}.0/24\", vrf = \"{vrf}\" }}, {{ prefix = \"fd00:10{site}::/64\", vrf = \"{vrf}\" }}]\n"
        )
    };
    let mut text = "[gateway]\nname = \"leak\"\n".to_owned();
    for (name, table) in [("red", 10), ("blue", 20), ("shared", 30)] {
        text += &format!("\n[[vrf]]\nname = \"{name}\"\ntable = {table}\n");
        match leaking {
            Some(customer) if name == "shared" => text += &leak(1, customer),
            Some(customer) if name == customer => text += &leak(2, "shared"),
            _ => {}
        }
        text += &format!("\n[[port]]\ninterface = \"ce-{name}\"\nrole = \"protected\"\nvrf = \"{name}\"\n");
    }
    text
}

#[test]
fn fault_63_tables_leak_only_where_configured() {
    let pe = Namespace::new("leak-pe").unwrap();
    let host = |customer: &str, site: u8| {
        let namespace = Namespace::new(&format!("leak-{customer}")).unwrap();
        Host::attach(namespace, &pe, customer, site).unwrap()
    };
    let customers = [host("red", 1), host("blue", 1)];
    let shared = host("shared", 2);
    let gateway = Gateway::start(&pe, &configuration(Some("red")), &[], Dataplane::default()).unwrap();
    let requests = || [0, 1].map(|which| customers[which].echo_requests().unwrap());

    for (leaking, name) in [(Some(0), Some("red")), (Some(1), Some("blue")), (None, None)] {
        gateway.configure(&configuration(name)).unwrap();
        gateway.penstock(&["reload"]).unwrap();
        for (there, here) in Host::addresses(2).into_iter().zip(Host::addresses(1)) {
            for (which, customer) in customers.iter().enumerate() {
                let expected = leaking == Some(which);
                let is_so = wait_until(PATIENCE, || customer.reaches(there) == expected);
                assert!(
                    is_so,
                    "{name:?}: {which} reaches {there}: {}, {}",
                    !expected,
                    gateway.penstock(&["show", "routes"]).unwrap_or_default()
                );
            }
            // The shared network reaches the one that it leads to, and never the other of the same address.
            let before = requests();
            assert_eq!(shared.reaches(here), leaking.is_some(), "{name:?} {here}");
            let after = requests();
            for which in [0, 1] {
                let expected = u64::from(leaking == Some(which));
                assert_eq!(after[which] - before[which], expected, "{name:?} {here}");
            }
        }
    }
    let dropped = gateway.json(&["show", "drops"]).unwrap().to_string();
    assert!(dropped.contains("no_route"), "{dropped}");
}
