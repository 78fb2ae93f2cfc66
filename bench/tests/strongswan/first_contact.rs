//! First contact (RFC 7296 section 2.4).

use crate::site::{CHILD, Site, Terms};

impl Site {
    /// Both ends are left with one IKE SA of one pair.
    fn wait_for_one_sa(&self) {
        self.wait_for("IKE SAs were left over", |site| {
            let shown = site.penstock.json(&["show", "ike"]).unwrap();
            let ours = shown["ike"].as_array().unwrap();
            let theirs = site.peer_does(&["--list-sas"]);
            ours.len() == 1
                && ours[0]["children"].as_array().unwrap().len() == 1
                && theirs.matches("ESTABLISHED").count() == 1
                && theirs.matches("INSTALLED").count() == 1
        });
    }
}

#[test]
fn our_first_contact_ends_what_the_peer_remembers() {
    let mut terms = Terms::preshared();
    terms.children = format!("{CHILD}start = \"start\"\n");
    let mut site = Site::start("swan-contact", &terms);
    site.assert_joined();
    site.wait_for_one_sa();
    site.penstock.control().unwrap().kill().unwrap();
    site.penstock.dataplane().unwrap().kill().unwrap();
    site.penstock.start_dataplane().unwrap();
    site.penstock.start_control().unwrap();
    site.assert_joined();
    site.wait_for_one_sa();
}
