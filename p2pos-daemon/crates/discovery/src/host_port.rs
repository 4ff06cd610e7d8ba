//! `HOST:PORT` as people type it, with a message for each way of getting it wrong.
//!
//! A host is an IP address or a name of DNS form (RFC 1123 s2.1, with the underscore that home networks use). An IPv6
//! address stands in brackets (RFC 3986 s3.2.2). Refuses to know: what a name resolves to, and whether anybody answers.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

/// The longest host name in bytes (RFC 1123 s2.1).
const NAME_BYTES_MAX: usize = 253;
/// The longest part of it between dots (RFC 1035 s2.3.4).
const LABEL_BYTES_MAX: usize = 63;

/// An address that the user typed: host and port, neither looked up nor tried.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort(Kind);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Kind {
    Ip(SocketAddr),
    Name { name: String, port: u16 },
}

/// The host of a [`HostPort`], for those who must tell the two forms apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host<'a> {
    /// An address that needs no lookup.
    Ip(SocketAddr),
    /// A name in small letters, without a final dot.
    Name {
        /// The name.
        name: &'a str,
        /// The port beside it.
        port: u16,
    },
}

/// Why a text is not `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostPortError {
    /// Nothing was given.
    #[error("the address is empty; write it as HOST:PORT, like example.org:4000")]
    Empty,
    /// No colon, or nothing behind it.
    #[error("the address has no port; write it as HOST:PORT, like example.org:4000")]
    NoPort,
    /// What stands behind the last colon is no port.
    #[error("the port of the address must be a number from 1 to 65535")]
    Port,
    /// Nothing before the port.
    #[error("the address has no host before the port; write it as HOST:PORT")]
    NoHost,
    /// An IPv6 address without brackets.
    #[error("an IPv6 address needs brackets before its port, like [2001:db8::7]:4000")]
    Brackets,
    /// Brackets around something else than an IPv6 address.
    #[error("what stands in brackets is not an IPv6 address")]
    Ipv6,
    /// Digits and dots that are no IPv4 address.
    #[error("the host looks like an IPv4 address and is none; it has four numbers from 0 to 255")]
    Ipv4,
    /// A name that DNS cannot have.
    #[error(
        "the host is not a name: letters, digits, '-' and '_' in parts of 1 to 63, 253 in all; others as xn--..."
    )]
    Name,
}

impl HostPort {
    /// Returns the host in the form it has.
    #[must_use]
    pub fn host(&self) -> Host<'_> {
        match &self.0 {
            Kind::Ip(addr) => Host::Ip(*addr),
            Kind::Name { name, port } => Host::Name { name, port: *port },
        }
    }
}

impl From<SocketAddr> for HostPort {
    fn from(addr: SocketAddr) -> Self {
        Self(Kind::Ip(addr))
    }
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(HostPortError::Empty);
        }
        if let Ok(addr) = text.parse::<SocketAddr>() {
            return if addr.port() == 0 { Err(HostPortError::Port) } else { Ok(Self(Kind::Ip(addr))) };
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err(HostPortError::Brackets);
        }
        let (host, port) = split(text)?;
        let port = port_of(port)?;
        if host.starts_with('[') {
            return Err(HostPortError::Ipv6);
        }
        if host.contains(':') {
            return Err(HostPortError::Brackets);
        }
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        check_name(&name)?;
        Ok(Self(Kind::Name { name, port }))
    }
}

fn split(text: &str) -> Result<(&str, &str), HostPortError> {
    match text.rsplit_once(':') {
        // The last colon may stand within brackets: then there is no port.
        Some((_, port)) if port.ends_with(']') => Err(HostPortError::NoPort),
        Some((_, "")) | None => Err(HostPortError::NoPort),
        Some(("", _)) => Err(HostPortError::NoHost),
        Some(parts) => Ok(parts),
    }
}

fn port_of(text: &str) -> Result<u16, HostPortError> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| *port != 0 && is_number).ok_or(HostPortError::Port)
}

fn check_name(name: &str) -> Result<(), HostPortError> {
    if name.is_empty() {
        return Err(HostPortError::NoHost);
    }
    let last_label = name.rsplit('.').next().unwrap_or(name);
    if last_label.bytes().all(|byte| byte.is_ascii_digit()) && name.parse::<IpAddr>().is_err() {
        // A name must not end in a number (RFC 3696 s2): resolvers read 127.1 as an address.
        return Err(HostPortError::Ipv4);
    }
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > NAME_BYTES_MAX || !name.split('.').all(is_label) {
        return Err(HostPortError::Name);
    }
    Ok(())
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Ip(addr) => addr.fmt(f),
            Kind::Name { name, port } => f.pad(&format!("{name}:{port}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_are_read_and_print_in_one_form() {
        for (typed, shown) in [
            ("192.0.2.7:4000", "192.0.2.7:4000"),
            ("[2001:DB8::7]:4000", "[2001:db8::7]:4000"),
            ("[fe80::1%2]:4000", "[fe80::1%2]:4000"),
            ("Example.ORG.:65535", "example.org:65535"),
            ("localhost:1", "localhost:1"),
            ("my_nas-2.home:4000", "my_nas-2.home:4000"),
            ("xn--bcher-kva.example:4000", "xn--bcher-kva.example:4000"),
        ] {
            assert_eq!(typed.parse::<HostPort>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn each_way_of_getting_it_wrong_has_its_message() {
        for (typed, error) in [
            ("", HostPortError::Empty),
            ("example.org", HostPortError::NoPort),
            ("example.org:", HostPortError::NoPort),
            ("192.0.2.7", HostPortError::NoPort),
            ("[2001:db8::7]", HostPortError::NoPort),
            (":4000", HostPortError::NoHost),
            (".:4000", HostPortError::NoHost),
            ("example.org:0", HostPortError::Port),
            ("192.0.2.7:0", HostPortError::Port),
            ("example.org:65536", HostPortError::Port),
            ("example.org:+40", HostPortError::Port),
            ("example.org:http", HostPortError::Port),
            ("2001:db8::7", HostPortError::Brackets),
            ("2001:db8::7g:4000", HostPortError::Brackets),
            ("[example.org]:4000", HostPortError::Ipv6),
            ("256.0.0.1:4000", HostPortError::Ipv4),
            ("127.1:4000", HostPortError::Ipv4),
            ("2130706433:4000", HostPortError::Ipv4),
            ("exa mple.org:4000", HostPortError::Name),
            ("bücher.example:4000", HostPortError::Name),
            ("a..b:4000", HostPortError::Name),
            ("-a.b:4000", HostPortError::Name),
            ("http://example.org:4000", HostPortError::Brackets),
        ] {
            assert_eq!(typed.parse::<HostPort>(), Err(error), "{typed}");
        }
    }

    #[test]
    fn the_longest_label_and_name_are_read_and_longer_ones_are_not() {
        let label = "a".repeat(LABEL_BYTES_MAX);
        assert!(format!("{label}.b:1").parse::<HostPort>().is_ok());
        assert_eq!(format!("{label}a.b:1").parse::<HostPort>(), Err(HostPortError::Name));
        let name = [&*label, &label, &label, &label[2..]].join(".");
        assert_eq!(name.len(), NAME_BYTES_MAX);
        assert!(format!("{name}:1").parse::<HostPort>().is_ok());
        assert_eq!(format!("a{name}:1").parse::<HostPort>(), Err(HostPortError::Name));
    }
}
