//! What a plugin may do through the daemon: the set a manifest asks for, and the set the user granted. Owns the names
//! of the permissions and the question "may this plugin?".
//!
//! Refuses to know: how grants are stored (`grants`), who asks (`session`). Follows plugin-host.md C9.

use std::{collections::BTreeSet, fmt};

use p2pos_identity::ProtocolName;

/// One permission. Its text is what the user approves, what is stored, and what Welcome tells the plugin.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permission {
    /// `net.open:/chess/1`: open this protocol at peers.
    Open(ProtocolName),
    /// `net.accept:/chess/1`: serve this protocol to peers.
    Accept(ProtocolName),
    /// `contacts.read`: see the user's contacts, their petnames and whether they are connected.
    ContactsRead,
    /// `peers.any`: deal with people who are no contacts, too.
    PeersAny,
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(protocol) => write!(f, "net.open:{protocol}"),
            Self::Accept(protocol) => write!(f, "net.accept:{protocol}"),
            Self::ContactsRead => f.write_str("contacts.read"),
            Self::PeersAny => f.write_str("peers.any"),
        }
    }
}

impl Permission {
    /// Reads the text form. `None`: no permission of this version.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(protocol) = text.strip_prefix("net.open:") {
            return ProtocolName::parse(protocol).ok().map(Self::Open);
        }
        if let Some(protocol) = text.strip_prefix("net.accept:") {
            return ProtocolName::parse(protocol).ok().map(Self::Accept);
        }
        match text {
            "contacts.read" => Some(Self::ContactsRead),
            "peers.any" => Some(Self::PeersAny),
            _ => None,
        }
    }
}

/// A set of permissions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    set: BTreeSet<Permission>,
    /// A tool of the user may open whatever its user types; no manifest can ask for this.
    opens_all: bool,
}

impl Permissions {
    /// Everything a tool that the user runs by hand needs to open any protocol at anybody.
    #[must_use]
    pub(crate) fn open_all() -> Self {
        Self { set: BTreeSet::new(), opens_all: true }
    }

    pub(crate) fn add(&mut self, permission: Permission) {
        self.set.insert(permission);
    }

    pub(crate) fn may_open(&self, protocol: &ProtocolName) -> bool {
        self.opens_all || self.set.contains(&Permission::Open(protocol.clone()))
    }

    pub(crate) fn may_accept(&self, protocol: &ProtocolName) -> bool {
        self.set.contains(&Permission::Accept(protocol.clone()))
    }

    pub(crate) fn may_read_contacts(&self) -> bool {
        self.set.contains(&Permission::ContactsRead)
    }

    pub(crate) fn may_meet_strangers(&self) -> bool {
        self.opens_all || self.set.contains(&Permission::PeersAny)
    }

    /// What is in `self` and not in `granted`: what the user would have to approve.
    pub(crate) fn beyond(&self, granted: &Self) -> Vec<Permission> {
        self.set.difference(&granted.set).cloned().collect()
    }

    /// The text forms, sorted.
    #[must_use]
    pub fn to_texts(&self) -> Vec<String> {
        self.set.iter().map(ToString::to_string).collect()
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        Self { set: permissions.into_iter().collect(), opens_all: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_permission_survives_its_text_form() {
        let chess = ProtocolName::parse("/chess/1").unwrap();
        for permission in [
            Permission::Open(chess.clone()),
            Permission::Accept(chess),
            Permission::ContactsRead,
            Permission::PeersAny,
        ] {
            assert_eq!(Permission::parse(&permission.to_string()), Some(permission));
        }
        for bad in ["", "net.open", "net.open:", "net.open:chess", "admin.read", "contacts.read "] {
            assert_eq!(Permission::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn only_new_wishes_need_approval() {
        let old: Permissions = [Permission::ContactsRead].into_iter().collect();
        let new: Permissions = [Permission::ContactsRead, Permission::PeersAny].into_iter().collect();
        assert_eq!(new.beyond(&old), [Permission::PeersAny]);
        assert!(old.beyond(&new).is_empty());
    }
}
