//! The settings: environment before file before default, and where each value came from.
//!
//! `table` is the one list of all settings; this file looks values up, `file` reads and writes the TOML. A wrong
//! value is an error with its line; an unknown key is a warning with the nearest name, because a file of a newer
//! version must not stop an older daemon.

mod file;
mod table;

use std::path::{Path, PathBuf};

use p2pos_control::{Failure, Problem, Setting, Settings};
use p2pos_discovery::RelayAt;
use p2pos_node::RelayConfig;
use p2pos_relay::{Rate, RelayMode, RelaySettings, Tariff};
use tracing::level_filters::LevelFilter;

use self::file::{ConfigFile, Found};
pub(crate) use self::table::nearest;
use self::table::{KEYS, Key, items, key_named};

/// Settings as the daemon uses them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// The UDP port; `None` takes any free one.
    pub(crate) port: Option<u16>,
    /// Whether people who are no contacts may connect.
    pub(crate) strangers: Strangers,
    /// Whether routers are asked to let packets in.
    pub(crate) asks_routers: bool,
    /// Where plugins lie, if not in the data directory.
    pub(crate) plugins_dir: Option<PathBuf>,
    /// For whom we relay, and whose relays we use.
    pub(crate) relay: Relay,
    /// How much the daemon says.
    pub(crate) log_level: LevelFilter,
}

/// For whom we relay, how much, and whose relays we use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Relay {
    pub(crate) mode: RelayMode,
    pub(crate) uses: Vec<RelayAt>,
    pub(crate) total_mbit: u32,
    pub(crate) contact_mbit: u32,
    /// Circuits with a contact in them.
    pub(crate) flows: u32,
    /// 0 is no limit.
    pub(crate) month_gib: u32,
    pub(crate) tcp_ports: Vec<u16>,
}

impl Relay {
    /// Bytes per second of one Mbit/s.
    const MBIT: u64 = 1_000_000 / 8;
    /// What may come at once before a rate counts: a page of pictures.
    const BURST_BYTES: u64 = 4 << 20;

    /// The same in the words of the node; `month_bytes` were forwarded this month before.
    pub(crate) fn for_node(&self, month_bytes: u64) -> RelayConfig {
        let rate = |mbit: u32| Rate::new(u64::from(mbit) * Self::MBIT, Self::BURST_BYTES);
        let month_bytes_max = (self.month_gib != 0).then_some(u64::from(self.month_gib) << 30);
        let (flow, source) = (rate(self.contact_mbit), rate(self.contact_mbit));
        let settings = RelaySettings {
            mode: self.mode,
            contacts: Tariff { flow, source, flows_max: self.flows, ..Tariff::contacts() },
            total: rate(self.total_mbit),
            month_bytes_max,
            ..RelaySettings::default()
        };
        // Who relays for nobody has no reason to listen.
        let tcp_ports = if self.mode == RelayMode::Off { Vec::new() } else { self.tcp_ports.clone() };
        RelayConfig { settings, uses: self.uses.clone(), month_bytes, tcp_ports }
    }
}

/// Whether people who are no contacts may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strangers {
    /// They get no connection.
    Refuse,
    /// They get one, and reach what a plugin offers to anyone.
    Admit,
}

/// Everything known about the settings: the values, their origins, what is wrong.
#[derive(Debug)]
pub(crate) struct Loaded {
    path: PathBuf,
    entries: Vec<(&'static Key, String, Origin)>,
    problems: Vec<Problem>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Environment,
    File,
    Default,
}

impl Origin {
    fn as_str(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::File => "file",
            Self::Default => "default",
        }
    }
}

/// Reads all settings. `variable` looks into the environment.
pub(crate) fn load(path: &Path, variable: impl Fn(&str) -> Option<String>) -> Result<Loaded, Failure> {
    let file = ConfigFile::read(path)?;
    let mut problems = file.unknown_keys();
    let mut entries = Vec::with_capacity(KEYS.len());
    for key in KEYS {
        let (value, origin) = match (variable(&key.variable()), file.value(key)) {
            (Some(value), _) => {
                key.check(&value).map_err(|why| Failure::usage(format!("{}: {why}", key.variable())))?;
                (value, Origin::Environment)
            }
            (None, Found::Value(value)) => (value, Origin::File),
            (None, Found::Nothing) => (key.default.to_owned(), Origin::Default),
            (None, Found::Wrong(problem)) => {
                problems.insert(0, problem);
                (key.default.to_owned(), Origin::Default)
            }
        };
        entries.push((key, value, origin));
    }
    Ok(Loaded { path: path.to_owned(), entries, problems })
}

