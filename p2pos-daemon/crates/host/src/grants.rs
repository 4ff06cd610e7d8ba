//! What the user allowed, remembered on disk. Owns the grants file: its format, and that a power cut at any moment
//! leaves either the old or the new file, whole.
//!
//! A grant is bound to the plugin's id, the hash of what was approved and the permissions that were asked then. Change
//! either, and the plugin stops at `needs-approval` (plugin-host.md C9; reliability-ux.md B19, B20).
//!
//! Refuses to know: manifests, states. Everything here blocks on the disk.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use p2pos_identity::replace_file;
use serde::{Deserialize, Serialize};

use crate::{
    permissions::{Permission, Permissions},
    plugin_id::PluginId,
};

/// Version of the file's format.
const FORMAT: u32 = 1;

/// One approval of the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) exec_hash: String,
    pub(crate) permissions: Permissions,
}

/// All approvals.
#[derive(Debug)]
pub(crate) struct Grants {
    path: PathBuf,
    granted: BTreeMap<PluginId, Grant>,
}

#[derive(Serialize, Deserialize)]
struct FileForm {
    format: u32,
    #[serde(default)]
    plugins: BTreeMap<String, GrantForm>,
}

#[derive(Serialize, Deserialize)]
struct GrantForm {
    exec_sha256: String,
    permissions: Vec<String>,
}

impl Grants {
    /// Reads the file; without one, nothing is granted. A file that cannot be understood is moved aside and grants
    /// nothing: losing approvals is safe, guessing them is not.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => String::from("not text"),
            Err(error) => return Err(error),
        };
        let granted = if text.is_empty() { Some(BTreeMap::new()) } else { understand(&text) };
        let granted = match granted {
            Some(granted) => granted,
            None => {
                let aside = path.with_extension("toml.broken");
                fs::rename(&path, &aside)?;
                tracing::warn!(file = %aside.display(), "the grants file made no sense: moved aside, no plugin is enabled");
                BTreeMap::new()
            }
        };
        Ok(Self { path, granted })
    }

    pub(crate) fn of(&self, id: &PluginId) -> Option<&Grant> {
        self.granted.get(id)
    }

    /// Remembers an approval, or forgets it with `None`. On an error nothing has changed.
    pub(crate) fn set(&mut self, id: &PluginId, grant: Option<Grant>) -> io::Result<()> {
        let mut granted = self.granted.clone();
        match grant {
            Some(grant) => granted.insert(id.clone(), grant),
            None => granted.remove(id),
        };
        if granted != self.granted {
            replace_file(&self.path, to_text(&granted).as_bytes())?;
            self.granted = granted;
        }
        Ok(())
    }
}

fn understand(text: &str) -> Option<BTreeMap<PluginId, Grant>> {
    let form: FileForm = toml::from_str(text).ok()?;
    if form.format != FORMAT {
        return None;
    }
    let mut granted = BTreeMap::new();
    for (id, grant) in form.plugins {
        let permissions: Option<Permissions> = grant
            .permissions
            .iter()
            .map(|text| Permission::parse(text))
            .collect::<Option<Vec<_>>>()
            .map(|list| list.into_iter().collect());
        granted.insert(
            PluginId::parse(&id).ok()?,
            Grant { exec_hash: grant.exec_sha256, permissions: permissions? },
        );
    }
    Some(granted)
}

fn to_text(granted: &BTreeMap<PluginId, Grant>) -> String {
    let form = FileForm {
        format: FORMAT,
        plugins: granted
            .iter()
            .map(|(id, grant)| {
                let form = GrantForm {
                    exec_sha256: grant.exec_hash.clone(),
                    permissions: grant.permissions.to_texts(),
                };
                (id.to_string(), form)
            })
            .collect(),
    };
    let body = toml::to_string(&form).expect("strings, lists and a number are always TOML");
    format!("# Written by p2pos: what you allowed with `p2pos plugins enable`.\n{body}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(hash: &str) -> Grant {
        Grant { exec_hash: hash.to_owned(), permissions: [Permission::ContactsRead].into_iter().collect() }
    }

    #[test]
    fn approvals_survive_a_restart_and_can_be_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("grants.toml");
        let (a, b) = (PluginId::parse("org.a").unwrap(), PluginId::parse("b").unwrap());
        let mut grants = Grants::open(path.clone()).unwrap();
        assert_eq!(grants.of(&a), None);
        grants.set(&a, Some(grant("1"))).unwrap();
        grants.set(&b, Some(grant("2"))).unwrap();
        grants.set(&b, None).unwrap();
        let grants = Grants::open(path).unwrap();
        assert_eq!(grants.of(&a), Some(&grant("1")));
        assert_eq!(grants.of(&b), None);
    }

    #[test]
    fn a_file_that_makes_no_sense_grants_nothing_and_is_kept_aside() {
        let dir = tempfile::tempdir().unwrap();
        for text in [
            "format = 2\n",
            "[[",
            "format = 1\n[plugins.\"../x\"]\nexec_sha256 = \"\"\npermissions = []\n",
            "format = 1\n[plugins.a]\nexec_sha256 = \"\"\npermissions = [\"root\"]\n",
        ] {
            let path = dir.path().join("grants.toml");
            fs::write(&path, text).unwrap();
            let grants = Grants::open(path.clone()).unwrap();
            assert_eq!(grants.of(&PluginId::parse("a").unwrap()), None);
            assert_eq!(fs::read_to_string(dir.path().join("grants.toml.broken")).unwrap(), text);
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_crash_while_writing_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("grants.toml");
        let id = PluginId::parse("a").unwrap();
        Grants::open(path.clone()).unwrap().set(&id, Some(grant("1"))).unwrap();
        // What a crash between write and rename leaves behind: half a new file beside the old one.
        fs::write(path.with_extension("toml.new-1-0"), "format = 1\n[plug").unwrap();
        assert_eq!(Grants::open(path).unwrap().of(&id), Some(&grant("1")));
    }
}
