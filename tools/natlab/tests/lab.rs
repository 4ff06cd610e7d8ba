//! The lab does what it says: lifetimes, reboots, other addresses, cuts, long wires, and nothing left behind. Needs root, and says so.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use p2pos_natlab::judge::probe::Judge;
use p2pos_natlab::lab::Lab;
use p2pos_natlab::topology::{HOME, Kind, Router, Site};
use p2pos_natlab::wire::Link;

const SECOND: Duration = Duration::from_secs(1);
/// Long enough for a loaded machine.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_binding_lives_as_long_as_its_router_was_told() {
    let lab = Lab::new().unwrap();
    let judge = Judge::at(&lab.landmark("judge").unwrap()).unwrap();
    let router = Router::new(HOME).lifetimes(2 * SECOND, 5 * SECOND);
    let site = lab.site(&Site::new("home", vec![router])).unwrap();
    // Far from the limits on both sides: a loaded machine may be late by a second.
    let silences = [SECOND / 2, 3 * SECOND + SECOND / 2, 8 * SECOND];
    assert_eq!(judge.lifetime(site.host(), &silences, false).unwrap(), Some(silences[0]));
    assert_eq!(judge.lifetime(site.host(), &silences, true).unwrap(), Some(silences[1]));
}

#[test]
fn a_reboot_forgets_every_binding_of_every_kind() {
    let lab = Lab::new().unwrap();
    let judge = Judge::at(&lab.landmark("judge").unwrap()).unwrap();
    for kind in [Kind::FullCone, Kind::AddressRestricted, Kind::Home, Kind::Random, Kind::CarrierOverHome] {
        let site = lab.site(&kind.site("x")).unwrap();
        let mut binding = judge.binding(site.host()).unwrap();
        assert!(binding.is_alive().unwrap(), "{kind}");
        site.reboot().unwrap();
        assert!(!binding.is_alive().unwrap(), "{kind}");
        assert!(binding.renew().unwrap() && binding.is_alive().unwrap(), "{kind}: it works again");
    }
}

#[test]
fn a_reboot_of_a_random_nat_gives_another_port() {
    let lab = Lab::new().unwrap();
    let judge = Judge::at(&lab.landmark("judge").unwrap()).unwrap();
    let site = lab.site(&Kind::Random.site("x")).unwrap();
    let mut binding = judge.binding(site.host()).unwrap();
    let before = binding.seen_at();
    site.reboot().unwrap();
    assert!(binding.renew().unwrap());
    assert_ne!(binding.seen_at(), before);
}

#[test]
fn a_line_with_another_address_is_seen_at_it_and_not_at_the_old_one() {
    let lab = Lab::new().unwrap();
    let judge = Judge::at(&lab.landmark("judge").unwrap()).unwrap();
    for kind in [Kind::Home, Kind::FullCone, Kind::CarrierOverHome] {
        let mut site = lab.site(&kind.site("x")).unwrap();
        let mut binding = judge.binding(site.host()).unwrap();
        let before = site.outside_v4();
        assert_eq!(Some(binding.seen_at().ip()), before);
        site.change_address().unwrap();
        assert!(!binding.is_alive().unwrap(), "{kind}: the old address reaches nobody");
        assert!(binding.renew().unwrap(), "{kind}");
        assert_eq!(Some(binding.seen_at().ip()), site.outside_v4());
        assert_ne!(site.outside_v4(), before);
    }
}

#[test]
fn a_cut_parts_two_sites_and_no_others_until_it_is_healed() {
    let lab = Lab::new().unwrap();
    let judge = Judge::at(&lab.landmark("judge").unwrap()).unwrap();
    let a = lab.site(&Kind::Public.site("a")).unwrap();
    let b = lab.site(&Kind::Public.site("b")).unwrap();
    let reaches = || {
        let near = a.host().namespace.udp(a.host().v4.unwrap()).unwrap();
        let far = b.host().namespace.udp(b.host().v4.unwrap()).unwrap();
        far.set_read_timeout(Some(SECOND / 5)).unwrap();
        near.send_to(b"x", far.local_addr().unwrap()).unwrap();
        far.recv_from(&mut [0; 8]).is_ok()
    };
    assert!(reaches());
    lab.cut(&a, &b).unwrap();
    assert!(!reaches());
    assert!(judge.binding(a.host()).unwrap().is_alive().unwrap(), "others are still reached");
    lab.heal().unwrap();
    assert!(reaches());
}

#[test]
fn hosts_behind_one_router_reach_each_other_and_the_world() {
    let lab = Lab::new().unwrap();
    let judge = Judge::at(&lab.landmark("judge").unwrap()).unwrap();
    let site = lab.site(&Kind::Home.site("x").hosts(3)).unwrap();
    for host in site.hosts() {
        let binding = judge.binding(host).unwrap();
        assert_eq!(Some(binding.seen_at().ip()), site.outside_v4());
    }
    let [a, _, c] = site.hosts() else { panic!("three hosts were asked for") };
    let far = c.namespace.udp(c.v4.unwrap()).unwrap();
    far.set_read_timeout(Some(SOON)).unwrap();
    a.namespace.udp(a.v4.unwrap()).unwrap().send_to(b"x", far.local_addr().unwrap()).unwrap();
    let (_, from) = far.recv_from(&mut [0; 8]).unwrap();
    assert_eq!(Some(from.ip()), a.v4, "neighbours see each other as they are");
}

