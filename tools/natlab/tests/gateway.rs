//! A router of the lab maps ports by each of the three protocols, through two routers, and forgets them when it starts anew. The requests are
//! written out by hand here: the lab must not take its own word, nor that of the code it is there to try.

#![expect(clippy::unwrap_used, reason = "a test that fails should say so at once")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use p2pos_natlab::gateway::{Gateway, UPNP_PORT};
use p2pos_natlab::lab::{BuiltSite, Lab, Landmark};
use p2pos_natlab::namespace::Namespace;
use p2pos_natlab::topology::{HOME, Inner, Kind, Router, Site};

/// Long enough for a loaded machine.
const SOON: Duration = Duration::from_secs(10);
/// How long we wait for what must not come.
const NEVER: Duration = Duration::from_millis(300);
/// Seconds that mappings are asked for.
const LEASE_S: u32 = 600;

#[test]
fn nat_pmp_maps_a_port_and_packets_from_strangers_arrive() {
    let (lab, far) = lab();
    let home = lab.site(&Kind::Home.site("home")).unwrap();
    let gateway = Gateway::start(&lab, &home.routers()[0]).unwrap();
    let inside = socket(&home.host().namespace, home.host().v4.unwrap());
    let outside = SocketAddr::new(home.outside_v4().unwrap(), port(&inside));
    assert!(!arrives(&far, outside, &inside), "nothing is mapped yet");
    let mapped = nat_pmp(&inside, gateway.address, port(&inside)).unwrap();
    assert_eq!(mapped, port(&inside));
    assert!(arrives(&far, outside, &inside));
}

#[test]
fn pcp_maps_a_port_and_packets_from_strangers_arrive() {
    let (lab, far) = lab();
    let home = lab.site(&Kind::Home.site("home")).unwrap();
    let gateway = Gateway::start(&lab, &home.routers()[0]).unwrap();
    let inside = socket(&home.host().namespace, home.host().v4.unwrap());
    let mapped = pcp(&inside, gateway.address, home.host().v4.unwrap(), port(&inside)).unwrap();
    assert!(arrives(&far, SocketAddr::new(home.outside_v4().unwrap(), mapped), &inside));
}

#[test]
fn upnp_is_discovered_maps_a_port_and_packets_from_strangers_arrive() {
    let (lab, far) = lab();
    let home = lab.site(&Kind::Home.site("home")).unwrap();
    let gateway = Gateway::start(&lab, &home.routers()[0]).unwrap();
    let host = home.host();
    let location = discover(&host.namespace, host.v4.unwrap());
    assert!(location.starts_with(&format!("http://{}:{UPNP_PORT}/", gateway.address.ip())), "{location}");
    let inside = socket(&host.namespace, host.v4.unwrap());
    let answer = upnp(&host.namespace, gateway.address.ip(), host.v4.unwrap(), port(&inside));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(arrives(&far, SocketAddr::new(home.outside_v4().unwrap(), port(&inside)), &inside));
}

#[test]
fn a_gateway_that_starts_anew_has_forgotten_its_mappings() {
    let (lab, far) = lab();
    let home = lab.site(&Kind::Home.site("home")).unwrap();
    let mut gateway = Gateway::start(&lab, &home.routers()[0]).unwrap();
    let inside = socket(&home.host().namespace, home.host().v4.unwrap());
    let outside = SocketAddr::new(home.outside_v4().unwrap(), port(&inside));
    nat_pmp(&inside, gateway.address, port(&inside)).unwrap();
    assert!(arrives(&far, outside, &inside));
    gateway.restart().unwrap();
    home.reboot().unwrap();
    assert!(!arrives(&far, outside, &inside));
    nat_pmp(&inside, gateway.address, port(&inside)).unwrap();
    assert!(arrives(&far, outside, &inside), "and maps again");
}

