//! Changes of the network: sockets are made anew, and what runs goes on.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use bytes::Bytes;
use p2pos_node::{NetworkChange, PeerStream};

use support::{Daemon, pair, soon, stream};

/// Sends a byte each way.
async fn greet(here: &mut PeerStream, there: &mut PeerStream) {
    here.send.write(Bytes::from_static(b"a")).await.unwrap();
    assert_eq!(soon(there.recv.read_chunk()).await.unwrap().unwrap(), "a");
    there.send.write(Bytes::from_static(b"b")).await.unwrap();
    assert_eq!(soon(here.recv.read_chunk()).await.unwrap().unwrap(), "b");
}

/// Changes the network of one of two daemons, and looks whether a stream that runs goes on.
async fn change(who: impl Fn(&Daemon, &Daemon) -> p2pos_node::Node, change: NetworkChange) {
    let (a, b) = pair();
    let (mut here, mut there) = soon(stream(&a, &b)).await;
    greet(&mut here, &mut there).await;
    let ports = [a.address().port(), b.address().port()];
    soon(who(&a, &b).network_changed(change)).await.unwrap();
    assert_eq!(ports, [a.address().port(), b.address().port()], "the port stays where it can");
    greet(&mut here, &mut there).await;
    assert_eq!(a.node.peers()[0].connections, 1);
}

#[tokio::test]
async fn a_stream_lives_on_when_the_dialling_side_binds_its_sockets_anew() {
    change(|a, _| a.node.clone(), NetworkChange::Addresses).await;
}

#[tokio::test]
async fn a_stream_lives_on_when_the_dialled_side_binds_its_sockets_anew() {
    change(|_, b| b.node.clone(), NetworkChange::Addresses).await;
}

#[tokio::test]
async fn a_mere_suspicion_of_a_change_leaves_working_sockets_alone() {
    change(|a, _| a.node.clone(), NetworkChange::Perhaps).await;
}