#[test]
fn a_site_at_a_long_wire_is_as_far_away_as_was_asked() {
    let lab = Lab::new().unwrap();
    let judge = Judge::at(&lab.landmark("judge").unwrap()).unwrap();
    let delay = Duration::from_millis(40);
    let site = lab.site(&Kind::Home.site("far").line(Link::delay(delay), Link::delay(delay))).unwrap();
    let mut binding = judge.binding(site.host()).unwrap();
    let took = binding.round_trip().unwrap().unwrap();
    assert!(took >= 2 * delay, "{took:?}");
}

#[test]
fn three_routers_in_a_row_still_lead_to_the_internet() {
    let lab = Lab::new().unwrap();
    let judge = Judge::at(&lab.landmark("judge").unwrap()).unwrap();
    let site = lab.site(&Site::new("deep", vec![Router::new(HOME); 3])).unwrap();
    let binding = judge.binding(site.host()).unwrap();
    assert_eq!(Some(binding.seen_at().ip()), site.outside_v4());
    for router in site.routers() {
        assert!(router.entries().unwrap() > 0);
    }
}

#[test]
fn a_site_can_follow_another_at_once_under_the_same_name() {
    let lab = Lab::new().unwrap();
    for _ in 0..30 {
        drop(lab.site(&Kind::Home.site("x")).unwrap());
    }
}

#[test]
fn nothing_is_left_of_a_lab_that_was_dropped() {
    let lab = Lab::new().unwrap();
    let site = lab.site(&Kind::CarrierOverHome.site("x")).unwrap();
    let folder = lab.folder().to_owned();
    let mut sleeper = site.host().namespace.spawn(Command::new("sleep").arg("600")).unwrap();
    let names: Vec<_> = site.routers().iter().map(|router| router.namespace.path()).collect();
    drop(site);
    assert!(names.iter().all(|name| !name.exists()), "a site goes by itself");
    assert!(!sleeper.wait().unwrap().success(), "and what ran in it was ended");
    let core = lab.core().path();
    assert!(core.exists() && folder.exists());
    drop(lab);
    assert!(!core.exists() && !folder.exists());
}

#[test]
fn a_killed_lab_is_cleared_by_the_next_one_and_a_living_one_is_not() {
    let mut killed = Command::new(env!("CARGO_BIN_EXE_p2pos-natlab"))
        .args(["stand", "home"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut stdout = BufReader::new(killed.stdout.take().unwrap());
    stdout.read_line(&mut said).unwrap();
    let name =
        said.split_whitespace().find(|word| word.starts_with("nl")).unwrap().trim_end_matches(',').to_owned();
    let left = Path::new("/run/netns").join(&name);
    let living = Lab::new().unwrap();
    assert!(left.exists(), "its owner lives");
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(left.exists(), "a killed process clears nothing up");
    drop(Lab::new().unwrap());
    assert!(!left.exists());
    assert!(living.core().path().exists());
}

#[test]
fn an_interrupted_lab_clears_up_before_it_ends() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_p2pos-natlab"))
        .args(["stand", "home", "public"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut said).unwrap();
    assert!(said.starts_with("home: host nl"), "{said}");
    assert!(Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap().success());
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(begun.elapsed() < SOON, "it does not end");
        sleep(SECOND / 50);
    };
    assert_eq!(status.code(), Some(130));
    let ours = format!("nl{:x}", child.id());
    let left = fs::read_dir("/run/netns").unwrap().flatten();
    assert!(!left.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with(&ours)));
}

#[test]
fn every_address_of_a_landmark_is_reached() {
    let lab = Lab::new().unwrap();
    let landmark = lab.landmark("far").unwrap();
    let site = lab.site(&Kind::DualStack.site("x")).unwrap();
    let host = site.host();
    for (from, to) in [(host.v4.unwrap(), landmark.v4), (host.v6.unwrap(), landmark.v6)] {
        for ip in to {
            let (near, far) = (host.namespace.udp(from).unwrap(), landmark.namespace.udp(ip).unwrap());
            far.set_read_timeout(Some(SOON)).unwrap();
            near.send_to(b"x", far.local_addr().unwrap()).unwrap();
            let (_, seen): (usize, SocketAddr) = far.recv_from(&mut [0; 8]).unwrap();
            let is_translated = matches!(seen.ip(), IpAddr::V4(_));
            assert_eq!(seen.ip() != from, is_translated, "IPv4 is translated, IPv6 never");
        }
    }
}
