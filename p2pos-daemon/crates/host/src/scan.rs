//! What lies in the plugins directory, and the notice that it changed. Owns the rule of what counts as a plugin there
//! (a directory, or a link to one, that has a manifest) and the debouncing of the kernel's events.
//!
//! Refuses to know: what to do about it. Where the kernel cannot watch, it looks every few seconds instead.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::sync::mpsc;

use crate::{
    manifest::{self, Loaded, MANIFEST_FILE},
    plugin_id::PluginId,
};

/// Plugins that one daemon keeps. Each costs a task, a log and perhaps a process.
const PLUGINS_MAX: usize = 256;
/// Quiet time after a change before it is looked at: copying a plugin makes many events.
const DEBOUNCE: Duration = Duration::from_millis(250);
/// How long changes may go on before they are looked at all the same: a plugin that keeps writing into its own directory
/// delays the notice of others by no more than this.
const DEBOUNCE_MAX: Duration = Duration::from_secs(2);
/// How often to look where the kernel gives no notice.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Reads the plugins directory. A directory whose name is no plugin id is passed over with a warning. Blocks on the disk.
pub(crate) fn scan(plugins_dir: &Path) -> io::Result<Vec<(PluginId, Loaded)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(plugins_dir)? {
        let path = entry?.path();
        if !path.join(MANIFEST_FILE).exists() {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match PluginId::parse(&name) {
            Ok(_) if found.len() == PLUGINS_MAX => {
                tracing::warn!("more than {PLUGINS_MAX} plugins: {name} and perhaps others are passed over");
                break;
            }
            Ok(id) => found.push((id, manifest::load(&path))),
            Err(error) => tracing::warn!(directory = name, %error, "this directory cannot be a plugin"),
        }
    }
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(found)
}

/// Tells when something in the watched directories changed.
#[derive(Debug)]
pub(crate) struct Watch {
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    changes: mpsc::Receiver<()>,
}

impl Watch {
    pub(crate) fn new() -> Self {
        // One waiting notice says it all.
        let (notice, changes) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let is_change = event.map_or(true, |event| is_change(event.kind));
            if is_change && notice.try_send(()).is_err() {
                // A notice waits already, or nobody looks any more.
            }
        });
        let watcher = watcher
            .map_err(|error| tracing::warn!(%error, "plugin directories are looked at by the clock"))
            .ok();
        Self { watcher, watched: BTreeSet::new(), changes }
    }

    /// Watches the plugins directory and the plugins in it. A link is watched where it leads to.
    pub(crate) fn follow(&mut self, plugins_dir: &Path, found: &[(PluginId, Loaded)]) {
        let Some(watcher) = &mut self.watcher else { return };
        let mut wanted: BTreeSet<PathBuf> = [plugins_dir.to_owned()].into();
        for (_, loaded) in found {
            wanted.insert(loaded.dir.clone());
            wanted.extend(loaded.program_dirs());
        }
        for gone in self.watched.difference(&wanted) {
            if let Err(error) = watcher.unwatch(gone) {
                tracing::debug!(%error, "not watched any more anyway");
            }
        }
        let mut are_all = true;
        for path in &wanted {
            // Watching again renews a watch whose directory was replaced.
            if let Err(error) = watcher.watch(path, RecursiveMode::NonRecursive) {
                tracing::debug!(path = %path.display(), %error, "cannot be watched");
                // One that has just gone is no loss: the next look knows.
                are_all &= !path.exists();
            }
        }
        self.watched = wanted;
        if !are_all {
            tracing::warn!("not all plugin directories can be watched (fs.inotify.max_user_watches?)");
            self.watcher = None;
        }
    }

    /// Resolves some time after a change. Cancel-safe.
    pub(crate) async fn changed(&mut self) {
        if self.watcher.is_none() {
            tokio::time::sleep(LOOK_EVERY).await;
            return;
        }
        if self.changes.recv().await.is_none() {
            self.watcher = None;
            return;
        }
        // Cancel-safe enough: a notice that is lost here is followed by another scan of whoever cancelled.
        let until_quiet = async {
            while tokio::time::timeout(DEBOUNCE, self.changes.recv())
                .await
                .is_ok_and(|notice| notice.is_some())
            {}
        };
        if tokio::time::timeout(DEBOUNCE_MAX, until_quiet).await.is_err() {
            tracing::trace!("the plugin directories do not come to rest");
        }
    }
}

/// Reading a directory makes events, too; only writing counts.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_and_links_with_a_manifest_are_plugins_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let manifest = "manifest = 1\nid = \"b\"\n[run]\nexec = [\"sh\"]\n";
        fs::write(elsewhere.path().join(MANIFEST_FILE), manifest).unwrap();
        for name in ["a", "empty", "Bad Name"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("a").join(MANIFEST_FILE), "id = 1").unwrap();
        fs::write(dir.path().join("Bad Name").join(MANIFEST_FILE), manifest).unwrap();
        fs::write(dir.path().join("notes.txt"), "x").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), dir.path().join("b")).unwrap();
        let found = scan(dir.path()).unwrap();
        let names: Vec<&str> = found.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(found[0].1.manifest.is_none());
        assert!(found[1].1.manifest.is_some());
    }

    #[tokio::test]
    async fn a_change_is_noticed_and_reading_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = Watch::new();
        watch.follow(dir.path(), &[]);
        scan(dir.path()).unwrap();
        let early = tokio::time::timeout(Duration::from_millis(300), watch.changed()).await;
        assert!(early.is_err(), "nothing was written");
        fs::write(dir.path().join("x"), "y").unwrap();
        tokio::time::timeout(Duration::from_secs(10), watch.changed()).await.unwrap();
    }
}
