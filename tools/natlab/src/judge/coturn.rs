//! The outside judge: coturn's server with two addresses, and its `turnutils_natdiscovery`, which asks it about mapping and filtering by
//! RFC 5780. We start both, and read two lines.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fmt, fs, thread};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use super::verdict::{Verdict, mapping_name};
use crate::capability::{self, COTURN};
use crate::lab::{Lab, Landmark};
use crate::namespace::Namespace;
use crate::topology::Filtering;

/// The server listens within milliseconds; a loaded machine gets its time.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// How often we look.
const READY_POLL: Duration = Duration::from_millis(20);
/// STUN's own port, and the other one of RFC 5780.
const PORTS: [u16; 2] = [3_478, 3_479];
/// Two addresses with two ports each.
const LISTENERS: usize = 4;
/// How often its client is asked for an opinion.
const ASKED_MAX: usize = 3;

/// What coturn says about a NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Opinion {
    /// Its mapping.
    #[serde(serialize_with = "super::verdict::mapping_word")]
    pub mapping: Option<Filtering>,
    /// Its filtering.
    #[serde(serialize_with = "super::verdict::filtering_word")]
    pub filtering: Option<Filtering>,
}

/// A running coturn.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: IpAddr,
}

impl Server {
    /// Starts it at a landmark.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub fn start(lab: &Lab, landmark: &Landmark) -> Result<Self> {
        capability::require(&[COTURN])?;
        let log = lab.folder().join("coturn.log");
        let [first, second] = landmark.v4;
        let mut command = Command::new("turnserver");
        command.args([
            "-n",
            "--no-auth",
            "--no-tcp",
            "--no-tls",
            "--no-dtls",
            "--no-cli",
            "--log-file",
            "stdout",
        ]);
        command.arg("--listening-ip").arg(first.to_string()).arg("--listening-ip").arg(second.to_string());
        command.arg("--listening-port").arg(PORTS[0].to_string());
        command.arg("--alt-listening-port").arg(PORTS[1].to_string());
        command.arg("--pidfile").arg(lab.folder().join("coturn.pid"));
        command.arg("--userdb").arg(lab.folder().join("coturn.db"));
        command.stdin(Stdio::null()).stdout(File::create(&log)?).stderr(Stdio::null());
        let server = Self { child: landmark.namespace.spawn(&mut command)?, address: first };
        let until = Instant::now() + READY_WITHIN;
        while listeners(&landmark.namespace)? < LISTENERS {
            if Instant::now() > until {
                let said = fs::read_to_string(&log).unwrap_or_default();
                let last: Vec<_> = said.lines().rev().take(3).collect();
                bail!("coturn does not listen; its last words: {last:?}");
            }
            thread::sleep(READY_POLL);
        }
        Ok(server)
    }

    /// Lets its client look at the way from a host. A client that says nothing has no opinion, and is asked again: on a busy machine it
    /// gives up waiting now and then.
    ///
    /// # Errors
    /// The client fails, or says something that we do not understand, each time.
    pub fn judge(&self, host: &Namespace, ip: IpAddr) -> Result<Opinion> {
        let mut last = self.ask(host, ip);
        for _ in 1..ASKED_MAX {
            if last.is_ok() {
                break;
            }
            last = self.ask(host, ip);
        }
        last
    }

    fn ask(&self, host: &Namespace, ip: IpAddr) -> Result<Opinion> {
        let mut command = Command::new("turnutils_natdiscovery");
        command.args(["-m", "-f", "-L", &ip.to_string(), &self.address.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = host.spawn(&mut command)?;
        let lines = BufReader::new(child.stdout.take().context("its stdout was asked for")?).lines();
        let said: Vec<String> = lines.collect::<Result<_, _>>().context("read turnutils_natdiscovery")?;
        child.wait().context("wait for turnutils_natdiscovery")?;
        let opinion = understand(&said);
        if opinion.mapping.is_none() || opinion.filtering.is_none() {
            bail!("turnutils_natdiscovery says neither mapping nor filtering: {}", said.join(" / "));
        }
        Ok(opinion)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It is gone already if these fail; the namespace's end would end it too.
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}

impl fmt::Display for Opinion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mapping = self.mapping.map_or("?", mapping_name);
        write!(f, "{mapping} {}", self.filtering.map_or("?", Filtering::word))
    }
}

impl Opinion {
    /// In which points it is not what was intended.
    #[must_use]
    pub fn objections(&self, intended: &Verdict) -> Vec<String> {
        let mut said = Vec::new();
        if self.mapping != intended.mapping {
            let word = |mapping: Option<Filtering>| mapping.map_or("unknown", mapping_name);
            said.push(format!(
                "coturn: mapping should be {}, is {}",
                word(intended.mapping),
                word(self.mapping)
            ));
        }
        if self.filtering != intended.filtering {
            let word = |filtering: Option<Filtering>| filtering.map_or("unknown", Filtering::word);
            said.push(format!(
                "coturn: filtering should be {}, is {}",
                word(intended.filtering),
                word(self.filtering)
            ));
        }
        said
    }
}

/// UDP sockets on its ports, by the kernel's own list: the program does not say.
fn listeners(namespace: &Namespace) -> Result<usize> {
    let list =
        namespace.enter(|| fs::read_to_string("/proc/thread-self/net/udp").context("list UDP sockets"))?;
    let local_ports = list.lines().filter_map(|line| line.split_whitespace().nth(1)?.rsplit_once(':'));
    let is_ours = |hex: &str| u16::from_str_radix(hex, 16).is_ok_and(|port| PORTS.contains(&port));
    Ok(local_ports.map(|(_, port)| port).filter(|port| is_ours(port)).count())
}

/// Reads its two verdicts, `NAT with Endpoint Independent Mapping!` and the like. It says `No NAT!` of a host whose address is its own, and
/// then goes on to its filtering.
fn understand(said: &[String]) -> Opinion {
    let find = |what: &str| {
        let line = said.iter().rfind(|line| line.starts_with("NAT with ") && line.contains(what))?;
        if line.contains("Endpoint Independent") {
            Some(Filtering::Independent)
        } else if line.contains("Address and Port Dependent") {
            Some(Filtering::ByAddressAndPort)
        } else if line.contains("Address Dependent") {
            Some(Filtering::ByAddress)
        } else {
            None
        }
    };
    Opinion { mapping: find("Mapping"), filtering: find("Filtering") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_verdicts_are_found_among_headings_and_details() {
        let said = [
            "-= Mapping Behavior Discovery =-",
            "0: : IPv4. UDP reflexive addr: 45.1.0.2:58219",
            "No NAT! (Endpoint Independent Mapping)",
            "NAT with Address and Port Dependent Mapping!",
            "-= Filtering Behavior Discovery =-",
            "NAT with Address Dependent Filtering!",
        ];
        let opinion = understand(&said.map(str::to_owned));
        assert_eq!(opinion.mapping, Some(Filtering::ByAddressAndPort));
        assert_eq!(opinion.filtering, Some(Filtering::ByAddress));
        assert_eq!(understand(&[]), Opinion { mapping: None, filtering: None });
    }
}
