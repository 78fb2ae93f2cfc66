//! The structure that the design fixes: who may depend on whom, where unsafe code may be, how large a
//! file may grow.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What each crate may depend on within the workspace, development dependencies included where the
/// design names them.
const LAYERS: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("ebpf", &["wire"]),
    ("southbound", &["wire"]),
    ("esp-aead", &[]),
    ("netns", &[]),
    ("service", &[]),
    (
        "dataplane",
        &["wire", "southbound", "ebpf", "esp-aead", "netns", "service"],
    ),
    ("ike", &["wire", "southbound"]),
    ("control", &["ike", "southbound", "wire", "netns", "service"]),
    ("bench", &["wire", "southbound", "dataplane", "esp-aead", "netns"]),
];

/// What only tests may use; `bench` is all tests.
const FOR_TESTS: &[&str] = &["netns"];

/// Who alone may name these crates.
const RESERVED: &[(&str, &[&str])] = &[
    ("tokio", &["control"]),
    ("aya", &["dataplane"]),
    ("xsk-rs", &["dataplane"]),
    ("aya-ebpf", &["ebpf"]),
    ("core_affinity", &["dataplane", "bench", "esp-aead"]),
    ("prometheus", &["control"]),
    ("aes-gcm", &["esp-aead", "ike"]),
    ("ring", &["esp-aead", "ike"]),
    ("aws-lc-rs", &["esp-aead", "ike"]),
];

/// Where unsafe code may stand; each block there has its reason, by lint.
const UNSAFE_HOMES: &[&str] = &[
    "ebpf/src/main.rs",
    "dataplane/src/xsk/",
    "dataplane/src/counters.rs",
    "dataplane/src/tables/",
    "dataplane/src/tap/device.rs",
    "dataplane/tests/packet_walk_allocation.rs",
    "dataplane/aead/",
];

/// No Rust file of the product is longer.
const LONGEST_FILE_LINES: usize = 600;

/// Names that say nothing about what is inside.
const SHAPELESS_NAMES: &[&str] = &["util", "utils", "misc", "helper", "helpers", "common", "types"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Direct dependencies of every workspace member, of the kinds that `counts` says.
fn dependencies(counts: impl Fn(&serde_json::Value) -> bool) -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let name = |value: &serde_json::Value| value["name"].as_str().unwrap().to_owned();
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            (
                name(package),
                package["dependencies"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter(|dependency| counts(&dependency["kind"]))
                    .map(name)
                    .collect(),
            )
        })
        .collect()
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                rust_files(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn product_files() -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    rust_files(&root(), &mut found);
    assert!(found.len() > 30, "only {} files: is this the root?", found.len());
    found
        .into_iter()
        .map(|path| {
            (
                path.strip_prefix(root()).unwrap().to_string_lossy().into_owned(),
                path,
            )
        })
        .collect()
}

#[test]
fn crates_depend_only_downwards() {
    let dependencies = dependencies(|_| true);
    let members: BTreeSet<_> = dependencies.keys().cloned().collect();
    let known: BTreeSet<_> = LAYERS.iter().map(|(member, _)| (*member).to_owned()).collect();
    assert_eq!(members, known, "a new crate takes its place in LAYERS");
    for (member, allowed) in LAYERS {
        for dependency in dependencies[*member].intersection(&members) {
            assert!(
                allowed.contains(&dependency.as_str()) || dependency == member,
                "{member} may not depend on {dependency}"
            );
        }
    }
}

#[test]
fn what_is_for_tests_is_in_no_program() {
    for (member, dependencies) in dependencies(serde_json::Value::is_null) {
        for tool in FOR_TESTS {
            assert!(
                member == "bench" || !dependencies.contains(*tool),
                "{member} may depend on {tool} in its tests only"
            );
        }
    }
}

#[test]
fn reserved_crates_stay_where_they_belong() {
    for (member, dependencies) in dependencies(|_| true) {
        for (reserved, owners) in RESERVED {
            assert!(
                !dependencies.contains(*reserved) || owners.contains(&member.as_str()),
                "{member} may not depend on {reserved}: only {owners:?}"
            );
        }
    }
}

#[test]
fn unsafe_code_stays_where_the_design_allows_it() {
    // Put together here, so that this file is none of its own findings.
    let forms = ["{", "fn", "impl"].map(|what| ["unsafe", what].join(" "));
    for (name, path) in product_files() {
        if UNSAFE_HOMES.iter().any(|home| name.starts_with(home)) {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            assert!(
                !forms.iter().any(|form| code.contains(form.as_str())),
                "{name}:{}: unsafe code outside {UNSAFE_HOMES:?}",
                number + 1
            );
        }
    }
}

#[test]
fn files_are_small_and_named_for_what_they_hold() {
    for (name, path) in product_files() {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(
            lines <= LONGEST_FILE_LINES,
            "{name} has {lines} lines: split it by noun"
        );
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(
            !SHAPELESS_NAMES.contains(&stem.as_str()),
            "{name}: name it for what it holds"
        );
    }
}
