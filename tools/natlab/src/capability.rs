//! What the lab needs of a machine, checked by name before anything is built: a machine without it hears what is missing and what to do,
//! and no test passes because it could not run.

use std::env;
use std::fs;

use anyhow::{Context as _, Result, ensure};

/// Bit of `CAP_NET_ADMIN` in `/proc/self/status` (capabilities(7)).
const CAP_NET_ADMIN: u32 = 12;
/// Bit of `CAP_SYS_ADMIN`.
const CAP_SYS_ADMIN: u32 = 21;
/// Bit of `CAP_NET_RAW`, which the wire needs.
const CAP_NET_RAW: u32 = 13;

/// Something that the lab cannot work without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Network namespaces, interfaces, rules: root, or the capabilities named in the error.
    Networks,
    /// A program of the system.
    Program {
        /// What is started.
        name: &'static str,
        /// The Debian package that brings it.
        package: &'static str,
    },
}

/// What every lab needs.
pub const BASE: &[Capability] = &[
    Capability::Networks,
    Capability::Program { name: "ip", package: "iproute2" },
    Capability::Program { name: "nft", package: "nftables" },
    Capability::Program { name: "conntrack", package: "conntrack" },
];
/// The outside judge of NATs.
pub const COTURN: &[Capability] = &[
    Capability::Program { name: "turnserver", package: "coturn" },
    Capability::Program { name: "turnutils_natdiscovery", package: "coturn" },
];
/// The gateway that maps ports: UPnP IGD, NAT-PMP, PCP.
pub const MINIUPNPD: &[Capability] =
    &[Capability::Program { name: "miniupnpd", package: "miniupnpd-nftables" }];

/// Checks them all.
///
/// # Errors
/// Names everything that is missing, and the package or privilege that would bring it.
pub fn require(needed: &[&[Capability]]) -> Result<()> {
    let missing = missing(needed)?;
    ensure!(missing.is_empty(), "the NAT lab cannot run here; missing: {}", missing.join(", "));
    Ok(())
}

/// What of these is missing, each with what would bring it.
///
/// # Errors
/// The kernel does not tell this process's privileges.
pub fn missing(needed: &[&[Capability]]) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for capability in needed.iter().copied().flatten() {
        match capability {
            Capability::Networks => missing.extend(missing_privileges()?),
            Capability::Program { name, package } => {
                if !is_in_path(name) {
                    missing.push(format!("{name} (as root: apt-get install {package})"));
                }
            }
        }
    }
    Ok(missing)
}

/// Privileges of this process that are missing for namespaces and rules.
fn missing_privileges() -> Result<Vec<String>> {
    let status = fs::read_to_string("/proc/self/status").context("read this process's capabilities")?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default();
    let effective = u64::from_str_radix(effective.trim(), 16).context("read CapEff")?;
    let needed =
        [(CAP_NET_ADMIN, "CAP_NET_ADMIN"), (CAP_SYS_ADMIN, "CAP_SYS_ADMIN"), (CAP_NET_RAW, "CAP_NET_RAW")];
    let lacks = needed.iter().filter(|(bit, _)| effective & (1 << bit) == 0);
    Ok(lacks.map(|(_, name)| format!("{name} (run as root)")).collect())
}

fn is_in_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    // Debian keeps half of these where only root's PATH looks.
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.into_iter().any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_the_package_that_brings_it() {
        let odd = [Capability::Program { name: "no-such-program", package: "no-such-package" }];
        let error = require(&[&odd]).unwrap_err().to_string();
        assert!(error.contains("no-such-program (as root: apt-get install no-such-package)"), "{error}");
    }
}
