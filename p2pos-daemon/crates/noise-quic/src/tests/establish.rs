//! N2, N13: the handshake reaches its end whatever the network does to single datagrams, and amplifies nothing.

use super::world::World;

#[test]
fn two_peers_connect_know_each_other_and_talk_both_ways() {
    let mut world = World::pair();
    let (initiator, responder) = world.connect();
    let (ana, bo) = (world.nodes[0].key.peer_id(), world.nodes[1].key.peer_id());
    assert_eq!(world.conn(0, initiator).peer(), Some(bo));
    assert_eq!(world.conn(1, responder).peer(), Some(ana));
    world.assert_talks(initiator, responder);
}
