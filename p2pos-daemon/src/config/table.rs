//! The one list of all settings: name, kind, default, help. Documentation, checks and the environment follow it.

use p2pos_control::Failure;
use p2pos_discovery::RelayAt;

/// All settings, in the order in which they are shown.
pub(crate) const KEYS: &[Key] = &[
    Key {
        name: "network.port",
        kind: Kind::Port,
        default: "0",
        help: "UDP port that peers reach; 0 takes any free one",
    },
    Key {
        name: "network.strangers",
        kind: Kind::OneOf(&["admit", "refuse"]),
        default: "admit",
        help: "whether people who are no contacts may connect; what they reach is each plugin's choice",
    },
    Key {
        name: "network.port_mapping",
        kind: Kind::OneOf(&["auto", "off"]),
        default: "auto",
        help: "whether routers are asked to let peers in (UPnP, NAT-PMP, PCP)",
    },
    Key {
        name: "plugins.dir",
        kind: Kind::Path,
        default: "",
        help: "where plugins lie, seen from this file; empty means `plugins` in the data directory",
    },
    Key {
        name: "relay.mode",
        kind: Kind::OneOf(&["off", "contacts", "community"]),
        default: "off",
        help: "for whom this computer forwards encrypted traffic that it cannot read",
    },
    Key {
        name: "relay.use",
        kind: Kind::Relays,
        default: "",
        help: "relays at which people may call you: PEERID@HOST:PORT, with commas between them; two are used at a time",
    },
    Key {
        name: "relay.total_mbit",
        kind: Kind::Number { min: 1, max: 100_000 },
        default: "20",
        help: "what all whom you relay for get together, in Mbit/s",
    },
    Key {
        name: "relay.contact_mbit",
        kind: Kind::Number { min: 1, max: 100_000 },
        default: "2",
        help: "what each of your contacts gets of it, in Mbit/s",
    },
    Key {
        name: "relay.flows",
        kind: Kind::Number { min: 1, max: 100_000 },
        default: "128",
        help: "how many pairs with a contact of yours in them may be relayed at a time; each takes about 2 kB",
    },
    Key {
        name: "relay.month_gib",
        kind: Kind::Number { min: 0, max: 1_000_000 },
        default: "0",
        help: "the most that is relayed in a month, in GiB; afterwards people are only introduced to each other; 0 is no limit",
    },
    Key {
        name: "relay.tcp_ports",
        kind: Kind::Ports,
        default: "443, 0",
        help: "TCP ports for people whose network blocks UDP, if you relay; 0 is the number of the UDP port",
    },
    Key {
        name: "log.level",
        kind: Kind::OneOf(&["error", "warn", "info", "debug", "trace"]),
        default: "info",
        help: "how much the daemon says; addresses of people only from debug on",
    },
];

/// How like a name must be to be suggested (Jaro-Winkler, 0 to 1): below this the suggestion is a wild guess.
const LIKENESS_MIN: f64 = 0.75;

/// TCP ports of a relay: each is a socket for each address of ours, and nobody needs more than these.
const PORTS_MAX: usize = 4;

/// Relays in the settings: two are used, and more only stand by for them.
const RELAYS_MAX: usize = 8;

/// The items of a value that lists several.
pub(super) fn items(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// One setting.
#[derive(Debug)]
pub(crate) struct Key {
    /// `TABLE.KEY`.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// As text; it passes the check.
    pub(crate) default: &'static str,
    pub(crate) help: &'static str,
}

/// What values a setting takes.
#[derive(Debug)]
pub(crate) enum Kind {
    Port,
    Path,
    OneOf(&'static [&'static str]),
    Number {
        min: u32,
        max: u32,
    },
    /// Several, with commas between them.
    Ports,
    /// Several, with commas between them.
    Relays,
}

impl Key {
    /// Table and key within it.
    pub(crate) fn parts(&self) -> (&'static str, &'static str) {
        self.name.split_once('.').expect("every name of the table has one dot")
    }

    /// The variable of the environment that wins over the file.
    pub(crate) fn variable(&self) -> String {
        format!("P2POS_{}", self.name.to_ascii_uppercase().replace('.', "_"))
    }

    /// Whether it takes this value; if not, what it takes.
    pub(crate) fn check(&self, value: &str) -> Result<(), String> {
        match &self.kind {
            Kind::Port if value.parse::<u16>().is_ok() => Ok(()),
            Kind::Port => Err("it takes a number from 0 to 65535".to_owned()),
            Kind::Path if !value.contains('\0') => Ok(()),
            Kind::Path => Err("it takes a path, and a path has no NUL in it".to_owned()),
            Kind::OneOf(choices) if choices.contains(&value) => Ok(()),
            Kind::OneOf(choices) => Err(format!("it takes one of: {}", choices.join(", "))),
            Kind::Number { min, max } => match value.parse::<u32>() {
                Ok(number) if (*min..=*max).contains(&number) => Ok(()),
                Ok(_) | Err(_) => Err(format!("it takes a number from {min} to {max}")),
            },
            Kind::Ports => {
                let ports: Result<Vec<u16>, _> = items(value).map(str::parse).collect();
                match ports {
                    Ok(ports) if ports.len() <= PORTS_MAX => Ok(()),
                    Ok(_) | Err(_) => Err(format!("it takes at most {PORTS_MAX} ports: 443, 0")),
                }
            }
            Kind::Relays => {
                let relays: Result<Vec<RelayAt>, _> = items(value).map(str::parse).collect();
                let relays = relays.map_err(|error| error.to_string())?;
                if relays.len() > RELAYS_MAX {
                    return Err(format!("it takes at most {RELAYS_MAX} relays, and two are used at a time"));
                }
                Ok(())
            }
        }
    }
}

/// The setting of that name.
pub(crate) fn key_named(name: &str) -> Result<&'static Key, Failure> {
    KEYS.iter().find(|key| key.name == name).ok_or_else(|| {
        let failure = Failure::not_found(format!("there is no setting {name:?}"));
        match nearest(name, KEYS.iter().map(|key| key.name)) {
            Some(near) => failure.next(format!("did you mean {near}?")),
            None => failure.next("see them all: p2pos config get"),
        }
    })
}

/// The most similar of some names, if any is similar enough to be a likely slip.
pub(crate) fn nearest<'a>(name: &str, among: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    among
        .map(|near| (strsim::jaro_winkler(name, near), near))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, near)| near)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_passes_its_own_check() {
        for key in KEYS {
            assert_eq!(key.check(key.default), Ok(()), "{}", key.name);
        }
    }

    #[test]
    fn no_variable_means_something_else_already() {
        // These are given to plugins by the host (SPEC.md, launch environment) or to us by the user.
        let taken =
            ["P2POS_DATA_DIR", "P2POS_ENDPOINT", "P2POS_TOKEN", "P2POS_PLUGIN_ID", "P2POS_PROTOCOL_VERSIONS"];
        for key in KEYS {
            assert!(!taken.contains(&key.variable().as_str()), "{}", key.name);
        }
    }

    #[test]
    fn a_slip_finds_its_name_and_nonsense_finds_none() {
        let names = || KEYS.iter().map(|key| key.name);
        assert_eq!(nearest("netwrok.port", names()), Some("network.port"));
        assert_eq!(nearest("zzz", names()), None);
    }
}
