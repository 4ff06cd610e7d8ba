// Serves /echo-node/1: every stream gets back what it sends. p2pos.mjs beside this file speaks the protocol; README.md walks through.

import { Ended, Session } from './p2pos.mjs';

async function serve(offer) {
  const stream = await offer.accept();
  try {
    // `write` waits for credit, so we read no faster than the peer does: nothing piles up.
    for (let chunk; (chunk = await stream.read()); ) await stream.write(chunk);
    stream.finish();
  } catch (error) {
    if (!(error instanceof Ended)) throw error;
    stream.reset(error.app); // who reads no echo need not write either; if the stream is over already, this says nothing
  }
}

try {
  const session = await Session.connect('echo-node 0.1');
  await session.register({ protocol: '/echo-node/1', serve });
  session.ready();
  const why = await session.over;
  if (why) throw why;
  process.exit(0);
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
