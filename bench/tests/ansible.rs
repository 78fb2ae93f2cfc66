//! The Ansible roles by the rules of their linter.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod system;

use std::process::Command;

use system::tree;

#[test]
fn the_roles_are_clean_by_the_rules_of_production() {
    let output = Command::new("ansible-lint")
        .args(["--offline", "--nocolor"])
        .current_dir(tree().join("ansible"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert!(text.contains("Passed with production profile"), "{text}");
}
