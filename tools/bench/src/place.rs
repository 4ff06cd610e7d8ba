//! Where a process runs and which address it has there: on loopback, at one end of a wire, or between two ends. And on which processor.

use std::{
    ffi::OsStr,
    net::{IpAddr, Ipv4Addr},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use p2pos_natlab::{
    namespace::Namespace,
    wire::{End, Link, Wire, WireSpec},
};

/// A place for a process.
#[derive(Clone)]
pub struct Place {
    /// A namespace made by `ip netns add`; `None` is ours.
    namespace: Option<String>,
    pub ip: IpAddr,
    /// The only processor it may use; `None` is any.
    core: Option<usize>,
}

impl Place {
    /// This machine, on loopback.
    pub fn here() -> Self {
        Self { namespace: None, ip: Ipv4Addr::LOCALHOST.into(), core: None }
    }

    /// The same place, for a process that keeps to one processor.
    pub fn on_core(&self, core: usize) -> Self {
        Self { core: Some(core), ..self.clone() }
    }

    /// A command that will run there.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut words = Vec::new();
        if let Some(core) = self.core {
            words.extend(["taskset".to_owned(), "-c".to_owned(), core.to_string()]);
        }
        if let Some(namespace) = &self.namespace {
            words.extend(["nsenter".to_owned(), format!("--net=/run/netns/{namespace}"), "--".to_owned()]);
        }
        // Each of them becomes the next one, so the process that is started is the program in the end.
        let mut words = words.into_iter();
        let Some(first) = words.next() else { return Command::new(program) };
        let mut command = Command::new(first);
        command.args(words).arg(program);
        command
    }
}

/// Two places and the wire between them, gone when dropped. The addresses look public: both stacks treat near addresses differently.
pub struct Stretch {
    pub a: Place,
    pub b: Place,
    _wire: Wire,
    _namespaces: Namespaces,
}

impl Stretch {
    /// Needs CAP_SYS_ADMIN and CAP_NET_ADMIN.
    pub fn new(link: Link, seed: u64) -> Result<Self> {
        let namespaces = Namespaces::make(&["a", "b"])?;
        let [a, b] = [(0, [45, 77, 0, 1]), (1, [45, 77, 0, 2])].map(|(at, ip)| namespaces.place(at, ip));
        let end = |place: &Place| {
            End::in_namespace(
                place.namespace.as_deref().unwrap_or_default(),
                "wire",
                &[&format!("{}/24", place.ip)],
            )
        };
        let wire = Wire::start(&WireSpec::new(end(&a), end(&b), link, seed))?;
        Ok(Self { a, b, _wire: wire, _namespaces: namespaces })
    }
}

/// Two places with a third between them, gone when dropped. The kernel in the middle forwards nothing: what gets from one end to the
/// other, a program there has carried. The cables are the kernel's own (veth) and take trains of datagrams uncut.
pub struct Between {
    pub a: Place,
    /// Under the address that both ends can reach.
    pub middle: Place,
    pub b: Place,
    _namespaces: Namespaces,
}

impl Between {
    /// Needs CAP_SYS_ADMIN and CAP_NET_ADMIN.
    pub fn new() -> Result<Self> {
        let namespaces = Namespaces::make(&["a", "m", "b"])?;
        let [a, middle, b] = [(0, [45, 77, 1, 1]), (1, [45, 77, 1, 2]), (2, [45, 77, 2, 1])]
            .map(|(at, ip)| namespaces.place(at, ip));
        let [a_name, m_name, b_name] = [0, 1, 2].map(|at| namespaces.0[at].as_str());
        let m = Namespace::named(m_name);
        m.sysctl("ipv4/ip_forward", "0")?;
        let cable = |end: &str, far: &str, inner: &str| {
            [
                format!("link add {end} type veth peer name wire netns {far}"),
                format!("addr add {inner} dev {end}"),
                format!("link set {end} up"),
            ]
        };
        m.ip(&[cable("to-a", a_name, "45.77.1.2/24"), cable("to-b", b_name, "45.77.2.2/24")].concat())?;
        for (place, name, gateway) in [(&a, a_name, "45.77.1.2"), (&b, b_name, "45.77.2.2")] {
            Namespace::named(name).ip(&[
                format!("addr add {}/24 dev wire", place.ip),
                "link set wire up".to_owned(),
                format!("route add default via {gateway}"),
            ])?;
        }
        Ok(Self { a, middle, b, _namespaces: namespaces })
    }
}

/// Namespaces of this run, with loopback up; removed when dropped.
struct Namespaces(Vec<String>);

impl Namespaces {
    fn make(ends: &[&str]) -> Result<Self> {
        let name = |end: &&str| format!("p2pos-bench-{}{end}", std::process::id());
        let namespaces = Self(ends.iter().map(name).collect());
        for name in &namespaces.0 {
            // What a killed run may have left under this number.
            drop(Command::new("ip").args(["netns", "del", name]).output());
            let made =
                Command::new("ip").args(["netns", "add", name]).output().context("run `ip` (iproute2)")?;
            ensure!(
                made.status.success(),
                "network namespaces need root (CAP_SYS_ADMIN): {}",
                String::from_utf8_lossy(&made.stderr)
            );
            Namespace::named(name).ip(&["link set lo up".to_owned()])?;
        }
        Ok(namespaces)
    }

    fn place(&self, at: usize, ip: [u8; 4]) -> Place {
        Place { namespace: Some(self.0[at].clone()), ip: Ipv4Addr::from(ip).into(), core: None }
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.0 {
            // A namespace that is gone is what is wanted.
            drop(Command::new("ip").args(["netns", "del", name]).output());
        }
    }
}
