//! A virtual machine with two emulated NICs, one command channel and a hand on its cables.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bench::gateway::built;
use bench::namespace::Namespace;
use bench::process::{Process, wait_until};
use serde_json::{Value, json};

/// From QEMU's start to the agent's first line: seconds alone, minutes where much other work shares the CPUs.
const BOOT_LIMIT: Duration = Duration::from_secs(300);

/// How long one command in the machine may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);

/// Receive and transmit queues of each NIC, and a virtual CPU for each.
pub(crate) const QUEUES: u16 = 4;

/// What QEMU emulates for a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Model {
    /// Intel 82576: the kernel's `igb` driver.
    Igb,
    /// virtio-net whose memory goes through the DMA interface, as zero-copy needs it.
    Virtio,
    /// virtio-net as most hypervisors give it: the driver refuses zero-copy.
    VirtioWithoutIommuPlatform,
}

impl Model {
    fn driver(self) -> &'static str {
        match self {
            Self::Igb => "igb",
            Self::Virtio | Self::VirtioWithoutIommuPlatform => "virtio_net",
        }
    }

    /// QEMU options of a NIC `port` on its own PCI Express slot, connected to the tap `tap-PORT`.
    fn options(self, port: Port) -> [String; 6] {
        let Port { name, mac, slot } = port;
        let (queues, vectors) = (QUEUES, 2 * QUEUES + 2);
        let virtio = |more: &str| {
            (
                format!(",queues={queues}"),
                format!("virtio-net-pci,mq=on,vectors={vectors},disable-legacy=on,rss=on{more}"),
            )
        };
        let (backend, device) = match self {
            Self::Igb => (String::new(), "igb".to_owned()),
            Self::Virtio => virtio(",iommu_platform=on"),
            Self::VirtioWithoutIommuPlatform => virtio(""),
        };
        [
            "-device".to_owned(),
            format!("pcie-root-port,id=slot-{name},chassis={slot},slot={slot}"),
            "-netdev".to_owned(),
            format!("tap,id=cable-{name},ifname=tap-{name},script=no,downscript=no,vhost=off{backend}"),
            "-device".to_owned(),
            format!("{device},id={name},netdev=cable-{name},mac={mac},bus=slot-{name}"),
        ]
    }
}

/// A NIC of the machine.
#[derive(Clone, Copy, Debug)]
struct Port {
    name: &'static str,
    mac: &'static str,
    slot: u8,
}

const PORTS: [Port; 2] = [
    Port {
        name: "lan",
        mac: "52:54:00:00:00:01",
        slot: 1,
    },
    Port {
        name: "wan",
        mac: "52:54:00:00:00:02",
        slot: 2,
    },
];

/// A running machine; ended on drop.
#[derive(Debug)]
pub(crate) struct Machine {
    folder: PathBuf,
    agent: RefCell<Agent>,
    // Last: the sockets close before their process ends.
    _qemu: Process,
}

/// The line protocol of `bench/vm/agent`.
#[derive(Debug)]
struct Agent {
    lines: BufReader<UnixStream>,
    last: u32,
}

