//! Who may depend on whom. The table below is the house plan of ARCHITECTURE.md in a form that a machine can check, read against
//! `cargo metadata`; the reasons stand there. Test-only dependencies are free: a test may look at the house from anywhere.

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::Finding;
use crate::command::Command;

/// One crate of ours: where it stands and what of ours it may use.
struct Room {
    name: &'static str,
    floor: u8,
    may_use: &'static [&'static str],
}

const fn room(floor: u8, name: &'static str, may_use: &'static [&'static str]) -> Room {
    Room { name, floor, may_use }
}

/// Highest floor of a crate that must stay pure: no socket, clock, thread, environment or randomness of its own.
const PURE_FLOOR_MAX: u8 = 1;
/// A plugin that the binary brings along stands beside the third floor's crates, and knows none of them.
const BUNDLED: u8 = 3;
/// The daemon's binary.
const TOP_FLOOR: u8 = 4;
/// Tools stand outside the house; they look at it through the plugin protocol.
const OUTSIDE: u8 = 5;

const HOUSE: &[Room] = &[
    room(0, "p2pos-identity", &[]),
    room(1, "p2pos-plugin-protocol", &["p2pos-identity"]),
    room(1, "p2pos-noise-quic", &["p2pos-identity"]),
    room(1, "p2pos-peer-protocol", &["p2pos-identity"]),
    room(1, "p2pos-traversal", &["p2pos-identity"]),
    room(1, "p2pos-relay", &["p2pos-identity"]),
    room(
        2,
        "p2pos-transport",
        &["p2pos-identity", "p2pos-noise-quic", "p2pos-traversal", "p2pos-relay", "p2pos-peer-protocol"],
    ),
    room(2, "p2pos-connectivity", &["p2pos-identity", "p2pos-traversal", "p2pos-relay"]),
    room(2, "p2pos-discovery", &["p2pos-identity", "p2pos-traversal", "p2pos-peer-protocol"]),
    room(
        3,
        "p2pos-node",
        &[
            "p2pos-identity",
            "p2pos-peer-protocol",
            "p2pos-traversal",
            "p2pos-relay",
            "p2pos-transport",
            "p2pos-connectivity",
            "p2pos-discovery",
        ],
    ),
    room(3, "p2pos-host", &["p2pos-identity", "p2pos-plugin-protocol"]),
    room(3, "p2pos-control", &["p2pos-identity"]),
    room(
        TOP_FLOOR,
        "p2pos",
        &[
            "p2pos-identity",
            "p2pos-plugin-protocol",
            "p2pos-peer-protocol",
            "p2pos-traversal",
            "p2pos-relay",
            "p2pos-transport",
            "p2pos-connectivity",
            "p2pos-discovery",
            "p2pos-node",
            "p2pos-host",
            "p2pos-control",
            // The demo's plugin is built in, so that the demo needs nothing but the one program that `cargo run` builds.
            "p2pos-plugin-echo",
        ],
    ),
    room(BUNDLED, "p2pos-plugin-echo", &["p2pos-plugin-protocol"]),
    room(OUTSIDE, "p2pos-conformance", &["p2pos-identity", "p2pos-plugin-protocol"]),
    room(OUTSIDE, "p2pos-rogue-plugin", &["p2pos-plugin-protocol"]),
    room(
        OUTSIDE,
        "p2pos-fuzz",
        &[
            "p2pos-identity",
            "p2pos-plugin-protocol",
            "p2pos-noise-quic",
            "p2pos-peer-protocol",
            "p2pos-relay",
            "p2pos-traversal",
            "p2pos-transport",
            "p2pos-host",
        ],
    ),
    room(
        OUTSIDE,
        "p2pos-natlab",
        &["p2pos-identity", "p2pos-plugin-protocol", "p2pos-traversal", "p2pos-control"],
    ),
    room(OUTSIDE, "xtask", &[]),
];

/// Foreign crates that would bring a socket, a clock, a thread, the environment or randomness into the pure floors.
const IMPURE: &[&str] = &[
    "tokio",
    "tokio-util",
    "noq",
    "noq-udp",
    "mio",
    "socket2",
    "getrandom",
    "rand",
    "rustix",
    "libc",
    "notify",
    "directories",
    "tempfile",
    "redb",
    "igd-next",
    "sd-notify",
    "tracing-subscriber",
    "anyhow",
    "clap",
];

/// Where a pure crate opens a door, and the features that stand before it: off unless an upper floor asks.
const DOORS: &[(&str, &str)] = &[
    // The keys and contacts on disk (feature `store`).
    ("p2pos-identity", "getrandom"),
    ("p2pos-identity", "redb"),
    ("p2pos-identity", "rustix"),
    // The session task and the Rust SDK (features `driver`, `client`).
    ("p2pos-plugin-protocol", "getrandom"),
    ("p2pos-plugin-protocol", "tokio"),
];

/// Foreign crates that belong to one place only, with the invariant that they stand for.
const KEPT: &[(&str, &[&str], &str)] = &[
    (
        "clap",
        &["p2pos", "p2pos-conformance", "p2pos-natlab", "xtask"],
        "only the binary reads the command line",
    ),
    ("clap_complete", &["p2pos"], "only the binary reads the command line"),
    ("indicatif", &["p2pos"], "only the binary talks to a person"),
    ("tracing-subscriber", &["p2pos"], "only the binary decides where logs go"),
    (
        "anyhow",
        &["p2pos", "p2pos-conformance", "p2pos-natlab", "p2pos-plugin-echo", "p2pos-rogue-plugin", "xtask"],
        "libraries have error types that callers can act upon",
    ),
    (
        "prost",
        &["p2pos-plugin-protocol", "p2pos-peer-protocol"],
        "protobuf types stop at their protocol crate",
    ),
    ("snow", &["p2pos-noise-quic"], "one crate holds session keys"),
    ("ring", &["p2pos-noise-quic"], "one crate holds session keys"),
    ("noq", &["p2pos-transport"], "QUIC stops at the transport"),
    ("noq-udp", &["p2pos-transport"], "one crate owns the UDP sockets"),
    ("noq-proto", &["p2pos-noise-quic", "p2pos-transport", "p2pos-fuzz"], "QUIC stops at the transport"),
    ("ed25519-dalek", &["p2pos-identity"], "one crate holds the identity key"),
    ("redb", &["p2pos-identity"], "one crate knows the contacts file"),
];

/// What we read of one package in `cargo metadata`.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    #[serde(rename = "manifest_path")]
    pub(crate) manifest: String,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    optional: bool,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: String,
}