#[test]
fn two_routers_in_a_row_are_mapped_one_after_the_other() {
    let (lab, far) = lab();
    let home: BuiltSite = lab.site(&Site::new("deep", vec![Router::new(HOME); 2])).unwrap();
    let [outer, inner] = home.routers() else { panic!("two routers were asked for") };
    let at_outer = Gateway::start(&lab, outer).unwrap();
    let at_inner = Gateway::start(&lab, inner).unwrap();
    let inside = socket(&home.host().namespace, home.host().v4.unwrap());
    // The inner one has a private address outside, says that it has no Internet, and maps nothing by itself (result 3: network failure).
    let refused = nat_pmp(&inside, at_inner.address, port(&inside)).unwrap_err();
    assert_eq!(refused, 3, "the inner router knows that it is not on the Internet");
    // The outer one is asked across the inner one, and maps the inner one's address: whose packets it sees.
    let mapped = nat_pmp(&inside, at_outer.address, port(&inside)).unwrap();
    assert_eq!(mapped, port(&inside));
    // The inner NAT lets a stranger in only where its host has called; the outer one now would.
    assert!(!arrives(&far, SocketAddr::new(home.outside_v4().unwrap(), mapped), &inside));
    inside.send_to(b"open", far.local_addr().unwrap()).unwrap();
    assert!(arrives(&far, SocketAddr::new(home.outside_v4().unwrap(), mapped), &inside));
}