impl Machine {
    /// Boots a machine whose `lan` and `wan` are bridged to the interfaces of these names in `namespace`, and
    /// gives both [`QUEUES`] queues and their addresses of gateway 1.
    pub(crate) fn boot(namespace: &Namespace, model: Model) -> Self {
        let cache =
            PathBuf::from(std::env::var_os("PENSTOCK_VM").unwrap_or_else(|| "/var/tmp/penstock-vm".into()));
        let root = cache.join("root");
        let kernel = cache.join("vmlinuz");
        assert!(
            kernel.is_file(),
            "{} is missing: run `make test-vm`",
            kernel.display()
        );
        let folder = std::env::temp_dir().join(format!("penstock-vm-{}", namespace.name()));
        let share = folder.join("share");
        std::fs::create_dir_all(&share).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("vm/agent");
        std::fs::copy(source, share.join("agent")).unwrap();

        for Port { name, .. } in PORTS {
            connect(namespace, name, model);
        }
        let programs = built("penstock-dataplane").unwrap();
        let programs = programs.parent().unwrap().to_owned();
        let peers = cache.join("peers");
        let mut folders = vec![("root", &root), ("share", &share), ("programs", &programs)];
        if peers.is_dir() {
            folders.push(("peers", &peers));
        }

        // QEMU of the prepared root, by that root's own loader: it needs nothing of this machine.
        // `setpriv` ends it even where this process is killed before it could.
        let mut command = namespace.command("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        command.arg(root.join("lib64/ld-linux-x86-64.so.2"));
        command.arg("--library-path");
        command.arg(root.join("usr/lib/x86_64-linux-gnu"));
        command.arg(root.join("usr/bin/qemu-system-x86_64"));
        for data in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
            command.arg("-L").arg(root.join(data));
        }
        command.args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"]);
        command.args(["-smp", &QUEUES.to_string(), "-m", "1536M", "-no-reboot"]);
        command.args(["-nodefaults", "-display", "none", "-monitor", "none"]);
        command.arg("-kernel").arg(&kernel);
        command.arg("-initrd").arg(cache.join("initrd"));
        // Mitigations only cost time here. Where other work has the CPUs, the kernel measures the TSC's frequency many
        // times too low, and its clock runs ahead by as much; it also misses the ticks by which it checks its timer,
        // and boots no further.
        command.args([
            "-append",
            "console=ttyS0 quiet panic=-1 mitigations=off clocksource=hpet tsc=unstable no_timer_check nowatchdog \
             net.ifnames=0",
        ]);
        command.arg("-serial");
        command.arg(format!("file:{}", folder.join("console").display()));
        for (tag, path) in folders {
            let read_only = if tag == "share" { "" } else { ",readonly=on" };
            command.arg("-fsdev");
            command.arg(format!(
                "local,id={tag},path={},security_model=none,multidevs=remap{read_only}",
                path.display()
            ));
            command.arg("-device");
            command.arg(format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}"));
        }
        let socket = |name: &str| folder.join(name).display().to_string();
        command.args(["-device", "virtio-serial-pci", "-chardev"]);
        command.arg(format!(
            "socket,id=agent,path={},server=on,wait=off",
            socket("agent")
        ));
        command.args(["-device", "virtserialport,chardev=agent,name=penstock"]);
        command.arg("-qmp");
        command.arg(format!("unix:{},server=on,wait=off", socket("qmp")));
        for port in PORTS {
            command.args(model.options(port));
        }

        let qemu = Process::spawn(command, &folder.join("qemu.log")).unwrap();
        let mut stream = None;
        wait_until(BOOT_LIMIT, || {
            stream = UnixStream::connect(folder.join("agent")).ok();
            stream.is_some()
        });
        let stream = stream.unwrap_or_else(|| panic!("QEMU does not start: {}", qemu.log()));
        stream.set_read_timeout(Some(BOOT_LIMIT)).unwrap();
        let mut lines = BufReader::new(stream);
        let mut line = String::new();
        let hello = lines.read_line(&mut line);
        assert!(
            hello.is_ok() && line == "0 0\n",
            "the machine does not boot: {hello:?} {line:?}\n{}\n{}",
            qemu.log(),
            std::fs::read_to_string(folder.join("console")).unwrap_or_default()
        );
        lines.get_ref().set_read_timeout(Some(COMMAND_LIMIT)).unwrap();
        let machine = Self {
            folder,
            agent: RefCell::new(Agent { lines, last: 0 }),
            _qemu: qemu,
        };
        machine.run(&format!("modprobe {}", model.driver()));
        machine.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        for Port { name, .. } in PORTS {
            machine.configure(name);
        }
        machine
    }

    /// Runs a shell command in the machine; what it printed, or what it printed and its status where that is
    /// not 0.
    pub(crate) fn attempt(&self, command: &str) -> Result<String, String> {
        assert!(!command.contains('\n'), "one line: {command:?}");
        let mut agent = self.agent.borrow_mut();
        agent.last += 1;
        let number = agent.last;
        writeln!(agent.lines.get_ref(), "{number} {command}").unwrap();
        let mut line = String::new();
        agent
            .lines
            .read_line(&mut line)
            .unwrap_or_else(|error| panic!("{command:?}: {error}\n{}", self.console()));
        let file = self.share().join(number.to_string());
        let output = std::fs::read(&file).unwrap_or_default();
        let output = String::from_utf8_lossy(&output).into_owned();
        let _ = std::fs::remove_file(file);
        match line.trim_end().split_once(' ') {
            Some((answered, status)) if answered == number.to_string() => {
                if status == "0" {
                    Ok(output)
                } else {
                    Err(format!("{command}: status {status}: {output}"))
                }
            }
            _ => panic!("{command:?}: the agent said {line:?}\n{}", self.console()),
        }
    }

    /// Runs a shell command in the machine that must end with status 0; what it printed.
    pub(crate) fn run(&self, command: &str) -> String {
        self.attempt(command).unwrap_or_else(|error| panic!("{error}"))
    }

    fn share(&self) -> PathBuf {
        self.folder.join("share")
    }

    /// What the kernel has printed on its console.
    pub(crate) fn console(&self) -> String {
        std::fs::read_to_string(self.folder.join("console")).unwrap_or_default()
    }