/// The workspace's members, with manifest paths relative to the root.
pub(crate) fn packages() -> Result<Vec<Package>> {
    let json = Command::cargo(&["metadata", "--format-version=1", "--no-deps", "--locked"]).read()?;
    let Metadata { mut packages, workspace_root } =
        serde_json::from_str(&json).context("read cargo metadata")?;
    for package in &mut packages {
        let relative = package.manifest.strip_prefix(&workspace_root).unwrap_or(&package.manifest);
        package.manifest = relative.trim_start_matches('/').to_owned();
    }
    Ok(packages)
}

/// Folders of the crates on the pure floors.
pub(crate) fn pure_crate_folders() -> Result<Vec<String>> {
    let is_pure = |package: &Package| find(&package.name).is_some_and(|room| room.floor <= PURE_FLOOR_MAX);
    let folder = |package: Package| package.manifest.trim_end_matches("/Cargo.toml").to_owned();
    Ok(packages()?.into_iter().filter(is_pure).map(folder).collect())
}

/// Compares the workspace with the table.
pub(crate) fn check() -> Result<Vec<Finding>> {
    Ok(packages()?.iter().flat_map(check_package).collect())
}

fn find(name: &str) -> Option<&'static Room> {
    HOUSE.iter().find(|room| room.name == name)
}