/// Writes one setting into the file, keeping its comments and order.
pub(crate) fn set(path: &Path, name: &str, value: &str) -> Result<(), Failure> {
    let key = key_named(name)?;
    key.check(value).map_err(|why| Failure::usage(format!("{name} = {value}: {why}")))?;
    let mut file = ConfigFile::read(path)?;
    file.set(key, value)?;
    file.write()
}

impl Loaded {
    /// What is wrong in the file; errors first.
    pub(crate) fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The value of one setting.
    pub(crate) fn value(&self, name: &str) -> Result<&str, Failure> {
        let key = key_named(name)?;
        Ok(self.text(key.name))
    }

    fn text(&self, name: &str) -> &str {
        self.entries
            .iter()
            .find(|(key, ..)| key.name == name)
            .map(|(_, value, _)| value.as_str())
            .expect("load() makes an entry for every key of the table")
    }

    /// The settings for the daemon, unless something in the file is wrong.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        if let Some(problem) = self.problems.iter().find(|problem| problem.is_error) {
            return Err(Failure::usage(format!("{}: {}", problem.place, problem.message))
                .next("see all of them: p2pos config check"));
        }
        let port: u16 = self.text("network.port").parse().expect("the table checked that it is a port");
        let plugins_dir = self.text("plugins.dir");
        Ok(Config {
            port: (port != 0).then_some(port),
            strangers: if self.text("network.strangers") == "refuse" {
                Strangers::Refuse
            } else {
                Strangers::Admit
            },
            asks_routers: self.text("network.port_mapping") == "auto",
            // Beside the file that names it, wherever the daemon was started.
            plugins_dir: (!plugins_dir.is_empty()).then(|| self.path.with_file_name("").join(plugins_dir)),
            relay: self.relay(),
            log_level: self.text("log.level").parse().expect("the table checked that it is a level"),
        })
    }

    fn relay(&self) -> Relay {
        let number = |name| self.text(name).parse().expect("the table checked that it is a number");
        let ports = items(self.text("relay.tcp_ports"));
        let relays = items(self.text("relay.use"));
        Relay {
            mode: self.text("relay.mode").parse().expect("the table checked that it is a mode"),
            uses: relays.map(|at| at.parse().expect("the table checked that these are relays")).collect(),
            total_mbit: number("relay.total_mbit"),
            contact_mbit: number("relay.contact_mbit"),
            flows: number("relay.flows"),
            month_gib: number("relay.month_gib"),
            tcp_ports: ports.map(|port| port.parse().expect("the table checked the ports")).collect(),
        }
    }

    /// The same as a document.
    pub(crate) fn settings(&self) -> Settings {
        let settings = self.entries.iter().map(|(key, value, origin)| Setting {
            key: key.name.to_owned(),
            value: value.clone(),
            origin: origin.as_str().to_owned(),
            default: key.default.to_owned(),
            help: key.help.to_owned(),
        });
        Settings {
            file: self.path.display().to_string(),
            settings: settings.collect(),
            problems: self.problems.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use p2pos_identity::SecretKey;

    use super::*;

    fn nothing(_: &str) -> Option<String> {
        None
    }

    fn with(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn without_a_file_everything_is_as_the_table_says() {
        let dir = tempfile::tempdir().unwrap();
        let config = load(&dir.path().join("none.toml"), nothing).unwrap().config().unwrap();
        let expected = Config {
            port: None,
            strangers: Strangers::Admit,
            asks_routers: true,
            plugins_dir: None,
            relay: Relay {
                mode: RelayMode::Off,
                uses: Vec::new(),
                total_mbit: 20,
                contact_mbit: 2,
                flows: 128,
                month_gib: 0,
                tcp_ports: vec![443, 0],
            },
            log_level: LevelFilter::INFO,
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_file_over_the_default() {
        let (_dir, path) = with("[network]\nport = 4000\n[relay]\nmode = \"contacts\"\n");
        let variable = |name: &str| (name == "P2POS_NETWORK_PORT").then(|| "5000".to_owned());
        let loaded = load(&path, variable).unwrap();
        let config = loaded.config().unwrap();
        assert_eq!((config.port, config.relay.mode), (Some(5000), RelayMode::Contacts));
        let origins: Vec<_> = loaded.settings().settings.into_iter().map(|setting| setting.origin).collect();
        let given = origins.iter().filter(|origin| *origin != "default");
        assert_eq!(given.collect::<Vec<_>>(), ["environment", "file"]);
    }

    #[test]
    fn an_unknown_key_is_a_warning_with_the_nearest_name_and_its_line() {
        let (_dir, path) = with("# mine\n[network]\nprot = 4000\n");
        let loaded = load(&path, nothing).unwrap();
        let [problem] = loaded.problems() else { panic!("{:?}", loaded.problems()) };
        assert!(!problem.is_error);
        assert!(problem.place.ends_with("config.toml:3"), "{problem:?}");
        assert!(problem.message.contains("network.port"), "{problem:?}");
        loaded.config().unwrap();
    }

    #[test]
    fn an_unknown_table_is_named_once_and_not_key_by_key() {
        let (_dir, path) = with("[netwrok]\nport = 1\nstrangers = \"admit\"\n");
        let loaded = load(&path, nothing).unwrap();
        assert_eq!(loaded.problems().len(), 1, "{:?}", loaded.problems());
        assert!(loaded.problems()[0].message.contains("network"), "{:?}", loaded.problems());
    }

    #[test]
    fn a_wrong_value_is_an_error_with_its_line_and_what_would_be_right() {
        for (text, place, hint) in [
            ("[network]\nport = 70000\n", ":2", "65535"),
            ("[network]\nport = \"http\"\n", ":2", "65535"),
            ("\n\n[relay]\nmode = \"on\"\n", ":4", "community"),
            ("relay = 3\n", ":1", "table"),
        ] {
            let (_dir, path) = with(text);
            let failure = load(&path, nothing).unwrap().config().unwrap_err();
            assert!(failure.message.contains(place) && failure.message.contains(hint), "{text}: {failure}");
        }
    }

    #[test]
    fn what_is_no_toml_is_an_error_with_its_line() {
        let (_dir, path) = with("[network]\nport = \n");
        let failure = load(&path, nothing).unwrap_err();
        assert!(failure.message.contains("config.toml:2"), "{failure}");
    }

    #[test]
    fn relays_and_ports_are_lists_or_texts_and_each_item_is_checked() {
        let at = format!("{}@relay.example.org:443", SecretKey::from_seed([1; 32]).peer_id());
        for (uses, ports) in [(format!("\"{at}\""), "\"443, 0\""), (format!("[\"{at}\"]"), "[443, 0]")] {
            let (_dir, path) = with(&format!("[relay]\nuse = {uses}\ntcp_ports = {ports}\n"));
            let relay = load(&path, nothing).unwrap().config().unwrap().relay;
            assert_eq!((relay.uses.len(), relay.uses[0].to_string()), (1, at.clone()));
            assert_eq!(relay.tcp_ports, [443, 0]);
            assert!(relay.for_node(0).tcp_ports.is_empty(), "who relays for nobody does not listen");
        }
        for (text, hint) in [
            ("use = \"relay.example.org:443\"", "@"),
            ("use = [3]", "@"),
            ("tcp_ports = [70000]", "ports"),
            ("tcp_ports = [1, 2, 3, 4, 5]", "ports"),
            ("month_gib = -1", "1000000"),
            ("total_mbit = 0", "100000"),
        ] {
            let (_dir, path) = with(&format!("[relay]\n{text}\n"));
            let failure = load(&path, nothing).unwrap().config().unwrap_err();
            assert!(failure.message.contains(":2") && failure.message.contains(hint), "{text}: {failure}");
        }
    }

    #[test]
    fn a_relative_plugins_folder_lies_beside_the_file() {
        for (named, expected) in [("mine", "mine"), ("/opt/plugins", "/opt/plugins")] {
            let (dir, path) = with(&format!("[plugins]\ndir = \"{named}\"\n"));
            let config = load(&path, nothing).unwrap().config().unwrap();
            assert_eq!(config.plugins_dir, Some(dir.path().join(expected)));
        }
    }

    #[test]
    fn setting_a_value_keeps_comments_and_order() {
        let (_dir, path) =
            with("# my node\n[network]\nport = 1 # behind the router\n\n[log]\nlevel = \"info\"\n");
        set(&path, "network.port", "4242").unwrap();
        set(&path, "relay.mode", "contacts").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# my node\n[network]\nport = 4242 # behind the router\n"), "{text}");
        assert!(text.contains("[relay]\nmode = \"contacts\"\n"), "{text}");
        assert_eq!(load(&path, nothing).unwrap().config().unwrap().relay.mode, RelayMode::Contacts);
    }

    #[test]
    fn setting_nonsense_changes_nothing() {
        let (_dir, path) = with("[network]\nport = 1\n");
        assert!(set(&path, "network.port", "-1").unwrap_err().message.contains("65535"));
        let failure = set(&path, "network.prot", "1").unwrap_err();
        assert!(failure.next.iter().any(|line| line.contains("network.port")), "{failure:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "[network]\nport = 1\n");
    }

    #[test]
    fn setting_a_value_makes_the_file_and_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/config.toml");
        set(&path, "log.level", "debug").unwrap();
        assert_eq!(load(&path, nothing).unwrap().value("log.level").unwrap(), "debug");
    }
}
