//! What the demo finds beside itself (this program, bundled plugins) and the folder it works in, which goes with it.

use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs, io, process};

use p2pos_control::Failure;
use toml_edit::{Array, DocumentMut, value};

use super::ECHO_WORD;

/// Names the folder of the bundled plugins where it does not lie in the checkout.
const BUNDLED_VARIABLE: &str = "P2POS_BUNDLED_PLUGINS";
/// What the chat plugin needs.
const PYTHON_CHECK: &str = "import sys; sys.exit(sys.version_info < (3, 11))";
/// Folders of earlier demos with our process id that may be in the way: left by `--keep`, each by another one.
const NAMES_TRIED_MAX: u32 = 100;

/// What the demo finds.
#[derive(Debug)]
pub(super) struct Found {
    /// Our own program.
    pub(super) p2pos: PathBuf,
    /// The folder with all bundled plugins.
    pub(super) plugins: PathBuf,
}

impl Found {
    pub(super) fn look() -> Result<Self, Failure> {
        let p2pos = env::current_exe()
            .map_err(|error| Failure::failed(format!("cannot find this program: {error}")))?;
        let beside = p2pos.parent().unwrap_or_else(|| Path::new("."));
        let plugins = bundled(beside)?;
        Ok(Self { p2pos, plugins })
    }

    /// Puts the bundled plugins into a daemon's folder; they are disabled there until somebody enables them.
    pub(super) fn install(&self, into: &Path) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::failed(format!("cannot install the plugins: {error}"));
        fs::create_dir_all(into).map_err(failed)?;
        for plugin in ["chat", "hello-sh"] {
            symlink(self.plugins.join(plugin), into.join(plugin)).map_err(failed)?;
        }
        let echo = into.join("echo");
        fs::create_dir(&echo).map_err(failed)?;
        let manifest = fs::read_to_string(self.plugins.join("echo/plugin.toml")).map_err(failed)?;
        fs::write(echo.join("plugin.toml"), self.with_our_program(&manifest)?).map_err(failed)
    }

    /// The echo plugin is compiled into this program too, so that the demo needs no second one to be built.
    fn with_our_program(&self, manifest: &str) -> Result<String, Failure> {
        let mut manifest: DocumentMut = manifest
            .parse()
            .map_err(|error| Failure::failed(format!("the manifest of the echo plugin: {error}")))?;
        let program =
            self.p2pos.to_str().ok_or_else(|| Failure::failed("this program's path is not UTF-8"))?;
        manifest["run"]["exec"] = value(Array::from_iter([program, ECHO_WORD]));
        Ok(manifest.to_string())
    }
}

/// The bundled plugins: where the environment says, else in the checkout that we were built in, else in this folder.
fn bundled(beside: &Path) -> Result<PathBuf, Failure> {
    let named = env::var_os(BUNDLED_VARIABLE).map(PathBuf::from);
    let in_checkout = beside.join("../../plugins");
    let candidates = named.map_or_else(|| vec![in_checkout, PathBuf::from("plugins")], |named| vec![named]);
    let found =
        candidates.iter().find_map(|dir| dir.join("echo/plugin.toml").is_file().then(|| dir.canonicalize()));
    match found {
        Some(Ok(dir)) => Ok(dir),
        Some(Err(error)) => Err(Failure::failed(format!("the bundled plugins: {error}"))),
        None => Err(Failure::not_found("the bundled plugins are not there")
            .next(format!("say where: {BUNDLED_VARIABLE}=DIR p2pos demo   (DIR has echo/plugin.toml)"))),
    }
}

/// Whether there is a Python that the chat plugin runs on.
pub(super) fn has_python() -> bool {
    Command::new("python3")
        .args(["-c", PYTHON_CHECK])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A folder of our own; removed with everything in it, unless it is kept.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Nothing is left to remove.
    is_left: bool,
}

impl Folder {
    pub(super) fn make() -> Result<Self, Failure> {
        let parent = env::temp_dir();
        for number in 0..NAMES_TRIED_MAX {
            let path = parent.join(format!("p2pos-demo-{}-{number}", process::id()));
            // Fails if somebody else made it: then it is not ours, and we take another.
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self { path, is_left: false }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(Failure::failed(format!("cannot make {}: {error}", path.display())));
                }
            }
        }
        Err(Failure::failed(format!("too many demos are kept in {}", parent.display())))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it where it is.
    pub(super) fn keep(&mut self) {
        self.is_left = true;
    }

    /// Removes it now.
    pub(super) fn remove(&mut self) -> io::Result<()> {
        if self.is_left {
            return Ok(());
        }
        self.is_left = true;
        fs::remove_dir_all(&self.path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Only on the way out of an error, which is the one to be told.
        drop(self.remove());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_gone_with_its_holder_and_two_never_meet() {
        let (first, second) = (Folder::make().unwrap(), Folder::make().unwrap());
        assert_ne!(first.path(), second.path());
        let path = first.path().to_owned();
        fs::write(path.join("file"), "").unwrap();
        drop(first);
        assert!(!path.exists());
    }
}
