//! Datagram flows between two real nodes.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use p2pos_node::{EndCode, FlowEnd, Lost, SendDatagramError};

use support::{flow, pair, soon, until};

#[tokio::test]
async fn datagrams_of_two_flows_do_not_mix() {
    let (a, b) = pair();
    let (one_here, one_there) = soon(flow(&a, &b)).await;
    let (two_here, two_there) = soon(flow(&a, &b)).await;
    one_here.send(b"one").unwrap();
    two_here.send(b"two").unwrap();
    two_there.send(b"back").unwrap();
    assert_eq!(soon(one_there.recv()).await.unwrap(), "one");
    assert_eq!(soon(two_there.recv()).await.unwrap(), "two");
    assert_eq!(soon(two_here.recv()).await.unwrap(), "back");
}

#[tokio::test]
async fn a_datagram_too_big_for_the_path_fails_here_and_says_how_big_it_may_be() {
    let (a, b) = pair();
    let (here, there) = soon(flow(&a, &b)).await;
    let error = here.send(&vec![0; 65_000]).unwrap_err();
    let SendDatagramError::TooBig { size, max } = error else { panic!("{error}") };
    assert_eq!(size, 65_000);
    assert!(max >= 1_000);
    let fits = vec![7; here.bytes_max().min(1_100)];
    here.send(&fits).unwrap();
    assert_eq!(soon(there.recv()).await.unwrap(), fits);
}

#[tokio::test]
async fn a_flow_that_nobody_reads_drops_its_oldest_datagrams_and_counts_them() {
    const SENT: u32 = 2_000;
    let (a, b) = pair();
    let (slow_here, slow_there) = soon(flow(&a, &b)).await;
    let (quick_here, quick_there) = soon(flow(&a, &b)).await;
    for number in 0..SENT {
        slow_here.send(&number.to_be_bytes()).unwrap();
        if number % 50 == 0 {
            // Lets the packets out, so that our own queue is not what drops.
            tokio::task::yield_now().await;
            quick_here.send(b"quick").unwrap();
            assert_eq!(soon(quick_there.recv()).await.unwrap(), "quick");
        }
    }
    until(|| slow_there.dropped() > 0).await;
    let first = soon(slow_there.recv()).await.unwrap();
    assert!(u32::from_be_bytes(first[..].try_into().unwrap()) > 0, "the oldest is gone");
    assert_eq!(quick_there.dropped(), 0);
}

#[tokio::test]
async fn flows_end_in_good_order_by_code_or_with_their_owner() {
    let (a, b) = pair();
    let (here, there) = soon(flow(&a, &b)).await;
    here.send(b"last words").unwrap();
    assert_eq!(soon(there.recv()).await.unwrap(), "last words");
    here.close(None);
    assert_eq!(soon(there.ended()).await, FlowEnd::Finished);
    assert_eq!(soon(there.recv()).await, None);

    let (here, there) = soon(flow(&a, &b)).await;
    there.close(Some(EndCode::app(5)));
    assert_eq!(soon(here.ended()).await, FlowEnd::Reset(EndCode::app(5)));

    let (here, there) = soon(flow(&a, &b)).await;
    drop(here);
    assert_eq!(soon(there.ended()).await, FlowEnd::Reset(EndCode::PLUGIN_GONE));
}

#[tokio::test]
async fn a_flow_ends_with_its_connection() {
    let (a, b) = pair();
    let (here, _there) = soon(flow(&a, &b)).await;
    soon(b.node.shutdown()).await;
    assert_eq!(soon(here.ended()).await, FlowEnd::Lost(Lost::Closed(EndCode::SHUTTING_DOWN)));
    assert_eq!(soon(here.recv()).await, None);
}

#[tokio::test]
async fn flows_hold_their_connection_in_use() {
    let (a, b) = pair();
    let (_here, _there) = soon(flow(&a, &b)).await;
    assert_eq!(a.node.peers()[0].flows, 1);
    assert_eq!(b.node.peers()[0].flows, 1);
}
