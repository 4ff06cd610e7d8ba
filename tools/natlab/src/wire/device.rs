//! A TUN device: an interface in a network namespace whose packets we read and write.
//!
//! Owns the three `ioctl`s of `/dev/net/tun` (Documentation/networking/tuntap.rst of Linux) and the interface's settings. The device
//! takes trains of UDP datagrams uncut, which makes the wire an order of magnitude faster. It vanishes with its last descriptor: nothing
//! is left behind by whatever death.

use std::{
    fs::File,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    process::Command,
};

use rustix::{
    fs::{Mode, OFlags},
    ioctl,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::{End, WireError};

/// Packets that the kernel keeps for us, should our thread be late. Half a second of small packets.
const DEVICE_QUEUE_PACKETS: &str = "10000";

const IFF_TUN: i16 = 0x0001;
/// No extra header with the protocol's number.
const IFF_NO_PI: i16 = 0x1000;
/// A virtio-net header before each packet.
const IFF_VNET_HDR: i16 = 0x4000;

/// Checksums, and UDP trains over IPv4 and IPv6, need not be finished by the kernel.
const OFFLOADS: usize = 0x01 | 0x20 | 0x40;
const TUNSETIFF: ioctl::Opcode = 0x4004_54ca;
const TUNSETOFFLOAD: ioctl::Opcode = 0x4004_54d0;

/// `struct ifreq`, as far as `TUNSETIFF` reads it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

/// Makes `end`'s interface, with its addresses, up.
pub(super) fn open(end: &End, mtu: u16) -> Result<OwnedFd, WireError> {
    let namespace = end.namespace.clone();
    let interface = end.interface.clone();
    // A thread of its own, because entering a namespace is for the thread's life.
    let opened =
        std::thread::scope(|scope| scope.spawn(|| open_inside(namespace.as_deref(), &interface)).join());
    let device = opened.map_err(|_| WireError::Thread)??;
    for address in &end.addresses {
        ip(end, &["addr", "add", address, "dev", &end.interface])?;
    }
    let mtu = mtu.to_string();
    let mut up = vec!["link", "set", "dev", &end.interface, "mtu", &mtu, "txqueuelen", DEVICE_QUEUE_PACKETS];
    up.extend(["addrgenmode", "none", "up"]);
    ip(end, &up)?;
    Ok(device)
}

fn open_inside(namespace: Option<&Path>, interface: &str) -> Result<OwnedFd, WireError> {
    if let Some(path) = namespace {
        let handle =
            File::open(path).map_err(|source| WireError::Namespace { path: path.to_owned(), source })?;
        move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| WireError::Namespace { path: path.to_owned(), source: error.into() })?;
    }
    let device = |error: rustix::io::Errno| WireError::Device {
        interface: interface.to_owned(),
        source: error.into(),
    };
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let tun = rustix::fs::open("/dev/net/tun", flags, Mode::empty()).map_err(device)?;
    let mut name = [0; 16];
    let bytes = interface.as_bytes();
    if bytes.len() >= name.len() {
        return Err(device(rustix::io::Errno::NAMETOOLONG));
    }
    name[..bytes.len()].copy_from_slice(bytes);
    attach(&tun, InterfaceRequest { name, flags: IFF_TUN | IFF_NO_PI | IFF_VNET_HDR, rest: [0; 22] })
        .map_err(device)?;
    Ok(tun)
}

#[expect(
    unsafe_code,
    reason = "no crate that we use has these two ioctls; both read only what they are given"
)]
fn attach(tun: &OwnedFd, request: InterfaceRequest) -> rustix::io::Result<()> {
    // SAFETY: `TUNSETIFF` reads and writes at most a `struct ifreq`, 40 bytes, which `InterfaceRequest` has.
    unsafe { ioctl::ioctl(tun, ioctl::Updater::<TUNSETIFF, _>::new(&mut { request }))? };
    // SAFETY: `TUNSETOFFLOAD` takes a number.
    unsafe { ioctl::ioctl(tun, ioctl::IntegerSetter::<TUNSETOFFLOAD>::new_usize(OFFLOADS)) }
}

fn ip(end: &End, arguments: &[&str]) -> Result<(), WireError> {
    let mut command = match &end.namespace {
        Some(path) => {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net={}", path.display())).arg("ip");
            command
        }
        None => Command::new("ip"),
    };
    let output = command.args(arguments).output().map_err(|source| WireError::Ip { source })?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(WireError::IpSaid { arguments: arguments.join(" "), words })
}
