//! Where everything lies: one place decides, everybody else is told.
//!
//! With `--data-dir DIR` all of it is under DIR. Without, the folders are those of the platform (on Linux the XDG base
//! directories), and the sockets go where the login session keeps such things. Makes no directory and reads no file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use directories::{BaseDirs, ProjectDirs};
use p2pos_control::Failure;

/// The variable that stands for `--data-dir`.
pub(crate) const DATA_DIR_VARIABLE: &str = "P2POS_DATA_DIR";
/// Set by the host for the plugins that it launches. There `P2POS_DATA_DIR` is the plugin's own folder, not ours.
const PLUGIN_VARIABLE: &str = "P2POS_PLUGIN_ID";

/// The places of one daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Paths {
    /// Key, contacts, grants.
    pub(crate) data_dir: PathBuf,
    /// The settings.
    pub(crate) config_file: PathBuf,
    /// One directory per plugin, unless `plugins.dir` says otherwise.
    pub(crate) plugins_dir: PathBuf,
    /// What plugins keep.
    pub(crate) plugin_data_dir: PathBuf,
    /// What plugins say.
    pub(crate) log_dir: PathBuf,
    /// Sockets; only this user may enter.
    pub(crate) runtime_dir: PathBuf,
}

/// What of the process environment decides.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    pub(crate) data_dir: Option<OsString>,
    pub(crate) runtime_dir: Option<OsString>,
    pub(crate) is_plugin: bool,
}

impl Surroundings {
    /// Those of this process.
    pub(crate) fn of_process() -> Self {
        let non_empty = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            data_dir: non_empty(DATA_DIR_VARIABLE),
            runtime_dir: non_empty("XDG_RUNTIME_DIR"),
            is_plugin: non_empty(PLUGIN_VARIABLE).is_some(),
        }
    }
}

impl Paths {
    /// Decides, from the command line first and the environment second.
    pub(crate) fn choose(asked: Option<&Path>, around: &Surroundings) -> Result<Self, Failure> {
        let from_environment = around.data_dir.as_deref().filter(|_| !around.is_plugin).map(Path::new);
        match asked.or(from_environment) {
            Some(dir) => {
                let dir = std::path::absolute(dir).map_err(|error| {
                    Failure::usage(format!("the data directory {}: {error}", dir.display()))
                })?;
                Ok(Self::under(&dir))
            }
            None => Self::of_platform(around),
        }
    }

    fn under(dir: &Path) -> Self {
        Self {
            config_file: dir.join("config.toml"),
            plugins_dir: dir.join("plugins"),
            plugin_data_dir: dir.join("plugin-data"),
            log_dir: dir.join("logs"),
            runtime_dir: dir.join("run"),
            data_dir: dir.to_owned(),
        }
    }

    fn of_platform(around: &Surroundings) -> Result<Self, Failure> {
        let homeless =
            || Failure::failed("there is no home directory").next("name one: p2pos --data-dir DIR ...");
        let ours = ProjectDirs::from("", "", "p2pos").ok_or_else(homeless)?;
        let base = BaseDirs::new().ok_or_else(homeless)?;
        let mut paths = Self::under(ours.data_local_dir());
        paths.config_file = ours.config_local_dir().join("config.toml");
        paths.log_dir = base.state_dir().unwrap_or_else(|| base.data_local_dir()).join("p2pos").join("logs");
        if let Some(session) = &around.runtime_dir {
            paths.runtime_dir = Path::new(session).join("p2pos");
        }
        Ok(paths)
    }

    /// The socket that this command line speaks to.
    pub(crate) fn control_socket(&self) -> PathBuf {
        self.runtime_dir.join("control.sock")
    }

    /// The file whose lock says that a daemon lives. Beside the data, because that is what it guards.
    pub(crate) fn lock_file(&self) -> PathBuf {
        self.data_dir.join("run").join("lock")
    }

    /// The address book.
    pub(crate) fn contacts_file(&self) -> PathBuf {
        self.data_dir.join("contacts.redb")
    }

    /// How much the relay forwarded this month.
    pub(crate) fn relay_month_file(&self) -> PathBuf {
        self.data_dir.join("relay-month")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(data_dir: &str, is_plugin: bool) -> Surroundings {
        Surroundings { data_dir: Some(data_dir.into()), runtime_dir: Some("/run/user/7".into()), is_plugin }
    }

    #[test]
    fn the_command_line_wins_over_the_environment() {
        let paths = Paths::choose(Some(Path::new("/a")), &around("/b", false)).unwrap();
        assert_eq!(paths.data_dir, Path::new("/a"));
        assert_eq!(paths.control_socket(), Path::new("/a/run/control.sock"));
        let paths = Paths::choose(None, &around("/b", false)).unwrap();
        assert_eq!(paths.config_file, Path::new("/b/config.toml"));
    }

    #[test]
    fn inside_a_plugin_its_own_data_folder_is_not_taken_for_ours() {
        let paths = Paths::choose(None, &around("/b", true)).unwrap();
        assert!(!paths.data_dir.starts_with("/b"), "{paths:?}");
        assert_eq!(paths.control_socket(), Path::new("/run/user/7/p2pos/control.sock"));
    }

    #[test]
    fn a_relative_directory_stays_the_same_after_a_change_of_directory() {
        let paths = Paths::choose(Some(Path::new("here")), &Surroundings::default()).unwrap();
        assert!(paths.data_dir.is_absolute());
    }
}
