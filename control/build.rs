//! What `penstock_build_info` tells: the revision and the compiler.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=PENSTOCK_REVISION");
    let revision = std::env::var("PENSTOCK_REVISION")
        .ok()
        .or_else(|| first_line("git", &["rev-parse", "--short", "HEAD"]))
        .unwrap_or_else(|| "unknown".into());
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version = first_line(&compiler, &["--version"]).unwrap_or_else(|| "unknown".into());
    println!("cargo::rustc-env=PENSTOCK_REVISION={revision}");
    println!("cargo::rustc-env=PENSTOCK_RUSTC={version}");
}

fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next()?.trim();
    (output.status.success() && !line.is_empty()).then(|| line.to_owned())
}
