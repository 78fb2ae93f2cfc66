//! Tests that need more of the kernel than the one that runs may have: they run here where it has it, and otherwise in a
//! virtual machine of Debian's kernel (`bench/vm/run`).

use std::path::Path;
use std::process::Command;

/// The variable that `bench/vm/once` sets: a kernel that lacks something there lacks it for good.
const INSIDE: &str = "PENSTOCK_INSIDE_MACHINE";

/// Whether this kernel has all of `modules`, which are loaded. Where it has not, runs the test `name` of this test program
/// in the virtual machine, and the caller has nothing left to do.
///
/// # Panics
/// Where the test fails in the machine, or the machine's kernel has no such modules either.
#[must_use]
pub fn has_kernel_modules(modules: &[&str], name: &str) -> bool {
    let loaded = Command::new("modprobe").arg("-a").args(modules).output();
    if matches!(&loaded, Ok(output) if output.status.success()) {
        return true;
    }
    assert!(
        std::env::var_os(INSIDE).is_none(),
        "the machine's kernel has not all of {modules:?}: {loaded:?}"
    );
    let launcher = Path::new(env!("CARGO_MANIFEST_DIR")).join("vm/run");
    let status = std::env::current_exe().and_then(|program| {
        Command::new(&launcher)
            .arg(program)
            .args(["--exact", name, "--nocapture"])
            .status()
    });
    assert!(
        matches!(&status, Ok(status) if status.success()),
        "{name} in the virtual machine: {status:?}"
    );
    false
}