#[test]
fn an_inner_router_that_looks_public_maps_too_and_strangers_arrive_through_both_by_each_protocol() {
    let (lab, far) = lab();
    let home = Site::new("deep", vec![Router::new(HOME); 2]).inner(Inner::LooksPublic);
    let home: BuiltSite = lab.site(&home).unwrap();
    let [outer, inner] = home.routers() else { panic!("two routers were asked for") };
    let at_outer = Gateway::start(&lab, outer).unwrap();
    let at_inner = Gateway::start(&lab, inner).unwrap();
    let (host, between) = (home.host(), IpAddr::from(inner.wan()));
    let own = host.v4.unwrap();
    // The outer one is asked in the name of the inner one, whose packets it sees; by NAT-PMP that says itself.
    let by_nat_pmp = |inside: &UdpSocket| {
        assert_eq!(nat_pmp(inside, at_inner.address, port(inside)).unwrap(), port(inside));
        nat_pmp(inside, at_outer.address, port(inside)).unwrap()
    };
    let by_pcp = |inside: &UdpSocket| {
        assert_eq!(pcp(inside, at_inner.address, own, port(inside)).unwrap(), port(inside));
        assert_eq!(
            pcp(inside, at_outer.address, own, port(inside)),
            Err(12),
            "no such address: RFC 6887 s7.4"
        );
        pcp(inside, at_outer.address, between, port(inside)).unwrap()
    };
    let by_upnp = |inside: &UdpSocket| {
        for (gateway, client) in [(&at_inner, own), (&at_outer, between)] {
            let answer = upnp(&host.namespace, gateway.address.ip(), client, port(inside));
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        port(inside)
    };
    let ways: [&dyn Fn(&UdpSocket) -> u16; 3] = [&by_nat_pmp, &by_pcp, &by_upnp];
    for way in ways {
        let inside = socket(&host.namespace, own);
        let outside = |port| SocketAddr::new(home.outside_v4().unwrap(), port);
        assert!(!arrives(&far, outside(port(&inside)), &inside), "nothing is mapped yet");
        let mapped = way(&inside);
        assert!(arrives(&far, outside(mapped), &inside));
    }
}

fn lab() -> (Lab, UdpSocket) {
    let lab = Lab::new().unwrap();
    let landmark: Landmark = lab.landmark("far").unwrap();
    let far = socket(&landmark.namespace, landmark.v4[0]);
    (lab, far)
}

fn socket(at: &Namespace, ip: IpAddr) -> UdpSocket {
    at.udp(ip).unwrap()
}

fn port(socket: &UdpSocket) -> u16 {
    socket.local_addr().unwrap().port()
}

fn arrives(from: &UdpSocket, to: SocketAddr, at: &UdpSocket) -> bool {
    at.set_read_timeout(Some(NEVER)).unwrap();
    from.send_to(b"knock", to).unwrap();
    let mut buffer = [0; 64];
    while let Ok((length, _)) = at.recv_from(&mut buffer) {
        if &buffer[..length] == b"knock" {
            return true;
        }
    }
    false
}

/// RFC 6886, section 3.3: gives the mapped port, or the result code.
fn nat_pmp(socket: &UdpSocket, gateway: SocketAddr, port: u16) -> Result<u16, u16> {
    let mut request = vec![0, 1, 0, 0];
    request.extend(port.to_be_bytes());
    request.extend(port.to_be_bytes());
    request.extend(LEASE_S.to_be_bytes());
    let answer = ask(socket, gateway, &request, 16);
    assert_eq!(answer[..2], [0, 129]);
    match u16::from_be_bytes([answer[2], answer[3]]) {
        0 => Ok(u16::from_be_bytes([answer[10], answer[11]])),
        result => Err(result),
    }
}

/// RFC 6887, section 11.1: gives the mapped port, or the result code.
fn pcp(socket: &UdpSocket, gateway: SocketAddr, own: IpAddr, port: u16) -> Result<u16, u8> {
    let IpAddr::V4(own) = own else { panic!("PCP is tried by IPv4") };
    let mut request = vec![2, 1, 0, 0];
    request.extend(LEASE_S.to_be_bytes());
    request.extend(own.to_ipv6_mapped().octets());
    request.extend(*b"twelve bytes");
    request.extend([17, 0, 0, 0]);
    request.extend(port.to_be_bytes());
    request.extend(port.to_be_bytes());
    request.extend(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().octets());
    let answer = ask(socket, gateway, &request, 60);
    assert_eq!(answer[..2], [2, 0x81]);
    match answer[3] {
        0 => Ok(u16::from_be_bytes([answer[42], answer[43]])),
        result => Err(result),
    }
}

fn ask(socket: &UdpSocket, gateway: SocketAddr, request: &[u8], length_min: usize) -> Vec<u8> {
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.send_to(request, gateway).unwrap();
    let mut answer = [0; 1_100];
    let (length, from) = socket.recv_from(&mut answer).unwrap();
    assert_eq!(from, gateway);
    assert!(length >= length_min, "{:?}", &answer[..length]);
    answer[..length].to_vec()
}

/// UPnP Device Architecture 1.1, section 1.3.2: gives the address of the description.
fn discover(at: &Namespace, own: IpAddr) -> String {
    let socket = socket(at, own);
    socket.set_read_timeout(Some(SOON)).unwrap();
    let search = "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\n\
                  ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n";
    socket.send_to(search.as_bytes(), "239.255.255.250:1900").unwrap();
    let mut answer = [0; 1_500];
    let (length, _) = socket.recv_from(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    let location = answer.lines().find(|line| line.to_ascii_lowercase().starts_with("location:"));
    location.expect("an answer names its location")[9..].trim().to_owned()
}

/// WANIPConnection:1, section 2.4.16: gives the whole answer.
fn upnp(at: &Namespace, gateway: IpAddr, own: IpAddr, port: u16) -> String {
    let service = "urn:schemas-upnp-org:service:WANIPConnection:1";
    let fields = [
        ("NewRemoteHost", String::new()),
        ("NewExternalPort", port.to_string()),
        ("NewProtocol", "UDP".to_owned()),
        ("NewInternalPort", port.to_string()),
        ("NewInternalClient", own.to_string()),
        ("NewEnabled", "1".to_owned()),
        ("NewPortMappingDescription", "lab".to_owned()),
        ("NewLeaseDuration", LEASE_S.to_string()),
    ];
    let fields: String = fields.iter().map(|(name, value)| format!("<{name}>{value}</{name}>")).collect();
    let body = format!(
        "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>\
         <u:AddPortMapping xmlns:u=\"{service}\">{fields}</u:AddPortMapping></s:Body></s:Envelope>"
    );
    let request = format!(
        "POST /ctl/IPConn HTTP/1.1\r\nHost: {gateway}:{UPNP_PORT}\r\nContent-Type: text/xml\r\n\
         SOAPAction: \"{service}#AddPortMapping\"\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    at.enter(|| {
        let mut stream = TcpStream::connect(SocketAddr::new(gateway, UPNP_PORT))?;
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
    .unwrap()
}
