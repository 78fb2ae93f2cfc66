//! Which system calls the process may make once every thread runs: what moving packets, binding ports and serving the
//! control process take, and nothing with which a hijacked thread could leave the process.
//!
//! Two filters, for every thread at once. The first lets the calls of `ALLOWED` through, some of them only with
//! certain arguments, and refuses the rest. The second ends the process at a call of `FATAL`: those are no slip of a
//! library but somebody's attempt. The kernel keeps the stricter answer.

use std::collections::BTreeMap;

use nix::libc::{self, c_int, c_long};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter_all_threads,
};
use thiserror::Error;

/// What becomes of a call that is not allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// It fails with EPERM; one that only an attacker would make ends the process.
    #[default]
    Refuse,
    /// It ends the process, whichever it is; the kernel logs it.
    Kill,
    /// It is made; the kernel logs it.
    Log,
    /// There is no filter.
    Off,
}

/// Why there is no filter.
#[derive(Debug, Error)]
pub enum SeccompError {
    /// This machine's kind of processor is none that the filter can be made for.
    #[error("no seccomp filter for this processor: {0} (without a filter: --seccomp off)")]
    Filter(#[from] BackendError),
    /// The kernel does not take it.
    #[error("the kernel takes no seccomp filter: {0} (without a filter: --seccomp off)")]
    Kernel(#[from] seccompiler::Error),
}

/// Calls allowed whatever their arguments.
const ALLOWED: &[c_long] = &[
    // Workers: rings are memory, so these are wake-ups, the TAP, and sleep.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_ppoll,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_sched_yield,
    // The control process, and netlink.
    libc::SYS_accept4,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_bind,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    // Ports: sockets, the XDP program and its maps.
    libc::SYS_bpf,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_fcntl,
    libc::SYS_eventfd2,
    // Reading files: the kernel's release for aya, symbols for a panic's message.
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_uname,
    // The socket's file goes with the process.
    libc::SYS_unlinkat,
    // The memory allocator, and packet memory at the end.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_munlock,
    libc::SYS_getrandom,
    // Threads, signals and the end.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_geteuid,
    libc::SYS_getegid,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sigaltstack,
    // The older calls of this processor for the same.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
];

/// Calls that end the process: other programs, other processes' memory, more privileges, the machine.
const FATAL: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_open_by_handle_at,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_capset,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
];

/// Families of sockets: packets, the kernel's links, and the question for a device's queues and offloads.
const FAMILIES: [c_int; 3] = [libc::AF_XDP, libc::AF_NETLINK, libc::AF_INET];
/// `SIOCETHTOOL` of `linux/sockios.h`: that question.
const ETHTOOL: u64 = 0x8946;
/// `PR_SET_VMA`, by which a C library may name its memory.
const NAME_MEMORY: u64 = 0x5356_4d41;

/// Puts the filters on every thread of the process, those to come included, for good.
///
/// To be called with no-new-privileges set, as [`crate::privileges::give_up`] leaves it.
///
/// # Errors
/// See [`SeccompError`].
pub fn install(mode: Mode) -> Result<(), SeccompError> {
    let (otherwise, fatal) = match mode {
        Mode::Refuse => (SeccompAction::Errno(libc::EPERM as u32), true),
        Mode::Kill => (SeccompAction::KillProcess, false),
        Mode::Log => (SeccompAction::Log, false),
        Mode::Off => return Ok(()),
    };
    if fatal {
        let rules = FATAL.iter().map(|&call| (call, Vec::new())).collect();
        apply_filter_all_threads(&program(rules, SeccompAction::Allow, SeccompAction::KillProcess)?)?;
    }
    apply_filter_all_threads(&program(allowed()?, otherwise, SeccompAction::Allow)?)?;
    Ok(())
}

fn program(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    action: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    SeccompFilter::new(rules, otherwise, action, std::env::consts::ARCH.try_into()?)?.try_into()
}

fn allowed() -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.iter().map(|&call| (call, Vec::new())).collect();
    let families = FAMILIES.map(|family| equal(0, family as u64));
    rules.insert(libc::SYS_socket, families.into_iter().collect::<Result<_, _>>()?);
    rules.insert(libc::SYS_ioctl, vec![equal(1, ETHTOOL)?]);
    rules.insert(libc::SYS_prctl, vec![equal(0, NAME_MEMORY)?]);
    // No memory becomes code.
    let no_code = || masked(2, libc::PROT_EXEC as u64, 0);
    rules.insert(libc::SYS_mmap, vec![no_code()?]);
    rules.insert(libc::SYS_mprotect, vec![no_code()?]);
    // Files are read, never made or written.
    let writes = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND;
    rules.insert(
        libc::SYS_openat,
        vec![masked(2, writes as u64, libc::O_RDONLY as u64)?],
    );
    // What abort sends, and to itself alone.
    let own = u64::from(std::process::id());
    rules.insert(libc::SYS_tgkill, vec![equal(0, own)?]);
    Ok(rules)
}

fn equal(argument: u8, value: u64) -> Result<SeccompRule, BackendError> {
    rule(argument, SeccompCmpOp::Eq, value)
}

fn masked(argument: u8, mask: u64, value: u64) -> Result<SeccompRule, BackendError> {
    rule(argument, SeccompCmpOp::MaskedEq(mask), value)
}

/// All arguments looked at here are `int` or flags of 32 bits to the kernel.
fn rule(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?;
    SeccompRule::new(vec![condition])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_both_allowed_and_fatal() {
        let allowed = allowed().unwrap();
        assert!(FATAL.iter().all(|call| !allowed.contains_key(call)));
        assert!(!allowed.contains_key(&libc::SYS_clone3) && !allowed.contains_key(&libc::SYS_kill));
    }

    #[test]
    fn both_filters_compile() {
        let rules = FATAL.iter().map(|&call| (call, Vec::new())).collect();
        assert!(program(rules, SeccompAction::Allow, SeccompAction::KillProcess).is_ok());
        assert!(
            program(
                allowed().unwrap(),
                SeccompAction::KillProcess,
                SeccompAction::Allow
            )
            .is_ok()
        );
    }
}
