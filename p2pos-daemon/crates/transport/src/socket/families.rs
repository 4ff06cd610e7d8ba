//! The sockets of both address families: bound on one port where possible, healed one by one, or rebuilt together.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use tokio::sync::Notify;

use crate::error::BindError;

use super::family::Family;

/// How often to look for a port that is free in both families before living with two different ones.
const SAME_PORT_TRIES: usize = 8;

/// Where to listen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listen {
    pub(crate) port: Option<u16>,
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) ipv6: Option<Ipv6Addr>,
}

/// The real sockets of this moment.
#[derive(Debug, Default)]
pub(super) struct Families {
    pub(super) v4: Option<Arc<Family>>,
    pub(super) v6: Option<Arc<Family>>,
    /// Whether this machine has ever had the family: if so, to be without it is damage.
    expects_v4: bool,
    expects_v6: bool,
}

impl Families {
    /// Binds both families, on one port if any port is free in both.
    pub(super) fn bind(listen: Listen, alarm: &Arc<Notify>) -> Result<Self, BindError> {
        for attempt in 1..=SAME_PORT_TRIES {
            let v6 = bind_one(listen.ipv6.map(IpAddr::V6), listen.port, alarm)?;
            let port = listen.port.or_else(|| v6.as_ref().map(|family| family.local().port()));
            let v4 = match bind_one(listen.ipv4.map(IpAddr::V4), port, alarm) {
                Err(BindError::PortTaken { .. }) if listen.port.is_none() && attempt < SAME_PORT_TRIES => {
                    continue;
                }
                Err(BindError::PortTaken { .. }) if listen.port.is_none() => {
                    bind_one(listen.ipv4.map(IpAddr::V4), None, alarm)?
                }
                other => other?,
            };
            let (expects_v4, expects_v6) = (v4.is_some(), v6.is_some());
            let families = Self { v4, v6, expects_v4, expects_v6 };
            return if families.is_empty() { Err(BindError::NoFamily) } else { Ok(families) };
        }
        Err(BindError::NoFamily)
    }

    /// Builds anew every socket that is missing or broken, on the port it had where that is still free.
    pub(super) fn heal(&mut self, listen: Listen, alarm: &Arc<Notify>) -> Result<(), BindError> {
        let port = listen.port.or_else(|| self.port());
        let (ipv4, ipv6) = (listen.ipv4.map(IpAddr::V4), listen.ipv6.map(IpAddr::V6));
        // The failure of one family must not keep the other from healing.
        let healed = [heal_one(&mut self.v6, ipv6, port, alarm), heal_one(&mut self.v4, ipv4, port, alarm)];
        self.expects_v4 |= self.v4.is_some();
        self.expects_v6 |= self.v6.is_some();
        healed.into_iter().collect::<Result<(), BindError>>()?;
        if self.is_empty() { Err(BindError::NoFamily) } else { Ok(()) }
    }

    /// Binds both families on whatever port is free, in place of what is there.
    pub(super) fn bind_anew(&mut self, listen: Listen, alarm: &Arc<Notify>) -> Result<(), BindError> {
        self.take_down();
        let Self { v4, v6, .. } = Self::bind(listen, alarm)?;
        (self.v4, self.v6) = (v4, v6);
        self.expects_v4 |= self.v4.is_some();
        self.expects_v6 |= self.v6.is_some();
        Ok(())
    }

    /// Closes both sockets and lets go of whoever waits for them. What was there still counts as expected.
    pub(super) fn take_down(&mut self) {
        for family in [self.v4.take(), self.v6.take()].into_iter().flatten() {
            family.retire();
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        [(&self.v4, self.expects_v4), (&self.v6, self.expects_v6)].into_iter().all(|(family, is_expected)| {
            match family {
                Some(family) => !family.is_broken(),
                None => !is_expected,
            }
        })
    }

    pub(super) fn of(&self, remote: IpAddr) -> Option<Arc<Family>> {
        match remote {
            IpAddr::V4(_) => self.v4.clone(),
            IpAddr::V6(_) => self.v6.clone(),
        }
    }

    /// Those that are there.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Family>> {
        [&self.v4, &self.v6].into_iter().flatten()
    }

    /// The port in use, of either family.
    pub(super) fn port(&self) -> Option<u16> {
        self.v6.as_ref().or(self.v4.as_ref()).map(|family| family.local().port())
    }

    fn is_empty(&self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }
}

/// Binds a socket anew if it is missing or broken.
fn heal_one(
    family: &mut Option<Arc<Family>>,
    ip: Option<IpAddr>,
    port: Option<u16>,
    alarm: &Arc<Notify>,
) -> Result<(), BindError> {
    if family.as_ref().is_none_or(|family| family.is_broken()) {
        // Gone first, so that its port is free.
        if let Some(broken) = family.take() {
            broken.retire();
        }
        *family = bind_one(ip, port, alarm)?;
    }
    Ok(())
}

/// Binds one socket; `None` where it is not wanted or the machine lacks the family.
fn bind_one(
    ip: Option<IpAddr>,
    port: Option<u16>,
    alarm: &Arc<Notify>,
) -> Result<Option<Arc<Family>>, BindError> {
    let Some(ip) = ip else { return Ok(None) };
    let local = SocketAddr::new(ip, port.unwrap_or(0));
    match Family::bind(local, alarm.clone()) {
        Ok(family) => Ok(Some(Arc::new(family))),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(BindError::PortTaken { local }),
        Err(error) => {
            tracing::info!(%local, %error, "this address family is not available");
            Ok(None)
        }
    }
}