    /// Writes a file into the folder that the machine sees as `/mnt/share`.
    pub(crate) fn hand_over(&self, name: &str, text: &str) {
        std::fs::write(self.share().join(name), text).unwrap();
    }

    /// Pulls or plugs the cable of a port, by QEMU.
    pub(crate) fn set_cable(&self, port: &str, plugged: bool) {
        let stream = UnixStream::connect(self.folder.join("qmp")).unwrap();
        stream.set_read_timeout(Some(COMMAND_LIMIT)).unwrap();
        let mut lines = BufReader::new(stream);
        let answer = |lines: &mut BufReader<UnixStream>| loop {
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            let value: Value = serde_json::from_str(&line).unwrap();
            if value.get("event").is_none() {
                return value;
            }
        };
        assert!(answer(&mut lines).get("QMP").is_some());
        for request in [
            json!({"execute": "qmp_capabilities"}),
            json!({"execute": "set_link", "arguments": {"name": port, "up": plugged}}),
        ] {
            writeln!(lines.get_ref(), "{request}").unwrap();
            let value = answer(&mut lines);
            assert!(value.get("return").is_some(), "{request}: {value}");
        }
    }

    /// Takes the driver away from a port's device; its interface vanishes. Returns what [`Self::bind`] takes.
    pub(crate) fn unbind(&self, port: &str) -> Unbound {
        let device = self.run(&format!("basename $(readlink -f /sys/class/net/{port}/device)"));
        let device = device.trim().to_owned();
        let driver = self.run(&format!("readlink -f /sys/class/net/{port}/device/driver"));
        let driver = driver.trim().to_owned();
        self.run(&format!("echo {device} > {driver}/unbind"));
        assert!(
            self.attempt(&format!("ip link show {port}")).is_err(),
            "{port} outlived its driver"
        );
        Unbound { device, driver }
    }

    /// Gives the device its driver back, and the interface its name, queues and addresses.
    pub(crate) fn bind(&self, port: &str, unbound: &Unbound) {
        let Unbound { device, driver } = unbound;
        self.run(&format!("echo {device} > {driver}/bind"));
        self.configure(port);
    }

    /// What udev and the network configuration of a real machine do for an interface that appears.
    fn configure(&self, port: &str) {
        let mac = PORTS.iter().find(|known| known.name == port).unwrap().mac;
        self.run(&format!(
            "for i in /sys/class/net/eth*; do [ \"$(cat $i/address)\" != {mac} ] || ip link set ${{i##*/}} name {port}; done"
        ));
        let channels = format!("ethtool -L {port} combined {QUEUES}; ethtool -l {port}");
        let channels = self.run(&channels);
        let wanted = format!("Combined:{QUEUES}");
        let mut settings = channels.lines().map(|line| line.replace(char::is_whitespace, ""));
        assert!(
            settings.rfind(|line| line.starts_with("Combined")) == Some(wanted),
            "{channels}"
        );
        self.run(&format!("sysctl -qw net.ipv6.conf.{port}.accept_dad=0"));
        self.bring_up(port);
    }

    /// Brings an interface up, with its addresses of gateway 1.
    pub(crate) fn bring_up(&self, port: &str) {
        let [v4, v6] = match port {
            "lan" => ["10.1.0.1/24", "fd01::1/64"],
            _ => ["198.51.100.1/24", "2001:db8:77::1/64"],
        };
        self.run(&format!("ip link set {port} up"));
        self.run(&format!("ip addr replace {v4} dev {port}"));
        self.run(&format!("ip addr replace {v6} dev {port} nodad"));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- console\n{}", self.console());
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A device that has lost its driver.
#[derive(Debug)]
pub(crate) struct Unbound {
    device: String,
    driver: String,
}

/// Puts a tap for the machine's port in the place that the interface of that name has in the namespace.
fn connect(namespace: &Namespace, port: &str, model: Model) {
    let queues = match model {
        Model::Igb => "",
        Model::Virtio | Model::VirtioWithoutIommuPlatform => "multi_queue",
    };
    let ip = |line: &str| namespace.ip(line).unwrap();
    ip(&format!("tuntap add dev tap-{port} mode tap {queues}"));
    ip(&format!("link add br-{port} type bridge"));
    ip(&format!("addr flush dev {port}"));
    for interface in [port.to_owned(), format!("tap-{port}"), format!("br-{port}")] {
        // The box around the machine has no say of its own on either side.
        namespace
            .sysctl(&format!("net.ipv6.conf.{interface}.disable_ipv6"), "1")
            .unwrap();
    }
    ip(&format!("link set {port} master br-{port}"));
    ip(&format!("link set tap-{port} master br-{port}"));
    ip(&format!("link set tap-{port} up"));
    ip(&format!("link set br-{port} up"));
}
