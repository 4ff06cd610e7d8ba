//! Where a process runs and which address it has there: on loopback, or at one end of a wire.

use std::{
    ffi::OsStr,
    net::{IpAddr, Ipv4Addr},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use p2pos_natlab::wire::{End, Link, Wire, WireSpec};

/// A place for a process.
#[derive(Clone)]
pub struct Place {
    /// A namespace made by `ip netns add`; `None` is ours.
    namespace: Option<String>,
    pub ip: IpAddr,
}

impl Place {
    /// This machine, on loopback.
    pub fn here() -> Self {
        Self { namespace: None, ip: Ipv4Addr::LOCALHOST.into() }
    }

    /// A command that will run there.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let Some(namespace) = &self.namespace else { return Command::new(program) };
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{namespace}")).arg("--").arg(program);
        command
    }
}

/// Two places and the wire between them, gone when dropped. The addresses look public: both stacks treat near addresses differently.
pub struct Stretch {
    pub a: Place,
    pub b: Place,
    _wire: Wire,
}

impl Stretch {
    /// Needs CAP_SYS_ADMIN and CAP_NET_ADMIN.
    pub fn new(link: Link, seed: u64) -> Result<Self> {
        let ends = [("a", [45, 77, 0, 1]), ("b", [45, 77, 0, 2])];
        let [a, b] = ends.map(|(end, ip)| Place {
            namespace: Some(format!("p2pos-bench-{}{end}", std::process::id())),
            ip: Ipv4Addr::from(ip).into(),
        });
        for place in [&a, &b] {
            let name = place.namespace.as_deref().unwrap_or_default();
            // What a killed run may have left under this number.
            drop(Command::new("ip").args(["netns", "del", name]).output());
            let made =
                Command::new("ip").args(["netns", "add", name]).output().context("run `ip` (iproute2)")?;
            ensure!(
                made.status.success(),
                "a wire needs root (CAP_SYS_ADMIN): {}",
                String::from_utf8_lossy(&made.stderr)
            );
        }
        let end = |place: &Place| {
            End::in_namespace(
                place.namespace.as_deref().unwrap_or_default(),
                "wire",
                &[&format!("{}/24", place.ip)],
            )
        };
        let wire = Wire::start(&WireSpec::new(end(&a), end(&b), link, seed))?;
        Ok(Self { a, b, _wire: wire })
    }
}

impl Drop for Stretch {
    fn drop(&mut self) {
        for place in [&self.a, &self.b] {
            if let Some(name) = &place.namespace {
                // A namespace that is gone is what is wanted.
                drop(Command::new("ip").args(["netns", "del", name]).output());
            }
        }
    }
}
