//! Settings that only ethtool tells and sets.

use std::io;
use std::process::Command;

/// A setting of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    /// A feature of `-k` and `-K`.
    Feature(&'static str),
    /// Pause frames of `-a` and `-A`.
    Pause(&'static str),
}

const ALL: [Setting; 8] = [
    Setting::Feature("generic-receive-offload"),
    Setting::Feature("large-receive-offload"),
    Setting::Feature("rx-gro-hw"),
    Setting::Feature("rx-udp-gro-forwarding"),
    Setting::Feature("rx-vlan-offload"),
    Setting::Feature("tx-vlan-offload"),
    Setting::Pause("rx"),
    Setting::Pause("tx"),
];

impl Setting {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        ALL.into_iter()
    }

    pub(super) fn name(self) -> String {
        match self {
            Self::Feature(name) => name.to_owned(),
            Self::Pause(way) => format!("pause-{way}"),
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|setting| setting.name() == name)
    }

    pub(super) fn why(self) -> &'static str {
        match self {
            Self::Feature("rx-vlan-offload" | "tx-vlan-offload") => {
                "a tag that the NIC takes away or puts in is not seen by XDP"
            }
            Self::Feature(_) => "merged packets are larger than a frame",
            Self::Pause(_) => "pause frames hide loss and stall other queues",
        }
    }

    /// `None`: there is no ethtool, no such interface or no such setting, or it cannot be changed.
    pub(super) fn read(self, interface: &str) -> Option<String> {
        let (verb, key) = match self {
            Self::Feature(name) => ("-k", name.to_owned()),
            Self::Pause(way) => ("-a", way.to_uppercase()),
        };
        let output = Command::new("ethtool").args([verb, interface]).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        value(&text, &key)
    }

    pub(super) fn write(self, interface: &str, value: &str) -> io::Result<()> {
        let (verb, key) = match self {
            Self::Feature(name) => ("-K", name),
            Self::Pause(way) => ("-A", way),
        };
        let output = Command::new("ethtool")
            .args([verb, interface, key, value])
            .output()?;
        if output.status.success() {
            Ok(())
        } else {
            Err(io::Error::other(
                String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            ))
        }
    }
}

fn value(text: &str, key: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (name, value) = line.trim().split_once(':')?;
        let is_fixed = value.contains("[fixed]");
        let word = value.split_whitespace().next()?;
        (name == key && !is_fixed).then(|| word.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fixed_is_no_setting() {
        let text = "Features for lan:\ngeneric-receive-offload: on\nrx-gro-hw: off [fixed]\n\
                    large-receive-offload: off [requested on]\n";
        assert_eq!(value(text, "generic-receive-offload").as_deref(), Some("on"));
        assert_eq!(value(text, "large-receive-offload").as_deref(), Some("off"));
        assert_eq!(value(text, "rx-gro-hw"), None);
        assert_eq!(
            value("Pause parameters for wan:\nRX:\t\ton\n", "RX").as_deref(),
            Some("on")
        );
        for setting in Setting::all() {
            assert_eq!(Setting::named(&setting.name()), Some(setting));
        }
    }
}
