//! What the machine must have for the tests, and how to get it. Installs only as root with apt-get (a CI machine, a container);
//! on a person's own machine it names what is missing and touches nothing.

use anyhow::Result;

use crate::command::Command;
use crate::say;
use crate::steps::Missing;

/// One thing that some step needs: how to see that it is there, and the Debian package that brings it.
struct Need {
    what: &'static str,
    probe: &'static [&'static str],
    package: &'static str,
}

const NEEDS: &[Need] = &[
    Need { what: "a C compiler", probe: &["cc", "--version"], package: "gcc libc6-dev" },
    Need { what: "git", probe: &["git", "--version"], package: "git" },
    Need { what: "Tcl", probe: &["sh", "-c", "command -v tclsh"], package: "tcl" },
    Need { what: "Go", probe: &["go", "version"], package: "golang-go" },
    Need { what: "Node", probe: &["node", "--version"], package: "nodejs" },
    Need {
        what: "Python 3 with venv",
        probe: &["python3", "-c", "import ensurepip, venv"],
        package: "python3 python3-venv",
    },
    Need { what: "a C++ compiler", probe: &["c++", "--version"], package: "g++" },
    Need {
        what: "CMake",
        probe: &["sh", "-c", "command -v cmake && command -v make"],
        package: "cmake make",
    },
    Need { what: "pkg-config", probe: &["sh", "-c", "command -v pkg-config"], package: "pkg-config" },
    Need {
        what: "nanopb",
        probe: &[
            "sh",
            "-c",
            "echo '#include <pb_decode.h>' | cc -E -x c - && cc -shared -o /dev/null -lprotobuf-nanopb",
        ],
        package: "libnanopb-dev",
    },
    Need { what: "valgrind", probe: &["sh", "-c", "command -v valgrind"], package: "valgrind" },
    Need { what: "mandoc", probe: &["sh", "-c", "command -v mandoc"], package: "mandoc" },
];

/// What the NAT lab needs beside root. Nobody else's business: without root the lab's steps say themselves that they cannot run.
const LAB_NEEDS: &[Need] = &[
    Need { what: "ip", probe: &["sh", "-c", "command -v ip"], package: "iproute2" },
    Need { what: "nft", probe: &["sh", "-c", "command -v nft"], package: "nftables" },
    Need { what: "conntrack", probe: &["sh", "-c", "command -v conntrack"], package: "conntrack" },
    Need {
        what: "coturn",
        probe: &["sh", "-c", "command -v turnserver && command -v turnutils_natdiscovery"],
        package: "coturn",
    },
    Need { what: "miniupnpd", probe: &["sh", "-c", "command -v miniupnpd"], package: "miniupnpd-nftables" },
];

/// Installs what is missing, if that is ours to do.
pub(crate) fn prepare() -> Result<()> {
    let of_lab = if may_install() { LAB_NEEDS } else { &[] };
    let missing: Vec<&Need> = NEEDS.iter().chain(of_lab).filter(|need| !is_there(need)).collect();
    if missing.is_empty() {
        say::line("this machine has all that the tests need");
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().flat_map(|need| need.package.split(' ')).collect();
    if may_install() {
        Command::new("apt-get").args(["update", "--quiet"]).env("DEBIAN_FRONTEND", "noninteractive").run()?;
        Command::new("apt-get")
            .args(["install", "--yes", "--quiet", "--no-install-recommends"])
            .args(&packages)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .run()?;
    }
    let still: Vec<&str> = missing.iter().filter(|need| !is_there(need)).map(|need| need.what).collect();
    if still.is_empty() {
        return Ok(());
    }
    Err(Missing(format!("{} (as root: apt-get install {})", still.join(", "), packages.join(" "))).into())
}

/// Fails as missing unless the program is there; for steps that need it.
pub(crate) fn needs(program: &str, package: &str) -> Result<()> {
    if Command::new("sh").args(["-c", "command -v \"$0\"", program]).succeeds() {
        return Ok(());
    }
    Err(Missing(format!("{program} (as root: apt-get install {package})")).into())
}

/// Makes sure of one more program, for chores that need more than the tests do.
pub(crate) fn ensure(program: &'static str, package: &'static str) -> Result<()> {
    if needs(program, package).is_err() && may_install() {
        Command::new("apt-get")
            .args(["install", "--yes", "--quiet", "--no-install-recommends", package])
            .run()?;
    }
    needs(program, package)
}

fn is_there(need: &Need) -> bool {
    let [program, arguments @ ..] = need.probe else { return false };
    Command::new(program).args(arguments).succeeds()
}

/// As root on a Debian-like machine. A person who is root on their own machine asked for the tests, and the packages are harmless.
fn may_install() -> bool {
    let is_root = Command::new("id").args(["-u"]).read().is_ok_and(|uid| uid.trim() == "0");
    is_root && Command::new("apt-get").args(["--version"]).succeeds()
}