fn check_package(package: &Package) -> Vec<Finding> {
    let Some(room) = find(&package.name) else {
        return vec![Finding::new(
            &package.manifest,
            "has no floor: add it to tools/xtask/src/tidy/floors.rs and ARCHITECTURE.md",
        )];
    };
    let shipped = package.dependencies.iter().filter(|dependency| dependency.kind.as_deref() != Some("dev"));
    shipped
        .filter_map(|dependency| {
            objection(room, dependency).map(|what| Finding::new(&package.manifest, what))
        })
        .collect()
}

/// Why this room may not use that dependency.
fn objection(room: &Room, dependency: &Dependency) -> Option<String> {
    let name = dependency.name.as_str();
    if let Some(other) = find(name) {
        let may = room.may_use.contains(&name);
        return (!may).then(|| format!("floor {} may not use {name} (floor {})", room.floor, other.floor));
    }
    if room.floor <= PURE_FLOOR_MAX && IMPURE.contains(&name) {
        let has_door = DOORS.contains(&(room.name, name));
        if !has_door {
            return Some(format!("floor {} is pure: no {name} here", room.floor));
        }
        if !dependency.optional {
            return Some(format!("{name} must stay behind a feature: `optional = true`"));
        }
    }
    let (_, places, why) = KEPT.iter().find(|(kept, ..)| *kept == name)?;
    (!places.contains(&room.name)).then(|| format!("{name} does not belong here: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_itself_only_points_down() {
        for room in HOUSE {
            for used in room.may_use {
                let below = find(used).unwrap_or_else(|| panic!("{used} has no floor"));
                assert!(below.floor < room.floor, "{} uses {used} beside or above it", room.name);
            }
        }
    }

    #[test]
    fn every_door_and_every_kept_crate_names_a_room_that_is_there() {
        for (crate_name, _) in DOORS {
            assert!(find(crate_name).is_some(), "{crate_name}");
        }
        for place in KEPT.iter().flat_map(|(_, places, _)| places.iter()) {
            assert!(find(place).is_some(), "{place}");
        }
    }

    #[test]
    fn siblings_do_not_know_each_other() {
        assert!(
            first_objection("p2pos-host", &dependency("p2pos-node"))
                .is_some_and(|why| why.contains("may not use"))
        );
        assert_eq!(first_objection("p2pos-host", &dependency("p2pos-identity")), None);
    }

    #[test]
    fn a_pure_crate_gets_no_runtime_and_a_door_stays_shut_by_default() {
        assert!(
            first_objection("p2pos-traversal", &dependency("tokio")).is_some_and(|why| why.contains("pure"))
        );
        assert!(
            first_objection("p2pos-plugin-protocol", &dependency("tokio"))
                .is_some_and(|why| why.contains("optional"))
        );
        let behind_feature = Dependency { optional: true, ..dependency("tokio") };
        assert_eq!(first_objection("p2pos-plugin-protocol", &behind_feature), None);
    }

    #[test]
    fn session_keys_and_protobuf_types_stay_where_they_are() {
        assert!(
            first_objection("p2pos-node", &dependency("snow"))
                .is_some_and(|why| why.contains("session keys"))
        );
        assert!(
            first_objection("p2pos-host", &dependency("prost")).is_some_and(|why| why.contains("protobuf"))
        );
    }

    #[test]
    fn a_test_may_use_anything_and_an_unknown_crate_has_no_floor() {
        let for_tests = Dependency { kind: Some("dev".to_owned()), ..dependency("tokio") };
        assert!(check_package(&package("p2pos-traversal", vec![for_tests])).is_empty());
        assert_eq!(check_package(&package("p2pos-cellar", vec![])).len(), 1);
    }

    fn first_objection(room: &str, dependency: &Dependency) -> Option<String> {
        objection(find(room).unwrap(), dependency)
    }

    fn dependency(name: &str) -> Dependency {
        Dependency { name: name.to_owned(), kind: None, optional: false }
    }

    fn package(name: &str, dependencies: Vec<Dependency>) -> Package {
        Package { name: name.to_owned(), manifest: format!("{name}/Cargo.toml"), dependencies }
    }
}
