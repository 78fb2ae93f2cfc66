//! What the process may do once it runs: five capabilities, no core dump, no way to more.
//!
//! Called on the main thread before any other thread is there: threads inherit what their maker may do.

use std::io;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{User, setgroups, setresgid, setresuid};
use thiserror::Error;

/// What stays: interfaces and sockets of this network namespace, BPF, locked memory, and the priority of workers.
pub const KEPT: [Capability; 5] = [
    Capability::CAP_NET_ADMIN,
    Capability::CAP_NET_RAW,
    Capability::CAP_BPF,
    Capability::CAP_IPC_LOCK,
    Capability::CAP_SYS_NICE,
];

/// Why privileges could not be given up; the process then does not go on.
#[derive(Debug, Error)]
pub enum PrivilegeError {
    /// No such account.
    #[error("there is no user {0:?}")]
    UnknownUser(String),
    /// The kernel refused.
    #[error("{action}: {source}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// Its answer.
        source: io::Error,
    },
}

fn refused(action: &'static str) -> impl FnOnce(nix::Error) -> PrivilegeError {
    move |error| PrivilegeError::Refused {
        action,
        source: error.into(),
    }
}

/// Keeps this process's memory, which holds keys, out of core dumps and from other processes of its user.
///
/// # Errors
/// See [`PrivilegeError`].
pub fn hide_memory() -> Result<(), PrivilegeError> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(refused("set the core limit to zero"))?;
    prctl::set_dumpable(false).map_err(refused("make the process undumpable"))
}

/// Becomes `user`, where one is named, and gives up every capability but [`KEPT`], for good.
///
/// A process that was not started by root keeps those of [`KEPT`] that it has; which are missing shows when they are
/// needed.
///
/// # Errors
/// See [`PrivilegeError`].
pub fn give_up(user: Option<&str>) -> Result<(), PrivilegeError> {
    if let Some(name) = user {
        become_user(name)?;
    }
    let kept: CapsHashSet = KEPT.into_iter().collect();
    let capability_error = |action| {
        move |error: caps::errors::CapsError| PrivilegeError::Refused {
            action,
            source: io::Error::other(error),
        }
    };
    let permitted = caps::read(None, CapSet::Permitted).map_err(capability_error("read the capabilities"))?;
    // Without CAP_SETPCAP the bounding set stays; no-new-privileges below makes it meaningless anyway.
    if permitted.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::all() {
            if !kept.contains(&capability)
                && caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false)
            {
                caps::drop(None, CapSet::Bounding, capability)
                    .map_err(capability_error("shrink the bounding set"))?;
            }
        }
    }
    let remaining: CapsHashSet = permitted.intersection(&kept).copied().collect();
    caps::clear(None, CapSet::Inheritable).map_err(capability_error("clear the inheritable set"))?;
    caps::set(None, CapSet::Effective, &remaining).map_err(capability_error("set the effective set"))?;
    caps::set(None, CapSet::Permitted, &remaining).map_err(capability_error("set the permitted set"))?;
    prctl::set_no_new_privs().map_err(refused("refuse new privileges"))
}

fn become_user(name: &str) -> Result<(), PrivilegeError> {
    let account = User::from_name(name)
        .map_err(refused("look the user up"))?
        .ok_or_else(|| PrivilegeError::UnknownUser(name.to_owned()))?;
    prctl::set_keepcaps(true).map_err(refused("keep capabilities over the change of user"))?;
    setgroups(&[account.gid]).map_err(refused("set the groups"))?;
    setresgid(account.gid, account.gid, account.gid).map_err(refused("change the group"))?;
    setresuid(account.uid, account.uid, account.uid).map_err(refused("change the user"))?;
    prctl::set_keepcaps(false).map_err(refused("end keeping capabilities"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a thread of its own: capabilities are a thread's.
    #[test]
    fn nothing_but_the_kept_capabilities_remains() {
        let (before, after) = std::thread::spawn(|| {
            let before = caps::read(None, CapSet::Permitted).unwrap();
            give_up(None).unwrap();
            (
                before,
                [CapSet::Permitted, CapSet::Effective].map(|set| caps::read(None, set).unwrap()),
            )
        })
        .join()
        .unwrap();
        assert!(
            before.contains(&Capability::CAP_NET_ADMIN),
            "this test needs root"
        );
        for set in after {
            assert!(set.iter().all(|capability| KEPT.contains(capability)), "{set:?}");
            assert!(set.contains(&Capability::CAP_NET_ADMIN));
        }
    }

    #[test]
    fn fault_86_no_core_dump_and_no_reading_of_memory() {
        hide_memory().unwrap();
        assert!(!prctl::get_dumpable().unwrap());
        assert_eq!(
            nix::sys::resource::getrlimit(Resource::RLIMIT_CORE).unwrap(),
            (0, 0)
        );
    }

    #[test]
    fn an_unknown_user_is_an_error() {
        assert!(matches!(
            give_up(Some("no such user")),
            Err(PrivilegeError::UnknownUser(_))
        ));
    }
}
